//! The store behind the mailbox, as a port.
//!
//! [`QueueBackend`]'s documentation is the contract. One suite of laws (`tests/it/queue_contract.rs`)
//! holds both backends to it, and random histories (`tests/it/queue_model.rs`) hold one against the
//! other. Nothing here names a store: no connection, no transaction, no key.
//!
//! Not here: limits on ids and sizes of a request, rendering, waiting. Those are rules of
//! [`crate::messaging`].

mod credentials;
mod directory;
mod error;
mod ids;
pub mod memory;
mod permits;
pub mod redis;
mod teams;
mod types;
mod wakeups;

use std::time::Duration;

use async_trait::async_trait;

pub use credentials::{
    CredentialStore, FIRST_GENERATION, InvalidKeyId, IssuedKey, KeyId, Revocations,
};
pub use directory::{ClientEntry, ClientPage, ClientQuery, DirectoryCursor, Profile};
pub use error::{QueueError, Unreadable, Unready};
pub use ids::{CallKey, IdempotencyKey, LeaseId, SessionKey, TaskId};
pub use permits::{Bucket, LimitStore, Pair, Pause, Permits};
pub use teams::{
    ContactPolicy, Ending, Invitation, KeptTeam, Member, Policy, Role, Team, TeamStore,
};
pub use types::{
    Arrivals, Batch, Browsed, FetchRequest, Fetched, InboxStat, LedgerEntry, Limits, NewMessage,
    Notice, Outcome, Peek, Presence, Sent, SentStatus, Stamp, Taken, Taking, TaskRecord, Topic,
    WaitState, Waiting,
};
pub use wakeups::{Hub, Wakeups};

use crate::model::{Inbox, MessageId, Survey, Tenant};

/// The store of inboxes, leases, open waits, ledgers and the directory.
///
/// Every operation may be repeated after an error without harm; where a repetition could have made
/// a copy, the copy is marked as redelivered. Time is the store's own clock.
///
/// # Cancel safety
/// Dropping a future of this trait loses no message. What a dropped [`fetch`](Self::fetch) may
/// have handed out stays leased and returns when the lease is over.
#[async_trait]
pub trait QueueBackend: Send + Sync {
    /// Accepts a message for an inbox and wakes its watchers, or refuses it without a trace.
    ///
    /// * With an idempotency key that was used in the life of the message sent with it: the first
    ///   message's id as [`SentStatus::Duplicate`] with its present state, or
    ///   [`QueueError::IdempotencyConflict`] when text or reference differ. Keys are told apart by
    ///   sender and by recipient.
    /// * With `wait`: opens a wait of the sender for the answer, in the same step; at most
    ///   [`Limits::open_waits`] at once. A repetition by idempotency key extends the wait, or opens
    ///   it again if it is over; an answered one keeps its answer. What it has open already does not
    ///   count against the limit.
    /// * A message whose recipient has an open wait for it is parked for that wait
    ///   ([`SentStatus::Replied`]): the wait that `in_reply_to` names, if the sender is the peer
    ///   asked; without `in_reply_to` the oldest open wait on this sender whose question was handed
    ///   to the sender before. A wait takes one reply.
    /// * With [`Taking::Answers`] only what answers an open wait as above is accepted, and what answers a question
    ///   of the recipient that was handed to the sender, while the question lives, once: that answer comes late, and
    ///   is queued. An idempotency key that was used before answers as ever.
    /// * Otherwise it is queued at the end of the inbox.
    ///
    /// The sender's ledger remembers it before the call returns, unless [`Sent::unrecorded`].
    ///
    /// # Errors
    /// [`QueueError::InboxFull`], [`QueueError::TooManyWaits`], [`QueueError::IdempotencyConflict`],
    /// [`QueueError::NoAnswer`]: nothing was stored. [`QueueError::Unavailable`] and [`QueueError::Timeout`]: it may have been
    /// stored; the caller says so.
    async fn send(&self, message: &NewMessage) -> Result<Sent, QueueError>;

    /// Hands out the oldest live messages under a lease; they stay in the inbox until acknowledged.
    ///
    /// * The same lease id again, while the lease runs, returns what is left of the same batch, marked
    ///   as it was, without what arrived since; it prolongs the lease.
    /// * While another reader holds a lease: [`Outcome::Busy`], and nothing is handed out. A lease of
    ///   which nothing is left alive need not hold anybody up.
    /// * With [`FetchRequest::waiting`] and nothing to hand out, the inbox counts as waiting until then
    ///   (senders see it), also if it is busy. The first fetch of a later waiting call of the same session
    ///   wakes this one, unless it got messages before, and makes its next fetch [`Outcome::Superseded`].
    /// * Expired messages are dropped and remembered for their senders.
    /// * A message whose text cannot be read ends the batch before it, so that order is kept. It and what is
    ///   behind it count as never handed out.
    /// * [`Fetched::due`] says when to look again although nothing will be published.
    ///
    /// # Errors
    /// [`QueueError::Unreadable`]: of the oldest message. Nothing was handed out.
    async fn fetch(&self, inbox: &Inbox, request: &FetchRequest) -> Result<Fetched, QueueError>;

    /// Removes what was handed out up to and including `upto`. Cumulative and idempotent; never
    /// removes what was not handed out. It counts also after the lease is over, under another reader's
    /// lease, and for a message whose life ended after it was handed out. A lease of which nothing is
    /// left by that is over. Wakes readers if messages remain. Returns how many it removed.
    async fn ack(&self, inbox: &Inbox, upto: Stamp) -> Result<u64, QueueError>;

    /// Gives a lease back at once and wakes the next reader. `false`: it was not this lease's any more.
    async fn release(&self, inbox: &Inbox, lease: LeaseId) -> Result<bool, QueueError>;

    /// Prolongs a lease from now. `false`: it was not this lease's any more. Of a lease that ran out
    /// and that nobody took over, either may be answered.
    async fn extend(&self, inbox: &Inbox, lease: LeaseId, by: Duration)
    -> Result<bool, QueueError>;

    /// The inbox no longer counts as waiting: a waiting fetch went away without messages.
    async fn leave(&self, inbox: &Inbox) -> Result<(), QueueError>;

    /// The reply parked for an open wait, which stays parked until [`wait_done`](Self::wait_done)
    /// or [`wait_close`](Self::wait_close), and is marked as handed out: taken again, it comes as
    /// redelivered. It may lapse in its wait: then its sender gets a notice as for any other message.
    ///
    /// # Errors
    /// [`QueueError::Unreadable`]: of the reply, which stays parked and counts as never handed out.
    async fn wait_take(&self, inbox: &Inbox, wait: MessageId) -> Result<WaitState, QueueError>;

    /// The reply reached the caller: it is acknowledged and the wait is over.
    async fn wait_done(&self, inbox: &Inbox, wait: MessageId) -> Result<(), QueueError>;

    /// Gives a wait up. An undone reply goes to the end of the inbox (marked redelivered if it was
    /// handed out) and wakes its readers. Idempotent. A wait whose replica died ends by itself 10 s
    /// after its deadline.
    async fn wait_close(&self, inbox: &Inbox, wait: MessageId) -> Result<(), QueueError>;

    /// Makes an open wait a task: a wait that is asked for by an id. `None`: the wait is over, the client has
    /// [`Limits::open_waits`] tasks already, or the store cannot promise to keep it; then it is a wait as any other.
    ///
    /// * Until its deadline it takes a reply as any wait does. The replica that opened it need not live.
    /// * A reply that nobody acknowledges within `hold`, or half of its life if that is less, goes to the
    ///   inbox, marked if it was handed out.
    /// * It is known until `hold` after its deadline, to every replica.
    async fn task_open(
        &self,
        inbox: &Inbox,
        wait: MessageId,
        hold: Duration,
    ) -> Result<Option<TaskRecord>, QueueError>;

    /// The task of that id, as long as it is known. What its wait has come to,
    /// [`wait_take`](Self::wait_take) says.
    async fn task(&self, id: &TaskId) -> Result<Option<TaskRecord>, QueueError>;

    /// The reply that was handed out reached who asked for it: it is acknowledged, and stays for whoever
    /// asks again until the task ends, marked as redelivered. It no longer counts as an open wait. `true`:
    /// it counts as acknowledged by this call.
    async fn task_done(&self, task: &TaskRecord) -> Result<bool, QueueError>;

    /// Gives a task up as [`wait_close`](Self::wait_close) does. `false`: it had come to its end before. That
    /// is so once its reply was handed out, though nobody acknowledged it.
    async fn task_cancel(&self, task: &TaskRecord) -> Result<bool, QueueError>;

    /// What an inbox holds, without taking anything.
    async fn peek(&self, inbox: &Inbox) -> Result<Peek, QueueError>;

    /// The oldest live messages of an inbox, at most `max_messages` of them and at most `max_bytes` of
    /// text, but always one message unless `max_messages` is 0. Nothing is taken, leased or marked by
    /// it, and its owner does not count as seen or waiting. What is under somebody's lease is shown too.
    /// A message whose text cannot be read ends it.
    ///
    /// # Errors
    /// [`QueueError::Unreadable`]: of the oldest message.
    async fn browse(
        &self,
        inbox: &Inbox,
        max_messages: usize,
        max_bytes: usize,
    ) -> Result<Browsed, QueueError>;

    /// What the sender's ledger remembers, oldest first, with the present state of each message. One
    /// that a reader holds under a lease counts as delivered, though its life ended meanwhile.
    async fn ledger(&self, sender: &Inbox) -> Result<Vec<LedgerEntry>, QueueError>;

    /// The sender's messages that expired unacknowledged and of which it was not told yet. They are
    /// reported again until [`notices_told`](Self::notices_told).
    async fn notices(&self, sender: &Inbox) -> Result<Vec<Notice>, QueueError>;

    /// The sender was told of these.
    async fn notices_told(&self, sender: &Inbox, ids: &[MessageId]) -> Result<(), QueueError>;

    /// Records a client in the directory of its tenant for `keep`.
    async fn check_in(
        &self,
        inbox: &Inbox,
        profile: &Profile,
        keep: Duration,
    ) -> Result<(), QueueError>;

    /// A page of the directory, latest check-in first.
    async fn clients(&self, tenant: &Tenant, query: &ClientQuery)
    -> Result<ClientPage, QueueError>;

    /// Inboxes that hold messages or wait, at most `limit` of them, in no order.
    async fn inboxes(&self, tenant: &Tenant, limit: usize) -> Result<Vec<InboxStat>, QueueError>;

    /// Starts watching. Every event on the topic that begins after this call has returned wakes the
    /// handle; spurious wake-ups are allowed. Dropping the handle ends it.
    async fn watch(&self, topic: Topic) -> Result<Wakeups, QueueError>;

    /// Marks a call as cancelled for a minute and wakes its [`Topic::Call`], on whichever replica.
    async fn cancel_call(&self, call: &CallKey) -> Result<(), QueueError>;

    /// Whether [`cancel_call`](Self::cancel_call) was said of it.
    async fn call_cancelled(&self, call: &CallKey) -> Result<bool, QueueError>;

    /// Counts what lies in all inboxes of all tenants. Of the processes on one store one does it: who is
    /// the first to ask, for as long as it asks again within `lease`. `None`: another one does.
    ///
    /// The store is walked in small steps with long pauses, so it may take long. What changes meanwhile
    /// may be counted or not.
    async fn survey(&self, lease: Duration) -> Result<Option<Survey>, QueueError>;

    /// Whether the store can be relied on now, for `/readyz`.
    async fn ready(&self) -> Result<(), Unready>;
}
