//! What clients did and saw, as they themselves can tell it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

/// Microseconds since the run began.
pub(crate) type Micros = u64;

/// What a sender learned of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The server took it, under this id.
    Acknowledged(String),
    /// The server said that it did not take it.
    Refused,
    /// No answer, or one that leaves it open.
    Unknown,
}

/// One call of a sender. A repetition is a call of its own with the same text.
#[derive(Debug, Clone)]
pub(crate) struct Send {
    pub text: String,
    pub from: String,
    pub inbox: String,
    /// It goes through the queue of its inbox: its place there is promised.
    pub in_order: bool,
    pub invoked: Micros,
    pub completed: Micros,
    pub outcome: Outcome,
}

/// A message as a receiver got it.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub text: String,
    pub from: String,
    pub id: String,
    /// When it was accepted, by the word of the server: RFC 3339, which sorts as text.
    pub accepted: String,
    pub redelivered: bool,
}

/// One answer with messages.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub inbox: String,
    pub invoked: Micros,
    pub completed: Micros,
    pub messages: Vec<Got>,
}

/// One run, from outside.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub sends: Vec<Send>,
    pub batches: Vec<Batch>,
    /// Ids of messages that their sender was told had expired unread.
    pub expired: Vec<String>,
    /// Answers that did not belong to the question of the wait that they ended.
    pub wrong_answers: u64,
    /// Answers of the server that said that it failed.
    pub errors: u64,
    /// Load was offered from here to there.
    pub load: (Micros, Micros),
}

/// Takes a history down, from many tasks.
#[derive(Clone)]
pub(crate) struct Recorder {
    began: Instant,
    history: Arc<Mutex<History>>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), history: Arc::default() }
    }

    pub(crate) fn now(&self) -> Micros {
        Micros::try_from(self.began.elapsed().as_micros()).unwrap_or(Micros::MAX)
    }

    /// Reads or changes the history.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut History) -> T) -> T {
        // A task that panicked ends the run anyway.
        act(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
