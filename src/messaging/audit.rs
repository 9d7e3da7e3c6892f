//! What the audit log says: who did what to whose inbox, and what came of it.
//!
//! Each event is one line of JSON under the target `audit`, which is written only if `log.audit` asks for
//! it; nothing else of the log names a client. No text and no digest of one is in it: a short text can
//! be guessed from its digest.

use super::{MessagingError, Whose};
use crate::{
    model::{Address, Inbox, Message},
    queue::{NewMessage, QueueError, Sent, SentStatus},
};

/// `client` did something to an inbox of its team.
fn event(action: &'static str, client: &Inbox, inbox: &Inbox, result: &'static str) {
    tracing::info!(
        target: "audit",
        action,
        tenant = client.tenant().as_str(),
        client = client.client().expose(),
        inbox = inbox.client().expose(),
        result,
    );
}

/// A client did something to its own inbox.
pub(super) fn own(action: &'static str, inbox: &Inbox) {
    event(action, inbox, inbox, "ok");
}

/// Somebody named a client as its own that its credential does not prove. `holder` is what it proves.
pub(super) fn spoof_rejected(holder: &str, claimed: &Inbox) {
    tracing::info!(
        target: "audit",
        action = "spoof_rejected",
        tenant = claimed.tenant().as_str(),
        client = holder,
        inbox = claimed.client().expose(),
        result = "refused",
    );
}

/// A send was refused because its sender, or its team, sends too much.
pub(super) fn rate_limited(sender: &Inbox, whose: Whose) {
    let result = match whose {
        Whose::Caller => "caller",
        Whose::Tenant => "tenant",
    };
    event("rate_limited", sender, sender, result);
}

/// Two clients look like a loop.
pub(super) fn paused(sender: &Inbox, recipient: &Inbox) {
    event("pause", sender, recipient, "paused");
}

/// A message was sent, or refused.
pub(super) fn sent(message: &NewMessage, outcome: &Result<Sent, MessagingError>) {
    let whom = Address::of(&message.recipient, message.sender.tenant());
    let (id, result) = match outcome {
        Ok(sent) => {
            let status = match sent.status {
                SentStatus::Queued => "queued",
                SentStatus::Replied => "replied",
                SentStatus::Duplicate(_) => "duplicate",
            };
            (sent.id, status)
        }
        // It may have been accepted.
        Err(MessagingError::Queue(QueueError::Unavailable { .. } | QueueError::Timeout)) => {
            (message.id, "unknown")
        }
        Err(_) => (message.id, "refused"),
    };
    tracing::info!(
        target: "audit",
        action = if message.wait.is_some() { "ask" } else { "send" },
        tenant = message.sender.tenant().as_str(),
        client = message.sender.client().expose(),
        inbox = whom.expose(),
        message_id = %id,
        size = message.text.len(),
        result,
    );
}

/// Messages were handed to the owner of their inbox.
pub(super) fn taken(inbox: &Inbox, messages: &[Message]) {
    for message in messages {
        tracing::info!(
            target: "audit",
            action = "take",
            tenant = inbox.tenant().as_str(),
            client = inbox.client().expose(),
            inbox = inbox.client().expose(),
            message_id = %message.id,
            size = message.text.len(),
            result = if message.redelivered { "again" } else { "ok" },
        );
    }
}
