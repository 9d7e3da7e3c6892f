//! Modes `key`, `oauth` and `proxy`: who is let in, and what of whom is opened to it.

mod bound;
mod command;
pub(crate) mod contacts;
mod doors;
mod log;
mod matrix;
mod oauth;
mod proxied;
mod team_command;
mod team_rules;
mod teams;
mod verified;

use mcp_messaging::auth::{ApiKey, MasterKeys};
use secrecy::ExposeSecret;

use crate::support::{Agent, Replica, Site, Store};

/// In force everywhere here: one for new keys, and an older one.
pub(crate) const MASTERS: &str = "m1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8,\
                                  m0:IAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
/// The name of the first, with another secret.
const FORGED: &str = "m1:QAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
/// One that is in force nowhere.
const UNKNOWN: &str = "m9:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

/// Who it is for and what it allows.
pub(crate) fn key(tenant: &str, client: &str, scopes: &str) -> ApiKey {
    let (tenant, client) = (tenant.parse().unwrap(), client.parse().unwrap());
    ApiKey::new(tenant, client, scopes.parse().unwrap(), 1, None)
}

/// One that may read and send until then, in seconds since the epoch.
pub(crate) fn key_until(tenant: &str, client: &str, expires_at: u64) -> ApiKey {
    let (tenant, client) = (tenant.parse().unwrap(), client.parse().unwrap());
    ApiKey::new(tenant, client, "read,send".parse().unwrap(), 1, Some(expires_at))
}

/// As its holder sends it.
pub(crate) fn sealed(key: &ApiKey) -> String {
    made_with(MASTERS, key)
}

fn made_with(masters: &str, key: &ApiKey) -> String {
    let masters: MasterKeys = masters.parse().unwrap();
    key.seal(masters.current()).expose_secret().to_owned()
}

/// The holder of a key for this client of `acme`, which may read and send.
pub(crate) fn holder(replica: &Replica, client: &str) -> Agent {
    replica.agent(client).with_key(&sealed(&key("acme", client, "read,send")))
}

/// What makes servers ask for keys.
pub(crate) const KEYED: [(&str, &str); 2] =
    [("MCP_MESSAGING__AUTH__MODE", "key"), ("MCP_MESSAGING__AUTH__MASTER_KEYS", MASTERS)];

/// Servers that ask for keys.
pub(crate) async fn guarded(store: Store, more: &[(&str, &str)]) -> Site {
    store.with(&[&KEYED[..], more].concat()).await
}
