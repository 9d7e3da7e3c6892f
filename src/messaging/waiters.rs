//! How many calls wait in this process, and how many run.
//!
//! A call that waits costs memory, one that runs costs everybody time: all of them take turns at the
//! processor and at the store. So both are bounded, and whoever comes when there is no place is told that
//! nothing was done and when to try again. Without a bound every call would be served too late.
//!
//! To refuse costs nearly as much as to serve: reading, parsing, writing. So whoever is refused is told so
//! after a while only, which costs nothing: clients that come back at once would else leave no time to serve
//! anybody.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::Rng;
use tokio_util::sync::CancellationToken;

use super::MessagingError;

/// A refusal is held back for so long.
const HELD_BACK: Duration = Duration::from_secs(2);
/// Whoever found no place is asked to come back after a time in this range, not all at once.
const COME_BACK: std::ops::RangeInclusive<u64> = 1..=4;

/// Counts the calls of a process that wait and that run, and refuses those above a limit. Clones share
/// the counts.
#[derive(Debug, Clone)]
pub struct Waiters {
    waiting: Gate,
    running: Gate,
}

#[derive(Debug, Clone)]
struct Gate {
    now: Arc<AtomicUsize>,
    limit: usize,
}

impl Gate {
    fn new(limit: usize) -> Self {
        Self { now: Arc::default(), limit }
    }

    fn enter(&self) -> Option<Place> {
        let before = self.now.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(&self.now));
        (before < self.limit).then_some(place)
    }
}

impl Waiters {
    /// At most `limit` waiting calls, and as many running ones as come.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { waiting: Gate::new(limit), running: Gate::new(usize::MAX) }
    }

    /// At most `limit` calls that run. What a call does before it waits is running, and what it does when
    /// it is woken is not: who was let in is served.
    #[must_use]
    pub fn with_running(self, limit: usize) -> Self {
        Self { running: Gate::new(limit), ..self }
    }

    /// How many wait now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.waiting.now.load(Ordering::Relaxed)
    }

    /// The count itself, for a metric to read.
    #[must_use]
    pub fn gauge(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.waiting.now)
    }

    /// A place to wait, until it is dropped.
    pub(super) fn enter(&self) -> Result<Place, MessagingError> {
        self.waiting.enter().ok_or(MessagingError::ReplicaBusy { waiters: self.waiting.limit })
    }

    /// A place to run, until it is dropped. A refusal takes its time, unless the replica goes away.
    pub(super) async fn run(&self, stop: &CancellationToken) -> Result<Place, MessagingError> {
        if let Some(place) = self.running.enter() {
            return Ok(place);
        }
        tokio::select! {
            () = tokio::time::sleep(HELD_BACK) => {}
            () = stop.cancelled() => {}
        }
        let retry_after = Duration::from_secs(rand::rng().random_range(COME_BACK));
        Err(MessagingError::Overloaded { calls: self.running.limit, retry_after })
    }
}

/// One call.
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_it_is_dropped_or_refused() {
        let waiters = Waiters::new(1);
        let place = waiters.enter().unwrap();
        assert!(waiters.enter().is_err());
        assert_eq!(waiters.count(), 1);
        drop(place);
        assert!(waiters.enter().is_ok());
    }

    #[tokio::test]
    async fn who_waits_takes_no_place_of_those_who_run() {
        let stop = CancellationToken::new();
        let waiters = Waiters::new(1).with_running(2);
        let _waiting = waiters.enter().unwrap();
        let running = (waiters.run(&stop).await.unwrap(), waiters.run(&stop).await.unwrap());
        let began = tokio::time::Instant::now();
        let refused = waiters.run(&stop).await;
        let Err(refused) = refused.map(|_place| ()) else { panic!("two may run") };
        assert!(began.elapsed() >= HELD_BACK, "it is told at once");
        let text = refused.to_string();
        assert!(text.contains("2 calls at once") && text.contains("nothing was done"), "{text}");
        assert_eq!(waiters.count(), 1);
        stop.cancel();
        assert!(waiters.run(&stop).await.is_err(), "an end makes no room");
        assert!(began.elapsed() < 2 * HELD_BACK, "an end waits for nobody");
        drop(running);
        assert!(waiters.run(&stop).await.is_ok());
    }
}
