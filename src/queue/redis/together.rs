//! Calls that are ready at the same moment travel as one.
//!
//! A command costs the client library and Redis as much as what most functions do. So what gathers while a
//! worker is busy goes out as one call of `mb1_many`, which runs each on its own: one that fails fails alone.
//! Nothing waits for company: a call that is alone goes at once, as it is. Only where one server has all keys.

use fred::{
    clients::Client,
    error::{Error, ErrorKind},
    interfaces::ClientLike,
    types::{ClusterHash, CustomCommand, Value},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::functions::Operation;

/// Calls that travel together at most: Redis serves nobody else meanwhile.
const GROUP: usize = 32;
/// Bytes that travel together at most. What is larger travels alone.
const LOAD: usize = 64 * 1024;
/// Calls that may gather.
const GATHERING: usize = 10_000;

/// The way of calls that may travel together. Cheap to clone.
#[derive(Clone)]
pub(super) struct Together(mpsc::Sender<Ask>);

/// A function that runs others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vehicle {
    /// What adds: refused when Redis' memory is over.
    Adding,
    /// What drains.
    Draining,
    /// What only reads: it goes on where Redis takes no writes.
    Reading,
}

/// One call on its way, and where its answer goes.
struct Ask {
    vehicle: Vehicle,
    /// The function, how many keys, the keys, the arguments.
    words: Vec<Value>,
    keys: u16,
    args: u16,
    answer: oneshot::Sender<Result<Value, Error>>,
}

impl Ask {
    fn bytes(&self) -> usize {
        self.words.iter().filter_map(Value::as_bytes).map(<[u8]>::len).sum()
    }
}

impl Vehicle {
    /// What may carry an operation. `None`: it goes alone.
    pub(super) fn of(operation: Operation) -> Option<Self> {
        match operation {
            // Who asks for permits does not wait for them: they travel with the send that they are for.
            Operation::Send | Operation::Permits => Some(Self::Adding),
            Operation::Fetch
            | Operation::Ack
            | Operation::Release
            | Operation::Extend
            | Operation::Unfetch
            | Operation::Leave
            | Operation::WaitTake
            | Operation::WaitUntake
            | Operation::WaitDone
            | Operation::WaitClose
            | Operation::TaskDone
            | Operation::Contact
            | Operation::LedgerAdd
            // With the fetch of the same wait, without which it is worth nothing.
            | Operation::Cancelled => Some(Self::Draining),
            Operation::Peek | Operation::TaskFind => Some(Self::Reading),
            // Rare, or long.
            Operation::WaitOpen
            | Operation::TaskOpen
            | Operation::TaskCancel
            | Operation::Browse
            | Operation::Probe
            | Operation::Fates
            | Operation::LedgerList
            | Operation::LedgerSettle
            | Operation::CheckIn
            | Operation::Clients
            | Operation::Cancel
            | Operation::Hold
            | Operation::Survey
            | Operation::Inboxes
            | Operation::Pause
            | Operation::PauseLift
            | Operation::PauseNote
            | Operation::Pauses
            | Operation::PausesTold
            | Operation::TeamReplace
            | Operation::Revision => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Adding => "mb1_many",
            Self::Draining => "mb1_many_draining",
            Self::Reading => "mb1_many_reading",
        }
    }
}

impl Together {
    /// On a client of one server that has functions. Ends with the last of its clones.
    pub(super) fn new(client: Client, tasks: &TaskTracker) -> Self {
        let (asks, asked) = mpsc::channel(GATHERING);
        tasks.spawn(serve(client, asked, tasks.clone()));
        Self(asks)
    }

    /// Calls a function: its words are its name, the number of its keys, the keys, the arguments.
    ///
    /// Dropped, the call may still happen.
    pub(super) async fn call(
        &self,
        vehicle: Vehicle,
        words: Vec<Value>,
        keys: usize,
    ) -> Result<Value, Error> {
        let (answer, answered) = oneshot::channel();
        let number = |count: usize| u16::try_from(count).map_err(|_| full());
        let (keys, args) = (number(keys)?, number(words.len().saturating_sub(2 + keys))?);
        let ask = Ask { vehicle, words, keys, args, answer };
        self.0.try_send(ask).map_err(|_| full())?;
        answered.await.map_err(|_| gone())?
    }
}

fn full() -> Error {
    Error::new(ErrorKind::Backpressure, "too many calls of Redis at once")
}

fn gone() -> Error {
    Error::new(ErrorKind::Canceled, "the connection has ended")
}

fn strange() -> Error {
    Error::new(ErrorKind::Protocol, "MBARGS many answered something else")
}

/// Sends out what has gathered since the last time, in its order. Ends with the last sender.
async fn serve(client: Client, mut asked: mpsc::Receiver<Ask>, tasks: TaskTracker) {
    let mut asks = Vec::with_capacity(GROUP);
    while asked.recv_many(&mut asks, GROUP).await > 0 {
        // Who no longer listens was told that it may have happened; it need not.
        asks.retain(|ask: &Ask| !ask.answer.is_closed());
        for vehicle in [Vehicle::Adding, Vehicle::Draining, Vehicle::Reading] {
            let (mut group, mut load) = (Vec::new(), 0);
            let depart = |group| tasks.spawn(travel(client.clone(), vehicle, group));
            for ask in asks.extract_if(.., |ask| ask.vehicle == vehicle) {
                let bytes = ask.bytes();
                if load + bytes > LOAD && !group.is_empty() {
                    depart(std::mem::take(&mut group));
                    load = 0;
                }
                load += bytes;
                group.push(ask);
            }
            if !group.is_empty() {
                depart(group);
            }
        }
    }
}

/// One way to Redis and back.
async fn travel(client: Client, vehicle: Vehicle, mut group: Vec<Ask>) {
    let fcall = CustomCommand::new_static("FCALL", ClusterHash::FirstKey, false);
    if group.len() == 1
        && let Some(ask) = group.pop()
    {
        // Who no longer listens was told that it may have happened. So it is below.
        let _ = ask.answer.send(Box::pin(client.custom(fcall, ask.words)).await);
        return;
    }
    let mut words = vec![Value::from_static_str(vehicle.name())];
    let keys: usize = group.iter().map(|ask| usize::from(ask.keys)).sum();
    words.push(Value::Integer(i64::try_from(keys).unwrap_or_default()));
    let mut passengers = Vec::with_capacity(group.len() * 24);
    for ask in &mut group {
        let name = ask.words[0].as_bytes().unwrap_or_default();
        passengers.push(u8::try_from(name.len()).unwrap_or_default());
        passengers.extend_from_slice(name);
        passengers.extend_from_slice(&ask.keys.to_be_bytes());
        passengers.extend_from_slice(&ask.args.to_be_bytes());
        words.extend(ask.words.drain(2..2 + usize::from(ask.keys)));
    }
    words.push(Value::Bytes(passengers.into()));
    for ask in &mut group {
        words.extend(ask.words.drain(2..));
    }
    // What is spawned is moved thrice, and this takes seven kilobytes.
    let answers: Result<Value, Error> = Box::pin(client.custom(fcall, words)).await;
    match answers.and_then(|answers| each(answers, group.len())) {
        Ok(answers) => {
            for (ask, answer) in group.into_iter().zip(answers) {
                let _ = ask.answer.send(answer);
            }
        }
        Err(error) => {
            for ask in group {
                let _ = ask.answer.send(Err(error.clone()));
            }
        }
    }
}

/// What each call of so many was answered.
fn each(answers: Value, calls: usize) -> Result<Vec<Result<Value, Error>>, Error> {
    let Value::Array(answers) = answers else { return Err(strange()) };
    let mut answers = answers.into_iter();
    let kinds = answers.next().and_then(|kinds| kinds.as_bytes().map(<[u8]>::to_vec));
    let kinds = kinds.ok_or_else(strange)?;
    if kinds.len() != calls || answers.len() != calls {
        return Err(strange());
    }
    let sorted = kinds.into_iter().zip(answers).map(|(kind, answer)| match kind {
        b'k' => Ok(answer),
        _ => Err(Error::new(ErrorKind::Unknown, answer.into_string().unwrap_or_default())),
    });
    Ok(sorted.collect())
}
