//! Every metric of the process, in one registry with closed label sets.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    core::Collector, process_collector::ProcessCollector,
};

/// What happened to messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageEvent {
    /// A send answered "queued" or "replied".
    Accepted,
    /// Handed out.
    Delivered,
    /// Its response was flushed, or its receipt was passed.
    Acknowledged,
    /// Handed out again.
    Redelivered,
    /// Its life ended unread, and its sender was told.
    Expired,
    /// A send was refused.
    Refused,
}

impl MessageEvent {
    fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Delivered => "delivered",
            Self::Acknowledged => "acknowledged",
            Self::Redelivered => "redelivered",
            Self::Expired => "expired",
            Self::Refused => "refused",
        }
    }
}

/// Labels of one MCP request, as the OpenTelemetry conventions for MCP name them. They are static on
/// purpose: nothing that a client sends can become one.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    /// The method; `unknown` and `invalid` for what is not served or could not be read.
    pub method: &'static str,
    /// The tool, or nothing.
    pub tool: &'static str,
    /// What went wrong, or nothing.
    pub error: &'static str,
    /// The protocol revision.
    pub revision: &'static str,
}

/// The metrics of one process.
pub struct Metrics {
    registry: Registry,
    messages: IntCounterVec,
    delivery_latency: Histogram,
    redis_calls: HistogramVec,
    redis_reconnects: IntCounter,
    deaf_subscriptions: IntCounter,
    missed_wakeups: IntCounter,
    unconfirmed_sends: IntCounter,
    subscriptions: IntGauge,
    waiters: IntGauge,
    listeners: IntGauge,
    wakeups: Histogram,
    redis_connected: IntGauge,
    waiters_now: OnceLock<Arc<AtomicUsize>>,
    operations: HistogramVec,
}

impl Metrics {
    /// A fresh registry with every metric in it.
    ///
    /// # Errors
    /// A name or label that Prometheus does not allow: a fault of ours.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let messages = IntCounterVec::new(
            Opts::new("mcp_messaging_messages_total", "Messages by what happened to them."),
            &["event"],
        )?;
        let delivery_latency = Histogram::with_opts(
            HistogramOpts::new(
                "mcp_messaging_delivery_latency_seconds",
                "From acceptance to delivery of a message.",
            )
            .buckets(vec![0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 3600.0]),
        )?;
        let redis_calls = HistogramVec::new(
            HistogramOpts::new(
                "mcp_messaging_redis_command_duration_seconds",
                "Time of one Redis Function, repetitions included.",
            )
            .buckets(vec![0.0002, 0.0005, 0.001, 0.002, 0.005, 0.02, 0.1, 0.5, 2.0, 5.0]),
            &["function"],
        )?;
        let counter = |name: &str, help: &str| kept(&registry, IntCounter::new(name, help)?);
        let gauge = |name: &str, help: &str| kept(&registry, IntGauge::new(name, help)?);
        let redis_reconnects = counter(
            "mcp_messaging_redis_reconnects_total",
            "Connections of the subscriber to Redis, the first one included.",
        )?;
        let deaf_subscriptions = counter(
            "mcp_messaging_deaf_subscriptions_total",
            "Subscriptions found deaf on a healthy connection and renewed.",
        )?;
        let missed_wakeups = counter(
            "mcp_messaging_missed_wakeups_total",
            "Wake-ups that only the safety poll brought. Must stay 0.",
        )?;
        let unconfirmed_sends = counter(
            "mcp_messaging_unconfirmed_sends_total",
            "Sends that too few replicas of Redis had in time.",
        )?;
        let subscriptions =
            gauge("mcp_messaging_subscriptions", "Wake channels that this replica hears.")?;
        let operations = HistogramVec::new(
            HistogramOpts::new(
                "mcp_server_operation_duration_seconds",
                "Duration of MCP requests; waits are part of it.",
            )
            .buckets(vec![
                0.0002, 0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
            ]),
            &["mcp_method_name", "gen_ai_tool_name", "error_type", "mcp_protocol_version"],
        )?;
        let build = IntGauge::with_opts(
            Opts::new("mcp_messaging_build_info", "Always 1; the version is in the label.")
                .const_label("version", env!("CARGO_PKG_VERSION")),
        )?;
        build.set(1);
        let wakeups = Histogram::with_opts(
            HistogramOpts::new(
                "mcp_messaging_wakeup_latency_seconds",
                "From acceptance of a message to the waiter that it woke.",
            )
            .buckets(vec![0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1.0, 5.0, 20.0]),
        )?;
        let redis_connected = gauge(
            "mcp_messaging_redis_connected",
            "1 while the subscriber is connected to Redis.",
        )?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        registry.register(Box::new(build))?;
        registry.register(Box::new(wakeups.clone()))?;
        registry.register(Box::new(messages.clone()))?;
        registry.register(Box::new(operations.clone()))?;
        registry.register(Box::new(delivery_latency.clone()))?;
        registry.register(Box::new(redis_calls.clone()))?;
        let waiters = gauge("mcp_messaging_waiters", "Calls that wait in this replica.")?;
        let listeners = gauge(
            "mcp_messaging_listeners",
            "Inboxes that listeners of this replica watch, counted once per listener.",
        )?;
        Ok(Self {
            registry,
            messages,
            delivery_latency,
            redis_calls,
            redis_reconnects,
            deaf_subscriptions,
            missed_wakeups,
            unconfirmed_sends,
            subscriptions,
            waiters,
            listeners,
            wakeups,
            redis_connected,
            waiters_now: OnceLock::new(),
            operations,
        })
    }

    /// Counts messages.
    pub fn messages(&self, event: MessageEvent, count: u64) {
        if count > 0 {
            self.messages.with_label_values(&[event.label()]).inc_by(count);
        }
    }

    /// A message was handed out this long after its acceptance.
    pub fn delivery_latency(&self, age: Duration) {
        self.delivery_latency.observe(age.as_secs_f64());
    }

    /// A waiter was woken for a message of this age.
    pub fn wakeup(&self, age: Duration) {
        self.wakeups.observe(age.as_secs_f64());
    }

    /// Whether the subscriber is connected.
    pub fn redis_connected(&self, connected: bool) {
        self.redis_connected.set(i64::from(connected));
    }

    /// A Redis Function took so long.
    pub fn redis_call(&self, function: &'static str, took: Duration) {
        self.redis_calls.with_label_values(&[function]).observe(took.as_secs_f64());
    }

    /// The subscriber connected to Redis.
    pub fn redis_reconnected(&self) {
        self.redis_reconnects.inc();
    }

    /// A subscription was found deaf.
    pub fn deaf_subscription(&self) {
        self.deaf_subscriptions.inc();
    }

    /// The safety poll found somebody asleep beside mail.
    pub fn missed_wakeup(&self) {
        self.missed_wakeups.inc();
    }

    /// A send was accepted, and too few replicas of the store had it in time.
    pub fn unconfirmed_send(&self) {
        self.unconfirmed_sends.inc();
    }

    /// Where the number of waiting calls is counted.
    pub fn watch_waiters(&self, now: &Arc<AtomicUsize>) {
        // A second source would be a fault of the composition; the first one stays.
        let _ = self.waiters_now.set(Arc::clone(now));
    }

    /// Somebody listens to an inbox, until the guard is dropped.
    pub fn listening(&self) -> Listening {
        self.listeners.inc();
        Listening(self.listeners.clone())
    }

    /// So many wake channels are subscribed.
    pub fn subscriptions(&self, count: usize) {
        self.subscriptions.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// An MCP request ended after this long.
    pub fn operation(&self, labels: &Operation, took: Duration) {
        let Operation { method, tool, error, revision } = *labels;
        self.operations
            .with_label_values(&[method, tool, error, revision])
            .observe(took.as_secs_f64());
    }

    /// The exposition in the Prometheus text format.
    #[must_use]
    pub fn render(&self) -> String {
        if let Some(now) = self.waiters_now.get() {
            self.waiters.set(i64::try_from(now.load(Ordering::Relaxed)).unwrap_or(i64::MAX));
        }
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

/// A metric, in its registry.
fn kept<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Somebody who listens to an inbox.
#[must_use = "dropping it ends the listening"]
pub struct Listening(IntGauge);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.dec();
    }
}
