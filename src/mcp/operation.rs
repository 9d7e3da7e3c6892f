//! One request as metrics and the log see it: never an id, never a body.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{error::McpError, method::Method, revision::Revision};
use crate::{
    model::TraceParent,
    telemetry::{CallSpan, Metrics, Operation as Labels},
};

/// A request under way, and then what became of it. Dropping it counts and logs it: do that when its
/// answer has been written, so that nobody waits for the log. Dropped unfinished, it counts as cancelled:
/// its client is gone.
pub struct Operation {
    metrics: Arc<Metrics>,
    labels: Labels,
    status: u16,
    started: Instant,
    /// How long it took, once it is finished.
    took: Option<Duration>,
    span: Option<CallSpan>,
    caller: Option<TraceParent>,
}

impl Operation {
    pub(super) fn begin(metrics: &Arc<Metrics>) -> Self {
        let labels =
            Labels { method: "invalid", tool: "", error: "cancelled", revision: "unknown" };
        Self {
            metrics: Arc::clone(metrics),
            labels,
            status: 0,
            started: Instant::now(),
            took: None,
            span: None,
            caller: None,
        }
    }

    pub(super) fn is(&mut self, method: Method) {
        self.labels.method = method.label();
    }

    pub(super) fn speaks(&mut self, revision: Revision) {
        self.labels.revision = revision.as_str();
    }

    pub(super) fn calls(&mut self, tool: &'static str) {
        self.labels.tool = tool;
    }

    /// Begins its span, under the caller's if it gave one. What it does runs in there.
    pub(super) fn trace(&mut self, caller: Option<TraceParent>) -> tracing::Span {
        let Labels { method, tool, revision, .. } = self.labels;
        let tool = (!tool.is_empty()).then_some(tool);
        self.caller = caller;
        self.span.insert(CallSpan::begin(method, tool, revision, caller)).span()
    }

    /// Its answer is ready. `error` is empty unless it failed.
    pub(super) fn finish(mut self, status: u16, error: &'static str) -> Self {
        self.status = status;
        self.labels.error = error;
        self.took = Some(self.started.elapsed());
        self
    }

    pub(super) fn fail(self, status: u16, error: &McpError) -> Self {
        self.finish(status, error.label())
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation").field("method", &self.labels.method).finish_non_exhaustive()
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let took = self.took.unwrap_or_else(|| self.started.elapsed());
        self.metrics.operation(&self.labels, took);
        let trace = match &self.span {
            Some(span) => {
                if !self.labels.error.is_empty() {
                    span.failed(self.labels.error);
                }
                span.trace().or(self.caller)
            }
            None => self.caller,
        };
        tracing::info!(
            mcp.method = self.labels.method,
            gen_ai.tool.name = said(self.labels.tool),
            "error.type" = said(self.labels.error),
            mcp.protocol.version = self.labels.revision,
            http.status = self.status,
            duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            trace_id = trace.map(|trace| format!("{:032x}", trace.trace_id)),
            "request"
        );
    }
}

/// A field that is left out when it says nothing.
fn said(label: &'static str) -> Option<&'static str> {
    (!label.is_empty()).then_some(label)
}
