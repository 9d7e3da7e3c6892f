//! Why something about a team is refused. The texts are for the caller.

use crate::{model::Scopes, queue::QueueError};

/// Why it was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TeamError {
    /// Mode `none`.
    #[error("this server asks nobody who it is (auth.mode = none), so it has no teams")]
    NoTeams,
    /// Memory backend.
    #[error("teams are kept in Redis, and this server has none: set redis.url (REDIS_URL)")]
    NoStore,
    /// Keys are made elsewhere.
    #[error(
        "this server makes no keys: only auth.mode = key does, with a master key (auth.master_keys)"
    )]
    NoMasterKey,
    /// Somebody else's id.
    #[error("your credential is not that of this client; only an admin sets it for others")]
    NotYours,
    /// More than the caller has.
    #[error("you cannot give {0}: your own credential does not have it")]
    Beyond(Scopes),
    /// A join code that opens nothing. One text for every reason.
    #[error(
        "this join code is not good: it was used, withdrawn or misread, or its time is over. Ask who gave it for another"
    )]
    BadCode,
    /// The code is for other ids.
    #[error(
        "this join code is for another client id; leave client out, or give one that it is for"
    )]
    OtherClient,
    /// The code is for any id, and none was given.
    #[error("client is missing: say which client id you want to be")]
    NoClient,
    /// The id, or one of the ids, belongs to somebody.
    #[error("this client id belongs to a member of the team; choose another")]
    Taken,
    /// Nobody would be left to run the team.
    #[error(
        "nobody else holds a good admin key of this team: make another admin first, or repeat it with \
         \"even_the_last_admin\": true"
    )]
    LastAdmin,
    /// There is nothing of that name.
    #[error("there is no such {0} in this team")]
    Unknown(&'static str),
    /// Over a limit.
    #[error("too much: the limit of {what} is {limit}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much.
        limit: usize,
    },
    /// A value that is not one of those.
    #[error("{0} must be {1}")]
    Value(&'static str, &'static str),
    /// Others change the same team all the time.
    #[error("this team is being changed by many at once; nothing was done, try again")]
    Busy,
    /// The store failed. The cause is for the log.
    #[error("the store does not answer; look whether it was done before you try again")]
    Store(#[from] QueueError),
}
