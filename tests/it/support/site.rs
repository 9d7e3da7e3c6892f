//! Real servers on a store: one alone with its memory, or two that share a Redis.

use super::{Persistence, RedisServer, Replica};

/// Where messages are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// In the one server.
    Memory,
    /// In a Redis that two servers share.
    Redis,
}

/// Servers that are one to their users.
pub(crate) struct Site {
    replicas: Vec<Replica>,
    redis: Option<RedisServer>,
}

impl Store {
    /// Servers with their defaults.
    pub(crate) async fn open(self) -> Site {
        self.with(&[]).await
    }

    /// Servers with more variables.
    pub(crate) async fn with(self, variables: &[(&str, &str)]) -> Site {
        match self {
            Self::Memory => Site { replicas: vec![Replica::start(variables)], redis: None },
            Self::Redis => {
                let redis = RedisServer::start(Persistence::None);
                let mut replicas = Vec::new();
                for _ in 0..2 {
                    replicas.push(Replica::with(&redis.url(), variables).await);
                }
                Site { replicas, redis: Some(redis) }
            }
        }
    }
}

impl Site {
    /// The Redis behind it, if there is one.
    pub(crate) fn redis(&self) -> Option<&RedisServer> {
        self.redis.as_ref()
    }

    /// A server.
    pub(crate) fn here(&self) -> &Replica {
        &self.replicas[0]
    }

    /// The server of [`here`](Self::here); the others end.
    pub(crate) fn into_first(mut self) -> Replica {
        self.replicas.swap_remove(0)
    }

    /// Another server, if there are two.
    pub(crate) fn there(&self) -> &Replica {
        &self.replicas[self.replicas.len() - 1]
    }
}
