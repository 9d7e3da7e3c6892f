//! How what a server offers talks with the client of a request while it is served.
//!
//! Most tools only answer. One that reports progress, logs, asks its client something, or needs more input
//! before it can answer, says so (`converses`) and finds an [`Exchange`] in its call context. What does
//! not converse costs nothing of this.
//!
//! Here are the words and the ports; the protocol module speaks them on the wire.

mod rendezvous;

use std::fmt;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

pub use rendezvous::{Answer, LocalRendezvous, Rendezvous, RequestKey};

/// The client's side of one request.
///
/// Notifications are best effort: without a stream to carry them they are left out.
#[async_trait]
pub trait Exchange: fmt::Debug + Send + Sync {
    /// Whether the request says that its client has this capability. A client of the legacy revisions
    /// said it once, to whichever replica, so that nobody knows: `false`.
    fn client_can(&self, capability: &str) -> bool;

    /// What the client answered to the input that was required under `key`.
    fn input(&self, key: &str) -> Option<&Value>;

    /// The state that an earlier round of this request gave its client to bring back. Anybody may have
    /// changed it.
    fn state(&self) -> Option<&str>;

    /// Tells how far the request is, if its client asked for that. `progress` must grow.
    ///
    /// # Cancel safety
    /// Dropped, it may have been told or not.
    async fn progress(&self, progress: f64, total: Option<f64>, message: Option<&str>);

    /// Sends a log line, if its client wants those of this level.
    ///
    /// # Cancel safety
    /// As that of [`progress`](Self::progress).
    async fn log(&self, level: LogLevel, logger: &str, data: Value);

    /// Asks the client on the stream of this request and waits for its answer, for as long as the request
    /// lives. Only legacy revisions have this; in later ones the request ends with [`InputRequired`].
    ///
    /// # Errors
    /// [`AskError`].
    ///
    /// # Cancel safety
    /// Dropped, a late answer goes nowhere.
    async fn ask(&self, method: &str, params: Value) -> Result<Value, AskError>;
}

/// Why a client did not answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AskError {
    /// There is no way to ask it: another revision, no session, or an answer without a stream.
    #[error("this client cannot be asked here")]
    NoWay,
    /// It answered with an error.
    #[error("the client refused: {message}")]
    Refused {
        /// The JSON-RPC code.
        code: i64,
        /// Its words.
        message: String,
    },
}

/// The request cannot be answered yet: its client is to send it again, with these inputs (2026-07-28).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InputRequired {
    /// By key: requests with `method` and `params`.
    pub requests: Map<String, Value>,
    /// What the client is to bring back unread. Whoever relies on it must sign it.
    pub state: Option<String>,
}

impl InputRequired {
    /// Requires the answer to one more request.
    #[must_use]
    pub fn and(mut self, key: &str, method: &str, params: &Value) -> Self {
        self.requests.insert(key.to_owned(), json!({ "method": method, "params": params }));
        self
    }

    /// With a state.
    #[must_use]
    pub fn with_state(mut self, state: String) -> Self {
        self.state = Some(state);
        self
    }
}

/// Suggestions for an argument. Only the first 100 values are sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Completion {
    /// The best first.
    pub values: Vec<String>,
    /// How many there are, if that is known.
    pub total: Option<usize>,
    /// There are more than these.
    pub has_more: bool,
}

/// How grave a log line is, the least first (RFC 5424).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// For finding faults.
    Debug,
    /// What usually happens.
    Info,
    /// What matters though it is usual.
    Notice,
    /// May become an error.
    Warning,
    /// Something failed.
    Error,
    /// A part of the server failed.
    Critical,
    /// Somebody must act at once.
    Alert,
    /// Nothing works.
    Emergency,
}

impl LogLevel {
    const ALL: [Self; 8] = [
        Self::Debug,
        Self::Info,
        Self::Notice,
        Self::Warning,
        Self::Error,
        Self::Critical,
        Self::Alert,
        Self::Emergency,
    ];

    /// Its name in the protocol.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Alert => "alert",
            Self::Emergency => "emergency",
        }
    }

    /// The level of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == name)
    }
}

/// Which log lines a legacy session wants (`logging/setLevel`).
#[async_trait]
pub trait LogLevels: Send + Sync {
    /// From now on only lines of this level and above.
    async fn set(&self, session: Option<&str>, level: LogLevel);

    /// The level in force.
    async fn get(&self, session: Option<&str>) -> LogLevel;
}

/// Which resources a legacy session wants to hear of (`resources/subscribe`). How it hears of them is the
/// matter of whoever implements this: the protocol module has no stream beside the calls.
#[async_trait]
pub trait Subscriptions: Send + Sync {
    /// From now on the session wants to hear of the resource, or no longer.
    async fn set(&self, session: Option<&str>, uri: &str, wanted: bool);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered_and_known_by_name() {
        assert!(LogLevel::ALL.is_sorted());
        for level in LogLevel::ALL {
            assert_eq!(LogLevel::named(level.as_str()), Some(level));
        }
        assert_eq!(LogLevel::named("Info"), None);
    }

    #[test]
    fn required_input_is_a_request_under_a_key() {
        let input = InputRequired::default().and("who", "elicitation/create", &json!({ "a": 1 }));
        let expected = json!({ "who": { "method": "elicitation/create", "params": { "a": 1 } } });
        assert_eq!(Value::Object(input.with_state("s".into()).requests), expected);
    }
}
