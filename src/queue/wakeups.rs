//! Fan-out of wake-ups inside one process.
//!
//! A wake-up is a hint and never carries data, so it may come too often; it must not be missed.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Topics that somebody in this process watches.
#[derive(Clone, Default)]
pub struct Hub {
    /// A panic under the lock leaves the map whole: every change is one call.
    topics: Arc<Mutex<HashMap<Arc<str>, Entry>>>,
}

struct Entry {
    bell: Arc<Bell>,
    watchers: usize,
    /// Of them, those who only look.
    onlookers: usize,
}

/// What wakes the watchers of a topic. A `tokio::sync::watch` does the same with four times the memory, and
/// everybody who waits has two.
#[derive(Default)]
struct Bell {
    /// How often it rang.
    rung: AtomicU64,
    ring: Notify,
    /// Of those who do not only look, those who sleep now.
    sleepers: AtomicUsize,
}

impl Bell {
    fn ring(&self) {
        self.rung.fetch_add(1, Ordering::Release);
        self.ring.notify_waiters();
    }
}

impl Hub {
    /// An empty hub.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Watches a topic: every [`wake`](Self::wake) after this wakes the handle.
    #[must_use]
    pub fn register(&self, topic: &str) -> Wakeups {
        self.enter(topic, false)
    }

    /// [`register`](Self::register) for somebody who only looks.
    #[must_use]
    pub fn register_onlooker(&self, topic: &str) -> Wakeups {
        self.enter(topic, true)
    }

    fn enter(&self, topic: &str, onlooker: bool) -> Wakeups {
        let name: Arc<str> = topic.into();
        let mut topics = self.topics.lock();
        let entry = topics.entry(Arc::clone(&name)).or_insert_with(|| Entry {
            bell: Arc::default(),
            watchers: 0,
            onlookers: 0,
        });
        entry.watchers += 1;
        entry.onlookers += usize::from(onlooker);
        let bell = Arc::clone(&entry.bell);
        let heard = bell.rung.load(Ordering::Acquire);
        drop(topics);
        Wakeups { bell, heard, hub: self.clone(), topic: name, onlooker, on_drop: None }
    }

    /// Wakes whoever watches the topic. `true` if somebody does, which few care to know.
    #[expect(clippy::must_use_candidate, reason = "the waking is what it is called for")]
    pub fn wake(&self, topic: &str) -> bool {
        let topics = self.topics.lock();
        let Some(entry) = topics.get(topic) else { return false };
        entry.bell.ring();
        true
    }

    /// [`wake`](Self::wake). `true` if somebody slept: who watches may also be awake, and look anyway.
    #[must_use]
    pub fn rouse(&self, topic: &str) -> bool {
        let slept = |entry: &Entry| entry.bell.sleepers.load(Ordering::Relaxed) > 0;
        let slept = self.topics.lock().get(topic).is_some_and(slept);
        self.wake(topic) && slept
    }

    /// The topics watched now.
    #[must_use]
    pub fn watched(&self) -> Vec<Arc<str>> {
        self.topics.lock().keys().cloned().collect()
    }

    /// The topics watched now by somebody who does not only look.
    #[must_use]
    pub fn awaited(&self) -> Vec<Arc<str>> {
        let topics = self.topics.lock();
        let awaited = topics.iter().filter(|(_, entry)| entry.watchers > entry.onlookers);
        awaited.map(|(topic, _)| Arc::clone(topic)).collect()
    }

    /// How many topics are watched now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.topics.lock().len()
    }

    /// Whether nobody watches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn unregister(&self, topic: &str, onlooker: bool) {
        let mut topics = self.topics.lock();
        if let Some(entry) = topics.get_mut(topic) {
            entry.watchers -= 1;
            entry.onlookers -= usize::from(onlooker);
            if entry.watchers == 0 {
                topics.remove(topic);
            }
        }
    }
}

/// A watch on one topic. Dropping it ends it.
pub struct Wakeups {
    bell: Arc<Bell>,
    /// How often it had rung when that was last heard.
    heard: u64,
    hub: Hub,
    topic: Arc<str>,
    onlooker: bool,
    on_drop: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Wakeups {
    /// Runs `end` when the watch ends: for what the backend holds beside it.
    #[must_use]
    pub fn on_end(mut self, end: impl FnOnce() + Send + Sync + 'static) -> Self {
        self.on_drop = Some(Box::new(end));
        self
    }

    /// Waits for a wake-up since the last call (or since the watch began).
    ///
    /// # Cancel safety
    /// A wake-up is consumed only when this returns.
    pub async fn next(&mut self) {
        let _asleep = (!self.onlooker).then(|| Asleep::among(&self.bell.sleepers));
        loop {
            // It hears every ring from here on, so that none falls between the look and the sleep.
            let woken = self.bell.ring.notified();
            let rung = self.bell.rung.load(Ordering::Acquire);
            if rung != self.heard {
                self.heard = rung;
                return;
            }
            woken.await;
        }
    }

    /// [`next`](Self::next) for at most `within`. `false`: the time is over.
    pub async fn next_within(&mut self, within: Duration) -> bool {
        tokio::time::timeout(within, self.next()).await.is_ok()
    }
}

/// Counts somebody as asleep for as long as it lives.
struct Asleep<'a>(&'a AtomicUsize);

impl<'a> Asleep<'a> {
    fn among(sleepers: &'a AtomicUsize) -> Self {
        sleepers.fetch_add(1, Ordering::Relaxed);
        Self(sleepers)
    }
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Wakeups {
    fn drop(&mut self) {
        self.hub.unregister(&self.topic, self.onlooker);
        if let Some(end) = self.on_drop.take() {
            end();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_wake_up_between_registering_and_waiting_is_not_lost() {
        let hub = Hub::new();
        let mut wakeups = hub.register("q");
        assert!(hub.wake("q"));
        assert!(wakeups.next_within(Duration::from_secs(5)).await);
        assert!(!wakeups.next_within(Duration::from_millis(5)).await);
    }

    #[tokio::test]
    async fn a_wake_up_while_it_sleeps_wakes_it_and_one_that_was_given_up_is_kept() {
        let hub = Hub::new();
        let mut wakeups = hub.register("q");
        for _ in 0..3 {
            // The sleep begins first, whatever the order of the two.
            let asleep = wakeups.next_within(Duration::from_secs(5));
            let (woken, watched) = tokio::join!(asleep, async { hub.wake("q") });
            assert!(woken && watched);
        }
        {
            let mut sleep = std::pin::pin!(wakeups.next());
            assert!(sleep.as_mut().now_or_never().is_none());
            assert!(hub.wake("q"));
        }
        assert!(wakeups.next_within(Duration::from_secs(5)).await, "it was not heard yet");
        assert!(!wakeups.next_within(Duration::from_millis(5)).await);
    }

    #[tokio::test]
    async fn who_is_awake_was_not_roused() {
        let hub = Hub::new();
        let mut wakeups = hub.register("q");
        assert!(!hub.rouse("q"), "it looks, and will look again");
        assert!(wakeups.next_within(Duration::from_secs(5)).await);
        let ((), roused) = tokio::join!(wakeups.next(), async { hub.rouse("q") });
        assert!(roused, "it slept by then");
        assert!(!hub.rouse("q") && !hub.rouse("nobody"));
    }

    #[tokio::test]
    async fn all_watchers_of_a_topic_wake_and_the_last_one_removes_it() {
        let hub = Hub::new();
        let (mut one, mut two) = (hub.register("q"), hub.register("q"));
        hub.wake("q");
        assert!(one.next_within(Duration::from_secs(5)).await);
        assert!(two.next_within(Duration::from_secs(5)).await);
        drop(one);
        assert_eq!(hub.len(), 1);
        drop(two);
        assert!(hub.is_empty());
        assert!(!hub.wake("q"));
    }

    #[tokio::test]
    async fn a_topic_at_which_people_only_look_is_watched_and_not_awaited() {
        let hub = Hub::new();
        let mut looks = hub.register_onlooker("q");
        assert_eq!((hub.watched().len(), hub.awaited().len()), (1, 0));
        let waits = hub.register("q");
        assert_eq!(hub.awaited().len(), 1);
        hub.wake("q");
        assert!(looks.next_within(Duration::from_secs(5)).await);
        drop(waits);
        assert_eq!((hub.watched().len(), hub.awaited().len()), (1, 0));
        drop(looks);
        assert!(hub.is_empty());
    }
}
