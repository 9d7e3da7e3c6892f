//! Configuration: one typed tree from compiled-in defaults, a file, and the environment, in this order.
//!
//! `deploy/config/default.toml` is the reference. Whatever is unknown or contradictory stops the start
//! with one line that names the key.

mod rules;
mod sections;
mod traces;

use std::{
    collections::HashMap,
    net::{SocketAddr, ToSocketAddrs},
    path::Path,
};

use config::{Environment, File, FileFormat, FileSourceString};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

pub use sections::{
    Auth, Encryption, Http, Limits, Log, Messaging, OAuth, Ops, Proxy, Queue, Redis,
};
pub use traces::Traces;

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
    /// A variable of the environment is nearly a setting, and would set nothing.
    #[error(
        "configuration: {name} sets nothing: two underscores go before and after the section, {meant}"
    )]
    Nearly {
        /// The variable.
        name: String,
        /// The one that was meant.
        meant: String,
    },
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
    let quoted = |line: &&str| {
        line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with('|')
    };
    let mut lines = text.lines().filter(|line| !quoted(line)).map(str::trim);
    let first = lines.next().unwrap_or_default();
    let rest: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    if rest.is_empty() { first.to_owned() } else { format!("{first}: {}", rest.join(" ")) }
}

/// Refuses a name of the environment with one underscore where there are two: what somebody set to be safe, such as
/// `MCP_MESSAGING_AUTH_MODE`, must not count for nothing.
fn no_near_miss(
    defaults: &File<FileSourceString, FileFormat>,
    environment: &HashMap<String, String>,
) -> Result<(), ConfigError> {
    type Sections = HashMap<String, HashMap<String, config::Value>>;
    let sections = config::Config::builder().add_source(defaults.clone()).build()?;
    for (section, settings) in sections.try_deserialize::<Sections>()? {
        for key in settings.keys() {
            let [section, key] = [section.as_str(), key].map(str::to_ascii_uppercase);
            let name = format!("MCP_MESSAGING_{section}_{key}");
            // Kubernetes tells a pod so of a Service `mcp-messaging-http`.
            let meant = |value: &String| !value.is_empty() && !value.starts_with("tcp://");
            if environment.get(&name).is_some_and(meant) {
                return Err(ConfigError::Nearly {
                    name,
                    meant: format!("MCP_MESSAGING__{section}__{key}"),
                });
            }
        }
    }
    Ok(())
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
    /// The authorization server, if that is who says it.
    pub oauth: OAuth,
    /// The proxy, if that is who says it.
    pub proxy: Proxy,
    /// Which store.
    pub queue: Queue,
    /// How to reach Redis.
    pub redis: Redis,
    /// How texts lie in Redis.
    pub encryption: Encryption,
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

/// Which store holds the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// This process; messages end with it.
    Memory,
    /// Redis, shared by all replicas.
    Redis,
}

impl Backend {
    /// Its word in settings, logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis => "redis",
        }
    }
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
        let defaults = File::from_str(DEFAULTS, FileFormat::Toml);
        no_near_miss(&defaults, environment)?;
        let mut sources = config::Config::builder().add_source(defaults);
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
            .with_list_parse_key("http.trusted_proxies")
            .with_list_parse_key("auth.revoked_keys")
            .with_list_parse_key("oauth.algorithms")
            .with_list_parse_key("proxy.trusted")
            .with_list_parse_key("proxy.admins")
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
            "" if !self.redis.url.expose_secret().is_empty() => Backend::Redis,
            _ => Backend::Memory,
        }
    }

    /// Whether Redis is spoken to by TLS.
    #[must_use]
    pub fn redis_tls(&self) -> bool {
        rules::names_tls(self.redis.url.expose_secret())
    }

    /// Whether there are keys for the texts in Redis.
    #[must_use]
    pub fn encrypts(&self) -> bool {
        rules::given(&self.encryption.keys, &self.encryption.keys_file)
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
            (&[("LOG_LEVEL", "WARNING")], "LOG_LEVEL"),
            (&[("LOG_LEVEL", "warning,mcp_messaging=debug")], "LOG_LEVEL"),
            (&[("LOG_LEVEL", "info,mcp_messaging=loud")], "LOG_LEVEL"),
            (&[("MCP_MESSAGING_AUTH_MODE", "key")], "MCP_MESSAGING__AUTH__MODE"),
            (
                &[("MCP_MESSAGING_REDIS_URL", "redis://:hunter2@r:1")],
                "MCP_MESSAGING_REDIS_URL sets nothing",
            ),
            (&[("REDIS_URL", "http://:hunter2@r:1")], "REDIS_URL"),
            (&[("REDIS_URL", "r:1")], "REDIS_URL"),
            (&[("QUEUE_BACKEND", "memory"), ("REDIS_URL", "redis://r:1")], "queue.backend"),
            (&[("MCP_SERVER_HOST", "0.0.0.0")], "MCP_MESSAGING__AUTH__MODE"),
            (&[("MESSAGE_TTL_SECONDS", "0")], "messaging.ttl_seconds"),
            (&[("MCP_MESSAGING__MESSAGING__DEFAULT_WAIT_SECONDS", "999")], "default_wait_seconds"),
            (&[("MCP_MESSAGING__OPS__LISTEN", "9090")], "ops.listen"),
            (
                &[("MCP_MESSAGING__LIMITS__PRINCIPAL_MESSAGES_AT_ONCE", "99")],
                "limits.principal_messages_at_once",
            ),
            (
                &[
                    ("MCP_MESSAGING__LIMITS__TENANT_MESSAGES_PER_MINUTE", "60"),
                    ("MCP_MESSAGING__LIMITS__TENANT_MESSAGES_AT_ONCE", "99"),
                ],
                "limits.tenant_messages_at_once",
            ),
            (&[("MCP_MESSAGING__LIMITS__PAIR_PAUSE_SECONDS", "0")], "limits.pair_pause_seconds"),
            (&[("MCP_MESSAGING__HTTP__FORWARDED_HEADER", "x-real-ip")], "http.forwarded_header"),
            (&[("MCP_MESSAGING__HTTP__TLS_KEY_FILE", "k")], "http.tls_certificate_file"),
            (
                &[
                    ("MCP_MESSAGING__HTTP__TLS_CERTIFICATE_FILE", "c"),
                    ("MCP_MESSAGING__HTTP__TLS_KEY_FILE", "k"),
                ],
                "ops.listen",
            ),
            (
                &[
                    ("REDIS_URL", "rediss://r:1"),
                    ("MCP_MESSAGING__REDIS__TLS_CERTIFICATE_FILE", "c"),
                ],
                "redis.tls_key_file",
            ),
            (
                &[("REDIS_URL", "redis://r:1"), ("MCP_MESSAGING__REDIS__TLS_CA_FILE", "ca")],
                "rediss://",
            ),
            (&[("MCP_MESSAGING__ENCRYPTION__MODE", "on")], "encryption.mode"),
            (
                &[("MCP_MESSAGING__ENCRYPTION__MODE", "seal"), ("REDIS_URL", "redis://r:1")],
                "encryption.keys_file must be set",
            ),
            (&[("MCP_MESSAGING__ENCRYPTION__KEYS", "a:hunter2")], "REDIS_URL"),
            (
                &[
                    ("MCP_MESSAGING__ENCRYPTION__KEYS", "a:hunter2"),
                    ("MCP_MESSAGING__ENCRYPTION__KEYS_FILE", "f"),
                    ("REDIS_URL", "redis://r:1"),
                ],
                "leave one of them out",
            ),
            (&[("MCP_MESSAGING__REDIS__DURABILITY", "sync")], "redis.durability"),
            (&[("MCP_MESSAGING__REDIS__DURABILITY", "replicated")], "REDIS_URL"),
            (&[("MCP_MESSAGING__REDIS__CONFIRM_REPLICAS", "0")], "redis.confirm_replicas"),
            (&[("MCP_MESSAGING__REDIS__CONFIRM_TIMEOUT_SECONDS", "0")], "confirm_timeout_seconds"),
            (
                &[("MCP_MESSAGING__REDIS__CONFIRM_TIMEOUT_SECONDS", "nan")],
                "confirm_timeout_seconds",
            ),
        ] {
            let said = problem(variables);
            assert!(said.contains(culprit), "{variables:?}: {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn a_file_that_breaks_says_where_and_why_and_quotes_nothing() {
        for (text, why) in [
            ("[limits\nrecipients = 3", "line 1, column 8: "),
            ("[redis]\nurl = redis://:hunter2@r", "line 2, column 7: "),
            ("[redis]\nurl = \"redis://:hunter2@r\n", "line 2, column "),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            let said = Config::read(Some(file.path()), &HashMap::new()).unwrap_err().to_string();
            let (_, reason) = said.split_once(why).unwrap_or_else(|| panic!("{said}"));
            let (reason, name) = reason.rsplit_once(" in ").unwrap_or_else(|| panic!("{said}"));
            assert!(reason.contains("expected") || reason.contains("invalid"), "{said}");
            assert_eq!(Path::new(name).file_name(), file.path().file_name(), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }

    #[test]
    fn what_a_level_may_be_and_what_kubernetes_says_of_a_service_is_no_mistake() {
        for level in
            ["INFO", "warn", "off", "0", "info,hyper=debug", "[request{tool=a,b}]=debug,info"]
        {
            assert_eq!(read(&[("LOG_LEVEL", level)]).unwrap().log.level, level);
        }
        read(&[("MCP_MESSAGING_HTTP_PORT", "tcp://10.0.0.1:8123")]).unwrap();
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
        let config = read(&[
            ("REDIS_URL", "redis://user:hunter2@r:1"),
            ("MCP_MESSAGING__ENCRYPTION__KEYS", "a:hunter2"),
        ])
        .unwrap();
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
