//! One request as metrics and the log see it: never an id, never a body.

use std::{sync::Arc, time::Instant};

use super::{error::McpError, method::Method, revision::Revision};
use crate::telemetry::{Metrics, Operation as Labels};

/// A request under way. Dropped unfinished, it counts as cancelled: its client is gone.
pub(super) struct Operation {
    metrics: Arc<Metrics>,
    labels: Labels,
    status: u16,
    started: Instant,
}

impl Operation {
    pub(super) fn begin(metrics: &Arc<Metrics>) -> Self {
        let labels =
            Labels { method: "invalid", tool: "", error: "cancelled", revision: "unknown" };
        Self { metrics: Arc::clone(metrics), labels, status: 0, started: Instant::now() }
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
        tracing::info!(
            mcp.method = self.labels.method,
            gen_ai.tool.name = self.labels.tool,
            "error.type" = self.labels.error,
            mcp.protocol.version = self.labels.revision,
            http.status = self.status,
            duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            "request"
        );
    }
}
