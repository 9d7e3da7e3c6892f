//! The connection to Redis: everything that is particular to the client library.
//!
//! What it works around, each found by a test or a measurement: commands in flight must not be sent
//! again by the client (it does not know which ones are safe), `FCALL` must be pipelined (so it goes
//! as a custom command), a connection that swallows bytes is noticed only by an own PING, a redirection
//! of a cluster must not be followed by the client, and some errors end its task for good.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fred::{
    clients::Client,
    error::{Error, ErrorKind},
    interfaces::{ClientLike, EventInterface, FunctionInterface},
    types::{
        Builder, ClusterHash, CustomCommand, InfoKind, RespVersion, Value,
        config::{Config, ReconnectError, ReconnectPolicy, TlsConnector, UnresponsiveConfig},
    },
};
use tokio::{sync::broadcast::error::RecvError, time::Instant};
use tokio_rustls::rustls::ClientConfig;
use tokio_util::task::TaskTracker;

use super::{
    functions::{self, Operation},
    reply::{self, Failure},
};
use crate::{
    queue::{QueueError, Unready},
    telemetry::{Metrics, Readiness, RedisError},
};

/// How to reach Redis.
#[derive(Clone)]
pub struct RedisSettings {
    /// `redis://`, `rediss://`, `redis-cluster://`, `redis-sentinel://`, with user, password, database.
    pub url: String,
    /// How the URLs of TLS (`rediss://`) are spoken to; without it as the client library thinks best.
    pub tls: Option<Arc<ClientConfig>>,
    /// One attempt to connect.
    pub connect_timeout: Duration,
    /// One attempt of a command.
    pub command_timeout: Duration,
    /// Attempts of an operation end after this.
    pub retry_for: Duration,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379".to_owned(),
            tls: None,
            connect_timeout: Duration::from_secs(2),
            command_timeout: Duration::from_secs(2),
            retry_for: Duration::from_secs(3),
        }
    }
}

impl std::fmt::Debug for RedisSettings {
    /// Without the URL: it may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisSettings")
            .field("connect_timeout", &self.connect_timeout)
            .field("command_timeout", &self.command_timeout)
            .field("retry_for", &self.retry_for)
            .finish_non_exhaustive()
    }
}

impl RedisSettings {
    /// Checks what can be checked without a connection.
    ///
    /// # Errors
    /// The URL is none of Redis.
    pub fn check(&self) -> Result<(), QueueError> {
        self.config().map(|_config| ())
    }

    fn config(&self) -> Result<Config, QueueError> {
        let mut config = Config::from_url(&self.url).map_err(|error| QueueError::Unavailable {
            detail: format!("redis.url (REDIS_URL) is not usable: {}", error.details()),
        })?;
        config.version = RespVersion::RESP3;
        config.fail_fast = false;
        if let (Some(_), Some(tls)) = (&config.tls, &self.tls) {
            config.tls = Some(TlsConnector::Rustls(Arc::clone(tls).into()).into());
        }
        Ok(config)
    }

    /// Whether keys live on many nodes.
    pub(super) fn clustered(&self) -> Result<bool, QueueError> {
        Ok(self.config()?.server.is_clustered())
    }
}

/// One connection, usable by many tasks at once.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) client: Client,
    scripts: Arc<AtomicBool>,
    /// Attempts of an operation end after this.
    pub(super) retry_for: Duration,
    metrics: Arc<Metrics>,
    /// Why the connection failed last.
    trouble: Arc<Mutex<Option<RedisError>>>,
}

/// How often the connection is asked whether it is alive, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(1);
const PING_WITHIN: Duration = Duration::from_millis(1500);
/// A client that gave up is left alone for so long.
const CONNECT_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How often a failing connection is reported.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// What an operator is told, and readiness is told by.
const MAY_NOT_LOAD: &str =
    "the Redis user may not load functions: run `mcp-messaging migrate` with one that may";
const EVICTS: &str = "Redis evicts messages when memory is short";

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while the lock is held leaves the state whole: every change is one assignment.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// Connects in the background, for ever. `scripts` is shared by the links of a process: the
    /// server has no functions.
    pub(super) fn open(
        settings: &RedisSettings,
        scripts: Arc<AtomicBool>,
        metrics: Arc<Metrics>,
        tasks: &TaskTracker,
    ) -> Result<Self, QueueError> {
        let client = Builder::from_config(settings.config()?)
            .with_connection_config(|connection| {
                connection.connection_timeout = settings.connect_timeout;
                connection.internal_command_timeout = settings.command_timeout;
                connection.max_command_attempts = 1; // ours to repeat: see `call`
                // Ours as well. To follow an ASK the client reads the next answer on the other connection,
                // whosever it is, or, without attempts left, ends. A MOVED still renews its map of the slots.
                connection.max_redirections = 0;
                connection.max_command_buffer_len = 10_000;
                connection.unresponsive = UnresponsiveConfig {
                    max_timeout: Some(Duration::from_secs(3)),
                    interval: Duration::from_millis(500),
                };
                connection.reconnect_errors = vec![
                    ReconnectError::ClusterDown,
                    ReconnectError::Loading,
                    ReconnectError::ReadOnly,
                    ReconnectError::MasterDown,
                ];
            })
            .with_performance_config(|performance| {
                performance.default_command_timeout = settings.command_timeout;
                performance.broadcast_channel_capacity = 8192;
            })
            .set_policy(ReconnectPolicy::new_exponential(0, 50, 1000, 2))
            .build()
            .map_err(|error| QueueError::Unavailable { detail: error.to_string() })?;
        tasks.spawn(stay_connected(client.clone()));
        let trouble = Arc::default();
        let link = Self { client, scripts, retry_for: settings.retry_for, metrics, trouble };
        tasks.spawn(watchdog(link.client.clone()));
        tasks.spawn(report(
            link.client.clone(),
            Arc::clone(&link.metrics),
            Arc::clone(&link.trouble),
        ));
        Ok(link)
    }

    /// Calls a function on keys of one slot.
    pub(super) async fn call(
        &self,
        operation: Operation,
        slot: u16,
        keys: Vec<Value>,
        args: Vec<Value>,
    ) -> Result<Value, QueueError> {
        self.call_again(operation, slot, keys, args, |_args| {}).await
    }

    /// [`call`](Self::call), with a word to the arguments before a repetition of what may have happened.
    pub(super) async fn call_again(
        &self,
        operation: Operation,
        slot: u16,
        keys: Vec<Value>,
        args: Vec<Value>,
        mut repeat: impl FnMut(&mut [Value]),
    ) -> Result<Value, QueueError> {
        let started = Instant::now();
        let names = keys.len();
        let mut rest = Vec::with_capacity(names + args.len() + 2);
        rest.push(Value::Null); // the function or the script
        rest.push(Value::Integer(i64::try_from(names).unwrap_or_default()));
        rest.extend(keys);
        rest.extend(args);
        let (mut loaded, mut delay) = (false, Duration::from_millis(20));
        let result = loop {
            let error = match self.once(operation, slot, &mut rest).await {
                Ok(value) => break Ok(value),
                Err(error) => error,
            };
            if let Some(kind) = reply::kind(&error) {
                self.metrics.redis_error(operation.name(), kind);
            }
            let (error, missing) = match reply::sort(&error) {
                Failure::FunctionMissing => {
                    (QueueError::Unavailable { detail: error.to_string() }, true)
                }
                Failure::NoFunctions if !self.scripts.swap(true, Ordering::Relaxed) => continue,
                Failure::NoFunctions => {
                    break Err(QueueError::Unavailable { detail: error.to_string() });
                }
                Failure::Final(error) => break Err(error),
                Failure::Passing(error) => (error, false),
            };
            // What Redis has lost is loaded at once, and what it loses again in a while.
            if !missing || std::mem::replace(&mut loaded, true) {
                if started.elapsed() + delay > self.retry_for {
                    break Err(error);
                }
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(Duration::from_millis(500));
            }
            self.metrics.redis_retry();
            if !missing {
                repeat(&mut rest[2 + names..]);
            } else if let Err(error) = self.load().await {
                break Err(error);
            }
        };
        self.metrics.redis_call(operation.name(), started.elapsed());
        result
    }

    async fn once(
        &self,
        operation: Operation,
        slot: u16,
        rest: &mut [Value],
    ) -> Result<Value, Error> {
        let command = |name| CustomCommand::new_static(name, ClusterHash::Custom(slot), false);
        if !self.scripts.load(Ordering::Relaxed) {
            rest[0] = Value::from_static_str(operation.name());
            return self.client.custom(command("FCALL"), rest.to_vec()).await;
        }
        let script = functions::script(operation);
        rest[0] = Value::from_static_str(&script.sha);
        let first: Result<Value, Error> =
            self.client.custom(command("EVALSHA"), rest.to_vec()).await;
        match first {
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                rest[0] = Value::from_static_str(&script.source);
                self.client.custom(command("EVAL"), rest.to_vec()).await
            }
            other => other,
        }
    }

    /// Brings the library to our revision or leaves a newer one. Safe to call from many replicas.
    pub(super) async fn ensure(&self) -> Result<(), QueueError> {
        let revision = self.revision().await?;
        if revision >= functions::REVISION {
            self.metrics.function_revision(revision);
            return Ok(());
        }
        self.load().await?;
        self.metrics.function_revision(functions::REVISION);
        Ok(())
    }

    /// Whether Redis can be relied on now.
    pub(super) async fn ready(&self) -> Result<(), Unready> {
        let unready = |reason, cause| Unready { reason, cause };
        if !self.client.is_connected() {
            let reason = match *lock(&self.trouble) {
                Some(RedisError::Denied) => Readiness::Denied,
                Some(_) | None => Readiness::Disconnected,
            };
            let cause = QueueError::Unavailable { detail: "not connected".to_owned() };
            return Err(unready(reason, cause));
        }
        if let Err(cause) = self.ensure().await {
            let reason = match &cause {
                QueueError::Timeout => Readiness::Timeout,
                QueueError::Unavailable { detail } if detail == MAY_NOT_LOAD => {
                    Readiness::FunctionsMissing
                }
                QueueError::Unavailable { detail } if detail.contains("NOPERM") => {
                    Readiness::Denied
                }
                _ if !self.client.is_connected() => Readiness::Disconnected,
                QueueError::Unavailable { .. }
                | QueueError::Contract { .. }
                | QueueError::InboxFull { .. }
                | QueueError::TooManyWaits { .. }
                | QueueError::IdempotencyConflict { .. } => Readiness::StoreFailed,
            };
            return Err(unready(reason, cause));
        }
        self.keeps_data().await.map_err(|cause| match &cause {
            QueueError::Unavailable { detail } if detail.starts_with(EVICTS) => {
                unready(Readiness::Evicts, cause)
            }
            _ => unready(Readiness::StoreFailed, cause),
        })
    }

    /// The revision that is loaded (loading ours if there is none).
    async fn revision(&self) -> Result<i64, QueueError> {
        let value = self.call(Operation::Revision, 0, Vec::new(), Vec::new()).await?;
        reply::integer(&value)
    }

    async fn load(&self) -> Result<(), QueueError> {
        if self.scripts.load(Ordering::Relaxed) {
            return Ok(());
        }
        let loaded: Result<Value, Error> =
            self.client.function_load_cluster(true, functions::library()).await;
        match loaded {
            Ok(_) => Ok(()),
            Err(error) if error.details().starts_with("NOPERM") => {
                Err(QueueError::Unavailable { detail: MAY_NOT_LOAD.to_owned() })
            }
            Err(error) => match reply::sort(&error) {
                Failure::NoFunctions => {
                    self.scripts.store(true, Ordering::Relaxed);
                    Ok(())
                }
                Failure::Final(error) | Failure::Passing(error) => Err(error),
                Failure::FunctionMissing => {
                    Err(QueueError::Unavailable { detail: error.to_string() })
                }
            },
        }
    }

    /// Whether this Redis keeps what it is given. A server that does not let us ask is believed.
    pub(super) async fn keeps_data(&self) -> Result<(), QueueError> {
        let info: String = match self.client.info(Some(InfoKind::Memory)).await {
            Ok(info) => info,
            Err(error) if error.details().starts_with("NOPERM") => return Ok(()),
            Err(error) => return Err(QueueError::Unavailable { detail: error.to_string() }),
        };
        match field(&info, "maxmemory_policy") {
            Some(policy) if policy != "noeviction" => Err(QueueError::Unavailable {
                detail: format!("{EVICTS} (maxmemory-policy {policy}): set it to noeviction"),
            }),
            _ => Ok(()),
        }
    }

    /// Whether this Redis writes to disk, as far as it says.
    pub(super) async fn persists(&self) -> Option<bool> {
        let info: String = self.client.info(Some(InfoKind::Persistence)).await.ok()?;
        field(&info, "aof_enabled").map(|enabled| enabled == "1")
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Connects, and again when the client gives up: some errors end its task whatever its policy says.
/// Ends with its client.
async fn stay_connected(client: Client) {
    loop {
        let ended = client.connect().await;
        if client.state() == fred::types::ClientState::Disconnecting {
            return;
        }
        tracing::warn!(cause = ?ended, "the client of Redis gave up: connecting anew");
        tokio::time::sleep(CONNECT_AGAIN_AFTER).await;
    }
}

/// Replaces the connections of a client.
pub(super) async fn reconnect(client: &Client) {
    // A client whose task has ended never answers this. An error means that it is reconnecting already.
    let _ = tokio::time::timeout(PING_WITHIN, client.force_reconnection()).await;
}

/// Notes why connecting fails (a wrong password, say), and says it at most so often. Ends with its client.
async fn report(client: Client, metrics: Arc<Metrics>, trouble: Arc<Mutex<Option<RedisError>>>) {
    let mut errors = client.error_rx();
    let mut last: Option<Instant> = None;
    loop {
        match errors.recv().await {
            Ok((error, _server)) => {
                let kind = reply::kind(&error).unwrap_or(RedisError::Other);
                metrics.redis_error("connect", kind);
                *lock(&trouble) = Some(kind);
                if last.is_none_or(|at| at.elapsed() > REPORT_EVERY) {
                    last = Some(Instant::now());
                    tracing::warn!(error = %error, "the connection to Redis failed; trying again");
                }
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// Replaces a connection that no longer answers. Ends with its client.
async fn watchdog(client: Client) {
    let mut every = tokio::time::interval(PING_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        if client.state() == fred::types::ClientState::Disconnecting {
            return;
        }
        if !client.is_connected() {
            continue;
        }
        let answer: Result<Result<(), Error>, _> =
            tokio::time::timeout(PING_WITHIN, client.ping(None)).await;
        match answer {
            Ok(Ok(())) => {}
            Ok(Err(error)) if *error.kind() != ErrorKind::Timeout => {}
            Ok(Err(_)) | Err(_) => {
                tracing::warn!("Redis does not answer: reconnecting");
                reconnect(&client).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_info_is_found() {
        let info = "# Memory\r\nmaxmemory:0\r\nmaxmemory_policy:volatile-lru\r\n";
        assert_eq!(field(info, "maxmemory_policy"), Some("volatile-lru"));
        assert_eq!(field(info, "maxmemory"), Some("0"));
        assert_eq!(field(info, "aof_enabled"), None);
    }

    #[test]
    fn settings_do_not_show_a_password() {
        let settings =
            RedisSettings { url: "redis://:hunter2@h:1".to_owned(), ..RedisSettings::default() };
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
