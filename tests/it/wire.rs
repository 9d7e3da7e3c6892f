//! Whole requests in, whole responses out, for each revision.

use mcp_messaging::{model::Principal, queue::CallKey};
use serde_json::{Value, json};

use crate::house::{Client, Did, House, Reply, eventually, modern};

const LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

fn server_info() -> Value {
    json!({ "name": "mcp-messaging", "version": env!("CARGO_PKG_VERSION") })
}

fn stamped(mut result: Value) -> Value {
    result["resultType"] = json!("complete");
    result["_meta"] = json!({ "io.modelcontextprotocol/serverInfo": server_info() });
    result
}

fn listed(mut result: Value) -> Value {
    result["ttlMs"] = json!(300_000);
    result["cacheScope"] = json!("public");
    stamped(result)
}

fn answer(result: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "result": result })
}

fn tools() -> Value {
    let tool = |name| json!({ "name": name, "inputSchema": { "type": "object" } });
    let tools = ["echo", "broken", "take", "hang", "talk"].map(tool);
    json!({ "tools": tools })
}

fn request(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)
}

#[track_caller]
fn assert_error(reply: &Reply, status: u16, code: i32, id: Option<&str>) {
    let body = reply.json();
    assert_eq!(
        (reply.status, body["error"]["code"].as_i64()),
        (status, Some(code.into())),
        "{reply:?}"
    );
    assert_eq!(body.get("id").map(Value::to_string).as_deref(), id, "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn every_legacy_revision_begins_with_initialize() {
    let house = House::open();
    for version in LEGACY {
        let params = format!(
            r#"{{"protocolVersion":"{version}","capabilities":{{}},"clientInfo":{{"name":"c","version":"1"}}}}"#
        );
        let reply = house.post("", &request("initialize", &params)).await;
        let body = reply.json();
        assert_eq!(reply.status, 200);
        let instructions = body["result"]["instructions"].clone();
        assert!(instructions.as_str().is_some_and(|text| text.len() > 50));
        let expected = json!({
            "protocolVersion": version,
            "capabilities": { "tools": {}, "resources": {}, "prompts": {}, "completions": {} },
            "serverInfo": server_info(), "instructions": instructions,
        });
        assert_eq!(body, answer(&expected));
        let session = reply.header("mcp-session-id").unwrap().to_owned();
        assert!(session.len() == 32 && session.bytes().all(|byte| byte.is_ascii_hexdigit()));

        let headers = format!("MCP-Protocol-Version: {version}\r\nMcp-Session-Id: {session}\r\n");
        let done = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        let reply = house.post(&headers, done).await;
        assert_eq!((reply.status, reply.body.as_str()), (202, ""));
        let reply = house.post(&headers, &request("ping", "{}")).await;
        assert_eq!((reply.status, reply.json()), (200, answer(&json!({}))));
        let reply = house.post(&headers, &request("tools/list", "{}")).await;
        assert_eq!((reply.status, reply.json()), (200, answer(&tools())));
        let call = r#"{"name":"echo","arguments":{"text":"hé\n"}}"#;
        let reply = house.post(&headers, &request("tools/call", call)).await;
        let expected = json!({
            "content": [{ "type": "text", "text": "hé\n" }],
            "structuredContent": { "text": "hé\n", "trace": null }, "isError": false,
        });
        assert_eq!((reply.status, reply.json()), (200, answer(&expected)));
        // A session that was never minted is as good as any.
        let headers = format!("MCP-Protocol-Version: {version}\r\nMcp-Session-Id: unheard-of\r\n");
        assert_eq!(house.post(&headers, &request("ping", "{}")).await.status, 200);
    }
    house.close().await;
}

#[tokio::test]
async fn initialize_never_agrees_to_a_revision_that_has_none() {
    let house = House::open();
    for header in ["", "MCP-Protocol-Version: 2026-07-28\r\n", "MCP-Protocol-Version: nonsense\r\n"]
    {
        for asked in ["2026-07-28", "1999-01-01"] {
            let params = format!(r#"{{"protocolVersion":"{asked}"}}"#);
            let reply = house.post(header, &request("initialize", &params)).await;
            assert_eq!(reply.json()["result"]["protocolVersion"], "2025-11-25");
        }
    }
    house.close().await;
}

#[tokio::test]
async fn the_latest_revision_needs_no_initialize_and_stamps_its_results() {
    let house = House::open();
    let reply = house.modern("server/discover", None, "").await;
    let instructions = reply.json()["result"]["instructions"].clone();
    let versions = ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
    let expected = json!({
        "supportedVersions": versions,
        "capabilities": {
            "tools": {}, "resources": { "subscribe": true }, "prompts": {}, "completions": {},
        },
        "instructions": instructions,
    });
    assert_eq!((reply.status, reply.json()), (200, answer(&listed(expected))));
    assert_eq!(reply.header("mcp-session-id"), None);

    let reply = house.modern("tools/list", None, "").await;
    assert_eq!((reply.status, reply.json()), (200, answer(&listed(tools()))));

    let reply =
        house.modern("tools/call", Some("echo"), r#""name":"echo","arguments":{"text":"hi"}"#);
    let expected = json!({
        "content": [{ "type": "text", "text": "hi" }],
        "structuredContent": { "text": "hi", "trace": null }, "isError": false,
    });
    let reply = reply.await;
    assert_eq!((reply.status, reply.json()), (200, answer(&stamped(expected))));

    // Bad arguments are a matter between the model and the tool.
    let reply = house.modern("tools/call", Some("echo"), r#""name":"echo""#).await;
    let content = json!([{ "type": "text", "text": "text is missing" }]);
    let expected = stamped(json!({ "content": content, "isError": true }));
    assert_eq!((reply.status, reply.json()), (200, answer(&expected)));

    // An alias is called and not listed; a coded name is a name.
    let call = r#""name":"old_echo","arguments":{"text":"hi"}"#;
    let reply = house.modern("tools/call", Some("=?base64?b2xkX2VjaG8=?="), call).await;
    assert_eq!(reply.json()["result"]["isError"], false);
    house.close().await;
}

#[tokio::test]
async fn the_latest_revision_has_a_status_for_every_error() {
    let house = House::open();
    for method in ["initialize", "ping", "resources/subscribe", "logging/setLevel", "tasks/get"] {
        assert_error(&house.modern(method, None, "").await, 404, -32601, Some("1"));
    }
    let unknown = house.modern("tools/call", Some("nope"), r#""name":"nope""#).await;
    assert_error(&unknown, 200, -32602, Some("1"));
    assert!(unknown.body.contains("nope"));
    let nameless = house.modern("tools/call", None, "").await;
    assert_error(&nameless, 200, -32602, Some("1"));
    let cursor = house.modern("tools/list", None, r#""cursor":"x""#).await;
    assert_error(&cursor, 200, -32602, Some("1"));
    let twice = r#""name":"echo","arguments":{"text":"a","text":"b"}"#;
    assert_error(&house.modern("tools/call", Some("echo"), twice).await, 200, -32602, Some("1"));
    let store =
        house.modern("tools/call", Some("broken"), r#""name":"broken","arguments":{"store":1}"#);
    let store = store.await;
    assert_error(&store, 503, -32603, Some("1"));
    assert!(store.body.contains("try again"));
    let fault = house.modern("tools/call", Some("broken"), r#""name":"broken""#).await;
    assert_error(&fault, 500, -32603, Some("1"));
    // The same, where errors travel in a success.
    let body = request("tools/call", r#"{"name":"broken","arguments":{"store":1}}"#);
    assert_error(&house.post("", &body).await, 200, -32603, Some("1"));
    let unknown = house.post("", &request("tools/call", r#"{"name":"nope"}"#)).await;
    assert_error(&unknown, 200, -32602, Some("1"));
    house.close().await;
}

#[tokio::test]
async fn the_era_is_chosen_by_header_and_body_together() {
    let house = House::open();
    let version = "MCP-Protocol-Version: 2026-07-28\r\n";
    let (headers, body) = modern("tools/list", None, "");
    // Without the header, with another one, with two of them.
    assert_error(&house.post("", &body).await, 400, -32020, Some("1"));
    let other = headers.replace("2026-07-28", "2025-11-25");
    assert_error(&house.post(&other, &body).await, 400, -32020, Some("1"));
    assert_error(&house.post(&format!("{version}{headers}"), &body).await, 400, -32020, Some("1"));
    // Header names have no case, values have one.
    assert_eq!(house.post(&headers.to_ascii_lowercase(), &body).await.status, 200);
    let upper = headers.replace("tools/list", "TOOLS/LIST");
    assert_error(&house.post(&upper, &body).await, 400, -32020, Some("1"));
    assert_error(&house.post(version, &body).await, 400, -32020, Some("1"));
    // A version that nobody has.
    let reply = house.post("MCP-Protocol-Version: 1999-01-01\r\n", &request("ping", "{}")).await;
    assert_error(&reply, 400, -32022, Some("1"));
    let data = &reply.json()["error"]["data"];
    assert_eq!(data["requested"], "1999-01-01");
    assert_eq!(data["supported"].as_array().unwrap().len(), 5);
    // `_meta` must say version and capabilities; who the client is may stay unsaid.
    let bare = house.post(&headers, &request("tools/list", "{}")).await;
    assert_error(&bare, 400, -32602, Some("1"));
    for capabilities in ["null", "1", "[]"] {
        let body = body
            .replace("clientCapabilities\":{}", &format!("clientCapabilities\":{capabilities}"));
        assert_error(&house.post(&headers, &body).await, 400, -32602, Some("1"));
    }
    let discover = house.post("", &request("server/discover", "{}")).await;
    assert_error(&discover, 400, -32602, Some("1"));
    let body = request("server/discover", "{}");
    let legacy = house.post("MCP-Protocol-Version: 2025-11-25\r\n", &body).await;
    assert_error(&legacy, 200, -32601, Some("1"));
    // The name of a tool is checked too.
    let call = r#""name":"echo","arguments":{}"#;
    for name in [None, Some("other"), Some("=?base64?ZWNobw?="), Some("Echo")] {
        assert_error(&house.modern("tools/call", name, call).await, 400, -32020, Some("1"));
    }
    house.close().await;
}

#[tokio::test]
async fn what_is_no_message_is_refused_and_ids_come_back_as_they_were() {
    let house = House::open();
    assert_error(&house.post("", "{").await, 400, -32700, None);
    assert_error(&house.post("", "").await, 400, -32700, None);
    assert_error(&house.post("", "\"x\"").await, 400, -32600, None);
    let null = r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#;
    assert_error(&house.post("", null).await, 400, -32600, None);
    assert_error(&house.post("", r#"{"jsonrpc":"2.0","id":1}"#).await, 400, -32600, Some("1"));
    let id = r#""l\u00e4\"n" "#.trim();
    let reply = house.post("", &format!(r#"{{"id":{id},"method":"ping","jsonrpc":"2.0"}}"#)).await;
    assert_eq!(reply.body, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#));
    let answered = house.post("", r#"{"jsonrpc":"2.0","id":5,"result":{}}"#).await;
    assert_eq!((answered.status, answered.body.as_str()), (202, ""));
    // Real clients send this without `Mcp-Method`.
    let cancelled =
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    let reply = house.post("MCP-Protocol-Version: 2026-07-28\r\n", cancelled).await;
    assert_eq!((reply.status, reply.body.as_str()), (202, ""));
    house.close().await;
}

#[tokio::test]
async fn batches_are_a_matter_of_one_revision() {
    let house = House::open();
    house.store.put("mail");
    let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},
        {"jsonrpc":"2.0","method":"notifications/initialized"},
        {"jsonrpc":"2.0","id":"b","method":"tools/call","params":{"name":"take"}},
        {"jsonrpc":"2.0","id":3,"method":"initialize","params":{}}, 7]"#;
    let reply = house.post("MCP-Protocol-Version: 2025-03-26\r\n", batch).await;
    let body = reply.json();
    assert_eq!((reply.status, body.as_array().unwrap().len()), (200, 4));
    assert_eq!(body[0], answer(&json!({})));
    assert_eq!(
        (&body[1]["id"], &body[1]["result"]["content"][0]["text"]),
        (&json!("b"), &json!("mail"))
    );
    assert_eq!((&body[2]["id"], &body[2]["error"]["code"]), (&json!(3), &json!(-32600)));
    assert_eq!(body[3]["error"]["code"], -32600);
    eventually("the mail of the batch is acknowledged", || house.store.count(Did::Acked) == 1)
        .await;
    let silent = r#"[{"jsonrpc":"2.0","method":"notifications/initialized"}]"#;
    assert_eq!(house.post("", silent).await.status, 202);
    assert_error(&house.post("", "[]").await, 400, -32600, None);
    let later = house.post("MCP-Protocol-Version: 2025-06-18\r\n", batch).await;
    assert_error(&later, 400, -32600, None);
    house.close().await;
}

#[tokio::test]
async fn a_call_that_waits_is_a_stream_with_signs_of_life_and_progress() {
    let house = House::open();
    let params = r#"{"name":"take","arguments":{"wait_ms":60000},"_meta":{"progressToken":"p"}}"#;
    let mut client = Client::connect(house.address).await;
    client.send(&crate::house::post("", &request("tools/call", params))).await;
    // Headers and the first comment are there long before anything happens.
    client.until(": keep-alive\n\n").await;
    client.until("\"progress\":2").await;
    house.store.put("mail");
    let reply = client.reply().await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("x-accel-buffering"), Some("no"));
    let events = reply.events();
    let (last, progress) = events.split_last().unwrap();
    let expected = json!({ "content": [{ "type": "text", "text": "mail" }], "isError": false });
    assert_eq!(*last, answer(&expected));
    for (number, event) in progress.iter().enumerate() {
        assert_eq!(event["method"], "notifications/progress");
        assert_eq!(event["params"]["progressToken"], "p");
        assert_eq!(event["params"]["progress"], number + 1);
        assert_eq!(event.get("id"), None);
    }
    assert!(progress.len() >= 2);
    eventually("acknowledged", || house.store.count(Did::Acked) == 1).await;
    // The connection goes on, and without an Accept for streams the same call is plain JSON.
    let params = r#"{"name":"take","arguments":{"wait_ms":20}}"#;
    client.send(&crate::house::post("Accept: */*\r\n", &request("tools/call", params))).await;
    let reply = client.reply().await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.json()["result"]["content"][0]["text"], "nothing");
    house.close().await;
}

#[tokio::test]
async fn a_cancel_is_routed_by_session_and_request_and_ends_the_stream_without_an_answer() {
    let house = House::open();
    let session = "Mcp-Session-Id: s-1\r\n";
    let params = r#"{"name":"take","arguments":{"wait_ms":60000}}"#;
    let mut client = Client::connect(house.address).await;
    client.send(&crate::house::post(session, &request("tools/call", params))).await;
    client.until(": keep-alive\n\n").await;
    let cancel = |id: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#
        )
    };
    // Not this one, and not this session.
    assert_eq!(house.post(session, &cancel("\"1\"")).await.status, 202);
    assert_eq!(house.post("Mcp-Session-Id: s-2\r\n", &cancel("1")).await.status, 202);
    assert_eq!(house.post("", &cancel("1")).await.status, 202);
    assert_eq!(
        house.store.count(Did::Cancelled(CallKey::new(&Principal::anyone(), "s-1", "1"))),
        0
    );
    assert_eq!(house.post(session, &cancel("1")).await.status, 202);
    assert_eq!(
        house.store.count(Did::Cancelled(CallKey::new(&Principal::anyone(), "s-1", "1"))),
        1
    );
    let reply = client.reply().await;
    assert_eq!(reply.events(), Vec::<Value>::new());
    house.close().await;
}

#[tokio::test]
async fn a_trace_is_taken_from_the_message_or_the_header() {
    let house = House::open();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let plain = request("tools/call", r#"{"name":"echo","arguments":{"text":"a"}}"#);
    let reply = house.post(&format!("traceparent: {trace}\r\n"), &plain).await;
    assert_eq!(reply.json()["result"]["structuredContent"]["trace"], trace);
    let meta = format!(
        r#"{{"name":"echo","arguments":{{"text":"a"}},"_meta":{{"traceparent":"{trace}"}}}}"#
    );
    let reply = house.post("", &request("tools/call", &meta)).await;
    assert_eq!(reply.json()["result"]["structuredContent"]["trace"], trace);
    house.close().await;
}
