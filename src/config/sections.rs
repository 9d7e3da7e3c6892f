//! The sections of the configuration. `default.toml` says what each key is.

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

/// `[http]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each is")]
pub struct Http {
    pub host: String,
    pub port: u16,
    pub workers: usize,
    pub allowed_hosts: Vec<String>,
    pub allowed_origins: Vec<String>,
    pub body_bytes: usize,
    pub keep_alive_seconds: u64,
    pub request_timeout_seconds: u64,
    pub max_connections: usize,
    pub memory_bytes: usize,
    pub stalled_responses: usize,
    pub trusted_proxies: Vec<String>,
    pub forwarded_header: String,
    pub drain_seconds: u64,
    pub shutdown_seconds: u64,
    pub tls_certificate_file: String,
    pub tls_key_file: String,
}

/// `[ops]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each is")]
pub struct Ops {
    pub listen: String,
    pub sample_seconds: u64,
}

/// `[auth]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each is")]
pub struct Auth {
    pub mode: String,
    #[serde(serialize_with = "hidden")]
    pub master_keys: SecretString,
    pub master_keys_file: String,
    pub revoked_keys: Vec<String>,
    pub stale_seconds: u64,
    pub failures_per_minute: u32,
}

/// `[oauth]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each is")]
pub struct OAuth {
    pub issuer: String,
    pub resource: String,
    pub audience: String,
    pub jwks_url: String,
    pub algorithms: Vec<String>,
    pub client_claim: String,
    pub tenant_claim: String,
    pub windows: bool,
    pub leeway_seconds: u64,
}

/// Whether there is a secret, and not which.
fn hidden<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if secret.expose_secret().is_empty() { "" } else { "***" })
}

/// `[queue]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each is")]
pub struct Queue {
    pub backend: String,
}

/// `[redis]`
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each is")]
pub struct Redis {
    #[serde(serialize_with = "without_secrets")]
    pub url: String,
    pub tls_ca_file: String,
    pub tls_certificate_file: String,
    pub tls_key_file: String,
    pub connect_timeout_seconds: f64,
    pub command_timeout_seconds: f64,
    pub retry_seconds: f64,
    pub durability: String,
    pub confirm_replicas: u32,
    pub confirm_timeout_seconds: f64,
}

/// The URL as far as it may be shown: what stands before the host is left out.
fn without_secrets<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let shown = match url.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://***@{host}"),
            None => url.to_owned(),
        },
        None => String::new(),
    };
    serializer.serialize_str(&shown)
}

impl std::fmt::Debug for Redis {
    /// Without the URL: it may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").finish_non_exhaustive()
    }
}

/// `[encryption]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each is")]
pub struct Encryption {
    pub mode: String,
    #[serde(serialize_with = "hidden")]
    pub keys: SecretString,
    pub keys_file: String,
}

/// `[messaging]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each is")]
pub struct Messaging {
    pub ttl_seconds: u64,
    pub default_wait_seconds: u64,
    pub lease_seconds: u64,
    pub manual_lease_seconds: u64,
    pub task_seconds: u64,
    pub presence_seconds: u64,
    pub ledger_seconds: u64,
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each is")]
pub struct Limits {
    pub message_bytes: usize,
    pub recipients: usize,
    pub inbox_messages: u64,
    pub inbox_bytes: u64,
    pub client_waits: u64,
    pub principal_waits: usize,
    pub principal_listens: usize,
    pub principal_messages_per_minute: u32,
    pub principal_messages_at_once: u32,
    pub tenant_messages_per_minute: u32,
    pub tenant_messages_at_once: u32,
    pub pair_messages: u32,
    pub pair_seconds: u64,
    pub pair_pause_seconds: u64,
    pub replica_waiters: usize,
    pub replica_calls: usize,
    pub max_wait_seconds: u64,
    pub min_ttl_seconds: u64,
    pub max_ttl_seconds: u64,
    pub fetch_messages: usize,
    pub fetch_bytes: usize,
    pub ledger_entries: u64,
    pub listed_inboxes: usize,
}

/// `[log]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each is")]
pub struct Log {
    pub level: String,
    pub format: String,
    pub audit: bool,
}
