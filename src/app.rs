//! The composition root: from a [`Config`] to a running server, and to its ordered end.
//!
//! The only place that sees all layers. What each command of the binary does stands here too (`commands`, `keys`).

mod auth;
mod commands;
pub mod keys;
pub mod pairs;
mod settings;
pub mod team;

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::commands::{check_config, healthcheck, migrate};
use crate::{
    config::{Backend, Config, ConfigError},
    http::{self, HttpState},
    mcp::{McpServer, Offer},
    messaging::{
        Limiter, MessagingService, Stocks, Waiters, keep_sampled, keep_watching_readiness,
    },
    model::SystemClock,
    prompts,
    queue::{
        LimitStore, QueueBackend, QueueError, TeamStore,
        memory::MemoryQueue,
        redis::{RedisQueue, RedisStore},
    },
    resources,
    teams::TeamError,
    telemetry::{Metrics, Telemetry, TelemetryError},
    tls::TlsError,
    tools,
};

/// Connections that the kernel holds for us before they are accepted.
const BACKLOG: u32 = 4096;
/// Acknowledgements may take so long after the last response.
const SETTLE_WITHIN: Duration = Duration::from_secs(2);
/// How often Redis is tried at start, and how often that is said.
const TRY_EVERY: Duration = Duration::from_millis(500);
const SAY_EVERY: u32 = 20;

/// Why a command failed. One line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Logs or traces.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// A metric: a fault of ours.
    #[error("metrics: {0}")]
    Metrics(String),
    /// A socket.
    #[error("{keys}: cannot listen on {address}: {cause}")]
    Listen {
        /// The settings that say where.
        keys: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        cause: std::io::Error,
    },
    /// The store.
    #[error("{0}")]
    Store(#[from] QueueError),
    /// The store did not answer a command.
    #[error("{what}: {why}")]
    NoAnswer {
        /// What came of that.
        what: String,
        /// Why, in the words of `/readyz`.
        why: &'static str,
    },
    /// A certificate or a key.
    #[error("{keys}: {cause}")]
    Tls {
        /// The settings that name the files.
        keys: &'static str,
        /// What is wrong with them.
        cause: TlsError,
    },
    /// A command about pairs.
    #[error("pairs: {0}")]
    Pairs(String),
    /// A command about keys.
    #[error("keys: {0}")]
    Keys(String),
    /// A command about teams.
    #[error("team: {0}")]
    Team(#[from] TeamError),
    /// What is to be imported is no team.
    #[error("team: this is not what `team export` prints: {0}")]
    Import(String),
    /// The operating system.
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// The server does not say that it is ready.
    #[error("not ready: {0}")]
    NotReady(String),
}

/// Serves until SIGTERM or SIGINT. A second signal ends it at once.
///
/// # Errors
/// It cannot start.
pub fn serve(config: &Config) -> Result<(), StartError> {
    let metrics = Metrics::new().map_err(|error| StartError::Metrics(error.to_string()))?;
    let metrics = Arc::new(metrics);
    let telemetry = Telemetry::start(&settings::logs(config), &metrics)?;
    let served = actix_web::rt::System::new().block_on(run(config, metrics));
    telemetry.flush();
    served
}

/// The store of the process; each worker gets its own way to it.
#[derive(Clone)]
enum Store {
    Memory(Arc<MemoryQueue>),
    Redis(Box<RedisStore>),
}

type Ways = (Arc<dyn QueueBackend>, Arc<dyn LimitStore>, Option<Arc<dyn TeamStore>>);

impl Store {
    fn open(
        config: &Config,
        metrics: &Arc<Metrics>,
        background: &TaskTracker,
    ) -> Result<Self, StartError> {
        let limits = settings::queue_limits(config);
        Ok(match config.backend() {
            Backend::Memory => {
                let queue = MemoryQueue::new(limits, Arc::new(SystemClock));
                Self::Memory(Arc::new(queue.counting(Arc::clone(metrics))))
            }
            Backend::Redis => Self::Redis(Box::new(RedisStore::start(
                settings::redis(config)?,
                limits,
                Arc::clone(metrics),
                background.clone(),
            )?)),
        })
    }

    /// A way to the mail, to shared limits, and to what is kept about keys and teams if the store keeps that.
    fn queue(&self) -> Result<Ways, QueueError> {
        Ok(match self {
            Self::Memory(queue) => {
                (Arc::<MemoryQueue>::clone(queue), Arc::<MemoryQueue>::clone(queue), None)
            }
            Self::Redis(store) => {
                let queue = store.queue()?;
                let shared = Arc::new(queue);
                (Arc::<RedisQueue>::clone(&shared), Arc::<RedisQueue>::clone(&shared), Some(shared))
            }
        })
    }
}

async fn run(config: &Config, metrics: Arc<Metrics>) -> Result<(), StartError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let running = metrics.running(config.backend().name());
    running.map_err(|error| StartError::Metrics(error.to_string()))?;
    note_limits(config, &metrics);
    // First nobody is to come any more, then what waits here ends.
    let (leaving, stop) = (CancellationToken::new(), CancellationToken::new());
    // What must be done before the process ends, and what ends with it.
    let (settling, background) = (TaskTracker::new(), TaskTracker::new());
    let store = Store::open(config, &metrics, &background)?;
    attend(config, &store, &metrics, &leaving, &background)?;
    let waiters = Waiters::new(config.limits.replica_waiters)
        .with_running(config.limits.replica_calls)
        .with_each(config.limits.principal_waits, config.limits.principal_listens);
    metrics.watch_waiters(&waiters.gauge());
    let (rules, http_config) =
        (Arc::new(settings::rules(config)), Arc::new(settings::http(config)?));

    let auth = Arc::new(auth::Auth::read(config)?);
    auth.attend(&background);
    let make_state = {
        let (store, metrics) = (store.clone(), Arc::clone(&metrics));
        let (leaving, stop) = (leaving.clone(), stop.clone());
        let (http_config, settling) = (Arc::clone(&http_config), settling.clone());
        let (send_limits, stocks) = (settings::send_limits(config), Stocks::default());
        move || {
            let (queue, limits, kept) = match store.queue() {
                Ok(ways) => ways,
                // The same settings opened the store above.
                Err(error) => unreachable!("a worker cannot open the store: {error}"),
            };
            let messaging = MessagingService::new(
                queue,
                Arc::clone(&rules),
                waiters.clone(),
                settling.clone(),
                Arc::clone(&metrics),
            )
            .limited_by(Limiter::new(
                limits,
                send_limits,
                stocks.clone(),
                settling.clone(),
                Arc::clone(&metrics),
            ))
            .asking(auth.contacts(kept.clone()));
            let mcp = McpServer::new(offer(&messaging), Arc::clone(&metrics), stop.clone());
            HttpState {
                auth: auth.authenticator(kept.clone().map(|kept| kept as _)),
                mcp,
                messaging,
                teams: auth.teams(kept),
                metrics: Arc::clone(&metrics),
                config: Arc::clone(&http_config),
                leaving: leaving.clone(),
                stop: stop.clone(),
            }
        }
    };
    let (listeners, ops_listener) = listen(config)?;
    let endpoint = listeners.first().map(TcpListener::local_addr).transpose()?;
    let ops = ops_listener.as_ref().map(TcpListener::local_addr).transpose()?;
    raise_file_limit(config.http.max_connections);
    let (server, stopper) = http::serve(listeners, ops_listener, &http_config, make_state)?;
    metrics.watch_connections(&stopper.gauge());
    announce(config, endpoint, ops, http_config.workers);
    let server = actix_web::rt::spawn(server);
    let drain = Duration::from_secs(config.http.drain_seconds);
    tokio::select! {
        _ = terminate.recv() => {
            leaving.cancel();
            if !drain.is_zero() {
                tracing::info!(seconds = drain.as_secs(), "not ready any more; serving on while load balancers notice");
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    () = tokio::time::sleep(drain) => {}
                }
            }
        }
        // Somebody at the keyboard.
        _ = interrupt.recv() => leaving.cancel(),
    }
    tracing::info!("stopping: waiting calls are told to ask again");
    let ended = async {
        stop.cancel();
        stopper.drain().await;
        settling.close();
        if tokio::time::timeout(SETTLE_WITHIN, settling.wait()).await.is_err() {
            tracing::warn!("some acknowledgements did not end in time; those messages come again");
        }
        stopper.stop().await;
        // The server's own future has nothing more to say.
        let _ = server.await;
    };
    tokio::select! {
        () = ended => tracing::info!("stopped"),
        _ = terminate.recv() => tracing::warn!("a second signal: stopped at once"),
        _ = interrupt.recv() => tracing::warn!("a second signal: stopped at once"),
        () = tokio::time::sleep(Duration::from_secs(config.http.shutdown_seconds)) => {
            tracing::warn!("stopped after http.shutdown_seconds with work left");
        }
    }
    Ok(())
}

/// What the protocol serves of a mailbox.
fn offer(messaging: &MessagingService) -> Offer {
    Offer {
        instructions: tools::INSTRUCTIONS,
        tools: tools::registry(messaging.clone()),
        resources: resources::registry(messaging.clone()),
        prompts: prompts::registry(messaging.clone()),
        cancellations: Some(Arc::new(messaging.clone())),
        tasks: tools::tasks(messaging.clone()),
        ..Offer::default()
    }
}

/// The sockets of the endpoint, and of the probes if they have their own.
fn listen(config: &Config) -> Result<(Vec<TcpListener>, Option<TcpListener>), StartError> {
    let bind = |keys, address| {
        http::bind(address, BACKLOG).map_err(|cause| StartError::Listen { keys, address, cause })
    };
    let mut listeners = Vec::new();
    for address in config.listen()? {
        match bind("http.host and http.port", address) {
            Ok(listener) => listeners.push(listener),
            // `localhost` names two loopback addresses, and a machine may have but one of them.
            Err(_) if !listeners.is_empty() && address.is_ipv6() => {}
            Err(error) => return Err(error),
        }
    }
    let ops_listener = config.ops_listen()?;
    Ok((listeners, ops_listener.map(|address| bind("ops.listen", address)).transpose()?))
}

/// What a panel compares its measurements with.
fn note_limits(config: &Config, metrics: &Metrics) {
    let limits = &config.limits;
    for (limit, value) in [
        ("connections", config.http.max_connections as u64),
        ("replica_waiters", limits.replica_waiters as u64),
        ("client_waits", limits.client_waits),
        ("principal_waits", limits.principal_waits as u64),
        ("principal_listens", limits.principal_listens as u64),
        ("principal_messages_per_minute", limits.principal_messages_per_minute.into()),
        ("tenant_messages_per_minute", limits.tenant_messages_per_minute.into()),
        ("pair_messages", limits.pair_messages.into()),
        ("recipients", limits.recipients as u64),
        ("message_bytes", limits.message_bytes as u64),
        ("inbox_messages", limits.inbox_messages),
        ("inbox_bytes", limits.inbox_bytes),
        ("ledger_entries", limits.ledger_entries),
    ] {
        metrics.limit(limit, value);
    }
}

/// Prepares the store, and keeps what metrics say of it and of readiness up to date. All of this has one
/// queue of its own, so that nobody's call waits behind it.
fn attend(
    config: &Config,
    store: &Store,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
    background: &TaskTracker,
) -> Result<(), QueueError> {
    let queue: Arc<dyn QueueBackend> = match store {
        Store::Memory(queue) => Arc::<MemoryQueue>::clone(queue),
        Store::Redis(store) => {
            let queue = store.queue()?;
            background.spawn(prepare(queue.clone()));
            Arc::new(queue)
        }
    };
    let (ready_queue, ready_metrics) = (Arc::clone(&queue), Arc::clone(metrics));
    background.spawn(keep_watching_readiness(ready_queue, ready_metrics, stop.clone()));
    if config.ops.sample_seconds > 0 {
        let every = Duration::from_secs(config.ops.sample_seconds);
        let sampling = keep_sampled(queue, Arc::clone(metrics), Arc::new(SystemClock), every);
        let stop = stop.clone();
        background.spawn(async move {
            let _never: Option<()> = stop.run_until_cancelled(sampling).await;
        });
    }
    Ok(())
}

/// Says where it serves, and to whom.
fn announce(
    config: &Config,
    endpoint: Option<SocketAddr>,
    ops: Option<SocketAddr>,
    workers: usize,
) {
    let scheme = if config.http.tls_certificate_file.is_empty() { "http" } else { "https" };
    if let Some(endpoint) = endpoint {
        tracing::info!(
            address = %endpoint,
            backend = config.backend().name(),
            workers,
            version = env!("CARGO_PKG_VERSION"),
            "serving MCP at {scheme}://{endpoint}/mcp"
        );
        if let Some(ops) = ops {
            tracing::info!(address = %ops, "serving metrics and probes");
        }
        if !endpoint.ip().is_loopback() && !config.proves_callers() {
            tracing::warn!(
                "anybody who reaches {endpoint} can read and send as any client: auth.mode is none"
            );
        }
    }
}

/// A waiting client is an open file: most systems begin with 1,024 of them and allow far more.
fn raise_file_limit(connections: usize) {
    const OWN: u64 = 100; // sockets to Redis, the collector, listeners
    const FEW: u64 = 4096;
    match rlimit::increase_nofile_limit(connections as u64 + OWN) {
        Ok(limit) if limit < FEW => tracing::warn!(
            limit,
            "few files may be open here, and a waiting client is one: raise the limit (ulimit -n, LimitNOFILE)"
        ),
        Ok(limit) => tracing::debug!(limit, "open files"),
        Err(error) => tracing::warn!(error = %error, "the limit of open files cannot be raised"),
    }
}

/// Loads the functions as soon as Redis is there.
async fn prepare(queue: RedisQueue) {
    for attempt in 0_u32.. {
        let prepared = async {
            queue.prepare().await?;
            queue.ready().await.map_err(|unready| unready.cause)
        };
        match prepared.await {
            Ok(()) => {
                tracing::info!("Redis is ready");
                return;
            }
            Err(error) if attempt % SAY_EVERY == 0 => {
                tracing::warn!(error.kind = error.label(), error = %error, "not ready: waiting for Redis");
            }
            Err(_) => {}
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}
