//! Child processes: ended by their own id with the value, and by the kernel if this program dies first.

use std::{
    fs::File,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use crate::{Outcome, clock::Clock};

/// A running process. Dropping it ends it.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `program` with these variables and no others; what it says goes to the end of `log`.
    pub(crate) fn start(
        program: &Path,
        arguments: &[String],
        variables: &[(&str, String)],
        log: &Path,
    ) -> Outcome<Self> {
        let mut command = if ends_with_us() {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.args(arguments).env_clear().env("PATH", path);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let log = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{} does not start: {error}", program.display()))?;
        Ok(Self { child })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        // Only a foreign wait for our child could fail.
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) -> Outcome<()> {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status()?;
        if sent.success() { Ok(()) } else { Err(format!("kill -{name} {pid}: {sent}").into()) }
    }

    /// Ends it at once, as a crash would. It may have ended by itself.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Checks that a process has the clock that it is to have: what nobody can move would pass every check.
pub(crate) fn has(process: Option<&Process>, clock: Option<&Clock>) -> Outcome<()> {
    let wrong = |clock: &Clock| process.is_none_or(|process| !clock.is_of(process.id()));
    if clock.is_some_and(wrong) {
        return Err("a process goes by the machine's clock: is it linked statically?".into());
    }
    Ok(())
}

/// Whether the kernel can be told to end children with their parent (util-linux, on Linux).
fn ends_with_us() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let tried = Command::new("setpriv").args(["--pdeathsig", "KILL", "--", "true"]).status();
        tried.is_ok_and(|status| status.success())
    })
}

/// A port that nobody listens on, at the moment.
pub(crate) fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// First line of what a program says of itself.
pub(crate) fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default().lines().next().unwrap_or_default().trim().to_owned()
}
