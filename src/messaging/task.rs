//! Questions whose answer is asked for by a handle, on any replica.
//!
//! Nothing runs for a task: it is its wait in the store, and what the wait has come to is looked up when
//! somebody asks. So it does not matter what became of the replica that began it.
//!
//! * The reply is acknowledged when the response that carries it was written, as for any wait. From then on it
//!   is kept until the task ends, for a client that asks again, and marked as redelivered.
//! * A reply that nobody acknowledged goes to the inbox after [`Rules::task_hold`](super::Rules::task_hold).
//! * Given up, the wait is closed: a late reply goes to the inbox.

use super::{CallContext, Delivery, MessagingError, MessagingService, delivery::Claim};
use crate::{
    model::{Inbox, Message},
    queue::{QueueError, Taken, TaskId, TaskRecord, Unreadable},
};

/// What a task has come to.
#[derive(Debug)]
pub struct TaskLook {
    /// Which one.
    pub task: TaskRecord,
    /// What it has come to.
    pub progress: TaskProgress,
    /// Other mail in the asker's inbox, which stays there.
    pub other_messages: u64,
    /// To be settled by whoever writes the response.
    pub delivery: Option<Delivery>,
}

/// What a task has come to.
#[derive(Debug)]
pub enum TaskProgress {
    /// It waits for the reply.
    Waiting,
    /// The reply came, and this replica cannot read it: it is kept as one that nobody asked for.
    Unreadable(Unreadable),
    /// The reply.
    Replied(Box<Message>),
    /// It is over without a reply. One that comes is in the inbox, and so may be one that came.
    Pending,
    /// Its client gave it up.
    Cancelled,
}

impl MessagingService {
    /// What a task has come to; `None`: there is none of that id for this caller.
    ///
    /// # Errors
    /// [`MessagingError::Overloaded`] or [`MessagingError::Queue`].
    ///
    /// # Cancel safety
    /// Dropping the future does not lose the reply: it stays with the task, marked as handed out.
    pub async fn task(
        &self,
        id: &str,
        context: &CallContext,
    ) -> Result<Option<TaskLook>, MessagingError> {
        let Some(task) = self.known_task(id, context).await? else { return Ok(None) };
        let mut look =
            TaskLook { task, progress: TaskProgress::Cancelled, other_messages: 0, delivery: None };
        if look.task.cancelled_ms.is_some() {
            return Ok(Some(look));
        }
        let state = match self.queue.wait_take(&look.task.inbox, look.task.wait).await {
            Err(QueueError::Unreadable { why, .. }) => {
                look.progress = TaskProgress::Unreadable(why);
                return Ok(Some(look));
            }
            found => found?,
        };
        look.other_messages = state.queued;
        look.progress = match state.taken {
            Taken::Open if look.task.now_ms < look.task.deadline_ms => TaskProgress::Waiting,
            Taken::Open | Taken::Gone => TaskProgress::Pending,
            Taken::Reply(reply) => {
                self.note_delivered(&look.task.inbox, std::slice::from_ref(&reply));
                let task = Box::new(look.task.clone());
                look.delivery = self.settler().deliver(vec![Claim::Fetched { task }]);
                TaskProgress::Replied(reply)
            }
        };
        Ok(Some(look))
    }

    /// Whether there is a task of that id for this caller.
    ///
    /// # Errors
    /// [`MessagingError::Overloaded`] or [`MessagingError::Queue`].
    pub async fn has_task(&self, id: &str, context: &CallContext) -> Result<bool, MessagingError> {
        Ok(self.known_task(id, context).await?.is_some())
    }

    /// Gives a task up, unless it has come to its end. `false`: there is none of that id for this caller.
    ///
    /// # Errors
    /// [`MessagingError::Overloaded`] or [`MessagingError::Queue`].
    pub async fn cancel_task(
        &self,
        id: &str,
        context: &CallContext,
    ) -> Result<bool, MessagingError> {
        let Some(task) = self.known_task(id, context).await? else { return Ok(false) };
        self.queue.task_cancel(&task).await?;
        Ok(true)
    }

    async fn known_task(
        &self,
        id: &str,
        context: &CallContext,
    ) -> Result<Option<TaskRecord>, MessagingError> {
        let Some(id) = TaskId::parse(id) else { return Ok(None) };
        let _place = self.waiters.run(&context.stop).await?;
        let task = self.queue.task(&id).await?;
        Ok(task.filter(|task| may_ask(context, &task.inbox)))
    }
}

/// Whether a caller is whoever began a task of this inbox. Requests about tasks name no client: where nothing is
/// proved, the id, which nobody can guess, stands for the client that got it.
fn may_ask(context: &CallContext, owner: &Inbox) -> bool {
    context.principal.owns(owner.client()) && owner.tenant() == context.tenant()
}
