//! The command line.

use clap::{Parser, ValueEnum};

/// Benchmarks of the mailbox.
#[derive(Debug, Clone, Parser)]
#[command(name = "cargo bench --bench mailbox --")]
pub(crate) struct Options {
    /// Short rounds: for a look while working, not for numbers to publish.
    #[arg(long)]
    pub quick: bool,

    /// Only this store.
    #[arg(long, value_enum)]
    pub backend: Option<Store>,

    /// Only these scenarios, comma-separated.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Scenario>,

    /// Keep-alive connections of a round.
    #[arg(long, default_value_t = 16)]
    pub connections: usize,

    /// Rounds of each side, interleaved (5; quick: 3).
    #[arg(long)]
    pub rounds: Option<usize>,

    /// Seconds of a round (2; quick: 0.6).
    #[arg(long)]
    pub seconds: Option<f64>,

    /// Worker threads of every server; `replicas` has servers with one each.
    #[arg(long, default_value_t = 2)]
    pub workers: usize,

    /// Speak revision 2026-07-28 in place of 2025-11-25 with a session.
    #[arg(long)]
    pub modern: bool,

    /// Log level of the product; its log goes to /dev/null.
    #[arg(long, default_value = "info")]
    pub log: String,

    /// Serves a canned answer. The benchmark starts this itself.
    #[arg(long, hide = true, value_name = "PORT")]
    pub serve_canned: Option<u16>,

    /// Serves the spike. The benchmark starts this itself.
    #[arg(long, hide = true, num_args = 2, value_names = ["PORT", "REDIS_URL"])]
    pub serve_spike: Option<Vec<String>>,

    /// What cargo passes.
    #[arg(long, hide = true)]
    pub bench: bool,
}

/// Where the product keeps messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Store {
    Memory,
    Redis,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// The protocol layer alone, against a canned answer.
    Mcp,
    /// Send.
    Send,
    /// Send, then receive.
    SendReceive,
    /// Send, then receive, with texts sealed in Redis.
    Sealed,
    /// Send where keys are asked for: none, one for all senders, one for each.
    Keys,
    /// Send to one, two and four replicas on one Redis.
    Replicas,
    /// A question and its answer.
    Ask,
    /// From a send on one replica to the waiter on another.
    Wakeup,
    /// Waiters to whom nothing comes.
    Idle,
    /// An inbox that is deep.
    Depth,
    /// Inboxes that are many.
    Inboxes,
    /// What messages take in Redis.
    Memory,
}

impl Options {
    pub(crate) fn wants(&self, scenario: Scenario) -> bool {
        self.only.is_empty() || self.only.contains(&scenario)
    }

    pub(crate) fn with(&self, store: Store) -> bool {
        self.backend.is_none_or(|only| only == store)
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 3 } else { 5 }).max(1)
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(if self.quick { 0.6 } else { 2.0 })
    }
}
