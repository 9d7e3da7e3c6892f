//! Logs, metrics and traces. A leaf: the layers call named methods, none of them names a library.

mod json_lines;
mod logs;
mod metrics;
mod spans;

pub use logs::{LogFormat, Settings, Telemetry, TelemetryError, TraceExport};
pub use metrics::{Listening, MessageEvent, Metrics, Operation};
pub use spans::{CallSpan, link_to, trace_of};
