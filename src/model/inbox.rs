//! Whose queue: a client of a tenant.

use std::{fmt, sync::Arc};

use super::ClientId;

/// A team whose clients see each other. `default` until identity says otherwise.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Tenant(Arc<str>);

impl Tenant {
    /// The name as it stands in keys.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
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
        let name = format!("{}/{}", tenant.as_str(), client.expose()).into();
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
