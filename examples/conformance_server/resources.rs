//! Resources: of text, of bytes, one that can be watched, and a template.

use std::sync::Arc;

use async_trait::async_trait;
use mcp_messaging::{
    messaging::CallContext,
    resources::{Changes, Resource, ResourceError, ResourceRegistry},
};
use serde_json::{Value, json};

use crate::content::PNG;

/// One that is always the same.
struct Fixed {
    uri: &'static str,
    name: &'static str,
    mime: &'static str,
    key: &'static str,
    content: &'static str,
    watched: bool,
}

/// It can be watched, and never changes.
struct Never;

#[async_trait]
impl Changes for Never {
    async fn changed(&mut self) {
        std::future::pending::<()>().await;
    }
}

#[async_trait]
impl Resource for Fixed {
    fn definition(&self) -> Value {
        json!({
            "uri": self.uri, "name": self.name, "description": self.name, "mimeType": self.mime,
        })
    }

    fn matches(&self, uri: &str) -> bool {
        uri == self.uri
    }

    async fn read(&self, uri: &str, _: &CallContext) -> Result<Vec<Value>, ResourceError> {
        Ok(vec![json!({ "uri": uri, "mimeType": self.mime, self.key: self.content })])
    }

    fn can_be_watched(&self) -> bool {
        self.watched
    }

    async fn watch(
        &self,
        _: &str,
        _: &CallContext,
    ) -> Result<Option<Box<dyn Changes>>, ResourceError> {
        Ok(self.watched.then(|| Box::new(Never) as _))
    }
}

/// `test://template/{id}/data`.
struct Template;

fn id_of(uri: &str) -> Option<&str> {
    let id = uri.strip_prefix("test://template/")?.strip_suffix("/data")?;
    (!id.is_empty() && !id.contains('/')).then_some(id)
}

#[async_trait]
impl Resource for Template {
    fn definition(&self) -> Value {
        json!({
            "uriTemplate": "test://template/{id}/data", "name": "Template",
            "description": "A resource for each id", "mimeType": "application/json",
        })
    }

    fn is_template(&self) -> bool {
        true
    }

    fn matches(&self, uri: &str) -> bool {
        id_of(uri).is_some()
    }

    async fn read(&self, uri: &str, _: &CallContext) -> Result<Vec<Value>, ResourceError> {
        let id = id_of(uri).ok_or(ResourceError::NotFound)?;
        let data = json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
        Ok(vec![json!({ "uri": uri, "mimeType": "application/json", "text": data.to_string() })])
    }
}

pub(crate) fn registry() -> ResourceRegistry {
    ResourceRegistry::new(vec![
        Arc::new(Fixed {
            uri: "test://static-text",
            name: "Static text",
            mime: "text/plain",
            key: "text",
            content: "This is the content of the static text resource.",
            watched: false,
        }),
        Arc::new(Fixed {
            uri: "test://static-binary",
            name: "Static image",
            mime: "image/png",
            key: "blob",
            content: PNG,
            watched: false,
        }),
        Arc::new(Fixed {
            uri: "test://watched-resource",
            name: "Watched text",
            mime: "text/plain",
            key: "text",
            content: "Watched resource content",
            watched: true,
        }),
        Arc::new(Template),
    ])
}
