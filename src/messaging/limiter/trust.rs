//! How much passes in histories of sends that go on while the store is asked.

use async_trait::async_trait;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::{Instant, advance};

use super::{
    bowl::{Bowl, limiter_on},
    *,
};

const REPLICAS: u32 = 2;
const BURST: u32 = 400;

/// One bucket, by the clock of the test.
struct Store {
    begun: Instant,
    until_us: Mutex<u64>,
}

impl Store {
    fn now_us(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap()
    }
}

#[async_trait]
impl Bowl for Store {
    async fn permits(&self, rate: Rate, need: u32, want: u32) -> Result<Permits, QueueError> {
        tokio::task::yield_now().await;
        let taken = rate.take(&mut self.until_us.lock(), self.now_us(), need, want);
        Ok(taken.map_or_else(Permits::Later, Permits::Granted))
    }
}

/// Somebody who sends as much as passes, in parts of all sizes.
#[tokio::test(start_paused = true)]
async fn what_passes_on_trust_is_paid_for_before_more_does() {
    let rate = Rate::new(BURST, Duration::from_secs(60), BURST).unwrap();
    let bucket = || Bucket::caller("default/alice");
    for seed in 0..15 {
        let mut chance = StdRng::seed_from_u64(seed);
        let store = Arc::new(Store { begun: Instant::now(), until_us: Mutex::default() });
        let replicas: Vec<_> = (0..REPLICAS).map(|_| limiter_on(&store)).collect();
        let (mut passed, mut refused) = (0, 0);
        let mut need = 1;
        for _ in 0..4000 {
            // Parts get smaller, because a refusal holds for no less than it was about.
            need = if need > 1 && chance.random() { need - 1 } else { chance.random_range(1..30) };
            let limiter = &replicas[chance.random_range(0..replicas.len())];
            match limiter.take_on_trust(bucket(), rate, need).await {
                Some(Permits::Granted(_)) => passed += need,
                Some(Permits::Later(_)) => refused += 1,
                other => panic!("{other:?}"),
            }
            if chance.random_ratio(1, 8) {
                advance(Duration::from_millis(chance.random_range(0..4000))).await;
            }
            let by_rate = u64::from(BURST) * store.now_us() / 60_000_000;
            // Each replica may have kept a batch from before, and have trusted somebody with another.
            let most = BURST + u32::try_from(by_rate).unwrap() + REPLICAS * 2 * rate.batch();
            assert!(passed <= most, "{passed} passed where {most} may, history {seed}");
        }
        assert!(refused > 100, "the limit was not met: {refused}");
    }
}
