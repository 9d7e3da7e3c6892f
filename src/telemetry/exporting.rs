//! Spans on their way to the collector, and a count of those that do not get there.
//!
//! The SDK drops what comes too fast and what the collector does not take, and says so in its own log
//! alone. So what waits is counted here, around its queue, which is therefore never full.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry::Context;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor},
};
use prometheus::IntCounter;

/// A batch processor for `exporter`, with room for so many spans, that counts what is dropped.
pub(super) fn counted(
    exporter: impl SpanExporter + 'static,
    room: usize,
    dropped: &IntCounter,
) -> impl SpanProcessor + 'static {
    let waiting = Arc::<AtomicUsize>::default();
    let exporter =
        Exporter { inner: exporter, waiting: Arc::clone(&waiting), dropped: dropped.clone() };
    let config = BatchConfigBuilder::default().with_max_queue_size(room).build();
    let inner = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
    Gate { inner, room, waiting, dropped: dropped.clone() }
}

/// Lets in what the queue behind it has room for.
#[derive(Debug)]
struct Gate<P> {
    inner: P,
    room: usize,
    waiting: Arc<AtomicUsize>,
    dropped: IntCounter,
}

impl<P: SpanProcessor> SpanProcessor for Gate<P> {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        self.inner.on_start(span, cx);
    }

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) < self.room {
            self.inner.on_end(span);
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.dropped.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Counts the batches that the collector did not take.
#[derive(Debug)]
struct Exporter<E> {
    inner: E,
    waiting: Arc<AtomicUsize>,
    dropped: IntCounter,
}

impl<E: SpanExporter> SpanExporter for Exporter<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        let done = self.inner.export(batch).await;
        if done.is_err() {
            self.dropped.inc_by(count as u64);
        }
        done
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
