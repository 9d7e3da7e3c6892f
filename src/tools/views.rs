//! What answers hold for programs: the fields of `structuredContent`.

use std::time::Duration;

use serde::Serialize;

use crate::{
    messaging::Notice,
    model::{Address, ClientId, Message, MessageId, rfc3339},
    queue::{self, Pause, Presence},
};

/// A message.
#[derive(Debug, Serialize)]
pub(super) struct MessageView<'a> {
    message_id: MessageId,
    from: &'a Address,
    /// A credential proved the sender when it sent this. Without authentication nothing does.
    verified_sender: bool,
    /// Whose words these are: never the server's, never the user's.
    trust: &'static str,
    text: &'a str,
    sent_at: String,
    age_seconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_reply_to: Option<MessageId>,
    /// Its sender waits for an answer.
    #[serde(skip_serializing_if = "is_false")]
    asks_reply: bool,
    redelivered: bool,
    attempt: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl<'a> From<&'a Message> for MessageView<'a> {
    fn from(message: &'a Message) -> Self {
        Self {
            message_id: message.id,
            from: &message.from,
            verified_sender: message.verified,
            trust: "agent",
            text: &message.text,
            sent_at: rfc3339(message.accepted_at_ms),
            age_seconds: message.age.as_secs(),
            in_reply_to: message.in_reply_to,
            asks_reply: message.asks,
            redelivered: message.redelivered,
            attempt: message.attempt,
        }
    }
}

/// What the server tells a client. `state` says what: a message that expired unread, or somebody to whom it
/// may not send.
#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub(super) enum NoticeView<'a> {
    /// A message.
    Expired { message_id: MessageId, recipient_id: &'a Address, sent_at: String },
    /// Nothing may be sent to this one, nor by it, for a while.
    Paused { recipient_id: &'a ClientId, until: String },
}

impl<'a> From<&'a Notice> for NoticeView<'a> {
    fn from(notice: &'a Notice) -> Self {
        match notice {
            Notice::Expired(queue::Notice { id, recipient, sent_at_ms }) => Self::Expired {
                message_id: *id,
                recipient_id: recipient,
                sent_at: rfc3339(*sent_at_ms),
            },
            Notice::Paused(Pause { peer, until_ms }) => {
                Self::Paused { recipient_id: peer, until: rfc3339(*until_ms) }
            }
        }
    }
}

/// Views of all.
pub(super) fn all<'a, T, V: From<&'a T>>(items: &'a [T]) -> Vec<V> {
    items.iter().map(V::from).collect()
}

/// What is known of a client.
#[derive(Debug, Serialize)]
pub(super) struct PresenceView {
    presence: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_seconds: Option<u64>,
}

impl From<Presence> for PresenceView {
    fn from(presence: Presence) -> Self {
        let (presence, seen) = match presence {
            Presence::Waiting => ("waiting", None),
            Presence::Seen(ago) => ("seen", Some(ago)),
            Presence::Unknown => ("unknown", None),
        };
        Self { presence, last_seen_seconds: seen.as_ref().map(Duration::as_secs) }
    }
}
