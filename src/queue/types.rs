//! What goes over the port.

use std::{fmt, time::Duration};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::model::{
    Address, ClientId, Inbox, Message, MessageId, MessageState, Principal, TraceParent,
};

/// Position in an inbox: microseconds of the store's clock, strictly increasing per inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(pub u64);

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

/// First 16 bytes of a SHA-256 over the parts, each preceded by its length.
fn digest16(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut out = [0; 16];
    out.copy_from_slice(&hash.finalize()[..16]);
    out
}

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

/// How a client presents itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profile {
    /// Its name for people.
    pub name: String,
    /// What it can do, in its own words.
    pub capabilities: String,
}

/// Which part of the directory.
#[derive(Debug, Clone, Default)]
pub struct ClientQuery {
    /// Part of an id, a name or capabilities, whatever the case. Empty: all.
    pub text: String,
    /// From the page before.
    pub cursor: Option<DirectoryCursor>,
    /// At most so many.
    pub limit: usize,
}

/// Where the next page begins. A client that checks in meanwhile moves to the front, so that later
/// pages may not show it; every other one appears once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryCursor(pub u64);

/// A page of the directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientPage {
    /// Latest check-in first.
    pub clients: Vec<ClientEntry>,
    /// Where the next page begins, if there is one.
    pub next: Option<DirectoryCursor>,
}

/// One client of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientEntry {
    /// Who.
    pub client: ClientId,
    /// How it presents itself.
    pub profile: Profile,
    /// Whether it waits, or when it was last seen.
    pub presence: Presence,
    /// Messages in its inbox.
    pub queued: u64,
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
