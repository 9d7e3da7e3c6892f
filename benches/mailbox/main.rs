//! Benchmarks of the mailbox over real HTTP connections on loopback, against two baselines in the
//! same run: a canned answer, and the least that a mailbox in Redis could do.
//!
//! `cargo bench --bench mailbox -- --help`. Wall-clock numbers depend on the machine and on what else
//! it does; processor time per operation and ratios within a run are what counts. `docs/performance.md`
//! says what was measured.
//!
//! Not here: correctness beyond "every message came once and in order"; that is what tests are for.

mod baseline;
mod client;
mod keys;
mod options;
mod process;
mod report;
mod rounds;
mod store;
mod waiting;

use std::{
    path::{Path, PathBuf},
    process::Command,
    slice::from_ref,
    time::Duration,
};

use clap::Parser;
use fred::{
    interfaces::{ClientLike, FunctionInterface},
    types::Value,
};
use serde_json::{Map, json};
use tokio::task::LocalSet;

use self::{
    client::{Connection, Dialect},
    options::{Options, Scenario, Store},
    process::Server,
    report::{Report, Sample},
    rounds::{Asking, HOLDERS, Load, Shape, Target},
    waiting::Replicas,
};

/// What texts are sealed with.
const KEY: &str = "bench:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

/// Whatever goes wrong ends the benchmark with one line.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let options = Options::parse();
    if let Some(port) = options.serve_canned {
        return baseline::serve_canned(port, options.workers);
    }
    if let Some([port, url]) = options.serve_spike.as_deref() {
        return baseline::serve_spike(port.parse()?, url, options.workers);
    }
    let bench = Bench::new(options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, bench.run())
}

struct Bench {
    options: Options,
    product: PathBuf,
    report: Report,
}

impl Bench {
    fn new(options: Options) -> Outcome<Self> {
        let product = std::env::var_os("MAILBOX_BIN")
            .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_mcp-messaging")), PathBuf::from);
        if !product.exists() {
            let shown = product.display();
            return Err(format!(
                "{shown} is missing: cargo build --release, or name another by MAILBOX_BIN"
            )
            .into());
        }
        Ok(Self { options, product, report: Report::default() })
    }

    fn shape(&self) -> Shape {
        Shape {
            dialect: if self.options.modern { Dialect::Modern } else { Dialect::Legacy },
            connections: self.options.connections.max(2),
            rounds: self.options.rounds(),
            seconds: self.options.seconds(),
        }
    }

    fn wants(&self, scenario: Scenario, store: Store) -> bool {
        self.options.wants(scenario) && self.options.with(store)
    }

    #[expect(clippy::print_stdout, reason = "the table is what this program is for")]
    async fn run(mut self) -> Outcome<()> {
        macro_rules! scenario {
            ($run:ident) => {
                self.$run().await?;
                print!("{}", self.report.take());
            };
        }
        scenario!(mcp);
        scenario!(send);
        scenario!(sealed);
        scenario!(keys);
        scenario!(replicas);
        scenario!(ask);
        scenario!(wake_up);
        scenario!(idle);
        scenario!(depth);
        scenario!(inboxes);
        scenario!(memory);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/mailbox.json");
        self.report.write(&path, &self.about())?;
        println!("\nwritten to {}", path.display());
        match self.report.missed().as_slice() {
            [] => println!("every budget is met"),
            missed => println!("missed: {}", missed.join("; ")),
        }
        Ok(())
    }

    fn about(&self) -> Map<String, serde_json::Value> {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let about = json!({
            "version": env!("CARGO_PKG_VERSION"), "product": self.product,
            "redis": process::version_of("redis-server"), "cores": cores,
            "workers": self.options.workers, "connections": self.options.connections,
            "rounds": self.options.rounds(), "seconds": self.options.seconds(),
            "modern": self.options.modern, "log": self.options.log,
        });
        about.as_object().cloned().unwrap_or_default()
    }

    fn canned(&self) -> Outcome<Server> {
        let (own, workers) = (std::env::current_exe()?, self.options.workers.to_string());
        Server::start(|port| {
            let mut command = Command::new(own);
            command.args(["--workers", &workers, "--serve-canned", &port.to_string()]);
            command
        })
    }

    fn spike(&self, redis: &Server) -> Outcome<Server> {
        Self::spike_with(redis, self.options.workers)
    }

    fn spike_with(redis: &Server, workers: usize) -> Outcome<Server> {
        let (own, workers) = (std::env::current_exe()?, workers.to_string());
        Server::start(|port| {
            let mut command = Command::new(own);
            command.args(["--workers", &workers, "--serve-spike", &port.to_string()]);
            command.arg(redis.redis_url());
            command
        })
    }

    /// The product, ready.
    async fn mailbox(&self, redis: Option<&Server>) -> Outcome<Server> {
        self.mailbox_with(redis, &[]).await
    }

    async fn mailbox_with(
        &self,
        redis: Option<&Server>,
        variables: &[(&str, &str)],
    ) -> Outcome<Server> {
        let server = Server::start(|port| {
            let mut command = Command::new(&self.product);
            command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
            command.env("MCP_MESSAGING__HTTP__WORKERS", self.options.workers.to_string());
            command.env("MCP_MESSAGING__LIMITS__INBOX_MESSAGES", "1000000");
            command.env("MCP_MESSAGING__LIMITS__INBOX_BYTES", "1000000000");
            // Permits are taken as always, and there are always some.
            for limit in ["PER_MINUTE", "AT_ONCE"] {
                let name = format!("MCP_MESSAGING__LIMITS__PRINCIPAL_MESSAGES_{limit}");
                command.env(name, "60000000");
            }
            command.env("LOG_LEVEL", &self.options.log);
            command.envs(variables.iter().copied());
            match redis {
                Some(redis) => command.env("REDIS_URL", redis.redis_url()),
                None => command.env_remove("REDIS_URL").env("QUEUE_BACKEND", "memory"),
            };
            command
        })?;
        let ready = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        for _ in 0..200 {
            if Connection::open(server.address()).await?.call(ready).await.is_ok() {
                return Ok(server);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err("the mailbox does not become ready".into())
    }

    /// A Redis with the functions of the spike.
    async fn redis_for_spike(&self) -> Outcome<Server> {
        let redis = Server::redis()?;
        let client = baseline::connect(&redis.redis_url())?;
        client.wait_for_connect().await?;
        let _: Value = client.function_load_cluster(true, baseline::LIBRARY).await?;
        client.quit().await?;
        Ok(redis)
    }

    async fn mcp(&mut self) -> Outcome<()> {
        if !self.wants(Scenario::Mcp, Store::Memory) {
            return Ok(());
        }
        let (canned, memory) = (self.canned()?, self.mailbox(None).await?);
        let target =
            |name, server, load| Target { name, servers: from_ref(server), redis: None, load };
        let targets = [
            target("canned answer", &canned, Load::Ping),
            target("ping", &memory, Load::Ping),
            target("tools/list", &memory, Load::ToolsList),
            target("canned answer to a send", &canned, Load::Send),
            target("send to memory", &memory, Load::Send),
        ];
        let shape = self.shape();
        let sides = rounds::report(&mut self.report, "protocol layer", &targets, shape).await?;
        let ratio = |own: usize, base: usize| sides[own].ratio(&sides[base], |s| s.server);
        self.report.verdict("ping / canned, server CPU", ratio(1, 0), 1.6, "x");
        self.report.note("tools/list / canned, server CPU", ratio(2, 0), "x");
        self.report.note("send to memory / canned, server CPU", ratio(4, 3), "x");
        Ok(())
    }

    async fn send(&mut self) -> Outcome<()> {
        let (bare, redis) = (self.redis_for_spike().await?, Server::redis()?);
        let spike = self.spike(&bare)?;
        let memory = self.mailbox(None).await?;
        let mailbox = self.mailbox(Some(&redis)).await?;
        let canned = self.canned()?;
        let shape = self.shape();
        for (scenario, title, load, requests, server_budget, redis_budget) in [
            (Scenario::Send, "send", Load::Send, 1.0, 1.25, 3.0),
            (Scenario::SendReceive, "send + receive", Load::SendReceive, 2.0, 1.5, f64::INFINITY),
        ] {
            if !self.options.wants(scenario) {
                continue;
            }
            let target = |name, server, redis| {
                let load = load.clone();
                Target { name, servers: from_ref(server), redis, load }
            };
            let mut targets = vec![target("spike", &spike, Some(&bare))];
            if self.options.with(Store::Redis) {
                targets.push(target("mailbox in Redis", &mailbox, Some(&redis)));
                let ping = |name, server| Target {
                    name,
                    servers: from_ref(server),
                    redis: None,
                    load: Load::Ping,
                };
                targets.extend([ping("canned answer", &canned), ping("ping", &mailbox)]);
                if load == Load::Send {
                    let load = Load::SendFromOne;
                    let (name, redis) = ("from one busy sender", Some(&redis));
                    targets.push(Target { name, servers: from_ref(&mailbox), redis, load });
                }
            }
            if self.options.with(Store::Memory) {
                targets.push(target("mailbox in memory", &memory, None));
            }
            let sides = rounds::report(&mut self.report, title, &targets, shape).await?;
            if self.options.with(Store::Redis) {
                let ratio = |field: fn(&Sample) -> f64| sides[1].ratio(&sides[0], field);
                let what = format!("{title} / spike, server CPU");
                self.report.verdict(&what, ratio(|s| s.server), server_budget, "x");
                // The spike speaks no MCP. What it would cost if it did, as `ping` is more than a canned answer.
                let spoken = sides[0].plus(requests, &sides[3], &sides[2]);
                let what = format!("{title} / spike and its requests' MCP, server CPU");
                self.report.note(&what, sides[1].ratio(&spoken, |s| s.server), "x");
                let what = format!("{title} / spike, Redis CPU");
                if redis_budget.is_finite() {
                    self.report.verdict(&what, ratio(|s| s.redis), redis_budget, "x");
                } else {
                    self.report.note(&what, ratio(|s| s.redis), "x");
                }
            }
        }
        Ok(())
    }

    /// What it costs to seal texts, against not to.
    async fn sealed(&mut self) -> Outcome<()> {
        if !self.wants(Scenario::Sealed, Store::Redis) {
            return Ok(());
        }
        let redis = (Server::redis()?, Server::redis()?);
        let plain = self.mailbox(Some(&redis.0)).await?;
        let keys = [("MCP_MESSAGING__ENCRYPTION__KEYS", KEY)];
        let sealed = self.mailbox_with(Some(&redis.1), &keys).await?;
        let target = |name, server, redis| {
            let load = Load::SendReceive;
            Target { name, servers: from_ref(server), redis: Some(redis), load }
        };
        let targets =
            [target("plain texts", &plain, &redis.0), target("sealed texts", &sealed, &redis.1)];
        let (title, shape) = ("send + receive, sealed", self.shape());
        let sides = rounds::report(&mut self.report, title, &targets, shape).await?;
        let ratio = |field: fn(&Sample) -> f64| sides[1].ratio(&sides[0], field);
        self.report.note("sealed / plain, server CPU", ratio(|s| s.server), "x");
        self.report.note("sealed / plain, Redis CPU", ratio(|s| s.redis), "x");
        Ok(())
    }

    /// What it costs to check keys, against not to ask for them.
    async fn keys(&mut self) -> Outcome<()> {
        if !self.wants(Scenario::Keys, Store::Redis) {
            return Ok(());
        }
        let redis = [Server::redis()?, Server::redis()?, Server::redis()?];
        let master = keys::master(&self.product)?;
        let asked = [("MCP_MESSAGING__AUTH__MODE", "key"), (keys::MASTERS, master.as_str())];
        let servers = [
            self.mailbox(Some(&redis[0])).await?,
            self.mailbox_with(Some(&redis[1]), &asked).await?,
            self.mailbox_with(Some(&redis[2]), &asked).await?,
        ];
        for server in &servers[1..] {
            let ping = self.shape().dialect.request("ping", json!({}));
            if Connection::open(server.address()).await?.call(&ping).await.is_ok() {
                return Err("a server that is to ask for keys takes a request without one".into());
            }
        }
        let one = keys::issue(&self.product, &master, &redis[1], &["k.*".to_owned()])?;
        let holders: Vec<_> = (0..HOLDERS).map(rounds::holder).collect();
        let each = keys::issue(&self.product, &master, &redis[2], &holders)?;
        let target = |name, number: usize, keys: Vec<String>| Target {
            name,
            servers: from_ref(&servers[number]),
            redis: Some(&redis[number]),
            load: Load::SendWith(keys.into()),
        };
        let targets = [
            target("no keys", 0, Vec::new()),
            target("one key of all senders", 1, one),
            target("256 keys, one of each sender", 2, each),
        ];
        let (title, shape) = ("send, 256 senders", self.shape());
        let sides = rounds::report(&mut self.report, title, &targets, shape).await?;
        for (side, which) in [(&sides[1], "one key"), (&sides[2], "256 keys")] {
            let ratio = |field: fn(&Sample) -> f64| side.ratio(&sides[0], field);
            self.report.note(&format!("{which} / none, server CPU"), ratio(|s| s.server), "x");
            self.report.note(&format!("{which} / none, Redis CPU"), ratio(|s| s.redis), "x");
        }
        Ok(())
    }

    /// What a send costs where replicas share a Redis, against one that has it alone.
    async fn replicas(&mut self) -> Outcome<()> {
        /// Of each replica, on both sides: the machine that counts has two cores.
        const WORKERS: usize = 1;
        if !self.wants(Scenario::Replicas, Store::Redis) {
            return Ok(());
        }
        let workers = [("MCP_MESSAGING__HTTP__WORKERS", &*WORKERS.to_string())];
        let mut groups = Vec::new();
        for (count, spike, mailbox) in [
            (1, "spike, 1 replica", "mailbox, 1 replica"),
            (2, "spike, 2 replicas", "mailbox, 2 replicas"),
            (4, "spike, 4 replicas", "mailbox, 4 replicas"),
        ] {
            // A Redis for each number of them: what rests in one is no load on another.
            let (bare, redis) = (self.redis_for_spike().await?, Server::redis()?);
            let (mut spikes, mut mailboxes) = (Vec::new(), Vec::new());
            for _ in 0..count {
                spikes.push(Self::spike_with(&bare, WORKERS)?);
                mailboxes.push(self.mailbox_with(Some(&redis), &workers).await?);
            }
            groups.extend([(spike, spikes, bare), (mailbox, mailboxes, redis)]);
        }
        let targets: Vec<_> = groups
            .iter()
            .map(|(name, servers, redis)| Target {
                name,
                servers,
                redis: Some(redis),
                load: Load::Send,
            })
            .collect();
        let (title, shape) = ("send to replicas", self.shape());
        let sides = rounds::report(&mut self.report, title, &targets, shape).await?;
        for (own, count) in [(2, 2), (4, 4)] {
            let growth = |side: usize, field: fn(&Sample) -> f64| {
                let growth = sides[own + side].ratio(&sides[side], field);
                (growth * 100.0).round() / 100.0 // as it is shown
            };
            let (spike, mailbox) = (growth(0, |s| s.server), growth(1, |s| s.server));
            self.report.note(&format!("spike, {count} replicas / 1, server CPU"), spike, "x");
            let what = format!("mailbox, {count} replicas / 1, server CPU");
            self.report.verdict(&what, mailbox, spike, "x");
            for (side, name) in [(0, "spike"), (1, "mailbox")] {
                let what = format!("{name}, {count} replicas / 1, Redis CPU");
                self.report.note(&what, growth(side, |s| s.redis), "x");
            }
        }
        Ok(())
    }

    async fn ask(&mut self) -> Outcome<()> {
        if !self.options.wants(Scenario::Ask) {
            return Ok(());
        }
        let (bare, redis) = (self.redis_for_spike().await?, Server::redis()?);
        let spike = self.spike(&bare)?;
        let memory = self.mailbox(None).await?;
        let mailbox = self.mailbox(Some(&redis)).await?;
        let target = |name, server, redis, asking| Target {
            name,
            servers: from_ref(server),
            redis,
            load: Load::Ask(asking),
        };
        let mut targets = vec![target("spike (two calls)", &spike, Some(&bare), Asking::TwoCalls)];
        if self.options.with(Store::Redis) {
            targets.push(target("mailbox in Redis", &mailbox, Some(&redis), Asking::OneCall));
        }
        if self.options.with(Store::Memory) {
            targets.push(target("mailbox in memory", &memory, None, Asking::OneCall));
        }
        let title = "question and answer";
        let shape = self.shape();
        let sides = rounds::report(&mut self.report, title, &targets, shape).await?;
        if self.options.with(Store::Redis) {
            let ratio = |field: fn(&Sample) -> f64| sides[1].ratio(&sides[0], field);
            self.report.note("question / spike, server CPU", ratio(|s| s.server), "x");
            self.report.note("question / spike, Redis CPU", ratio(|s| s.redis), "x");
        }
        Ok(())
    }

    async fn wake_up(&mut self) -> Outcome<()> {
        if !self.wants(Scenario::Wakeup, Store::Redis) {
            return Ok(());
        }
        let (bare, redis) = (self.redis_for_spike().await?, Server::redis()?);
        let spikes = (self.spike(&bare)?, self.spike(&bare)?);
        let mailboxes = (self.mailbox(Some(&redis)).await?, self.mailbox(Some(&redis)).await?);
        let pairs = [
            ("spike", &spikes, Dialect::Legacy),
            ("mailbox, 2026-07-28", &mailboxes, Dialect::Modern),
            ("mailbox, 2025-11-25 in a session", &mailboxes, Dialect::Legacy),
        ]
        .map(|(name, servers, dialect)| Replicas {
            name,
            sends: &servers.0,
            waits: &servers.1,
            dialect,
        });
        let each = if self.options.quick { 100 } else { 400 };
        let sides = waiting::wake_up(&pairs, self.options.rounds(), each).await?;
        let title = "wake-up across replicas";
        self.report.title(title);
        for side in &sides {
            self.report.side(title, side);
        }
        for (side, era) in [(&sides[1], "2026-07-28"), (&sides[2], "in a session")] {
            let p50 = side.ratio(&sides[0], |s| s.p50);
            let p99 = side.ratio(&sides[0], |s| s.p99);
            self.report.verdict(&format!("wake-up / spike, {era}, p50"), p50, 1.3, "x");
            self.report.verdict(&format!("wake-up / spike, {era}, p99"), p99, 1.3, "x");
        }
        Ok(())
    }

    async fn idle(&mut self) -> Outcome<()> {
        if !self.wants(Scenario::Idle, Store::Redis) {
            return Ok(());
        }
        let dialect = self.shape().dialect;
        let most = process::open_files().saturating_sub(500).min(8_000);
        let counts: &[usize] = if self.options.quick { &[1_000] } else { &[1_000, most] };
        // Long enough for two signs of life and a poll.
        let hold = Duration::from_secs(if self.options.quick { 16 } else { 40 });
        self.report.title("idle waiters");
        for &count in counts {
            let (bare, redis) = (self.redis_for_spike().await?, Server::redis()?);
            let spike = self.spike(&bare)?;
            let mailbox = self.mailbox(Some(&redis)).await?;
            let warm = Shape { rounds: 1, seconds: 0.5, ..self.shape() };
            for (server, redis) in [(&spike, &bare), (&mailbox, &redis)] {
                let load = Load::Send;
                let servers = from_ref(server);
                let target = Target { name: "warm", servers, redis: Some(redis), load };
                rounds::compare(&[target], warm).await?;
            }
            let report = &mut self.report;
            let (name, brief) = (format!("spike, {count}"), Duration::from_secs(5));
            waiting::idle(report, &name, &spike, dialect, count, brief).await?;
            drop(spike);
            let name = format!("mailbox, {count}");
            let idle = waiting::idle(report, &name, &mailbox, dialect, count, hold).await?;
            let what = format!("idle waiter of {count}, memory");
            self.report.verdict(&what, idle.bytes / 1024.0, 16.0, " KB");
            let what = format!("idle waiter of {count}, CPU per second");
            self.report.verdict(&what, idle.cpu, 15.0, " us");
        }
        Ok(())
    }

    async fn depth(&mut self) -> Outcome<()> {
        if !self.wants(Scenario::Depth, Store::Redis) {
            return Ok(());
        }
        let redis = Server::redis()?;
        let mailbox = self.mailbox(Some(&redis)).await?;
        let shape = self.shape();
        let depths: &[usize] =
            if self.options.quick { &[10, 10_000] } else { &[10, 10_000, 100_000] };
        store::depth(&mut self.report, &mailbox, &redis, depths, shape).await
    }

    async fn inboxes(&mut self) -> Outcome<()> {
        if !self.wants(Scenario::Inboxes, Store::Redis) {
            return Ok(());
        }
        let redis = (Server::redis()?, Server::redis()?);
        let few = self.mailbox(Some(&redis.0)).await?;
        let many = self.mailbox(Some(&redis.1)).await?;
        let count = if self.options.quick { 10_000 } else { 100_000 };
        let (few, many) = ((&few, &redis.0, 100), (&many, &redis.1, count));
        let shape = self.shape();
        store::inboxes(&mut self.report, few, many, shape).await
    }

    async fn memory(&mut self) -> Outcome<()> {
        if !self.wants(Scenario::Memory, Store::Redis) {
            return Ok(());
        }
        let redis = Server::redis()?;
        let mailbox = self.mailbox(Some(&redis)).await?;
        let client = baseline::connect(&redis.redis_url())?;
        client.wait_for_connect().await?;
        let shape = self.shape();
        store::memory(&mut self.report, &mailbox, &client, shape).await
    }
}
