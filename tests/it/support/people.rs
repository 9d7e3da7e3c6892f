//! Who takes part, and what they say.

use std::time::Duration;

use mcp_messaging::{
    model::{Inbox, MessageId, Tenant},
    queue::{IdempotencyKey, NewMessage, Taking},
};

/// Seconds.
pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Milliseconds.
pub(crate) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// The tenant of everybody here.
pub(crate) fn tenant() -> Tenant {
    Tenant::default()
}

/// The inbox of a client.
pub(crate) fn inbox(client: &str) -> Inbox {
    Inbox::new(tenant(), client.parse().unwrap())
}

/// A message that lives for a minute.
pub(crate) fn message(sender: &str, recipient: &str, text: &str) -> NewMessage {
    NewMessage {
        id: MessageId::new(),
        sender: inbox(sender),
        verified: false,
        recipient: inbox(recipient),
        text: text.to_owned(),
        in_reply_to: None,
        idempotency: None,
        ttl: secs(60),
        wait: None,
        trace: None,
        taken: Taking::All,
    }
}

/// What else a message may have.
pub(crate) trait Draft: Sized {
    /// It answers another one.
    fn answering(self, id: MessageId) -> Self;
    /// It is accepted once per key.
    fn keyed(self, key: &str) -> Self;
    /// It lives so long.
    fn living(self, ttl: Duration) -> Self;
    /// Its sender waits so long for the answer.
    fn asking(self, wait: Duration) -> Self;
}

impl Draft for NewMessage {
    fn answering(self, id: MessageId) -> Self {
        Self { in_reply_to: Some(id), ..self }
    }

    fn keyed(self, key: &str) -> Self {
        Self { idempotency: Some(IdempotencyKey::new(&self.sender, key)), ..self }
    }

    fn living(self, ttl: Duration) -> Self {
        Self { ttl, ..self }
    }

    fn asking(self, wait: Duration) -> Self {
        Self { wait: Some(wait), ..self }
    }
}
