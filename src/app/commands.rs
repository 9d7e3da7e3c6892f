//! What the commands of the binary do that do not serve. Those for keys are in `keys`.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use tokio_util::task::TaskTracker;

use super::{StartError, auth::Auth, settings};
use crate::{
    config::{Backend, Config, ConfigError},
    queue::{
        QueueBackend, QueueError, Unready,
        redis::{RedisQueue, RedisStore},
    },
    teams::TeamError,
    telemetry::Metrics,
};

/// Loads the functions, or says that a newer revision is there.
///
/// # Errors
/// Redis is not there, or its user may not load functions.
pub fn migrate(config: &Config) -> Result<(), StartError> {
    if config.backend() == Backend::Memory {
        return Err(ConfigError::Rule {
            key: "redis.url",
            problem: "(REDIS_URL) must be set: there is nothing to migrate in memory".to_owned(),
        }
        .into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = redis(config)?;
        let done = store.prepare().await.map_err(StartError::from);
        if done.is_ok() {
            say("the functions in Redis are up to date");
        }
        explained(&store, done).await
    })
}

/// What came of a command. Of a store that did not answer it says why: a password is wrong, or nobody is there.
pub(super) async fn explained(
    store: &RedisQueue,
    done: Result<(), StartError>,
) -> Result<(), StartError> {
    let Err(error) = done else { return Ok(()) };
    let (StartError::Store(QueueError::Timeout)
    | StartError::Team(TeamError::Store(QueueError::Timeout))) = &error
    else {
        return Err(error);
    };
    Err(match store.ready().await {
        Err(Unready { reason, .. }) => {
            StartError::NoAnswer { what: error.to_string(), why: reason.remedy() }
        }
        Ok(()) => error,
    })
}

/// The store in Redis, for a command that ends soon. Needs a runtime.
pub(super) fn redis(config: &Config) -> Result<RedisQueue, StartError> {
    let metrics = Metrics::new().map_err(|error| StartError::Metrics(error.to_string()))?;
    let store = RedisStore::start(
        settings::redis(config)?,
        settings::queue_limits(config),
        Arc::new(metrics),
        TaskTracker::new(),
    )?;
    Ok(store.queue()?)
}

/// Prints the configuration in force, without secrets.
///
/// # Errors
/// The URL of Redis is none, or a certificate is not usable; the rest was checked when it was read.
pub fn check_config(config: &Config) -> Result<(), StartError> {
    if config.backend() == Backend::Redis {
        settings::redis(config)?.check()?;
    }
    settings::http(config)?;
    Auth::read(config)?;
    say(config.shown().trim_end());
    say("# usable");
    Ok(())
}

/// Asks the server of this configuration, on this machine, whether it is ready.
///
/// # Errors
/// It does not answer, or says why it is not ready.
pub fn healthcheck(config: &Config) -> Result<(), StartError> {
    const PATIENCE: Duration = Duration::from_secs(3);
    let mut address = match config.ops_listen()? {
        Some(address) => address,
        None => {
            config.listen()?.first().copied().unwrap_or(([127, 0, 0, 1], config.http.port).into())
        }
    };
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let not_ready = |error: std::io::Error| StartError::NotReady(format!("{address}: {error}"));
    let answer = (|| {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.take(64 * 1024).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    })();
    let answer = answer.map_err(not_ready)?;
    if answer.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    let body = answer.split_once("\r\n\r\n").map_or("no answer", |(_head, body)| body.trim());
    Err(StartError::NotReady(body.to_owned()))
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
pub(super) fn say(text: &str) {
    println!("{text}");
}
