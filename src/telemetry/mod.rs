//! Logs, metrics and traces. A leaf: the layers call named methods, none of them names a library.

mod metrics;

pub use metrics::{MessageEvent, Metrics, Operation};
