//! A store of limits that knows permits alone, for tests.

use async_trait::async_trait;

use super::*;
use crate::model::{ClientId, Tenant};

/// What there is to take.
#[async_trait]
pub(super) trait Bowl: Send + Sync {
    /// See [`LimitStore::permits`].
    async fn permits(&self, rate: Rate, need: u32, want: u32) -> Result<Permits, QueueError>;
}

struct Only<B>(Arc<B>);

/// A limiter on it, with stocks of its own.
pub(super) fn limiter_on<B: Bowl + 'static>(bowl: &Arc<B>) -> Limiter {
    let (tasks, metrics) = (TaskTracker::new(), Arc::new(Metrics::new().unwrap()));
    let way = Arc::new(Only(Arc::clone(bowl)));
    Limiter::new(way, SendLimits::default(), Stocks::default(), tasks, metrics)
}

#[async_trait]
impl<B: Bowl> LimitStore for Only<B> {
    async fn permits(
        &self,
        _: &Bucket,
        rate: Rate,
        need: u32,
        want: u32,
    ) -> Result<Permits, QueueError> {
        self.0.permits(rate, need, want).await
    }
    async fn pause(
        &self,
        _: &Pair,
        _: Duration,
        _: &ClientId,
    ) -> Result<(Duration, bool), QueueError> {
        Err(QueueError::Timeout)
    }
    async fn lift(&self, _: &Pair) -> Result<bool, QueueError> {
        Err(QueueError::Timeout)
    }
    async fn paused_pairs(&self, _: &Tenant) -> Result<Vec<(Pair, Duration)>, QueueError> {
        Err(QueueError::Timeout)
    }
    async fn pauses(&self, _: &Inbox) -> Result<Vec<Pause>, QueueError> {
        Err(QueueError::Timeout)
    }
    async fn pauses_told(&self, _: &Inbox, _: &[Pause]) -> Result<(), QueueError> {
        Err(QueueError::Timeout)
    }
}
