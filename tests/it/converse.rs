//! What talks with its client while it runs: on the stream of its answer, and in more rounds than one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use mcp_messaging::{
    dialogue::{LocalRendezvous, LogLevel, LogLevels, Subscriptions},
    http::HttpConfig,
    mcp::{ListChanges, ListKind, Offer},
    resources::Changes,
};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::house::{Client, House, Reply, modern, post, quick, readables, schema};

const LEGACY: &str = "MCP-Protocol-Version: 2025-11-25\r\nMcp-Session-Id: s-1\r\n";

/// What a server may keep of its sessions, and a list that changes.
#[derive(Default)]
struct Kept {
    levels: Mutex<HashMap<Option<String>, LogLevel>>,
    subscribed: Mutex<Vec<(String, bool)>>,
    tools: watch::Sender<()>,
}

#[async_trait]
impl LogLevels for Kept {
    async fn set(&self, session: Option<&str>, level: LogLevel) {
        self.levels.lock().unwrap().insert(session.map(str::to_owned), level);
    }

    async fn get(&self, session: Option<&str>) -> LogLevel {
        let levels = self.levels.lock().unwrap();
        levels.get(&session.map(str::to_owned)).copied().unwrap_or(LogLevel::Debug)
    }
}

#[async_trait]
impl Subscriptions for Kept {
    async fn set(&self, _: Option<&str>, uri: &str, wanted: bool) {
        self.subscribed.lock().unwrap().push((uri.to_owned(), wanted));
    }
}

struct Changed(watch::Receiver<()>);

#[async_trait]
impl Changes for Changed {
    async fn changed(&mut self) {
        self.0.changed().await.unwrap();
    }
}

#[async_trait]
impl ListChanges for Kept {
    fn covers(&self, list: ListKind) -> bool {
        list == ListKind::Tools
    }

    async fn watch(&self, _: ListKind) -> Box<dyn Changes> {
        Box::new(Changed(self.tools.subscribe()))
    }
}

fn house(kept: &Arc<Kept>) -> House {
    let kept = Arc::clone(kept);
    let config = HttpConfig { keep_alive: std::time::Duration::from_secs(60), ..quick() };
    House::serving(&config, false, move |store| Offer {
        logging: Some(Arc::clone(&kept) as _),
        subscriptions: Some(Arc::clone(&kept) as _),
        list_changes: Some(Arc::clone(&kept) as _),
        rendezvous: Some(Arc::new(LocalRendezvous::default())),
        page: 2,
        ..readables::offer(store)
    })
}

fn legacy(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}}}}}"#)
}

fn talk(what: &str, meta: &str) -> String {
    legacy(
        "tools/call",
        &format!(r#""name":"talk","arguments":{{"do":"{what}"}},"_meta":{{{meta}}}"#),
    )
}

/// A modern call of `talk` with further `_meta` and params.
async fn talk_modern(house: &House, what: &str, meta: &str, params: &str) -> Reply {
    let params = format!(r#""name":"talk","arguments":{{"do":"{what}"}}{params}"#);
    let (headers, body) = modern("tools/call", Some("talk"), &params);
    let capabilities = r#""io.modelcontextprotocol/clientCapabilities":{}"#;
    let body = body.replace(capabilities, meta);
    assert!(body.contains("clientCapabilities"), "{body}");
    house.post(&headers, &body).await
}

fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap()
}

#[tokio::test]
async fn progress_is_reported_in_a_call_whose_client_asked_for_it_and_only_there() {
    let house = house(&Arc::default());
    let reply = house.post(LEGACY, &talk("report", r#""progressToken":7"#)).await;
    let events = reply.events();
    assert_eq!(events.len(), 3);
    for (progress, event) in [1.0, 2.0].into_iter().zip(&events) {
        let params =
            json!({ "progressToken": 7, "progress": progress, "total": 2.0, "message": "on it" });
        let expected =
            json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params });
        assert_eq!(*event, expected);
    }
    assert_eq!(text(&events[2]["result"]), "reported");
    // Without a token, and where no stream can carry it, the answer stands alone.
    let reply = house.post(LEGACY, &talk("report", "")).await;
    assert_eq!(text(&reply.json()["result"]), "reported");
    let json_only = format!("Accept: application/json\r\n{LEGACY}");
    let reply = house.post(&json_only, &talk("report", r#""progressToken":7"#)).await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(text(&reply.json()["result"]), "reported");
    house.close().await;
}

#[tokio::test]
async fn lines_of_log_are_sent_to_who_wants_them() {
    let house = house(&Arc::default());
    let levels = |reply: &Reply| -> Vec<Value> {
        let events = reply.events().into_iter();
        let logs = events.filter(|event| event["method"] == "notifications/message");
        logs.map(|event| event["params"]["level"].clone()).collect()
    };
    assert_eq!(levels(&house.post(LEGACY, &talk("log", "")).await), ["debug", "error"]);
    let set = |level| legacy("logging/setLevel", &format!(r#""level":"{level}""#));
    let reply = house.post(LEGACY, &set("warning")).await;
    assert_eq!(reply.json()["result"], json!({}));
    assert_eq!(levels(&house.post(LEGACY, &talk("log", "")).await), ["error"]);
    let bad = house.post(LEGACY, &set("loud")).await;
    assert_eq!(bad.json()["error"]["code"], -32602);
    // The latest revision says it with each request, or hears nothing.
    let can = r#""io.modelcontextprotocol/clientCapabilities":{}"#;
    let reply = talk_modern(&house, "log", can, "").await;
    assert_eq!(text(&reply.json()["result"]), "logged");
    let from = format!(r#"{can},"io.modelcontextprotocol/logLevel":"error""#);
    assert_eq!(levels(&talk_modern(&house, "log", &from, "").await), ["error"]);
    house.close().await;
}

#[tokio::test]
async fn a_legacy_client_is_asked_on_the_stream_and_answers_by_another_request() {
    let house = house(&Arc::default());
    for (answer, expected) in [
        (r#""result":{"roots":[]}"#, r#"{"roots":[]}"#),
        (r#""error":{"code":-1,"message":"no roots"}"#, "the client refused: no roots"),
    ] {
        let mut client = Client::connect(house.address).await;
        client.send(&post(LEGACY, &talk("ask", ""))).await;
        client.until("\"roots/list\"").await;
        client.until("\n\n").await;
        let line = client.so_far();
        let asked = line.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        let asked: Value = serde_json::from_str(asked).unwrap();
        schema::message("2025-11-25", "tools/call", &asked);
        let body = format!(r#"{{"jsonrpc":"2.0","id":{},{answer}}}"#, asked["id"]);
        // Another session's answer is not ours.
        let other = LEGACY.replace("s-1", "s-2");
        assert_eq!(house.post(&other, &body.replace("roots", "stolen")).await.status, 202);
        assert_eq!(house.post(LEGACY, &body).await.status, 202);
        let events = client.reply().await.events();
        assert_eq!(text(&events.last().unwrap()["result"]), expected);
    }
    // Who has no session, or no stream, cannot be asked; nor can a client of the latest revision.
    let cannot = "this client cannot be asked here";
    let reply = house.post("", &talk("ask", "")).await;
    assert_eq!(text(&reply.json()["result"]), cannot);
    let reply =
        house.post(&format!("Accept: application/json\r\n{LEGACY}"), &talk("ask", "")).await;
    assert_eq!(text(&reply.json()["result"]), cannot);
    let can = r#""io.modelcontextprotocol/clientCapabilities":{"roots":{}}"#;
    let reply = talk_modern(&house, "ask", can, "").await;
    assert_eq!(text(&reply.json()["result"]), cannot);
    house.close().await;
}

#[tokio::test]
async fn a_request_that_lacks_an_input_says_which_and_is_answered_with_it() {
    let house = house(&Arc::default());
    let can = r#""io.modelcontextprotocol/clientCapabilities":{"elicitation":{}}"#;
    let reply = talk_modern(&house, "require", can, "").await;
    let result = &reply.json()["result"];
    assert_eq!((reply.status, &result["resultType"]), (200, &json!("input_required")));
    assert_eq!(result["inputRequests"]["who"]["method"], "elicitation/create");
    assert_eq!(result["requestState"], "kept");
    let answered = r#","inputResponses":{"who":{"action":"accept","content":{"name":"Bob"}}},"requestState":"kept""#;
    let reply = talk_modern(&house, "require", can, answered).await;
    assert_eq!(text(&reply.json()["result"]), "kept \"Bob\"");
    for bad in ["null", "[]", r#"{"who":7}"#].map(|bad| format!(r#","inputResponses":{bad}"#)) {
        let reply = talk_modern(&house, "require", can, &bad).await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (200, &json!(-32602)), "{bad}");
    }
    // A client is never required to do what it cannot.
    let cannot = r#""io.modelcontextprotocol/clientCapabilities":{"sampling":{}}"#;
    let reply = talk_modern(&house, "require", cannot, "").await;
    let error = &reply.json()["error"];
    assert_eq!((reply.status, &error["code"]), (400, &json!(-32021)));
    assert_eq!(error["data"], json!({ "requiredCapabilities": { "elicitation": {} } }));
    let reply = talk_modern(&house, "sample", can, "").await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!(-32021)));
    let reply = house.post(LEGACY, &talk("require", "")).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (200, &json!(-32602)));
    house.close().await;
}

#[tokio::test]
async fn arguments_of_prompts_complete() {
    let house = house(&Arc::default());
    let complete =
        |reference: &str| format!(r#""ref":{reference},"argument":{{"name":"whom","value":"b"}}"#);
    let params = complete(r#"{"type":"ref/prompt","name":"greet"}"#);
    let reply = house.post(LEGACY, &legacy("completion/complete", &params)).await;
    let completion = &reply.json()["result"]["completion"];
    assert_eq!(completion["values"][0], "whom-b0");
    // The protocol allows a hundred.
    assert_eq!(completion["values"].as_array().unwrap().len(), 100);
    assert_eq!((&completion["total"], &completion["hasMore"]), (&json!(150), &json!(true)));
    let reply = house.modern("completion/complete", None, &params).await;
    assert_eq!(reply.json()["result"]["completion"], *completion);
    let shelf = complete(r#"{"type":"ref/resource","uri":"shelf://{name}"}"#);
    let reply = house.modern("completion/complete", None, &shelf).await;
    assert_eq!(reply.json()["result"]["completion"]["values"], json!([]));
    for unknown in [
        r#"{"type":"ref/prompt","name":"praise"}"#,
        r#"{"type":"ref/resource","uri":"no://x"}"#,
        r#"{"type":"ref/tool","name":"echo"}"#,
        "7",
    ] {
        let reply = house.modern("completion/complete", None, &complete(unknown)).await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (200, &json!(-32602)));
    }
    house.close().await;
}

#[tokio::test]
async fn lists_have_pages_and_those_who_listen_hear_that_one_has_changed() {
    let kept = Arc::<Kept>::default();
    let house = house(&kept);
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = house.modern("tools/list", None, &cursor).await.json()["result"].clone();
        let tools = page["tools"].as_array().unwrap();
        assert!(tools.len() <= 2);
        names.extend(tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()));
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!(r#""cursor":"{next}""#),
            None => break,
        }
    }
    assert_eq!(names, ["echo", "broken", "take", "hang", "talk"]);
    let capabilities = house.modern("server/discover", None, "").await;
    let capabilities = &capabilities.json()["result"]["capabilities"];
    assert_eq!(capabilities["tools"], json!({ "listChanged": true }));
    assert_eq!(capabilities["prompts"], json!({}));

    let wanted = r#""notifications":{"toolsListChanged":true,"promptsListChanged":true}"#;
    let (headers, body) = modern("subscriptions/listen", None, wanted);
    let mut client = Client::connect(house.address).await;
    client.send(&post(&headers, &body)).await;
    client.until("acknowledged").await;
    kept.tools.send_replace(());
    client.until("notifications/tools/list_changed").await;
    house.stop.cancel();
    let events = client.reply().await.events();
    for event in &events {
        schema::message("2026-07-28", "subscriptions/listen", event);
    }
    assert_eq!(events.len(), 3);
    assert_eq!(events[0]["params"]["notifications"], json!({ "toolsListChanged": true }));
    house.close().await;
}

#[tokio::test]
async fn a_server_that_keeps_legacy_subscriptions_takes_them() {
    let kept = Arc::<Kept>::default();
    let house = house(&kept);
    let body = legacy("initialize", r#""protocolVersion":"2025-11-25""#);
    let capabilities = house.post("", &body).await.json()["result"]["capabilities"].clone();
    assert_eq!(capabilities["resources"], json!({ "subscribe": true }));
    assert_eq!(capabilities["tools"], json!({}));
    assert_eq!(capabilities["logging"], json!({}));
    for method in ["resources/subscribe", "resources/unsubscribe"] {
        let reply = house.post(LEGACY, &legacy(method, r#""uri":"note://only""#)).await;
        assert_eq!((reply.status, &reply.json()["result"]), (200, &json!({})));
        let reply = house.post(LEGACY, &legacy(method, r#""uri":"no://x""#)).await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (200, &json!(-32002)));
    }
    let expected = [("note://only".to_owned(), true), ("note://only".to_owned(), false)];
    assert_eq!(*kept.subscribed.lock().unwrap(), expected);
    house.close().await;
}
