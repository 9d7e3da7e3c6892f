//! How often something may happen: the generic cell rate algorithm.
//!
//! A bucket is one point in time, `until_us`: up to then its permits are spent in advance, one every
//! [`Rate::step_us`]. It may lie ahead of now by a burst. A bucket that nobody used for a while is the same
//! as none, so what keeps buckets may forget those whose time has passed. `permits` in `mb1.lua` is the same law.

use std::time::Duration;

/// So many permits in a time, and so many of them at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    permits: u32,
    per: Duration,
    burst: u32,
}

impl Rate {
    /// `permits` in each `per`, `burst` of them at once. `None` if one of the three is zero: no limit.
    #[must_use]
    pub fn new(permits: u32, per: Duration, burst: u32) -> Option<Self> {
        let limited = permits > 0 && burst > 0 && !per.is_zero();
        limited.then_some(Self { permits, per, burst })
    }

    /// Permits in each [`per`](Self::per).
    #[must_use]
    pub fn permits(self) -> u32 {
        self.permits
    }

    /// The time in which there are [`permits`](Self::permits).
    #[must_use]
    pub fn per(self) -> Duration {
        self.per
    }

    /// Most permits at once.
    #[must_use]
    pub fn burst(self) -> u32 {
        self.burst
    }

    /// Microseconds from one permit to the next; at least one. Rounded up: never more than was said.
    #[must_use]
    pub fn step_us(self) -> u64 {
        let per = u64::try_from(self.per.as_micros()).unwrap_or(u64::MAX);
        per.div_ceil(u64::from(self.permits)).max(1)
    }

    /// Permits that somebody who spends them one by one may take together: a twentieth of what there is.
    #[must_use]
    pub fn batch(self) -> u32 {
        (self.burst.min(self.permits) / 20).max(1)
    }

    /// Takes at least `need` permits and at most `want` out of a bucket at the time `now_us`. Returns how many
    /// it took, and moves the bucket on.
    ///
    /// # Errors
    /// How long until there are `need` of them. Nothing was taken. More than a burst never are.
    pub fn take(
        self,
        until_us: &mut u64,
        now_us: u64,
        need: u32,
        want: u32,
    ) -> Result<u32, Duration> {
        let step = self.step_us();
        let from = (*until_us).max(now_us);
        let end = now_us.saturating_add(step.saturating_mul(u64::from(self.burst)));
        let free = u32::try_from(end.saturating_sub(from) / step).unwrap_or(u32::MAX);
        if free < need {
            let needed = from.saturating_add(step.saturating_mul(u64::from(need)));
            return Err(Duration::from_micros(needed.saturating_sub(end)));
        }
        let taken = free.min(want.max(need));
        *until_us = from.saturating_add(step.saturating_mul(u64::from(taken)));
        Ok(taken)
    }

    /// Gives permits back that were taken and not needed.
    pub fn give_back(self, until_us: &mut u64, permits: u32) {
        *until_us = until_us.saturating_sub(self.step_us().saturating_mul(u64::from(permits)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;
    const START: u64 = 1_700_000_000 * SECOND;

    fn rate(permits: u32, burst: u32) -> Rate {
        Rate::new(permits, Duration::from_secs(60), burst).unwrap()
    }

    #[test]
    fn a_burst_then_one_at_a_time_and_a_refusal_says_when() {
        let (rate, mut until) = (rate(60, 3), 0);
        for _ in 0..3 {
            assert_eq!(rate.take(&mut until, START, 1, 1), Ok(1));
        }
        let wait = rate.take(&mut until, START, 1, 1).unwrap_err();
        assert_eq!(wait, Duration::from_secs(1));
        let short = START + SECOND - 1;
        assert!(rate.take(&mut until, short, 1, 1).is_err(), "a moment before its time");
        assert_eq!(rate.take(&mut until, START + SECOND, 1, 1), Ok(1));
        assert_eq!(rate.take(&mut until, START + SECOND, 2, 2), Err(Duration::from_secs(2)));
        assert_eq!(rate.take(&mut until, START + 100 * SECOND, 3, 3), Ok(3), "never above a burst");
        assert!(rate.take(&mut until, START + 100 * SECOND, 1, 1).is_err());
    }

    #[test]
    fn a_batch_is_what_is_there_and_what_comes_back_is_there_again() {
        let (rate, mut until) = (rate(60, 10), 0);
        assert_eq!(rate.take(&mut until, START, 1, 8), Ok(8));
        assert_eq!(rate.take(&mut until, START, 1, 8), Ok(2));
        rate.give_back(&mut until, 1);
        assert_eq!(rate.take(&mut until, START, 1, 8), Ok(1));
        assert!(rate.take(&mut until, START, 11, 11).is_err(), "more than a burst never");
    }

    #[test]
    fn a_batch_is_a_small_part_and_at_least_one() {
        assert_eq!((rate(3000, 3000).batch(), rate(3000, 100).batch()), (150, 5));
        assert_eq!((rate(10, 3000).batch(), rate(5, 5).batch()), (1, 1));
        assert_eq!(Rate::new(0, Duration::from_secs(60), 5), None);
        assert_eq!(rate(7, 7).step_us(), 8_571_429, "rounded up");
    }

    proptest! {
        /// Whoever asks, whenever: in no span of time does anybody get more than a burst and what the rate
        /// brings in that span.
        #[test]
        fn no_span_of_time_has_more_than_a_burst_and_its_rate(
            (permits, burst) in (1_u32..200, 1_u32..50),
            asks in proptest::collection::vec((0_u64..5 * SECOND, 1_u32..20, 0_u32..20), 1..60),
        ) {
            let (rate, mut until, mut now) = (rate(permits, burst), 0, START);
            let mut given: Vec<(u64, u64)> = Vec::new();
            for (pause, need, more) in asks {
                now += pause;
                if let Ok(taken) = rate.take(&mut until, now, need, need + more) {
                    prop_assert!(taken >= need && taken <= need + more);
                    given.push((now, taken.into()));
                }
            }
            for (first, &(from, _)) in given.iter().enumerate() {
                let mut sum = 0;
                for &(at, taken) in &given[first..] {
                    sum += taken;
                    prop_assert!(sum <= u64::from(burst) + (at - from) / rate.step_us());
                }
            }
        }
    }
}
