//! From the configuration to the settings of each layer.

use std::{path::Path, sync::Arc, time::Duration};

use secrecy::{ExposeSecret, SecretString};

use super::StartError;
use crate::{
    config::{Config, ConfigError},
    http::{ForwardedHeader, HttpConfig},
    messaging::{Rules, SendLimits},
    model::{KeyRing, Network, Rate},
    queue::{
        self,
        redis::{Confirm, RedisSettings, Seal, Sealing},
    },
    telemetry::{self, LogFormat, TraceExport},
    tls::{self, CertificateFiles},
};

pub(super) fn logs(config: &Config) -> telemetry::Settings {
    telemetry::Settings {
        level: config.log.level.clone(),
        format: match config.log.format.as_str() {
            "json" => LogFormat::Json,
            "text" => LogFormat::Text,
            _ => LogFormat::Auto,
        },
        audit: config.log.audit,
        traces: config
            .traces
            .as_ref()
            .map(|traces| if traces.grpc { TraceExport::Grpc } else { TraceExport::Http }),
        service_named: config.traces.as_ref().is_some_and(|traces| traces.service_named),
        span_queue: config.traces.as_ref().map_or(0, |traces| traces.queue),
    }
}

pub(super) fn queue_limits(config: &Config) -> queue::Limits {
    queue::Limits {
        inbox_messages: config.limits.inbox_messages,
        inbox_bytes: config.limits.inbox_bytes,
        open_waits: config.limits.client_waits,
        ledger_entries: config.limits.ledger_entries,
        ledger_life: Duration::from_secs(config.messaging.ledger_seconds),
    }
}

/// The keys of a setting, or of the file that the setting beside it names. `mcp-messaging keys <made_by>` makes one.
pub(super) fn key_ring(
    [setting, file_setting]: [&'static str; 2],
    (keys, file): (&SecretString, &str),
    made_by: &str,
) -> Result<KeyRing, ConfigError> {
    let (key, text) = if file.is_empty() {
        (setting, keys.clone())
    } else {
        let read = std::fs::read_to_string(file).map(SecretString::from);
        let text = read.map_err(|error| ConfigError::Rule {
            key: file_setting,
            problem: format!("{file}: {error}"),
        })?;
        (file_setting, text)
    };
    text.expose_secret().parse().map_err(|problem| ConfigError::Rule {
        key,
        problem: format!(
            "{problem}; give the one that the servers have, or make the first one with `mcp-messaging keys {made_by}`"
        ),
    })
}

/// What becomes of texts on their way into Redis and out of it.
fn seal(config: &Config) -> Result<Seal, ConfigError> {
    let own = &config.encryption;
    if !config.encrypts() {
        return Ok(Seal::default());
    }
    let keys = key_ring(
        ["encryption.keys", "encryption.keys_file"],
        (&own.keys, &own.keys_file),
        "encryption",
    )?;
    Ok(Seal::new(
        &keys,
        match own.mode.as_str() {
            "open" => Sealing::Open,
            "require" => Sealing::Require,
            _ => Sealing::Seal,
        },
    ))
}

pub(super) fn redis(config: &Config) -> Result<RedisSettings, StartError> {
    let redis = &config.redis;
    let tls = config.redis_tls().then(|| {
        let authorities = (!redis.tls_ca_file.is_empty()).then(|| Path::new(&redis.tls_ca_file));
        let own = certificate_files(&redis.tls_certificate_file, &redis.tls_key_file);
        tls::client(authorities, own).map(Arc::new).map_err(|cause| StartError::Tls {
            keys: "redis.tls_ca_file, redis.tls_certificate_file and redis.tls_key_file",
            cause,
        })
    });
    Ok(RedisSettings {
        url: config.redis.url.clone(),
        seal: seal(config)?,
        tls: tls.transpose()?,
        connect_timeout: Duration::from_secs_f64(config.redis.connect_timeout_seconds),
        command_timeout: Duration::from_secs_f64(config.redis.command_timeout_seconds),
        retry_for: Duration::from_secs_f64(config.redis.retry_seconds),
        confirm: (config.redis.durability == "replicated").then(|| Confirm {
            replicas: config.redis.confirm_replicas,
            within: Duration::from_secs_f64(config.redis.confirm_timeout_seconds),
        }),
    })
}

/// The files, if they are named.
fn certificate_files(certificate: &str, key: &str) -> Option<CertificateFiles> {
    let files = CertificateFiles { certificate: certificate.into(), key: key.into() };
    (!certificate.is_empty()).then_some(files)
}

pub(super) fn rules(config: &Config) -> Rules {
    let (messaging, limits) = (&config.messaging, &config.limits);
    Rules {
        proved_callers: config.proves_callers(),
        message_bytes: limits.message_bytes,
        recipients: limits.recipients,
        ttl: Duration::from_secs(messaging.ttl_seconds),
        ttl_range: (
            Duration::from_secs(limits.min_ttl_seconds),
            Duration::from_secs(limits.max_ttl_seconds),
        ),
        max_wait: Duration::from_secs(limits.max_wait_seconds),
        default_wait: Duration::from_secs(messaging.default_wait_seconds),
        lease: Duration::from_secs(messaging.lease_seconds),
        manual_lease: Duration::from_secs(messaging.manual_lease_seconds),
        task_hold: Duration::from_secs(messaging.task_seconds),
        fetch_messages: limits.fetch_messages,
        fetch_bytes: limits.fetch_bytes,
        presence: Duration::from_secs(messaging.presence_seconds),
        listed_inboxes: limits.listed_inboxes,
    }
}

/// What may be sent.
pub(super) fn send_limits(config: &Config) -> SendLimits {
    const MINUTE: Duration = Duration::from_secs(60);
    let limits = &config.limits;
    let (tenant, at_once) = (limits.tenant_messages_per_minute, limits.tenant_messages_at_once);
    let pair = Rate::new(
        limits.pair_messages,
        Duration::from_secs(limits.pair_seconds),
        limits.pair_messages,
    );
    SendLimits {
        caller: Rate::new(
            limits.principal_messages_per_minute,
            MINUTE,
            limits.principal_messages_at_once,
        ),
        tenant: Rate::new(tenant, MINUTE, if at_once == 0 { tenant } else { at_once }),
        pair: pair.map(|rate| (rate, Duration::from_secs(limits.pair_pause_seconds))),
    }
}

/// Networks, as the setting `key` lists them.
pub(super) fn networks(key: &'static str, listed: &[String]) -> Result<Vec<Network>, ConfigError> {
    let networks = listed.iter().map(|text| {
        let problem = |problem| ConfigError::Rule { key, problem: format!("{text:?} {problem}") };
        text.parse::<Network>().map_err(problem)
    });
    networks.collect()
}

pub(super) fn http(config: &Config) -> Result<HttpConfig, StartError> {
    let files = certificate_files(&config.http.tls_certificate_file, &config.http.tls_key_file);
    let tls = files.map(tls::server).transpose().map_err(|cause| StartError::Tls {
        keys: "http.tls_certificate_file and http.tls_key_file",
        cause,
    })?;
    let mut own = HttpConfig {
        body_limit: config.http.body_bytes,
        keep_alive: Duration::from_secs(config.http.keep_alive_seconds),
        client_request_timeout: Duration::from_secs(config.http.request_timeout_seconds),
        workers: match config.http.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        },
        tls: tls.map(Arc::new),
        ..HttpConfig::default()
    };
    own.trusted_proxies = networks("http.trusted_proxies", &config.http.trusted_proxies)?;
    own.forwarded_header = match config.http.forwarded_header.as_str() {
        "forwarded" => ForwardedHeader::Forwarded,
        _ => ForwardedHeader::XForwardedFor,
    };
    let failures = config.auth.failures_per_minute;
    own.failures = Rate::new(failures, Duration::from_secs(60), failures.div_ceil(10));
    own.memory_limit = config.http.memory_bytes;
    own.stalled_limit = config.http.stalled_responses;
    own.max_connections = config.http.max_connections.div_ceil(own.workers);
    own.allowed_hosts.extend(config.http.allowed_hosts.iter().cloned());
    own.allowed_origins.extend(config.http.allowed_origins.iter().cloned());
    Ok(own)
}
