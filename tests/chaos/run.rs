//! One run of one row: build, load, trouble, drain, verdict.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    Outcome,
    checker::{self, Verdict},
    history::Recorder,
    load::Load,
    replica::{self, LEASE},
    rows::{Promise, Row},
    site::Site,
};

/// Load before the first fault and after the last one.
const CALM: Duration = Duration::from_millis(1500);
/// What is missing may come so long after the load: leases, waits of dead replicas (5 s and 10 s of grace),
/// the safety poll, and a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// With sabotage it will not come.
const LITTLE_PATIENCE: Duration = Duration::from_secs(8);
/// How often the replicas are asked for their counts: what a replica counted since dies with it.
const SCRAPE_EVERY: Duration = Duration::from_millis(250);

/// What a run brought to light.
#[derive(Debug, Clone, Default)]
pub(crate) struct Findings {
    pub verdict: Verdict,
    pub counts: Counts,
}

/// From the metrics of all replicas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Wake-ups that only the safety poll brought.
    pub missed_wake_ups: u64,
    /// Subscriptions found deaf and renewed.
    pub deaf: u64,
}

/// Where a run of a row keeps its logs.
pub(crate) fn dir(row: &str, seed: u64) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/chaos/{row}-{seed}"))
}

/// Runs a row once. An error: it could not be run, or the site did not recover.
pub(crate) async fn run(row: &Row, seed: u64, program: &Path) -> Outcome<Findings> {
    let mut chance = StdRng::seed_from_u64(seed);
    let sabotage = match row.promise {
        Promise::Broken(sabotage) => Some(sabotage),
        Promise::Everything | Promise::Unnoticed | Promise::Measured | Promise::Kept => None,
    };
    let dir = dir(row.name, seed);
    let mut site = Site::start(&dir, program, row, sabotage, &mut chance).await?;
    let recorder = Recorder::new();
    let mut load = Load::begin(row.crew, site.addresses(), &recorder, seed);
    let (stop, stopped) = watch::channel(());
    let counting = tokio::spawn(count(site.addresses(), stopped));

    sleep(CALM).await;
    row.fault.strike(&mut site, &mut chance, row.lasting).await?;
    site.ready().await?;
    sleep(CALM).await;

    let patience = Instant::now()
        + match row.promise {
            Promise::Everything | Promise::Unnoticed | Promise::Kept => PATIENCE,
            Promise::Measured => PATIENCE / 2,
            Promise::Broken(_) => LITTLE_PATIENCE,
        };
    let sent = timeout(patience - Instant::now(), load.drain()).await;
    while recorder.with(|history| checker::missing(history)) > 0 && Instant::now() < patience {
        sleep(Duration::from_millis(100)).await;
    }
    // What was handed out to nobody comes again now, if it was not acknowledged.
    sleep(LEASE + Duration::from_secs(1)).await;
    load.end().await?;
    drop(stop);
    let counts = counting.await?;
    match sent {
        Ok(sent) => sent?,
        Err(_elapsed) if matches!(row.promise, Promise::Everything | Promise::Unnoticed) => {
            return Err("senders still have no answer".into());
        }
        Err(_elapsed) => {}
    }
    let verdict = recorder.with(|history| checker::check(history));
    Ok(Findings { verdict, counts })
}

/// Adds up what replicas count, over their restarts.
async fn count(replicas: Vec<SocketAddr>, mut stopped: watch::Receiver<()>) -> Counts {
    const NAMES: [&str; 2] =
        ["mcp_messaging_missed_wakeups_total", "mcp_messaging_deaf_subscriptions_total"];
    let mut last: HashMap<(SocketAddr, &str), u64> = HashMap::new();
    let mut sums: HashMap<&str, u64> = HashMap::new();
    loop {
        let over = timeout(SCRAPE_EVERY, stopped.changed()).await.is_ok();
        for &replica in &replicas {
            let Some((200, text)) = replica::get(replica, "/metrics").await else { continue };
            for name in NAMES {
                let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
                let now = line.and_then(|number| number.trim().parse().ok()).unwrap_or(0);
                let before = last.insert((replica, name), now).unwrap_or(0);
                // Less than before: it was started again.
                *sums.entry(name).or_default() += if now < before { now } else { now - before };
            }
        }
        if over {
            let sum = |name| sums.get(name).copied().unwrap_or_default();
            return Counts { missed_wake_ups: sum(NAMES[0]), deaf: sum(NAMES[1]) };
        }
    }
}
