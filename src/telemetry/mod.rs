//! Logs, metrics and traces. A leaf: the layers call named methods, none of them names a library.

mod exporting;
mod json_lines;
mod labels;
mod logs;
mod metrics;
mod sampled;
mod spans;

pub use labels::{MessageEvent, Readiness, RedisError, Refusal, Returned, SendOutcome, Unread};
pub use logs::{LogFormat, Settings, Telemetry, TelemetryError, TraceExport};
pub use metrics::{Listening, Metrics, Operation};
pub use spans::{CallSpan, link_to, trace_of};
