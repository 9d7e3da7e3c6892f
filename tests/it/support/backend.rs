//! A store under test, and the usual questions to it.

use std::{ops::Deref, sync::Arc, time::Duration};

use mcp_messaging::{
    model::{KeyRing, ManualClock, Message, MessageId, MessageState, NamedKey},
    queue::{
        FetchRequest, Fetched, LeaseId, LimitStore, Limits, NewMessage, Outcome, QueueBackend,
        Sent, SentStatus, Stamp, Taken, Topic, Wakeups,
        memory::MemoryQueue,
        redis::{RedisQueue, RedisSettings, RedisStore, Seal, Sealing},
    },
    telemetry::Metrics,
};
use secrecy::ExposeSecret;
use tokio_util::task::TaskTracker;

use super::{
    people::{inbox, secs},
    redis_server::{Persistence, RedisServer},
};

/// The limits of every backend under test.
pub(crate) const LIMITS: Limits = Limits {
    inbox_messages: 400,
    inbox_bytes: 200_000,
    open_waits: 3,
    ledger_entries: 500,
    ledger_life: Duration::from_secs(24 * 3600),
};

/// A store and the way to let time pass for it.
pub(crate) struct Backend {
    pub(crate) queue: Arc<dyn QueueBackend>,
    pub(crate) limits: Arc<dyn LimitStore>,
    time: Time,
    /// What the store adds to a text.
    pub(crate) added_bytes: usize,
    server: Option<RedisServer>,
}

enum Time {
    Manual(ManualClock),
    Real,
}

/// The store in memory, on a clock that [`Backend::pass`] moves.
pub(crate) fn memory_backend() -> Backend {
    memory_backend_with(LIMITS)
}

/// [`memory_backend`] with other limits.
pub(crate) fn memory_backend_with(limits: Limits) -> Backend {
    let clock = ManualClock::new(1_700_000_000_000_000);
    let queue = Arc::new(MemoryQueue::new(limits, Arc::new(clock.clone())));
    let limits = Arc::<MemoryQueue>::clone(&queue);
    Backend { queue, limits, time: Time::Manual(clock), added_bytes: 0, server: None }
}

/// The store in a Redis of its own, whose time passes as it does.
pub(crate) async fn redis_backend() -> Backend {
    redis_backend_with(LIMITS).await
}

/// [`redis_backend`], where no text lies as it was sent.
pub(crate) async fn sealed_backend() -> Backend {
    let keys: KeyRing = NamedKey::generate('e').expose_secret().parse().unwrap();
    let mut backend = redis_sealed_by(Seal::new(&keys, Sealing::Require)).await;
    // What stands before the ciphertext, with a name of nine letters, and its tag.
    backend.added_bytes = 3 + 9 + 12 + 16;
    backend
}

/// [`redis_backend`] that seals texts so.
pub(crate) async fn redis_sealed_by(seal: Seal) -> Backend {
    redis_with(RedisServer::start(Persistence::None), seal, LIMITS).await
}

/// A store in this Redis.
pub(crate) async fn redis_with(server: RedisServer, seal: Seal, limits: Limits) -> Backend {
    let queue = store_at(server.url(), seal, limits).await;
    let limits = Arc::<RedisQueue>::clone(&queue);
    Backend { queue, limits, time: Time::Real, added_bytes: 0, server: Some(server) }
}

/// [`redis_backend`] in this Redis, reached by another URL than its own.
pub(crate) async fn redis_behind(url: String, server: RedisServer) -> Backend {
    let queue = store_at(url, Seal::default(), LIMITS).await;
    let limits = Arc::<RedisQueue>::clone(&queue);
    Backend { queue, limits, time: Time::Real, added_bytes: 0, server: Some(server) }
}

async fn store_at(url: String, seal: Seal, limits: Limits) -> Arc<RedisQueue> {
    let settings = RedisSettings { url: url.into(), seal, ..RedisSettings::default() };
    let metrics = Arc::new(Metrics::new().unwrap());
    let store = RedisStore::start(settings, limits, metrics, TaskTracker::new()).unwrap();
    let queue = store.queue().unwrap();
    queue.prepare().await.unwrap();
    Arc::new(queue)
}

/// [`redis_backend`] with other limits.
pub(crate) async fn redis_backend_with(limits: Limits) -> Backend {
    redis_with(RedisServer::start(Persistence::None), Seal::default(), limits).await
}

impl Deref for Backend {
    type Target = dyn QueueBackend;

    fn deref(&self) -> &Self::Target {
        self.queue.as_ref()
    }
}

/// A fetch of whatever there is, under a fresh lease of 10 s.
pub(crate) fn anything() -> FetchRequest {
    FetchRequest {
        lease: LeaseId::new(),
        lease_for: secs(10),
        max_messages: 1000,
        max_bytes: 1 << 20,
        waiting: None,
    }
}

impl Backend {
    /// Lets time pass.
    pub(crate) async fn pass(&self, time: Duration) {
        match &self.time {
            Time::Manual(clock) => clock.advance(time),
            Time::Real => tokio::time::sleep(time).await,
        }
    }

    /// The Redis behind it.
    pub(crate) fn redis(&self) -> &RedisServer {
        self.server.as_ref().expect("a backend on Redis")
    }

    /// Another replica on the same Redis, which seals texts so.
    pub(crate) async fn beside(&self, seal: Seal) -> Self {
        let queue = store_at(self.redis().url(), seal, LIMITS).await;
        let limits = Arc::<RedisQueue>::clone(&queue);
        Self { queue, limits, time: Time::Real, added_bytes: 0, server: None }
    }

    /// Sends what must be accepted.
    pub(crate) async fn post(&self, message: &NewMessage) -> Sent {
        self.send(message).await.expect("accepted")
    }

    /// Sends what must be queued; its id.
    pub(crate) async fn queue_up(&self, message: &NewMessage) -> MessageId {
        let sent = self.post(message).await;
        assert_eq!(sent.status, SentStatus::Queued);
        sent.id
    }

    /// Sends what must answer an open wait; its id.
    pub(crate) async fn reply(&self, message: &NewMessage) -> MessageId {
        let sent = self.post(message).await;
        assert_eq!(sent.status, SentStatus::Replied);
        sent.id
    }

    /// Fetches whatever there is.
    pub(crate) async fn look(&self, client: &str) -> Fetched {
        self.fetch(&inbox(client), &anything()).await.unwrap()
    }

    /// Fetches under `request` what must be there.
    pub(crate) async fn lease(
        &self,
        client: &str,
        request: &FetchRequest,
    ) -> (Vec<Message>, Stamp) {
        match self.fetch(&inbox(client), request).await.unwrap().outcome {
            Outcome::Messages(batch) => (batch.messages, batch.upto),
            other @ (Outcome::Empty | Outcome::Busy | Outcome::Superseded) => {
                panic!("messages expected, not {other:?}")
            }
        }
    }

    /// Fetches and acknowledges all that is in an inbox.
    pub(crate) async fn drain(&self, client: &str) -> Vec<Message> {
        let mut all = Vec::new();
        loop {
            match self.look(client).await.outcome {
                Outcome::Messages(batch) => {
                    self.ack(&inbox(client), batch.upto).await.unwrap();
                    all.extend(batch.messages);
                }
                Outcome::Empty => return all,
                other @ (Outcome::Busy | Outcome::Superseded) => {
                    panic!("a free inbox expected, not {other:?}")
                }
            }
        }
    }

    /// The texts of all that is in an inbox, acknowledging it.
    pub(crate) async fn texts(&self, client: &str) -> Vec<String> {
        self.drain(client).await.into_iter().map(|message| message.text).collect()
    }

    /// What the wait of `client` for the answer to `question` has come to.
    pub(crate) async fn taken(&self, client: &str, question: MessageId) -> Taken {
        self.wait_take(&inbox(client), question).await.unwrap().taken
    }

    /// The reply that must be there.
    pub(crate) async fn take_reply(&self, client: &str, question: MessageId) -> Message {
        match self.taken(client, question).await {
            Taken::Reply(reply) => *reply,
            other @ (Taken::Open | Taken::Gone) => panic!("a reply expected, not {other:?}"),
        }
    }

    /// What the ledger of `client` says of one message; `None` if it does not know it.
    pub(crate) async fn state(&self, client: &str, id: MessageId) -> Option<MessageState> {
        let entries = self.ledger(&inbox(client)).await.unwrap();
        entries.into_iter().find(|entry| entry.id == id).map(|entry| entry.state)
    }

    /// The ids of the notices of `client`.
    pub(crate) async fn noticed(&self, client: &str) -> Vec<MessageId> {
        self.notices(&inbox(client)).await.unwrap().into_iter().map(|notice| notice.id).collect()
    }

    /// Watches an inbox.
    pub(crate) async fn watching(&self, client: &str) -> Wakeups {
        self.watch(Topic::Inbox(inbox(client))).await.unwrap()
    }
}

/// The texts of messages.
pub(crate) fn texts_of(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.text.as_str()).collect()
}

/// A wake-up must come.
pub(crate) async fn wakes(wakeups: &mut Wakeups) {
    assert!(wakeups.next_within(secs(5)).await, "a wake-up");
}
