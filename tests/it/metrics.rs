//! What metrics say: every word of a label from the start, each event under the right one, and of the
//! store as a whole only what one replica knows.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mcp_messaging::{messaging::CallContext, queue::Outcome, telemetry::Metrics};
use serde_json::json;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use crate::{
    house,
    support::{Draft, Persistence, RedisServer, Replica, Store, message, redis_backend},
};

const SAMPLED: (&str, &str) = ("MCP_MESSAGING__OPS__SAMPLE_SECONDS", "1");

async fn metrics(replica: &Replica) -> String {
    replica.get("/metrics").await.1
}

/// The value of one series; `None` if it is not there.
fn value(text: &str, series: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|number| number.parse().unwrap())
}

async fn read(replica: &Replica, series: &str) -> u64 {
    let text = metrics(replica).await;
    value(&text, series).unwrap_or_else(|| panic!("no {series} in {text}"))
}

/// Waits until a series of a replica has this value.
async fn becomes(replica: &Replica, series: &str, wanted: Option<u64>) {
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        let text = metrics(replica).await;
        let now = value(&text, series);
        if now == wanted {
            return;
        }
        assert!(Instant::now() < patience, "{series} is {now:?}, not {wanted:?}: {text}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn every_word_of_a_label_is_there_from_the_start() {
    let site = Store::Redis.open().await;
    becomes(site.here(), "mcp_messaging_redis_connected", Some(1)).await;
    let text = metrics(site.here()).await;
    for series in [
        r#"messages_total{event="failed"}"#,
        r#"messages_total{event="expired"}"#,
        r#"refusals_total{reason="inbox_full"}"#,
        r#"refusals_total{reason="origin"}"#,
        r#"leases_returned_total{why="unwritten"}"#,
        r#"send_duration_seconds_count{outcome="failed"}"#,
        r#"redis_errors_total{function="mb1_send",kind="read_only"}"#,
        r#"redis_errors_total{function="connect",kind="denied"}"#,
        "messages_expired_total",
        "spans_dropped_total",
    ] {
        assert_eq!(value(&text, &format!("mcp_messaging_{series}")), Some(0), "{series}");
    }
    for (series, expected) in [
        (r#"limit{limit="inbox_messages"}"#, 10_000),
        (r#"ready{reason="ok"}"#, 1),
        (r#"ready{reason="evicts"}"#, 0),
    ] {
        assert_eq!(value(&text, &format!("mcp_messaging_{series}")), Some(expected), "{series}");
    }
    // To load the functions is one, for whoever comes first.
    assert!(value(&text, "mcp_messaging_redis_retries_total").is_some());
    let ours = value(&text, r#"mcp_messaging_function_revision{side="library"}"#);
    assert!(ours > Some(0));
    assert_eq!(ours, value(&text, r#"mcp_messaging_function_revision{side="server"}"#));
    assert!(text.contains(r#"mcp_messaging_build_info{backend="redis",revision=""#), "{text}");
}

#[tokio::test]
async fn a_server_without_redis_says_nothing_of_it() {
    let site = Store::Memory.with(&[SAMPLED]).await;
    site.here().agent("alice").send("bob", "x").await;
    becomes(site.here(), "mcp_messaging_queued_messages", Some(1)).await;
    becomes(site.here(), r#"mcp_messaging_ready{reason="ok"}"#, Some(1)).await;
    let text = metrics(site.here()).await;
    assert!(text.contains(r#"mcp_messaging_build_info{backend="memory""#), "{text}");
    assert!(!text.contains("mcp_messaging_redis_"), "{text}");
    assert!(!text.contains("mcp_messaging_function_revision"), "{text}");
}

#[tokio::test]
async fn one_replica_counts_what_lies_in_the_store_and_another_follows_it() {
    let redis = RedisServer::start(Persistence::None);
    let mut first = Replica::with(&redis.url(), &[SAMPLED]).await;
    first.agent("alice").send("bob", "x").await;
    becomes(&first, "mcp_messaging_queued_messages", Some(1)).await;
    let second = Replica::with(&redis.url(), &[SAMPLED]).await;
    second.agent("alice").send("carol", "y").await;
    becomes(&first, "mcp_messaging_inboxes", Some(2)).await;
    becomes(&first, r#"mcp_messaging_clients{state="active"}"#, Some(1)).await;
    let text = metrics(&second).await;
    for gauge in ["queued_messages", "inboxes", "clients", "sample_timestamp_seconds"] {
        assert!(!text.contains(&format!("mcp_messaging_{gauge}")), "{gauge} in {text}");
    }
    first.kill();
    becomes(&second, "mcp_messaging_queued_messages", Some(2)).await;
}

#[tokio::test]
async fn who_cannot_count_any_more_exports_nothing_stale() {
    let mut redis = RedisServer::start(Persistence::None);
    let one = Replica::with(&redis.url(), &[SAMPLED]).await;
    one.agent("alice").send("bob", "x").await;
    becomes(&one, "mcp_messaging_queued_messages", Some(1)).await;
    redis.kill();
    becomes(&one, "mcp_messaging_queued_messages", None).await;
    redis.restart();
    becomes(&one, "mcp_messaging_queued_messages", Some(0)).await;
}

async fn an_expiry_is_found_although_the_sender_does_not_come_back(store: Store) {
    let site = store.with(&[SAMPLED]).await;
    let send =
        json!({"sender_id": "alice", "recipient_id": "bob", "message": "x", "ttl_seconds": 1});
    site.here().agent("alice").call("send_message", send).await;
    let expired = "mcp_messaging_messages_expired_total";
    let patience = Instant::now() + Duration::from_secs(30);
    while read(site.here(), expired).await + read(site.there(), expired).await == 0 {
        assert!(Instant::now() < patience, "nobody found it");
        sleep(Duration::from_millis(100)).await;
    }
    // Found is not told.
    assert_eq!(read(site.here(), r#"mcp_messaging_messages_total{event="expired"}"#).await, 0);
    let got = site.here().agent("alice").fetch(0).await;
    assert_eq!(got["notices"].as_array().unwrap().len(), 1);
    becomes(site.here(), r#"mcp_messaging_messages_total{event="expired"}"#, Some(1)).await;
}

async fn refusals_are_counted_by_their_reason(store: Store) {
    let site = store.with(&[("MCP_MESSAGING__LIMITS__INBOX_MESSAGES", "1")]).await;
    let (one, alice) = (site.here(), site.here().agent("alice"));
    alice.send("bob", "fits").await;
    let to =
        |who: &str, what: &str| json!({"sender_id": "alice", "recipient_id": who, "message": what});
    for refused in [to("bob", "too many"), json!({"sender_id": "{}"})] {
        let answer = alice.try_call("send_message", refused).await.unwrap();
        assert_eq!(answer["isError"], true);
    }
    let several = json!({"sender_id": "alice", "recipients": ["bob", "carol"], "message": "x"});
    alice.try_call("send_message", several).await.unwrap();
    let asked = json!({"sender_id": "alice", "recipient_id": "bob", "message": "?", "timeout": 1});
    alice.try_call("send_message_and_wait", asked).await.unwrap();
    let stale = json!({"client_id": "bob", "receipt": "nonsense"});
    alice.try_call("get_messages", stale).await.unwrap();
    let http = reqwest::Client::new();
    for (name, value) in [("host", "evil.example"), ("origin", "http://evil.example")] {
        let request = http.post(&alice.url).header(name, value).header("accept", "*/*");
        assert_eq!(request.json(&json!({})).send().await.unwrap().status(), 403);
    }
    assert_eq!(http.post(&alice.url).body("x").send().await.unwrap().status(), 415);
    assert_eq!(reqwest::get(&alice.url).await.unwrap().status(), 405);
    for (reason, count) in [
        ("inbox_full", 3),
        ("bad_argument", 1),
        ("invalid_receipt", 1),
        ("host", 1),
        ("origin", 1),
        ("content_type", 1),
        ("http_method", 1),
        ("empty_message", 0),
    ] {
        let series = format!("mcp_messaging_refusals_total{{reason=\"{reason}\"}}");
        assert_eq!(read(one, &series).await, count, "{reason}");
    }
    assert_eq!(read(one, r#"mcp_messaging_messages_total{event="refused"}"#).await, 3);
    assert_eq!(read(one, r#"mcp_messaging_messages_total{event="failed"}"#).await, 0);
}

on_every_store!(
    an_expiry_is_found_although_the_sender_does_not_come_back,
    refusals_are_counted_by_their_reason,
);

#[tokio::test]
async fn a_send_that_the_store_failed_is_a_failure_of_the_service() {
    let mut redis = RedisServer::start(Persistence::None);
    let one = Replica::with(&redis.url(), &[("MCP_MESSAGING__REDIS__RETRY_SECONDS", "0.5")]).await;
    redis.kill();
    let message = json!({"sender_id": "alice", "recipient_id": "bob", "message": "?"});
    let answer = one.agent("alice").try_call("send_message", message).await.unwrap();
    assert_eq!(answer["isError"], true, "its sender is told: {answer}");
    let text = metrics(&one).await;
    assert_eq!(value(&text, r#"mcp_messaging_messages_total{event="failed"}"#), Some(1));
    assert_eq!(value(&text, r#"mcp_messaging_messages_total{event="refused"}"#), Some(0));
    assert_eq!(
        value(&text, r#"mcp_messaging_send_duration_seconds_count{outcome="failed"}"#),
        Some(1)
    );
    let failed = r#"mcp_server_operation_duration_seconds_count{error_type="unavailable",gen_ai_tool_name="send_message""#;
    assert!(text.contains(failed), "{text}");
    let errors =
        text.lines().filter(|line| line.contains(r#"redis_errors_total{function="mb1_send""#));
    assert!(errors.clone().any(|line| !line.ends_with(" 0")), "{:?}", errors.collect::<Vec<_>>());
    assert!(value(&text, "mcp_messaging_redis_retries_total") > Some(0));
    becomes(&one, r#"mcp_messaging_ready{reason="disconnected"}"#, Some(1)).await;
    assert_eq!(read(&one, r#"mcp_messaging_ready{reason="ok"}"#).await, 0);
    redis.restart();
    becomes(&one, r#"mcp_messaging_ready{reason="ok"}"#, Some(1)).await;
}

/// Why a server on this Redis is not ready, by `/readyz`, and the same by its metrics.
async fn not_ready_for(url: &str, reason: &str) {
    let one = Replica::start(&[("REDIS_URL", url)]);
    becomes(&one, &format!("mcp_messaging_ready{{reason=\"{reason}\"}}"), Some(1)).await;
    let (status, said) = one.get("/readyz").await;
    assert_eq!(status, 503);
    assert!(said.starts_with(&format!("{reason}: ")), "{said}");
    assert!(!said.contains("127.0.0.1"), "an address is nobody's business: {said}");
}

#[tokio::test]
async fn a_replica_that_is_not_ready_says_which_of_the_usual_reasons_it_is() {
    let evicting =
        RedisServer::start_with(Persistence::None, &["--maxmemory-policy", "allkeys-lru"]);
    not_ready_for(&evicting.url(), "evicts").await;
    let guarded = RedisServer::start(Persistence::None);
    let rights = ["~mb1:*", "&mb1:*", "+@all", "-function"];
    let user = [&["ACL", "SETUSER", "mailbox", "on", ">right"], &rights[..]].concat();
    guarded.command(&user);
    let with = |password: &str| guarded.url().replace("//", &format!("//mailbox:{password}@"));
    not_ready_for(&with("wrong"), "denied").await;
    not_ready_for(&with("right"), "functions_missing").await;
    let mut gone = RedisServer::start(Persistence::None);
    gone.kill();
    not_ready_for(&gone.url(), "disconnected").await;
}

#[tokio::test]
async fn mail_that_goes_back_is_counted_by_why() {
    // More than the buffers between a server and its client hold.
    let site = Store::Redis
        .with(&[
            ("MCP_MESSAGING__LIMITS__MESSAGE_BYTES", "9000000"),
            ("MCP_MESSAGING__LIMITS__FETCH_BYTES", "9000000"),
            ("MCP_MESSAGING__HTTP__BODY_BYTES", "10000000"),
        ])
        .await;
    let one = site.here();
    one.agent("alice").send("bob", &"x".repeat(6_000_000)).await;
    // A client that goes away without reading its answer, and takes little of it until then.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(one.address()).await.unwrap();
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "get_messages", "arguments": {"client_id": "bob"}}})
    .to_string();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: application/json\r\nContent-Length: {}\r\n\r\n",
        call.len()
    );
    tokio::io::AsyncWriteExt::write_all(&mut socket, format!("{head}{call}").as_bytes())
        .await
        .unwrap();
    becomes(one, r#"mcp_messaging_messages_total{event="delivered"}"#, Some(1)).await;
    socket.set_zero_linger().unwrap();
    drop(socket);
    becomes(one, r#"mcp_messaging_leases_returned_total{why="unwritten"}"#, Some(1)).await;
    assert_eq!(one.agent("bob").texts(5).await.len(), 1, "it comes again");
}

#[tokio::test]
async fn what_the_store_did_not_hear_of_is_not_counted_as_acknowledged() {
    let backend = redis_backend().await;
    let (metrics, tasks) = (Arc::new(Metrics::new().unwrap()), TaskTracker::new());
    let (queue, counts) = (Arc::clone(&backend.queue), Arc::clone(&metrics));
    let mailbox = house::mailbox_settling(queue, tasks.clone(), counts);
    let answers = async {
        let asked = loop {
            if let Outcome::Messages(batch) = backend.look("bob").await.outcome {
                break batch.messages[0].id;
            }
            sleep(Duration::from_millis(5)).await;
        };
        backend.reply(&message("bob", "alice", "!").answering(asked)).await;
    };
    let context = CallContext::default();
    let (asked, ()) = tokio::join!(mailbox.ask(house::question(), &context), answers);
    let delivery = asked.unwrap().delivery.expect("the answer");
    backend.redis().hang(true);
    delivery.flushed();
    tasks.close();
    tasks.wait().await;
    backend.redis().hang(false);
    let counted = value(&metrics.render(), "mcp_messaging_messages_total{event=\"acknowledged\"}");
    assert_eq!(counted, Some(0));
}
