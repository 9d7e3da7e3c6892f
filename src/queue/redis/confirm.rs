//! Sends that replicas of Redis have before they are answered: `redis.durability = "replicated"`.
//!
//! `WAIT` covers what its own connection wrote, and holds that connection up. So these sends have a
//! connection of their own (in a cluster one per primary), and travel in groups: while the replicas take in
//! one, the next one gathers. One `WAIT` covers a group, so replicas that hang delay a send by two timeouts
//! at most, however many sends there are, and delay nothing else at all.
//!
//! The functions of a group and its `WAIT` go out as one pipeline: the client library writes that to one
//! connection or fails it, and with a single attempt (`link`) never sends a part of it again on another
//! one, whose `WAIT` would have nothing to wait for and promise everything.

use std::{collections::HashMap, sync::Arc};

use fred::{
    error::{Error, ErrorKind},
    interfaces::{ClientLike, ClusterInterface},
    types::{ClusterHash, CustomCommand, InfoKind, Value, config::Server},
};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use super::link::{Attempts, Call, Confirm, Link, field};
use crate::queue::QueueError;

/// Calls of one group at most: it is written at once, and answered at once.
const GROUP: usize = 128;
/// Calls that may gather for one primary.
const GATHERING: usize = 8192;

/// The way of writes that replicas confirm. Cheap to clone.
#[derive(Clone)]
pub(super) struct Confirming {
    link: Link,
    confirm: Confirm,
    lanes: Arc<Mutex<HashMap<Option<Server>, mpsc::Sender<Ask>>>>,
    tasks: TaskTracker,
}

/// One call on its way, and where its answer goes.
struct Ask {
    command: CustomCommand,
    words: Vec<Value>,
    slot: u16,
    answer: oneshot::Sender<Result<(Value, bool), Error>>,
}

impl Confirming {
    /// On a link that nothing else uses.
    pub(super) fn new(link: Link, confirm: Confirm, tasks: TaskTracker) -> Self {
        Self { link, confirm, lanes: Arc::default(), tasks }
    }

    /// Says in the log if no send can be confirmed now, as far as Redis lets us ask.
    pub(super) async fn report(&self) {
        let info: Result<String, Error> = self.link.client.info(Some(InfoKind::Replication)).await;
        let replicas = info.ok().and_then(|info| field(&info, "connected_slaves")?.parse().ok());
        if replicas.is_some_and(|replicas: u32| replicas < self.confirm.replicas) {
            tracing::warn!(
                replicas,
                needed = self.confirm.replicas,
                "sends will be unconfirmed: Redis has fewer replicas than redis.confirm_replicas"
            );
        }
    }

    /// Whether replicas can be waited for at all.
    ///
    /// # Errors
    /// The user of Redis may not.
    pub(super) async fn allowed(&self) -> Result<(), QueueError> {
        // Nothing to wait for: answered at once.
        let (command, words) = wait(0, Confirm { replicas: 0, ..self.confirm });
        let asked: Result<Value, Error> = self.link.client.custom(command, words).await;
        let detail = match asked {
            Ok(_) => return Ok(()),
            Err(error) if error.details().starts_with("NOPERM") => {
                "the Redis user may not WAIT, as redis.durability = replicated asks for: allow it (+wait)"
                    .to_owned()
            }
            Err(error) => error.to_string(),
        };
        Err(QueueError::Unavailable { detail })
    }

    /// Calls a function that writes. Also: whether the replicas had it in time.
    pub(super) async fn make(&self, mut call: Call) -> Result<(Value, bool), QueueError> {
        let mut attempts = Attempts::default();
        let result = loop {
            match self.once(&mut call).await {
                Ok(answer) => break Ok(answer),
                Err(error) => {
                    if let Err(error) = self.link.failed(&mut attempts, &mut call, &error).await {
                        break Err(error);
                    }
                }
            }
        };
        self.link.made(&attempts, &call);
        result
    }

    async fn once(&self, call: &mut Call) -> Result<(Value, bool), Error> {
        let (command, words) = call.named(self.link.has_functions());
        match self.ask(command, words, call.slot).await {
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                let (command, words) = call.in_full();
                self.ask(command, words, call.slot).await
            }
            other => other,
        }
    }

    async fn ask(
        &self,
        command: CustomCommand,
        words: Vec<Value>,
        slot: u16,
    ) -> Result<(Value, bool), Error> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask { command, words, slot, answer };
        let lane = self.lane(owner(&self.link, slot));
        let in_turn = async {
            // Neither can fail while the process runs: the lane ends with its last sender.
            lane.send(ask).await.map_err(|_| gone())?;
            answered.await.map_err(|_| gone())?
        };
        // One group under way and the one of this call, each as long as the link gives it.
        let patience = 2 * (self.link.command_timeout + self.confirm.within);
        let timed_out = |_| Error::new(ErrorKind::Timeout, "no answer from Redis in time");
        timeout(patience, in_turn).await.map_err(timed_out)?
    }

    /// The lane to a primary.
    fn lane(&self, primary: Option<Server>) -> mpsc::Sender<Ask> {
        let mut lanes = self.lanes.lock();
        let begin = |primary: &Option<Server>| {
            let (lane, asks) = mpsc::channel(GATHERING);
            self.tasks.spawn(serve(self.link.clone(), self.confirm, primary.clone(), asks));
            lane
        };
        lanes.entry(primary).or_insert_with_key(begin).clone()
    }
}

/// The primary of a slot; `None` where there is only one.
fn owner(link: &Link, slot: u16) -> Option<Server> {
    link.client.cached_cluster_state()?.get_server(slot).cloned()
}

fn gone() -> Error {
    Error::new(ErrorKind::Canceled, "the connection for confirmed sends has ended")
}

/// `WAIT` on the connection to the primary of a slot.
fn wait(slot: u16, confirm: Confirm) -> (CustomCommand, Vec<Value>) {
    let command = CustomCommand::new_static("WAIT", ClusterHash::Custom(slot), false);
    let within = i64::try_from(confirm.within.as_millis()).unwrap_or(i64::MAX).max(1);
    (command, vec![Value::Integer(confirm.replicas.into()), Value::Integer(within)])
}

/// Writes one group after the other. Ends with the last sender.
async fn serve(
    link: Link,
    confirm: Confirm,
    primary: Option<Server>,
    mut asks: mpsc::Receiver<Ask>,
) {
    let mut group = Vec::with_capacity(GROUP);
    while asks.recv_many(&mut group, GROUP).await > 0 {
        // Who no longer listens was told that it may have happened; it need not.
        group.retain(|ask| !ask.answer.is_closed());
        if let Some(first) = group.first() {
            let slot = first.slot;
            let stays = |group: &[Ask]| group.iter().all(|ask| owner(&link, ask.slot) == primary);
            let results = if stays(&group) {
                write(&link, confirm, slot, &group).await
            } else {
                Err(moved())
            };
            // A `WAIT` at another primary than the functions confirms nothing.
            let results =
                results.and_then(|results| if stays(&group) { Ok(results) } else { Err(moved()) });
            answer(&mut group, results, confirm);
        }
        group.clear();
    }
}

fn moved() -> Error {
    Error::new(ErrorKind::Cluster, "the slot moved to another primary meanwhile")
}

/// The answers of a group's functions, and of its `WAIT` behind them. An error: it broke off somewhere.
async fn write(
    link: &Link,
    confirm: Confirm,
    slot: u16,
    group: &[Ask],
) -> Result<Vec<Result<Value, Error>>, Error> {
    let pipeline = link.client.pipeline();
    for ask in group {
        let () = pipeline.custom(ask.command.clone(), ask.words.clone()).await?;
    }
    let (command, words) = wait(slot, confirm);
    let () = pipeline.custom(command, words).await?;
    let mut results = pipeline.try_all::<Value>().await;
    if results.len() == group.len() + 1 {
        return Ok(results);
    }
    Err(results.pop().and_then(Result::err).unwrap_or_else(gone))
}

fn answer(
    group: &mut Vec<Ask>,
    results: Result<Vec<Result<Value, Error>>, Error>,
    confirm: Confirm,
) {
    match results {
        Err(error) => {
            for ask in group.drain(..) {
                let _ = ask.answer.send(Err(error.clone()));
            }
        }
        Ok(mut results) => {
            let confirmed = match results.pop() {
                Some(Ok(have_it)) => have_it.as_u64().is_some_and(|n| n >= confirm.replicas.into()),
                Some(Err(error)) => {
                    tracing::warn!(error = %error, "Redis does not wait for its replicas");
                    false
                }
                None => false,
            };
            for (ask, result) in group.drain(..).zip(results) {
                // Who no longer listens was told that it may have happened.
                let _ = ask.answer.send(result.map(|value| (value, confirmed)));
            }
        }
    }
}
