//! What handlers share, and the settings of the layer.

use std::{sync::Arc, time::Duration};

use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use super::address::ForwardedHeader;
use crate::{
    auth::Authenticator,
    mcp::McpServer,
    messaging::MessagingService,
    model::{Network, Rate},
    teams::Teams,
    telemetry::Metrics,
};

/// Settings of the HTTP layer.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Names that `Host` may have, without a port for any port. `*` allows all.
    pub allowed_hosts: Vec<String>,
    /// What `Origin` may be: a whole origin, or a host name for any scheme and port. `*` allows all.
    pub allowed_origins: Vec<String>,
    /// Longest body of a request, bytes.
    pub body_limit: usize,
    /// How often a stream that waits says that it is alive.
    pub keep_alive: Duration,
    /// How long a connection may idle between requests.
    pub idle_timeout: Duration,
    /// How long a client may take to send a request's head, and then its body.
    pub client_request_timeout: Duration,
    /// How long a closing connection may take.
    pub client_disconnect_timeout: Duration,
    /// How long a client may take nothing of a response before it counts as gone.
    pub write_stall_timeout: Duration,
    /// Most bytes of request bodies that the process holds.
    pub memory_limit: usize,
    /// Most responses that their clients don't take at once.
    pub stalled_limit: usize,
    /// Proxies that are believed who their client is.
    pub trusted_proxies: Vec<Network>,
    /// Where they say so.
    pub forwarded_header: ForwardedHeader,
    /// Credentials of one address that may turn out bad. `None`: as many as come.
    pub failures: Option<Rate>,
    /// How long a stop waits for responses under way.
    pub drain_timeout: Duration,
    /// Threads that serve.
    pub workers: usize,
    /// Most connections of one of them.
    pub max_connections: usize,
    /// The endpoint is served by TLS.
    pub tls: Option<Arc<ServerConfig>>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        let loopback: Vec<String> = ["localhost", "127.0.0.1", "[::1]"].map(String::from).into();
        Self {
            allowed_hosts: loopback.clone(),
            allowed_origins: loopback,
            body_limit: 1024 * 1024,
            keep_alive: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(75),
            client_request_timeout: Duration::from_secs(5),
            client_disconnect_timeout: Duration::from_secs(1),
            write_stall_timeout: Duration::from_secs(30),
            memory_limit: 256 * 1024 * 1024,
            stalled_limit: 256,
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::XForwardedFor,
            failures: Rate::new(600, Duration::from_secs(60), 60),
            drain_timeout: Duration::from_millis(500),
            workers: 2,
            max_connections: 25_000,
            tls: None,
        }
    }
}

/// What the handlers of one worker share.
#[derive(Clone)]
pub struct HttpState {
    /// Who is let in.
    pub auth: Authenticator,
    /// The protocol.
    pub mcp: McpServer,
    /// The mailbox, for readiness and the session list.
    pub messaging: MessagingService,
    /// What is done about teams.
    pub teams: Teams,
    /// The metrics of the process.
    pub metrics: Arc<Metrics>,
    /// The settings.
    pub config: Arc<HttpConfig>,
    /// Cancelled: the replica is to go away, and gets no more calls from those who ask whether it is ready.
    pub leaving: CancellationToken,
    /// Cancelled: the replica goes away.
    pub stop: CancellationToken,
}
