//! The connection to Redis: everything that is particular to the client library.
//!
//! What it works around, each found by a test or a measurement: commands in flight must not be sent
//! again by the client (it does not know which ones are safe), `FCALL` must be pipelined (so it goes
//! as a custom command), a connection that swallows bytes is noticed only by an own PING, a redirection
//! of a cluster must not be followed by the client, and some errors end its task for good.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fred::{
    clients::Client,
    error::{Error, ErrorKind},
    interfaces::{ClientLike, EventInterface},
    types::{
        Builder, ClusterHash, CustomCommand, InfoKind, RespVersion, Value,
        config::{Config, ReconnectError, ReconnectPolicy, TlsConnector, UnresponsiveConfig},
    },
};
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use tokio::{sync::broadcast::error::RecvError, time::Instant};
use tokio_rustls::rustls::ClientConfig;
use tokio_util::task::TaskTracker;

use super::{
    confirm::Confirming,
    functions::{self, Operation},
    library::MAY_NOT_LOAD,
    packed::Packed,
    reply::{self, Failure},
    seal::Seal,
    together::{Together, Vehicle},
};
use crate::{
    queue::{QueueError, Unready},
    telemetry::{Metrics, Readiness, RedisError},
};

/// How to reach Redis.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// `redis://`, `rediss://`, `redis-cluster://`, `redis-sentinel://`, with user, password, database.
    pub url: SecretString,
    /// How the URLs of TLS (`rediss://`) are spoken to; without it as the client library thinks best.
    pub tls: Option<Arc<ClientConfig>>,
    /// How texts are sealed and opened.
    pub seal: Seal,
    /// One attempt to connect.
    pub connect_timeout: Duration,
    /// One attempt of a command.
    pub command_timeout: Duration,
    /// Attempts of an operation end after this.
    pub retry_for: Duration,
    /// What a send needs beside the word of the primary; `None`: nothing.
    pub confirm: Option<Confirm>,
}

/// A send is confirmed when replicas of Redis have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirm {
    /// So many of them; at least 1.
    pub replicas: u32,
    /// Within this time.
    pub within: Duration,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379".into(),
            tls: None,
            seal: Seal::default(),
            connect_timeout: Duration::from_secs(2),
            command_timeout: Duration::from_secs(2),
            retry_for: Duration::from_secs(3),
            confirm: None,
        }
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
        let config = Config::from_url(self.url.expose_secret());
        let mut config = config.map_err(|error| QueueError::Unavailable {
            // What follows a colon is a part of the URL.
            detail: format!(
                "redis.url (REDIS_URL) is not usable: {}",
                error.details().split(": ").next().unwrap_or_default()
            ),
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
    /// The server has no functions.
    pub(super) scripts: Arc<AtomicBool>,
    /// Attempts of an operation end after this.
    pub(super) retry_for: Duration,
    /// One attempt.
    pub(super) command_timeout: Duration,
    pub(super) metrics: Arc<Metrics>,
    /// How calls share a way, where one server has all keys.
    together: Option<Together>,
    /// Why the connection failed last.
    trouble: Arc<Mutex<Option<RedisError>>>,
}

/// An operation on keys of one slot, as it goes over the wire.
pub(super) struct Call {
    operation: Operation,
    pub(super) slot: u16,
    /// The function or script, how many keys, the keys, the arguments.
    words: Vec<Value>,
    keys: usize,
    repeated: Option<u8>,
}

/// The attempts of one call so far.
pub(super) struct Attempts {
    started: Instant,
    loaded: bool,
    delay: Duration,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { started: Instant::now(), loaded: false, delay: Duration::from_millis(20) }
    }
}

impl Call {
    pub(super) fn new(operation: Operation, slot: u16, keys: Vec<Value>, args: Vec<Value>) -> Self {
        let names = keys.len();
        let mut words = Vec::with_capacity(names + args.len() + 2);
        words.push(Value::Null); // the function or the script
        words.push(Value::Integer(i64::try_from(names).unwrap_or_default()));
        words.extend(keys);
        words.extend(args);
        Self { operation, slot, words, keys: names, repeated: None }
    }

    /// Adds an option to its packed argument when it is repeated although it may have happened.
    pub(super) fn repeated_with(self, option: u8) -> Self {
        Self { repeated: Some(option), ..self }
    }

    fn may_have_happened(&mut self) {
        if let (Some(option), Some(packed)) = (self.repeated, self.words.get_mut(2 + self.keys)) {
            Packed::add_option(packed, option);
        }
    }

    /// As the call of a function, or of a script that the server may know.
    pub(super) fn named(&mut self, function: bool) -> (CustomCommand, Vec<Value>) {
        let (command, name) = if function {
            ("FCALL", self.operation.name())
        } else {
            ("EVALSHA", functions::script(self.operation).sha.as_str())
        };
        self.words[0] = Value::from_static_str(name);
        (self.command(command), self.words.clone())
    }

    /// As a script that the server need not know.
    pub(super) fn in_full(&mut self) -> (CustomCommand, Vec<Value>) {
        self.words[0] = Value::from_static_str(&functions::script(self.operation).source);
        (self.command("EVAL"), self.words.clone())
    }

    fn command(&self, name: &'static str) -> CustomCommand {
        CustomCommand::new_static(name, ClusterHash::Custom(self.slot), false)
    }
}

/// How often the connection is asked whether it is alive, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(1);
const PING_WITHIN: Duration = Duration::from_millis(1500);
/// A connection that owes an answer for so long is replaced.
const SILENT_FOR: Duration = Duration::from_secs(3);
/// A client that gave up is left alone for so long.
const CONNECT_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How often a failing connection is reported.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// What an operator is told, and readiness is told by.
const EVICTS: &str = "Redis evicts messages when memory is short";

impl Link {
    /// Connects in the background, for ever. What is asked here may hold the connection up for
    /// `held_up`. `scripts` is shared by the links of a process: the server has no functions.
    pub(super) fn open(
        settings: &RedisSettings,
        held_up: Duration,
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
                    max_timeout: Some(SILENT_FOR + held_up),
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
                performance.default_command_timeout = settings.command_timeout + held_up;
                performance.broadcast_channel_capacity = 8192;
            })
            .set_policy(ReconnectPolicy::new_exponential(0, 50, 1000, 2))
            .build()
            .map_err(|error| QueueError::Unavailable { detail: error.to_string() })?;
        tasks.spawn(stay_connected(client.clone()));
        let (retry_for, command_timeout) = (settings.retry_for, settings.command_timeout);
        let trouble = Arc::default();
        let together = None;
        let link = Self { client, scripts, retry_for, command_timeout, metrics, together, trouble };
        tasks.spawn(watchdog(link.client.clone(), PING_WITHIN + held_up));
        tasks.spawn(report(
            link.client.clone(),
            Arc::clone(&link.metrics),
            Arc::clone(&link.trouble),
        ));
        Ok(link)
    }

    /// The same, whose calls share a way when they are ready at the same moment.
    pub(super) fn together(mut self, tasks: &TaskTracker) -> Self {
        self.together = Some(Together::new(self.client.clone(), tasks));
        self
    }

    /// Calls a function on keys of one slot.
    pub(super) async fn call(
        &self,
        operation: Operation,
        slot: u16,
        keys: Vec<Value>,
        args: Vec<Value>,
    ) -> Result<Value, QueueError> {
        self.make(Call::new(operation, slot, keys, args)).await
    }

    /// [`call`](Self::call) of what is prepared.
    pub(super) async fn make(&self, mut call: Call) -> Result<Value, QueueError> {
        let mut attempts = Attempts::default();
        let result = loop {
            match self.once(&mut call).await {
                Ok(value) => break Ok(value),
                // What is rare is boxed: every call carries the room of what it may wait for.
                Err(error) => {
                    let failed = self.failed(&mut attempts, &mut call, &error);
                    if let Err(error) = Box::pin(failed).await {
                        break Err(error);
                    }
                }
            }
        };
        self.made(&attempts, &call);
        result
    }

    /// After an attempt that failed: returns when it is time for the next one.
    ///
    /// # Errors
    /// Another one does not help, or `retry_for` is over.
    pub(super) async fn failed(
        &self,
        attempts: &mut Attempts,
        call: &mut Call,
        error: &Error,
    ) -> Result<(), QueueError> {
        if let Some(kind) = reply::kind(error) {
            self.metrics.redis_error(call.operation.name(), kind);
        }
        let unavailable = || QueueError::Unavailable { detail: error.to_string() };
        let refused = reply::refused(error);
        let (error, missing) = match reply::sort(error) {
            Failure::FunctionMissing => (unavailable(), true),
            Failure::NoFunctions if !self.scripts.swap(true, Ordering::Relaxed) => return Ok(()),
            Failure::NoFunctions => return Err(unavailable()),
            Failure::Final(error) => return Err(error),
            Failure::Passing(error) => (error, false),
        };
        // What Redis has lost is loaded at once, and what it loses again in a while.
        if !missing || std::mem::replace(&mut attempts.loaded, true) {
            if attempts.started.elapsed() + attempts.delay > self.retry_for {
                return Err(error);
            }
            tokio::time::sleep(attempts.delay).await;
            attempts.delay = (attempts.delay * 2).min(Duration::from_millis(500));
        }
        self.metrics.redis_retry();
        if missing {
            return self.load().await;
        }
        if !refused {
            call.may_have_happened();
        }
        Ok(())
    }

    /// A call has ended.
    pub(super) fn made(&self, attempts: &Attempts, call: &Call) {
        self.metrics.redis_call(call.operation.name(), attempts.started.elapsed());
    }

    async fn once(&self, call: &mut Call) -> Result<Value, Error> {
        let (command, words) = call.named(self.has_functions());
        if let (Some(together), Some(vehicle), true) =
            (&self.together, Vehicle::of(call.operation), self.has_functions())
        {
            return together.call(vehicle, words, call.keys).await;
        }
        Box::pin(self.alone(command, words, call)).await
    }

    async fn alone(
        &self,
        command: CustomCommand,
        words: Vec<Value>,
        call: &mut Call,
    ) -> Result<Value, Error> {
        let first: Result<Value, Error> = self.client.custom(command, words).await;
        match first {
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                let (command, words) = call.in_full();
                self.client.custom(command, words).await
            }
            other => other,
        }
    }

    /// Whether the server has functions, as far as we know.
    pub(super) fn has_functions(&self) -> bool {
        !self.scripts.load(Ordering::Relaxed)
    }

    /// Whether Redis can be relied on now.
    pub(super) async fn ready(&self, confirming: Option<&Confirming>) -> Result<(), Unready> {
        let unready = |reason, cause| Unready { reason, cause };
        if !self.client.is_connected() {
            let reason = match *self.trouble.lock() {
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
                | QueueError::Unreadable { .. }
                | QueueError::IdempotencyConflict { .. }
                | QueueError::NoAnswer => Readiness::StoreFailed,
            };
            return Err(unready(reason, cause));
        }
        if let Some(confirming) = confirming {
            confirming.allowed().await.map_err(|cause| unready(Readiness::Denied, cause))?;
        }
        self.keeps_data().await.map_err(|cause| {
            let evicts =
                matches!(&cause, QueueError::Unavailable { detail } if detail.starts_with(EVICTS));
            unready(if evicts { Readiness::Evicts } else { Readiness::StoreFailed }, cause)
        })
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

pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
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
                *trouble.lock() = Some(kind);
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
async fn watchdog(client: Client, within: Duration) {
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
            tokio::time::timeout(within, client.ping(None)).await;
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
            RedisSettings { url: "redis://:hunter2@h:1".into(), ..RedisSettings::default() };
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
