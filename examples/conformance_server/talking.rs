//! Tools that talk to their client while they run: progress, log lines, changed lists. And one way to
//! write a tool that converses as a function.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use mcp_messaging::{
    dialogue::{Exchange, LogLevel},
    mcp::ListKind,
    messaging::CallContext,
    tools::{Arguments, Tool, ToolError, ToolOutcome},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    content::{nothing, text},
    sessions::Lists,
};

const PAUSE: Duration = Duration::from_millis(50);

/// What a tool comes to.
pub(crate) type Outcome = Result<ToolOutcome, ToolError>;
type Run = fn(Arc<dyn Exchange>, Arguments) -> Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A tool that converses, as a function.
pub(crate) struct Conversation {
    pub name: &'static str,
    pub description: &'static str,
    pub schema: fn() -> Value,
    pub run: Run,
}

/// One that takes no arguments.
pub(crate) fn conversation(
    name: &'static str,
    description: &'static str,
    run: Run,
) -> Arc<dyn Tool> {
    Arc::new(Conversation { name, description, schema: nothing, run })
}

#[async_trait]
impl Tool for Conversation {
    fn name(&self) -> &'static str {
        self.name
    }

    fn definition(&self) -> Value {
        json!({
            "name": self.name, "description": self.description, "inputSchema": (self.schema)(),
        })
    }

    fn converses(&self) -> bool {
        true
    }

    async fn call(&self, arguments: Arguments, context: &CallContext) -> Outcome {
        let exchange = context.exchange.clone().ok_or(ToolError::Internal)?;
        (self.run)(exchange, arguments).await
    }
}

async fn log_three_times(client: &dyn Exchange) {
    for line in ["Tool execution started", "Tool processing data", "Tool execution completed"] {
        client.log(LogLevel::Info, "conformance-server", json!(line)).await;
        sleep(PAUSE).await;
    }
}

/// Says that a list has changed.
struct Trigger {
    name: &'static str,
    list: ListKind,
    lists: Arc<Lists>,
}

#[async_trait]
impl Tool for Trigger {
    fn name(&self) -> &'static str {
        self.name
    }

    fn definition(&self) -> Value {
        json!({
            "name": self.name, "description": "Says that a list has changed",
            "inputSchema": nothing(),
        })
    }

    async fn call(&self, _: Arguments, _: &CallContext) -> Outcome {
        self.lists.change(self.list);
        Ok(text("The list has changed."))
    }
}

pub(crate) fn tools(lists: &Arc<Lists>) -> Vec<Arc<dyn Tool>> {
    let trigger = |name, list| -> Arc<dyn Tool> {
        Arc::new(Trigger { name, list, lists: Arc::clone(lists) })
    };
    vec![
        conversation("test_tool_with_progress", "Reports progress", |client, _| {
            Box::pin(async move {
                for progress in [0.0, 50.0, 100.0] {
                    client.progress(progress, Some(100.0), Some("working")).await;
                    sleep(PAUSE).await;
                }
                Ok(text("Progress was reported."))
            })
        }),
        conversation("test_tool_with_logging", "Logs three lines", |client, _| {
            Box::pin(async move {
                log_three_times(&*client).await;
                Ok(text("Three lines were logged."))
            })
        }),
        conversation("test_logging_tool", "Logs three lines", |client, _| {
            Box::pin(async move {
                log_three_times(&*client).await;
                Ok(text("Three lines were logged to who wants them."))
            })
        }),
        trigger("test_trigger_tool_change", ListKind::Tools),
        trigger("test_trigger_prompt_change", ListKind::Prompts),
    ]
}
