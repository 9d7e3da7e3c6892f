//! Tools that do one thing each.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use mcp_messaging::{
    dialogue::{InputRequired, LogLevel},
    messaging::{Acknowledge, CallContext, MessagingService, ReceiveRequest, ReceivedWhy},
    tools::{Arguments, Tool, ToolError, ToolOutcome, ToolRegistry},
};
use serde_json::{Value, json};

use super::Store;

pub(crate) fn registry(messaging: &MessagingService, store: &Arc<Store>) -> ToolRegistry {
    ToolRegistry::new(vec![
        Arc::new(Echo { name: "echo", listed: true }),
        Arc::new(Echo { name: "old_echo", listed: false }),
        Arc::new(Broken),
        Arc::new(Take(messaging.clone())),
        Arc::new(Hang(Arc::clone(store))),
        Arc::new(Talk),
    ])
}

fn said(text: String, structured: Option<Value>, is_error: bool) -> ToolOutcome {
    let structured = structured.map(|value| serde_json::value::to_raw_value(&value).unwrap());
    ToolOutcome { text, structured, is_error, ..ToolOutcome::default() }
}

/// Says what it was told; refuses without `text`.
struct Echo {
    name: &'static str,
    listed: bool,
}

#[async_trait]
impl Tool for Echo {
    fn name(&self) -> &'static str {
        self.name
    }

    fn definition(&self) -> Value {
        json!({ "name": self.name, "inputSchema": { "type": "object" } })
    }

    fn listed(&self) -> bool {
        self.listed
    }

    async fn call(
        &self,
        arguments: Arguments,
        context: &CallContext,
    ) -> Result<ToolOutcome, ToolError> {
        let trace = context.trace.map(|trace| trace.to_string());
        Ok(match arguments.get("text").and_then(Value::as_str) {
            Some(text) => said(text.into(), Some(json!({ "text": text, "trace": trace })), false),
            None => said("text is missing".into(), None, true),
        })
    }
}

/// Fails as its argument says.
struct Broken;

#[async_trait]
impl Tool for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn definition(&self) -> Value {
        json!({ "name": "broken", "inputSchema": { "type": "object" } })
    }

    async fn call(&self, arguments: Arguments, _: &CallContext) -> Result<ToolOutcome, ToolError> {
        Err(if arguments.contains_key("store") {
            ToolError::Unavailable
        } else {
            ToolError::Internal
        })
    }
}

/// Takes mail, for `wait_ms`. `pad`: so many bytes more in the answer.
struct Take(MessagingService);

#[async_trait]
impl Tool for Take {
    fn name(&self) -> &'static str {
        "take"
    }

    fn definition(&self) -> Value {
        json!({ "name": "take", "inputSchema": { "type": "object" } })
    }

    fn may_wait(&self, arguments: &Arguments) -> bool {
        arguments.contains_key("wait_ms")
    }

    async fn call(
        &self,
        arguments: Arguments,
        context: &CallContext,
    ) -> Result<ToolOutcome, ToolError> {
        let number = |key: &str| arguments.get(key).and_then(Value::as_u64).unwrap_or(0);
        let request = ReceiveRequest {
            client: "bob".parse().unwrap(),
            wait: Duration::from_millis(number("wait_ms")),
            max_messages: None,
            acknowledge: Acknowledge::Auto,
            receipt: None,
        };
        let received =
            self.0.receive(&request, context).await.map_err(|_| ToolError::Unavailable)?;
        let mut text = match received.why {
            ReceivedWhy::Mail => received.messages.iter().map(|message| &*message.text).collect(),
            ReceivedWhy::Empty => String::from("nothing"),
            ReceivedWhy::AskAgain => String::from("ask again"),
            ReceivedWhy::Unwelcome => String::from("not welcome"),
            ReceivedWhy::Busy { .. } => String::from("busy"),
            ReceivedWhy::Superseded => String::from("superseded"),
            ReceivedWhy::Cancelled => String::new(),
        };
        text.push_str(&"x".repeat(usize::try_from(number("pad")).unwrap()));
        let cancelled = received.why == ReceivedWhy::Cancelled;
        Ok(ToolOutcome { delivery: received.delivery, cancelled, ..said(text, None, false) })
    }
}

/// Never ends. Without `stream` it is answered as JSON.
struct Hang(Arc<Store>);

struct Running(Arc<Store>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.hangs.store(false, Ordering::SeqCst);
    }
}

#[async_trait]
impl Tool for Hang {
    fn name(&self) -> &'static str {
        "hang"
    }

    fn definition(&self) -> Value {
        json!({ "name": "hang", "inputSchema": { "type": "object" } })
    }

    fn may_wait(&self, arguments: &Arguments) -> bool {
        arguments.contains_key("stream")
    }

    async fn call(&self, _: Arguments, _: &CallContext) -> Result<ToolOutcome, ToolError> {
        self.0.hangs.store(true, Ordering::SeqCst);
        let _running = Running(Arc::clone(&self.0));
        std::future::pending().await
    }
}

/// Talks with its client, as `do` says.
struct Talk;

#[async_trait]
impl Tool for Talk {
    fn name(&self) -> &'static str {
        "talk"
    }

    fn definition(&self) -> Value {
        json!({ "name": "talk", "inputSchema": { "type": "object" } })
    }

    fn converses(&self) -> bool {
        true
    }

    async fn call(
        &self,
        arguments: Arguments,
        context: &CallContext,
    ) -> Result<ToolOutcome, ToolError> {
        let client = context.exchange.as_deref().expect("it converses");
        let text = match arguments.get("do").and_then(Value::as_str).unwrap_or_default() {
            "report" => {
                for progress in [1.0, 2.0] {
                    client.progress(progress, Some(2.0), Some("on it")).await;
                }
                String::from("reported")
            }
            "log" => {
                client.log(LogLevel::Debug, "talk", json!("small")).await;
                client.log(LogLevel::Error, "talk", json!({ "big": true })).await;
                String::from("logged")
            }
            "ask" => match client.ask("roots/list", json!({})).await {
                Ok(answer) => answer.to_string(),
                Err(error) => error.to_string(),
            },
            "require" => {
                let Some(answer) = client.input("who") else {
                    let schema = json!({
                        "type": "object", "properties": { "name": { "type": "string" } },
                    });
                    let params = json!({ "message": "Who?", "requestedSchema": schema });
                    let input = InputRequired::default().and("who", "elicitation/create", &params);
                    return Err(ToolError::InputRequired(Box::new(
                        input.with_state("kept".into()),
                    )));
                };
                format!("{} {}", client.state().unwrap_or_default(), answer["content"]["name"])
            }
            "sample" if !client.client_can("sampling") => {
                return Err(ToolError::MissingCapability("sampling"));
            }
            other => format!("nothing: {other}"),
        };
        Ok(said(text, None, false))
    }
}
