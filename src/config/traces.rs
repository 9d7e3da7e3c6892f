//! Spans are switched on by the standard variables of OpenTelemetry.

use std::collections::HashMap;

use super::ConfigError;

/// The queue of spans that OpenTelemetry's specification has by default.
const QUEUE: usize = 2048;

/// What the standard variables of OpenTelemetry say that concerns us; the exporter reads the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    /// `OTEL_EXPORTER_OTLP_PROTOCOL` is `grpc`.
    pub grpc: bool,
    /// `OTEL_SERVICE_NAME` is set.
    pub service_named: bool,
    /// `OTEL_BSP_MAX_QUEUE_SIZE`: most spans that wait for their export.
    pub queue: usize,
}

impl Traces {
    pub(super) fn read(environment: &HashMap<String, String>) -> Result<Option<Self>, ConfigError> {
        let get = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        let endpoint =
            get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or(get("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let off = get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || get("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        if endpoint.is_none() || off {
            return Ok(None);
        }
        let protocol =
            get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or(get("OTEL_EXPORTER_OTLP_PROTOCOL"));
        let grpc = match protocol.map(String::as_str) {
            None | Some("http/protobuf") => false,
            Some("grpc") => true,
            Some(other) => {
                return Err(ConfigError::Rule {
                    key: "OTEL_EXPORTER_OTLP_PROTOCOL",
                    problem: format!("is {other}; it must be grpc or http/protobuf"),
                });
            }
        };
        let queue = match get("OTEL_BSP_MAX_QUEUE_SIZE") {
            None => QUEUE,
            Some(size) => match size.parse() {
                Ok(size) if size > 0 => size,
                Ok(_) | Err(_) => {
                    return Err(ConfigError::Rule {
                        key: "OTEL_BSP_MAX_QUEUE_SIZE",
                        problem: format!("is {size}; it must be a positive number"),
                    });
                }
            },
        };
        Ok(Some(Self { grpc, service_named: get("OTEL_SERVICE_NAME").is_some(), queue }))
    }
}
