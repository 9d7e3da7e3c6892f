//! What the official conformance suite asks of a server, offered by the library.
//!
//! ```text
//! cargo run --example conformance_server -- 8080
//! ```
//!
//! The suite calls fixtures by name: tools that answer with each kind of content, that report, log and
//! ask, resources, prompts. They are all offers to the protocol module; none of them needed a change in
//! it. `tests/conformance/run` runs the suite against this server. Nothing here is part of the product.

mod asking;
mod content;
mod prompts;
mod resources;
mod rounds;
mod sessions;
mod talking;
mod tasks;
mod tickets;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mcp_messaging::{
    auth::Authenticator,
    dialogue::LocalRendezvous,
    http::{self, HttpConfig, HttpState},
    mcp::{McpServer, Offer},
    messaging::{MessagingService, Rules, Waiters},
    model::SystemClock,
    queue::{self, memory::MemoryQueue},
    teams::Teams,
    telemetry::Metrics,
    tools::{Tool, ToolRegistry},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    sessions::{Lists, Sessions},
    tasks::Jobs,
};

fn offer(lists: &Arc<Lists>, sessions: &Arc<Sessions>, jobs: &Arc<Jobs>) -> Offer {
    let mut tools: Vec<Arc<dyn Tool>> = Vec::new();
    tools.extend(content::tools());
    tools.extend(talking::tools(lists));
    tools.extend(asking::tools());
    tools.extend(rounds::tools());
    tools.extend(tasks::tools(jobs));
    Offer {
        name: "conformance-server",
        tools: ToolRegistry::new(tools),
        resources: resources::registry(),
        prompts: prompts::registry(),
        logging: Some(Arc::clone(sessions) as _),
        subscriptions: Some(Arc::clone(sessions) as _),
        rendezvous: Some(Arc::new(LocalRendezvous::default())),
        list_changes: Some(Arc::clone(lists) as _),
        tasks: Some(Arc::clone(jobs) as _),
        ..Offer::default()
    }
}

/// A mailbox that nobody uses: the HTTP layer asks it whether the server is ready.
fn unused_mailbox(metrics: &Arc<Metrics>) -> MessagingService {
    let no_time = Duration::ZERO;
    let limits = queue::Limits {
        inbox_messages: 0,
        inbox_bytes: 0,
        open_waits: 0,
        ledger_entries: 0,
        ledger_life: no_time,
    };
    let rules = Rules {
        proved_callers: false,
        message_bytes: 0,
        recipients: 0,
        ttl: no_time,
        ttl_range: (no_time, no_time),
        max_wait: no_time,
        default_wait: no_time,
        lease: no_time,
        manual_lease: no_time,
        task_hold: no_time,
        fetch_messages: 0,
        fetch_bytes: 0,
        presence: no_time,
        listed_inboxes: 0,
    };
    let queue = Arc::new(MemoryQueue::new(limits, Arc::new(SystemClock)));
    let (waiters, tasks) = (Waiters::new(0), TaskTracker::new());
    MessagingService::new(queue, Arc::new(rules), waiters, tasks, Arc::clone(metrics))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = std::env::args().nth(1).unwrap_or_default().parse()?;
    actix_web::rt::System::new().block_on(async move {
        let config = HttpConfig { workers: 1, ..HttpConfig::default() };
        let listener = http::bind(SocketAddr::from(([127, 0, 0, 1], port)), 64)?;
        let metrics = Arc::new(Metrics::new()?);
        let (lists, sessions) = (Arc::new(Lists::default()), Arc::new(Sessions::default()));
        let jobs = Arc::new(Jobs::default());
        let (stop, settings) = (CancellationToken::new(), Arc::new(config.clone()));
        let ending = stop.clone();
        let make_state = move || HttpState {
            auth: Authenticator::open(),
            mcp: McpServer::new(
                offer(&lists, &sessions, &jobs),
                Arc::clone(&metrics),
                stop.clone(),
            ),
            messaging: unused_mailbox(&metrics),
            teams: Teams::none(),
            metrics: Arc::clone(&metrics),
            config: Arc::clone(&settings),
            leaving: stop.clone(),
            stop: stop.clone(),
        };
        let (server, stopper) = http::serve(vec![listener], None, &config, make_state)?;
        let server = actix_web::rt::spawn(server);
        tokio::signal::ctrl_c().await?;
        ending.cancel();
        stopper.stop().await;
        server.await??;
        Ok(())
    })
}
