//! A rolling upgrade of the functions: libraries of three revisions, and replicas that come and go meanwhile.
//!
//! No released version exists yet, so the other version is the same library under another revision, loaded by
//! hand as another version's `migrate` would. What is tried is what a revision decides: who replaces whom.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::{Rng, rngs::StdRng};
use tokio::{task::spawn_blocking, time::sleep};

use crate::{
    Outcome,
    replica::Replica,
    resp::{self, Value},
    sabotage::LIBRARY,
    site::Site,
};

/// How often the revision is asked for.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The revision of the product's own library.
fn own_revision() -> Outcome<i64> {
    let line = LIBRARY.lines().find_map(|line| line.strip_prefix("local REVISION = "));
    Ok(line.ok_or("the library has no revision")?.trim().parse()?)
}

/// The library of another version.
fn library_of(revision: i64) -> Outcome<String> {
    let own = own_revision()?;
    let (old, new) =
        (format!("local REVISION = {own}\n"), format!("local REVISION = {revision}\n"));
    if !LIBRARY.contains(&old) {
        return Err("the library does not say its revision as it did".into());
    }
    Ok(LIBRARY.replace(&old, &new))
}

async fn load(port: u16, revision: i64) -> Outcome<()> {
    resp::tell(port, &["FUNCTION", "LOAD", "REPLACE", &library_of(revision)?]).await?;
    Ok(())
}

async fn revision(port: u16) -> Outcome<i64> {
    let answer = resp::ask(port, &["FCALL", "mb1_revision", "0"]).await?;
    let Value::Integer(revision) = answer else {
        return Err(format!("no revision: {answer:?}").into());
    };
    Ok(revision)
}

/// Upgrades in both orders, each replica restarted in each, `migrate` in between.
pub(crate) async fn roll(site: &mut Site, chance: &mut StdRng) -> Outcome<()> {
    let (port, own) = (site.store.single()?.port, own_revision()?);
    // An old library is there, and new replicas join: the first one brings its own.
    load(port, own - 1).await?;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let watcher = tokio::spawn(watch(port, Arc::clone(&seen)));
    sleep(Duration::from_millis(chance.random_range(100..500))).await;
    migrate_twice(&site.replicas[0], own, port).await?;
    roll_replicas(site, chance).await?;
    expect(port, own).await?;
    // A newer library is there, and old replicas go on and come back: they leave it.
    load(port, own + 1).await?;
    roll_replicas(site, chance).await?;
    migrate_twice(&site.replicas[0], own + 1, port).await?;
    expect(port, own + 1).await?;
    watcher.abort();
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if seen.is_sorted() && seen.contains(&(own - 1)) && seen.last() == Some(&(own + 1)) {
        return Ok(());
    }
    Err(format!("the library went back and forth: revisions {seen:?}").into())
}

async fn expect(port: u16, wanted: i64) -> Outcome<()> {
    let found = revision(port).await?;
    if found == wanted { Ok(()) } else { Err(format!("revision {found}, not {wanted}").into()) }
}

/// Takes down every change of the revision.
async fn watch(port: u16, seen: Arc<Mutex<Vec<i64>>>) {
    loop {
        if let Ok(now) = revision(port).await {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.last() != Some(&now) {
                seen.push(now);
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn roll_replicas(site: &mut Site, chance: &mut StdRng) -> Outcome<()> {
    for replica in &mut site.replicas {
        replica.terminate().await?;
        replica.restart().await?;
        replica.ready().await?;
        sleep(Duration::from_millis(chance.random_range(50..300))).await;
    }
    Ok(())
}

/// Runs `mcp-messaging migrate` twice at once, and once more: each succeeds and leaves this revision.
async fn migrate_twice(replica: &Replica, wanted: i64, port: u16) -> Outcome<()> {
    let run = |program: &Path| {
        let mut command = Command::new(program);
        command.arg("migrate").env_clear().env("REDIS_URL", format!("redis://127.0.0.1:{port}"));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        spawn_blocking(move || command.status())
    };
    let (one, two) = tokio::join!(run(&replica.program), run(&replica.program));
    let again = run(&replica.program).await;
    for ran in [one, two, again] {
        let status = ran??;
        if !status.success() {
            return Err(format!("migrate: {status}").into());
        }
    }
    expect(port, wanted).await
}
