//! Messages and their ids.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Address, TraceParent};

/// Id of a message: a `UUIDv7`, made once per request and kept through every retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(Uuid);

/// The text is not a message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a message id (a UUID such as 0199c3a2-7d1e-7c3b-9f10-2b1d6a4e8f55)")]
pub struct InvalidMessageId;

impl MessageId {
    /// A fresh id.
    #[must_use]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// The 16 bytes, as stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// From the 16 bytes of [`as_bytes`](Self::as_bytes).
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl Default for MessageId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for MessageId {
    type Err = InvalidMessageId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text.trim()).map(Self).map_err(|_| InvalidMessageId)
    }
}

/// A message as its recipient gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Drop copies by this.
    pub id: MessageId,
    /// Who sent it.
    pub from: Address,
    /// A credential proved that, when it was accepted.
    pub verified: bool,
    /// The message that this one answers, if its sender said so.
    pub in_reply_to: Option<MessageId>,
    /// What was sent, unchanged. Untrusted.
    pub text: String,
    /// When the store accepted it, in milliseconds since the Unix epoch by the store's clock.
    pub accepted_at_ms: u64,
    /// How long ago that was when it was handed out.
    pub age: Duration,
    /// It may have been received before: drop it if its id is known.
    pub redelivered: bool,
    /// How often it was handed out, this time included.
    pub attempt: u32,
    /// Its sender waits for an answer (or did when it was sent).
    pub asks: bool,
    /// The sender's trace, to be linked.
    pub trace: Option<TraceParent>,
}

/// What became of a message that its sender sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageState {
    /// In the recipient's inbox, never handed out.
    Queued,
    /// Handed out, not yet acknowledged.
    Delivered,
    /// Received: its response was flushed, or its receipt was passed.
    Acknowledged,
    /// Its life ended before anybody acknowledged it.
    Expired,
    /// The store no longer knows.
    Unknown,
}
