//! The closed sets that labels come from.

/// An enum with a word for each of its values, and all of them.
macro_rules! closed_set {
    ($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $value:ident = $label:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$what])* $value,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$value,)*];

            /// Its word in metrics and logs.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$value => $label,)*
                }
            }
        }
    };
}

closed_set! {
    /// What happened to messages.
    MessageEvent {
        /// A send answered "queued" or "replied".
        Accepted = "accepted",
        /// Handed out.
        Delivered = "delivered",
        /// Its response was flushed, or its receipt was passed.
        Acknowledged = "acknowledged",
        /// Handed out again.
        Redelivered = "redelivered",
        /// Its life ended unread, and its sender was told.
        Expired = "expired",
        /// A send was refused by a rule.
        Refused = "refused",
        /// The store failed a send. It may have been accepted.
        Failed = "failed",
    }
}

closed_set! {
    /// Why something was refused. Who asked can mend it, or ask later.
    Refusal {
        /// An argument of a tool is missing or wrong.
        BadArgument = "bad_argument",
        /// A message without text.
        EmptyMessage = "empty_message",
        /// A message over `limits.message_bytes`.
        MessageTooLarge = "message_too_large",
        /// A send to nobody.
        NoRecipient = "no_recipient",
        /// A send to more than `limits.recipients`.
        TooManyRecipients = "too_many_recipients",
        /// A life outside the allowed range.
        TtlOutOfRange = "ttl_out_of_range",
        /// A wait over `limits.max_wait_seconds`.
        WaitOutOfRange = "wait_out_of_range",
        /// The recipient's inbox is at `limits.inbox_messages` or `limits.inbox_bytes`.
        InboxFull = "inbox_full",
        /// The sender is at `limits.client_waits`.
        TooManyWaits = "too_many_waits",
        /// The replica is at `limits.replica_waiters`.
        ReplicaBusy = "replica_busy",
        /// The replica is at `limits.replica_calls`.
        Overloaded = "overloaded",
        /// The caller is at `limits.principal_waits` or `limits.principal_listens`.
        CallerBusy = "caller_busy",
        /// The sender is at `limits.client_messages_per_minute`.
        RateLimited = "rate_limited",
        /// The sender's team is at `limits.tenant_messages_per_minute`.
        TenantRateLimited = "tenant_rate_limited",
        /// A message between two clients that are paused because they look like a loop.
        PairPaused = "pair_paused",
        /// An idempotency key that was used for another message.
        IdempotencyConflict = "idempotency_conflict",
        /// A receipt that is none.
        InvalidReceipt = "invalid_receipt",
        /// A receipt of another inbox.
        ForeignReceipt = "foreign_receipt",
        /// A client id as one's own that the key does not prove.
        ForeignClient = "foreign_client",
        /// No key, where one is asked for.
        KeyMissing = "key_missing",
        /// What is no key of this server.
        KeyInvalid = "key_invalid",
        /// A key whose time is over.
        KeyExpired = "key_expired",
        /// A key that was taken back.
        KeyRevoked = "key_revoked",
        /// A key of which cannot be found out whether it was taken back.
        KeyUnchecked = "key_unchecked",
        /// A key in the URL.
        KeyInUrl = "key_in_url",
        /// A key that was not looked at: its address sent too many that are none.
        TooManyFailures = "too_many_failures",
        /// No access token, where one is asked for.
        TokenMissing = "token_missing",
        /// What is no access token for this server.
        TokenInvalid = "token_invalid",
        /// An access token whose time is over.
        TokenExpired = "token_expired",
        /// An access token of which `oauth.client_claim` or `oauth.tenant_claim` makes nobody.
        TokenOfNobody = "token_of_nobody",
        /// An access token that cannot be checked: the keys of the authorization server cannot be had.
        TokenUnchecked = "token_unchecked",
        /// Nobody was named, where a proxy names callers.
        NameMissing = "name_missing",
        /// Somebody was named by an address that is not in `proxy.trusted`.
        NameForged = "name_forged",
        /// The proxy named several, or what is no name.
        NameInvalid = "name_invalid",
        /// A key or a token without the scope that a call needs.
        Scope = "insufficient_scope",
        /// A join code that opens nothing.
        JoinCode = "join_code",
        /// A rule of teams: more than one has, an id that is taken, what is not there.
        TeamRule = "team_rule",
        /// A recipient that does not take messages of this sender.
        NotTaken = "not_taken",
        /// A client of a team with which no messages are exchanged.
        NotLinked = "not_linked",
        /// A send of which cannot be found out whether it would be taken.
        ContactsUnknown = "contacts_unknown",
        /// A `Host` that is not in `http.allowed_hosts`.
        Host = "host",
        /// An `Origin` that is not in `http.allowed_origins`.
        Origin = "origin",
        /// Another HTTP method than POST.
        HttpMethod = "http_method",
        /// A body that is no JSON by its `Content-Type`.
        ContentType = "content_type",
        /// An `Accept` that no answer fits.
        NotAcceptable = "not_acceptable",
        /// A body over `http.body_bytes`.
        BodyTooLarge = "body_too_large",
        /// A body that did not come to its end, or not in time.
        BodyIncomplete = "body_incomplete",
        /// A body beyond what the process may hold, `http.memory_bytes`.
        Memory = "memory",
    }
}

closed_set! {
    /// How a send of one message to the store ended.
    SendOutcome {
        /// The store took it.
        Accepted = "accepted",
        /// The store refused it by a rule.
        Refused = "refused",
        /// The store failed. It may have been accepted.
        Failed = "failed",
    }
}

closed_set! {
    /// Why mail that was handed out under a lease went back at once.
    Returned {
        /// Its answer was not written to the end: the client went away.
        Unwritten = "unwritten",
        /// Its call ended before there was an answer: given up, or the replica goes away.
        GivenUp = "given_up",
        /// The store's own answer was lost.
        StoreFailed = "store_failed",
    }
}

closed_set! {
    /// What kind of error Redis or the way to it made.
    RedisError {
        /// No answer in time.
        Timeout = "timeout",
        /// Not connected, or cut while it was asked.
        Connection = "connection",
        /// It loads, fails over, moves slots or is busy: `LOADING`, `MOVED`, `CLUSTERDOWN` and their like.
        NotReady = "not_ready",
        /// It takes no writes: `READONLY`, `NOREPLICAS`, `MISCONF`.
        ReadOnly = "read_only",
        /// It is full.
        Memory = "memory",
        /// A wrong password, or a right that the user lacks.
        Denied = "denied",
        /// It has lost the functions. They are loaded again.
        FunctionMissing = "function_missing",
        /// An answer that it never should give: a fault of ours, or foreign keys.
        Contract = "contract",
        /// Any other.
        Other = "other",
    }
}

closed_set! {
    /// Why a text that lies in the store cannot be read.
    Unread {
        /// The key that sealed it is not there.
        NoKey = "no_key",
        /// It was changed or moved, or another key has that name.
        Changed = "changed",
        /// It is plain, and only sealed ones may be.
        Plain = "plain",
    }
}

closed_set! {
    /// Whether a replica is ready, or the first reason why it is not.
    Readiness {
        /// It is.
        Ok = "ok",
        /// It has not looked yet.
        Starting = "starting",
        /// It goes away.
        Stopping = "stopping",
        /// It is not connected to Redis.
        Disconnected = "disconnected",
        /// Redis does not answer in time.
        Timeout = "timeout",
        /// Redis refuses the user, its password or a right that it needs.
        Denied = "denied",
        /// The functions are missing and may not be loaded.
        FunctionsMissing = "functions_missing",
        /// Redis may throw messages away.
        Evicts = "evicts",
        /// Redis answers, and not as it should.
        StoreFailed = "store_failed",
    }
}

impl Readiness {
    /// What to do about it, for whoever asks a replica.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Starting => "the first look at the store is under way",
            Self::Stopping => "shutting down",
            Self::Disconnected => {
                "not connected to Redis: see REDIS_URL, the network, and whether Redis runs"
            }
            Self::Timeout => "Redis does not answer in time",
            Self::Denied => {
                "Redis refuses its user: see the password and the rights in docs/operations.md"
            }
            Self::FunctionsMissing => {
                "the functions are not in Redis and its user may not load them: run `mcp-messaging migrate` with one that may"
            }
            Self::Evicts => {
                "Redis evicts messages when memory is short: set its maxmemory-policy to noeviction"
            }
            Self::StoreFailed => "Redis answers with an error; the log of this replica has it",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_word_stands_for_one_value() {
        fn distinct(labels: &[&str]) {
            assert_eq!(labels.iter().collect::<HashSet<_>>().len(), labels.len(), "{labels:?}");
        }
        distinct(&MessageEvent::ALL.iter().map(|value| value.label()).collect::<Vec<_>>());
        distinct(&Refusal::ALL.iter().map(|value| value.label()).collect::<Vec<_>>());
        distinct(&SendOutcome::ALL.iter().map(|value| value.label()).collect::<Vec<_>>());
        distinct(&Returned::ALL.iter().map(|value| value.label()).collect::<Vec<_>>());
        distinct(&RedisError::ALL.iter().map(|value| value.label()).collect::<Vec<_>>());
        distinct(&Unread::ALL.iter().map(|value| value.label()).collect::<Vec<_>>());
        distinct(&Readiness::ALL.iter().map(|value| value.label()).collect::<Vec<_>>());
    }
}
