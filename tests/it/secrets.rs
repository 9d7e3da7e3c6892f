//! What a client says is nobody's but its reader's: no log line, no metric and no error of another
//! caller repeats it. Whatever is planted here has the same word in it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::support::{Agent, Listener, Persistence, RedisServer, Replica};

const WORD: &str = "canary";

/// All that we say of ourselves.
const LOUD: &str = "info,mcp_messaging=trace";
/// What everybody says as a rule.
const USUAL: &str = "info";

#[tokio::test]
async fn nothing_that_a_client_says_is_logged_in_memory_when_we_say_all() {
    with_memory(LOUD).await;
}

#[tokio::test]
async fn nothing_that_a_client_says_is_logged_in_memory_as_a_rule() {
    with_memory(USUAL).await;
}

#[tokio::test]
async fn nothing_that_a_client_says_is_logged_over_redis_when_we_say_all() {
    with_redis(LOUD).await;
}

#[tokio::test]
async fn nothing_that_a_client_says_is_logged_over_redis_as_a_rule() {
    with_redis(USUAL).await;
}

/// What clients say to each other, as far as it is accepted.
const BODIES: [&str; 7] = [
    "canary-body",
    "canary-one",
    "canary-two",
    "canary-question",
    "canary-news",
    "canary-later",
    "canary-held",
];

#[tokio::test]
async fn no_text_is_written_by_redis_once_texts_are_sealed() {
    let key = "a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    for (variables, written) in
        [(vec![], true), (vec![("MCP_MESSAGING__ENCRYPTION__KEYS", key)], false)]
    {
        let redis = RedisServer::start(Persistence::AppendOnly);
        let replica = Replica::with(&redis.url(), &variables).await;
        say_everything(&replica).await;
        let files = redis.files();
        for body in BODIES {
            let found = files.windows(body.len()).any(|bytes| bytes == body.as_bytes());
            assert_eq!(found, written, "{body}, with {} settings", variables.len());
        }
    }
}

async fn with_memory(level: &str) {
    let mut replica = Replica::start(&[("LOG_LEVEL", level)]);
    let secrets = say_everything(&replica).await;
    metrics_are_clean(&replica, &secrets).await;
    clean(&replica.ended_log(), &secrets);
}

async fn with_redis(level: &str) {
    let mut redis = RedisServer::start(Persistence::None);
    redis.command(&["CONFIG", "SET", "requirepass", "canary-password"]);
    let url = redis.url().replace("redis://", "redis://:canary-password@");
    let mut replica = Replica::with(&url, &[("LOG_LEVEL", level)]).await;
    let wrong = redis.url().replace("redis://", "redis://:canary-wrong@");
    let mut outside = Replica::start(&[("LOG_LEVEL", level), ("REDIS_URL", &wrong)]);
    let secrets = say_everything(&replica).await;
    let bystander = outside.agent("bystander").try_call("list_clients", json!({})).await;
    without(&bystander.unwrap_err(), &secrets);

    // Without Redis every call fails, with its cause in the log.
    let waiting = tokio::spawn({
        let agent = replica.agent("canary-waits");
        async move {
            let arguments = json!({"client_id": agent.id, "wait_seconds": 3});
            agent.try_call("get_messages", arguments).await
        }
    });
    replica.waiters(1).await;
    redis.kill();
    say_everything_to_a_broken_store(&replica).await;
    drop(waiting.await.unwrap());
    metrics_are_clean(&replica, &secrets).await;
    let log = replica.ended_log();
    for what in ["tool call failed", "a resource was not read"] {
        assert!(log.contains(what), "the store failed, and that was said: {log}");
    }
    clean(&log, &secrets);
    let log = outside.ended_log();
    assert!(log.contains("not ready"), "{log}");
    clean(&log, &secrets);
}

/// None of it is in what somebody may read who has no right to it.
#[track_caller]
fn without(text: &str, secrets: &[String]) {
    let lower = text.to_lowercase();
    assert!(!lower.contains(WORD), "{text}");
    for secret in secrets {
        assert!(!text.contains(secret.as_str()), "{secret} in {text}");
    }
}

/// A log that is not empty, without any of it.
#[track_caller]
fn clean(log: &str, secrets: &[String]) {
    assert!(log.contains("serving MCP at") && log.lines().count() > 1, "{log}");
    for line in log.lines() {
        without(line, secrets);
    }
}

async fn metrics_are_clean(replica: &Replica, secrets: &[String]) {
    let (status, metrics) = replica.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(metrics.contains("mcp_server_operation_duration_seconds_count"));
    without(&metrics, secrets);
}

/// One request with secrets in every place of it: status and text of the answer.
async fn raw(agent: &Agent, path: &str, headers: &[(&str, &str)], body: String) -> (u16, String) {
    let url = agent.url.replace("/mcp", path);
    let mut request = agent
        .http
        .post(url)
        .header("accept", "application/json, text/event-stream")
        .header("content-type", "application/json")
        .header("authorization", "Bearer canary-token")
        .header("user-agent", "canary-agent")
        .header("x-canary-header", "canary-header");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.body(body).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

fn call(tool: &str, arguments: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": "canary-request", "method": "tools/call",
        "params": {"name": tool, "arguments": arguments, "_meta": {"progressToken": "canary-progress"}}})
    .to_string()
}

/// Arguments of every tool, right and wrong, all of them secret.
fn calls() -> Vec<(&'static str, Value)> {
    let (me, you) = ("canary-alice", "canary-bob");
    let profile =
        json!({"client_id": me, "name": "canary-name", "capabilities": "canary-capabilities"});
    let letter = json!({"sender_id": me, "recipient_id": you, "message": "canary-body",
        "idempotency_key": "canary-key", "ttl_seconds": 60});
    let other_letter = json!({"sender_id": me, "recipient_id": you, "message": "canary-other body",
        "idempotency_key": "canary-key"});
    let several = json!({"sender_id": me, "recipients": [{"id": you, "message": "canary-one"},
        {"id": "canary-carol", "message": "canary-two"}]});
    let question =
        json!({"sender_id": me, "recipient_id": you, "message": "canary-question", "timeout": 0.2});
    let config = json!({"recipients_config": {"my_id": me,
        "recipients": {you: {"name": "canary-contact", "description": "canary-described"}}}});
    vec![
        ("checkin_client", profile.clone()),
        ("checkin_client", json!({"client_id": "canary blank", "name": "canary-name"})),
        ("checkin_client", json!({"client_id": me, "name": {"canary-kind": 1}})),
        ("send_message", letter.clone()),
        ("send_message", letter),
        ("send_message", other_letter),
        ("send_message", several.clone()),
        (
            "send_message",
            json!({"sender_id": me, "recipient_id": "canary:no", "message": "canary-body"}),
        ),
        (
            "send_message",
            json!({"sender_id": me, "recipient_id": you, "message": "canary-body".repeat(30_000)}),
        ),
        (
            "send_message",
            json!({"sender_id": me, "recipient_id": you, "message": "x", "in_reply_to": "canary-reply"}),
        ),
        (
            "send_message",
            json!({"sender_id": me, "recipients": vec![you; 101], "message": "canary-many"}),
        ),
        ("send_message_without_waiting", several),
        ("send_message_and_wait", question),
        (
            "send_message_and_wait",
            json!({"sender_id": me, "recipient_id": you, "message": "canary-question", "timeout": "canary-late"}),
        ),
        ("get_messages", json!({"client_id": you, "max_messages": 1})),
        ("get_messages", json!({"client_id": me, "receipt": "canary-receipt"})),
        ("get_messages", json!({"client_id": me, "ack": "canary-ack"})),
        ("get_my_identity", config),
        ("list_clients", json!({"query": "canary-query"})),
        ("list_clients", json!({"cursor": "canary-cursor"})),
        ("get_active_sessions", json!({"random_string": "canary-random"})),
        ("message_status", json!({"sender_id": me})),
        ("message_status", json!({"sender_id": me, "message_ids": ["canary-id"]})),
        ("canary_tool", profile),
    ]
}

/// Reads, watches and prompts, right and wrong, all of them secret: method, what the header names, rest
/// of the parameters.
fn reads() -> Vec<(&'static str, &'static str, Value)> {
    let uris = ["inbox://canary-bob", "inbox://canary%2Dbob", "inbox://canary bob", "canary://x"];
    let mut all: Vec<_> =
        uris.map(|uri| ("resources/read", uri, json!({ "uri": uri }))).into_iter().collect();
    for (name, arguments) in [
        ("check_inbox", json!({"client_id": "canary-bob"})),
        ("check_inbox", json!({"client_id": "canary bob"})),
        (
            "ask_agent",
            json!({"client_id": "canary-alice", "recipient_id": "canary-bob", "question": "canary-question"}),
        ),
        ("ask_agent", json!({"client_id": "canary-alice", "recipient_id": ["canary-bob"]})),
        (
            "introduce_yourself",
            json!({"client_id": "canary-alice", "name": "canary-name", "capabilities": "canary-capabilities"}),
        ),
        ("canary_prompt", json!({"canary": "canary"})),
    ] {
        all.push(("prompts/get", name, json!({"name": name, "arguments": arguments})));
    }
    all
}

/// One of [`reads`] as clients since 2026-07-28 say it, with what it is about in a header.
async fn read(agent: &Agent, (method, name, params): &(&str, &str, Value)) -> (u16, String) {
    let mut params = params.clone();
    params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}});
    let body =
        json!({"jsonrpc": "2.0", "id": "canary-request", "method": method, "params": params});
    let headers =
        [("mcp-protocol-version", "2026-07-28"), ("mcp-method", method), ("mcp-name", name)];
    raw(agent, "/mcp", &headers, body.to_string()).await
}

/// Every tool, every refusal and every way to end a call, with secrets everywhere. The secrets that
/// the server made itself.
async fn say_everything(replica: &Replica) -> Vec<String> {
    let alice = replica.agent("canary-alice");
    for (tool, arguments) in calls() {
        let path = "/mcp?canary-query=canary-value";
        let (status, _) =
            raw(&alice, path, &[("mcp-session-id", "canary-session")], call(tool, &arguments))
                .await;
        assert_eq!(status, 200, "{tool} {arguments}");
    }

    // What is read, prompted and listened to.
    for what in reads() {
        let (status, said) = read(&alice, &what).await;
        assert_eq!(status, 200, "{what:?}: {said}");
    }
    let mut listener = Listener::to(replica, &["inbox://canary-listened"]).await;
    alice.send("canary-listened", "canary-news").await;
    assert_eq!(listener.updated().await, "inbox://canary-listened");
    drop(listener);

    // What never becomes a call.
    let ping = r#"{"jsonrpc":"2.0","id":"canary","method":"ping"}"#;
    for (path, headers, body) in [
        ("/mcp", &[][..], "{\"canary\": "),
        ("/mcp", &[], "[\"canary\"]"),
        ("/mcp", &[], r#"{"jsonrpc":"2.0","id":1,"method":"canary/method"}"#),
        ("/mcp", &[], r#"{"jsonrpc":"2.0","method":"notifications/canary","params":{"canary":1}}"#),
        (
            "/mcp",
            &[],
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":["canary"]}}"#,
        ),
        (
            "/mcp",
            &[],
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"canary"}}"#,
        ),
        ("/mcp", &[("mcp-protocol-version", "canary")], ping),
        ("/mcp", &[("mcp-method", "canary"), ("mcp-name", "canary")], ping),
        ("/mcp", &[("origin", "https://canary.example")], ping),
        ("/mcp", &[("host", "canary.example")], ping),
        ("/canary", &[], ping),
        ("/mcp/canary", &[], ping),
    ] {
        let (status, _) = raw(&alice, path, headers, body.to_owned()).await;
        assert!(status < 500, "{path} {body}: {status}");
    }
    let (status, _) =
        raw(&alice, "/mcp", &[], call("get_messages", &json!({"x": WORD.repeat(300_000)}))).await;
    assert_eq!(status, 413);
    replica.get("/canary?canary=canary").await;
    replica.get("/mcp?canary=canary").await;
    replica.get("/api/sessions?token=canary").await;

    // A handle, which whoever has it may ask by.
    let question = json!({"name": "send_message_and_wait", "arguments": {"sender_id": alice.id,
        "recipient_id": "canary-bob", "message": "canary-later", "timeout": 60}});
    let (_, said) = read(&alice, &("tools/call", "send_message_and_wait", question)).await;
    let (_, handle) = said.split_once(r#""taskId":""#).expect("a handle");
    let handle = handle.split('"').next().unwrap().to_owned();
    for method in ["tasks/get", "tasks/update", "tasks/cancel", "tasks/list"] {
        let params = json!({"taskId": handle, "inputResponses": {"canary": {"canary": 1}}});
        let (status, said) = read(&alice, &(method, &*handle, params)).await;
        assert!(status < 500, "{method}: {said}");
    }

    // What the server made: a receipt and a session. And a foreign receipt.
    alice.send("canary-dave", "canary-held").await;
    let held =
        alice.call("get_messages", json!({"client_id": "canary-dave", "ack": "manual"})).await;
    let receipt = held["receipt"].as_str().unwrap().to_owned();
    for (client, refused) in [("canary-erin", true), ("canary-dave", false)] {
        let arguments = json!({"client_id": client, "receipt": receipt});
        let settled = alice.try_call("get_messages", arguments).await.unwrap();
        assert_eq!(settled["isError"], refused, "{settled}");
    }
    let mut reader = replica.agent("canary-reader");
    reader.initialize().await;
    let session = reader.session.clone().unwrap();

    // Cancelled, superseded, and hung up on.
    let blocking = |id: &'static str| {
        let reader = reader.clone();
        tokio::spawn(async move {
            let arguments = json!({"client_id": reader.id, "wait_seconds": 30});
            let body = call("get_messages", &arguments).replace("canary-request", id);
            let session = reader.session.clone().unwrap();
            raw(&reader, "/mcp", &[("mcp-session-id", &session)], body).await
        })
    };
    let older = blocking("canary-1");
    replica.waiters(1).await;
    let newer = blocking("canary-2");
    older.await.unwrap();
    replica.waiters(1).await;
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"canary-2","reason":"canary-reason"}}"#;
    let (status, _) =
        raw(&reader, "/mcp", &[("mcp-session-id", &session)], cancel.to_owned()).await;
    assert_eq!(status, 202);
    newer.await.unwrap();
    let gone = blocking("canary-3");
    replica.waiters(1).await;
    gone.abort();
    replica.waiters(0).await;

    // What somebody else is told when something is wrong with his own request.
    let secrets = vec![receipt, session, handle];
    bystander(replica, &secrets).await;
    secrets
}

async fn bystander(replica: &Replica, secrets: &[String]) {
    let eve = replica.agent("eve");
    for (tool, arguments) in [
        ("get_messages", json!({"client_id": "e v e"})),
        ("get_messages", json!({"client_id": "eve", "receipt": "mine"})),
        ("send_message", json!({"sender_id": "eve", "recipient_id": "", "message": "hi"})),
        ("list_clients", json!({"cursor": "x"})),
        (
            "message_status",
            json!({"sender_id": "eve", "message_ids": ["0199c3a2-7d1e-7000-8000-000000000000"]}),
        ),
        ("no_such_tool", json!({})),
    ] {
        match eve.try_call(tool, arguments).await {
            Ok(result) => without(&result.to_string(), secrets),
            Err(error) => without(&error, secrets),
        }
    }
    for path in ["/nowhere", "/mcp", "/livez", "/readyz"] {
        without(&replica.get(path).await.1, secrets);
    }
}

/// The same without a store: every call fails or is refused, and says so to its caller.
async fn say_everything_to_a_broken_store(replica: &Replica) {
    let alice = replica.agent("canary-alice");
    let patience = Instant::now() + Duration::from_secs(10);
    while replica.get("/readyz").await.0 != 503 {
        assert!(Instant::now() < patience, "it notices that Redis is gone");
        sleep(Duration::from_millis(20)).await;
    }
    let all = calls().into_iter().map(|(tool, arguments)| {
        let alice = &alice;
        async move {
            let (status, said) = raw(alice, "/mcp", &[], call(tool, &arguments)).await;
            assert_eq!(status, 200, "{tool}: {said}");
            assert!(!said.contains("127.0.0.1") && !said.contains("canary-password"), "{said}");
        }
    });
    futures_util::future::join_all(all).await;
    let inbox = ("resources/read", "inbox://canary-bob", json!({"uri": "inbox://canary-bob"}));
    let (status, said) = read(&alice, &inbox).await;
    assert_eq!(status, 503, "{said}");
    assert!(said.contains("does not answer") && !said.contains("127.0.0.1"), "{said}");
    let eve = replica.agent("eve");
    let others = [
        ("get_messages", json!({"client_id": "eve"})),
        ("send_message", json!({"sender_id": "eve", "recipient_id": "eve", "message": "hi"})),
        ("checkin_client", json!({"client_id": "eve", "name": "eve"})),
        ("list_clients", json!({})),
    ]
    .map(|(tool, arguments)| {
        let eve = &eve;
        async move {
            match eve.try_call(tool, arguments).await {
                Ok(result) => without(&result.to_string(), &[]),
                Err(error) => without(&error, &[]),
            }
        }
    });
    futures_util::future::join_all(others).await;
    for path in ["/api/sessions", "/readyz"] {
        let asked = timeout(Duration::from_secs(10), replica.get(path)).await;
        let (status, said) = asked.expect("an answer without Redis");
        assert_eq!(status, 503);
        without(&said, &[]);
    }
}

/// What a command of the binary wrote, on both outputs.
async fn ran(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mcp-messaging"));
    command.args(arguments).env_clear().envs(variables.iter().copied());
    let running = tokio::task::spawn_blocking(move || command.output().unwrap());
    let done = timeout(Duration::from_secs(60), running).await.expect("an end").unwrap();
    [done.stdout, done.stderr].map(|said| String::from_utf8(said).unwrap()).concat()
}

#[tokio::test]
async fn no_secret_of_the_configuration_is_in_what_a_command_says_of_it() {
    let master = "m1:Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5AAA";
    for (url, harmless) in [
        ("redis://:canary@127.0.0.1:9", "redis://***@127.0.0.1:9"),
        ("redis://canary-user:can@ary@127.0.0.1:9/2", "redis://***@127.0.0.1:9/2"),
        (
            "redis-sentinel://:canary@127.0.0.1:9?sentinelServiceName=m&sentinelPassword=canary",
            "sentinelServiceName=m&sentinelPassword=***",
        ),
        // Wrong ones.
        ("redis://:canary@127.0.0.1:canary", ""),
        ("redis://:can?canary@127.0.0.1:9", ""),
        ("redis://:canary@127.0.0.1:9/canary", ""),
        ("redis-cluster://127.0.0.1:9?node=:canary@127.0.0.1:9", ""),
        ("redis-sentinel://:canary@127.0.0.1:9", ""),
        ("http://:canary@127.0.0.1:9", ""),
        (":canary@127.0.0.1:9", ""),
        ("canary", ""),
    ] {
        let variables = [
            ("REDIS_URL", url),
            ("MCP_MESSAGING__ENCRYPTION__KEYS", "canary:canary"),
            ("MCP_MESSAGING__REDIS__RETRY_SECONDS", "0.1"),
            ("MCP_MESSAGING__REDIS__CONNECT_TIMEOUT_SECONDS", "0.5"),
            ("LOG_LEVEL", "trace"),
        ];
        let keys = [("MCP_MESSAGING__ENCRYPTION__KEYS", master)];
        for variables in [&variables[..], &[&variables[..1], &variables[2..], &keys].concat()] {
            for arguments in [&["check-config"][..], &["migrate"]] {
                let said = ran(arguments, variables).await;
                assert!(!said.is_empty());
                without(&said, &["Y2FuYXJ5".to_owned()]);
            }
        }
        let sealed = [&variables[..1], &keys].concat();
        let said = ran(&["check-config"], &sealed).await;
        assert!(said.contains(harmless), "{said}");
        without(&said, &["Y2FuYXJ5".to_owned()]);
    }
    // Neither in what is said of a file that cannot be read.
    for file in [
        "[redis]\nurl = \"redis://:canary@127.0.0.1:9\n",
        "[redis]\nurl = [\"redis://:canary@127.0.0.1:9\"]\n",
        "[redis]\nurl = { canary = \"canary\" }\n",
        "[redis]\nurl = \"redis://:canary@127.0.0.1:9\"\nurl = \"redis://:canary@127.0.0.1:9\"\n",
        "[auth]\nmaster_keys = [\"canary\"]\n",
        "[auth]\nmode = \"key\"\nmaster_keys = \"canary\"\n",
    ] {
        let config = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(config.path(), file).unwrap();
        let path = config.path().to_str().unwrap();
        let said = ran(&["--config", path, "check-config"], &[]).await;
        assert!(said.contains("configuration"), "{said}");
        without(&said, &[]);
    }
    // Nor in what the doctor says.
    for arguments in [
        &["--url", "http://canary:canary@127.0.0.1:9"][..],
        &["--url", "http://127.0.0.1:9 canary"],
        &["--url", "http://127.0.0.1:9", "--key", "canary"],
        &["--url", "http://127.0.0.1:9", "--ops-url", "http://canary@127.0.0.1:9"],
    ] {
        let said = ran(&[&["doctor"], arguments].concat(), &[]).await;
        assert!(!said.is_empty());
        without(&said, &[]);
    }
}

#[tokio::test]
async fn no_password_is_logged_at_any_level_by_anybody() {
    let redis = RedisServer::start(Persistence::None);
    redis.command(&["CONFIG", "SET", "requirepass", "canary-password"]);
    let of = |password: &str| redis.url().replace("redis://", &format!("redis://:{password}@"));
    for level in ["trace", "debug", "info"] {
        let right = of("canary-password");
        let mut replica = Replica::with(&right, &[("LOG_LEVEL", level)]).await;
        replica.agent("alice").send("bob", "hello").await;
        let wrong = of("canary-wrong");
        let mut outside = Replica::start(&[("LOG_LEVEL", level), ("REDIS_URL", &wrong)]);
        assert_eq!(outside.get("/readyz").await.0, 503);
        for log in [replica.ended_log(), outside.ended_log()] {
            assert!(!log.is_empty());
            log.lines().for_each(|line| without(line, &[]));
        }
    }
}
