//! What agents can call.
//!
//! [`Tool`] is one tool, [`ToolRegistry`] what a server offers. A tool reads its arguments, calls the
//! mailbox and renders the answer; it knows nothing of JSON-RPC or HTTP.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value, value::RawValue};

use crate::messaging::{CallContext, Delivery};

/// The arguments of a call, as sent. Unknown ones are ignored.
pub type Arguments = Map<String, Value>;

/// One tool.
#[async_trait]
pub trait Tool: Send + Sync {
    /// Its name, as called.
    fn name(&self) -> &'static str;

    /// Its entry in `tools/list`: `name`, `description`, `inputSchema`, `outputSchema`, `annotations`.
    fn definition(&self) -> Value;

    /// Whether `tools/list` shows it. Aliases of older clients are called and not shown.
    fn listed(&self) -> bool {
        true
    }

    /// Whether a call with these arguments may take long: then it is answered as a stream.
    fn may_wait(&self, _arguments: &Arguments) -> bool {
        false
    }

    /// Calls it. What the caller can mend is an outcome; an error is the server's.
    async fn call(
        &self,
        arguments: Arguments,
        context: &CallContext,
    ) -> Result<ToolOutcome, ToolError>;
}

/// What a call answers.
#[derive(Debug)]
pub struct ToolOutcome {
    /// Markdown for the model.
    pub text: String,
    /// For programs, under the tool's `outputSchema`. `None` when the call was refused as a whole.
    pub structured: Option<Box<RawValue>>,
    /// A tool execution error: refused, with a text that the model can act on.
    pub is_error: bool,
    /// To be settled by whoever writes the response.
    pub delivery: Option<Delivery>,
    /// The call was cancelled by its client: nothing is to be written.
    pub cancelled: bool,
}

/// A call came to nothing, and its caller cannot mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// No tool of that name.
    #[error("unknown tool")]
    Unknown,
    /// The store is not there. The call may have happened.
    #[error(
        "the message store does not answer; try again. A send may have been accepted: \
         repeat it with the same idempotency_key"
    )]
    Unavailable,
    /// A fault of ours.
    #[error("internal error")]
    Internal,
}

/// The tools of one server, in the order of `tools/list`.
#[derive(Clone, Default)]
pub struct ToolRegistry {
    tools: Arc<Vec<Arc<dyn Tool>>>,
}

impl ToolRegistry {
    /// These tools. A listed tool shows in `tools/list`; aliases are only called.
    #[must_use]
    pub fn new(tools: Vec<Arc<dyn Tool>>) -> Self {
        Self { tools: Arc::new(tools) }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Arc<dyn Tool>] {
        &self.tools
    }

    /// The tool of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Tool>> {
        self.tools.iter().find(|tool| tool.name() == name)
    }
}
