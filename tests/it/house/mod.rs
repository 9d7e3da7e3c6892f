//! A server on a store that remembers what was done to it, with tools made for these tests.

mod client;
pub(crate) mod readables;
pub(crate) mod schema;
mod store;
mod tools;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mcp_messaging::{
    auth::Authenticator,
    http::{self, HttpConfig, HttpState, Stopper},
    mcp::{McpServer, Offer},
    messaging::{AskRequest, MessagingService, Rules, Waiters},
    queue::QueueBackend,
    teams::Teams,
    telemetry::Metrics,
    tls,
};
use tokio_rustls::rustls::ClientConfig;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::support::Authority;
pub(crate) use client::{Client, Reply, post};
pub(crate) use store::{Did, Store};

/// One worker, so that what happens is in one thread.
pub(crate) struct House {
    pub address: SocketAddr,
    pub ops: Option<SocketAddr>,
    pub store: Arc<Store>,
    pub stop: CancellationToken,
    pub stopper: Stopper,
    tasks: TaskTracker,
    tls: Option<Arc<ClientConfig>>,
}

/// The mailbox alone, on any store.
pub(crate) fn mailbox(queue: Arc<dyn QueueBackend>) -> MessagingService {
    mailbox_settling(queue, TaskTracker::new(), Arc::new(Metrics::new().unwrap()))
}

/// [`mailbox`] whose settling can be waited for, and what it counts.
pub(crate) fn mailbox_settling(
    queue: Arc<dyn QueueBackend>,
    settling: TaskTracker,
    metrics: Arc<Metrics>,
) -> MessagingService {
    MessagingService::new(queue, Arc::new(rules()), Waiters::new(100), settling, metrics)
}

/// Alice asks Bob, and waits for 20 s.
pub(crate) fn question() -> AskRequest {
    AskRequest {
        sender: "alice".parse().unwrap(),
        recipient: "bob".parse().unwrap(),
        text: "?".to_owned(),
        wait: Some(Duration::from_secs(20)),
        in_reply_to: None,
        idempotency_key: None,
    }
}

/// How a house is spoken to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Over {
    Plain,
    Tls,
}

impl Over {
    pub(crate) fn open(self, config: &HttpConfig) -> House {
        match self {
            Self::Plain => House::with(config, false),
            Self::Tls => {
                let authority = Authority::new();
                let tls = tls::server(authority.issue("127.0.0.1")).unwrap();
                let config = HttpConfig { tls: Some(Arc::new(tls)), ..config.clone() };
                let believes = tls::client(Some(&authority.file()), None).unwrap();
                House { tls: Some(Arc::new(believes)), ..House::with(&config, false) }
            }
        }
    }
}

pub(crate) fn quick() -> HttpConfig {
    HttpConfig { workers: 1, keep_alive: Duration::from_millis(100), ..HttpConfig::default() }
}

pub(crate) fn rules() -> Rules {
    Rules {
        proved_callers: false,
        message_bytes: 1 << 20,
        recipients: 100,
        ttl: Duration::from_secs(300),
        ttl_range: (Duration::from_secs(1), Duration::from_secs(86_400)),
        max_wait: Duration::from_secs(300),
        default_wait: Duration::from_secs(55),
        lease: Duration::from_millis(400),
        manual_lease: Duration::from_secs(60),
        task_hold: Duration::from_secs(60),
        fetch_messages: 50,
        fetch_bytes: 64 << 20,
        presence: Duration::from_secs(300),
        listed_inboxes: 100,
    }
}

impl House {
    pub(crate) fn open() -> Self {
        Self::with(&quick(), false)
    }

    /// With tools only.
    pub(crate) fn bare() -> Self {
        Self::serving(&quick(), false, |_| Offer::default())
    }

    pub(crate) fn with(config: &HttpConfig, ops_apart: bool) -> Self {
        Self::serving(config, ops_apart, readables::offer)
    }

    /// With what `offer` adds to the tools.
    pub(crate) fn serving(
        config: &HttpConfig,
        ops_apart: bool,
        offer: impl Fn(&Arc<Store>) -> Offer + Clone + Send + 'static,
    ) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = http::bind(any, 64).unwrap();
        let ops_listener = ops_apart.then(|| http::bind(any, 64).unwrap());
        let address = listener.local_addr().unwrap();
        let ops = ops_listener.as_ref().map(|listener| listener.local_addr().unwrap());
        let (store, stop) = (Arc::new(Store::default()), CancellationToken::new());
        let metrics = Arc::new(Metrics::new().unwrap());
        let shared = Arc::new(config.clone());
        let make_state = {
            let (store, stop, metrics) = (Arc::clone(&store), stop.clone(), Arc::clone(&metrics));
            move || {
                let messaging = MessagingService::new(
                    Arc::clone(&store) as _,
                    Arc::new(rules()),
                    Waiters::new(1000),
                    TaskTracker::new(),
                    Arc::clone(&metrics),
                );
                let offer = Offer {
                    tools: tools::registry(&messaging, &store),
                    cancellations: Some(Arc::new(messaging.clone())),
                    instructions: "A house for tests, with tools that do one thing each: echo, take.",
                    ..offer(&store)
                };
                let mcp = McpServer::new(offer, Arc::clone(&metrics), stop.clone());
                HttpState {
                    auth: Authenticator::open(),
                    mcp,
                    messaging,
                    teams: Teams::none(),
                    metrics: Arc::clone(&metrics),
                    config: Arc::clone(&shared),
                    leaving: stop.clone(),
                    stop: stop.clone(),
                }
            }
        };
        let (server, stopper) =
            http::serve(vec![listener], ops_listener, config, make_state).unwrap();
        let tasks = TaskTracker::new();
        tasks.spawn(server);
        Self { address, ops, store, stop, stopper, tasks, tls: None }
    }

    /// A connection, over TLS if the house speaks it.
    pub(crate) async fn client(&self) -> Client {
        match &self.tls {
            Some(tls) => Client::connect_tls(self.address, Arc::clone(tls)).await,
            None => Client::connect(self.address).await,
        }
    }

    /// One whose kernel takes little that it does not read.
    pub(crate) async fn small_client(&self) -> Client {
        Client::connect_small(self.address, self.tls.clone()).await
    }

    /// Sends a whole request with a body and reads the whole response, which must be one by the schema.
    pub(crate) async fn post(&self, headers: &str, body: &str) -> Reply {
        let mut client = Client::connect(self.address).await;
        client.send(&post(headers, body)).await;
        let reply = client.reply().await;
        schema::reply(headers, body, &reply);
        reply
    }

    /// The same in the latest revision, with what it wants in headers and body.
    pub(crate) async fn modern(&self, method: &str, name: Option<&str>, params: &str) -> Reply {
        let (headers, body) = modern(method, name, params);
        self.post(&headers, &body).await
    }

    pub(crate) async fn close(self) {
        self.stop.cancel();
        self.stopper.stop().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

pub(crate) fn modern(method: &str, name: Option<&str>, params: &str) -> (String, String) {
    let mut headers = format!("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: {method}\r\n");
    if let Some(name) = name {
        headers = format!("{headers}Mcp-Name: {name}\r\n");
    }
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    let comma = if params.is_empty() { "" } else { "," };
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{meta}{comma}{params}}}}}"#
    );
    (headers, body)
}

/// Waits until it is true, or fails after five seconds.
pub(crate) async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..500 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within five seconds: {what}");
}
