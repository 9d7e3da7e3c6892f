//! Real redis-server processes.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    Outcome,
    clock::Clock,
    process::{self, Process},
    replica::Memory,
    resp::{self, Value},
};

/// The server: `REDIS_SERVER` names another one, such as that of Valkey.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into()).into()
}

/// What a server has on disk when it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeps {
    Nothing,
    /// An append-only file that is synchronized every second.
    Everysec,
    /// One that is synchronized before each answer.
    Always,
}

/// A server on a free port of 127.0.0.1. Dropping it ends it.
pub(crate) struct Server {
    pub port: u16,
    dir: PathBuf,
    arguments: Vec<String>,
    clock: Option<Clock>,
    process: Option<Process>,
}

/// How long a server may take to answer after its start.
const PATIENCE: Duration = Duration::from_secs(20);

impl Server {
    /// A server below `dir` that answers.
    pub(crate) async fn start(dir: &Path, keeps: Keeps, more: &[&str]) -> Outcome<Self> {
        let port = process::free_port()?;
        let append = match keeps {
            Keeps::Nothing => ["--appendonly", "no"].as_slice(),
            Keeps::Everysec => &["--appendonly", "yes", "--appendfsync", "everysec"],
            Keeps::Always => &["--appendonly", "yes", "--appendfsync", "always"],
        };
        let dir = dir.join(format!("redis-{port}"));
        fs::create_dir_all(&dir)?;
        let (port_word, dir_word) = (port.to_string(), dir.display().to_string());
        let common =
            ["--port", &port_word, "--bind", "127.0.0.1", "--save", "", "--dir", &dir_word];
        let words = common.iter().chain(append).chain(more);
        let arguments = words.map(|&word| word.to_owned()).collect();
        Self::begin(port, dir, arguments, None).await
    }

    /// One that keeps nothing, whose clock can be set.
    pub(crate) async fn with_clock(dir: &Path) -> Outcome<Self> {
        let started = Self::start(dir, Keeps::Nothing, &[]).await?;
        let clock = Clock::right(dir, "redis")?;
        let (dir, arguments) = (started.dir.clone(), started.arguments.clone());
        let port = started.port;
        drop(started);
        Self::begin(port, dir, arguments, Some(clock)).await
    }

    /// Its clock is so many seconds ahead of the machine's from now on, or behind.
    pub(crate) fn set_clock(&self, seconds: i64) -> Outcome<()> {
        Ok(self.clock.as_ref().ok_or("this server's clock cannot be set")?.set(seconds)?)
    }

    /// A Sentinel that watches the primary on this port. Two of them must agree that it is down.
    pub(crate) async fn sentinel(dir: &Path, primary: u16) -> Outcome<Self> {
        let port = process::free_port()?;
        let dir = dir.join(format!("sentinel-{port}"));
        fs::create_dir_all(&dir)?;
        let config = dir.join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor mailbox 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds mailbox 1000\nsentinel failover-timeout mailbox 5000\n",
            dir.display()
        );
        fs::write(&config, text)?;
        let arguments = vec![config.display().to_string(), "--sentinel".to_owned()];
        Self::begin(port, dir, arguments, None).await
    }

    async fn begin(
        port: u16,
        dir: PathBuf,
        arguments: Vec<String>,
        clock: Option<Clock>,
    ) -> Outcome<Self> {
        let mut server = Self { port, dir, arguments, clock, process: None };
        server.restart().await?;
        Ok(server)
    }

    /// Waits until it has the data of its primary.
    pub(crate) async fn replicates(&self) -> Outcome<()> {
        let up = |answer: &Value| answer.text().contains("master_link_status:up");
        self.until(&["INFO", "replication"], up).await
    }

    /// Starts it (again), with what it has on disk.
    pub(crate) async fn restart(&mut self) -> Outcome<()> {
        self.kill();
        let log = self.dir.join("log");
        let variables = self.clock.iter().flat_map(Clock::variables).collect::<Vec<_>>();
        self.process = Some(Process::start(&program(), &self.arguments, &variables, &log)?);
        let patience = Instant::now() + PATIENCE;
        loop {
            if resp::ask(self.port, &["PING"]).await.is_ok_and(|answer| answer.text() == "PONG") {
                return process::has(self.process.as_ref(), self.clock.as_ref());
            }
            if self.process.as_mut().is_none_or(Process::has_ended) || Instant::now() > patience {
                return Err(format!("redis-server does not start: see {}", log.display()).into());
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Memory that it holds, bytes.
    pub(crate) fn memory(&self) -> Outcome<Memory> {
        Memory::of(self.process.as_ref().ok_or("it does not run")?.id())
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Stops it in the middle of whatever it does, or lets it go on.
    pub(crate) fn hang(&self, hangs: bool) -> Outcome<()> {
        let process = self.process.as_ref().ok_or("it does not run")?;
        process.signal(if hangs { "STOP" } else { "CONT" })
    }

    /// Says a command that must succeed.
    pub(crate) async fn tell(&self, words: &[&str]) -> Outcome<Value> {
        resp::tell(self.port, words).await
    }

    /// Waits until `condition` holds for what it answers to a command.
    pub(crate) async fn until(
        &self,
        words: &[&str],
        condition: impl Fn(&Value) -> bool,
    ) -> Outcome<()> {
        let patience = Instant::now() + PATIENCE;
        loop {
            let answer = resp::ask(self.port, words).await;
            if answer.as_ref().is_ok_and(&condition) {
                return Ok(());
            }
            if Instant::now() > patience {
                return Err(format!("{} still says {answer:?} to {words:?}", self.port).into());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}
