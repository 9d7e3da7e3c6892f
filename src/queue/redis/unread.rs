//! Records whose text cannot be read: what is before one of them is, it stays, and so does what is behind it.
//!
//! To skip it would break the order and the cumulative acknowledgement, and to drop it would lose it: the key
//! may come back. So it holds up its inbox until it can be read or its life is over, and whoever comes for it
//! is told why.

use super::{
    RedisQueue, bytes,
    functions::Operation,
    keys::InboxKeys,
    record::{self, Handed},
    reply::{Answer, contract},
};
use crate::{
    model::{Inbox, Message, MessageId},
    queue::{Batch, LeaseId, QueueError, Stamp},
};

/// What the records of an answer hold.
pub(super) struct Read {
    /// Those before the first that cannot be read.
    pub(super) messages: Vec<Message>,
    /// The stamp of the last of them.
    upto: Stamp,
    /// How many records come after them.
    pub(super) left: u64,
    /// Why the first of those cannot be read.
    pub(super) stopped: Option<QueueError>,
}

impl Read {
    /// The messages; an error if there is only what cannot be read.
    pub(super) fn readable(self) -> Result<Vec<Message>, QueueError> {
        match self.stopped {
            Some(error) if self.messages.is_empty() => Err(error),
            Some(_) | None => Ok(self.messages),
        }
    }
}

impl RedisQueue {
    /// Reads the rest of an answer: the records of an inbox. What cannot be read is counted and logged here,
    /// also if its reader gets what is before it.
    pub(super) fn read(
        &self,
        inbox: &Inbox,
        answer: Answer,
        handed: Handed,
    ) -> Result<Read, QueueError> {
        let mut records = answer.rest();
        let mut read = Read { messages: Vec::new(), upto: Stamp(0), left: 0, stopped: None };
        while let (Some(header), Some(stored)) = (records.next(), records.next()) {
            if read.stopped.is_some() {
                read.left += 1;
                continue;
            }
            let (Some(header), Some(stored)) = (header.as_bytes(), stored.as_bytes()) else {
                return Err(contract("a record is not text"));
            };
            match record::decode(header, stored, handed, (inbox, &self.store.settings.seal)) {
                Ok((message, stamp)) => {
                    read.messages.push(message);
                    read.upto = stamp;
                }
                Err(error @ QueueError::Unreadable { why, .. }) => {
                    self.store.metrics.unreadable(why.reason());
                    tracing::error!(
                        error.kind = why.reason().label(),
                        error = %why,
                        "a message in Redis cannot be read; it stays there, and so does what is behind it"
                    );
                    read.left += 1;
                    read.stopped = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    /// Keeps under a lease only what was read; the rest was never handed out.
    pub(super) async fn unfetch(
        &self,
        inbox: &Inbox,
        lease: LeaseId,
        read: Read,
    ) -> Result<Batch, QueueError> {
        let (keys, upto) = (InboxKeys::new(inbox), read.upto);
        let kept = super::count(read.messages.len() as u64);
        let args = vec![bytes(lease.as_bytes()), kept, self.options_alone()];
        let names = vec![keys.queue(), keys.meta(), keys.waits()];
        self.call(Operation::Unfetch, keys.bucket, names, args).await?;
        Ok(Batch { messages: read.readable()?, upto })
    }

    /// A reply that was taken and cannot be read was never handed out: the error that says so.
    pub(super) async fn untake(
        &self,
        own: &InboxKeys,
        wait: MessageId,
        error: QueueError,
    ) -> Result<QueueError, QueueError> {
        if let QueueError::Unreadable { id, .. } = &error {
            let args = vec![bytes(wait.as_bytes()), bytes(id.as_bytes())];
            self.call(Operation::WaitUntake, own.bucket, vec![own.waits()], args).await?;
        }
        Ok(error)
    }
}
