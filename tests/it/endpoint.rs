//! What HTTP decides before the protocol, and what stands beside the endpoint.

use std::{sync::atomic::Ordering, time::Duration};

use mcp_messaging::http::HttpConfig;
use serde_json::json;

use crate::house::{Client, House, Reply, post, quick};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

async fn get(address: std::net::SocketAddr, path: &str) -> Reply {
    let mut client = Client::connect(address).await;
    client.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    client.reply().await
}

#[tokio::test]
async fn media_types_sizes_methods_and_origins_are_checked_before_the_protocol() {
    let house = House::with(&HttpConfig { body_limit: 1000, ..quick() }, false);
    for accept in
        ["*/*", "application/json", "application/*;q=0.5", "text/event-stream, application/json"]
    {
        let reply = house.post(&format!("Accept: {accept}\r\n"), PING).await;
        assert_eq!(reply.status, 200, "{accept}");
    }
    for (headers, status) in [
        ("Accept: text/html\r\n", 406),
        ("Accept: text/event-stream\r\n", 406),
        ("Content-Type: text/plain\r\n", 415),
        ("Content-Type: application/jsonp\r\n", 415),
        ("Content-Type: application/json; charset=utf-8\r\n", 200),
        ("Content-Type: Application/JSON\r\n", 200),
        ("Host: evil.example\r\n", 403),
        ("Host: 127.0.0.1:1\r\n", 200),
        ("Origin: http://evil.example\r\n", 403),
        ("Origin: null\r\n", 403),
        ("Origin: http://localhost:6274\r\n", 200),
        ("Origin: \r\n", 200),
    ] {
        let reply = house.post(headers, PING).await;
        assert_eq!(reply.status, status, "{headers}");
        assert!(reply.json()["error"]["message"].is_string() || status == 200);
    }
    let long = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"x":"{}"}}}}"#,
        "y".repeat(1000)
    );
    assert_eq!(house.post("", &long).await.status, 413);
    let mut client = Client::connect(house.address).await;
    let head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let chunk = format!("3e8\r\n{}\r\n", "y".repeat(1000));
    client.send(&format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n")).await;
    assert_eq!(client.reply().await.status, 413);
    for method in ["GET", "DELETE", "PUT", "OPTIONS", "PATCH"] {
        for path in ["/mcp", "/mcp/"] {
            let mut client = Client::connect(house.address).await;
            client
                .send(&format!("{method} {path} HTTP/1.1\r\nHost: x\r\nAccept: image/png\r\n\r\n"))
                .await;
            let reply = client.reply().await;
            assert_eq!(
                (reply.status, reply.header("allow")),
                (405, Some("POST")),
                "{method} {path}"
            );
        }
    }
    let mut client = Client::connect(house.address).await;
    client.send(&post("", PING).replace("POST /mcp ", "POST /mcp/ ")).await;
    assert_eq!(client.reply().await.status, 200);
    house.close().await;
}

#[tokio::test]
async fn probes_say_whether_to_send_requests_and_metrics_hold_no_names_of_clients() {
    let house = House::open();
    house.modern("tools/call", Some("nope-secret"), r#""name":"nope-secret""#).await;
    house.modern("tools/call", Some("echo"), r#""name":"echo""#).await;
    house.modern("made/up-secret", None, "").await;
    let metrics = get(house.address, "/metrics").await.body;
    assert!(!metrics.contains("secret"), "{metrics}");
    for labels in [
        r#"{error_type="unknown_tool",gen_ai_tool_name="",mcp_method_name="tools/call",mcp_protocol_version="2026-07-28"} 1"#,
        r#"{error_type="tool_error",gen_ai_tool_name="echo",mcp_method_name="tools/call",mcp_protocol_version="2026-07-28"} 1"#,
        r#"{error_type="method_not_found",gen_ai_tool_name="",mcp_method_name="unknown",mcp_protocol_version="2026-07-28"} 1"#,
    ] {
        let line = format!("mcp_server_operation_duration_seconds_count{labels}");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    assert_eq!(get(house.address, "/readyz").await.status, 200);
    house.store.down.store(true, Ordering::SeqCst);
    let reply = get(house.address, "/readyz").await;
    assert_eq!(reply.status, 503);
    assert!(reply.body.starts_with("disconnected: not connected to Redis"), "{}", reply.body);
    assert!(!reply.body.contains("secret"), "{}", reply.body);
    let metrics = get(house.address, "/metrics").await.body;
    assert!(metrics.contains("mcp_messaging_ready{reason=\"disconnected\"} 1"), "{metrics}");
    assert!(metrics.contains("mcp_messaging_ready{reason=\"ok\"} 0"), "{metrics}");
    assert_eq!(get(house.address, "/livez").await.status, 200);
    house.stop.cancel();
    let reply = get(house.address, "/readyz").await;
    assert_eq!((reply.status, reply.body.as_str()), (503, "stopping: shutting down"));
    assert_eq!(get(house.address, "/livez").await.status, 200);
    house.close().await;
}

#[tokio::test]
async fn with_a_listener_of_their_own_the_probes_are_only_there() {
    let house = House::with(&quick(), true);
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(get(house.address, path).await.status, 404, "{path}");
        assert_eq!(get(house.ops.unwrap(), path).await.status, 200, "{path}");
    }
    assert_eq!(get(house.ops.unwrap(), "/mcp").await.status, 404);
    assert_eq!(get(house.ops.unwrap(), "/api/sessions").await.status, 404);
    house.close().await;
}

#[tokio::test]
async fn the_session_list_has_the_shape_that_dashboards_know() {
    let house = House::open();
    house.store.put("mail");
    let reply = get(house.address, "/api/sessions").await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, None));
    let row = json!({
        "client_id": "bob", "name": "bob", "description": "", "clientType": "untracked client",
        "last_seen": null, "messages_in_queue": 1,
    });
    let stats = json!({ "total_queues": 1, "total_messages": 1, "active_waiters": 0 });
    let expected = json!({ "messagingClients": [row], "queueStats": stats, "total_messages": 1 });
    assert_eq!(reply.json(), expected);
    // Where nothing is proved, the ids in it are secrets: no page of somebody else's reads them.
    for (method, served) in [("GET", 200), ("OPTIONS", 204)] {
        for (headers, status, allowed) in [
            (
                "Host: localhost\r\nOrigin: http://localhost:5173\r\n",
                served,
                Some("http://localhost:5173"),
            ),
            ("Host: localhost\r\nOrigin: https://evil.example\r\n", 403, None),
            ("Host: localhost\r\nOrigin: null\r\n", 403, None),
            ("Host: evil.example\r\n", 403, None),
        ] {
            let mut client = Client::connect(house.address).await;
            client.send(&format!("{method} /api/sessions HTTP/1.1\r\n{headers}\r\n")).await;
            client.until("\r\n\r\n").await;
            let head = client.so_far();
            let reply = Reply { status: 0, head: head.clone(), body: String::new() };
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {headers}{head}");
            assert_eq!(reply.header("access-control-allow-origin"), allowed, "{method} {headers}");
        }
    }
    house.close().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let config = HttpConfig { client_request_timeout: Duration::from_millis(100), ..quick() };
    let house = House::with(&config, false);
    let mut client = Client::connect(house.address).await;
    let head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    client.send(&format!("{head}Content-Length: 100\r\n\r\n{{")).await;
    assert_eq!(client.reply().await.status, 408);
    house.close().await;
}

#[tokio::test]
async fn no_answer_is_kept_or_taken_for_a_page() {
    let house = House::open();
    house.store.put("mail");
    let ask = async |request: &str| {
        let mut client = Client::connect(house.address).await;
        client.send(request).await;
        client.until("\r\n\r\n").await;
        Reply { status: 0, head: client.so_far(), body: String::new() }
    };
    let stream = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"take","arguments":{"wait_ms":20}}}"#;
    let note = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    for (request, status) in [
        (post("", PING), 200),
        (post("", stream), 200),
        (post("", note), 202),
        (post("", "{"), 400),
        (post("Origin: https://evil.example\r\n", PING), 403),
        (post("Content-Type: text/plain\r\n", PING), 415),
        ("GET /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 405),
        ("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 404),
        ("GET /api/sessions HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 200),
        ("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 200),
        ("GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 200),
    ] {
        let reply = ask(&request).await;
        assert!(
            reply.head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}: {}",
            reply.head
        );
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{request}");
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{request}");
        // Only the list of sessions is for other pages, and only for those that are allowed.
        assert_eq!(reply.header("access-control-allow-origin"), None, "{request}");
    }
    house.close().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_and_nothing_else_suffers() {
    let house = House::open();
    for headers in [
        format!("X-Long: {}\r\n", "y".repeat(200_000)),
        "X-Many: y\r\n".repeat(200),
        format!("GET /{} HTTP/1.1\r\n", "y".repeat(200_000)),
    ] {
        let mut client = Client::connect(house.address).await;
        // It may hang up before all of it was written.
        client.send_what_it_takes(&post(&headers, PING)).await;
        let said = client.all_that_comes().await;
        let status = said.split(' ').nth(1).unwrap_or_default();
        assert!(["400", "413", "414", "431"].contains(&status), "{said:?}");
        assert_eq!(house.post("", PING).await.status, 200);
    }
    house.close().await;
}
