//! What became of each message of a send.

use std::{fmt::Write, time::Duration};

use serde::Serialize;

use super::{markdown, outcome, views::PresenceView};
use crate::{
    messaging::{MessagingError, Refusal, Rules, SendRequest, SendResult},
    model::{Address, MessageId, MessageState},
    queue::{QueueError, Sent, SentStatus},
};

/// What became of one message, for programs.
#[derive(Debug, Serialize)]
pub(super) struct ResultView<'a> {
    recipient_id: &'a Address,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<MessageId>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<MessageState>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unconfirmed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<PresenceView>,
}

/// What the answer needs to know of the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// It has an idempotency key: repeating it is safe.
    pub keyed: bool,
    /// How long the messages live.
    pub ttl: Duration,
}

impl Terms {
    pub(super) fn of(request: &SendRequest, rules: &Rules) -> Self {
        Self { keyed: request.idempotency_key.is_some(), ttl: request.ttl.unwrap_or(rules.ttl) }
    }
}

/// Whether every recipient was refused.
pub(super) fn none_accepted(results: &[SendResult]) -> bool {
    results.iter().all(|result| result.outcome.is_err())
}

/// Whether the store failed any of them.
pub(super) fn store_failed(results: &[SendResult]) -> bool {
    results.iter().any(|result| failure(result).is_some())
}

fn failure(SendResult { outcome, .. }: &SendResult) -> Option<&QueueError> {
    match outcome {
        Err(Refusal { error: MessagingError::Queue(cause), .. }) => Some(cause),
        Err(_) | Ok(_) => None,
    }
}

/// What became of each message, for programs. A failure of the store is logged, once.
pub(super) fn results(results: &[SendResult], terms: Terms) -> Vec<ResultView<'_>> {
    if let Some(cause) = results.iter().find_map(failure) {
        outcome::log(cause);
    }
    results.iter().map(|result| view(result, terms)).collect()
}

fn view(SendResult { recipient, outcome }: &SendResult, terms: Terms) -> ResultView<'_> {
    let mut view = ResultView {
        recipient_id: recipient,
        message_id: None,
        status: "refused",
        state: None,
        unconfirmed: false,
        reason: None,
        recipient: None,
    };
    match outcome {
        Ok(sent) => {
            view.message_id = Some(sent.id);
            (view.status, view.state) = match sent.status {
                SentStatus::Queued => ("queued", None),
                SentStatus::Replied => ("replied", None),
                SentStatus::Duplicate(state) => ("duplicate", Some(state)),
            };
            view.unconfirmed = sent.unconfirmed;
            view.recipient = Some(sent.recipient.into());
        }
        Err(refusal) => {
            let (id, reason) = refused(refusal, terms);
            view.message_id = id;
            view.reason = Some(reason);
        }
    }
    view
}

/// Why a message was not accepted; with its id if it may have been all the same.
fn refused(Refusal { id, error }: &Refusal, terms: Terms) -> (Option<MessageId>, String) {
    if !matches!(error, MessagingError::Queue(_)) {
        return (None, error.to_string());
    }
    let again = if terms.keyed {
        "or repeat it with the same idempotency_key"
    } else {
        "before you send it again"
    };
    let reason = format!(
        "the message store failed, and it may have been accepted: ask message_status for message_id {id}, {again}"
    );
    (Some(*id), reason)
}

/// What is said of one message, about, bytes.
const ROOM: usize = 192;

/// What became of each message, for the model.
pub(super) fn told(results: &[SendResult], views: &[ResultView<'_>], terms: Terms) -> String {
    let mut text = String::with_capacity(64 + ROOM * results.len());
    let accepted = results.iter().filter(|result| result.outcome.is_ok()).count();
    let single = results.len() == 1;
    if !single {
        let _ = writeln!(text, "Sent to {accepted} of {}:", results.len());
    }
    let mut queued = false;
    for (SendResult { recipient, outcome }, view) in results.iter().zip(views) {
        text.push_str(if single { "" } else { "- " });
        if let Ok(sent) = outcome {
            queued |= sent.status == SentStatus::Queued;
            text.push_str(if single { "Sent: " } else { "" });
            accepted_line(&mut text, recipient, sent);
        } else {
            let reason = view.reason.as_deref().unwrap_or_default();
            text.push_str(if single { "Refused: " } else { "" });
            let _ = write!(text, "not sent to {}: {reason}", recipient.expose());
        }
        text.push_str(".\n");
    }
    if queued {
        let _ = writeln!(text, "Unread, a message expires after {}.", markdown::lasting(terms.ttl));
    }
    text
}

/// `message_id … is queued for bob (…)`.
pub(super) fn accepted_line(text: &mut String, recipient: &Address, sent: &Sent) {
    let whom = recipient.expose();
    let _ = write!(text, "message_id {} ", sent.id);
    match sent.status {
        SentStatus::Queued => {
            let presence = markdown::presence(sent.recipient);
            text.extend(["is queued for ", whom, " (", &presence, ")"]);
        }
        SentStatus::Replied => text.extend(["was handed to ", whom, ", who waits for it"]),
        SentStatus::Duplicate(state) => {
            let state = markdown::state(state);
            text.extend(["to ", whom, " was sent before with this idempotency_key and is ", state]);
        }
    }
    if sent.unconfirmed {
        text.push_str(
            "; unconfirmed: accepted, but a failure of the store now could still lose it: ask message_status later",
        );
    }
    if sent.unrecorded {
        text.push_str("; message_status will not know it");
    }
}
