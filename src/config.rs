//! Configuration: one typed tree from compiled-in defaults, a file, and the environment, in this order.
//!
//! `deploy/config/default.toml` is the reference. Whatever is unknown or contradictory stops the start
//! with one line that names the key.

use std::{
    collections::HashMap,
    net::{SocketAddr, ToSocketAddrs},
    path::Path,
};

use config::{Environment, File, FileFormat};
use serde::{Deserialize, Serialize, Serializer};

/// The defaults, with a comment on every key.
pub const DEFAULTS: &str = include_str!("../deploy/config/default.toml");

/// Short names of the environment, and the keys that they set.
pub const SHORT_NAMES: [(&str, &str); 6] = [
    ("MCP_SERVER_HOST", "http.host"),
    ("MCP_SERVER_PORT", "http.port"),
    ("LOG_LEVEL", "log.level"),
    ("QUEUE_BACKEND", "queue.backend"),
    ("REDIS_URL", "redis.url"),
    ("MESSAGE_TTL_SECONDS", "messaging.ttl_seconds"),
];

/// Why the configuration is not usable. One line that names the key.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A source does not parse, or a key is unknown or of the wrong type.
    #[error("configuration: {}", one_line(.0))]
    Source(#[from] config::ConfigError),
    /// A value breaks a rule.
    #[error("configuration: {key} {problem}")]
    Rule {
        /// The key.
        key: &'static str,
        /// What is wrong with it and what to do.
        problem: String,
    },
}

/// Where a file breaks and why, without the line of the file between them: it may hold a password.
fn one_line(error: &config::ConfigError) -> String {
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    match (lines.next(), lines.next_back()) {
        (Some(first), Some(last)) => format!("{first}: {last}"),
        (first, _) => first.unwrap_or_default().to_owned(),
    }
}

/// The whole configuration.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The endpoint.
    pub http: Http,
    /// Probes and metrics.
    pub ops: Ops,
    /// Who may call.
    pub auth: Auth,
    /// Which store.
    pub queue: Queue,
    /// How to reach Redis.
    pub redis: Redis,
    /// What messages live by.
    pub messaging: Messaging,
    /// What is refused.
    pub limits: Limits,
    /// What is logged.
    pub log: Log,
    /// Spans leave the process: an endpoint is set by the standard `OTEL_EXPORTER_OTLP_*` variables.
    #[serde(skip)]
    pub traces: Option<Traces>,
}

/// What the standard variables of OpenTelemetry say that concerns us; the exporter reads the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    /// `OTEL_EXPORTER_OTLP_PROTOCOL` is `grpc`.
    pub grpc: bool,
    /// `OTEL_SERVICE_NAME` is set.
    pub service_named: bool,
}

impl Traces {
    fn read(environment: &HashMap<String, String>) -> Result<Option<Self>, ConfigError> {
        let get = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        let endpoint =
            get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or(get("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let off = get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || get("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        if endpoint.is_none() || off {
            return Ok(None);
        }
        let protocol =
            get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or(get("OTEL_EXPORTER_OTLP_PROTOCOL"));
        let grpc = match protocol.map(String::as_str) {
            None | Some("http/protobuf") => false,
            Some("grpc") => true,
            Some(other) => {
                return Err(ConfigError::Rule {
                    key: "OTEL_EXPORTER_OTLP_PROTOCOL",
                    problem: format!("is {other}; it must be grpc or http/protobuf"),
                });
            }
        };
        Ok(Some(Self { grpc, service_named: get("OTEL_SERVICE_NAME").is_some() }))
    }
}

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
    pub shutdown_seconds: u64,
}

/// `[ops]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each is")]
pub struct Ops {
    pub listen: String,
}

/// `[auth]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each is")]
pub struct Auth {
    pub mode: String,
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
    pub connect_timeout_seconds: f64,
    pub command_timeout_seconds: f64,
    pub retry_seconds: f64,
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

/// `[messaging]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml says what each is")]
pub struct Messaging {
    pub ttl_seconds: u64,
    pub default_wait_seconds: u64,
    pub lease_seconds: u64,
    pub manual_lease_seconds: u64,
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
    pub replica_waiters: usize,
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
}

/// What must hold, the key that it is about, and what to say if it does not.
type Rule = (bool, &'static str, &'static str);

/// Whether a URL is one of a Redis; its client would take any.
fn names_redis(url: &str) -> bool {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme).to_ascii_lowercase();
    let kind = scheme.strip_suffix("-cluster").or(scheme.strip_suffix("-sentinel"));
    ["redis", "rediss", "valkey", "valkeys"].contains(&kind.unwrap_or(&scheme))
}

/// Which store holds the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// This process; messages end with it.
    Memory,
    /// Redis, shared by all replicas.
    Redis,
}

impl Config {
    /// Reads the configuration from the process' environment and, if given, a file. `overrides` are
    /// short names of the environment that the command line sets.
    ///
    /// # Errors
    /// [`ConfigError`] names the key.
    pub fn load(
        file: Option<&Path>,
        overrides: impl Iterator<Item = (&'static str, String)>,
    ) -> Result<Self, ConfigError> {
        let mut environment: HashMap<String, String> = std::env::vars().collect();
        for (name, value) in overrides {
            if let Some((_, key)) = SHORT_NAMES.iter().find(|(short, _)| *short == name) {
                let long = key.to_ascii_uppercase().replace('.', "__");
                environment.remove(&format!("MCP_MESSAGING__{long}"));
            }
            environment.insert(name.to_owned(), value);
        }
        Self::read(file, &environment)
    }

    /// [`load`](Self::load) with another environment.
    ///
    /// # Errors
    /// [`ConfigError`] names the key.
    pub fn read(
        file: Option<&Path>,
        environment: &HashMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let mut sources =
            config::Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
        if let Some(path) = file {
            sources = sources.add_source(File::from(path).format(FileFormat::Toml));
        }
        for (name, key) in SHORT_NAMES {
            if let Some(value) = environment.get(name).filter(|value| !value.is_empty()) {
                sources = sources.set_override(key, value.as_str())?;
            }
        }
        let names = Environment::with_prefix("MCP_MESSAGING")
            .prefix_separator("__")
            .separator("__")
            .ignore_empty(true)
            .try_parsing(true)
            .list_separator(",")
            .with_list_parse_key("http.allowed_hosts")
            .with_list_parse_key("http.allowed_origins")
            .source(Some(environment.clone()));
        // The long name wins over the short one: it is the more particular.
        let long = config::Config::builder().add_source(names.clone()).build()?;
        for (_, key) in SHORT_NAMES {
            if let Ok(value) = long.get::<config::Value>(key) {
                sources = sources.set_override(key, value.kind)?;
            }
        }
        let mut config: Self = sources.add_source(names).build()?.try_deserialize()?;
        config.traces = Traces::read(environment)?;
        config.check()?;
        Ok(config)
    }

    /// The configuration in force as TOML, without passwords.
    #[must_use]
    pub fn shown(&self) -> String {
        toml::to_string_pretty(self).unwrap_or_else(|error| format!("# not shown: {error}\n"))
    }

    /// Which store is meant.
    #[must_use]
    pub fn backend(&self) -> Backend {
        match self.queue.backend.as_str() {
            "redis" => Backend::Redis,
            "" if !self.redis.url.is_empty() => Backend::Redis,
            _ => Backend::Memory,
        }
    }

    /// Where to listen.
    ///
    /// # Errors
    /// The host does not resolve.
    pub fn listen(&self) -> Result<Vec<SocketAddr>, ConfigError> {
        let problem = |text: String| ConfigError::Rule { key: "http.host", problem: text };
        let found = (self.http.host.as_str(), self.http.port).to_socket_addrs();
        let found = found.map_err(|error| problem(format!("does not resolve: {error}")))?;
        let mut addresses: Vec<SocketAddr> = found.collect();
        addresses.sort_by_key(SocketAddr::is_ipv6);
        addresses.dedup();
        if self.http.port == 0 {
            addresses.truncate(1); // two sockets would get two ports
        }
        if addresses.is_empty() {
            return Err(problem("resolves to no address".to_owned()));
        }
        Ok(addresses)
    }

    /// Where probes and metrics listen, if on their own.
    ///
    /// # Errors
    /// Not an address.
    pub fn ops_listen(&self) -> Result<Option<SocketAddr>, ConfigError> {
        if self.ops.listen.is_empty() {
            return Ok(None);
        }
        let parsed = self.ops.listen.parse().map(Some);
        parsed.map_err(|_| ConfigError::Rule {
            key: "ops.listen",
            problem: format!(
                "is {:?}; it must be an address and port such as 127.0.0.1:9090",
                self.ops.listen
            ),
        })
    }

    /// What each value must be by itself.
    fn rules_of_values(&self) -> [Rule; 14] {
        let (l, h, r) = (&self.limits, &self.http, &self.redis);
        let one_of = |value: &str, words: &[&str]| words.contains(&value);
        let seconds = |value: f64| value.is_finite() && value > 0.0 && value <= 3600.0;
        [
            (
                one_of(&self.queue.backend, &["", "memory", "redis"]),
                "queue.backend",
                "must be memory or redis",
            ),
            (
                self.queue.backend != "redis" || !r.url.is_empty(),
                "redis.url",
                "(REDIS_URL) must be set when queue.backend is redis",
            ),
            (
                r.url.is_empty() || names_redis(&r.url),
                "redis.url",
                "(REDIS_URL) must begin with redis://, rediss://, redis-cluster:// or redis-sentinel://",
            ),
            (
                self.queue.backend != "memory" || r.url.is_empty(),
                "queue.backend",
                "is memory, but redis.url (REDIS_URL) is set: leave one of them out",
            ),
            (
                one_of(&self.auth.mode, &["", "none"]),
                "auth.mode",
                "must be none: this version has no other",
            ),
            (
                one_of(&self.log.format, &["auto", "text", "json"]),
                "log.format",
                "must be auto, text or json",
            ),
            (!h.host.trim().is_empty(), "http.host", "must not be empty"),
            (
                h.body_bytes >= l.message_bytes + 4096,
                "http.body_bytes",
                "must be at least limits.message_bytes + 4096",
            ),
            (
                h.keep_alive_seconds > 0 && h.keep_alive_seconds <= 60,
                "http.keep_alive_seconds",
                "must be between 1 and 60",
            ),
            (h.request_timeout_seconds > 0, "http.request_timeout_seconds", "must be positive"),
            (h.max_connections > 0, "http.max_connections", "must be positive"),
            (
                seconds(r.connect_timeout_seconds),
                "redis.connect_timeout_seconds",
                "must be positive, and at most 3600",
            ),
            (
                seconds(r.command_timeout_seconds),
                "redis.command_timeout_seconds",
                "must be positive, and at most 3600",
            ),
            (seconds(r.retry_seconds), "redis.retry_seconds", "must be positive, and at most 3600"),
        ]
    }

    /// What times and sizes must be beside each other.
    fn rules_of_limits(&self) -> [Rule; 12] {
        let (m, l) = (&self.messaging, &self.limits);
        [
            (l.min_ttl_seconds > 0, "limits.min_ttl_seconds", "must be positive"),
            (
                l.min_ttl_seconds <= l.max_ttl_seconds && l.max_ttl_seconds <= 604_800,
                "limits.max_ttl_seconds",
                "must be between limits.min_ttl_seconds and 604800 (a week)",
            ),
            (
                (l.min_ttl_seconds..=l.max_ttl_seconds).contains(&m.ttl_seconds),
                "messaging.ttl_seconds",
                "(MESSAGE_TTL_SECONDS) must be between limits.min_ttl_seconds and limits.max_ttl_seconds",
            ),
            (
                l.max_wait_seconds > 0 && l.max_wait_seconds <= l.max_ttl_seconds,
                "limits.max_wait_seconds",
                "must be positive and not longer than limits.max_ttl_seconds",
            ),
            (
                m.default_wait_seconds <= l.max_wait_seconds,
                "messaging.default_wait_seconds",
                "must not be longer than limits.max_wait_seconds",
            ),
            (
                m.lease_seconds > 0 && m.manual_lease_seconds > 0,
                "messaging.lease_seconds",
                "and manual_lease_seconds must be positive",
            ),
            (m.presence_seconds > 0, "messaging.presence_seconds", "must be positive"),
            (
                m.ledger_seconds >= l.max_ttl_seconds,
                "messaging.ledger_seconds",
                "must be at least limits.max_ttl_seconds, or expiries could not be told",
            ),
            (
                l.message_bytes > 0 && (l.message_bytes as u64) < l.inbox_bytes,
                "limits.message_bytes",
                "must be positive and smaller than limits.inbox_bytes",
            ),
            (
                l.recipients > 0
                    && l.inbox_messages > 0
                    && l.client_waits > 0
                    && l.replica_waiters > 0,
                "limits",
                "of recipients, inbox_messages, client_waits and replica_waiters must be positive",
            ),
            (
                l.fetch_messages > 0 && l.fetch_bytes > 0,
                "limits.fetch_messages",
                "and fetch_bytes must be positive",
            ),
            (
                l.ledger_entries > 0 && l.listed_inboxes > 0,
                "limits.ledger_entries",
                "and listed_inboxes must be positive",
            ),
        ]
    }

    fn check(&self) -> Result<(), ConfigError> {
        for (holds, key, problem) in
            self.rules_of_values().into_iter().chain(self.rules_of_limits())
        {
            if !holds {
                return Err(ConfigError::Rule { key, problem: problem.to_owned() });
            }
        }
        self.ops_listen()?;
        let open = self.listen()?.iter().any(|address| !address.ip().is_loopback());
        if open && self.auth.mode.is_empty() {
            return Err(ConfigError::Rule {
                key: "auth.mode",
                problem: format!(
                    "must be said when http.host is {}: other machines can reach it. \
                     MCP_MESSAGING__AUTH__MODE=none serves everybody without authentication",
                    self.http.host
                ),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let map = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::read(None, &map)
    }

    fn problem(variables: &[(&str, &str)]) -> String {
        read(variables).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_valid() {
        let config = read(&[]).unwrap();
        assert_eq!(config.http.port, 8123);
        assert_eq!(config.backend(), Backend::Memory);
        assert!(config.listen().unwrap().iter().all(|address| address.ip().is_loopback()));
    }

    #[test]
    fn short_and_long_names_both_work_and_the_long_one_wins() {
        let config = read(&[
            ("MCP_SERVER_PORT", "9000"),
            ("REDIS_URL", "redis://r:1"),
            ("MESSAGE_TTL_SECONDS", "60"),
            ("MCP_MESSAGING__MESSAGING__TTL_SECONDS", "61"),
            ("MCP_MESSAGING__HTTP__WORKERS", "3"),
            ("MCP_MESSAGING__HTTP__ALLOWED_HOSTS", "a.example,b.example:8123"),
        ])
        .unwrap();
        assert_eq!((config.http.port, config.http.workers), (9000, 3));
        assert_eq!(config.backend(), Backend::Redis);
        assert_eq!(config.messaging.ttl_seconds, 61);
        assert_eq!(config.http.allowed_hosts, ["a.example", "b.example:8123"]);
    }

    #[test]
    fn a_mistake_is_named_by_its_key() {
        for (variables, culprit) in [
            (&[("MCP_MESSAGING__MESSAGING__MAX_WAIT", "7")][..], "max_wait"),
            (&[("MCP_MESSAGING__LIMIT__RECIPIENTS", "7")], "limit"),
            (&[("MCP_SERVER_PORT", "http")], "http.port"),
            (&[("MCP_SERVER_PORT", "70000")], "http.port"),
            (&[("MCP_MESSAGING__LIMITS__RECIPIENTS", "-1")], "limits.recipients"),
            (&[("QUEUE_BACKEND", "kafka")], "queue.backend"),
            (&[("QUEUE_BACKEND", "redis")], "REDIS_URL"),
            (&[("REDIS_URL", "http://:hunter2@r:1")], "REDIS_URL"),
            (&[("REDIS_URL", "r:1")], "REDIS_URL"),
            (&[("QUEUE_BACKEND", "memory"), ("REDIS_URL", "redis://r:1")], "queue.backend"),
            (&[("MCP_SERVER_HOST", "0.0.0.0")], "MCP_MESSAGING__AUTH__MODE"),
            (&[("MESSAGE_TTL_SECONDS", "0")], "messaging.ttl_seconds"),
            (&[("MCP_MESSAGING__MESSAGING__DEFAULT_WAIT_SECONDS", "999")], "default_wait_seconds"),
            (&[("MCP_MESSAGING__OPS__LISTEN", "9090")], "ops.listen"),
        ] {
            let said = problem(variables);
            assert!(said.contains(culprit), "{variables:?}: {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }

    #[test]
    fn every_kind_of_redis_is_known_by_its_url() {
        for kind in
            ["redis", "rediss", "redis-cluster", "rediss-cluster", "redis-sentinel", "valkey"]
        {
            let url = format!("{kind}://r:1");
            assert_eq!(read(&[("REDIS_URL", &url)]).unwrap().backend(), Backend::Redis, "{url}");
        }
    }

    #[test]
    fn a_password_does_not_show() {
        let config = read(&[("REDIS_URL", "redis://user:hunter2@r:1")]).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        let shown = config.shown();
        assert!(!shown.contains("hunter2") && shown.contains("redis://***@r:1"), "{shown}");
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        let shown = read(&[("MCP_SERVER_PORT", "9000")]).unwrap().shown();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), shown).unwrap();
        let again = Config::read(Some(file.path()), &HashMap::new()).unwrap();
        assert_eq!(again.http.port, 9000);
    }
}
