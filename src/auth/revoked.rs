//! What was revoked, as this process knows it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::{Denied, key::ApiKey, known::Known};
use crate::queue::{CredentialStore, KeyId, Revocations};

/// What was revoked. Clones share what is known.
#[derive(Clone)]
pub struct Revoked {
    /// Said by the configuration.
    keys: Arc<HashSet<KeyId>>,
    store: Option<Arc<dyn CredentialStore>>,
    known: Known<Revocations>,
    /// How long what is known serves when the store does not answer.
    stale: Duration,
}

impl Revoked {
    /// Only these keys, where no store keeps revocations.
    #[must_use]
    pub fn only(keys: HashSet<KeyId>) -> Self {
        Self { keys: Arc::new(keys), store: None, known: Known::default(), stale: Duration::ZERO }
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
        known: Known<Revocations>,
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
        let look = || store.revocations(&key.tenant);
        let rules = self.known.of(&key.tenant, self.stale, look).await;
        let rules = rules.ok_or(Denied::Unavailable)?;
        Ok(rules.refuses(&key.grant, key.generation, key.id, now_ms))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, AtomicUsize, Ordering},
        time::Instant,
    };

    use async_trait::async_trait;
    use parking_lot::Mutex;

    use super::*;
    use crate::{
        auth::known::PAUSE,
        model::{Grant, Tenant},
        queue::{IssuedKey, QueueError},
    };

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
            Ok(self.rules.lock().clone())
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
        let now = Arc::new(Mutex::new(Instant::now()));
        let clock = Arc::clone(&now);
        let known = Known::telling_time_by(Arc::new(move || *clock.lock()));
        let revoked = Revoked::kept_by(Arc::clone(&store) as _, HashSet::new(), known, STALE);
        let scopes = "read".parse().unwrap();
        let key = ApiKey::new(Tenant::default(), "alice".parse().unwrap(), scopes, 1, None);
        (store, revoked, key, move |by| *now.lock() += by)
    }

    #[tokio::test]
    async fn a_crowd_asks_the_store_once_and_a_revocation_is_seen_within_ten_seconds() {
        let (store, revoked, key, advance) = open();
        let all = (0..100).map(|_| revoked.refuses(&key, 0));
        let answers = futures_util::future::join_all(all).await;
        assert!(answers.into_iter().all(|answer| answer == Ok(false)));
        assert_eq!(store.asked.load(Ordering::SeqCst), 1);
        store.rules.lock().limit(key.grant.clone(), 2, 0);
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
