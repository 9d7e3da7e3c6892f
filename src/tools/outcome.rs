//! Answers and refusals, and the one place that tells a refusal from a fault of ours.

use serde::Serialize;

use super::{Task, ToolError, ToolOutcome, arguments::BadArgument};
use crate::{
    messaging::{Delivery, MessagingError},
    queue::QueueError,
    telemetry::Refusal,
};

/// Why a call ends without its answer.
#[derive(Debug)]
pub(super) enum Stop {
    /// The caller can mend it: why, without a full stop.
    Refused(String),
    /// The same, of an argument.
    BadArgument(String),
    /// The caller gave it up.
    Cancelled,
    /// The caller cannot mend it.
    Failed(ToolError),
}

impl Stop {
    /// Sorts a domain error: what the caller can mend is a refusal, the rest is the server's, and is
    /// logged here, once, because this is where its cause leaves the program.
    pub(super) fn sort(error: MessagingError) -> Self {
        match error {
            MessagingError::EmptyMessage
            | MessagingError::MessageTooLarge { .. }
            | MessagingError::NoRecipient
            | MessagingError::TooManyRecipients { .. }
            | MessagingError::TtlOutOfRange { .. }
            | MessagingError::WaitOutOfRange { .. }
            | MessagingError::InboxFull { .. }
            | MessagingError::TooManyWaits { .. }
            | MessagingError::ReplicaBusy { .. }
            | MessagingError::Overloaded { .. }
            | MessagingError::CallerBusy { .. }
            | MessagingError::RateLimited { .. }
            | MessagingError::PairPaused { .. }
            | MessagingError::IdempotencyConflict { .. }
            | MessagingError::NotTaken
            | MessagingError::NotLinked
            | MessagingError::ContactsUnknown
            | MessagingError::InvalidReceipt
            | MessagingError::ForeignReceipt
            | MessagingError::Unreadable { .. }
            | MessagingError::ForeignClient { .. } => Self::Refused(error.to_string()),
            MessagingError::Queue(cause) => {
                log(&cause);
                Self::Failed(fault(&cause))
            }
        }
    }
}

impl From<BadArgument> for Stop {
    fn from(bad: BadArgument) -> Self {
        Self::BadArgument(bad.to_string())
    }
}

/// Says in the log why the store failed a call. Once per call.
pub(super) fn log(cause: &QueueError) {
    tracing::error!(error.kind = cause.label(), error = %cause, "tool call failed");
}

fn fault(cause: &QueueError) -> ToolError {
    // Refusals of the store are the mailbox's own errors: it never passes them on as the store's.
    if cause.is_passing() { ToolError::Unavailable } else { ToolError::Internal }
}

/// The outcome of a call that may have stopped early.
pub(super) fn settle(result: Result<ToolOutcome, Stop>) -> Result<ToolOutcome, ToolError> {
    match result {
        Ok(outcome) => Ok(outcome),
        Err(Stop::Refused(why)) => Ok(ToolOutcome::refused(&why)),
        Err(Stop::BadArgument(why)) => {
            Ok(ToolOutcome { refusal: Some(Refusal::BadArgument), ..ToolOutcome::refused(&why) })
        }
        Err(Stop::Cancelled) => Ok(ToolOutcome::cancelled()),
        Err(Stop::Failed(error)) => Err(error),
    }
}

impl ToolOutcome {
    /// An answer.
    pub(super) fn answer(mut text: String, structured: &impl Serialize) -> Result<Self, Stop> {
        text.truncate(text.trim_end().len());
        // Fails for maps with keys that are no strings only: there are none.
        let structured = serde_json::value::to_raw_value(structured)
            .map_err(|_| Stop::Failed(ToolError::Internal))?;
        Ok(Self { text, structured: Some(structured), ..Self::default() })
    }

    /// Refused, with what the caller can do about it.
    pub(super) fn refused(why: &str) -> Self {
        let stop = if why.ends_with('.') { "" } else { "." };
        Self { text: format!("Refused: {why}{stop}"), is_error: true, ..Self::default() }
    }

    /// Given up by its client: nothing is to be written.
    fn cancelled() -> Self {
        Self { text: "cancelled".to_owned(), cancelled: true, ..Self::default() }
    }

    /// Answered later.
    pub(super) fn later(task: Task, delivery: Option<Delivery>) -> Self {
        Self { task: Some(Box::new(task)), delivery, ..Self::default() }
    }

    /// With the handle of what it carries.
    pub(super) fn carrying(mut self, delivery: Option<Delivery>) -> Self {
        self.delivery = delivery;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_caller_can_mend_is_a_refusal() {
        let error = MessagingError::MessageTooLarge { bytes: 9, limit: 4 };
        let outcome = settle(Err(Stop::sort(error))).unwrap();
        assert!(outcome.is_error && outcome.structured.is_none() && !outcome.cancelled);
        assert!(outcome.text.starts_with("Refused: message is 9 bytes; the limit is 4."));
        assert!(outcome.text.ends_with('.'));
    }

    #[test]
    fn what_the_store_did_is_the_servers_and_its_detail_stays_here() {
        let detail = || "redis.internal:6379 refused".to_owned();
        for (cause, expected) in [
            (QueueError::Unavailable { detail: detail() }, ToolError::Unavailable),
            (QueueError::Timeout, ToolError::Unavailable),
            (QueueError::Contract { detail: detail() }, ToolError::Internal),
        ] {
            let error = settle(Err(Stop::sort(MessagingError::Queue(cause)))).unwrap_err();
            assert_eq!(error, expected);
            assert!(!error.to_string().contains("redis"));
        }
    }

    #[test]
    fn a_cancelled_call_says_so() {
        assert!(settle(Err(Stop::Cancelled)).unwrap().cancelled);
    }
}
