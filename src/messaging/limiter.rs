//! How much a caller and its team may send, and when two clients look like a loop.
//!
//! The store keeps one bucket for each of them, so that all replicas share it. A replica takes a batch of
//! permits at a time ([`Rate::batch`]: a twentieth) and spends them without asking again; it gives none back.
//! What it did not spend within the time of the rate, it lets go.
//!
//! Most agents send now and then, and find no batch. Nobody waits twice for the store because of that: one call
//! goes on while the store is asked, unless it needs more than a batch or the limit is exact. What it was trusted
//! with in vain is paid for before anything else is.
//!
//! So with R replicas somebody may get up to 2R batches more at once than the burst, or be refused that much too
//! early. Where a batch is one permit, the limit is exact.
//!
//! Permits are spent by what is sent, whether or not it is accepted. What only reads spends none: it changes
//! nothing, and the calls that run at once are bounded anyway ([`Waiters`](super::Waiters)).
//!
//! When the store does not say how much is left, calls pass: the send itself will find the store in trouble, and
//! must not wait twice for it. So a limit holds as long as its store answers.

mod stocks;

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use self::stocks::Stock;
pub use self::stocks::Stocks;
use super::{CallContext, MessagingError, MessagingService, audit};
use crate::{
    model::{Inbox, Principal, Rate},
    queue::{Bucket, LimitStore, NewMessage, Pair, Pause, Permits, QueueError},
    telemetry::Metrics,
};

/// The store may take so long to say what is left.
const ASK_WITHIN: Duration = Duration::from_millis(500);

/// What may be sent. `None`: no limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct SendLimits {
    /// Messages of one principal; where nothing is proved, of one client id.
    pub caller: Option<Rate>,
    /// Messages of all clients of a tenant.
    pub tenant: Option<Rate>,
    /// Messages between two clients, both directions together, and how long they are paused when there are more.
    pub pair: Option<(Rate, Duration)>,
}

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The caller's.
    Caller,
    /// Its team's.
    Tenant,
}

impl Whose {
    pub(super) fn possessive(self) -> &'static str {
        match self {
            Self::Caller => "your",
            Self::Tenant => "your team's",
        }
    }
}

/// The limits of a mailbox. Cheap to clone.
#[derive(Clone)]
pub struct Limiter {
    store: Arc<dyn LimitStore>,
    limits: SendLimits,
    stocks: Stocks,
    tasks: TaskTracker,
    metrics: Arc<Metrics>,
}

impl Limiter {
    /// Limits that are kept in a store. `stocks` is shared by all mailboxes of a process. `tasks` runs what asks
    /// the store while its call goes on.
    #[must_use]
    pub fn new(
        store: Arc<dyn LimitStore>,
        limits: SendLimits,
        stocks: Stocks,
        tasks: TaskTracker,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { store, limits, stocks, tasks, metrics }
    }

    /// Where they are kept.
    pub(super) fn store(&self) -> Arc<dyn LimitStore> {
        Arc::clone(&self.store)
    }

    /// As [`take`](Self::take), but one call goes on while the store is asked.
    async fn take_on_trust(&self, bucket: Bucket, rate: Rate, need: u32) -> Option<Permits> {
        let (stock, kept) = self.stocks.of(&bucket);
        if let Some(decided) = stock.decide(need) {
            return Some(decided);
        }
        // What nobody keeps would be trusted for ever.
        let trusted = kept && rate.batch() > 1 && need <= rate.batch();
        if trusted
            && let Ok(asking) = Arc::clone(&stock.asking).try_lock_owned()
            && stock.owes() == 0
        {
            let limiter = self.clone();
            self.tasks.spawn(async move {
                match limiter.ask(&bucket, &stock, rate, need).await {
                    Some(Permits::Granted(_)) => {}
                    Some(Permits::Later(_) | Permits::Paused(_)) => stock.owe(need, rate),
                    None => limiter.metrics.limit_unchecked(),
                }
                drop(asking);
            });
            return Some(Permits::Granted(need));
        }
        self.ask_in_turn(&bucket, &stock, rate, need).await
    }

    /// `None`: the store did not say.
    async fn take(&self, bucket: Bucket, rate: Rate, need: u32) -> Option<Permits> {
        let (stock, _kept) = self.stocks.of(&bucket);
        match stock.decide(need) {
            None => self.ask_in_turn(&bucket, &stock, rate, need).await,
            decided => decided,
        }
    }

    /// One asks for all who come meanwhile.
    async fn ask_in_turn(
        &self,
        bucket: &Bucket,
        stock: &Stock,
        rate: Rate,
        need: u32,
    ) -> Option<Permits> {
        let _asking = stock.asking.lock().await;
        match stock.decide(need) {
            None => self.ask(bucket, stock, rate, need).await,
            decided => decided,
        }
    }

    /// Takes a batch out of the store, or notes why there is none. `None`: the store did not say.
    async fn ask(&self, bucket: &Bucket, stock: &Stock, rate: Rate, need: u32) -> Option<Permits> {
        // Of what is owed, what a full bucket has.
        let all = need.saturating_add(stock.owes()).min(need.max(rate.burst()));
        let want = all.max(rate.batch());
        let said = self.hear(self.store.permits(bucket, rate, all, want)).await?;
        stock.note(said, need, rate);
        Some(match said {
            Permits::Granted(_batch) => Permits::Granted(need),
            Permits::Later(_) | Permits::Paused(_) => said,
        })
    }

    /// Both are paused, and the other one is to hear of it. For how long, and whether that began just now. `None`:
    /// the store failed.
    async fn pause(
        &self,
        pair: &Pair,
        message: &NewMessage,
        time: Duration,
    ) -> Option<(Duration, bool)> {
        let paused = self.store.pause(pair, time, message.recipient.client());
        let (left, begun) = self.hear(paused).await?;
        self.stocks.of(&Bucket::pair(pair)).0.pause(left);
        Some((left, begun))
    }

    /// What the store says. `None`: it failed, just now or a moment ago.
    async fn hear<T>(&self, asked: impl Future<Output = Result<T, QueueError>>) -> Option<T> {
        if self.stocks.failed_just_now() {
            return None;
        }
        let said = timeout(ASK_WITHIN, asked).await.unwrap_or(Err(QueueError::Timeout));
        said.inspect_err(|error| self.stocks.failed(error)).ok()
    }
}

/// Whose permits a send spends: those of the credential, or of the client where there is none.
fn caller(sender: &Inbox, principal: &Principal) -> Bucket {
    match principal.grant() {
        Some(_proved) => Bucket::caller(&principal.name()),
        None => Bucket::caller(sender.name()),
    }
}

impl MessagingService {
    /// The same, with limits on how much is sent.
    #[must_use]
    pub fn limited_by(self, limiter: Limiter) -> Self {
        Self { limiter: Some(limiter), ..self }
    }

    /// Spends permits for so many messages of the sender and of its team. A refusal takes its time.
    pub(super) async fn allow(
        &self,
        sender: &Inbox,
        messages: usize,
        context: &CallContext,
    ) -> Result<(), MessagingError> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        let own = || caller(sender, &context.principal);
        let limits =
            [(Whose::Caller, limiter.limits.caller), (Whose::Tenant, limiter.limits.tenant)];
        for (whose, rate) in limits {
            let Some(rate) = rate else { continue };
            let bucket = match whose {
                Whose::Caller => own(),
                Whose::Tenant => Bucket::tenant(sender.tenant()),
            };
            match limiter.take_on_trust(bucket, rate, messages).await {
                Some(Permits::Granted(_)) => {}
                None => self.metrics.limit_unchecked(),
                Some(Permits::Later(wait) | Permits::Paused(wait)) => {
                    if whose == Whose::Tenant && limiter.limits.caller.is_some() {
                        limiter.stocks.of(&own()).0.give_back(messages);
                    }
                    audit::rate_limited(sender, whose);
                    self.waiters.hold_back(&context.stop).await;
                    return Err(MessagingError::RateLimited { whose, rate, retry_after: wait });
                }
            }
        }
        Ok(())
    }

    /// Counts a message between two clients, and refuses it while they are paused.
    pub(super) async fn check_pair(&self, message: &NewMessage) -> Result<(), MessagingError> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        let Some((rate, time)) = limiter.limits.pair else { return Ok(()) };
        let (sender, recipient) = (&message.sender, &message.recipient);
        if sender == recipient {
            return Ok(()); // a note to oneself is nobody else's loop
        }
        if sender.tenant() != recipient.tenant() {
            return Ok(()); // a pair is two clients of one team: neither may pause somebody of another
        }
        let pair =
            Pair::new(sender.tenant().clone(), sender.client().clone(), recipient.client().clone());
        let left = match limiter.take(Bucket::pair(&pair), rate, 1).await {
            Some(Permits::Granted(_)) => return Ok(()),
            Some(Permits::Paused(left)) => Some(left),
            Some(Permits::Later(_)) => {
                let paused = limiter.pause(&pair, message, time).await;
                if let Some((_left, true)) = paused {
                    self.metrics.pair_paused();
                    audit::paused(sender, recipient);
                    tracing::warn!(
                        messages = rate.permits(),
                        seconds = rate.per().as_secs(),
                        "two clients sent each other more than limits.pair_messages: they are paused (`mcp-messaging pairs list`)"
                    );
                }
                paused.map(|(left, _begun)| left)
            }
            None => None,
        };
        let Some(left) = left else {
            self.metrics.limit_unchecked();
            return Ok(());
        };
        Err(MessagingError::PairPaused {
            pair: Box::new(pair),
            peer: recipient.client().clone(),
            rate,
            left,
        })
    }

    /// Of which pauses a client is to be told.
    pub(super) async fn pauses(&self, client: &Inbox) -> Result<Vec<Pause>, QueueError> {
        match &self.limiter {
            Some(limiter) => limiter.store.pauses(client).await,
            None => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;
    use futures_util::{FutureExt, future::join_all};
    use parking_lot::Mutex;

    use super::{
        bowl::{Bowl, limiter_on},
        stocks::STOCKS,
        *,
    };

    /// Says what it is told to, and counts who asks.
    #[derive(Default)]
    struct Store {
        asked: AtomicU32,
        says: Mutex<Option<Permits>>,
    }

    #[async_trait]
    impl Bowl for Store {
        async fn permits(&self, _: Rate, _: u32, want: u32) -> Result<Permits, QueueError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            let says = *self.says.lock();
            says.map_or(Ok(Permits::Granted(want)), |says| match says {
                Permits::Granted(_) => Err(QueueError::Timeout),
                Permits::Later(_) | Permits::Paused(_) => Ok(says),
            })
        }
    }

    fn limiter() -> (Arc<Store>, Limiter) {
        let store = Arc::<Store>::default();
        let limiter = limiter_on(&store);
        (store, limiter)
    }

    fn rate(burst: u32) -> Rate {
        Rate::new(burst, Duration::from_secs(60), burst).unwrap()
    }

    fn alice() -> Bucket {
        Bucket::caller("default/alice")
    }

    #[tokio::test]
    async fn a_batch_serves_a_crowd_that_comes_at_once() {
        let (store, limiter) = limiter();
        let all = (0..100).map(|_| limiter.take(alice(), rate(400), 1));
        assert!(join_all(all).await.into_iter().all(|taken| taken == Some(Permits::Granted(1))));
        assert_eq!(store.asked.load(Ordering::SeqCst), 5, "100 of them by 20");
        // What does not fit into what is left asks, and leaves that for others.
        for _ in 0..3 {
            assert_eq!(limiter.take(alice(), rate(400), 7).await, Some(Permits::Granted(7)));
        }
        assert_eq!(limiter.take(alice(), rate(400), 19).await, Some(Permits::Granted(19)));
        assert_eq!(store.asked.load(Ordering::SeqCst), 7);
    }

    #[tokio::test]
    async fn a_refusal_is_remembered_for_its_time_and_for_no_less_than_it_was_about() {
        let (store, limiter) = limiter();
        *store.says.lock() = Some(Permits::Later(Duration::from_secs(9)));
        for _ in 0..3 {
            assert!(matches!(limiter.take(alice(), rate(20), 5).await, Some(Permits::Later(_))));
        }
        assert_eq!(store.asked.load(Ordering::SeqCst), 1);
        limiter.take(alice(), rate(20), 1).await;
        assert_eq!(store.asked.load(Ordering::SeqCst), 2, "one may be there where five are not");
        limiter.take(Bucket::caller("default/bob"), rate(20), 5).await;
        assert_eq!(store.asked.load(Ordering::SeqCst), 3, "another one's");
    }

    #[tokio::test]
    async fn who_sends_now_and_then_does_not_wait_for_the_store() {
        let (store, limiter) = limiter();
        let on_trust = |need| limiter.take_on_trust(alice(), rate(400), need);
        let asked = || store.asked.load(Ordering::SeqCst);
        // Answered at once, although the store has not been asked yet.
        assert_eq!(on_trust(1).now_or_never(), Some(Some(Permits::Granted(1))));
        assert_eq!(asked(), 0);
        // Whoever comes meanwhile waits for its answer, and the first one was paid for.
        assert_eq!(on_trust(19).await, Some(Permits::Granted(19)));
        assert_eq!(asked(), 1);
        // More than a batch is not trusted, nor is anything where the limit is exact.
        assert_eq!(on_trust(21).now_or_never(), None);
        let exact = limiter.take_on_trust(Bucket::caller("default/bob"), rate(20), 1);
        assert_eq!(exact.now_or_never(), None);
    }

    #[tokio::test]
    async fn trust_ends_with_the_answer() {
        let (store, limiter) = limiter();
        *store.says.lock() = Some(Permits::Later(Duration::from_secs(9)));
        let on_trust = || limiter.take_on_trust(alice(), rate(400), 1);
        assert_eq!(on_trust().await, Some(Permits::Granted(1)));
        for _ in 0..3 {
            assert!(matches!(on_trust().await, Some(Permits::Later(_))));
        }
        assert_eq!(store.asked.load(Ordering::SeqCst), 1);
        // What is not kept is not trusted.
        for number in 0..STOCKS {
            let bucket = Bucket::caller(&format!("default/{number}"));
            let (stock, _kept) = limiter.stocks.of(&bucket);
            stock.pause(Duration::from_secs(9));
        }
        let stranger = limiter.take_on_trust(Bucket::caller("default/zoe"), rate(400), 1);
        assert!(matches!(stranger.await, Some(Permits::Later(_))));
    }

    #[tokio::test]
    async fn a_store_in_trouble_is_left_alone_and_holds_nobody_up() {
        let (store, limiter) = limiter();
        *store.says.lock() = Some(Permits::Granted(0));
        for _ in 0..5 {
            assert_eq!(limiter.take(alice(), rate(20), 1).await, None);
        }
        assert_eq!(store.asked.load(Ordering::SeqCst), 1);
    }
}

#[cfg(test)]
mod bowl;
#[cfg(test)]
mod trust;
