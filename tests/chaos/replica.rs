//! The product: replicas as processes, each on a port that it keeps over its restarts.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    Outcome,
    clock::Clock,
    process::{self, Process},
    rows::Settings,
};

/// How long a replica may take to listen, or to be ready again after a fault.
const PATIENCE: Duration = Duration::from_secs(40);
/// Of a lease that nobody acknowledges: shorter than the default, so that redelivery is seen.
pub(crate) const LEASE: Duration = Duration::from_secs(4);

/// Of one that a receipt acknowledges: what was handed out in an answer that got lost must come again
/// before a run is judged.
const MANUAL_LEASE: Duration = Duration::from_secs(10);

/// The binary under test: `MCP_MESSAGING_BIN`, or the one beside this program.
pub(crate) fn binary() -> Outcome<PathBuf> {
    let named = std::env::var_os("MCP_MESSAGING_BIN").map(PathBuf::from);
    let beside = || {
        let own = std::env::current_exe().ok()?;
        Some(own.parent()?.parent()?.join("mcp-messaging"))
    };
    let path = named.or_else(beside).ok_or("where is this program?")?;
    let path = path.canonicalize().map_err(|error| {
        format!(
            "{}: {error} (cargo build --bins, or name one by MCP_MESSAGING_BIN)",
            path.display()
        )
    })?;
    Ok(path)
}

/// Resident memory of a process, bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    pub now: u64,
    pub most: u64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Outcome<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().split(' ').next()?.parse::<u64>().ok().map(|kib| kib * 1024)
        };
        let none = || format!("/proc/{pid}/status says nothing of memory");
        Ok(Self { now: field("VmRSS:").ok_or_else(none)?, most: field("VmHWM:").ok_or_else(none)? })
    }
}

/// One server process. Dropping it ends it.
pub(crate) struct Replica {
    pub address: SocketAddr,
    pub program: PathBuf,
    redis: String,
    settings: Settings,
    log: PathBuf,
    clock: Option<Clock>,
    process: Option<Process>,
}

impl Replica {
    /// A replica on this Redis that listens.
    pub(crate) async fn start(
        program: &Path,
        redis: String,
        settings: Settings,
        log: PathBuf,
    ) -> Outcome<Self> {
        Self::with_clock(program, redis, settings, log, None).await
    }

    /// [`start`](Self::start), with a clock of its own.
    pub(crate) async fn with_clock(
        program: &Path,
        redis: String,
        settings: Settings,
        log: PathBuf,
        clock: Option<Clock>,
    ) -> Outcome<Self> {
        let address = ([127, 0, 0, 1], process::free_port()?).into();
        let mut replica = Self {
            address,
            program: program.to_owned(),
            redis,
            settings,
            log,
            clock,
            process: None,
        };
        replica.restart().await?;
        Ok(replica)
    }

    /// Starts it (again); it listens when this returns.
    pub(crate) async fn restart(&mut self) -> Outcome<()> {
        self.kill();
        let mut variables = vec![
            ("MCP_SERVER_HOST", "127.0.0.1".to_owned()),
            ("MCP_SERVER_PORT", self.address.port().to_string()),
            ("REDIS_URL", self.redis.clone()),
            ("LOG_LEVEL", "warn".to_owned()),
            ("MCP_MESSAGING__HTTP__WORKERS", "1".to_owned()),
            ("MCP_MESSAGING__LOG__FORMAT", "json".to_owned()),
            // Here few agents send as much as they can.
            ("MCP_MESSAGING__LIMITS__PRINCIPAL_MESSAGES_PER_MINUTE", "60000000".to_owned()),
            ("MCP_MESSAGING__LIMITS__PRINCIPAL_MESSAGES_AT_ONCE", "60000000".to_owned()),
            ("MCP_MESSAGING__MESSAGING__LEASE_SECONDS", LEASE.as_secs().to_string()),
            ("MCP_MESSAGING__MESSAGING__MANUAL_LEASE_SECONDS", MANUAL_LEASE.as_secs().to_string()),
        ];
        variables.extend(self.settings.iter().map(|&(name, value)| (name, value.to_owned())));
        variables.extend(self.clock.iter().flat_map(Clock::variables));
        self.process = Some(Process::start(&self.program, &[], &variables, &self.log)?);
        let patience = Instant::now() + PATIENCE;
        while self.get("/livez").await.is_none_or(|(status, _)| status != 200) {
            if self.process.as_mut().is_none_or(Process::has_ended) || Instant::now() > patience {
                return Err(format!("a replica does not start: see {}", self.log.display()).into());
            }
            sleep(Duration::from_millis(10)).await;
        }
        process::has(self.process.as_ref(), self.clock.as_ref())
    }

    /// Memory that it holds now and held at most, bytes.
    pub(crate) fn memory(&self) -> Outcome<Memory> {
        let process = self.process.as_ref().ok_or("it does not run")?;
        Memory::of(process.id())
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn terminate(&mut self) -> Outcome<()> {
        let Some(process) = &mut self.process else { return Ok(()) };
        process.signal("TERM")?;
        let patience = Instant::now() + PATIENCE;
        while !process.has_ended() {
            if Instant::now() > patience {
                return Err("a replica does not end".into());
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn ready(&self) -> Outcome<()> {
        let patience = Instant::now() + PATIENCE;
        loop {
            let said = self.get("/readyz").await;
            if said.as_ref().is_some_and(|(status, _)| *status == 200) {
                return Ok(());
            }
            if Instant::now() > patience {
                return Err(format!("a replica is not ready: {said:?}").into());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn get(&self, path: &str) -> Option<(u16, String)> {
        get(self.address, path).await
    }
}

/// Status and body of a GET; `None` without an answer.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let url = format!("http://{address}{path}");
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().ok()?;
    let answer = client.get(url).send().await.ok()?;
    let status = answer.status().as_u16();
    Some((status, answer.text().await.ok()?))
}
