//! The store in this process's memory: one replica, nothing survives a restart.
//!
//! All mail is behind one mutex that is never held across an await: an operation is a few hash
//! look-ups, well under the price of sharing them out. Wake-ups are given after it was let go.
//!
//! Nothing runs in the background. What ended its life is dropped by whoever touches its inbox next,
//! and every write turns a wheel of all inboxes by two, so that the state of clients who never come
//! back is dropped by the traffic of the others. Without traffic nothing grows.
//!
//! Not here: sleeping. The clock port decides what has expired; waiting is the caller's.

mod directory;
mod fate;
mod keys;
mod ledger;
mod letter;
mod mailbox;
mod permits;
mod state;
mod survey;
mod tasks;
mod waits;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;

use self::{directory::Directory, permits::Limiter, state::State};
use super::{
    Browsed, Bucket, CallKey, ClientEntry, ClientPage, ClientQuery, FetchRequest, Fetched, Hub,
    InboxStat, LeaseId, LedgerEntry, LimitStore, Limits, NewMessage, Notice, Pair, Pause, Peek,
    Permits, Presence, Profile, QueueBackend, QueueError, Sent, Stamp, TaskId, TaskRecord, Topic,
    Unready, WaitState, Wakeups,
};
use crate::{
    model::{ClientId, Clock, Inbox, MessageId, Rate, Survey, Tenant},
    telemetry::Metrics,
};

/// How long the cancellation of a call is remembered.
const CALL_LIFE: Duration = Duration::from_mins(1);

/// [`QueueBackend`] in memory. A panic under a lock would be a fault of ours in one inbox: the others go on.
pub struct MemoryQueue {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    directory: Mutex<Directory>,
    calls: Mutex<Calls>,
    limiter: Mutex<Limiter>,
    ledger_life: Duration,
    hub: Hub,
    metrics: Option<Arc<Metrics>>,
}

/// Cancelled calls. All live equally long, so the oldest is always the first to go.
#[derive(Default)]
struct Calls {
    until_us: HashMap<CallKey, u64>,
    in_order: VecDeque<(u64, CallKey)>,
}

impl Calls {
    fn forget(&mut self, now_us: u64) {
        while let Some(&(until_us, call)) = self.in_order.front()
            && until_us <= now_us
        {
            self.in_order.pop_front();
            if self.until_us.get(&call).is_some_and(|&until_us| until_us <= now_us) {
                self.until_us.remove(&call);
            }
        }
    }
}

impl MemoryQueue {
    /// An empty store.
    #[must_use]
    pub fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            state: Mutex::new(State::new(limits)),
            directory: Mutex::default(),
            calls: Mutex::default(),
            limiter: Mutex::default(),
            ledger_life: limits.ledger_life,
            hub: Hub::new(),
            metrics: None,
        }
    }

    /// The same, counting what expires.
    #[must_use]
    pub fn counting(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Works on the mail, then wakes whom that concerns.
    fn mail<T>(&self, work: impl FnOnce(&mut State, u64) -> T) -> T {
        let mut state = self.state.lock();
        let out = work(&mut state, self.clock.now_us());
        let (wakes, expired) = (state.take_wakes(), state.take_expired());
        drop(state);
        if let Some(metrics) = &self.metrics {
            metrics.found_expired(expired);
        }
        for topic in wakes {
            self.wake(&topic);
        }
        out
    }

    /// Whether a client is to be told of a pause.
    fn has_pauses(&self, client: &Inbox) -> bool {
        !self.limiter.lock().pauses(client, self.clock.now_us()).is_empty()
    }

    fn wake(&self, topic: &Topic) {
        self.hub.wake(&topic_name(topic));
    }
}

/// A duration in the clock's unit.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// From now to a point in time; zero if that is over.
fn until(now_us: u64, at_us: u64) -> Duration {
    Duration::from_micros(at_us.saturating_sub(now_us))
}

fn topic_name(topic: &Topic) -> String {
    match topic {
        Topic::Inbox(inbox) | Topic::News(inbox) => format!("q{}", inbox.name()),
        Topic::Reply(inbox, id) => format!("r{id}{}", inbox.name()),
        Topic::Call(call) => format!("c{:032x}", u128::from_be_bytes(*call.as_bytes())),
    }
}

#[async_trait]
impl QueueBackend for MemoryQueue {
    async fn send(&self, message: &NewMessage) -> Result<Sent, QueueError> {
        // The digest is the dear part: before the lock.
        let key = message.idempotency.map(|key| (key, message.content_digest()));
        let mut sent = self.mail(|state, now_us| state.send(message, key, now_us))?;
        sent.notices_due |= self.has_pauses(&message.sender);
        Ok(sent)
    }

    async fn fetch(&self, inbox: &Inbox, request: &FetchRequest) -> Result<Fetched, QueueError> {
        let mut fetched = self.mail(|state, now_us| state.fetch(inbox, request, now_us));
        fetched.notices_due |= self.has_pauses(inbox);
        Ok(fetched)
    }

    async fn ack(&self, inbox: &Inbox, upto: Stamp) -> Result<u64, QueueError> {
        Ok(self.mail(|state, _now_us| state.ack(inbox, upto)))
    }

    async fn release(&self, inbox: &Inbox, lease: LeaseId) -> Result<bool, QueueError> {
        Ok(self.mail(|state, _now_us| state.release(inbox, lease)))
    }

    async fn extend(
        &self,
        inbox: &Inbox,
        lease: LeaseId,
        by: Duration,
    ) -> Result<bool, QueueError> {
        Ok(self.mail(|state, now_us| state.extend(inbox, lease, now_us.saturating_add(micros(by)))))
    }

    async fn leave(&self, inbox: &Inbox) -> Result<(), QueueError> {
        self.mail(|state, _now_us| state.leave(inbox));
        Ok(())
    }

    async fn wait_take(&self, inbox: &Inbox, wait: MessageId) -> Result<WaitState, QueueError> {
        Ok(self.mail(|state, now_us| state.wait_take(inbox, wait, now_us)))
    }

    async fn wait_done(&self, inbox: &Inbox, wait: MessageId) -> Result<(), QueueError> {
        self.mail(|state, _now_us| state.wait_done(inbox, wait));
        Ok(())
    }

    async fn wait_close(&self, inbox: &Inbox, wait: MessageId) -> Result<(), QueueError> {
        self.mail(|state, now_us| state.wait_close(inbox, wait, now_us));
        Ok(())
    }

    async fn task_open(
        &self,
        inbox: &Inbox,
        wait: MessageId,
        hold: Duration,
    ) -> Result<Option<TaskRecord>, QueueError> {
        Ok(self.mail(|state, now_us| state.task_open(inbox, wait, hold, now_us)))
    }

    async fn task(&self, id: &TaskId) -> Result<Option<TaskRecord>, QueueError> {
        Ok(self.mail(|state, now_us| state.task(id, now_us)))
    }

    async fn task_done(&self, task: &TaskRecord) -> Result<bool, QueueError> {
        Ok(self.mail(|state, _now_us| state.task_done(task)))
    }

    async fn task_cancel(&self, task: &TaskRecord) -> Result<bool, QueueError> {
        Ok(self.mail(|state, now_us| state.task_cancel(task, now_us)))
    }

    async fn peek(&self, inbox: &Inbox) -> Result<Peek, QueueError> {
        Ok(self.mail(|state, now_us| state.peek(inbox, now_us)))
    }

    async fn browse(
        &self,
        inbox: &Inbox,
        max_messages: usize,
        max_bytes: usize,
    ) -> Result<Browsed, QueueError> {
        Ok(self.mail(|state, now_us| state.browse(inbox, (max_messages, max_bytes), now_us)))
    }

    async fn ledger(&self, sender: &Inbox) -> Result<Vec<LedgerEntry>, QueueError> {
        Ok(self.mail(|state, now_us| state.ledger(sender, now_us)))
    }

    async fn notices(&self, sender: &Inbox) -> Result<Vec<Notice>, QueueError> {
        Ok(self.mail(|state, now_us| state.notices(sender, now_us)))
    }

    async fn notices_told(&self, sender: &Inbox, ids: &[MessageId]) -> Result<(), QueueError> {
        self.mail(|state, _now_us| state.notices_told(sender, ids));
        Ok(())
    }

    async fn check_in(
        &self,
        inbox: &Inbox,
        profile: &Profile,
        keep: Duration,
    ) -> Result<(), QueueError> {
        self.mail(|state, now_us| state.contact(inbox, now_us));
        self.directory.lock().check_in(inbox, profile, self.clock.now_us(), micros(keep));
        Ok(())
    }

    async fn clients(
        &self,
        tenant: &Tenant,
        query: &ClientQuery,
    ) -> Result<ClientPage, QueueError> {
        let page = self.directory.lock().page(tenant, query, self.clock.now_us());
        let clients = self.mail(|state, now_us| {
            let entry = |found: directory::Found| {
                let peek = state.peek(&found.inbox, now_us);
                let presence = match peek.presence {
                    Presence::Unknown => Presence::Seen(until(found.at_us, now_us)),
                    known @ (Presence::Waiting | Presence::Seen(_)) => known,
                };
                ClientEntry {
                    client: found.inbox.client().clone(),
                    profile: found.profile,
                    presence,
                    queued: peek.queued,
                }
            };
            page.found.into_iter().map(entry).collect()
        });
        Ok(ClientPage { clients, next: page.next })
    }

    async fn inboxes(&self, tenant: &Tenant, limit: usize) -> Result<Vec<InboxStat>, QueueError> {
        Ok(self.mail(|state, now_us| state.inboxes(tenant, limit, now_us)))
    }

    async fn watch(&self, topic: Topic) -> Result<Wakeups, QueueError> {
        Ok(self.hub.register(&topic_name(&topic)))
    }

    async fn cancel_call(&self, call: &CallKey) -> Result<(), QueueError> {
        let now_us = self.clock.now_us();
        let until_us = now_us.saturating_add(micros(CALL_LIFE));
        let mut calls = self.calls.lock();
        calls.forget(now_us);
        calls.until_us.insert(*call, until_us);
        calls.in_order.push_back((until_us, *call));
        drop(calls);
        self.wake(&Topic::Call(*call));
        Ok(())
    }

    async fn call_cancelled(&self, call: &CallKey) -> Result<bool, QueueError> {
        let now_us = self.clock.now_us();
        let calls = self.calls.lock();
        Ok(calls.until_us.get(call).is_some_and(|&until_us| until_us > now_us))
    }

    async fn survey(&self, _lease: Duration) -> Result<Option<Survey>, QueueError> {
        Ok(Some(self.mail(State::survey)))
    }

    async fn ready(&self) -> Result<(), Unready> {
        Ok(())
    }
}

#[async_trait]
impl LimitStore for MemoryQueue {
    async fn permits(
        &self,
        bucket: &Bucket,
        rate: Rate,
        need: u32,
        want: u32,
    ) -> Result<Permits, QueueError> {
        let now_us = self.clock.now_us();
        Ok(self.limiter.lock().permits(bucket, rate, (need, want), now_us))
    }

    async fn pause(
        &self,
        pair: &Pair,
        time: Duration,
        told: &ClientId,
    ) -> Result<(Duration, bool), QueueError> {
        let times = (time, self.ledger_life);
        Ok(self.limiter.lock().pause(pair, times, told, self.clock.now_us()))
    }

    async fn lift(&self, pair: &Pair) -> Result<bool, QueueError> {
        Ok(self.limiter.lock().lift(pair, self.clock.now_us()))
    }

    async fn paused_pairs(&self, tenant: &Tenant) -> Result<Vec<(Pair, Duration)>, QueueError> {
        Ok(self.limiter.lock().paused_pairs(tenant, self.clock.now_us()))
    }

    async fn pauses(&self, client: &Inbox) -> Result<Vec<Pause>, QueueError> {
        Ok(self.limiter.lock().pauses(client, self.clock.now_us()))
    }

    async fn pauses_told(&self, client: &Inbox, told: &[Pause]) -> Result<(), QueueError> {
        self.limiter.lock().told(client, told);
        Ok(())
    }
}
