//! `mcp-messaging pairs`: which two clients are paused because they look like a loop, and ending a pause.

use std::time::Duration;

use clap::Subcommand;

use super::{
    StartError,
    commands::{self, say},
};
use crate::{
    config::{Backend, Config},
    model::{ClientId, Tenant},
    queue::{LimitStore, Pair, QueueError, redis::RedisQueue},
};

/// What can be done about pairs.
#[derive(Subcommand)]
pub enum PairsCommand {
    /// Lists the pairs that are paused, and for how much longer.
    List {
        /// Of this tenant.
        #[arg(long, default_value = "default")]
        tenant: Tenant,
    },
    /// Lets two clients send to each other again. Servers know it within 4 seconds.
    Lift {
        /// One of the two.
        one: ClientId,
        /// The other one.
        other: ClientId,
        /// Of this tenant.
        #[arg(long, default_value = "default")]
        tenant: Tenant,
    },
}

const NEEDS_REDIS: &str = "the servers keep pauses in Redis: set redis.url (REDIS_URL). Without Redis a pause ends after \
                           limits.pair_pause_seconds, or when the server is started again";

/// Does what the command says.
///
/// # Errors
/// There is no Redis, it does not answer, or the two are not paused.
pub fn run(config: &Config, command: &PairsCommand) -> Result<(), StartError> {
    if config.backend() == Backend::Memory {
        return Err(StartError::Pairs(NEEDS_REDIS.to_owned()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = commands::redis(config)?;
        let done = match command {
            PairsCommand::List { tenant } => list(&store, tenant).await.map_err(StartError::from),
            PairsCommand::Lift { one, other, tenant } => lift(&store, tenant, one, other).await,
        };
        commands::explained(&store, done).await
    })
}

async fn lift(
    store: &RedisQueue,
    tenant: &Tenant,
    one: &ClientId,
    other: &ClientId,
) -> Result<(), StartError> {
    if !store.lift(&Pair::new(tenant.clone(), one.clone(), other.clone())).await? {
        let none = "these two are not paused; `mcp-messaging pairs list` says who is";
        return Err(StartError::Pairs(none.to_owned()));
    }
    say(&format!("{} and {} may send to each other again", one.expose(), other.expose()));
    eprintln!("Servers that hold them to be paused know it within 4 seconds.");
    Ok(())
}

async fn list(store: &RedisQueue, tenant: &Tenant) -> Result<(), QueueError> {
    let mut pairs = store.paused_pairs(tenant).await?;
    pairs.sort_by_key(|(pair, left)| (*left, pair.name()));
    eprintln!("Pairs of clients of tenant {} that are paused:", tenant.as_str());
    for (pair, left) in pairs {
        let (one, other) = pair.clients();
        let left = left.max(Duration::from_secs(1)).as_secs();
        say(&format!("{} {}, for another {left} s", one.expose(), other.expose()));
    }
    Ok(())
}
