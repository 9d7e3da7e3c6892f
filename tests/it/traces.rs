//! Spans as a collector gets them: one trace from agent to agent.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{ResourceSpans, Span, status::StatusCode},
};
use prost::Message;
use serde_json::json;

use crate::support::{Persistence, RedisServer, Replica};

/// An OTLP receiver over HTTP.
pub(crate) struct Collector {
    port: u16,
    /// All that came, resources and names of attributes included.
    raw: Arc<Mutex<Vec<u8>>>,
    spans: Arc<Mutex<Vec<Span>>>,
    /// `service.instance.id` of who sent them.
    instances: Arc<Mutex<BTreeSet<String>>>,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let into = Arc::clone(&spans);
        let raw = Arc::<Mutex<Vec<u8>>>::default();
        let everything = Arc::clone(&raw);
        let instances = Arc::<Mutex<BTreeSet<String>>>::default();
        let names = Arc::clone(&instances);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, into) = (stream.unwrap(), Arc::clone(&into));
                let (names, everything) = (Arc::clone(&names), Arc::clone(&everything));
                std::thread::spawn(move || {
                    let mut stream = BufReader::new(stream);
                    while let Some(body) = body(&mut stream) {
                        everything.lock().unwrap().extend_from_slice(&body);
                        let request = ExportTraceServiceRequest::decode(&*body).unwrap();
                        names.lock().unwrap().extend(request.resource_spans.iter().map(instance));
                        let scopes = request.resource_spans.into_iter().flat_map(|r| r.scope_spans);
                        into.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
                        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                        stream.get_mut().write_all(answer.as_bytes()).unwrap();
                    }
                });
            }
        });
        Self { port, raw, spans, instances }
    }

    /// Where it listens.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All that came, as far as it is text.
    pub(crate) fn everything(&self) -> String {
        String::from_utf8_lossy(&self.raw.lock().unwrap()).into_owned()
    }

    /// All spans, as soon as one of this trace is among them.
    pub(crate) async fn spans_to(&self, trace: u128) -> Vec<Span> {
        for count in 1.. {
            let spans = self.spans(count).await;
            if spans.iter().any(|span| span.trace_id == trace.to_be_bytes()) {
                return spans;
            }
        }
        unreachable!("waiting for spans ends by itself")
    }

    async fn spans(&self, count: usize) -> Vec<Span> {
        let patience = Instant::now() + Duration::from_secs(15);
        loop {
            let spans = self.spans.lock().unwrap().clone();
            if spans.len() >= count {
                return spans;
            }
            assert!(Instant::now() < patience, "{} of {count} spans", spans.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Which process the spans are of.
fn instance(spans: &ResourceSpans) -> String {
    let attributes = &spans.resource.as_ref().expect("a resource").attributes;
    let id = attributes.iter().find(|attribute| attribute.key == "service.instance.id");
    format!("{:?}", id.expect("service.instance.id").value)
}

/// The body of the next request, if one comes.
fn body(stream: &mut impl BufRead) -> Option<Vec<u8>> {
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

#[tokio::test]
async fn a_message_links_the_reader_to_its_sender_across_replicas() {
    let collector = Collector::start();
    let redis = RedisServer::start(Persistence::None);
    let endpoint = collector.endpoint();
    let variables =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let one = Replica::with(&redis.url(), &variables).await;
    let two = Replica::with(&redis.url(), &variables).await;

    let caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let message = json!({"name": "send_message", "_meta": {"traceparent": caller},
        "arguments": {"sender_id": "alice", "recipient_id": "bob", "message": "hi"}});
    one.agent("alice").request(1, "tools/call", message).await.unwrap();
    two.agent("bob").fetch(0).await;
    one.agent("alice").try_call("send_message", json!({})).await.unwrap();

    let spans = collector.spans(3).await;
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let sends = named("tools/call send_message");
    let send =
        sends.iter().find(|span| !span.parent_span_id.is_empty()).expect("a continued trace");
    assert_eq!(send.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes());
    assert_eq!(send.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    let read = named("tools/call get_messages")[0];
    assert_ne!(read.trace_id, send.trace_id, "the reader has a trace of its own");
    assert_eq!(read.links.len(), 1);
    assert_eq!((&read.links[0].trace_id, &read.links[0].span_id), (&send.trace_id, &send.span_id));
    let refused = sends.iter().find(|span| span.parent_span_id.is_empty()).expect("a refusal");
    let status = refused.status.as_ref().map(opentelemetry_proto::tonic::trace::v1::Status::code);
    assert_eq!(status, Some(StatusCode::Error));
    assert_eq!(collector.instances.lock().unwrap().len(), 2, "two replicas are told apart");
    let told = format!("{spans:?}");
    for secret in ["alice", "bob", "\"hi\""] {
        assert!(!told.contains(secret), "a span says {secret}");
    }
}

#[tokio::test]
async fn spans_that_no_collector_takes_are_counted() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("http://{nobody}");
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "4"),
    ];
    let one = Replica::start(&variables);
    for _ in 0..8 {
        one.agent("alice").fetch(0).await;
    }
    let patience = Instant::now() + Duration::from_secs(20);
    while one.metric("mcp_messaging_spans_dropped_total").await < 8 {
        assert!(Instant::now() < patience, "not all of them are missed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
