//! Looking into an inbox.

use fred::types::Value;

use super::{
    RedisQueue, count,
    functions::Operation,
    keys::InboxKeys,
    record::Handed,
    reply::{Answer, contract},
};
use crate::{
    model::Inbox,
    queue::{Arrivals, Browsed, QueueError, Stamp},
};

impl RedisQueue {
    /// See [`crate::queue::QueueBackend::browse`]. The look itself writes nothing, so if the reply of a
    /// dead wait is due to return to the inbox, that is done first.
    pub(super) async fn browse_swept(
        &self,
        inbox: &Inbox,
        max_messages: usize,
        max_bytes: usize,
    ) -> Result<Browsed, QueueError> {
        let keys = InboxKeys::new(inbox);
        let limits = vec![count(max_messages as u64), count(max_bytes as u64)];
        let look = async || {
            let names = vec![keys.queue(), keys.meta()];
            let value = self.call(Operation::Browse, keys.bucket, names, limits.clone()).await?;
            self.browsed(inbox, Answer::new(value)?)
        };
        let (sweep_due, found) = look().await?;
        if !sweep_due {
            return Ok(found);
        }
        // Asked of no message, it only sweeps.
        let args = vec![self.keep(), Value::from_static_str("")];
        self.call(Operation::Fates, keys.bucket, keys.all(), args).await?;
        Ok(look().await?.1)
    }

    /// Whether a sweep is due, and what there is.
    fn browsed(&self, inbox: &Inbox, mut answer: Answer) -> Result<(bool, Browsed), QueueError> {
        let now_ms = answer.count()?;
        let sweep_due = answer.integer()? == 1;
        let queued = answer.count()?;
        let leased = answer.count()?;
        let due = answer.millis()?;
        let newest = Stamp(answer.count()?);
        let seen_us = answer.count()?;
        let attempts = u32::try_from(answer.count()?).map_err(|_| contract("too many attempts"))?;
        let returned = (answer.integer()? == 1).then_some((Stamp(seen_us), attempts));
        let next = Handed { now_ms, seen_us, attempt: attempts + 1 };
        let arrivals = Arrivals { newest, returned };
        let messages = self.read(inbox, answer, next)?.readable()?;
        Ok((sweep_due, Browsed { messages, queued, leased, arrivals, due }))
    }
}
