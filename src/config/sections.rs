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

/// `[proxy]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each is")]
pub struct Proxy {
    pub trusted: Vec<String>,
    pub header: String,
    pub admins: Vec<String>,
    pub trust_anybody: bool,
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
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each is")]
pub struct Redis {
    #[serde(serialize_with = "without_secrets")]
    pub url: SecretString,
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

/// The URL as far as it may be shown.
fn without_secrets<S: Serializer>(url: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&harmless(url.expose_secret()))
}

/// Where Redis is, by its URL: without the user and the password before the host, and without the values of
/// parameters (`sentinelPassword` is one), but those that are known to be harmless.
fn harmless(url: &str) -> String {
    const HARMLESS: [&str; 2] = ["node", "sentinelServiceName"];
    let Some((scheme, rest)) = url.split_once("://") else { return String::new() };
    let (place, parameters) = match rest.split_once('?') {
        // Of a password or of a parameter? Nobody knows where it would end.
        Some((_, parameters)) if parameters.contains(['@', '#']) => {
            return format!("{scheme}://***");
        }
        Some((place, parameters)) => (place, Some(parameters)),
        None => (rest, None),
    };
    let place = match place.rsplit_once('@') {
        Some((_, host)) => format!("***@{host}"),
        None => place.to_owned(),
    };
    let parameters = parameters.map(|parameters| {
        let all = parameters.split('&').map(|parameter| match parameter.split_once('=') {
            Some((name, _)) if HARMLESS.contains(&name) => parameter.to_owned(),
            Some((name, _)) => format!("{name}=***"),
            None => "***".to_owned(),
        });
        format!("?{}", all.collect::<Vec<_>>().join("&"))
    });
    format!("{scheme}://{place}{}", parameters.unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn of_a_url_is_shown_where_redis_is_and_nothing_that_opens_it() {
        for (url, shown) in [
            ("redis://r:1/2", "redis://r:1/2"),
            ("redis://:hunter2@r:1", "redis://***@r:1"),
            ("redis://user:hun@ter2@r:1/2", "redis://***@r:1/2"),
            ("redis://:hun?ter2@r:1", "redis://***"),
            ("redis://:hun#ter2@r:1", "redis://***@r:1"),
            (
                "redis-cluster://u:hunter2@r:1?node=s:2&node=t:3",
                "redis-cluster://***@r:1?node=s:2&node=t:3",
            ),
            (
                "redis-sentinel://r:1?sentinelServiceName=m&sentinelPassword=hunter2&hunter2",
                "redis-sentinel://r:1?sentinelServiceName=m&sentinelPassword=***&***",
            ),
            ("redis-sentinel://r:1?sentinelPassword=a@hunter2", "redis-sentinel://***"),
            ("redis-sentinel://r:1?node=s:1#hunter2", "redis-sentinel://***"),
            ("hunter2", ""),
        ] {
            assert_eq!(harmless(url), shown);
        }
    }
}
