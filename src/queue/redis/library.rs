//! Bringing the functions to where they are called: every primary, one loader at a time.
//!
//! `FUNCTION LOAD REPLACE` asks nothing. So whoever replaces holds a lock, looks then which revision each primary
//! has, and replaces older ones only: an old server never undoes what a newer one loads at the same moment, and
//! in a cluster a primary that lost its library costs no other one a newer one. Where there is none, it is
//! loaded without `REPLACE`, which needs no lock.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use fred::{
    error::Error,
    interfaces::{ClientLike, ClusterInterface},
    types::{ClusterHash, CustomCommand, Value},
};

use super::{
    functions::{self, Operation, REVISION},
    keys,
    link::Link,
    reply::{self, Failure},
    text,
};
use crate::queue::QueueError;

/// What an operator is told, and readiness is told by.
pub(super) const MAY_NOT_LOAD: &str =
    "the Redis user may not load functions: run `mcp-messaging migrate` with one that may";
/// A loader that went away in the middle holds the others up for so long.
const LOCKED_FOR: Duration = Duration::from_secs(5);
/// How long the others wait until they look again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A slot of each primary that has no library, or an older one.
#[derive(Default)]
struct Primaries {
    without: Vec<u16>,
    older: Vec<u16>,
}

impl Link {
    /// Brings every primary to our revision or leaves it at a newer one. Safe to call from many replicas.
    pub(super) async fn ensure(&self) -> Result<(), QueueError> {
        // As any call does, this waits for Redis, and finds out whether it has functions at all.
        let revision = self.call(Operation::Revision, 0, Vec::new(), Vec::new()).await?;
        let revision = reply::integer(&revision)?;
        if revision >= REVISION && self.primaries().len() == 1 {
            self.metrics.function_revision(revision);
            return Ok(());
        }
        self.load().await
    }

    /// [`ensure`](Self::ensure) of a Redis that answers, without repeating what fails.
    pub(super) async fn load(&self) -> Result<(), QueueError> {
        let began = Instant::now();
        loop {
            let state = self.look().await?;
            for slot in state.without {
                self.load_on(slot, false).await?;
            }
            if state.older.is_empty() {
                return Ok(());
            }
            let locked = Instant::now();
            if self.lock().await? {
                let replaced = self.replace_older().await;
                // One that was held for long may be somebody else's by now.
                if locked.elapsed() < LOCKED_FOR / 2 {
                    self.unlock().await;
                }
                return replaced;
            }
            if began.elapsed() > self.retry_for + LOCKED_FOR {
                let detail = "other processes keep loading functions; try again".to_owned();
                return Err(QueueError::Unavailable { detail });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Which revisions there are. None where the server has no functions.
    async fn look(&self) -> Result<Primaries, QueueError> {
        let (mut state, mut lowest) = (Primaries::default(), i64::MAX);
        for slot in self.primaries() {
            if !self.has_functions() {
                return Ok(Primaries::default());
            }
            let words = vec![text(Operation::Revision.name()), Value::Integer(0)];
            let revision = match self.command("FCALL", slot, words).await {
                Ok(value) => reply::integer(&value)?,
                Err(error) => match reply::sort(&error) {
                    Failure::FunctionMissing => {
                        state.without.push(slot);
                        continue;
                    }
                    failure @ (Failure::NoFunctions | Failure::Passing(_) | Failure::Final(_)) => {
                        self.no_functions(failure)?;
                        continue;
                    }
                },
            };
            if revision < REVISION {
                state.older.push(slot);
            }
            lowest = lowest.min(revision);
        }
        if lowest != i64::MAX {
            self.metrics.function_revision(lowest);
        }
        Ok(state)
    }

    async fn replace_older(&self) -> Result<(), QueueError> {
        for slot in self.look().await?.older {
            self.load_on(slot, true).await?;
        }
        self.metrics.function_revision(REVISION);
        Ok(())
    }

    async fn load_on(&self, slot: u16, replace: bool) -> Result<(), QueueError> {
        let mut words = vec![text("LOAD"), text(functions::library())];
        if replace {
            words.insert(1, text("REPLACE"));
        }
        match self.command("FUNCTION", slot, words).await {
            Ok(_name) => Ok(()),
            Err(error) if error.details().ends_with("already exists") => Ok(()),
            Err(error) if error.details().starts_with("NOPERM") => {
                Err(QueueError::Unavailable { detail: MAY_NOT_LOAD.to_owned() })
            }
            Err(error) => self.no_functions(reply::sort(&error)),
        }
    }

    /// Notes that there are no functions, if that is what failed.
    fn no_functions(&self, failure: Failure) -> Result<(), QueueError> {
        match failure {
            Failure::NoFunctions => {
                self.scripts.store(true, Ordering::Relaxed);
                Ok(())
            }
            Failure::Final(error) | Failure::Passing(error) => Err(error),
            Failure::FunctionMissing => {
                let detail = "the functions were lost again; try again".to_owned();
                Err(QueueError::Unavailable { detail })
            }
        }
    }

    async fn lock(&self) -> Result<bool, QueueError> {
        let (key, slot) = keys::loading();
        let life = super::millis(LOCKED_FOR);
        let words = vec![text(&key), text("1"), text("NX"), text("PX"), life];
        let set = self.command("SET", slot, words).await;
        set.map(|answer| !answer.is_null()).map_err(|error| QueueError::Unavailable {
            detail: format!("the functions cannot be loaded, because the lock {key}: {error}"),
        })
    }

    async fn unlock(&self) {
        let (key, slot) = keys::loading();
        if let Err(error) = self.command("UNLINK", slot, vec![text(&key)]).await {
            tracing::warn!(error = %error, "unlocking the functions failed; others load them in some seconds");
        }
    }

    /// A slot of each primary.
    fn primaries(&self) -> Vec<u16> {
        let slots = self.client.cached_cluster_state().map(|state| state.unique_hash_slots());
        slots.filter(|slots| !slots.is_empty()).unwrap_or_else(|| vec![0])
    }

    async fn command(
        &self,
        name: &'static str,
        slot: u16,
        words: Vec<Value>,
    ) -> Result<Value, Error> {
        let command = CustomCommand::new_static(name, ClusterHash::Custom(slot), false);
        self.client.custom(command, words).await
    }
}
