//! Wake-ups from other replicas: one subscriber connection, and what makes it trustworthy.
//!
//! It hears the wake channels of the buckets in which somebody waits here and lets go of a bucket a
//! minute after its last waiter. A subscription counts only when it was confirmed. After every
//! reconnect, and whenever signals may have been lost, everybody looks again. A probe finds a
//! subscription that has gone deaf on a healthy connection; a slow poll finds whatever nobody thought
//! of, and counts it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use fred::{
    clients::Client,
    interfaces::{ClientLike, EventInterface, PubsubInterface},
    types::Value,
};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::{
    sync::{broadcast::error::RecvError, mpsc, oneshot},
    time::Instant,
};
use tokio_util::task::TaskTracker;

use super::{
    functions::Operation,
    keys::{self, InboxKeys},
    link::{self, Link},
    reply,
};
use crate::{
    queue::{Hub, QueueError, Topic, Wakeups},
    telemetry::Metrics,
};

/// A bucket stays subscribed this long after its last waiter.
const LINGER: Duration = Duration::from_mins(1);
/// How long a new watch waits for its subscription. After that it relies on the waking that follows
/// the subscription.
const CONFIRM_WITHIN: Duration = Duration::from_secs(2);
/// How often a subscription is probed, and how long the probe may travel.
const PROBE_EVERY: Duration = Duration::from_secs(1);
const PROBE_WITHIN: Duration = Duration::from_millis(1500);
/// Channels probed at a time in a cluster, where each slot may lose its subscription alone.
const SHARDED_PROBES: usize = 8;
/// How often everybody's mail is checked for a missed wake-up.
const POLL_EVERY: Duration = Duration::from_secs(20);
/// Waking everybody is spread over this long.
const WAKE_ALL_WITHIN: Duration = Duration::from_secs(1);
/// Topics of one call of the poll.
const POLL_TOPICS: usize = 128;

/// A topic, the two keys that tell whether it has mail, and the wait if it is a reply's.
type Watched = (Arc<str>, Value, Value, Value);

#[derive(Default)]
struct Bucket {
    watchers: usize,
    confirmed: bool,
    idle_since: Option<Instant>,
}

/// A panic under its lock, or the next one, leaves it whole: every change is one assignment.
type Buckets = Arc<Mutex<HashMap<u8, Bucket>>>;
/// Numbers of our own probes that came back.
type Heard = Arc<Mutex<HashSet<u64>>>;

/// The ear of a replica.
pub(super) struct Subscriber {
    hub: Hub,
    buckets: Buckets,
    needs: mpsc::UnboundedSender<Need>,
}

struct Need {
    bucket: u8,
    done: oneshot::Sender<()>,
}

impl Subscriber {
    /// Listens on `ear`, asks on `link`.
    pub(super) fn start(
        ear: Link,
        link: Link,
        sharded: bool,
        metrics: Arc<Metrics>,
        tasks: &TaskTracker,
    ) -> Self {
        let (subscriber, keeper, needs) = Self::with_keeper(&ear, link, sharded, metrics);
        let (hub, heard) = (subscriber.hub.clone(), Arc::clone(&keeper.heard));
        tasks.spawn(listen(ear.client, hub, heard, keeper.name.clone()));
        tasks.spawn(keeper.run(needs));
        subscriber
    }

    /// Itself, who keeps its subscriptions, and what that one is asked for.
    fn with_keeper(
        ear: &Link,
        link: Link,
        sharded: bool,
        metrics: Arc<Metrics>,
    ) -> (Self, Keeper, mpsc::UnboundedReceiver<Need>) {
        let (hub, buckets) = (Hub::new(), Buckets::default());
        let (needs, inbox) = mpsc::unbounded_channel();
        let keeper = Keeper {
            ear: ear.client.clone(),
            link,
            sharded,
            hub: hub.clone(),
            buckets: Arc::clone(&buckets),
            heard: Heard::default(),
            metrics,
            waiting: Vec::new(),
            lost: false,
            probes: if sharded { SHARDED_PROBES } else { 1 },
            probed: 0,
            name: uuid::Uuid::now_v7().simple().to_string(),
        };
        (Self { hub, buckets, needs }, keeper, inbox)
    }

    /// Watches a topic; see [`crate::queue::QueueBackend::watch`].
    pub(super) async fn watch(&self, topic: &Topic) -> Wakeups {
        let (name, bucket) = keys::topic(topic);
        let confirmed = {
            let mut buckets = self.buckets.lock();
            let state = buckets.entry(bucket).or_default();
            state.watchers += 1;
            state.idle_since = None;
            state.confirmed
        };
        let buckets = Arc::clone(&self.buckets);
        let wakeups = match topic {
            Topic::News(_) => self.hub.register_onlooker(&name),
            Topic::Inbox(_) | Topic::Reply(..) | Topic::Call(_) => self.hub.register(&name),
        };
        let wakeups = wakeups.on_end(move || {
            if let Some(state) = buckets.lock().get_mut(&bucket) {
                state.watchers -= 1;
                if state.watchers == 0 {
                    state.idle_since = Some(Instant::now());
                }
            }
        });
        if !confirmed {
            let (done, confirmed) = oneshot::channel();
            if self.needs.send(Need { bucket, done }).is_ok() {
                // Without an answer in time the subscription is late: its coming wakes everybody.
                let _ = tokio::time::timeout(CONFIRM_WITHIN, confirmed).await;
            }
        }
        wakeups
    }

    /// How many buckets are subscribed.
    pub(super) fn subscriptions(&self) -> usize {
        self.buckets.lock().values().filter(|bucket| bucket.confirmed).count()
    }
}

/// Turns published messages into wake-ups.
async fn listen(ear: Client, hub: Hub, heard: Heard, name: String) {
    let mut messages = ear.message_rx();
    loop {
        match messages.recv().await {
            Ok(message) => {
                let Some(payload) = message.value.as_bytes() else { continue };
                let Some(topic) = keys::woken(payload) else { continue };
                if let Some(probe) = topic.strip_prefix('p') {
                    if let Some(number) = probe.strip_prefix(&name).and_then(|n| n.parse().ok()) {
                        heard.lock().insert(number);
                    }
                } else {
                    hub.wake(&topic);
                    // Who sleeps at the inbox knows nothing of a reply, and it will be theirs if nobody takes it.
                    if let Some(inbox) = keys::inbox_of_reply(&topic) {
                        hub.wake(&inbox);
                    }
                }
            }
            Err(RecvError::Lagged(_)) => wake_all(&hub).await,
            Err(RecvError::Closed) => return,
        }
    }
}

/// Everybody looks again, spread so that Redis is not asked all at once.
async fn wake_all(hub: &Hub) {
    const AT_ONCE: usize = 256;
    let topics = hub.watched();
    let chunks = topics.len().div_ceil(AT_ONCE).max(1);
    let pause = WAKE_ALL_WITHIN / u32::try_from(chunks).unwrap_or(u32::MAX);
    for (index, chunk) in topics.chunks(AT_ONCE).enumerate() {
        if index > 0 {
            tokio::time::sleep(pause).await;
        }
        for topic in chunk {
            hub.wake(topic);
        }
    }
}

/// Keeps the subscriptions.
struct Keeper {
    ear: Client,
    link: Link,
    sharded: bool,
    hub: Hub,
    buckets: Buckets,
    heard: Heard,
    metrics: Arc<Metrics>,
    waiting: Vec<Need>,
    /// Signals may have been lost since everybody looked last.
    lost: bool,
    /// Channels that are probed at a time.
    probes: usize,
    probed: u64,
    name: String,
}

impl Keeper {
    async fn run(mut self, mut needs: mpsc::UnboundedReceiver<Need>) {
        let mut reconnects = self.ear.reconnect_rx();
        let mut upkeep = tokio::time::interval(PROBE_EVERY);
        upkeep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut next_poll = Instant::now() + POLL_EVERY;
        loop {
            tokio::select! {
                biased;
                reconnected = reconnects.recv() => match reconnected {
                    Ok(_) | Err(RecvError::Lagged(_)) => self.reconnected().await,
                    Err(RecvError::Closed) => return,
                },
                need = needs.recv() => {
                    let Some(need) = need else { return };
                    self.needed(need, &mut needs).await;
                },
                _ = upkeep.tick() => {
                    self.metrics.redis_connected(self.ear.is_connected());
                    if !self.ear.is_connected() {
                        continue;
                    }
                    self.subscribe().await;
                    // The poll counts what nothing else can find: so first everything is probed.
                    let poll = Instant::now() >= next_poll;
                    let most = if poll && self.sharded { usize::MAX } else { self.probes };
                    let hears = self.probe(most).await;
                    self.let_go().await;
                    if poll && hears {
                        next_poll = Instant::now() + POLL_EVERY.mul_f64(rand::random_range(0.9..1.1));
                        self.poll().await;
                    }
                },
            }
        }
    }

    /// The ear has a new connection, which hears nothing yet.
    async fn reconnected(&mut self) {
        self.metrics.redis_reconnected();
        self.forget();
        self.subscribe().await;
    }

    /// Somebody waits for a subscription, and maybe others behind.
    async fn needed(&mut self, need: Need, needs: &mut mpsc::UnboundedReceiver<Need>) {
        self.waiting.push(need);
        while let Ok(need) = needs.try_recv() {
            self.waiting.push(need);
        }
        self.subscribe().await;
    }

    fn wake_everybody(&self) {
        let hub = self.hub.clone();
        // Short and harmless if it is cut off by shutdown: those who wait are ended then anyway.
        #[expect(clippy::disallowed_methods, reason = "ends by itself within a second")]
        tokio::spawn(async move { wake_all(&hub).await });
    }

    fn forget(&mut self) {
        self.lost = true;
        for bucket in self.buckets.lock().values_mut() {
            bucket.confirmed = false;
        }
    }

    /// Subscribes what is watched and not confirmed. Where signals may have been lost before, everybody looks
    /// again after it: whoever it is done for, those who sleep do not know.
    async fn subscribe(&mut self) {
        let wanted: Vec<u8> = {
            let buckets = self.buckets.lock();
            buckets
                .iter()
                .filter(|(_, b)| b.watchers > 0 && !b.confirmed)
                .map(|(n, _)| *n)
                .collect()
        };
        if !wanted.is_empty() {
            let channels: Vec<String> =
                wanted.iter().map(|bucket| keys::channel(*bucket)).collect();
            if let Err(error) = self.confirm(channels).await {
                tracing::debug!(error = %error, "subscribing failed; trying again");
                self.lost = true;
                return;
            }
            let mut buckets = self.buckets.lock();
            for bucket in &wanted {
                if let Some(state) = buckets.get_mut(bucket) {
                    state.confirmed = true;
                }
            }
        }
        for need in std::mem::take(&mut self.waiting) {
            if self.buckets.lock().get(&need.bucket).is_none_or(|state| state.confirmed) {
                self.lost |= need.done.send(()).is_err(); // who gave up looked before it was subscribed
            } else {
                self.waiting.push(need);
            }
        }
        if std::mem::take(&mut self.lost) {
            self.wake_everybody();
        }
    }

    async fn confirm(&self, channels: Vec<String>) -> Result<(), fred::error::Error> {
        if self.sharded {
            for channel in channels {
                self.ear.ssubscribe(channel).await?; // awaited by the client library
            }
            return Ok(());
        }
        // The client answers a SUBSCRIBE before Redis does: an answered PING behind it confirms.
        self.ear.subscribe(channels).await?;
        self.ear.ping::<()>(None).await
    }

    async fn let_go(&self) {
        let idle: Vec<u8> = {
            let mut buckets = self.buckets.lock();
            let old = |bucket: &Bucket| {
                bucket.watchers == 0 && bucket.idle_since.is_some_and(|at| at.elapsed() > LINGER)
            };
            let idle = buckets.iter().filter(|(_, b)| old(b)).map(|(n, _)| *n).collect();
            buckets.retain(|_, bucket| !old(bucket));
            idle
        };
        self.metrics.subscriptions(self.buckets.lock().values().filter(|b| b.confirmed).count());
        if idle.is_empty() {
            return;
        }
        let channels: Vec<String> = idle.iter().map(|bucket| keys::channel(*bucket)).collect();
        let done = if self.sharded {
            self.ear.sunsubscribe(channels).await
        } else {
            self.ear.unsubscribe(channels).await
        };
        if let Err(error) = done {
            tracing::debug!(error = %error, "unsubscribing failed"); // costs a few spurious wake-ups
        }
    }

    /// [`hears`](Self::hears) so many of our channels, in turn.
    async fn probe(&mut self, most: usize) -> bool {
        let mut confirmed: Vec<u8> = {
            let buckets = self.buckets.lock();
            buckets.iter().filter(|(_, b)| b.confirmed && b.watchers > 0).map(|(n, _)| *n).collect()
        };
        confirmed.sort_unstable();
        if confirmed.is_empty() {
            return true;
        }
        let first = usize::try_from(self.probed).unwrap_or_default() % confirmed.len();
        confirmed.rotate_left(first);
        confirmed.truncate(most);
        self.hears(&confirmed).await
    }

    /// Publishes to ourselves on the channels of these buckets. `false`: one was published and not heard, and
    /// the ear connects anew. One that could not be published tells nothing.
    async fn hears(&mut self, buckets: &[u8]) -> bool {
        let probes = buckets.iter().zip(self.probed + 1..).map(|(&bucket, number)| {
            let (channel, payload) = (keys::channel(bucket), format!("p{}{number}", self.name));
            let (client, sharded) = (&self.link.client, self.sharded);
            async move {
                let published: Result<i64, _> = if sharded {
                    client.spublish(channel, payload).await
                } else {
                    client.publish(channel, payload).await
                };
                published.is_ok().then_some(number)
            }
        });
        let published = join_all(probes).await;
        self.probed += buckets.len() as u64;
        let until = Instant::now() + PROBE_WITHIN;
        let heard = |number: &u64| self.heard.lock().contains(number);
        while !published.iter().flatten().all(heard) {
            if Instant::now() > until {
                tracing::warn!("a subscription is deaf: reconnecting");
                self.metrics.deaf_subscription();
                self.forget();
                link::reconnect(&self.ear).await;
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.heard.lock().clear();
        true
    }

    /// Wakes whoever should have been woken long ago, and counts it: the count must stay 0. Whose subscription
    /// is not there yet, or went while we looked (its slot moves, say), is woken too; that is late, and nothing
    /// was missed.
    async fn poll(&mut self) {
        let mut by_bucket: HashMap<u8, Vec<Watched>> = HashMap::new();
        for topic in self.hub.awaited() {
            let Some((inbox, wait)) = keys::watched(&topic) else { continue };
            let names = InboxKeys::new(&inbox);
            let (one, two, wait) = match wait {
                None => (names.queue(), names.meta(), Value::from_static_str("")),
                Some(wait) => {
                    (names.waits(), names.replies(), Value::Bytes(wait.as_bytes().to_vec().into()))
                }
            };
            by_bucket.entry(names.bucket).or_default().push((topic, one, two, wait));
        }
        for (bucket, topics) in by_bucket {
            for chunk in topics.chunks(POLL_TOPICS) {
                let roused = match self.poll_chunk(bucket, chunk).await {
                    Ok(0) => continue,
                    Ok(roused) => roused,
                    Err(error) => {
                        tracing::debug!(error = %error, "the safety poll failed; it comes again");
                        return;
                    }
                };
                let subscribed = |state: &Bucket| state.confirmed;
                let confirmed = self.buckets.lock().get(&bucket).is_some_and(subscribed);
                if confirmed && self.hears(&[bucket]).await {
                    tracing::warn!(count = roused, "the safety poll found a missed wake-up");
                    for _ in 0..roused {
                        self.metrics.missed_wakeup();
                    }
                } else {
                    tracing::warn!("the safety poll woke a reader whose subscription is late");
                }
            }
        }
    }

    /// How many slept although there is something for them.
    async fn poll_chunk(&self, bucket: u8, topics: &[Watched]) -> Result<usize, QueueError> {
        let keys = topics.iter().flat_map(|(_, one, two, _)| [one.clone(), two.clone()]).collect();
        let waits = topics.iter().map(|(_, _, _, wait)| wait.clone()).collect();
        let late = self.link.call(Operation::Probe, keys::slot(bucket), keys, waits).await?;
        let mut roused = 0;
        for position in reply::Answer::new(late)?.rest() {
            let index = usize::try_from(reply::integer(&position)? - 1).unwrap_or(usize::MAX);
            if let Some((topic, ..)) = topics.get(index) {
                roused += usize::from(self.hub.rouse(topic));
            }
        }
        Ok(roused)
    }
}

#[cfg(test)]
mod tests;
