//! Resources and prompts that do one thing each.

use std::sync::Arc;

use async_trait::async_trait;
use mcp_messaging::{
    dialogue::Completion,
    mcp::Offer,
    messaging::CallContext,
    model::{Inbox, Tenant},
    prompts::{Prompt, PromptArguments, PromptError, PromptOutcome, PromptRegistry},
    queue::{QueueBackend, Topic, Wakeups},
    resources::{Changes, Resource, ResourceError, ResourceRegistry},
};
use serde_json::{Value, json};

use super::Store;

pub(crate) fn offer(store: &Arc<Store>) -> Offer {
    Offer {
        resources: ResourceRegistry::new(vec![Arc::new(Note), Arc::new(Shelf(Arc::clone(store)))]),
        prompts: PromptRegistry::new(vec![Arc::new(Greet)]),
        ..Offer::default()
    }
}

/// A text that never changes.
struct Note;

#[async_trait]
impl Resource for Note {
    fn definition(&self) -> Value {
        json!({ "uri": "note://only", "name": "note" })
    }

    fn matches(&self, uri: &str) -> bool {
        uri == "note://only"
    }

    async fn read(&self, uri: &str, _: &CallContext) -> Result<Vec<Value>, ResourceError> {
        Ok(vec![json!({ "uri": uri, "mimeType": "text/plain", "text": "a note" })])
    }
}

/// Changes when mail comes. `shelf://none` is not there, `shelf://down` cannot be looked at.
struct Shelf(Arc<Store>);

struct Mail(Wakeups);

#[async_trait]
impl Changes for Mail {
    async fn changed(&mut self) {
        self.0.next().await;
    }
}

#[async_trait]
impl Resource for Shelf {
    fn definition(&self) -> Value {
        json!({ "uriTemplate": "shelf://{name}", "name": "shelf" })
    }

    fn is_template(&self) -> bool {
        true
    }

    fn matches(&self, uri: &str) -> bool {
        uri.starts_with("shelf://")
    }

    async fn read(&self, uri: &str, _: &CallContext) -> Result<Vec<Value>, ResourceError> {
        match uri {
            "shelf://none" => Err(ResourceError::NotFound),
            "shelf://down" => Err(ResourceError::Unavailable),
            _ => Ok(vec![json!({ "uri": uri, "text": "" })]),
        }
    }

    fn can_be_watched(&self) -> bool {
        true
    }

    async fn watch(
        &self,
        uri: &str,
        context: &CallContext,
    ) -> Result<Option<Box<dyn Changes>>, ResourceError> {
        self.read(uri, context).await?;
        let bob = Inbox::new(Tenant::default(), "bob".parse().unwrap());
        let wakeups =
            self.0.watch(Topic::Inbox(bob)).await.map_err(|_| ResourceError::Unavailable)?;
        Ok(Some(Box::new(Mail(wakeups))))
    }
}

/// Greets who is named.
struct Greet;

#[async_trait]
impl Prompt for Greet {
    fn name(&self) -> &'static str {
        "greet"
    }

    fn definition(&self) -> Value {
        json!({ "name": "greet", "arguments": [{ "name": "whom", "required": true }] })
    }

    fn completes(&self) -> bool {
        true
    }

    async fn complete(&self, argument: &str, value: &str, _: &CallContext) -> Completion {
        let values = (0..150).map(|number| format!("{argument}-{value}{number}")).collect();
        Completion { values, total: Some(150), has_more: false }
    }

    async fn get(
        &self,
        arguments: PromptArguments,
        _: &CallContext,
    ) -> Result<PromptOutcome, PromptError> {
        let whom = arguments.get("whom").and_then(Value::as_str);
        let whom = whom.ok_or_else(|| PromptError::Argument("whom is missing".into()))?;
        let content = json!({ "type": "text", "text": format!("Greet {whom}.") });
        Ok(PromptOutcome {
            description: "A greeting".into(),
            messages: vec![json!({ "role": "user", "content": content })],
        })
    }
}
