//! What the store keeps about keys: which are refused, and which were issued. Never a key itself.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    str::FromStr,
};

use async_trait::async_trait;

use super::QueueError;
use crate::model::{Grant, Scopes, Tenant};

/// Names one key, to revoke it alone. Not a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(u64);

impl KeyId {
    /// A random one.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The text is not the id of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not the id of a key (16 hexadecimal digits, as `keys issue` and `keys list` show it)")]
pub struct InvalidKeyId;

impl FromStr for KeyId {
    type Err = InvalidKeyId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits =
            |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != 16 || !digits(text) {
            return Err(InvalidKeyId);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| InvalidKeyId)
    }
}

/// What is refused of the keys of a tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations {
    /// By grant: keys of generations below this one are refused from this time on (ms since the Unix epoch).
    limits: HashMap<Grant, Vec<(u32, u64)>>,
    keys: HashSet<KeyId>,
}

impl Revocations {
    /// From `from_ms` on, keys of `grant` below `generation` are refused.
    pub fn limit(&mut self, grant: Grant, generation: u32, from_ms: u64) {
        self.limits.entry(grant).or_default().push((generation, from_ms));
    }

    /// A single key is refused.
    pub fn revoke(&mut self, key: KeyId) {
        self.keys.insert(key);
    }

    /// The generation that new keys of a grant belong to.
    #[must_use]
    pub fn generation(&self, grant: &Grant) -> u32 {
        let limits = self.limits.get(grant).into_iter().flatten();
        limits.map(|(generation, _)| *generation).max().unwrap_or(FIRST_GENERATION)
    }

    /// Whether a key is refused at a time, in ms since the Unix epoch.
    #[must_use]
    pub fn refuses(&self, grant: &Grant, generation: u32, key: KeyId, now_ms: u64) -> bool {
        self.keys.contains(&key) || self.ends(grant, generation).is_some_and(|ends| ends <= now_ms)
    }

    /// Until when the keys of a generation are good, if that was said: ms since the Unix epoch.
    #[must_use]
    pub fn ends(&self, grant: &Grant, generation: u32) -> Option<u64> {
        let limits = self.limits.get(grant).into_iter().flatten();
        limits.filter(|(limit, _)| generation < *limit).map(|(_, from_ms)| *from_ms).min()
    }

    /// Whether this very key is refused.
    #[must_use]
    pub fn names(&self, key: KeyId) -> bool {
        self.keys.contains(&key)
    }
}

/// The generation of the keys of a grant whose keys were never rotated or revoked.
pub const FIRST_GENERATION: u32 = 1;

/// A key that was issued, without what makes it one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedKey {
    /// Its name.
    pub id: KeyId,
    /// The name of the master key that it was made with.
    pub master: String,
    /// Which clients it proves.
    pub grant: Grant,
    /// What it allows.
    pub scopes: Scopes,
    /// Its generation.
    pub generation: u32,
    /// When it was issued, seconds since the Unix epoch.
    pub issued_at: u64,
    /// When it expires, seconds since the Unix epoch; `None`: never.
    pub expires_at: Option<u64>,
}

/// Where revocations are kept, so that every replica hears of them. They live for ever.
///
/// Every operation may be repeated.
#[async_trait]
pub trait CredentialStore: Send + Sync {
    /// What is refused of the keys of a tenant.
    async fn revocations(&self, tenant: &Tenant) -> Result<Revocations, QueueError>;

    /// Begins a new generation of the keys of a grant, and refuses all older ones from `from_ms` (ms since
    /// the Unix epoch) on; 0: at once. Two at the same time begin two generations: neither is lost.
    async fn begin_generation(
        &self,
        tenant: &Tenant,
        grant: &Grant,
        from_ms: u64,
    ) -> Result<u32, QueueError>;

    /// Refuses a single key.
    async fn revoke_key(&self, tenant: &Tenant, key: KeyId) -> Result<(), QueueError>;

    /// Remembers that a key was issued.
    async fn record_key(&self, tenant: &Tenant, key: &IssuedKey) -> Result<(), QueueError>;

    /// The keys that were recorded, latest first.
    async fn recorded_keys(&self, tenant: &Tenant) -> Result<Vec<IssuedKey>, QueueError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_good_until_the_first_limit_above_it_is_reached() {
        let grant = |text: &str| text.parse::<Grant>().unwrap();
        let (alice, key) = (grant("alice"), KeyId::random());
        let mut rules = Revocations::default();
        assert_eq!(rules.generation(&alice), 1);
        rules.limit(alice.clone(), 2, 5_000); // rotated, with grace
        rules.limit(alice.clone(), 3, 9_000);
        assert_eq!(rules.generation(&alice), 3);
        for (generation, now_ms, refused) in [
            (1, 4_999, false),
            (1, 5_000, true),
            (2, 8_999, false),
            (2, 9_000, true),
            (3, 9_001, false),
        ] {
            assert_eq!(rules.refuses(&alice, generation, key, now_ms), refused, "{generation}");
        }
        assert!(!rules.refuses(&grant("alice.*"), 1, key, u64::MAX), "another grant");
        rules.revoke(key);
        assert!(rules.refuses(&alice, 3, key, 0) && !rules.refuses(&alice, 3, KeyId::random(), 0));
    }

    #[test]
    fn the_id_of_a_key_is_written_in_one_way_only() {
        let id = KeyId::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "0123", "+123456789abcdef", "0123456789ABCDEF", "0123456789abcdef0"] {
            assert_eq!(bad.parse::<KeyId>(), Err(InvalidKeyId), "{bad}");
        }
    }
}
