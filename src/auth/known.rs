//! What the store says of each tenant, as this process knows it.
//!
//! The store is asked once in [`FRESH`] for each tenant that calls, never for a request. When it does not
//! answer, what is known serves on for a bounded time; after that nothing is known, and whoever asks refuses.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::time::timeout;

use crate::{model::Tenant, queue::QueueError};

/// What is known is so long taken as it is. A change is seen within this and one look.
const FRESH: Duration = Duration::from_secs(4);
/// How long one look may take.
const LOOK_WITHIN: Duration = Duration::from_secs(3);
/// A store that did not answer is left alone for so long.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// What is known of each tenant, to be shared by the workers of a process. Only ask for tenants that a
/// credential named, or a team's own rules: nobody else may add one.
pub struct Known<T> {
    tenants: Arc<Mutex<HashMap<Tenant, Arc<OfTenant<T>>>>>,
    /// A clock that nobody sets back.
    now: Arc<dyn Fn() -> Instant + Send + Sync>,
}

impl<T> Clone for Known<T> {
    fn clone(&self) -> Self {
        Self { tenants: Arc::clone(&self.tenants), now: Arc::clone(&self.now) }
    }
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self { tenants: Arc::default(), now: Arc::new(Instant::now) }
    }
}

struct OfTenant<T> {
    /// Replaced as a whole: a panic leaves it sound.
    latest: Mutex<Latest<T>>,
    /// Held by who asks the store.
    asking: tokio::sync::Mutex<()>,
}

struct Latest<T> {
    rules: Option<(Arc<T>, Instant)>,
    failed: Option<Instant>,
}

impl<T> Default for OfTenant<T> {
    fn default() -> Self {
        let latest = Latest { rules: None, failed: None };
        Self { latest: Mutex::new(latest), asking: tokio::sync::Mutex::default() }
    }
}

impl<T> OfTenant<T> {
    /// What is known, if it is not older.
    fn younger(&self, than: Duration, now: Instant) -> Option<Arc<T>> {
        let latest = self.latest.lock();
        let (rules, at) = latest.rules.as_ref()?;
        (now.duration_since(*at) < than).then(|| Arc::clone(rules))
    }

    fn failed_just_now(&self, now: Instant) -> bool {
        self.latest.lock().failed.is_some_and(|at| now.duration_since(at) < PAUSE)
    }
}

impl<T> Known<T> {
    /// What is known of a tenant: by a `look` at the store if that is old. `None`: the store does not answer,
    /// and what it said last is older than `stale`, or it never said anything.
    ///
    /// # Cancel safety
    /// Dropping the future leaves what is known as it was; the next one looks.
    pub async fn of<L>(
        &self,
        tenant: &Tenant,
        stale: Duration,
        look: impl FnOnce() -> L,
    ) -> Option<Arc<T>>
    where
        L: Future<Output = Result<T, QueueError>>,
    {
        let known = Arc::clone(self.tenants.lock().entry(tenant.clone()).or_default());
        if let Some(rules) = known.younger(FRESH, (self.now)()) {
            return Some(rules);
        }
        let _asking = known.asking.lock().await;
        // Somebody else may have asked meanwhile.
        if let Some(rules) = known.younger(FRESH, (self.now)()) {
            return Some(rules);
        }
        if !known.failed_just_now((self.now)()) {
            let asked_at = (self.now)();
            let asked = timeout(LOOK_WITHIN, look()).await;
            match asked.unwrap_or(Err(QueueError::Timeout)) {
                Ok(rules) => {
                    let rules = Arc::new(rules);
                    let latest =
                        Latest { rules: Some((Arc::clone(&rules), asked_at)), failed: None };
                    *known.latest.lock() = latest;
                    return Some(rules);
                }
                Err(error) => {
                    tracing::warn!(
                        error.kind = error.label(), error = %error,
                        "what holds for a team cannot be found out; what was known serves for a while"
                    );
                    known.latest.lock().failed = Some((self.now)());
                }
            }
        }
        known.younger(stale, (self.now)())
    }

    /// On another clock.
    #[cfg(test)]
    pub(super) fn telling_time_by(now: Arc<dyn Fn() -> Instant + Send + Sync>) -> Self {
        Self { now, ..Self::default() }
    }
}
