//! Setting up what the process says about itself: log lines, and spans for a collector.

use std::{io::IsTerminal, time::Duration};

use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    Resource,
    resource::{EnvResourceDetector, SdkProvidedResourceDetector, TelemetryResourceDetector},
    trace::SdkTracerProvider,
};
use tokio::runtime::Runtime;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use super::{exporting, json_lines::JsonLines, metrics::Metrics, spans};

/// How long the last spans may take to leave at shutdown.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// The target of the audit log, which names clients: it is never part of the other lines.
const AUDIT: &str = "audit";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For collectors: one object a line.
    Json,
    /// Text in a terminal, JSON elsewhere.
    Auto,
}

/// How spans leave the process (`OTEL_EXPORTER_OTLP_PROTOCOL`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceExport {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP with protobuf, the default of OpenTelemetry.
    Http,
}

/// What to say, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A level, or a filter such as `info,mcp_messaging=debug`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
    /// Write the audit log too.
    pub audit: bool,
    /// Export spans. Where to, and what else, the standard `OTEL_*` variables say.
    pub traces: Option<TraceExport>,
    /// `OTEL_SERVICE_NAME` names the service; otherwise it is `mcp-messaging`.
    pub service_named: bool,
    /// Most spans that wait for their export.
    pub span_queue: usize,
}

/// Why it cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is neither a level nor a filter.
    #[error("log.level (LOG_LEVEL): {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// The exporter refuses its settings.
    #[error("OTEL_EXPORTER_OTLP_*: {0}")]
    Exporter(String),
    /// Set up twice in one process.
    #[error("logging is set up already: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// What must be flushed at the end.
pub struct Telemetry {
    spans: Option<SdkTracerProvider>,
    /// Drives the gRPC connection, also while the last spans leave and nothing else runs.
    _grpc: Option<Runtime>,
}

impl Telemetry {
    /// Sets up logs to standard error and, if wanted, the export of spans. Once per process.
    ///
    /// # Errors
    /// [`TelemetryError`] names the setting.
    pub fn start(settings: &Settings, metrics: &Metrics) -> Result<Self, TelemetryError> {
        // Spans are for the collector: a log line says what it says by itself.
        let filter = EnvFilter::builder()
            .with_default_directive(LevelFilter::INFO.into())
            // What actix says of each start and stop, we say in one line.
            .parse(format!("actix_server=warn,{}", settings.level.to_ascii_lowercase()))?
            .add_directive(format!("{}=off", spans::TARGET).parse()?)
            .add_directive(format!("{AUDIT}=off").parse()?);
        let json = match settings.format {
            LogFormat::Json => true,
            LogFormat::Text => false,
            LogFormat::Auto => !std::io::stderr().is_terminal(),
        };
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let lines: Box<dyn Layer<Registry> + Send + Sync> = if json {
            lines.event_format(JsonLines).boxed()
        } else {
            lines.with_target(false).boxed()
        };
        let grpc = match settings.traces {
            Some(TraceExport::Grpc) => Some(grpc_runtime()?),
            Some(TraceExport::Http) | None => None,
        };
        let provider = {
            let _inside = grpc.as_ref().map(Runtime::enter);
            settings.traces.map(|export| provider(export, settings, metrics)).transpose()?
        };
        let exporting = provider.as_ref().map(|provider| {
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("mcp-messaging"))
                .with_location(false)
                .with_threads(false)
                .with_filter(Targets::new().with_target(spans::TARGET, LevelFilter::INFO))
        });
        let mut lines = lines.with_filter(filter).boxed();
        if settings.audit {
            let audit = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
            let audit = audit.event_format(JsonLines);
            let audit = audit.with_filter(Targets::new().with_target(AUDIT, LevelFilter::INFO));
            lines = Box::new(lines.and_then(audit));
        }
        let subscriber = tracing_subscriber::registry().with(lines);
        match exporting {
            Some(exporting) => subscriber.with(exporting).try_init()?,
            // A layer that is `None` has no filter either: every span would be made for nobody.
            None => subscriber.try_init()?,
        }
        Ok(Self { spans: provider, _grpc: grpc })
    }

    /// Sends the last spans. Blocks for at most two seconds.
    pub fn flush(self) {
        if let Some(provider) = self.spans
            && let Err(error) = provider.shutdown_with_timeout(FLUSH_WITHIN)
        {
            tracing::warn!(error = %error, "some spans were not exported");
        }
    }
}

fn grpc_runtime() -> Result<Runtime, TelemetryError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("otlp")
        .enable_all()
        .build()
        .map_err(|error| TelemetryError::Exporter(error.to_string()))
}

fn provider(
    export: TraceExport,
    settings: &Settings,
    metrics: &Metrics,
) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = match export {
        TraceExport::Grpc => SpanExporter::builder().with_tonic().build(),
        TraceExport::Http => SpanExporter::builder().with_http().build(),
    };
    let exporter = exporter.map_err(|error| TelemetryError::Exporter(error.to_string()))?;
    let dropped = metrics.spans_dropped();
    Ok(SdkTracerProvider::builder()
        .with_span_processor(exporting::counted(exporter, settings.span_queue, &dropped))
        .with_resource(resource(settings.service_named))
        .build())
}

/// What the spans are of. Later detectors win: `OTEL_RESOURCE_ATTRIBUTES`, then `OTEL_SERVICE_NAME`.
fn resource(service_named: bool) -> Resource {
    let ours = [
        KeyValue::new("service.name", "mcp-messaging"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        // Tells replicas apart, and one life of a replica from the next.
        KeyValue::new("service.instance.id", uuid::Uuid::now_v7().to_string()),
    ];
    let mut resource = Resource::builder_empty()
        .with_attributes(ours)
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    if service_named {
        resource = resource.with_detector(Box::new(SdkProvidedResourceDetector));
    }
    resource.build()
}
