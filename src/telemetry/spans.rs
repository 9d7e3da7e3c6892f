//! Spans of requests, and the trace that travels with a message.
//!
//! They cost nothing when no exporter is set up: then no subscriber wants their target.

use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::model::TraceParent;

/// The target of every span, so that filters can tell them from log lines.
pub(super) const TARGET: &str = "mcp_messaging::spans";

/// The server span of one MCP request, named as the OpenTelemetry conventions for MCP have it:
/// `{method} {tool}`.
#[derive(Debug, Clone)]
pub struct CallSpan(Span);

fn context(parent: TraceParent) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(parent.trace_id.to_be_bytes()),
        SpanId::from_bytes(parent.span_id.to_be_bytes()),
        TraceFlags::new(parent.flags),
        true,
        TraceState::default(),
    )
}

impl CallSpan {
    /// Begins a span under the caller's trace, if it gave one.
    #[must_use]
    pub fn begin(
        method: &'static str,
        tool: Option<&str>,
        revision: &str,
        parent: Option<TraceParent>,
    ) -> Self {
        let span = tracing::info_span!(
            target: "mcp_messaging::spans",
            "mcp",
            otel.name = tracing::field::Empty,
            otel.kind = "server",
            mcp.method.name = method,
            mcp.protocol.version = revision,
            network.transport = "tcp",
            gen_ai.tool.name = tracing::field::Empty,
            gen_ai.operation.name = tracing::field::Empty,
            error.type = tracing::field::Empty,
        );
        if span.is_disabled() {
            return Self(span);
        }
        match tool {
            Some(tool) => {
                span.record("otel.name", format!("{method} {tool}"));
                span.record("gen_ai.tool.name", tool);
                span.record("gen_ai.operation.name", "execute_tool");
            }
            None => {
                span.record("otel.name", method);
            }
        }
        if let Some(parent) = parent {
            // It fails only for a span that has begun or has no exporter: neither is here.
            let _ = span.set_parent(Context::new().with_remote_span_context(context(parent)));
        }
        Self(span)
    }

    /// The span itself, to run a future in.
    #[must_use]
    pub fn span(&self) -> Span {
        self.0.clone()
    }

    /// Its own place in a trace, if it is exported.
    #[must_use]
    pub fn trace(&self) -> Option<TraceParent> {
        place(&self.0)
    }

    /// The request failed.
    pub fn failed(&self, error_type: &str) {
        self.0.record("error.type", error_type);
        self.0.set_status(opentelemetry::trace::Status::error(error_type.to_owned()));
    }
}

/// A message that was sent in another trace is handed out by the span that runs now.
pub fn link_to(sent: TraceParent) {
    let span = Span::current();
    if !span.is_disabled() {
        span.add_link(context(sent));
    }
}

/// The trace of the span that runs now, to travel with a message; without an exporter, the caller's
/// own trace is passed on.
#[must_use]
pub fn trace_of(caller: Option<TraceParent>) -> Option<TraceParent> {
    place(&Span::current()).or(caller)
}

fn place(span: &Span) -> Option<TraceParent> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let place = context.span().span_context().clone();
    place.is_valid().then(|| TraceParent {
        trace_id: u128::from_be_bytes(place.trace_id().to_bytes()),
        span_id: u64::from_be_bytes(place.span_id().to_bytes()),
        flags: place.trace_flags().to_u8(),
    })
}
