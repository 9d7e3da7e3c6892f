//! What goes over the port.

use std::time::Duration;

use super::ids::{CallKey, IdempotencyKey, LeaseId, SessionKey, TaskId, digest16};
use crate::model::{Address, ClientId, Inbox, Message, MessageId, MessageState, TraceParent};

/// Position in an inbox: microseconds of the store's clock, strictly increasing per inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(pub u64);

/// What [`super::QueueBackend::send`] is asked to accept.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// Its id, kept through every retry of the request.
    pub id: MessageId,
    /// Who sends it; its ledger remembers it.
    pub sender: Inbox,
    /// A credential proved the sender.
    pub verified: bool,
    /// Whose inbox it goes to.
    pub recipient: Inbox,
    /// What is sent.
    pub text: String,
    /// The message that it answers.
    pub in_reply_to: Option<MessageId>,
    /// Accept it once per key.
    pub idempotency: Option<IdempotencyKey>,
    /// How long it lives.
    pub ttl: Duration,
    /// The sender waits this long for the answer.
    pub wait: Option<Duration>,
    /// The sender's trace.
    pub trace: Option<TraceParent>,
    /// How far the recipient takes what its sender sends.
    pub taken: Taking,
}

/// How far a recipient takes messages of a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Taking {
    /// All of them.
    #[default]
    All,
    /// Answers to what it asked this sender only.
    Answers,
}

impl NewMessage {
    /// What must be equal in a repetition under one idempotency key.
    #[must_use]
    pub fn content_digest(&self) -> [u8; 16] {
        digest16(&self.content())
    }

    /// What [`content_digest`](Self::content_digest) is a digest of, for a store that keys its own.
    #[must_use]
    pub fn content(&self) -> [&[u8]; 3] {
        let reference = self.in_reply_to.as_ref().map_or(&[][..], |id| &id.as_bytes()[..]);
        [self.recipient.name().as_bytes(), reference, self.text.as_bytes()]
    }
}

/// Bounds that the store enforces, because only it can do so atomically.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Messages of one inbox.
    pub inbox_messages: u64,
    /// Bytes of one inbox as they are stored: headers included, and what seals a text.
    pub inbox_bytes: u64,
    /// Open waits of one sender.
    pub open_waits: u64,
    /// Entries of one sender's ledger above which settled ones (acknowledged, or told as expired) are
    /// dropped, the oldest first. Others are kept up to four times as many.
    pub ledger_entries: u64,
    /// How long a ledger remembers a message after its life.
    pub ledger_life: Duration,
}

/// A message was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Its id; of a duplicate the first one's.
    pub id: MessageId,
    /// How.
    pub status: SentStatus,
    /// What is known of the recipient.
    pub recipient: Presence,
    /// The sender has notices to hear: ask [`super::QueueBackend::notices`] and [`super::LimitStore::pauses`].
    pub notices_due: bool,
    /// The store could not write the sender's ledger: no notice can be given for this message.
    pub unrecorded: bool,
    /// Fewer replicas of the store than it was told to wait for had this in time. It is accepted, and lost
    /// only if the store's primary is lost before they have it.
    pub unconfirmed: bool,
}

/// How a message was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SentStatus {
    /// At the end of the inbox.
    Queued,
    /// Handed to the wait that it answers.
    Replied,
    /// The idempotency key was seen: nothing new was stored.
    Duplicate(MessageState),
}

/// What the store knows of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// A blocking fetch of it is open now, or the wait that a reply answers.
    Waiting,
    /// It was last seen this long ago.
    Seen(Duration),
    /// It never sent, fetched or checked in, as far as the store remembers.
    Unknown,
}

/// What [`super::QueueBackend::fetch`] is asked for.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// Under which lease.
    pub lease: LeaseId,
    /// For how long.
    pub lease_for: Duration,
    /// At most so many messages; at least 1.
    pub max_messages: usize,
    /// At most so many bytes of text, but always one message. A store may count what it adds to seal a text.
    pub max_bytes: usize,
    /// The caller waits if there is nothing.
    pub waiting: Option<Waiting>,
}

/// A blocking fetch.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// How much longer. Zero: its last look.
    pub remaining: Duration,
    /// Which waiting call this is, if it belongs to a session.
    pub session: Option<SessionKey>,
    /// The same through all fetches of one call.
    pub call: LeaseId,
    /// The call's first fetch.
    pub first: bool,
}

/// What a fetch found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Messages, or why there are none.
    pub outcome: Outcome,
    /// Messages in the inbox that this fetch did not hand out.
    pub remaining: u64,
    /// Look again after this long although nothing will be published.
    pub due: Option<Duration>,
    /// The client has notices to hear: ask [`super::QueueBackend::notices`] and [`super::LimitStore::pauses`].
    pub notices_due: bool,
}

/// The result of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The oldest messages, under the lease asked for.
    Messages(Batch),
    /// Nothing there.
    Empty,
    /// Another reader holds the head until [`Fetched::due`].
    Busy,
    /// A later call of the same session waits now; this one gets nothing more.
    Superseded,
}

/// Messages under a lease. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Oldest first.
    pub messages: Vec<Message>,
    /// Acknowledge up to here.
    pub upto: Stamp,
}

/// What a wait has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitState {
    /// Its reply, or why there is none.
    pub taken: Taken,
    /// Messages in the waiter's own inbox, which the wait leaves alone.
    pub queued: u64,
}

/// The reply to a wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// The reply.
    Reply(Box<Message>),
    /// No reply yet.
    Open,
    /// The wait is over: closed, or swept after its deadline.
    Gone,
}

/// A wait that is asked for by an id. Times are milliseconds since the Unix epoch by the store's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRecord {
    /// Its id.
    pub id: TaskId,
    /// Who asked the question.
    pub inbox: Inbox,
    /// The question, which names the wait.
    pub wait: MessageId,
    /// Who was asked.
    pub peer: Address,
    /// When it began.
    pub created_ms: u64,
    /// Until when it takes a reply.
    pub deadline_ms: u64,
    /// Until when it is known.
    pub ends_ms: u64,
    /// When it was given up.
    pub cancelled_ms: Option<u64>,
    /// When the store said so.
    pub now_ms: u64,
}

/// What an inbox holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peek {
    /// Messages in it, leased ones included. May count messages that expired behind a live one.
    pub queued: u64,
    /// Of them, under a running lease.
    pub leased: u64,
    /// Age of the oldest.
    pub oldest: Option<Duration>,
    /// Its owner.
    pub presence: Presence,
}

/// What an inbox shows of itself, while nothing is taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Browsed {
    /// The oldest live messages, marked as the next fetch would mark them. The first
    /// [`leased`](Self::leased) of them are in somebody's hands.
    pub messages: Vec<Message>,
    /// Messages in the inbox, leased ones included. May count messages that expired behind a live one.
    pub queued: u64,
    /// Of them, under a running lease.
    pub leased: u64,
    /// What there is to take.
    pub arrivals: Arrivals,
    /// Look again after this long although nothing will be published.
    pub due: Option<Duration>,
}

/// How far an inbox has filled, to be compared with an earlier look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Arrivals {
    /// Of the last message in the inbox; zero if there is none.
    pub newest: Stamp,
    /// The oldest message was handed out and came back: up to where, and how often it was. `None` while
    /// a lease holds it.
    pub returned: Option<(Stamp, u32)>,
}

impl Arrivals {
    /// Whether there is something to take that was not there at an earlier look: a message that
    /// arrived since, or one that was handed out and came back.
    #[must_use]
    pub fn beyond(&self, earlier: &Self) -> bool {
        self.newest > earlier.newest
            || (self.returned.is_some() && self.returned != earlier.returned)
    }
}

/// One message that a sender sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Its id.
    pub id: MessageId,
    /// Whom it went to.
    pub recipient: Address,
    /// When it was accepted, milliseconds since the Unix epoch by the store's clock.
    pub sent_at_ms: u64,
    /// What became of it.
    pub state: MessageState,
}

/// A message expired before anybody acknowledged it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Its id.
    pub id: MessageId,
    /// Whom it went to.
    pub recipient: Address,
    /// When it was accepted, milliseconds since the Unix epoch by the store's clock.
    pub sent_at_ms: u64,
}

/// One inbox that holds messages or waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxStat {
    /// Whose.
    pub client: ClientId,
    /// Messages in it.
    pub queued: u64,
    /// Its owner.
    pub presence: Presence,
}

/// What can be watched.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Messages of an inbox: arrivals, leases given back. For who fetches at each wake-up: a store may
    /// take mail beside a sleeping watcher for a wake-up that was missed.
    Inbox(Inbox),
    /// The same, for who only looks.
    News(Inbox),
    /// The reply to one's own message.
    Reply(Inbox, MessageId),
    /// The cancellation of a call.
    Call(CallKey),
}
