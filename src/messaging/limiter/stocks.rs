//! What a process knows of the buckets without asking: permits that were taken and not spent, and refusals that
//! still hold. It decides alone, or says that the store must be asked; who asks is the limiter's.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    model::Rate,
    queue::{Bucket, Permits, QueueError},
};

/// After a failure nobody asks for so long.
const LEFT_ALONE: Duration = Duration::from_secs(1);
/// A pause that was lifted is seen to be within this time.
const LIFT_SEEN: Duration = Duration::from_secs(4);
/// Most stocks of a process. Whoever has none asks the store for each call.
pub(super) const STOCKS: usize = 50_000;
/// When there is no room, those that are worth nothing any more are looked for so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So many are not worth a look.
const FEW: usize = 1024;

/// The permits that a process has taken and not spent. Clones share them. A panic under a lock leaves what it
/// guards whole: every change is an assignment or one call.
#[derive(Clone, Default)]
pub struct Stocks(Arc<Shared>);

#[derive(Default)]
struct Shared {
    crowd: Mutex<Crowd>,
    failed: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Crowd {
    by_bucket: HashMap<Bucket, Arc<Stock>>,
    /// How many were left by the last look at all of them, and when that was.
    left: usize,
    looked: Option<Instant>,
}

impl Stocks {
    /// What was taken out of a bucket, and whether the next one will find it here.
    pub(super) fn of(&self, bucket: &Bucket) -> (Arc<Stock>, bool) {
        let mut crowd = self.0.crowd.lock();
        if let Some(stock) = crowd.by_bucket.get(bucket) {
            return (Arc::clone(stock), true);
        }
        crowd.make_room();
        let stock = Arc::<Stock>::default();
        let room = crowd.by_bucket.len() < STOCKS;
        if room {
            crowd.by_bucket.insert(bucket.clone(), Arc::clone(&stock));
        }
        (stock, room)
    }

    pub(super) fn failed(&self, error: &QueueError) {
        tracing::debug!(error.kind = error.label(), error = %error, "a limit could not be looked at");
        *self.0.failed.lock() = Some(Instant::now());
    }

    pub(super) fn failed_just_now(&self) -> bool {
        self.0.failed.lock().is_some_and(|at| at.elapsed() < LEFT_ALONE)
    }
}

impl Crowd {
    /// Drops those that are worth nothing, where they may be many.
    fn make_room(&mut self) {
        let many = self.by_bucket.len() > 2 * self.left + FEW;
        let full = self.by_bucket.len() >= STOCKS;
        let just_now = self.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY);
        if many || (full && !just_now) {
            self.looked = Some(Instant::now());
            self.by_bucket
                .retain(|_bucket, stock| Arc::strong_count(stock) > 1 || stock.is_worth());
            self.left = self.by_bucket.len();
        }
    }
}

/// What was taken out of one bucket.
#[derive(Default)]
pub(super) struct Stock {
    holding: Mutex<Holding>,
    /// Held by who asks the store.
    pub(super) asking: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Holding {
    left: u32,
    /// Went on trust, and were not there. Then none are left.
    owed: u32,
    /// Until then `left` and `owed` hold.
    until: Option<Instant>,
    closed: Option<Closed>,
}

impl Holding {
    /// What is left, and what is owed.
    fn good(&self, now: Instant) -> (u32, u32) {
        if self.until.is_some_and(|until| now < until) { (self.left, self.owed) } else { (0, 0) }
    }
}

/// There is no need to ask.
#[derive(Clone, Copy)]
enum Closed {
    /// There are not so many permits until then.
    Until { need: u32, at: Instant },
    /// It is paused to the one time, which is looked at again at the other.
    Paused { ends: Instant, ask: Instant },
}

impl Closed {
    fn paused(left: Duration) -> Self {
        let now = Instant::now();
        Self::Paused { ends: now + left, ask: now + left.min(LIFT_SEEN) }
    }

    /// What somebody who needs so many is to be told, if it still holds.
    fn refusal(self, need: u32, now: Instant) -> Option<Permits> {
        match self {
            Self::Paused { ends, ask } if now < ask => Some(Permits::Paused(ends - now)),
            Self::Until { need: known, at } if need >= known && now < at => {
                Some(Permits::Later(at - now))
            }
            Self::Paused { .. } | Self::Until { .. } => None,
        }
    }
}

impl Stock {
    /// Spends permits, or refuses, without the store. `None`: it must be asked.
    pub(super) fn decide(&self, need: u32) -> Option<Permits> {
        let (mut holding, now) = (self.holding.lock(), Instant::now());
        if let Some(refusal) = holding.closed.and_then(|closed| closed.refusal(need, now)) {
            return Some(refusal);
        }
        if holding.good(now).0 < need {
            return None;
        }
        holding.left -= need;
        Some(Permits::Granted(need))
    }

    /// What the store said to somebody who needs so many.
    pub(super) fn note(&self, said: Permits, need: u32, rate: Rate) {
        let (mut holding, now) = (self.holding.lock(), Instant::now());
        match said {
            Permits::Granted(granted) => {
                let (left, owed) = holding.good(now);
                let spare = granted.saturating_sub(need);
                let paid = spare.min(owed);
                let (left, owed) = (left + spare - paid, owed - paid);
                *holding = Holding { left, owed, until: Some(now + rate.per()), closed: None };
            }
            Permits::Later(wait) => holding.closed = Some(Closed::Until { need, at: now + wait }),
            Permits::Paused(left) => holding.closed = Some(Closed::paused(left)),
        }
    }

    /// So many went on trust, and the store refused them.
    pub(super) fn owe(&self, permits: u32, rate: Rate) {
        let (mut holding, now) = (self.holding.lock(), Instant::now());
        let (left, _owed) = holding.good(now);
        holding.left = left.saturating_sub(permits);
        if permits > left {
            holding.owed = permits - left;
            holding.until = Some(now + rate.per()); // by then there is more than a batch again
        }
    }

    /// So many must be paid for before anything else.
    pub(super) fn owes(&self) -> u32 {
        self.holding.lock().good(Instant::now()).1
    }

    /// It was paused just now.
    pub(super) fn pause(&self, left: Duration) {
        self.holding.lock().closed = Some(Closed::paused(left));
    }

    /// Permits that were taken and are not needed after all.
    pub(super) fn give_back(&self, permits: u32) {
        self.holding.lock().left += permits;
    }

    /// Whether anything would be lost with it.
    fn is_worth(&self) -> bool {
        let (holding, now) = (self.holding.lock(), Instant::now());
        holding.good(now) != (0, 0)
            || holding.closed.is_some_and(|closed| closed.refusal(u32::MAX, now).is_some())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate() -> Rate {
        Rate::new(400, SECOND * 60, 400).unwrap()
    }

    fn bucket(number: usize) -> Bucket {
        Bucket::caller(&format!("default/{number}"))
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_spent_within_the_time_of_the_rate_is_let_go() {
        let stock = Stock::default();
        stock.note(Permits::Granted(20), 1, rate());
        advance(SECOND * 59).await;
        assert_eq!(stock.decide(1), Some(Permits::Granted(1)));
        advance(SECOND).await;
        assert_eq!(stock.decide(1), None);
        stock.note(Permits::Granted(20), 1, rate());
        assert_eq!(stock.decide(20), None, "19 of the second batch, and none of the first");
        assert_eq!(stock.decide(19), Some(Permits::Granted(19)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_holds_for_its_time_and_a_pause_until_it_may_have_been_lifted() {
        let (refused, paused) = (Stock::default(), Stock::default());
        refused.note(Permits::Later(SECOND * 60), 5, rate());
        paused.note(Permits::Paused(SECOND * 60), 5, rate());
        advance(SECOND * 3).await;
        assert_eq!(paused.decide(1), Some(Permits::Paused(SECOND * 57)));
        advance(SECOND).await;
        assert_eq!(paused.decide(1), None, "so long it takes to see that it was lifted");
        assert_eq!(refused.decide(4), None, "four may be there where five are not");
        assert_eq!(refused.decide(5), Some(Permits::Later(SECOND * 56)));
        advance(SECOND * 56).await;
        assert_eq!(refused.decide(5), None);
    }

    #[test]
    fn what_is_worth_nothing_takes_no_room() {
        let stocks = Stocks::default();
        for number in 0..3 * FEW {
            // A batch of one is spent at once.
            stocks.of(&bucket(number)).0.note(Permits::Granted(1), 1, rate());
        }
        assert!(stocks.0.crowd.lock().by_bucket.len() <= 2 * FEW, "what was spent goes");
    }

    #[test]
    fn what_is_worth_something_stays() {
        let stocks = Stocks::default();
        let said =
            [Permits::Granted(20), Permits::Later(SECOND * 60), Permits::Paused(SECOND * 60)];
        for (number, said) in said.into_iter().enumerate() {
            stocks.of(&bucket(number)).0.note(said, 1, rate());
        }
        for number in said.len()..3 * FEW {
            let (_spent, kept) = stocks.of(&bucket(number));
            assert!(kept);
        }
        for (number, said) in said.into_iter().enumerate() {
            let decided = stocks.of(&bucket(number)).0.decide(1);
            let Some(decided) = decided else { panic!("{said:?} was forgotten") };
            assert_eq!(std::mem::discriminant(&decided), std::mem::discriminant(&said));
        }
    }
}
