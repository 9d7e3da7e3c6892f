//! Accepting a message: one call where one server holds all keys, three across the slots of a cluster.

use std::time::Duration;

use fred::types::Value;

use super::{
    ANSWERS, COVERED, KEYED, OWN, RETRY, RedisQueue, bytes, count,
    functions::Operation,
    keys::{self, InboxKeys},
    ledger,
    link::Call,
    millis,
    packed::Packed,
    record::{self, Reader},
    reply::{self, Answer, contract},
    seal::Place,
    text,
};
use crate::{
    model::MessageId,
    queue::{NewMessage, QueueBackend, QueueError, Sent, SentStatus, Taking},
};

impl RedisQueue {
    /// In a cluster the sender's slot is another one: what one call does elsewhere takes three.
    pub(super) async fn send_across(&self, message: &NewMessage) -> Result<Sent, QueueError> {
        let sender = InboxKeys::new(&message.sender);
        let limits = &self.store.limits;
        let mut candidates = Value::from_static_str("");
        let mut due = false;
        let (mut taken, mut late) = (message.taken, None);
        if message.in_reply_to.is_none() || taken == Taking::Answers {
            let mut args = vec![self.keep(), text(message.recipient.name())];
            if taken == Taking::Answers {
                args.push(text("live"));
            }
            let keys = vec![sender.meta(), sender.waits()];
            let value = self.call(Operation::Contact, sender.bucket, keys, args).await?;
            let mut answer = Answer::new(value)?;
            due = answer.integer()? == 1;
            candidates = answer.bytes()?;
        }
        if taken == Taking::Answers {
            // What the function cannot see, because it is in the sender's slot: a question that it was handed.
            late = asked(&candidates, message.in_reply_to);
            taken = if late.is_some() { Taking::All } else { taken };
        }
        if let Some(wait) = message.wait {
            self.open_wait(message, message.id, wait).await?;
        }
        let answered = match self.send_once(message, (taken, candidates), false).await {
            Ok(answered) => answered,
            Err(error) => {
                if message.wait.is_some() {
                    self.wait_close(&message.sender, message.id).await?;
                }
                return Err(error);
            }
        };
        let mut sent = answered.sent;
        sent.notices_due = due;
        if let Some(question) = late {
            let args = vec![self.keep(), text(""), text("live"), bytes(question.as_bytes())];
            let keys = vec![sender.meta(), sender.waits()];
            if let Err(error) = self.call(Operation::Contact, sender.bucket, keys, args).await {
                // It is accepted all the same; its sender may answer once more.
                tracing::warn!(error.kind = error.label(), error = %error, "a late answer was not noted");
            }
        }
        let repeated = matches!(sent.status, SentStatus::Duplicate(_));
        // The very message, if an answer got lost on the way: then this is its wait.
        if let (Some(wait), true, true) = (message.wait, repeated, sent.id != message.id) {
            self.wait_close(&message.sender, message.id).await?;
            self.open_wait(message, sent.id, wait).await?;
        }
        // What went before may have broken off in between, and its sender would never be told.
        let args = vec![
            bytes(sent.id.as_bytes()),
            text(message.recipient.name()),
            count(answered.stamp),
            count(answered.expires),
            Value::Integer(answered.parked.into()),
            self.keep(),
            count(limits.ledger_entries),
            Value::Integer(repeated.into()),
        ];
        let keys = vec![sender.meta(), sender.ledger()];
        let call = Call::new(Operation::LedgerAdd, keys::slot(sender.bucket), keys, args);
        match self.write(call).await {
            Ok((look_up, confirmed)) => {
                let (due, unrecorded) = ledger::written(reply::integer(&look_up)?);
                sent.notices_due |= due;
                sent.unrecorded = unrecorded;
                sent.unconfirmed |= !confirmed;
            }
            Err(error) => {
                // It is accepted all the same: the sender is told that no notice will come.
                tracing::warn!(error.kind = error.label(), error = %error, "the ledger was not written");
                sent.unrecorded = true;
            }
        }
        Ok(sent)
    }

    /// Opens the wait of a sender in another slot than its message's.
    async fn open_wait(
        &self,
        message: &NewMessage,
        id: MessageId,
        wait: Duration,
    ) -> Result<(), QueueError> {
        let sender = InboxKeys::new(&message.sender);
        let args = vec![
            bytes(id.as_bytes()),
            text(message.recipient.name()),
            millis(wait),
            count(self.store.limits.open_waits),
            self.keep(),
        ];
        let keys = vec![sender.meta(), sender.waits()];
        self.call(Operation::WaitOpen, sender.bucket, keys, args).await?;
        Ok(())
    }

    /// Calls a function that writes, the way that the level of durability asks for. Also: whether what it
    /// promises is kept.
    pub(super) async fn write(&self, call: Call) -> Result<(Value, bool), QueueError> {
        match &self.confirming {
            Some(confirming) => Box::pin(confirming.make(call)).await,
            None => Ok((self.link.make(call).await?, true)),
        }
    }

    pub(super) async fn send_once(
        &self,
        message: &NewMessage,
        (taken, candidates): (Taking, Value),
        own: bool,
    ) -> Result<Answered, QueueError> {
        let recipient = InboxKeys::new(&message.recipient);
        let sender = InboxKeys::new(&message.sender);
        let mut keys = recipient.all();
        let mut options = self.options();
        if self.confirming.is_some() {
            options |= COVERED;
        }
        if taken == Taking::Answers {
            options |= ANSWERS;
        }
        if own {
            options |= OWN;
            keys.extend([sender.meta(), sender.ledger(), sender.waits()]);
        }
        let seal = &self.store.settings.seal;
        let mut digests = None;
        if let Some(key) = &message.idempotency {
            options |= KEYED;
            keys.push(recipient.marker(key.as_bytes()));
            digests = Some(seal.digests(message));
        }
        let mut digests = digests.into_iter().flatten();
        let (flags, tail) = record::encode(message);
        let limits = &self.store.limits;
        let place =
            Place { inbox: &message.recipient, id: message.id.as_bytes(), flags, tail: &tail };
        let body = Value::Bytes(seal.sealed(&message.text, place).into());
        let mut digest = digests.next();
        let (value, confirmed) = loop {
            let mut packed = Packed::new(options, flags)
                .millis(message.ttl)
                .number(limits.inbox_messages)
                .number(limits.inbox_bytes)
                .millis(limits.ledger_life)
                .number(limits.ledger_entries)
                .millis(message.wait.unwrap_or_default())
                .number(limits.open_waits)
                .bytes(message.id.as_bytes());
            if let Some(digest) = &digest {
                packed = packed.bytes(digest);
            }
            let mut args = vec![packed.value(), Value::Bytes(tail.clone()), body.clone()];
            if !own {
                args.push(candidates.clone());
            }
            let slot = keys::slot(recipient.bucket);
            let call = Call::new(Operation::Send, slot, keys.clone(), args).repeated_with(RETRY);
            match self.write(call).await {
                // A replica with other keys may have stored what this one would have under another digest.
                Err(conflict @ QueueError::IdempotencyConflict { .. }) => {
                    digest = digests.next();
                    if digest.is_none() {
                        return Err(conflict);
                    }
                }
                written => break written?,
            }
        };
        let answer = value.as_bytes().unwrap_or_default();
        let too_short = || contract("send answered too little");
        let mut reader = Reader(answer);
        let [status, presence, look_up, state] = reader.take().ok_or_else(too_short)?;
        let mut number = || reader.take().map(f64::from_be_bytes).map(record::whole);
        let (Some(ms), Some(stamp), Some(expires)) = (number(), number(), number()) else {
            return Err(too_short());
        };
        let id = MessageId::from_bytes(reader.take().ok_or_else(too_short)?);
        let recipient = reply::presence(i64::from(presence), ms);
        let status = match status {
            0 => SentStatus::Queued,
            1 => SentStatus::Replied,
            2 => SentStatus::Duplicate(ledger::state(Some(&state))),
            other => return Err(contract(&format!("send answered {other}"))),
        };
        let parked = match status {
            SentStatus::Queued => false,
            SentStatus::Replied => true,
            SentStatus::Duplicate(_) => reader.0.first() == Some(&1),
        };
        let (notices_due, unrecorded) = ledger::written(i64::from(look_up));
        let unconfirmed = !confirmed;
        let sent = Sent { id, status, recipient, notices_due, unrecorded, unconfirmed };
        Ok(Answered { sent, stamp, expires, parked })
    }
}

/// The question that a message answers, of those that its sender was handed.
fn asked(ids: &Value, named: Option<MessageId>) -> Option<MessageId> {
    let ids = ids.as_bytes().unwrap_or_default().as_chunks::<16>().0;
    let mut ids = ids.iter().map(|id| MessageId::from_bytes(*id));
    ids.find(|id| named.is_none_or(|named| named == *id))
}

/// What `send` answers.
pub(super) struct Answered {
    pub(super) sent: Sent,
    stamp: u64,
    expires: u64,
    parked: bool,
}
