//! The mailbox in Redis.
//!
//! Every operation is one function of `migrations/functions/mb1.lua` on the keys of one hash slot
//! (single server, Sentinel and Cluster alike); `migrations/KEYSPACE.md` names the keys. A process has
//! one [`RedisStore`] (subscriber, settings) and one [`RedisQueue`] with its own connection per worker.
//!
//! Not here: what a message means. This adapter only carries the contract of [`QueueBackend`].

mod browse;
mod confirm;
mod credentials;
mod functions;
mod keys;
mod ledger;
mod library;
mod link;
mod packed;
mod permits;
mod record;
mod reply;
mod seal;
mod send;
mod subscriber;
mod survey;
mod tasks;
mod teams;
mod together;
mod unread;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use async_trait::async_trait;
use fred::types::Value;
use tokio_util::task::TaskTracker;

pub use link::{Confirm, RedisSettings};
pub use seal::{Seal, Sealing};

use self::{
    confirm::Confirming,
    functions::Operation,
    keys::InboxKeys,
    link::Link,
    packed::Packed,
    record::{Handed, Reader},
    reply::{Answer, contract},
    subscriber::Subscriber,
};
use super::{
    Batch, Browsed, CallKey, ClientEntry, ClientPage, ClientQuery, DirectoryCursor, FetchRequest,
    Fetched, InboxStat, LeaseId, LedgerEntry, Limits, NewMessage, Notice, Outcome, Peek, Presence,
    Profile, QueueBackend, QueueError, Sent, Stamp, Taken, TaskId, TaskRecord, Topic, Unready,
    WaitState, Wakeups,
};
use crate::{
    model::{ClientId, Inbox, MessageId, Survey, Tenant},
    telemetry::Metrics,
};

/// Options of a call, as the functions read them.
const OWN: u8 = 1;
const KEYED: u8 = 2;
const RETRY: u8 = 4;
const SHARDED: u8 = 8;
const COVERED: u8 = 16;
/// The recipient takes answers only.
const ANSWERS: u8 = 32;

/// What a process shares.
#[derive(Clone)]
pub struct RedisStore {
    settings: RedisSettings,
    limits: Limits,
    clustered: bool,
    scripts: Arc<AtomicBool>,
    subscriber: Arc<Subscriber>,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    /// Tells this process from others on the same Redis.
    name: Arc<str>,
}

impl RedisStore {
    /// Begins to connect and to listen. Needs a tokio runtime. Redis may be away: then every
    /// operation fails until it comes, and [`QueueBackend::ready`] says so.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`] if the URL is not usable.
    pub fn start(
        settings: RedisSettings,
        limits: Limits,
        metrics: Arc<Metrics>,
        tasks: TaskTracker,
    ) -> Result<Self, QueueError> {
        let clustered = settings.clustered()?;
        metrics.redis_used(Operation::ALL.into_iter().map(Operation::name), functions::REVISION);
        let scripts = Arc::new(AtomicBool::new(false));
        let open = || {
            let metrics = Arc::clone(&metrics);
            Link::open(&settings, Duration::ZERO, Arc::clone(&scripts), metrics, &tasks)
        };
        let subscriber =
            Subscriber::start(open()?, open()?, clustered, Arc::clone(&metrics), &tasks);
        let subscriber = Arc::new(subscriber);
        let name = uuid::Uuid::now_v7().simple().to_string().into();
        Ok(Self { settings, limits, clustered, scripts, subscriber, metrics, tasks, name })
    }

    /// A queue with a connection of its own, on the runtime of the caller.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`] if the URL is not usable.
    pub fn queue(&self) -> Result<RedisQueue, QueueError> {
        let open = |held_up| {
            let metrics = Arc::clone(&self.metrics);
            Link::open(&self.settings, held_up, Arc::clone(&self.scripts), metrics, &self.tasks)
        };
        let mut link = open(Duration::ZERO)?;
        if !self.clustered {
            link = link.together(&self.tasks);
        }
        let confirming = match self.settings.confirm {
            Some(confirm) => {
                Some(Confirming::new(open(confirm.within)?, confirm, self.tasks.clone()))
            }
            None => None,
        };
        Ok(RedisQueue { store: self.clone(), link, confirming })
    }

    /// How many wake channels this process hears.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.subscriber.subscriptions()
    }
}

/// The mailbox in Redis, through one connection.
#[derive(Clone)]
pub struct RedisQueue {
    store: RedisStore,
    link: Link,
    /// The way of sends, if replicas are to have them.
    confirming: Option<Confirming>,
}

fn bytes(value: &[u8]) -> Value {
    Value::Bytes(fred::bytes::Bytes::copy_from_slice(value))
}

fn text(value: &str) -> Value {
    Value::String(value.into())
}

fn millis(duration: Duration) -> Value {
    Value::Integer(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

fn count(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

impl RedisQueue {
    /// Loads the library unless a newer revision is there, and warns if Redis does not persist.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`] says what to do.
    pub async fn prepare(&self) -> Result<(), QueueError> {
        self.link.ensure().await?;
        self.link.keeps_data().await?;
        // Said once, when nothing else is wrong: whoever calls this calls it until it succeeds.
        if self.link.persists().await == Some(false) {
            tracing::warn!(
                "Redis runs without an append-only file: messages since its last snapshot are lost \
                 when it stops (set appendonly yes)"
            );
        }
        if let Some(confirming) = &self.confirming {
            confirming.report().await;
        }
        Ok(())
    }

    fn keep(&self) -> Value {
        millis(self.store.limits.ledger_life)
    }

    /// The options that every function takes which wakes somebody.
    fn options(&self) -> u8 {
        if self.store.clustered { SHARDED } else { 0 }
    }

    /// The options as an argument of their own.
    fn options_alone(&self) -> Value {
        Value::Integer(self.options().into())
    }

    async fn call(
        &self,
        operation: Operation,
        bucket: u8,
        keys: Vec<Value>,
        args: Vec<Value>,
    ) -> Result<Value, QueueError> {
        self.link.call(operation, keys::slot(bucket), keys, args).await
    }
}

#[async_trait]
impl QueueBackend for RedisQueue {
    async fn send(&self, message: &NewMessage) -> Result<Sent, QueueError> {
        if self.store.clustered {
            return Box::pin(self.send_across(message)).await;
        }
        Ok(self.send_once(message, (message.taken, Value::from_static_str("")), true).await?.sent)
    }

    async fn fetch(&self, inbox: &Inbox, request: &FetchRequest) -> Result<Fetched, QueueError> {
        let keys = InboxKeys::new(inbox);
        let waiting = request.waiting.as_ref();
        let mut packed =
            Packed::new(self.options(), waiting.is_some_and(|waiting| waiting.first).into())
                .number(request.max_messages as u64)
                .number(request.max_bytes as u64)
                .millis(request.lease_for)
                .millis_or_none(waiting.map(|waiting| waiting.remaining))
                .millis(self.store.limits.ledger_life)
                .bytes(request.lease.as_bytes());
        if let Some(waiting) = waiting {
            packed = packed.bytes(waiting.call.as_bytes());
            if let Some(session) = &waiting.session {
                packed = packed.bytes(session.as_bytes());
            }
        }
        let value =
            self.call(Operation::Fetch, keys.bucket, keys.all(), vec![packed.value()]).await?;
        let mut answer = Answer::new(value)?;
        let head = answer.bytes()?;
        let mut reader = Reader(head.as_bytes().unwrap_or_default());
        let too_short = || contract("fetch answered too little");
        let [kind, look_up] = reader.take().ok_or_else(too_short)?;
        let mut numbers = [0.0; 6];
        for number in &mut numbers {
            *number = f64::from_be_bytes(reader.take().ok_or_else(too_short)?);
        }
        let [_, _, due, ..] = numbers;
        let [now_ms, remaining, due_ms, seen_us, attempt, upto] = numbers.map(record::whole);
        let due = (due >= 0.0).then(|| Duration::from_millis(due_ms));
        let (attempt, upto) = (u32::try_from(attempt).unwrap_or(u32::MAX), Stamp(upto));
        let (notices_due, mut remaining) = (look_up == 1, remaining);
        let outcome = match kind {
            0 => Outcome::Empty,
            1 => {
                let handed = Handed { now_ms, seen_us, attempt };
                let read = self.read(inbox, answer, handed)?;
                if read.left > 0 {
                    remaining += read.left;
                    Outcome::Messages(self.unfetch(inbox, request.lease, read).await?)
                } else {
                    Outcome::Messages(Batch { messages: read.messages, upto })
                }
            }
            2 => Outcome::Busy,
            3 => Outcome::Superseded,
            other => return Err(contract(&format!("fetch answered {other}"))),
        };
        Ok(Fetched { outcome, remaining, due, notices_due })
    }

    async fn ack(&self, inbox: &Inbox, upto: Stamp) -> Result<u64, QueueError> {
        let keys = InboxKeys::new(inbox);
        let names = vec![keys.queue(), keys.meta(), keys.exceptions()];
        let packed = Packed::new(self.options(), 0).number(upto.0);
        let value = self.call(Operation::Ack, keys.bucket, names, vec![packed.value()]).await?;
        Ok(u64::try_from(reply::integer(&value)?).unwrap_or_default())
    }

    async fn release(&self, inbox: &Inbox, lease: LeaseId) -> Result<bool, QueueError> {
        let keys = InboxKeys::new(inbox);
        let args = vec![bytes(lease.as_bytes()), self.options_alone()];
        let value = self.call(Operation::Release, keys.bucket, vec![keys.meta()], args).await?;
        Ok(reply::integer(&value)? == 1)
    }

    async fn extend(
        &self,
        inbox: &Inbox,
        lease: LeaseId,
        by: Duration,
    ) -> Result<bool, QueueError> {
        let keys = InboxKeys::new(inbox);
        let args = vec![bytes(lease.as_bytes()), millis(by)];
        let value = self.call(Operation::Extend, keys.bucket, vec![keys.meta()], args).await?;
        Ok(reply::integer(&value)? == 1)
    }

    async fn leave(&self, inbox: &Inbox) -> Result<(), QueueError> {
        let keys = InboxKeys::new(inbox);
        self.call(Operation::Leave, keys.bucket, vec![keys.meta()], Vec::new()).await?;
        Ok(())
    }

    async fn wait_take(&self, inbox: &Inbox, wait: MessageId) -> Result<WaitState, QueueError> {
        let keys = InboxKeys::new(inbox);
        let args = vec![bytes(wait.as_bytes()), self.keep()];
        let value = self.call(Operation::WaitTake, keys.bucket, keys.all(), args).await?;
        let mut answer = Answer::new(value)?;
        let kind = answer.integer()?;
        let queued = answer.count()?;
        let now_ms = answer.count()?;
        let taken = match kind {
            0 => Taken::Gone,
            1 => Taken::Open,
            2 => {
                let again = answer.integer()? == 1;
                let handed = Handed { now_ms, seen_us: 0, attempt: 1 };
                let mut read = self.read(inbox, answer, handed)?;
                if let Some(error) = read.stopped {
                    return Err(if again {
                        error
                    } else {
                        self.untake(&keys, wait, error).await?
                    });
                }
                let none = || contract("wait_take answered without a reply");
                let mut message = read.messages.pop().ok_or_else(none)?;
                if again {
                    message.redelivered = true;
                    message.attempt += 1;
                }
                Taken::Reply(Box::new(message))
            }
            other => return Err(contract(&format!("wait_take answered {other}"))),
        };
        Ok(WaitState { taken, queued })
    }

    async fn wait_done(&self, inbox: &Inbox, wait: MessageId) -> Result<(), QueueError> {
        let keys = InboxKeys::new(inbox);
        let args = vec![bytes(wait.as_bytes()), self.keep()];
        self.call(Operation::WaitDone, keys.bucket, keys.all(), args).await?;
        Ok(())
    }

    async fn wait_close(&self, inbox: &Inbox, wait: MessageId) -> Result<(), QueueError> {
        let keys = InboxKeys::new(inbox);
        let args = vec![bytes(wait.as_bytes()), self.keep(), self.options_alone()];
        self.call(Operation::WaitClose, keys.bucket, keys.all(), args).await?;
        Ok(())
    }

    async fn task_open(
        &self,
        inbox: &Inbox,
        wait: MessageId,
        hold: Duration,
    ) -> Result<Option<TaskRecord>, QueueError> {
        self.open_task(inbox, wait, hold).await
    }

    async fn task(&self, id: &TaskId) -> Result<Option<TaskRecord>, QueueError> {
        self.find_task(id).await
    }

    async fn task_done(&self, task: &TaskRecord) -> Result<bool, QueueError> {
        self.finish_task(task).await
    }

    async fn task_cancel(&self, task: &TaskRecord) -> Result<bool, QueueError> {
        self.cancel_task(task).await
    }

    async fn peek(&self, inbox: &Inbox) -> Result<Peek, QueueError> {
        let keys = InboxKeys::new(inbox);
        let names = vec![keys.queue(), keys.meta()];
        let mut answer =
            Answer::new(self.call(Operation::Peek, keys.bucket, names, Vec::new()).await?)?;
        Ok(Peek {
            queued: answer.count()?,
            leased: answer.count()?,
            oldest: answer.millis()?,
            presence: answer.presence()?,
        })
    }

    async fn browse(
        &self,
        inbox: &Inbox,
        max_messages: usize,
        max_bytes: usize,
    ) -> Result<Browsed, QueueError> {
        self.browse_swept(inbox, max_messages, max_bytes).await
    }

    async fn ledger(&self, sender: &Inbox) -> Result<Vec<LedgerEntry>, QueueError> {
        self.ledger_entries(sender).await
    }

    async fn notices(&self, sender: &Inbox) -> Result<Vec<Notice>, QueueError> {
        self.look_up(sender).await
    }

    async fn notices_told(&self, sender: &Inbox, ids: &[MessageId]) -> Result<(), QueueError> {
        self.settle_told(sender, ids).await
    }

    async fn check_in(
        &self,
        inbox: &Inbox,
        profile: &Profile,
        keep: Duration,
    ) -> Result<(), QueueError> {
        let own = InboxKeys::new(inbox);
        let args = vec![self.keep(), Value::from_static_str("")];
        let keys = vec![own.meta(), own.waits()];
        self.call(Operation::Contact, own.bucket, keys, args).await?;
        let (keys, slot) = keys::directory(inbox.tenant());
        let clean = |field: &str| field.replace('\0', " ");
        let profile = format!("{}\0{}", clean(&profile.name), clean(&profile.capabilities));
        let args = vec![text(inbox.client().expose()), text(&profile), millis(keep)];
        self.link.call(Operation::CheckIn, slot, keys, args).await?;
        Ok(())
    }

    async fn clients(
        &self,
        tenant: &Tenant,
        query: &ClientQuery,
    ) -> Result<ClientPage, QueueError> {
        let (keys, slot) = keys::directory(tenant);
        let from = query.cursor.map_or(0, |cursor| cursor.0);
        let args =
            vec![text(&query.text.to_ascii_lowercase()), count(from), count(query.limit as u64)];
        let mut answer = Answer::new(self.link.call(Operation::Clients, slot, keys, args).await?)?;
        let next = u64::try_from(answer.integer()?).ok().map(DirectoryCursor);
        let mut page = ClientPage { clients: Vec::new(), next };
        let mut rest = answer.rest();
        while let (Some(id), Some(profile)) = (rest.next(), rest.next()) {
            let (Some(id), Some(profile)) = (id.as_str(), profile.as_str()) else { continue };
            let Ok(client) = id.parse::<ClientId>() else { continue };
            let (name, capabilities) = profile.split_once('\0').unwrap_or((&*profile, ""));
            let profile = Profile { name: name.to_owned(), capabilities: capabilities.to_owned() };
            let (presence, queued) = (Presence::Unknown, 0);
            page.clients.push(ClientEntry { client, profile, presence, queued });
        }
        let peeks = page.clients.iter().map(|entry| async {
            self.peek(&Inbox::new(tenant.clone(), entry.client.clone())).await
        });
        let peeks = futures_util::future::try_join_all(peeks.collect::<Vec<_>>()).await?;
        for (entry, peek) in page.clients.iter_mut().zip(peeks) {
            (entry.presence, entry.queued) = (peek.presence, peek.queued);
        }
        Ok(page)
    }

    async fn inboxes(&self, tenant: &Tenant, limit: usize) -> Result<Vec<InboxStat>, QueueError> {
        self.inboxes_of(tenant, limit).await
    }

    async fn watch(&self, topic: Topic) -> Result<Wakeups, QueueError> {
        Ok(self.store.subscriber.watch(&topic).await)
    }

    async fn cancel_call(&self, call: &CallKey) -> Result<(), QueueError> {
        let (key, bucket) = keys::cancelled(call);
        let topic = keys::call_topic(call);
        let args = vec![text(&keys::channel(bucket)), text(&topic), self.options_alone()];
        self.call(Operation::Cancel, bucket, vec![key], args).await?;
        Ok(())
    }

    async fn call_cancelled(&self, call: &CallKey) -> Result<bool, QueueError> {
        let (key, bucket) = keys::cancelled(call);
        let value = self.call(Operation::Cancelled, bucket, vec![key], Vec::new()).await?;
        Ok(reply::integer(&value)? == 1)
    }

    async fn survey(&self, lease: Duration) -> Result<Option<Survey>, QueueError> {
        self.survey_all(lease).await
    }

    async fn ready(&self) -> Result<(), Unready> {
        self.link.ready(self.confirming.as_ref()).await
    }
}
