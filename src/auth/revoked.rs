//! What was revoked, as this process knows it.
//!
//! The store is asked once in [`FRESH`] for each tenant that calls, never for a request, and never for
//! a key that is none. When it does not answer, what is known serves on for a bounded time; after that
//! nobody of that tenant is let in: a key that may have been revoked is not trusted.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::timeout;

use super::{Denied, key::ApiKey};
use crate::{
    model::Tenant,
    queue::{CredentialStore, KeyId, QueueError, Revocations},
};

/// What is known is so long taken as it is. A revocation is seen within this and one look.
const FRESH: Duration = Duration::from_secs(4);
/// How long one look may take.
const LOOK_WITHIN: Duration = Duration::from_secs(3);
/// A store that did not answer is left alone for so long.
const PAUSE: Duration = Duration::from_secs(1);

/// What was revoked. Clones share what is known.
#[derive(Clone)]
pub struct Revoked {
    /// Said by the configuration.
    keys: Arc<HashSet<KeyId>>,
    store: Option<Arc<dyn CredentialStore>>,
    known: Known,
    /// How long what is known serves when the store does not answer.
    stale: Duration,
    /// A clock that nobody sets back.
    now: Arc<dyn Fn() -> Instant + Send + Sync>,
}

/// What is known of each tenant, to be shared by the workers of a process. There are as many tenants as
/// the holders of master keys make: nobody else can add one.
#[derive(Clone, Default)]
pub struct Known(Arc<Mutex<HashMap<Tenant, Arc<OfTenant>>>>);

#[derive(Default)]
struct OfTenant {
    latest: Mutex<Latest>,
    /// Held by who asks the store.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Latest {
    rules: Option<(Arc<Revocations>, Instant)>,
    failed: Option<Instant>,
}

/// What is behind the locks is replaced as a whole: a panic leaves it sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OfTenant {
    /// What is known, if it is not older.
    fn younger(&self, than: Duration, now: Instant) -> Option<Arc<Revocations>> {
        let latest = lock(&self.latest);
        let (rules, at) = latest.rules.as_ref()?;
        (now.duration_since(*at) < than).then(|| Arc::clone(rules))
    }

    fn failed_just_now(&self, now: Instant) -> bool {
        lock(&self.latest).failed.is_some_and(|at| now.duration_since(at) < PAUSE)
    }
}

impl Revoked {
    /// Only these keys, where no store keeps revocations.
    #[must_use]
    pub fn only(keys: HashSet<KeyId>) -> Self {
        Self {
            keys: Arc::new(keys),
            store: None,
            known: Known::default(),
            stale: Duration::ZERO,
            now: Arc::new(Instant::now),
        }
    }

    /// Nothing.
    #[must_use]
    pub fn never() -> Self {
        Self::only(HashSet::new())
    }

    /// These keys, and what the store says. When it does not answer, what it said last serves for `stale`.
    #[must_use]
    pub fn kept_by(
        store: Arc<dyn CredentialStore>,
        keys: HashSet<KeyId>,
        known: Known,
        stale: Duration,
    ) -> Self {
        Self { store: Some(store), known, stale, ..Self::only(keys) }
    }

    /// Whether a key was revoked.
    pub(super) async fn refuses(&self, key: &ApiKey, now_ms: u64) -> Result<bool, Denied> {
        if self.keys.contains(&key.id) {
            return Ok(true);
        }
        let Some(store) = &self.store else { return Ok(false) };
        let rules = self.rules(&key.tenant, &**store).await.ok_or(Denied::Unavailable)?;
        Ok(rules.refuses(&key.grant, key.generation, key.id, now_ms))
    }

    async fn rules(
        &self,
        tenant: &Tenant,
        store: &dyn CredentialStore,
    ) -> Option<Arc<Revocations>> {
        let known = Arc::clone(lock(&self.known.0).entry(tenant.clone()).or_default());
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
            let asked = timeout(LOOK_WITHIN, store.revocations(tenant)).await;
            match asked.unwrap_or(Err(QueueError::Timeout)) {
                Ok(rules) => {
                    let rules = Arc::new(rules);
                    let latest =
                        Latest { rules: Some((Arc::clone(&rules), asked_at)), failed: None };
                    *lock(&known.latest) = latest;
                    return Some(rules);
                }
                Err(error) => {
                    tracing::warn!(
                        error.kind = error.label(), error = %error,
                        "what keys were revoked cannot be found out; what was known serves for a while"
                    );
                    lock(&known.latest).failed = Some((self.now)());
                }
            }
        }
        known.younger(self.stale, (self.now)())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::{model::Grant, queue::IssuedKey};

    /// Counts who asks.
    #[derive(Default)]
    struct Store {
        asked: AtomicUsize,
        down: AtomicBool,
        rules: Mutex<Revocations>,
    }

    #[async_trait]
    impl CredentialStore for Store {
        async fn revocations(&self, _: &Tenant) -> Result<Revocations, QueueError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            if self.down.load(Ordering::SeqCst) {
                return Err(QueueError::Timeout);
            }
            Ok(lock(&self.rules).clone())
        }
        async fn begin_generation(&self, _: &Tenant, _: &Grant, _: u64) -> Result<u32, QueueError> {
            Err(QueueError::Timeout)
        }
        async fn revoke_key(&self, _: &Tenant, _: KeyId) -> Result<(), QueueError> {
            Err(QueueError::Timeout)
        }
        async fn record_key(&self, _: &Tenant, _: &IssuedKey) -> Result<(), QueueError> {
            Err(QueueError::Timeout)
        }
        async fn recorded_keys(&self, _: &Tenant) -> Result<Vec<IssuedKey>, QueueError> {
            Err(QueueError::Timeout)
        }
    }

    const STALE: Duration = Duration::from_secs(60);

    fn open() -> (Arc<Store>, Revoked, ApiKey, impl Fn(Duration)) {
        let store = Arc::new(Store::default());
        let kept =
            Revoked::kept_by(Arc::clone(&store) as _, HashSet::new(), Known::default(), STALE);
        let now = Arc::new(Mutex::new(Instant::now()));
        let clock = Arc::clone(&now);
        let revoked = Revoked { now: Arc::new(move || *lock(&clock)), ..kept };
        let scopes = "read".parse().unwrap();
        let key = ApiKey::new(Tenant::default(), "alice".parse().unwrap(), scopes, 1, None);
        (store, revoked, key, move |by| *lock(&now) += by)
    }

    #[tokio::test]
    async fn a_crowd_asks_the_store_once_and_a_revocation_is_seen_within_ten_seconds() {
        let (store, revoked, key, advance) = open();
        let all = (0..100).map(|_| revoked.refuses(&key, 0));
        let answers = futures_util::future::join_all(all).await;
        assert!(answers.into_iter().all(|answer| answer == Ok(false)));
        assert_eq!(store.asked.load(Ordering::SeqCst), 1);
        lock(&store.rules).limit(key.grant.clone(), 2, 0);
        advance(Duration::from_secs(9));
        assert_eq!(revoked.refuses(&key, 0).await, Ok(true));
        assert_eq!(store.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn without_the_store_what_is_known_serves_for_a_while_and_then_nobody_is_let_in() {
        let (store, revoked, key, advance) = open();
        store.down.store(true, Ordering::SeqCst);
        assert_eq!(revoked.refuses(&key, 0).await, Err(Denied::Unavailable), "nothing is known");
        store.down.store(false, Ordering::SeqCst);
        advance(PAUSE);
        assert_eq!(revoked.refuses(&key, 0).await, Ok(false));
        store.down.store(true, Ordering::SeqCst);
        advance(Duration::from_secs(58));
        let asked = store.asked.load(Ordering::SeqCst);
        for _ in 0..10 {
            assert_eq!(revoked.refuses(&key, 0).await, Ok(false), "known a minute ago");
        }
        assert_eq!(store.asked.load(Ordering::SeqCst), asked + 1, "it is left alone");
        advance(Duration::from_secs(2));
        assert_eq!(revoked.refuses(&key, 0).await, Err(Denied::Unavailable));
        store.down.store(false, Ordering::SeqCst);
        advance(PAUSE);
        assert_eq!(revoked.refuses(&key, 0).await, Ok(false));
    }
}
