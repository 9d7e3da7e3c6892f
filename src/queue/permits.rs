//! What the store keeps so that replicas share a limit: how often somebody may send, and which two clients
//! may not talk for a while because they look like a loop.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::QueueError;
use crate::model::{ClientId, Inbox, Rate, Tenant};

/// Two clients of a tenant; which of them is named first makes no difference. `Debug` shows no id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pair {
    tenant: Tenant,
    one: ClientId,
    other: ClientId,
}

impl Pair {
    /// These two.
    #[must_use]
    pub fn new(tenant: Tenant, one: ClientId, other: ClientId) -> Self {
        let (one, other) = if one <= other { (one, other) } else { (other, one) };
        Self { tenant, one, other }
    }

    /// Whose team.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// Both, in an order that does not change.
    #[must_use]
    pub fn clients(&self) -> (&ClientId, &ClientId) {
        (&self.one, &self.other)
    }

    /// `<one>|<other>`: for keys. Never log it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}|{}", self.one.expose(), self.other.expose())
    }

    /// The pair of a tenant that [`name`](Self::name) names; `None` for anything else.
    #[must_use]
    pub fn from_name(tenant: &Tenant, name: &str) -> Option<Self> {
        let (one, other) = name.split_once('|')?;
        Some(Self::new(tenant.clone(), one.parse().ok()?, other.parse().ok()?))
    }
}

/// What a rate is kept for.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Bucket(Arc<str>);

impl Bucket {
    /// Of whoever makes calls: the name of a principal, or of an inbox where nothing was proved.
    #[must_use]
    pub fn caller(name: &str) -> Self {
        Self(["c:", name].concat().into())
    }

    /// Of a team.
    #[must_use]
    pub fn tenant(tenant: &Tenant) -> Self {
        Self(format!("t:{}", tenant.as_str()).into())
    }

    /// Of two clients.
    #[must_use]
    pub fn pair(pair: &Pair) -> Self {
        Self(format!("p:{}/{}", pair.tenant.as_str(), pair.name()).into())
    }

    /// What tells it apart from every other one: for keys. Never log it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bucket")
    }
}

/// What a bucket gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permits {
    /// So many, at least as many as were needed.
    Granted(u32),
    /// None: there are as many as were needed after this long, if nobody takes them first.
    Later(Duration),
    /// None: it is paused for this long.
    Paused(Duration),
}

/// Two clients may not talk for a while, as one of them is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// The other one.
    pub peer: ClientId,
    /// Until when, milliseconds since the Unix epoch by the store's clock.
    pub until_ms: u64,
}

/// Limits that all replicas on one store share. Time is the store's own clock.
///
/// What is kept here may be lost with the store: then everybody has a fresh burst and nobody is paused. Every
/// operation may be repeated; [`permits`](Self::permits) takes them again then.
#[async_trait]
pub trait LimitStore: Send + Sync {
    /// Takes at least `need` and at most `want` permits out of a bucket, as [`Rate::take`] does. A bucket that was
    /// never used is full. One rate for each bucket: under another one what is left of it is counted anew.
    async fn permits(
        &self,
        bucket: &Bucket,
        rate: Rate,
        need: u32,
        want: u32,
    ) -> Result<Permits, QueueError>;

    /// Pauses two clients for a time and notes that `told` is to be told. Before they are paused that stands:
    /// a pause that nobody hears of there cannot be. Their bucket is full again when the pause ends. For how
    /// long it is now, and whether this call began it: a pause that runs is neither prolonged nor noted again.
    async fn pause(
        &self,
        pair: &Pair,
        time: Duration,
        told: &ClientId,
    ) -> Result<(Duration, bool), QueueError>;

    /// Ends a pause, and fills the bucket of the two; nobody is told of it any more. `false`: there was none.
    async fn lift(&self, pair: &Pair) -> Result<bool, QueueError>;

    /// The pauses that run in a tenant: who, and for how much longer.
    async fn paused_pairs(&self, tenant: &Tenant) -> Result<Vec<(Pair, Duration)>, QueueError>;

    /// Of which pauses a client is to be told, the ones that are over too. They are reported again until
    /// [`pauses_told`](Self::pauses_told). While there are some, its fetches and sends say `notices_due`.
    async fn pauses(&self, client: &Inbox) -> Result<Vec<Pause>, QueueError>;

    /// The client was told of these.
    async fn pauses_told(&self, client: &Inbox, told: &[Pause]) -> Result<(), QueueError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clients_are_one_pair_whoever_is_named_first_and_its_name_names_it() {
        let id = |text: &str| text.parse::<ClientId>().unwrap();
        let pair = |one, other| Pair::new(Tenant::default(), id(one), id(other));
        assert_eq!(pair("bob", "alice"), pair("alice", "bob"));
        assert_ne!(Bucket::pair(&pair("bob", "alice")), Bucket::pair(&pair("bob", "carol")));
        let found = Pair::from_name(&Tenant::default(), &pair("bob", "alice").name());
        assert_eq!(found, Some(pair("alice", "bob")));
        assert_eq!(Pair::from_name(&Tenant::default(), "alice"), None);
        assert!(
            !format!("{:?} {:?}", pair("a", "b"), Bucket::caller("x/secret")).contains("secret")
        );
    }
}
