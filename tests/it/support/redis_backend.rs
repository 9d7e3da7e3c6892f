//! The store in a Redis of its own.

use std::sync::Arc;

use mcp_messaging::queue::redis::{RedisQueue, RedisSettings};

use super::{
    backend::{Backend, LIMITS, Time},
    redis_server::{Persistence, RedisServer},
};

/// The store in a private server, on that server's clock. The server ends with it.
pub(crate) async fn redis_backend() -> Backend {
    let server = RedisServer::start(Persistence::None);
    let settings = RedisSettings { url: server.url(), ..RedisSettings::default() };
    let queue = RedisQueue::connect(settings, LIMITS).await.unwrap();
    Backend { queue: Arc::new(queue), time: Time::Real, _server: Some(server) }
}
