//! The servers under test as child processes: bounded in time, ended by their own pid, and what the
//! kernel says they used.

use std::{
    fs,
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::Outcome;

/// No server outlives this, whatever becomes of the benchmark.
const LIFE: &str = "3000";
const PATIENCE: Duration = Duration::from_secs(10);

/// A server on a free loopback port. Dropping it ends it.
pub(crate) struct Server {
    wrapper: Child,
    pid: u32,
    pub port: u16,
}

impl Server {
    /// Starts what `command` makes for a free port, and waits until it accepts connections.
    pub(crate) fn start(command: impl FnOnce(u16) -> Command) -> Outcome<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let inner = command(port);
        let mut outer = Command::new("timeout");
        outer.args(["--kill-after=5", LIFE]).arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        let wrapper =
            outer.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut server = Self { wrapper, pid: 0, port };
        let until = Instant::now() + PATIENCE;
        while server.pid == 0 || TcpStream::connect(server.address()).is_err() {
            if let Some(status) = server.wrapper.try_wait()? {
                return Err(format!("{} ended: {status}", inner.get_program().display()).into());
            }
            if Instant::now() > until {
                return Err(format!("{} does not serve", inner.get_program().display()).into());
            }
            sleep(Duration::from_millis(20));
            let outer = server.wrapper.id();
            let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"))?;
            server.pid = children.split_whitespace().next().map_or(Ok(0), str::parse)?;
        }
        Ok(server)
    }

    /// A Redis that keeps nothing on disk.
    pub(crate) fn redis() -> Outcome<Self> {
        Self::start(|port| {
            let mut command = Command::new("redis-server");
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
            command.args(["--save", "", "--appendonly", "no", "--lazyfree-lazy-expire", "yes"]);
            command
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub(crate) fn redis_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Processor time used so far, in microseconds. The kernel counts in hundredths of a second.
    pub(crate) fn cpu(&self) -> Outcome<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let (_name, rest) = stat.rsplit_once(") ").ok_or("stat has no name")?;
        let mut ticks = rest.split(' ').skip(11).map(str::parse::<f64>);
        let mut next = || ticks.next().ok_or("stat is short");
        Ok((next()?? + next()??) * 10_000.0)
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> Outcome<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.pid != 0 {
            // By its pid, politely; the wrapper follows it.
            let _ = Command::new("kill").arg(self.pid.to_string()).stderr(Stdio::null()).status();
        }
        let until = Instant::now() + Duration::from_secs(12);
        loop {
            match self.wrapper.try_wait() {
                Ok(None) if Instant::now() < until => sleep(Duration::from_millis(10)),
                Ok(None) | Err(_) => break,
                Ok(Some(_)) => return,
            }
        }
        if self.pid != 0 {
            let pid = self.pid.to_string();
            let _ = Command::new("kill").args(["-9", &pid]).stderr(Stdio::null()).status();
        }
        let _ = self.wrapper.kill();
        let _ = self.wrapper.wait();
    }
}

/// Sockets that this process may open.
pub(crate) fn open_files() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok()).unwrap_or(1024)
}

/// The version that a program prints, for the report.
pub(crate) fn version_of(program: &str) -> String {
    let output = match Command::new(program).arg("--version").output() {
        Ok(output) => output.stdout,
        Err(error) if error.kind() == ErrorKind::NotFound => return format!("no {program}"),
        Err(error) => return error.to_string(),
    };
    let text = String::from_utf8_lossy(&output);
    text.split(" sha=").next().unwrap_or_default().trim().to_owned()
}
