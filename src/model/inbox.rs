//! Whose queue: a client of a tenant.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::ClientId;

/// A team whose clients see each other; nothing passes between two that have not listed each other.
/// 1-64 characters of `A-Z a-z 0-9 . _ -`. It is `default` where no credential says otherwise.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tenant(Arc<str>);

impl Tenant {
    /// Longest name, in characters (all of them ASCII).
    pub const MAX_LEN: usize = 64;

    /// The name as it stands in keys.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is not the name of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1-64 characters of A-Z a-z 0-9 . _ -")]
pub struct InvalidTenant;

impl FromStr for Tenant {
    type Err = InvalidTenant;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if text.is_empty() || text.len() > Self::MAX_LEN || !text.chars().all(allowed) {
            return Err(InvalidTenant);
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for Tenant {
    type Error = InvalidTenant;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Tenant> for String {
    fn from(tenant: Tenant) -> Self {
        tenant.0.as_ref().to_owned()
    }
}

impl Default for Tenant {
    fn default() -> Self {
        Self(Arc::from("default"))
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tenant")
    }
}

/// The inbox of a client: `<tenant>/<client>`. Its `Debug` shows no id.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Inbox {
    tenant: Tenant,
    client: ClientId,
    name: Arc<str>,
}

impl Inbox {
    /// The inbox of `client` in `tenant`.
    #[must_use]
    pub fn new(tenant: Tenant, client: ClientId) -> Self {
        let name = [tenant.as_str(), "/", client.expose()].concat().into();
        Self { tenant, client, name }
    }

    /// Whose team.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// Whose inbox.
    #[must_use]
    pub fn client(&self) -> &ClientId {
        &self.client
    }

    /// `<tenant>/<client>`: for keys and topics. Never log it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The inbox that [`name`](Self::name) names; `None` for anything else.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let (tenant, client) = name.split_once('/')?;
        Some(Self::new(Tenant(tenant.into()), client.parse().ok()?))
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inbox")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_that_would_break_a_key_or_a_pattern_is_refused() {
        for bad in ["", "a b", "a/b", "a*", "a{b}", "a:b", "a?", "[a]", "ä", &"x".repeat(65)] {
            assert_eq!(bad.parse::<Tenant>(), Err(InvalidTenant), "{bad:?}");
        }
        for good in ["a", "acme-2.eu_west", &"x".repeat(64)] {
            assert_eq!(good.parse::<Tenant>().unwrap().as_str(), good);
        }
    }
}
