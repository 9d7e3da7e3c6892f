//! A message as the store keeps it.

use crate::{
    model::{Address, Inbox, Message, MessageId, TraceParent},
    queue::{NewMessage, Stamp},
};

use super::{ledger::RowKey, micros, until};

/// What one message counts beside its text.
const HEADER_BYTES: u64 = 64;

/// A message in an inbox, or parked for a wait.
pub(super) struct Letter {
    pub stamp: Stamp,
    pub id: MessageId,
    pub sender: Inbox,
    /// What its recipient calls the sender.
    from: Address,
    verified: bool,
    /// Where its sender's ledger has it.
    pub row: Option<RowKey>,
    pub asks: bool,
    pub accepted_us: u64,
    pub expires_us: u64,
    /// How often it was handed out.
    pub attempts: u32,
    in_reply_to: Option<MessageId>,
    trace: Option<TraceParent>,
    text: String,
}

impl Letter {
    pub(super) fn new(
        message: &NewMessage,
        stamp: Stamp,
        row: Option<RowKey>,
        now_us: u64,
    ) -> Box<Self> {
        Box::new(Self {
            stamp,
            id: message.id,
            sender: message.sender.clone(),
            from: Address::of(&message.sender, message.recipient.tenant()),
            verified: message.verified,
            row,
            asks: message.wait.is_some(),
            accepted_us: now_us,
            expires_us: now_us.saturating_add(micros(message.ttl)),
            attempts: 0,
            in_reply_to: message.in_reply_to,
            trace: message.trace,
            text: message.text.clone(),
        })
    }

    /// What a text of `len` bytes counts against the limit.
    pub(super) fn bytes_of(len: usize) -> u64 {
        HEADER_BYTES + len as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        Self::bytes_of(self.text.len())
    }

    pub(super) fn text_len(&self) -> usize {
        self.text.len()
    }

    /// As its recipient gets it.
    pub(super) fn message(&self, now_us: u64) -> Message {
        self.at_attempt(self.attempts, now_us)
    }

    /// As its recipient will get it next.
    pub(super) fn next(&self, now_us: u64) -> Message {
        self.at_attempt(self.attempts + 1, now_us)
    }

    fn at_attempt(&self, attempt: u32, now_us: u64) -> Message {
        Message {
            id: self.id,
            from: self.from.clone(),
            verified: self.verified,
            in_reply_to: self.in_reply_to,
            text: self.text.clone(),
            accepted_at_ms: self.accepted_us / 1000,
            age: until(self.accepted_us, now_us),
            redelivered: attempt > 1,
            attempt,
            asks: self.asks,
            trace: self.trace,
        }
    }

    pub(super) fn handed(&self, stamp: Stamp) -> Handed {
        Handed {
            sender: self.sender.clone(),
            row: self.row,
            question: self.asks.then_some((self.id, self.expires_us)),
            stamp,
        }
    }
}

/// That a letter was handed out, for its sender's ledger and its sender's wait.
pub(super) struct Handed {
    pub sender: Inbox,
    pub row: Option<RowKey>,
    /// Its id and the end of its life, if its sender waits for an answer.
    pub question: Option<(MessageId, u64)>,
    pub stamp: Stamp,
}
