//! Every metric of the process, in one registry with closed label sets.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

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
    /// Its life ended unread.
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

/// The metrics of one process.
pub struct Metrics {
    registry: Registry,
    messages: IntCounterVec,
    delivery_latency: Histogram,
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
        registry.register(Box::new(messages.clone()))?;
        registry.register(Box::new(delivery_latency.clone()))?;
        Ok(Self { registry, messages, delivery_latency })
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

    /// The exposition in the Prometheus text format.
    #[must_use]
    pub fn render(&self) -> String {
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}
