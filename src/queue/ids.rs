//! What goes by an id over the port: leases, keys of repeated sends, sessions, calls, tasks. None of them says whose
//! it is.

use std::fmt;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::model::{Inbox, Principal};

/// One reader's hold on the head of an inbox. Made per request, so a repeated fetch is recognized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseId(Uuid);

impl LeaseId {
    /// A fresh id.
    #[must_use]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// The 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// From the 16 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl Default for LeaseId {
    fn default() -> Self {
        Self::new()
    }
}

/// A client's idempotency key, as a digest that is scoped to its sender (so nobody can occupy
/// another's key) by the recipient's inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdempotencyKey([u8; 16]);

impl IdempotencyKey {
    /// The key `text` of `sender`.
    #[must_use]
    pub fn new(sender: &Inbox, text: &str) -> Self {
        Self(digest16(&[sender.name().as_bytes(), text.as_bytes()]))
    }

    /// The 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// An opaque name of a protocol session, as a digest. Whoever hears of another principal's session id
/// can do nothing with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey([u8; 16]);

impl SessionKey {
    /// Of the session id that a client of `principal` sent.
    #[must_use]
    pub fn new(principal: &Principal, session: &str) -> Self {
        Self(digest16(&[principal.name().as_bytes(), session.as_bytes()]))
    }

    /// The 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey")
    }
}

/// One request of one session, to route its cancellation: nobody but its principal can.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallKey([u8; 16]);

impl CallKey {
    /// Request `id` (its JSON text) of `session`, which `principal` sent.
    #[must_use]
    pub fn new(principal: &Principal, session: &str, id: &str) -> Self {
        Self(digest16(&[principal.name().as_bytes(), session.as_bytes(), id.as_bytes()]))
    }

    /// The 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for CallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallKey")
    }
}

/// The id of a task: a secret of 122 random bits that names nobody, made by the store. Its text is what
/// clients get.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    /// Where a store of many parts looks for it.
    shard: u8,
    secret: [u8; 16],
}

impl TaskId {
    /// A fresh id. The store says where it will look for it.
    #[must_use]
    pub fn in_shard(shard: u8) -> Self {
        Self { shard, secret: *Uuid::new_v4().as_bytes() }
    }

    /// Where to look, and for what.
    #[must_use]
    pub fn parts(&self) -> (u8, &[u8; 16]) {
        (self.shard, &self.secret)
    }

    /// The id that a text is. Each id has one text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 34 || !text.bytes().all(lower) {
            return None;
        }
        let shard = u8::from_str_radix(&text[..2], 16).ok()?;
        let secret = u128::from_str_radix(&text[2..], 16).ok()?.to_be_bytes();
        Some(Self { shard, secret })
    }

    /// Its text. Who has it may ask for the task: never log it.
    #[must_use]
    pub fn expose(&self) -> String {
        format!("{:02x}{:032x}", self.shard, u128::from_be_bytes(self.secret))
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TaskId")
    }
}

/// First 16 bytes of a SHA-256 over the parts, each preceded by its length.
pub(super) fn digest16(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut out = [0; 16];
    out.copy_from_slice(&hash.finalize()[..16]);
    out
}
