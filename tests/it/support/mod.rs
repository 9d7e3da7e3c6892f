//! What the tests stand on.

mod backend;
mod certificates;
#[path = "../../chaos/clock.rs"]
mod clock;
mod listener;
mod people;
mod proxy;
mod redis_server;
mod replica;
mod site;

pub(crate) use backend::{
    Backend, LIMITS, anything, memory_backend, memory_backend_with, redis_backend,
    redis_backend_with, redis_behind, redis_sealed_by, redis_with, sealed_backend, texts_of, wakes,
};
pub(crate) use certificates::Authority;
pub(crate) use clock::Clock;
pub(crate) use listener::Listener;
pub(crate) use people::{Draft, inbox, message, ms, secs, tenant};
pub(crate) use proxy::{Proxy, Weather};
pub(crate) use redis_server::{Persistence, RedisServer, Reply, Talk};
pub(crate) use replica::{Agent, Replica, texts};
pub(crate) use site::{Site, Store};

/// Runs every law on every backend.
macro_rules! for_each_backend {
    ($($law:ident),* $(,)?) => {
        mod on_memory {
            $( #[tokio::test] async fn $law() { super::$law(crate::support::memory_backend()).await; } )*
        }
        mod on_redis {
            $( #[tokio::test] async fn $law() { super::$law(crate::support::redis_backend().await).await; } )*
        }
        mod on_sealed_redis {
            $( #[tokio::test] async fn $law() { super::$law(crate::support::sealed_backend().await).await; } )*
        }
    };
}

/// Runs laws that need hours or a minute: only where time can be moved.
macro_rules! where_time_can_be_moved {
    ($($law:ident),* $(,)?) => {
        mod on_memory_over_time {
            $( #[tokio::test] async fn $law() { super::$law(crate::support::memory_backend()).await; } )*
        }
    };
}

/// Runs every story against real servers on every store.
macro_rules! on_every_store {
    ($($story:ident),* $(,)?) => {
        mod in_memory {
            $( #[tokio::test] async fn $story() { super::$story(crate::support::Store::Memory).await; } )*
        }
        mod over_redis {
            $( #[tokio::test] async fn $story() { super::$story(crate::support::Store::Redis).await; } )*
        }
    };
}
