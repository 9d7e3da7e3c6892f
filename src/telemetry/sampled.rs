//! What lies in the store as a whole, exported by the one process that looks.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use prometheus::{
    Error, Gauge, IntGauge, IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::model::Survey;

/// Gauges that are there only while this process knows their values: one that does not look at the
/// store exports none, and so cannot export stale ones.
#[derive(Clone)]
pub(super) struct Sampled {
    known: Arc<AtomicBool>,
    messages: IntGauge,
    bytes: IntGauge,
    inboxes: IntGauge,
    most_messages: IntGauge,
    most_bytes: IntGauge,
    oldest: Gauge,
    clients: IntGaugeVec,
    taken_at: Gauge,
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Sampled {
    pub(super) fn new() -> Result<Self, Error> {
        // One sentence for all of them: whose value it is, and how to read it.
        let opts = |name: &str, help: &str| {
            let whose =
                "In the whole store: one replica exports it, so take the maximum over replicas.";
            Opts::new(format!("mcp_messaging_{name}"), format!("{help} {whose}"))
        };
        let gauge = |name, help| IntGauge::with_opts(opts(name, help));
        Ok(Self {
            known: Arc::default(),
            messages: gauge("queued_messages", "Live messages in inboxes.")?,
            bytes: gauge(
                "queued_bytes",
                "Bytes in inboxes, what expired and was not dropped yet included.",
            )?,
            inboxes: gauge("inboxes", "Inboxes with messages in them.")?,
            most_messages: gauge(
                "fullest_inbox_messages",
                "Messages of the inbox that has most of them.",
            )?,
            most_bytes: gauge("fullest_inbox_bytes", "Bytes of the inbox that has most of them.")?,
            oldest: Gauge::with_opts(opts(
                "oldest_message_age_seconds",
                "Age of the oldest message in any inbox; 0 without messages.",
            ))?,
            clients: IntGaugeVec::new(
                opts(
                    "clients",
                    "Clients that the store remembers: waiting for mail, active (seen within 5 minutes), or away.",
                ),
                &["state"],
            )?,
            taken_at: Gauge::with_opts(opts(
                "sample_timestamp_seconds",
                "When the store was last counted, Unix time.",
            ))?,
        })
    }

    /// What was found at this Unix time, or that it is not known here.
    pub(super) fn set(&self, found: Option<(&Survey, f64)>) {
        if let Some((survey, at)) = found {
            self.messages.set(whole(survey.messages));
            self.bytes.set(whole(survey.bytes));
            self.inboxes.set(whole(survey.inboxes));
            self.most_messages.set(whole(survey.most_messages));
            self.most_bytes.set(whole(survey.most_bytes));
            self.oldest.set(survey.oldest.as_secs_f64());
            for (state, count) in
                [("waiting", survey.waiting), ("active", survey.active), ("away", survey.away)]
            {
                self.clients.with_label_values(&[state]).set(whole(count));
            }
            self.taken_at.set(at);
        }
        self.known.store(found.is_some(), Ordering::Release);
    }

    fn parts(&self) -> [&dyn Collector; 8] {
        [
            &self.messages,
            &self.bytes,
            &self.inboxes,
            &self.most_messages,
            &self.most_bytes,
            &self.oldest,
            &self.clients,
            &self.taken_at,
        ]
    }
}

impl Collector for Sampled {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if !self.known.load(Ordering::Acquire) {
            return Vec::new();
        }
        self.parts().into_iter().flat_map(Collector::collect).collect()
    }
}
