//! One request as metrics and the log see it: never an id, never a body.

use std::{sync::Arc, time::Instant};

use super::{error::McpError, method::Method, revision::Revision};
use crate::{
    model::TraceParent,
    telemetry::{CallSpan, Metrics, Operation as Labels},
};

/// A request under way. Dropped unfinished, it counts as cancelled: its client is gone.
pub(super) struct Operation {
    metrics: Arc<Metrics>,
    labels: Labels,
    status: u16,
    started: Instant,
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

    pub(super) fn finish(mut self, status: u16, error: &'static str) {
        self.status = status;
        self.labels.error = error;
    }

    pub(super) fn fail(self, status: u16, error: &McpError) {
        self.finish(status, error.label());
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let took = self.started.elapsed();
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
