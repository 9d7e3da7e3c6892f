//! The tasks of the mailbox: questions of `send_message_and_wait` whose client asks for the answer later.
//!
//! Only these. A `get_messages` that waits holds the head of its inbox with what it answers: as a task it would
//! hold it, against every other reader, until somebody asks or its time is over; and who can ask for a task can as
//! well call `get_messages` again, or watch the inbox.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::{
    Task, TaskError, TaskState, Tasks, ToolError,
    outcome::{self, Stop},
    send_message_and_wait::Told,
};
use crate::{
    messaging::{CallContext, MessagingError, MessagingService, TaskLook, TaskProgress},
    model::Scope,
    queue::TaskRecord,
};

/// Asking more often finds nothing sooner that matters to a model.
const POLL: Duration = Duration::from_secs(1);

/// The tasks.
pub(super) struct Questions {
    pub messaging: MessagingService,
}

#[async_trait]
impl Tasks for Questions {
    fn scopes(&self) -> &'static [Scope] {
        &[Scope::Read]
    }

    async fn get(&self, id: &str, context: &CallContext) -> Result<Task, TaskError> {
        let look = self.messaging.task(id, context).await.map_err(failed)?;
        Ok(shown(look.ok_or(TaskError::Unknown)?))
    }

    /// A question never requires input, so no key is outstanding.
    async fn update(
        &self,
        id: &str,
        _answers: Map<String, Value>,
        context: &CallContext,
    ) -> Result<(), TaskError> {
        known(self.messaging.has_task(id, context).await)
    }

    async fn cancel(&self, id: &str, context: &CallContext) -> Result<(), TaskError> {
        known(self.messaging.cancel_task(id, context).await)
    }
}

fn known(known: Result<bool, MessagingError>) -> Result<(), TaskError> {
    if known.map_err(failed)? { Ok(()) } else { Err(TaskError::Unknown) }
}

fn failed(error: MessagingError) -> TaskError {
    if let MessagingError::Overloaded { .. } = error {
        return TaskError::Busy;
    }
    match Stop::sort(error) {
        Stop::Failed(ToolError::Unavailable) => TaskError::Unavailable,
        Stop::Failed(_) | Stop::Refused(_) | Stop::BadArgument(_) | Stop::Cancelled => {
            TaskError::Internal
        }
    }
}

/// A task that has just begun.
pub(super) fn begun(task: &TaskRecord, message: String) -> Task {
    show(task, TaskState::Working, message, task.created_ms)
}

fn show(task: &TaskRecord, state: TaskState, message: String, updated_at_ms: u64) -> Task {
    Task {
        id: task.id.expose(),
        state,
        message,
        created_at_ms: task.created_ms,
        updated_at_ms,
        ttl: Duration::from_millis(task.ends_ms.saturating_sub(task.created_ms)),
        poll: POLL,
    }
}

fn shown(look: TaskLook) -> Task {
    let TaskLook { task, progress, other_messages, delivery } = look;
    let reply = match &progress {
        TaskProgress::Waiting => {
            let message = format!("Waiting for the reply to message_id {}.", task.wait);
            return show(&task, TaskState::Working, message, task.created_ms);
        }
        TaskProgress::Unreadable(why) => {
            let message = format!(
                "The reply to message_id {} came, and it {why}. It is not lost: ask again, or see get_messages \
                 later, once that is mended. Tell whoever runs this server.",
                task.wait
            );
            return show(&task, TaskState::Working, message, task.created_ms);
        }
        TaskProgress::Cancelled => {
            let message = String::from("Given up. A reply will be in get_messages.");
            let at_ms = task.cancelled_ms.unwrap_or(task.now_ms);
            return show(&task, TaskState::Cancelled, message, at_ms);
        }
        TaskProgress::Replied(reply) => Some(&**reply),
        TaskProgress::Pending => None,
    };
    let at_ms = reply.map_or(task.deadline_ms.min(task.now_ms), |reply| reply.accepted_at_ms);
    let told = Told {
        recipient: &task.peer,
        question: task.wait,
        reply,
        // What is not confirmed becomes no task.
        unconfirmed: false,
        other_messages,
        notices: &[],
    };
    let without = format!(
        "No reply here to message_id {}. One that came, or comes, is in get_messages; don't send it again.\n",
        task.wait
    );
    let outcome = outcome::settle(told.with(without));
    let state = match outcome {
        Ok(outcome) => TaskState::Completed(Box::new(outcome.carrying(delivery))),
        Err(error) => TaskState::Failed(error),
    };
    show(&task, state, String::new(), at_ms)
}
