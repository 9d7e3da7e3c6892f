//! What must hold of the values, by themselves and beside each other.

use secrecy::{ExposeSecret, SecretString};

use super::{Backend, Config, ConfigError};

/// What must hold, the key that it is about, and what to say if it does not.
type Rule = (bool, &'static str, &'static str);

/// Which protocol a URL names: the scheme without the kind of deployment.
fn protocol(url: &str) -> String {
    let mut scheme = url.split_once("://").map_or("", |(scheme, _)| scheme).to_ascii_lowercase();
    for kind in ["-cluster", "-sentinel"] {
        scheme.truncate(scheme.strip_suffix(kind).unwrap_or(&scheme).len());
    }
    scheme
}

/// Whether a URL is one of a Redis; its client would take any.
fn names_redis(url: &str) -> bool {
    ["redis", "rediss", "valkey", "valkeys"].contains(&protocol(url).as_str())
}

/// Whether a URL of Redis asks for TLS.
pub(super) fn names_tls(url: &str) -> bool {
    ["rediss", "valkeys"].contains(&protocol(url).as_str())
}

/// Whether a filter of logs names levels. To the filter a word that is none is a module, of which it then shows all, and
/// nothing of others.
fn names_levels(filter: &str) -> bool {
    let level = |word: &str| {
        let word = word.trim().to_ascii_lowercase();
        ["off", "error", "warn", "info", "debug", "trace", "0", "1", "2", "3", "4", "5"]
            .contains(&&*word)
    };
    let of_spans = |part: &str| part.contains(['[', ']', '{', '}']);
    filter.split(',').all(|part| {
        part.is_empty() || of_spans(part) || level(part.rsplit('=').next().unwrap_or(part))
    })
}

/// Whether keys are given, by a setting or by the file that another one names.
pub(super) fn given(keys: &SecretString, file: &str) -> bool {
    !keys.expose_secret().is_empty() || !file.is_empty()
}

impl Config {
    fn has_master_keys(&self) -> bool {
        given(&self.auth.master_keys, &self.auth.master_keys_file)
    }

    /// How texts lie in Redis.
    fn rules_of_encryption(&self) -> [Rule; 4] {
        let own = &self.encryption;
        [
            (
                ["", "open", "seal", "require"].contains(&own.mode.as_str()),
                "encryption.mode",
                "must be open, seal or require",
            ),
            (
                own.mode.is_empty() || self.encrypts(),
                "encryption.keys",
                "or encryption.keys_file must be set when encryption.mode is; `mcp-messaging keys encryption` makes one",
            ),
            (
                own.keys.expose_secret().is_empty() || own.keys_file.is_empty(),
                "encryption.keys",
                "and encryption.keys_file are both set: leave one of them out",
            ),
            (
                !self.encrypts() || self.backend() == Backend::Redis,
                "encryption.keys",
                "are set, but redis.url (REDIS_URL) is not: what is kept in memory is not encrypted",
            ),
        ]
    }

    /// What each value must be by itself.
    fn rules_of_values(&self) -> [Rule; 17] {
        let (l, h, r) = (&self.limits, &self.http, &self.redis);
        let url = r.url.expose_secret();
        let one_of = |value: &str, words: &[&str]| words.contains(&value);
        let seconds = |value: f64| value.is_finite() && value > 0.0 && value <= 3600.0;
        [
            (
                one_of(&self.queue.backend, &["", "memory", "redis"]),
                "queue.backend",
                "must be memory or redis",
            ),
            (
                self.queue.backend != "redis" || !url.is_empty(),
                "redis.url",
                "(REDIS_URL) must be set when queue.backend is redis",
            ),
            (
                url.is_empty() || names_redis(url),
                "redis.url",
                "(REDIS_URL) must begin with redis://, rediss://, redis-cluster:// or redis-sentinel://",
            ),
            (
                self.queue.backend != "memory" || url.is_empty(),
                "queue.backend",
                "is memory, but redis.url (REDIS_URL) is set: leave one of them out",
            ),
            (
                one_of(&self.log.format, &["auto", "text", "json"]),
                "log.format",
                "must be auto, text or json",
            ),
            (
                names_levels(&self.log.level),
                "log.level",
                "(LOG_LEVEL) must be error, warn, info, debug, trace or off, or name modules with one of these, such as info,mcp_messaging=debug",
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
            (self.ops.sample_seconds <= 3600, "ops.sample_seconds", "must be at most 3600"),
            (h.max_connections > 0, "http.max_connections", "must be positive"),
            (
                h.memory_bytes >= h.body_bytes,
                "http.memory_bytes",
                "must be at least http.body_bytes, or no such body could be taken",
            ),
            (h.stalled_responses > 0, "http.stalled_responses", "must be positive"),
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

    /// Whether callers prove who they are.
    #[must_use]
    pub fn proves_callers(&self) -> bool {
        ["key", "oauth", "proxy"].contains(&self.auth.mode.as_str())
    }

    /// What must hold of who may call.
    fn rules_of_callers(&self) -> [Rule; 6] {
        let mode = self.auth.mode.as_str();
        [
            (
                ["", "none", "key", "oauth", "proxy"].contains(&mode),
                "auth.mode",
                "must be none, key, oauth or proxy",
            ),
            (
                mode != "key" || self.has_master_keys(),
                "auth.master_keys",
                "or auth.master_keys_file must be set when auth.mode is key; `mcp-messaging keys master` makes one",
            ),
            (
                self.auth.master_keys.expose_secret().is_empty()
                    || self.auth.master_keys_file.is_empty(),
                "auth.master_keys",
                "and auth.master_keys_file are both set: leave one of them out",
            ),
            (
                mode == "key" || !self.has_master_keys(),
                "auth.mode",
                "must be key when auth.master_keys or auth.master_keys_file is set",
            ),
            (
                (10..=86_400).contains(&self.auth.stale_seconds),
                "auth.stale_seconds",
                "must be between 10 and 86400",
            ),
            (
                !self.log.audit || self.proves_callers(),
                "log.audit",
                "needs auth.mode = \"key\", \"oauth\" or \"proxy\": where nothing is proved a client id is a secret and must not be logged",
            ),
        ]
    }

    /// What must hold of the authorization server. Its URLs are read where they are used.
    fn rules_of_oauth(&self) -> [Rule; 7] {
        let (o, oauth) = (&self.oauth, self.auth.mode == "oauth");
        [
            (!oauth || !o.issuer.is_empty(), "oauth.issuer", "must be set when auth.mode is oauth"),
            (
                !oauth || !o.resource.is_empty(),
                "oauth.resource",
                "must be set when auth.mode is oauth: the public URL of /mcp",
            ),
            (
                oauth
                    || [&o.issuer, &o.resource, &o.audience, &o.jwks_url]
                        .iter()
                        .all(|value| value.is_empty()),
                "auth.mode",
                "must be oauth when oauth.issuer, oauth.resource, oauth.audience or oauth.jwks_url is set",
            ),
            (!o.algorithms.is_empty(), "oauth.algorithms", "must not be empty"),
            (!o.client_claim.is_empty(), "oauth.client_claim", "must not be empty"),
            (
                o.tenant_claim.is_empty() || o.tenant_claim != o.client_claim,
                "oauth.tenant_claim",
                "must be another claim than oauth.client_claim",
            ),
            (o.leeway_seconds <= 300, "oauth.leeway_seconds", "must be at most 300"),
        ]
    }

    /// What must hold of who is believed to name callers. Networks and names are read where they are used.
    fn rules_of_proxy(&self) -> [Rule; 3] {
        let (p, mode) = (&self.proxy, self.auth.mode == "proxy");
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let taken =
            ["authorization", "forwarded", "x-forwarded-for", "host", "cookie", "mcp-session-id"];
        let header = p.header.to_ascii_lowercase();
        [
            (
                !mode || !p.trusted.is_empty(),
                "proxy.trusted",
                "must name the proxies when auth.mode is proxy: from nobody else is the name of a client believed",
            ),
            (
                mode || (p.trusted.is_empty() && p.admins.is_empty() && !p.trust_anybody),
                "auth.mode",
                "must be proxy when proxy.trusted, proxy.admins or proxy.trust_anybody is set",
            ),
            (
                !header.is_empty() && header.bytes().all(word) && !taken.contains(&&*header),
                "proxy.header",
                "must be the name of a header that nobody else sets: letters, digits and dashes, such as x-client-name",
            ),
        ]
    }

    /// What must be said of certificates.
    fn rules_of_tls(&self) -> [Rule; 4] {
        let (h, r) = (&self.http, &self.redis);
        let url = r.url.expose_secret();
        [
            (
                h.tls_certificate_file.is_empty() == h.tls_key_file.is_empty(),
                "http.tls_certificate_file",
                "and http.tls_key_file must be set together",
            ),
            (
                h.tls_certificate_file.is_empty() || !self.ops.listen.is_empty(),
                "http.tls_certificate_file",
                "needs ops.listen: probes and metrics are served without TLS, on an address of their own",
            ),
            (
                r.tls_certificate_file.is_empty() == r.tls_key_file.is_empty(),
                "redis.tls_certificate_file",
                "and redis.tls_key_file must be set together",
            ),
            (
                (r.tls_ca_file.is_empty() && r.tls_certificate_file.is_empty()) || names_tls(url),
                "redis.tls_ca_file",
                "and redis.tls_certificate_file need a redis.url (REDIS_URL) that begins with rediss://, rediss-cluster:// or rediss-sentinel://",
            ),
        ]
    }

    /// When a send counts as accepted.
    fn rules_of_durability(&self) -> [Rule; 4] {
        let r = &self.redis;
        let url = r.url.expose_secret();
        [
            (
                ["asynchronous", "replicated"].contains(&r.durability.as_str()),
                "redis.durability",
                "must be asynchronous or replicated",
            ),
            (
                r.durability != "replicated" || !url.is_empty(),
                "redis.durability",
                "is replicated, but redis.url (REDIS_URL) is not set: memory has no replicas",
            ),
            (
                (1..=100).contains(&r.confirm_replicas),
                "redis.confirm_replicas",
                "must be between 1 and 100",
            ),
            (
                (0.001..=60.0).contains(&r.confirm_timeout_seconds),
                "redis.confirm_timeout_seconds",
                "must be between 0.001 and 60",
            ),
        ]
    }

    /// What must hold of limits on how much and how often.
    fn rules_of_rates(&self) -> [Rule; 5] {
        let l = &self.limits;
        let (highest, most) = (60_000_000, u32::try_from(l.recipients).unwrap_or(u32::MAX));
        let (tenant, at_once) = (l.tenant_messages_per_minute, l.tenant_messages_at_once);
        [
            (
                l.principal_messages_per_minute == 0
                    || (most..=highest).contains(&l.principal_messages_at_once),
                "limits.principal_messages_at_once",
                "must be between limits.recipients and 60000000, or a send to so many could never pass",
            ),
            (
                tenant == 0
                    || (most..=highest).contains(&if at_once == 0 { tenant } else { at_once }),
                "limits.tenant_messages_at_once",
                "(or limits.tenant_messages_per_minute, if that is 0) must be between limits.recipients and 60000000",
            ),
            (
                l.principal_messages_per_minute <= highest
                    && tenant <= highest
                    && self.auth.failures_per_minute <= highest,
                "limits.principal_messages_per_minute",
                "limits.tenant_messages_per_minute and auth.failures_per_minute must be at most 60000000",
            ),
            (
                (1..=86_400).contains(&l.pair_seconds)
                    && (1..=86_400).contains(&l.pair_pause_seconds)
                    && l.pair_messages <= 1_000_000,
                "limits.pair_pause_seconds",
                "and limits.pair_seconds must be between 1 and 86400, and limits.pair_messages at most 1000000",
            ),
            (
                ["x-forwarded-for", "forwarded"].contains(&self.http.forwarded_header.as_str()),
                "http.forwarded_header",
                "must be x-forwarded-for or forwarded",
            ),
        ]
    }

    /// What times and sizes must be beside each other.
    fn rules_of_limits(&self) -> [Rule; 13] {
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
            (
                m.task_seconds <= l.max_ttl_seconds,
                "messaging.task_seconds",
                "must not be longer than limits.max_ttl_seconds",
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
                    && l.replica_waiters > 0
                    && l.replica_calls > 0,
                "limits",
                "of recipients, inbox_messages, client_waits, replica_waiters and replica_calls must be positive",
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

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for (holds, key, problem) in self
            .rules_of_values()
            .into_iter()
            .chain(self.rules_of_callers())
            .chain(self.rules_of_oauth())
            .chain(self.rules_of_proxy())
            .chain(self.rules_of_tls())
            .chain(self.rules_of_durability())
            .chain(self.rules_of_encryption())
            .chain(self.rules_of_limits())
            .chain(self.rules_of_rates())
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
                     MCP_MESSAGING__AUTH__MODE=key asks for keys, oauth for tokens, none serves everybody without authentication",
                    self.http.host
                ),
            });
        }
        Ok(())
    }
}
