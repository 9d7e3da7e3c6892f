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
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rand::Rng;
use tokio_util::sync::CancellationToken;

use super::MessagingError;
use crate::model::Principal;

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
    callers: Arc<Callers>,
}

/// What a call holds a place for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Held {
    /// It waits for messages or for an answer.
    Wait,
    /// It listens to an inbox: it waits for as long as its client likes.
    Listen,
}

impl Held {
    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Listen => "listen to an inbox",
        }
    }
}

/// How many places each principal has.
#[derive(Debug, Default)]
struct Callers {
    waits: usize,
    listens: usize,
    now: Mutex<HashMap<(Held, Box<str>), usize>>,
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
        let (waiting, running) = (Gate::new(limit), Gate::new(usize::MAX));
        Self { waiting, running, callers: Arc::default() }
    }

    /// At most `limit` calls that run. What a call does before it waits is running, and what it does when
    /// it is woken is not: who was let in is served.
    #[must_use]
    pub fn with_running(self, limit: usize) -> Self {
        Self { running: Gate::new(limit), ..self }
    }

    /// At most so many places for each principal that proved who it is; zero: no limit. One that proved nothing may
    /// call itself anything, so that a limit for it would keep nobody out.
    #[must_use]
    pub fn with_each(self, waits: usize, listens: usize) -> Self {
        let callers = Callers { waits, listens, now: Mutex::default() };
        Self { callers: Arc::new(callers), ..self }
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
    pub(super) fn enter(&self, held: Held, who: &Principal) -> Result<Seat, MessagingError> {
        let share = Share::of(&self.callers, held, who)?;
        let busy = MessagingError::ReplicaBusy { waiters: self.waiting.limit };
        Ok(Seat { _place: self.waiting.enter().ok_or(busy)?, _share: share })
    }

    /// Keeps a refusal for a while, unless the replica goes away.
    pub(super) async fn hold_back(&self, stop: &CancellationToken) {
        tokio::select! {
            () = tokio::time::sleep(HELD_BACK) => {}
            () = stop.cancelled() => {}
        }
    }

    /// A place to run, until it is dropped. A refusal takes its time, unless the replica goes away.
    pub(super) async fn run(&self, stop: &CancellationToken) -> Result<Place, MessagingError> {
        if let Some(place) = self.running.enter() {
            return Ok(place);
        }
        self.hold_back(stop).await;
        let retry_after = Duration::from_secs(rand::rng().random_range(COME_BACK));
        Err(MessagingError::Overloaded { calls: self.running.limit, retry_after })
    }
}

/// A call that waits: one of all, and one of its principal's.
pub(super) struct Seat {
    _place: Place,
    _share: Option<Share>,
}

/// One place of a principal's.
struct Share {
    callers: Arc<Callers>,
    key: (Held, Box<str>),
}

impl Share {
    fn of(
        callers: &Arc<Callers>,
        held: Held,
        who: &Principal,
    ) -> Result<Option<Self>, MessagingError> {
        let limit = match held {
            Held::Wait => callers.waits,
            Held::Listen => callers.listens,
        };
        if limit == 0 || who.grant().is_none() {
            return Ok(None);
        }
        let key = (held, who.name().into_boxed_str());
        let mut now = callers.now.lock();
        let open = now.entry(key.clone()).or_default();
        if *open >= limit {
            return Err(MessagingError::CallerBusy { held, open: limit });
        }
        *open += 1;
        Ok(Some(Self { callers: Arc::clone(callers), key }))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut now = self.callers.now.lock();
        if let Some(open) = now.get_mut(&self.key) {
            *open -= 1;
            if *open == 0 {
                now.remove(&self.key);
            }
        }
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
        let place = waiters.enter(Held::Wait, &Principal::anyone()).unwrap();
        assert!(waiters.enter(Held::Wait, &Principal::anyone()).is_err());
        assert_eq!(waiters.count(), 1);
        drop(place);
        assert!(waiters.enter(Held::Wait, &Principal::anyone()).is_ok());
    }

    #[test]
    fn each_principal_has_its_own_places_for_waiting_and_for_listening() {
        let scopes = "read".parse().unwrap();
        let holder = |grant: &str| {
            Principal::proved(crate::model::Tenant::default(), grant.parse().unwrap(), scopes)
        };
        let (alice, windows) = (holder("alice"), holder("alice.*"));
        let waiters = Waiters::new(100).with_each(2, 1);
        let one = waiters.enter(Held::Wait, &alice).unwrap();
        let two = waiters.enter(Held::Wait, &alice).unwrap();
        let refused = waiters.enter(Held::Wait, &alice).map(|_seat| ()).unwrap_err();
        assert_eq!(refused, MessagingError::CallerBusy { held: Held::Wait, open: 2 });
        assert_eq!(waiters.count(), 2, "who was refused has no place");
        let listens = waiters.enter(Held::Listen, &alice).unwrap();
        assert!(waiters.enter(Held::Listen, &alice).is_err());
        let others = waiters.enter(Held::Wait, &windows).unwrap();
        let nobody: Vec<_> =
            (0..9).map(|_| waiters.enter(Held::Wait, &Principal::anyone()).unwrap()).collect();
        drop((one, nobody));
        let again = waiters.enter(Held::Wait, &alice);
        assert!(again.is_ok());
        drop((again, two, listens, others));
        assert!(waiters.callers.now.lock().is_empty(), "nobody is remembered");
    }

    #[tokio::test]
    async fn who_waits_takes_no_place_of_those_who_run() {
        let stop = CancellationToken::new();
        let waiters = Waiters::new(1).with_running(2);
        let _waiting = waiters.enter(Held::Wait, &Principal::anyone()).unwrap();
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
