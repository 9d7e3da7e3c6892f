//! Every metric of the process, in one registry with closed label sets.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use prometheus::{
    Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, core::Collector, process_collector::ProcessCollector,
};

use super::{
    labels::{MessageEvent, Readiness, RedisError, Refusal, Returned, SendOutcome},
    sampled::Sampled,
};
use crate::model::Survey;

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
    refusals: IntCounterVec,
    found_expired: IntCounter,
    returned: IntCounterVec,
    sends: HistogramVec,
    delivery_latency: Histogram,
    deaf_subscriptions: IntCounter,
    missed_wakeups: IntCounter,
    spans_dropped: IntCounter,
    unconfirmed_sends: IntCounter,
    subscriptions: IntGauge,
    waiters: IntGauge,
    connections: IntGauge,
    listeners: IntGauge,
    wakeups: Histogram,
    ready: IntGaugeVec,
    limits: IntGaugeVec,
    waiters_now: OnceLock<Arc<AtomicUsize>>,
    connections_now: OnceLock<Arc<AtomicUsize>>,
    operations: HistogramVec,
    sampled: Sampled,
    redis: RedisMetrics,
}

/// Registered once Redis is used: without it there is nothing to say.
struct RedisMetrics {
    calls: HistogramVec,
    errors: IntCounterVec,
    retries: IntCounter,
    reconnects: IntCounter,
    connected: IntGauge,
    revisions: IntGaugeVec,
}

impl RedisMetrics {
    fn new() -> Result<Self, Error> {
        Ok(Self {
            calls: HistogramVec::new(
                HistogramOpts::new(
                    "mcp_messaging_redis_command_duration_seconds",
                    "Time of one Redis Function, repetitions included.",
                )
                .buckets(vec![0.0002, 0.0005, 0.001, 0.002, 0.005, 0.02, 0.1, 0.5, 2.0, 5.0]),
                &["function"],
            )?,
            errors: counters(
                "mcp_messaging_redis_errors_total",
                "Attempts that failed, by Redis Function (connect: the connection itself) and kind. What was repeated with success counts too.",
                &["function", "kind"],
            )?,
            retries: IntCounter::new(
                "mcp_messaging_redis_retries_total",
                "Attempts that repeated one that had failed.",
            )?,
            reconnects: IntCounter::new(
                "mcp_messaging_redis_reconnects_total",
                "Connections of the subscriber to Redis, the first one included.",
            )?,
            connected: IntGauge::new(
                "mcp_messaging_redis_connected",
                "1 while the subscriber is connected to Redis. Not there with the memory backend.",
            )?,
            revisions: IntGaugeVec::new(
                Opts::new(
                    "mcp_messaging_function_revision",
                    "Revision of the Redis Functions: in this program (library) and in Redis as last seen (server; 0: not seen yet).",
                ),
                &["side"],
            )?,
        })
    }
}

fn counters(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

/// A counter with one label: each of its words is there from the start.
fn counter_of(
    name: &str,
    help: &str,
    label: &str,
    words: impl Iterator<Item = &'static str>,
) -> Result<IntCounterVec, Error> {
    let counter = counters(name, help, &[label])?;
    for word in words {
        counter.with_label_values(&[word]);
    }
    Ok(counter)
}

impl Metrics {
    /// A fresh registry with every metric in it; those of Redis come with [`redis_used`](Self::redis_used).
    ///
    /// # Errors
    /// A name or label that Prometheus does not allow: a fault of ours.
    pub fn new() -> Result<Self, Error> {
        let counter = |name: &str, help: &str| IntCounter::new(name, help);
        let latency = |name: &str, help: &str, buckets: &[f64]| {
            HistogramOpts::new(name, help).buckets(buckets.to_vec())
        };
        let metrics = Self {
            registry: Registry::new(),
            messages: counter_of(
                "mcp_messaging_messages_total",
                "Messages by what happened to them.",
                "event",
                MessageEvent::ALL.iter().map(|event| event.label()),
            )?,
            refusals: counter_of(
                "mcp_messaging_refusals_total",
                "Messages, calls and requests that were refused, by why. Who asked was told.",
                "reason",
                Refusal::ALL.iter().map(|reason| reason.label()),
            )?,
            found_expired: counter(
                "mcp_messaging_messages_expired_total",
                "Messages found to have expired unread, whether or not their sender came to hear of it.",
            )?,
            returned: counter_of(
                "mcp_messaging_leases_returned_total",
                "Batches that were handed out and went back at once, by why. Their messages come again.",
                "why",
                Returned::ALL.iter().map(|why| why.label()),
            )?,
            sends: HistogramVec::new(
                latency(
                    "mcp_messaging_send_duration_seconds",
                    "Time that the store took for one message of a send, repetitions included, by how it ended.",
                    &[0.0005, 0.001, 0.002, 0.005, 0.02, 0.1, 0.5, 2.0, 5.0],
                ),
                &["outcome"],
            )?,
            delivery_latency: Histogram::with_opts(latency(
                "mcp_messaging_delivery_latency_seconds",
                "From acceptance to delivery of a message.",
                &[0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 3600.0],
            ))?,
            deaf_subscriptions: counter(
                "mcp_messaging_deaf_subscriptions_total",
                "Subscriptions found deaf on a healthy connection and renewed.",
            )?,
            missed_wakeups: counter(
                "mcp_messaging_missed_wakeups_total",
                "Wake-ups that only the safety poll brought. Must stay 0.",
            )?,
            unconfirmed_sends: counter(
                "mcp_messaging_unconfirmed_sends_total",
                "Sends that too few replicas of Redis had in time.",
            )?,
            spans_dropped: counter(
                "mcp_messaging_spans_dropped_total",
                "Spans that did not get to the collector: it was away, or they came too fast.",
            )?,
            subscriptions: IntGauge::new(
                "mcp_messaging_subscriptions",
                "Wake channels that this replica hears.",
            )?,
            waiters: IntGauge::new("mcp_messaging_waiters", "Calls that wait in this replica.")?,
            connections: IntGauge::new(
                "mcp_messaging_connections",
                "Connections that are open to this replica.",
            )?,
            listeners: IntGauge::new(
                "mcp_messaging_listeners",
                "Inboxes that listeners of this replica watch, counted once per listener.",
            )?,
            wakeups: Histogram::with_opts(latency(
                "mcp_messaging_wakeup_latency_seconds",
                "From acceptance of a message to the waiter that it woke.",
                &[0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1.0, 5.0, 20.0],
            ))?,
            ready: IntGaugeVec::new(
                Opts::new(
                    "mcp_messaging_ready",
                    "1 for the one reason that holds: ok, or why this replica is not ready.",
                ),
                &["reason"],
            )?,
            limits: IntGaugeVec::new(
                Opts::new(
                    "mcp_messaging_limit",
                    "Limits in force, in their own unit: what is measured stays below them.",
                ),
                &["limit"],
            )?,
            waiters_now: OnceLock::new(),
            connections_now: OnceLock::new(),
            operations: HistogramVec::new(
                latency(
                    "mcp_server_operation_duration_seconds",
                    "Duration of MCP requests; waits are part of it.",
                    &[
                        0.0002, 0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
                        120.0, 300.0,
                    ],
                ),
                &["mcp_method_name", "gen_ai_tool_name", "error_type", "mcp_protocol_version"],
            )?,
            sampled: Sampled::new()?,
            redis: RedisMetrics::new()?,
        };
        for outcome in SendOutcome::ALL {
            metrics.sends.with_label_values(&[outcome.label()]);
        }
        metrics.ready(Readiness::Starting);
        let registered: [Box<dyn Collector>; 20] = [
            Box::new(ProcessCollector::for_self()),
            Box::new(metrics.messages.clone()),
            Box::new(metrics.refusals.clone()),
            Box::new(metrics.found_expired.clone()),
            Box::new(metrics.returned.clone()),
            Box::new(metrics.sends.clone()),
            Box::new(metrics.delivery_latency.clone()),
            Box::new(metrics.deaf_subscriptions.clone()),
            Box::new(metrics.missed_wakeups.clone()),
            Box::new(metrics.unconfirmed_sends.clone()),
            Box::new(metrics.spans_dropped.clone()),
            Box::new(metrics.subscriptions.clone()),
            Box::new(metrics.waiters.clone()),
            Box::new(metrics.connections.clone()),
            Box::new(metrics.listeners.clone()),
            Box::new(metrics.wakeups.clone()),
            Box::new(metrics.ready.clone()),
            Box::new(metrics.limits.clone()),
            Box::new(metrics.operations.clone()),
            Box::new(metrics.sampled.clone()),
        ];
        for collector in registered {
            metrics.registry.register(collector)?;
        }
        Ok(metrics)
    }

    /// Says what runs: the version and revision of the program, and which store it uses.
    ///
    /// # Errors
    /// It was said before.
    pub fn running(&self, backend: &'static str) -> Result<(), Error> {
        let about = "Always 1; the labels say what runs. revision is that of the source, if it was known to the build.";
        let build = IntGauge::with_opts(
            Opts::new("mcp_messaging_build_info", about)
                .const_label("version", env!("CARGO_PKG_VERSION"))
                .const_label("revision", option_env!("MCP_MESSAGING_REVISION").unwrap_or("unknown"))
                .const_label("backend", backend),
        )?;
        build.set(1);
        self.registry.register(Box::new(build))
    }

    /// Redis is the store, and these are its functions: their metrics are there from now on.
    pub fn redis_used(&self, functions: impl Iterator<Item = &'static str>, revision: i64) {
        let RedisMetrics { calls, errors, retries, reconnects, connected, revisions } = &self.redis;
        for function in functions.chain(["connect"]) {
            for kind in RedisError::ALL {
                errors.with_label_values(&[function, kind.label()]);
            }
        }
        revisions.with_label_values(&["library"]).set(revision);
        revisions.with_label_values(&["server"]);
        let registered: [Box<dyn Collector>; 6] = [
            Box::new(calls.clone()),
            Box::new(errors.clone()),
            Box::new(retries.clone()),
            Box::new(reconnects.clone()),
            Box::new(connected.clone()),
            Box::new(revisions.clone()),
        ];
        for collector in registered {
            // They are there already if a process opens a second store: it counts with the first.
            let _ = self.registry.register(collector);
        }
    }

    /// A limit in force.
    pub fn limit(&self, limit: &'static str, value: u64) {
        self.limits.with_label_values(&[limit]).set(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// Whether this replica is ready, or why not.
    pub fn ready(&self, now: Readiness) {
        for reason in Readiness::ALL {
            self.ready.with_label_values(&[reason.label()]).set(i64::from(*reason == now));
        }
    }

    /// What the store as a whole holds, at this Unix time. `None`: others know, or nobody.
    pub fn surveyed(&self, found: Option<(&Survey, f64)>) {
        self.sampled.set(found);
    }

    /// Something was refused.
    pub fn refusal(&self, reason: Refusal) {
        self.refusals.with_label_values(&[reason.label()]).inc();
    }

    /// A batch that was handed out went back.
    pub fn returned(&self, why: Returned) {
        self.returned.with_label_values(&[why.label()]).inc();
    }

    /// So many messages were found to have expired unread.
    pub fn found_expired(&self, count: u64) {
        self.found_expired.inc_by(count);
    }

    /// The store was given a message and took so long.
    pub fn send(&self, outcome: SendOutcome, took: Duration) {
        self.sends.with_label_values(&[outcome.label()]).observe(took.as_secs_f64());
    }

    /// Where spans that were lost are counted.
    pub(super) fn spans_dropped(&self) -> IntCounter {
        self.spans_dropped.clone()
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
        self.redis.connected.set(i64::from(connected));
    }

    /// A Redis Function took so long.
    pub fn redis_call(&self, function: &'static str, took: Duration) {
        self.redis.calls.with_label_values(&[function]).observe(took.as_secs_f64());
    }

    /// An attempt of a Redis Function, or to `connect`, failed.
    pub fn redis_error(&self, function: &'static str, kind: RedisError) {
        self.redis.errors.with_label_values(&[function, kind.label()]).inc();
    }

    /// An attempt is made again.
    pub fn redis_retry(&self) {
        self.redis.retries.inc();
    }

    /// The revision of the functions that Redis has.
    pub fn function_revision(&self, server: i64) {
        self.redis.revisions.with_label_values(&["server"]).set(server);
    }

    /// The subscriber connected to Redis.
    pub fn redis_reconnected(&self) {
        self.redis.reconnects.inc();
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

    /// Where the number of open connections is counted.
    pub fn watch_connections(&self, now: &Arc<AtomicUsize>) {
        // As above.
        let _ = self.connections_now.set(Arc::clone(now));
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
        for (now, gauge) in
            [(&self.waiters_now, &self.waiters), (&self.connections_now, &self.connections)]
        {
            if let Some(now) = now.get() {
                gauge.set(i64::try_from(now.load(Ordering::Relaxed)).unwrap_or(i64::MAX));
            }
        }
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

/// Somebody who listens to an inbox.
#[must_use = "dropping it ends the listening"]
pub struct Listening(IntGauge);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.dec();
    }
}
