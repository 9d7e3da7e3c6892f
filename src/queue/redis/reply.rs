//! Redis' answers and errors, read in one place.

use std::time::Duration;

use fred::{
    error::{Error, ErrorKind},
    types::Value,
};

use crate::{
    queue::{Presence, QueueError},
    telemetry::RedisError,
};

/// What an error of Redis or of the client asks of the caller.
#[derive(Debug)]
pub(super) enum Failure {
    /// The library is not loaded: load it and call again.
    FunctionMissing,
    /// The server has no functions at all, or not for us: run the scripts.
    NoFunctions,
    /// It may work in a moment, and the call may have happened unless it was [`refused`].
    Passing(QueueError),
    /// It will not work.
    Final(QueueError),
}

/// Sorts an error. fred puts every error of a function under one kind, so its first word decides.
pub(super) fn sort(error: &Error) -> Failure {
    let details = error.details();
    let (code, rest) = details.split_once(' ').unwrap_or((details, ""));
    let mut numbers = rest.split(' ').map_while(|word| word.parse::<u64>().ok());
    let mut number = || numbers.next().unwrap_or_default();
    let unavailable = || QueueError::Unavailable { detail: error.to_string() };
    match code {
        "MBFULL" => Failure::Final(QueueError::InboxFull {
            messages: number(),
            bytes: number(),
            retry_after: Duration::from_millis(number()),
        }),
        "MBWAITS" => Failure::Final(QueueError::TooManyWaits { open: number() }),
        "MBCONFLICT" => match rest.get(..32).and_then(|hex| hex.parse().ok()) {
            Some(first) => Failure::Final(QueueError::IdempotencyConflict { first }),
            None => Failure::Final(contract(details)),
        },
        "MBNOANSWER" => Failure::Final(QueueError::NoAnswer),
        "MBARGS" | "WRONGTYPE" => Failure::Final(contract(details)),
        "NOSCRIPT" => Failure::FunctionMissing,
        "ERR" if rest.starts_with("Function not found") => Failure::FunctionMissing,
        "ERR" if rest.starts_with("unknown command") => Failure::NoFunctions,
        "NOPERM" | "NOAUTH" | "WRONGPASS" | "OOM" => Failure::Final(unavailable()),
        // Raised inside a function: ours to mend.
        "ERR" if rest.contains("user_function") || rest.contains("user_script") => {
            Failure::Final(contract(details))
        }
        _ if *error.kind() == ErrorKind::Timeout => Failure::Passing(QueueError::Timeout),
        // LOADING, READONLY, MASTERDOWN, CLUSTERDOWN, TRYAGAIN, NOREPLICAS, BUSY, a cut connection ...
        _ => Failure::Passing(unavailable()),
    }
}

/// Whether Redis said that it did not begin with it. Not for what makes the client library give the connection up
/// (LOADING, READONLY, MASTERDOWN, CLUSTERDOWN): it gives the same error to every call that was on its way, of which
/// others may have happened.
pub(super) fn refused(error: &Error) -> bool {
    let code = error.details().split(' ').next().unwrap_or_default();
    matches!(code, "NOREPLICAS" | "MISCONF" | "OOM" | "TRYAGAIN" | "MOVED" | "ASK" | "BUSY")
}

/// What kind of error it is, for metrics. `None`: a refusal of ours, which is no error of Redis.
pub(super) fn kind(error: &Error) -> Option<RedisError> {
    let details = error.details();
    let (code, rest) = details.split_once(' ').unwrap_or((details, ""));
    Some(match (code, error.kind()) {
        ("MBFULL" | "MBWAITS" | "MBCONFLICT" | "MBNOANSWER", _) => return None,
        ("MBARGS" | "WRONGTYPE", _) => RedisError::Contract,
        ("NOSCRIPT", _) => RedisError::FunctionMissing,
        ("ERR", _) if rest.starts_with("Function not found") => RedisError::FunctionMissing,
        ("ERR", _) if rest.contains("user_function") || rest.contains("user_script") => {
            RedisError::Contract
        }
        ("NOPERM" | "NOAUTH" | "WRONGPASS", _) | (_, ErrorKind::Auth) => RedisError::Denied,
        ("OOM", _) => RedisError::Memory,
        ("READONLY" | "NOREPLICAS" | "MISCONF", _) => RedisError::ReadOnly,
        ("LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "MOVED" | "ASK" | "BUSY", _)
        | (_, ErrorKind::Cluster) => RedisError::NotReady,
        (_, ErrorKind::Timeout) => RedisError::Timeout,
        (_, ErrorKind::IO | ErrorKind::Canceled | ErrorKind::Tls | ErrorKind::Backpressure) => {
            RedisError::Connection
        }
        _ => RedisError::Other,
    })
}

/// The error of an answer that is not what the function promises.
pub(super) fn contract(detail: &str) -> QueueError {
    QueueError::Contract { detail: detail.to_owned() }
}

/// Reads the elements of an answer one after the other.
pub(super) struct Answer(std::vec::IntoIter<Value>);

impl Answer {
    pub(super) fn new(value: Value) -> Result<Self, QueueError> {
        let Value::Array(values) = value else {
            return Err(contract(&format!("expected an array, got {:?}", value.kind())));
        };
        Ok(Self(values.into_iter()))
    }

    /// Whether something is left to read.
    pub(super) fn more(&self) -> bool {
        self.0.len() > 0
    }

    pub(super) fn next(&mut self) -> Result<Value, QueueError> {
        self.0.next().ok_or_else(|| contract("the answer is too short"))
    }

    pub(super) fn integer(&mut self) -> Result<i64, QueueError> {
        integer(&self.next()?)
    }

    /// A number that is not negative.
    pub(super) fn count(&mut self) -> Result<u64, QueueError> {
        Ok(u64::try_from(self.integer()?).unwrap_or_default())
    }

    pub(super) fn bytes(&mut self) -> Result<Value, QueueError> {
        let value = self.next()?;
        if value.as_bytes().is_none() {
            return Err(contract("expected a string"));
        }
        Ok(value)
    }

    /// Presence and its milliseconds.
    pub(super) fn presence(&mut self) -> Result<Presence, QueueError> {
        let (kind, ms) = (self.integer()?, self.count()?);
        Ok(presence(kind, ms))
    }

    /// Milliseconds, or `None` for -1.
    pub(super) fn millis(&mut self) -> Result<Option<Duration>, QueueError> {
        Ok(u64::try_from(self.integer()?).ok().map(Duration::from_millis))
    }

    pub(super) fn rest(self) -> impl Iterator<Item = Value> {
        self.0
    }
}

/// What is known of somebody's presence, and since when.
pub(super) fn presence(kind: i64, ms: u64) -> Presence {
    match kind {
        2 => Presence::Waiting,
        1 => Presence::Seen(Duration::from_millis(ms)),
        _ => Presence::Unknown,
    }
}

/// A number, as an integer or as text (stamps are text: they are too long for Lua's integers).
pub(super) fn integer(value: &Value) -> Result<i64, QueueError> {
    value.as_i64().ok_or_else(|| contract("expected a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(details: &'static str) -> Error {
        Error::new(ErrorKind::Unknown, details)
    }

    #[test]
    fn refusals_keep_their_numbers() {
        let full = sort(&error("MBFULL 10000 123456 2500"));
        let retry_after = Duration::from_millis(2_500);
        assert!(
            matches!(full, Failure::Final(QueueError::InboxFull { messages: 10_000, bytes: 123_456, retry_after: r }) if r == retry_after)
        );
        let waits = sort(&error("MBWAITS 16"));
        assert!(matches!(waits, Failure::Final(QueueError::TooManyWaits { open: 16 })));
        let conflict = sort(&error("MBCONFLICT 0199c3a27d1e7c3b9f102b1d6a4e8f55"));
        assert!(matches!(conflict, Failure::Final(QueueError::IdempotencyConflict { .. })));
    }

    #[test]
    fn an_error_is_of_a_kind_and_a_refusal_is_none() {
        for refusal in ["MBFULL 1 2 3", "MBWAITS 16", "MBCONFLICT x"] {
            assert_eq!(kind(&error(refusal)), None, "{refusal}");
        }
        for (details, expected) in [
            ("MBARGS send", RedisError::Contract),
            ("ERR Function not found", RedisError::FunctionMissing),
            ("ERR x script: user_function:1: bad", RedisError::Contract),
            ("NOPERM this user has no permissions", RedisError::Denied),
            ("OOM command not allowed", RedisError::Memory),
            ("READONLY You can't write", RedisError::ReadOnly),
            ("LOADING Redis is loading", RedisError::NotReady),
            ("ERR something else", RedisError::Other),
        ] {
            assert_eq!(kind(&error(details)), Some(expected), "{details}");
        }
        let of = |kind| Error::new(kind, "x");
        assert_eq!(kind(&of(ErrorKind::Timeout)), Some(RedisError::Timeout));
        assert_eq!(kind(&of(ErrorKind::IO)), Some(RedisError::Connection));
        assert_eq!(kind(&of(ErrorKind::Auth)), Some(RedisError::Denied));
    }

    #[test]
    fn what_passes_is_told_from_what_does_not() {
        for passing in ["LOADING Redis is loading", "READONLY You can't write", "CLUSTERDOWN x"] {
            assert!(matches!(sort(&error(passing)), Failure::Passing(_)), "{passing}");
        }
        for last in ["OOM command not allowed", "NOPERM no", "WRONGTYPE x", "MBARGS send"] {
            assert!(matches!(sort(&error(last)), Failure::Final(_)), "{last}");
        }
        assert!(refused(&error("NOREPLICAS x")) && !refused(&error("ERR x")));
        for shared in ["LOADING x", "READONLY x", "MASTERDOWN x", "CLUSTERDOWN x"] {
            assert!(!refused(&error(shared)), "others on that connection are told {shared} too");
        }
        assert!(!refused(&Error::new(ErrorKind::Timeout, "Request timed out.")));
        assert!(matches!(sort(&error("ERR Function not found")), Failure::FunctionMissing));
        assert!(matches!(sort(&error("NOSCRIPT No matching script")), Failure::FunctionMissing));
        assert!(matches!(sort(&error("ERR unknown command 'FCALL'")), Failure::NoFunctions));
    }
}
