//! Waits that are asked for by an id.

use std::time::Duration;

use fred::types::Value;

use super::{
    RedisQueue, bytes, count,
    functions::Operation,
    keys::{self, InboxKeys},
    link::Call,
    millis,
    reply::{self, Answer, contract},
};
use crate::{
    model::{Address, Inbox, MessageId},
    queue::{QueueError, TaskId, TaskRecord},
};

impl RedisQueue {
    pub(super) async fn open_task(
        &self,
        inbox: &Inbox,
        wait: MessageId,
        hold: Duration,
    ) -> Result<Option<TaskRecord>, QueueError> {
        let own = InboxKeys::new(inbox);
        let id = keys::new_task(inbox);
        let names = vec![own.meta(), own.waits(), own.replies(), keys::task(&id).0];
        let limit = count(self.store.limits.open_waits);
        let args = vec![bytes(wait.as_bytes()), millis(hold), limit, self.options_alone()];
        let call = Call::new(Operation::TaskOpen, keys::slot(own.bucket), names, args);
        // A handle says that its task is kept: one that a failover may lose is not handed out.
        let (value, confirmed) = self.write(call).await?;
        if confirmed { record(id, value) } else { Ok(None) }
    }

    pub(super) async fn find_task(&self, id: &TaskId) -> Result<Option<TaskRecord>, QueueError> {
        let (key, bucket) = keys::task(id);
        record(*id, self.call(Operation::TaskFind, bucket, vec![key], Vec::new()).await?)
    }

    pub(super) async fn finish_task(&self, task: &TaskRecord) -> Result<bool, QueueError> {
        let own = InboxKeys::new(&task.inbox);
        let args = vec![bytes(task.wait.as_bytes()), self.keep(), count(task.ends_ms)];
        let value = self.call(Operation::TaskDone, own.bucket, own.all(), args).await?;
        Ok(reply::integer(&value)? == 1)
    }

    pub(super) async fn cancel_task(&self, task: &TaskRecord) -> Result<bool, QueueError> {
        let own = InboxKeys::new(&task.inbox);
        let mut names = own.all();
        names.push(keys::task(&task.id).0);
        let args = vec![bytes(task.wait.as_bytes()), self.keep(), self.options_alone()];
        let value = self.call(Operation::TaskCancel, own.bucket, names, args).await?;
        Ok(reply::integer(&value)? == 1)
    }
}

/// What `task_find` answers.
fn record(id: TaskId, value: Value) -> Result<Option<TaskRecord>, QueueError> {
    if matches!(&value, Value::Array(none) if none.is_empty()) {
        return Ok(None);
    }
    let broken = || contract("a task is not what was stored");
    let mut answer = Answer::new(value)?;
    let now_ms = answer.count()?;
    let inbox = inbox(&answer.bytes()?).ok_or_else(broken)?;
    let wait = answer.bytes()?;
    let wait = wait.as_bytes().and_then(|bytes| bytes.try_into().ok()).ok_or_else(broken)?;
    let peer = self::inbox(&answer.bytes()?).ok_or_else(broken)?;
    Ok(Some(TaskRecord {
        id,
        peer: Address::of(&peer, inbox.tenant()),
        inbox,
        wait: MessageId::from_bytes(wait),
        created_ms: answer.count()?,
        deadline_ms: answer.count()?,
        ends_ms: answer.count()?,
        cancelled_ms: Some(answer.count()?).filter(|at_ms| *at_ms > 0),
        now_ms,
    }))
}

fn inbox(name: &Value) -> Option<Inbox> {
    Inbox::from_name(&name.as_str()?)
}
