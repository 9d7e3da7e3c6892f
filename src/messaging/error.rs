//! Rules that a call broke. The texts are for the caller: they name the culprit and the remedy.

use std::time::Duration;

use super::{Held, Whose};
use crate::{
    model::{ClientId, Grant, MessageId, Rate, Tenant},
    queue::{Pair, QueueError, Unreadable},
    telemetry::Refusal,
};

/// Why the mailbox refused a call, or could not serve it ([`Queue`](Self::Queue)).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessagingError {
    /// Nothing to send.
    #[error("message is empty; write what the recipient should read")]
    EmptyMessage,
    /// Over the limit of one message.
    #[error(
        "message is {bytes} bytes; the limit is {limit}. Send it in parts, or send where to find it"
    )]
    MessageTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A send without anybody to send to.
    #[error("no recipient; give recipient_id or recipients")]
    NoRecipient,
    /// Over the limit of one send.
    #[error(
        "{count} recipients; the limit of one call is {limit}. Send to the rest in further calls"
    )]
    TooManyRecipients {
        /// How many there were.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// A life outside the allowed range.
    #[error("ttl_seconds must be between {min} and {max}")]
    TtlOutOfRange {
        /// Shortest, seconds.
        min: u64,
        /// Longest, seconds.
        max: u64,
    },
    /// A wait over the limit, or below zero.
    #[error(
        "{name} must be between 0 and {max} seconds. Wait in several calls: nothing is lost in between"
    )]
    WaitOutOfRange {
        /// The argument.
        name: &'static str,
        /// Longest, seconds.
        max: u64,
    },
    /// The recipient does not read.
    #[error(
        "the recipient's inbox is full ({messages} messages, {bytes} bytes): it has not fetched its mail. \
         Try again in {} s, when the oldest expires, or when it has fetched", .retry_after.as_secs().max(1)
    )]
    InboxFull {
        /// Messages in it.
        messages: u64,
        /// Bytes in it.
        bytes: u64,
        /// When the oldest expires.
        retry_after: Duration,
    },
    /// The sender waits for too many answers at once.
    #[error(
        "you wait for {open} answers already, which is the limit; let one of them end, or use send_message"
    )]
    TooManyWaits {
        /// Open waits.
        open: u64,
    },
    /// The replica holds as many waiting calls as it may.
    #[error(
        "this server holds {waiters} waiting calls, which is its limit; try again in a few seconds"
    )]
    ReplicaBusy {
        /// The limit.
        waiters: usize,
    },
    /// The replica runs as many calls as it may.
    #[error(
        "this server runs {calls} calls at once, which is its limit; nothing was done. Try again in {} s",
        .retry_after.as_secs()
    )]
    Overloaded {
        /// The limit.
        calls: usize,
        /// When to try again.
        retry_after: Duration,
    },
    /// The caller has as many calls open as it may.
    #[error(
        "{open} calls of yours {} on this server already, which is your limit; let one of them end first", .held.verb()
    )]
    CallerBusy {
        /// What they do.
        held: Held,
        /// The limit.
        open: usize,
    },
    /// The caller or its team sends too much.
    #[error(
        "{} limit of {} messages in {} s is reached; this call sent nothing. Try again in {} s",
        .whose.possessive(), .rate.permits(), .rate.per().as_secs(), seconds(*.retry_after)
    )]
    RateLimited {
        /// Whose limit.
        whose: Whose,
        /// The limit.
        rate: Rate,
        /// When to try again.
        retry_after: Duration,
    },
    /// The two clients look like a loop. The text names them, for the caller: never log it.
    #[error(
        "you and {} sent each other more than {} messages in {} s, which looks like a loop: messages between you are \
         paused for another {} s. This one was not sent. Don't try again before, and tell your user: whoever runs the \
         server ends the pause with `{}`",
        .peer.expose(), .rate.permits(), .rate.per().as_secs(), seconds(*.left), lift_command(.pair)
    )]
    PairPaused {
        /// Who.
        pair: Box<Pair>,
        /// To whom the message was to go.
        peer: ClientId,
        /// What they may send.
        rate: Rate,
        /// How much longer.
        left: Duration,
    },
    /// Same key, other message.
    #[error(
        "idempotency_key was used for another message ({first}); nothing was sent. \
         Use a new key for a new message"
    )]
    IdempotencyConflict {
        /// The message that it was used for.
        first: MessageId,
    },
    /// The recipient does not take messages of this sender. Why, is its own business.
    #[error(
        "this client does not take messages from you; nothing was sent to it, and trying again will not help. It would \
         take an answer to a question that it asks you itself"
    )]
    NotTaken,
    /// The two teams have not both listed each other.
    #[error(
        "no messages pass between your team and that one; nothing was sent. An admin of each has to list the other"
    )]
    NotLinked,
    /// What holds for the teams cannot be found out now.
    #[error(
        "whether this client takes messages from you cannot be found out now; nothing was sent. Try again in a few seconds"
    )]
    ContactsUnknown,
    /// The receipt was not made by this service.
    #[error("receipt is not one that get_messages gave; pass it unchanged, or leave it out")]
    InvalidReceipt,
    /// The receipt belongs to another inbox.
    #[error(
        "receipt belongs to another client_id's messages; pass it with the client_id that fetched them"
    )]
    ForeignReceipt,
    /// The caller's credential does not prove that it is this client. The text names its own ids, for the
    /// caller: never log it.
    #[error("your credential is not that of this client_id; {}", own_ids(.own))]
    ForeignClient {
        /// What it proves.
        own: Grant,
    },
    /// The oldest message of an inbox is there and cannot be read. That was logged and counted where it was found.
    #[error(
        "message {id} {why}. Nothing was taken or lost: it and what is behind it stay in this inbox until it can be \
         read, or until its life is over and its sender is told. Tell whoever runs this server"
    )]
    Unreadable {
        /// Which one.
        id: MessageId,
        /// Why not.
        why: Unreadable,
    },
    /// The store failed. The cause is for the log.
    #[error(transparent)]
    Queue(QueueError),
}

/// Whole seconds, never too few.
fn seconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
}

/// How whoever runs the server ends a pause.
#[must_use]
pub fn lift_command(pair: &Pair) -> String {
    let (one, other) = pair.clients();
    let mut command = format!("mcp-messaging pairs lift {} {}", one.expose(), other.expose());
    if *pair.tenant() != Tenant::default() {
        command.push_str(" --tenant ");
        command.push_str(pair.tenant().as_str());
    }
    command
}

/// Which ids the holder of a key may use, in words for it.
#[must_use]
pub fn own_ids(grant: &Grant) -> String {
    match grant {
        Grant::One(client) => format!("use {}, or leave it out", client.expose()),
        Grant::Below(beginning) => {
            let beginning = beginning.expose();
            format!("use ids that begin with {beginning} such as {beginning}1")
        }
        Grant::WithBelow(client) => {
            let client = client.expose();
            format!(
                "use {client}, or leave it out, or an id that begins with {client}. such as {client}.1"
            )
        }
    }
}

impl MessagingError {
    /// Which rule refused it. `None`: the store failed.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        Some(match self {
            Self::EmptyMessage => Refusal::EmptyMessage,
            Self::MessageTooLarge { .. } => Refusal::MessageTooLarge,
            Self::NoRecipient => Refusal::NoRecipient,
            Self::TooManyRecipients { .. } => Refusal::TooManyRecipients,
            Self::TtlOutOfRange { .. } => Refusal::TtlOutOfRange,
            Self::WaitOutOfRange { .. } => Refusal::WaitOutOfRange,
            Self::InboxFull { .. } => Refusal::InboxFull,
            Self::TooManyWaits { .. } => Refusal::TooManyWaits,
            Self::ReplicaBusy { .. } => Refusal::ReplicaBusy,
            Self::Overloaded { .. } => Refusal::Overloaded,
            Self::CallerBusy { .. } => Refusal::CallerBusy,
            Self::RateLimited { whose: Whose::Caller, .. } => Refusal::RateLimited,
            Self::RateLimited { whose: Whose::Tenant, .. } => Refusal::TenantRateLimited,
            Self::PairPaused { .. } => Refusal::PairPaused,
            Self::IdempotencyConflict { .. } => Refusal::IdempotencyConflict,
            Self::NotTaken => Refusal::NotTaken,
            Self::NotLinked => Refusal::NotLinked,
            Self::ContactsUnknown => Refusal::ContactsUnknown,
            Self::InvalidReceipt => Refusal::InvalidReceipt,
            Self::ForeignReceipt => Refusal::ForeignReceipt,
            Self::ForeignClient { .. } => Refusal::ForeignClient,
            Self::Unreadable { .. } | Self::Queue(_) => return None,
        })
    }
}

impl From<QueueError> for MessagingError {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::InboxFull { messages, bytes, retry_after } => {
                Self::InboxFull { messages, bytes, retry_after }
            }
            QueueError::TooManyWaits { open } => Self::TooManyWaits { open },
            QueueError::NoAnswer => Self::NotTaken,
            QueueError::IdempotencyConflict { first } => Self::IdempotencyConflict { first },
            QueueError::Unreadable { id, why } => Self::Unreadable { id, why },
            QueueError::Unavailable { .. } | QueueError::Timeout | QueueError::Contract { .. } => {
                Self::Queue(error)
            }
        }
    }
}
