//! A server in memory for the fuzz targets.

use std::{sync::Arc, time::Duration};

use mcp_messaging::{
    mcp::{McpServer, Offer},
    messaging::{CallContext, MessagingService, Rules, Waiters},
    model::SystemClock,
    prompts,
    queue::{Limits, memory::MemoryQueue},
    resources,
    telemetry::Metrics,
    tools::{self, ToolRegistry},
};
use tokio::runtime::Runtime;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The mailbox and everything that stands on it.
pub struct House {
    /// Runs what a tool does.
    pub runtime: Runtime,
    /// The tools on the mailbox.
    pub tools: ToolRegistry,
    /// The protocol on the tools.
    pub server: McpServer,
    /// Nobody waits in here: the replica goes away already.
    pub context: CallContext,
}

impl House {
    /// An empty mailbox.
    ///
    /// # Panics
    /// There is no runtime to be had.
    #[must_use]
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let limits = Limits {
            inbox_messages: 100,
            inbox_bytes: 1 << 20,
            open_waits: 16,
            ledger_entries: 100,
            ledger_life: Duration::from_secs(3600),
        };
        let queue = Arc::new(MemoryQueue::new(limits, Arc::new(SystemClock)));
        let messaging = MessagingService::new(
            queue,
            Arc::new(Rules {
                proved_callers: false,
                message_bytes: 64 * 1024,
                recipients: 20,
                ttl: Duration::from_secs(60),
                ttl_range: (Duration::from_secs(1), Duration::from_secs(3600)),
                max_wait: Duration::from_secs(300),
                default_wait: Duration::from_secs(55),
                lease: Duration::from_secs(10),
                manual_lease: Duration::from_secs(60),
                task_hold: Duration::from_secs(60),
                fetch_messages: 50,
                fetch_bytes: 256 * 1024,
                presence: Duration::from_secs(60),
                listed_inboxes: 100,
            }),
            Waiters::new(100),
            TaskTracker::new(),
            Arc::clone(&metrics),
        );
        let tools = tools::registry(messaging.clone());
        let stop = CancellationToken::new();
        stop.cancel();
        let offer = Offer {
            tools: tools.clone(),
            resources: resources::registry(messaging.clone()),
            prompts: prompts::registry(messaging),
            ..Offer::default()
        };
        let server = McpServer::new(offer, metrics, stop.clone());
        let context = CallContext { stop, ..CallContext::default() };
        Self { runtime: runtime.expect("a runtime"), tools, server, context }
    }
}

impl Default for House {
    fn default() -> Self {
        Self::new()
    }
}
