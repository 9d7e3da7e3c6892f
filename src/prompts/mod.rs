//! What users can start by name: prompts, which hosts show as commands.
//!
//! [`Prompt`] is one prompt, [`PromptRegistry`] what a server offers. A prompt knows nothing of
//! JSON-RPC or HTTP.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};

use crate::{
    dialogue::{Completion, InputRequired},
    messaging::CallContext,
};

/// The arguments of `prompts/get`, as sent. Unknown ones are ignored.
pub type PromptArguments = Map<String, Value>;

/// One prompt.
#[async_trait]
pub trait Prompt: Send + Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Its entry in `prompts/list`: `name`, `title`, `description`, `arguments`.
    fn definition(&self) -> Value;

    /// Whether it talks with its client: then it finds it in [`CallContext::exchange`].
    fn converses(&self) -> bool {
        false
    }

    /// Whether it suggests values for its arguments ([`complete`](Self::complete)).
    fn completes(&self) -> bool {
        false
    }

    /// Suggests values for an argument that begins with `value`.
    async fn complete(&self, _argument: &str, _value: &str, _context: &CallContext) -> Completion {
        Completion::default()
    }

    /// What it says.
    ///
    /// # Errors
    /// [`PromptError`].
    async fn get(
        &self,
        arguments: PromptArguments,
        context: &CallContext,
    ) -> Result<PromptOutcome, PromptError>;
}

/// The result of `prompts/get`.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptOutcome {
    /// What it is for.
    pub description: String,
    /// Objects with `role` and `content`.
    pub messages: Vec<Value>,
}

/// Why a prompt was not rendered. Causes never get into the texts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// Its client has to answer something first. Not an error for the client.
    #[error("input is required")]
    InputRequired(Box<InputRequired>),
    /// An argument is missing or wrong: which, and what is expected.
    #[error("{0}")]
    Argument(String),
    /// The store is not there.
    #[error("the message store does not answer; try again")]
    Unavailable,
    /// A fault of ours.
    #[error("internal error")]
    Internal,
}

/// The prompts of one server, in the order of `prompts/list`.
#[derive(Clone, Default)]
pub struct PromptRegistry {
    prompts: Arc<Vec<Arc<dyn Prompt>>>,
}

impl PromptRegistry {
    /// These prompts.
    #[must_use]
    pub fn new(prompts: Vec<Arc<dyn Prompt>>) -> Self {
        Self { prompts: Arc::new(prompts) }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Arc<dyn Prompt>] {
        &self.prompts
    }

    /// The prompt of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Prompt>> {
        self.prompts.iter().find(|prompt| prompt.name() == name)
    }
}
