//! More than a server can do: every row loads one replica beyond its limits, and looks at what it does for
//! those whom it lets in, at its memory, and at what it says to the others.
//!
//! Bars are ratios within one run, and wide: the machine may be busy. What was measured goes into the table.

mod crowd;
mod http;
mod load;
mod memory;
mod soak;

use std::{
    fmt::{self, Write as _},
    fs,
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
};

use serde_json::json;

use crate::{
    Outcome,
    redis::{Keeps, Server},
    replica::Replica,
    report,
    rows::Settings,
};

/// How large a row is: the short form is for every change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub full: bool,
}

impl Size {
    /// The first in full, the second in short.
    fn of<T>(self, full: T, short: T) -> T {
        if self.full { full } else { short }
    }
}

/// A row under way.
type Running = Pin<Box<dyn Future<Output = Outcome<Report>> + Send>>;

/// One row.
#[derive(Clone, Copy)]
pub(crate) struct Strain {
    pub name: &'static str,
    pub what: &'static str,
    settings: Settings,
    run: fn(Scene, Size) -> Running,
}

/// A server alone on its Redis.
pub(crate) struct Scene {
    redis: Server,
    replica: Replica,
}

/// What a row found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    facts: Vec<String>,
    failures: Vec<String>,
}

impl Report {
    fn fact(&mut self, fact: impl Into<String>) {
        self.facts.push(fact.into());
    }

    /// A bar: what must hold.
    fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.failures.push(what());
        }
    }
}

macro_rules! strain {
    ($name:literal, $what:literal, $settings:expr, $run:path) => {
        Strain {
            name: $name,
            what: $what,
            settings: $settings,
            run: |scene, size| Box::pin($run(scene, size)),
        }
    };
}

/// Calls that the server of these rows runs at once.
const CALLS: usize = 32;
const FEW_CALLS: Settings = &[("MCP_MESSAGING__LIMITS__REPLICA_CALLS", "32")];

/// Every row but the soak.
pub(crate) fn strains() -> Vec<Strain> {
    vec![
        strain!(
            "overload",
            "ten times as many callers as may run (`limits.replica_calls`), who come back at once",
            FEW_CALLS,
            load::overload
        ),
        strain!(
            "uploads",
            "large bodies that stop before their end, beyond `http.memory_bytes`",
            &[("MCP_MESSAGING__HTTP__MEMORY_BYTES", "8388608")],
            memory::uploads
        ),
        strain!(
            "slow-readers",
            "readers that take nothing of their answers, beyond `http.stalled_responses`",
            &[
                ("MCP_MESSAGING__HTTP__STALLED_RESPONSES", "4"),
                // Answers that fit into no buffer of the kernel.
                ("MCP_MESSAGING__LIMITS__FETCH_BYTES", "4000000"),
            ],
            memory::slow_readers
        ),
        strain!(
            "slowloris",
            "requests that come byte by byte, heads and bodies",
            &[("MCP_MESSAGING__HTTP__REQUEST_TIMEOUT_SECONDS", "2")],
            crowd::slowloris
        ),
        strain!("idle", "open connections that say nothing", &[], crowd::idle),
        strain!(
            "connections",
            "four times as many clients as connections (`http.max_connections`)",
            &[("MCP_MESSAGING__HTTP__MAX_CONNECTIONS", "50")],
            crowd::connections
        ),
        strain!(
            "deep-inbox",
            "an inbox with very many messages",
            &[
                ("MCP_MESSAGING__LIMITS__INBOX_MESSAGES", "200000"),
                ("MCP_MESSAGING__LIMITS__INBOX_BYTES", "1000000000"),
            ],
            load::deep_inbox
        ),
        strain!("expiry", "very many inboxes that expire within a second", &[], load::expiry),
    ]
}

/// What the soak is.
pub(crate) const SOAK: &str = "the load of a quiet office for a long time";

/// The soak: the load of a quiet office for so long.
pub(crate) async fn soak(minutes: u64, program: &Path) -> Outcome<Report> {
    let scene = Scene::start("soak", program, &[]).await?;
    soak::soak(scene, minutes).await
}

fn dir(name: &str) -> PathBuf {
    report::folder().join(name)
}

/// What was measured, as a table.
pub(crate) fn table() -> Outcome<String> {
    let mut table = String::from("| Load | What was measured |\n|-|-|\n");
    for (name, what) in strains().iter().map(|one| (one.name, one.what)).chain([("soak", SOAK)]) {
        let Ok(text) = fs::read_to_string(dir(&format!("strain-{name}.json"))) else {
            println!("chaos: {name} was not run: not in the table");
            continue;
        };
        let json: serde_json::Value = serde_json::from_str(&text)?;
        let list = |field: &str| json[field].as_array().cloned().unwrap_or_default();
        let facts: Vec<_> =
            list("facts").iter().filter_map(|f| f.as_str().map(str::to_owned)).collect();
        let failed = if list("failures").is_empty() { "" } else { " **A bar was missed.**" };
        let _ = writeln!(table, "| `{name}`: {what} | {}.{failed} |", facts.join(".<br>"));
    }
    Ok(table)
}

impl Scene {
    async fn start(name: &str, program: &Path, settings: Settings) -> Outcome<Self> {
        let dir = dir(name);
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        let redis = Server::start(&dir, Keeps::Nothing, &[]).await?;
        let url = format!("redis://127.0.0.1:{}", redis.port);
        let replica = Replica::start(program, url, settings, dir.join("replica.log")).await?;
        replica.ready().await?;
        Ok(Self { redis, replica })
    }
}

impl Strain {
    /// Runs it, and keeps what it found. An error: it could not be run.
    pub(crate) async fn run(&self, program: &Path, size: Size) -> Outcome<Report> {
        let scene = Scene::start(self.name, program, self.settings).await?;
        (self.run)(scene, size).await
    }
}

/// Keeps what a row found, for the table.
pub(crate) fn keep(name: &str, what: &str, report: &Report) -> Outcome<()> {
    if report.failures.is_empty() {
        // Left behind it would only take room.
        let _ = fs::remove_dir_all(dir(name));
    }
    let row =
        json!({ "row": name, "what": what, "facts": report.facts, "failures": report.failures });
    fs::create_dir_all(dir(""))?;
    Ok(fs::write(dir(&format!("strain-{name}.json")), serde_json::to_string_pretty(&row)?)?)
}

impl Report {
    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fact in &self.facts {
            writeln!(f, "    {fact}")?;
        }
        for failure in &self.failures {
            writeln!(f, "    FAILED: {failure}")?;
        }
        Ok(())
    }
}

/// Bytes for people.
fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX)) / 1024.0)
}
