//! Calls that are answered later: their client gets a handle, and asks with it what they have come to.
//!
//! The words and the port of the extension `io.modelcontextprotocol/tasks` (SEP-2663). A tool whose call
//! is to be a task keeps it where every replica finds it and answers with [`ToolOutcome::task`]; it may do
//! so only where [`CallContext::takes_tasks`] says that the client understands it.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::{ToolError, ToolOutcome};
use crate::{messaging::CallContext, model::Scope};

/// A call that is answered later.
#[derive(Debug)]
pub struct Task {
    /// The handle. Nobody can guess it, and it names nobody: clients mirror it into a header.
    pub id: String,
    /// What it has come to.
    pub state: TaskState,
    /// About its state, for people and models. May be empty.
    pub message: String,
    /// When it began, milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// When its state changed last, milliseconds since the Unix epoch.
    pub updated_at_ms: u64,
    /// It can be asked for until so long after it began.
    pub ttl: Duration,
    /// Ask so often.
    pub poll: Duration,
}

/// What a task has come to. Only the first two may change.
#[derive(Debug)]
pub enum TaskState {
    /// Nothing yet.
    Working,
    /// Its client has to answer these requests first, by key. A key never names two requests of a task.
    InputRequired(Map<String, Value>),
    /// What the call answers, refused or not.
    Completed(Box<ToolOutcome>),
    /// What the call would have failed with.
    Failed(ToolError),
    /// Its client gave it up.
    Cancelled,
}

/// Why nothing is said of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// There is none of that id, or no longer, or not for this caller.
    #[error("task not found: its id is wrong, or its time is over")]
    Unknown,
    /// Too much is asked of the server.
    #[error("this server has as many calls as it may; try again in a few seconds")]
    Busy,
    /// The store is not there.
    #[error("the message store does not answer; try again")]
    Unavailable,
    /// A fault of ours.
    #[error("internal error")]
    Internal,
}

/// The tasks of one server, of all its replicas.
#[async_trait]
pub trait Tasks: Send + Sync {
    /// What a caller's credential must allow, where there are credentials.
    fn scopes(&self) -> &'static [Scope] {
        &[]
    }

    /// What a task has come to. An outcome may come with a delivery, as that of a call does, and may be
    /// asked for again until the task's time is over.
    ///
    /// # Errors
    /// [`TaskError`].
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing of the outcome.
    async fn get(&self, id: &str, context: &CallContext) -> Result<Task, TaskError>;

    /// What its client answered to requests of the task, by key. Keys that are not outstanding are ignored:
    /// never asked, or answered already.
    ///
    /// # Errors
    /// [`TaskError`].
    async fn update(
        &self,
        id: &str,
        answers: Map<String, Value>,
        context: &CallContext,
    ) -> Result<(), TaskError>;

    /// Its client gives it up. One that has come to its end stays as it is. May be repeated.
    ///
    /// # Errors
    /// [`TaskError`].
    async fn cancel(&self, id: &str, context: &CallContext) -> Result<(), TaskError>;
}
