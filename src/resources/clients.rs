//! `clients://`: who checked in.
//!
//! It cannot be watched: it says when each client was last seen, so it changes all the time, and no
//! store tells of it.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{MARKDOWN, Resource, ResourceError, markdown, sorted};
use crate::{
    messaging::{CallContext, MessagingService},
    queue::ClientQuery,
    tools::list_clients::{PAGE, told},
};

const URI: &str = "clients://";

/// The resource.
pub(super) struct Clients {
    pub(super) messaging: MessagingService,
}

#[async_trait]
impl Resource for Clients {
    fn definition(&self) -> Value {
        json!({
            "uri": URI,
            "name": "clients",
            "title": "Agents to write to",
            "description": "Who checked in, what they can do, whether they wait for mail now.",
            "mimeType": MARKDOWN,
        })
    }

    fn matches(&self, uri: &str) -> bool {
        uri == URI
    }

    async fn read(&self, uri: &str, context: &CallContext) -> Result<Vec<Value>, ResourceError> {
        let query = ClientQuery { limit: PAGE, ..ClientQuery::default() };
        let page = self.messaging.clients(&query, context).await.map_err(sorted)?;
        Ok(markdown(uri, &told(&query, &page)))
    }
}
