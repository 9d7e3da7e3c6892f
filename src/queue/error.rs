//! What the store did, in no store's words.

use std::time::Duration;

use crate::{
    model::{KeyName, MessageId},
    telemetry::{Readiness, Unread},
};

/// Why an operation of the port did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The inbox is at its limit of messages or bytes; nothing was stored.
    #[error("the inbox is full ({messages} messages, {bytes} bytes)")]
    InboxFull {
        /// Messages that it holds.
        messages: u64,
        /// Bytes that it holds.
        bytes: u64,
        /// When the oldest of them ends its life.
        retry_after: Duration,
    },
    /// The sender has as many open waits as it may.
    #[error("{open} waits are open, which is the limit")]
    TooManyWaits {
        /// Open waits.
        open: u64,
    },
    /// The idempotency key was used for another message.
    #[error("the idempotency key was used for another message ({first})")]
    IdempotencyConflict {
        /// The message that it was used for.
        first: MessageId,
    },
    /// A message is there, and its text cannot be read. It was neither handed out nor lost.
    #[error("message {id} {why}")]
    Unreadable {
        /// Which one.
        id: MessageId,
        /// Why not.
        why: Unreadable,
    },
    /// The recipient takes answers only, and this is none; nothing was stored.
    #[error("the recipient takes answers only, and this is none")]
    NoAnswer,
    /// The store cannot be reached or refuses to work. The operation may have happened.
    #[error("the store is unavailable: {detail}")]
    Unavailable {
        /// For the log; never shown to a client.
        detail: String,
    },
    /// No answer in time. The operation may have happened.
    #[error("no answer from the store in time")]
    Timeout,
    /// The store answered what it never should: a fault of ours or a foreign key.
    #[error("the store broke the contract: {detail}")]
    Contract {
        /// For the log; never shown to a client.
        detail: String,
    },
}

impl QueueError {
    /// Whether the store is not there now: trying again may help, and the operation may have happened.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Timeout => true,
            Self::InboxFull { .. }
            | Self::TooManyWaits { .. }
            | Self::IdempotencyConflict { .. }
            | Self::Unreadable { .. }
            | Self::NoAnswer
            | Self::Contract { .. } => false,
        }
    }

    /// Label for metrics and logs: a closed set.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::InboxFull { .. } => "inbox_full",
            Self::TooManyWaits { .. } => "too_many_waits",
            Self::IdempotencyConflict { .. } => "idempotency_conflict",
            Self::Unreadable { why, .. } => why.reason().label(),
            Self::NoAnswer => "no_answer",
            Self::Unavailable { .. } => "unavailable",
            Self::Timeout => "timeout",
            Self::Contract { .. } => "contract",
        }
    }
}

/// Why a text that lies in the store cannot be read. The name of a key is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It names a key that is not there.
    #[error("is sealed with the key {0}, which this server does not have")]
    NoKey(KeyName),
    /// The key of that name does not open it.
    #[error(
        "does not open with the key {0}: it was changed or moved in the store, or that is not the key that sealed it"
    )]
    Changed(KeyName),
    /// It is not as anything is stored.
    #[error("was changed in the store: it is neither a text nor a sealed one")]
    Broken,
    /// It is not sealed, where everything must be.
    #[error("is not sealed, and this server reads sealed messages only")]
    Plain,
}

impl Unreadable {
    /// In the words of logs and metrics.
    #[must_use]
    pub fn reason(self) -> Unread {
        match self {
            Self::NoKey(_) => Unread::NoKey,
            Self::Changed(_) | Self::Broken => Unread::Changed,
            Self::Plain => Unread::Plain,
        }
    }
}

/// Why the store cannot be relied on now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Unready {
    /// In the words of `/readyz` and of metrics.
    pub reason: Readiness,
    /// For the log.
    pub cause: QueueError,
}
