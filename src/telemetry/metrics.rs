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
    labels::{MessageEvent, Readiness, RedisError, Refusal, Returned, SendOutcome, Unread},
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
    mail: MailMetrics,
    replica: ReplicaMetrics,
    operations: HistogramVec,
    sampled: Sampled,
    redis: RedisMetrics,
}

/// What happens to messages.
struct MailMetrics {
    messages: IntCounterVec,
    refusals: IntCounterVec,
    found_expired: IntCounter,
    returned: IntCounterVec,
    sends: HistogramVec,
    delivery_latency: Histogram,
    wakeups: Histogram,
    missed_wakeups: IntCounter,
    unconfirmed_sends: IntCounter,
    pairs_paused: IntCounter,
    limits_unchecked: IntCounter,
}

/// How this process is.
struct ReplicaMetrics {
    ready: IntGaugeVec,
    limits: IntGaugeVec,
    connections: IntGauge,
    connections_now: OnceLock<Arc<AtomicUsize>>,
    waiters: IntGauge,
    waiters_now: OnceLock<Arc<AtomicUsize>>,
    listeners: IntGauge,
    subscriptions: IntGauge,
    deaf_subscriptions: IntCounter,
    spans_dropped: IntCounter,
}

/// Registered once Redis is used: without it there is nothing to say.
struct RedisMetrics {
    calls: HistogramVec,
    errors: IntCounterVec,
    unreadable: IntCounterVec,
    retries: IntCounter,
    reconnects: IntCounter,
    connected: IntGauge,
    revisions: IntGaugeVec,
}

impl RedisMetrics {
    fn new() -> Result<Self, Error> {
        Ok(Self {
            calls: HistogramVec::new(
                latency(
                    "mcp_messaging_redis_command_duration_seconds",
                    "Time of one Redis Function, repetitions included.",
                    &[0.0002, 0.0005, 0.001, 0.002, 0.005, 0.02, 0.1, 0.5, 2.0, 5.0],
                ),
                &["function"],
            )?,
            errors: counters(
                "mcp_messaging_redis_errors_total",
                "Attempts that failed, by Redis Function (connect: the connection itself) and kind. What was repeated with success counts too.",
                &["function", "kind"],
            )?,
            unreadable: counter_of(
                "mcp_messaging_unreadable_messages_total",
                "Messages in Redis that a reader came for and whose text could not be read, by why, counted each time. They stay there.",
                "reason",
                Unread::ALL.iter().map(|reason| reason.label()),
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
            revisions: gauges(
                "mcp_messaging_function_revision",
                "Revision of the Redis Functions: in this program (library) and in Redis as last seen (server; 0: not seen yet).",
                "side",
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

/// Puts a metric into the registry.
fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    made: Result<C, Error>,
) -> Result<C, Error> {
    let metric = made?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn latency(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::new(name, help).buckets(buckets.to_vec())
}

fn gauges(name: &str, help: &str, label: &str) -> Result<IntGaugeVec, Error> {
    IntGaugeVec::new(Opts::new(name, help), &[label])
}

impl MailMetrics {
    fn new(registry: &Registry) -> Result<Self, Error> {
        let counter = |name, help| registered(registry, IntCounter::new(name, help));
        let histogram = |opts| registered(registry, Histogram::with_opts(opts));
        let sends = HistogramVec::new(
            latency(
                "mcp_messaging_send_duration_seconds",
                "Time that the store took for one message of a send, repetitions included, by how it ended.",
                &[0.0005, 0.001, 0.002, 0.005, 0.02, 0.1, 0.5, 2.0, 5.0],
            ),
            &["outcome"],
        );
        let sends = registered(registry, sends)?;
        for outcome in SendOutcome::ALL {
            sends.with_label_values(&[outcome.label()]);
        }
        let messages = counter_of(
            "mcp_messaging_messages_total",
            "Messages by what happened to them.",
            "event",
            MessageEvent::ALL.iter().map(|event| event.label()),
        );
        let refusals = counter_of(
            "mcp_messaging_refusals_total",
            "Messages, calls and requests that were refused, by why. Who asked was told.",
            "reason",
            Refusal::ALL.iter().map(|reason| reason.label()),
        );
        let returned = counter_of(
            "mcp_messaging_leases_returned_total",
            "Batches that were handed out and went back at once, by why. Their messages come again.",
            "why",
            Returned::ALL.iter().map(|why| why.label()),
        );
        Ok(Self {
            messages: registered(registry, messages)?,
            refusals: registered(registry, refusals)?,
            found_expired: counter(
                "mcp_messaging_messages_expired_total",
                "Messages found to have expired unread, whether or not their sender came to hear of it.",
            )?,
            returned: registered(registry, returned)?,
            sends,
            delivery_latency: histogram(latency(
                "mcp_messaging_delivery_latency_seconds",
                "From acceptance to delivery of a message.",
                &[0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 3600.0],
            ))?,
            wakeups: histogram(latency(
                "mcp_messaging_wakeup_latency_seconds",
                "From acceptance of a message to the waiter that it woke.",
                &[0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1.0, 5.0, 20.0],
            ))?,
            missed_wakeups: counter(
                "mcp_messaging_missed_wakeups_total",
                "Wake-ups that only the safety poll brought. Must stay 0.",
            )?,
            unconfirmed_sends: counter(
                "mcp_messaging_unconfirmed_sends_total",
                "Sends that too few replicas of Redis had in time.",
            )?,
            pairs_paused: counter(
                "mcp_messaging_pairs_paused_total",
                "Pairs of clients that were paused because they looked like a loop.",
            )?,
            limits_unchecked: counter(
                "mcp_messaging_limits_unchecked_total",
                "Sends that passed a limit because the store did not say in time how much of it was left.",
            )?,
        })
    }
}

impl ReplicaMetrics {
    fn new(registry: &Registry) -> Result<Self, Error> {
        let counter = |name, help| registered(registry, IntCounter::new(name, help));
        let gauge = |name, help| registered(registry, IntGauge::new(name, help));
        let ready = gauges(
            "mcp_messaging_ready",
            "1 for the one reason that holds: ok, or why this replica is not ready.",
            "reason",
        );
        let limits = gauges(
            "mcp_messaging_limit",
            "Limits in force, in their own unit: what is measured stays below them.",
            "limit",
        );
        Ok(Self {
            ready: registered(registry, ready)?,
            limits: registered(registry, limits)?,
            connections: gauge(
                "mcp_messaging_connections",
                "Connections that are open to this replica.",
            )?,
            connections_now: OnceLock::new(),
            waiters: gauge("mcp_messaging_waiters", "Calls that wait in this replica.")?,
            waiters_now: OnceLock::new(),
            listeners: gauge(
                "mcp_messaging_listeners",
                "Inboxes that listeners of this replica watch, counted once per listener.",
            )?,
            subscriptions: gauge(
                "mcp_messaging_subscriptions",
                "Wake channels that this replica hears.",
            )?,
            deaf_subscriptions: counter(
                "mcp_messaging_deaf_subscriptions_total",
                "Subscriptions found deaf on a healthy connection and renewed.",
            )?,
            spans_dropped: counter(
                "mcp_messaging_spans_dropped_total",
                "Spans that did not get to the collector: it was away, or they came too fast.",
            )?,
        })
    }
}

impl Metrics {
    /// A fresh registry with every metric in it; those of Redis come with [`redis_used`](Self::redis_used).
    ///
    /// # Errors
    /// A name or label that Prometheus does not allow: a fault of ours.
    pub fn new() -> Result<Self, Error> {
        let registry = Registry::new();
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let operations = HistogramVec::new(
            latency(
                "mcp_server_operation_duration_seconds",
                "Duration of MCP requests; waits are part of it.",
                &[
                    0.0002, 0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0,
                    300.0,
                ],
            ),
            &["mcp_method_name", "gen_ai_tool_name", "error_type", "mcp_protocol_version"],
        );
        let metrics = Self {
            mail: MailMetrics::new(&registry)?,
            replica: ReplicaMetrics::new(&registry)?,
            operations: registered(&registry, operations)?,
            sampled: registered(&registry, Sampled::new())?,
            redis: RedisMetrics::new()?,
            registry,
        };
        metrics.ready(Readiness::Starting);
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
        let RedisMetrics { calls, errors, unreadable, retries, reconnects, connected, revisions } =
            &self.redis;
        for function in functions.chain(["connect"]) {
            for kind in RedisError::ALL {
                errors.with_label_values(&[function, kind.label()]);
            }
        }
        revisions.with_label_values(&["library"]).set(revision);
        revisions.with_label_values(&["server"]);
        let registered: [Box<dyn Collector>; 7] = [
            Box::new(calls.clone()),
            Box::new(errors.clone()),
            Box::new(unreadable.clone()),
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
        self.replica
            .limits
            .with_label_values(&[limit])
            .set(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// Whether this replica is ready, or why not.
    pub fn ready(&self, now: Readiness) {
        for reason in Readiness::ALL {
            self.replica.ready.with_label_values(&[reason.label()]).set(i64::from(*reason == now));
        }
    }

    /// What the store as a whole holds, at this Unix time. `None`: others know, or nobody.
    pub fn surveyed(&self, found: Option<(&Survey, f64)>) {
        self.sampled.set(found);
    }

    /// Something was refused.
    pub fn refusal(&self, reason: Refusal) {
        self.mail.refusals.with_label_values(&[reason.label()]).inc();
    }

    /// A batch that was handed out went back.
    pub fn returned(&self, why: Returned) {
        self.mail.returned.with_label_values(&[why.label()]).inc();
    }

    /// So many messages were found to have expired unread.
    pub fn found_expired(&self, count: u64) {
        self.mail.found_expired.inc_by(count);
    }

    /// The store was given a message and took so long.
    pub fn send(&self, outcome: SendOutcome, took: Duration) {
        self.mail.sends.with_label_values(&[outcome.label()]).observe(took.as_secs_f64());
    }

    /// Where spans that were lost are counted.
    pub(super) fn spans_dropped(&self) -> IntCounter {
        self.replica.spans_dropped.clone()
    }

    /// Counts messages.
    pub fn messages(&self, event: MessageEvent, count: u64) {
        if count > 0 {
            self.mail.messages.with_label_values(&[event.label()]).inc_by(count);
        }
    }

    /// A message was handed out this long after its acceptance.
    pub fn delivery_latency(&self, age: Duration) {
        self.mail.delivery_latency.observe(age.as_secs_f64());
    }

    /// A waiter was woken for a message of this age.
    pub fn wakeup(&self, age: Duration) {
        self.mail.wakeups.observe(age.as_secs_f64());
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

    /// A message in Redis could not be read.
    pub fn unreadable(&self, reason: Unread) {
        self.redis.unreadable.with_label_values(&[reason.label()]).inc();
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
        self.replica.deaf_subscriptions.inc();
    }

    /// The safety poll found somebody asleep beside mail.
    pub fn missed_wakeup(&self) {
        self.mail.missed_wakeups.inc();
    }

    /// A send was accepted, and too few replicas of the store had it in time.
    pub fn unconfirmed_send(&self) {
        self.mail.unconfirmed_sends.inc();
    }

    /// Two clients were paused.
    pub fn pair_paused(&self) {
        self.mail.pairs_paused.inc();
    }

    /// A send passed a limit that could not be looked at.
    pub fn limit_unchecked(&self) {
        self.mail.limits_unchecked.inc();
    }

    /// Where the number of waiting calls is counted.
    pub fn watch_waiters(&self, now: &Arc<AtomicUsize>) {
        // A second source would be a fault of the composition; the first one stays.
        let _ = self.replica.waiters_now.set(Arc::clone(now));
    }

    /// Where the number of open connections is counted.
    pub fn watch_connections(&self, now: &Arc<AtomicUsize>) {
        // As above.
        let _ = self.replica.connections_now.set(Arc::clone(now));
    }

    /// Somebody listens to an inbox, until the guard is dropped.
    pub fn listening(&self) -> Listening {
        self.replica.listeners.inc();
        Listening(self.replica.listeners.clone())
    }

    /// So many wake channels are subscribed.
    pub fn subscriptions(&self, count: usize) {
        self.replica.subscriptions.set(i64::try_from(count).unwrap_or(i64::MAX));
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
        for (now, gauge) in [
            (&self.replica.waiters_now, &self.replica.waiters),
            (&self.replica.connections_now, &self.replica.connections),
        ] {
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
