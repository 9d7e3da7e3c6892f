//! `guide://usage`: how to use the mailbox.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{MARKDOWN, Resource, ResourceError, markdown};
use crate::messaging::CallContext;

const URI: &str = "guide://usage";
const TEXT: &str = include_str!("guide.md");

/// The resource.
pub(super) struct Guide;

#[async_trait]
impl Resource for Guide {
    fn definition(&self) -> Value {
        json!({
            "uri": URI,
            "name": "usage",
            "title": "How to use the mailbox",
            "description": "How an agent checks in, sends, waits and answers here, and loses nothing.",
            "mimeType": MARKDOWN,
            "size": TEXT.trim_end().len(),
        })
    }

    fn matches(&self, uri: &str) -> bool {
        uri == URI
    }

    async fn read(&self, uri: &str, _context: &CallContext) -> Result<Vec<Value>, ResourceError> {
        Ok(markdown(uri, TEXT))
    }
}
