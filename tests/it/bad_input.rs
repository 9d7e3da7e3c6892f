//! Whatever is sent or configured: a clear refusal that names the culprit, and a server that goes on.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{Agent, Replica};

const MIB: usize = 1 << 20;
const MESSAGE_LIMIT: usize = 256 * 1024;

/// Status and body of a POST.
async fn post(agent: &Agent, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let answer = agent
        .http
        .post(&agent.url)
        .header("accept", "application/json, text/event-stream")
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await
        .unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or(&text);
    (status, serde_json::from_str(data).unwrap_or(Value::Null))
}

fn call(tool: &str, arguments: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": tool, "arguments": arguments}})
    .to_string()
}

/// What a refused call says, whether the tool refuses it or the protocol.
async fn refused(agent: &Agent, tool: &str, arguments: &Value) -> String {
    let (status, answer) = post(agent, call(tool, arguments)).await;
    let short: String = arguments.to_string().chars().take(200).collect();
    assert_eq!(status, 200, "{tool} {short}: {answer}");
    if answer["error"]["code"] == -32602 {
        return answer["error"]["message"].as_str().unwrap().to_owned();
    }
    assert_eq!(answer["result"]["isError"], true, "{tool} {short}: {answer}");
    answer["result"]["content"][0]["text"].as_str().unwrap().to_owned()
}

async fn alive(agent: &Agent) {
    let (status, answer) = post(agent, r#"{"jsonrpc":"2.0","id":9,"method":"ping"}"#).await;
    assert_eq!((status, answer), (200, json!({"jsonrpc": "2.0", "id": 9, "result": {}})));
}

#[tokio::test]
async fn what_is_no_message_is_refused_by_its_code() {
    let replica = Replica::start(&[]);
    let agent = replica.agent("alice");
    let deep = |depth: usize| {
        let (open, close) = (r#"{"a":"#.repeat(depth), "}".repeat(depth));
        call("send_message", &json!("DEEP")).replace(r#""DEEP""#, &format!("{open}1{close}"))
    };
    let bytes = |text: &str| text.as_bytes().to_vec();
    let latin1 = [
        &br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"send_message","#[..],
        b"\"arguments\":{\"sender_id\":\"a\",\"recipient_id\":\"b\",\"message\":\"gr\xfc\xdfe\"}}}",
    ]
    .concat();
    let unread =
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"comment\":\"gr\xfc\xdfe\"}".to_vec();
    for (body, code) in [
        (unread, -32700),
        (bytes(""), -32700),
        (bytes("{"), -32700),
        (bytes("nonsense"), -32700),
        (bytes(r#"{"jsonrpc":"2.0","id":1,"method":"ping"} trailing"#), -32700),
        (bytes(r#"{"jsonrpc":"2.0","id":1,"method":"ping",}"#), -32700),
        (bytes("\u{feff}{}"), -32700),
        (bytes("\0"), -32700),
        (latin1, -32700),
        (bytes("null"), -32600),
        (bytes("7"), -32600),
        (bytes("\"text\""), -32600),
        (bytes("[]"), -32600),
        (bytes("{}"), -32600),
        (bytes(r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#), -32600),
        (bytes(r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#), -32600),
        (bytes(r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#), -32600),
        (bytes(r#"{"jsonrpc":"2.0","id":1,"method":7}"#), -32600),
        (bytes(r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#), -32600),
        (bytes(&"[".repeat(200_000)), -32700),
    ] {
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let (status, answer) = post(&agent, body).await;
        assert_eq!(answer["error"]["code"], code, "{shown}: {status} {answer}");
        assert_eq!(status, 400, "{shown}: {answer}");
        alive(&agent).await;
    }
    for (body, code) in [
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[]}"#, -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#, -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":7}}"#, -32602),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"no_such_tool"}}"#,
            -32602,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_messages","arguments":[]}}"#,
            -32602,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_messages","arguments":"x"}}"#,
            -32602,
        ),
        (r#"{"jsonrpc":"2.0","id":1,"method":"made/up"}"#, -32601),
    ] {
        let (status, answer) = post(&agent, body).await;
        assert!(status < 500, "{body}: {status}");
        assert_eq!(answer["error"]["code"], code, "{body}: {answer}");
        assert_eq!(answer["id"], 1, "{body}: {answer}");
    }
    // Nesting that a parser can bear is the tool's to refuse, more of it the protocol's.
    let (status, answer) = post(&agent, deep(50)).await;
    assert_eq!((status, &answer["result"]["isError"]), (200, &json!(true)), "{answer}");
    let (status, answer) = post(&agent, deep(100_000)).await;
    assert_eq!((status, &answer["error"]["code"]), (200, &json!(-32602)), "{answer}");
    alive(&agent).await;
}

/// Arguments that are right, as far as a tool must have them.
fn right(tool: &str) -> Value {
    match tool {
        "checkin_client" => json!({"client_id": "alice", "name": "Alice"}),
        "send_message" | "send_message_and_wait" => {
            json!({"sender_id": "alice", "recipient_id": "bob", "message": "hi"})
        }
        "get_messages" => json!({"client_id": "alice"}),
        "message_status" => json!({"sender_id": "alice"}),
        "get_my_identity" | "list_clients" => json!({}),
        other => panic!("{other} needs arguments here"),
    }
}

/// Values that a property of this schema cannot be.
fn wrong(schema: &Value) -> Vec<Value> {
    let mut values = vec![json!(true), json!([[]]), json!(1.5)];
    values.extend(match schema["type"].as_str().unwrap() {
        "string" => vec![json!({}), json!([true]), json!({"a": "b"}), json!(-7)],
        "number" => {
            vec![json!({}), json!([5]), json!("soon"), json!(-1), json!(1e300), json!("-inf")]
        }
        "integer" => vec![json!({}), json!([5]), json!("all"), json!(-1), json!(0), json!("NaN")],
        "array" => vec![json!([{}]), json!([null]), json!([1.5]), json!("a b"), json!({"a": "b"})],
        "object" => vec![json!(7), json!("text"), json!([1]), json!("[1]")],
        other => panic!("a kind that has no wrong values here: {other}"),
    });
    if schema["type"] == "number" {
        values.retain(|value| *value != json!(1.5));
    }
    if schema.get("enum").is_some() {
        values.push(json!("maybe"));
    }
    values
}

#[tokio::test]
async fn every_argument_of_every_tool_is_refused_by_name_when_it_is_of_the_wrong_kind() {
    let replica = Replica::start(&[]);
    let agent = replica.agent("alice");
    let listed = agent.request(1, "tools/list", json!({})).await.unwrap();
    let mut tried = 0;
    for tool in listed["tools"].as_array().unwrap() {
        let name = tool["name"].as_str().unwrap();
        let required = tool["inputSchema"]["required"].as_array().cloned().unwrap_or_default();
        for (key, schema) in tool["inputSchema"]["properties"].as_object().unwrap() {
            for value in wrong(schema) {
                let mut arguments = right(name);
                if key == "recipients" {
                    arguments.as_object_mut().unwrap().remove("recipient_id");
                }
                arguments[key] = value.clone();
                let said = refused(&agent, name, &arguments).await;
                assert!(said.contains(key.as_str()), "{name}.{key} = {value}: {said}");
                tried += 1;
            }
            // Null is "not given".
            let mut arguments = right(name);
            let needed = required.contains(&json!(key)) || arguments.get(key).is_some();
            arguments[key] = Value::Null;
            if needed {
                let said = refused(&agent, name, &arguments).await;
                assert!(said.contains(key.as_str()), "{name}.{key} = null: {said}");
            } else if name != "send_message_and_wait" {
                let (status, answer) = post(&agent, call(name, &arguments)).await;
                assert_eq!(status, 200);
                assert_eq!(answer["result"]["isError"], false, "{name}.{key} = null: {answer}");
            }
        }
    }
    assert!(tried > 100, "{tried} values");
    alive(&agent).await;
    // What was refused was not done: nobody but those with a null sent anything.
    let sent = replica.agent("bob").texts(0).await;
    let nulls = ["recipients", "in_reply_to", "idempotency_key", "ttl_seconds"];
    assert_eq!(sent, vec!["hi"; nulls.len()]);
}

#[tokio::test]
async fn arguments_that_only_older_clients_send_are_refused_by_name_as_well() {
    let replica = Replica::start(&[]);
    let agent = replica.agent("alice");
    let letter = |key: &str, value: Value| {
        let mut letter =
            json!({"sender_id": "alice", "recipient_ids": ["bob"], "messages": ["hi"]});
        letter[key] = value;
        letter
    };
    for tool in ["send_message", "send_message_without_waiting"] {
        for (key, value) in [
            ("recipient_ids", json!([true])),
            ("recipient_ids", json!({"a": 1})),
            ("recipient_ids", json!(["b:b"])),
            ("messages", json!([7])),
            ("messages", json!({"bob": "hi"})),
            ("messages", json!(["one", "two"])),
            ("recipient_ids", json!([])),
        ] {
            let said = refused(&agent, tool, &letter(key, value.clone())).await;
            let named = said.contains(key) || (value == json!([]) && said.contains("recipient_id"));
            assert!(named, "{tool}.{key} = {value}: {said}");
        }
    }
    let question = json!({"sender_id": "alice", "recipient_id": "bob", "message": "?", "expectation": "maybe"});
    assert!(refused(&agent, "send_message_and_wait", &question).await.contains("expectation"));
    let config = json!({"recipients_config": {"my_id": ["alice"]}});
    assert!(refused(&agent, "get_messages", &config).await.contains("recipients_config.my_id"));
    assert!(replica.agent("bob").texts(0).await.is_empty());
}

#[tokio::test]
async fn ids_that_could_break_something_are_refused_by_name_wherever_they_stand() {
    let replica = Replica::start(&[]);
    let agent = replica.agent("alice");
    let long = "x".repeat(129);
    for id in [
        "",
        " ",
        "\t\n",
        "a b",
        "a{b}",
        "a:b",
        "a/b",
        "../b",
        "a\nb",
        "a\0",
        "ä",
        "a*",
        "a|b",
        "\u{202e}b",
        "`b`",
        "<b>",
        "a%20b",
        long.as_str(),
    ] {
        for (tool, arguments, key) in [
            ("checkin_client", json!({"client_id": id, "name": "x"}), "client_id"),
            ("get_messages", json!({"client_id": id}), "client_id"),
            ("message_status", json!({"sender_id": id}), "sender_id"),
            (
                "send_message",
                json!({"sender_id": id, "recipient_id": "b", "message": "m"}),
                "sender_id",
            ),
            (
                "send_message",
                json!({"sender_id": "a", "recipient_id": id, "message": "m"}),
                "recipient_id",
            ),
            (
                "send_message",
                json!({"sender_id": "a", "recipients": ["b", id], "message": "m"}),
                "recipients[1]",
            ),
            (
                "send_message",
                json!({"sender_id": "a", "recipients": [{"id": id, "message": "m"}]}),
                "recipients[0].id",
            ),
            (
                "send_message_and_wait",
                json!({"sender_id": "a", "recipient_id": id, "message": "m"}),
                "recipient_id",
            ),
            (
                "get_my_identity",
                json!({"recipients_config": {"my_id": id}}),
                "recipients_config.my_id",
            ),
        ] {
            let said = refused(&agent, tool, &arguments).await;
            assert!(said.contains(key), "{tool} {id:?}: {said}");
            let control =
                said.chars().any(|c| c.is_control() && c != '\n') || said.contains('\u{202e}');
            assert!(!control, "{said:?}");
        }
    }
    assert!(replica.agent("b").texts(0).await.is_empty(), "refused as a whole");
}

#[tokio::test]
async fn what_is_too_much_is_refused_with_the_limit() {
    let replica = Replica::start(&[]);
    let agent = replica.agent("alice");
    let letter = |text: &str| json!({"sender_id": "alice", "recipient_id": "bob", "message": text});

    let (status, answer) = post(&agent, call("send_message", &letter(&"x".repeat(MIB)))).await;
    assert_eq!(status, 413, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("1048576"), "{answer}");

    let said = refused(&agent, "send_message", &letter(&"x".repeat(MESSAGE_LIMIT + 1))).await;
    assert!(said.contains("262145 bytes; the limit is 262144"), "{said}");
    let said = refused(&agent, "send_message", &letter(&"ä".repeat(MESSAGE_LIMIT / 2 + 1))).await;
    assert!(said.contains("the limit is 262144"), "{said}");
    let said =
        refused(&agent, "send_message_and_wait", &letter(&"x".repeat(MESSAGE_LIMIT + 1))).await;
    assert!(said.contains("the limit is 262144"), "{said}");
    let said = refused(&agent, "send_message", &letter("")).await;
    assert!(said.contains("message is empty"), "{said}");
    agent.call("send_message", letter(&"y".repeat(MESSAGE_LIMIT))).await;
    assert_eq!(replica.agent("bob").texts(0).await, ["y".repeat(MESSAGE_LIMIT)]);

    for count in [101, 10_000] {
        let many: Vec<_> = (0..count).map(|number| format!("r{number}")).collect();
        let letter = json!({"sender_id": "alice", "recipients": many, "message": "hi"});
        let said = refused(&agent, "send_message", &letter).await;
        assert!(
            said.contains(&format!("{count} recipients; the limit of one call is 100")),
            "{said}"
        );
    }
    assert!(replica.agent("r0").texts(0).await.is_empty());
    let ids = vec!["0199c3a2-7d1e-7000-8000-000000000000"; 10_000];
    let said =
        refused(&agent, "message_status", &json!({"sender_id": "a", "message_ids": ids})).await;
    assert!(said.contains("message_ids") && said.contains("1000"), "{said}");

    for (tool, key, range) in [
        ("get_messages", "wait_seconds", "from 0 to 300"),
        ("send_message_and_wait", "timeout", "from 0 to 300"),
        ("send_message", "ttl_seconds", "from 1 to 86400"),
    ] {
        for seconds in [
            json!(-1),
            json!(-0.001),
            json!(100_000),
            json!(1e308),
            json!(u64::MAX),
            json!(i64::MIN),
        ] {
            let mut arguments = right(tool);
            arguments[key] = seconds.clone();
            let before = Instant::now();
            let said = refused(&agent, tool, &arguments).await;
            assert!(said.contains(key) && said.contains(range), "{tool}.{key} = {seconds}: {said}");
            assert!(before.elapsed() < Duration::from_secs(5));
        }
    }
    // More messages than there may be in an answer is no mistake.
    agent.call("get_messages", json!({"client_id": "alice", "max_messages": 1e18})).await;
    for (key, text) in [("name", "n".repeat(201)), ("capabilities", "c".repeat(2001))] {
        let mut profile = right("checkin_client");
        profile[key] = json!(text);
        let said = refused(&agent, "checkin_client", &profile).await;
        assert!(said.contains(key) && said.contains("use at most 200"), "{said}");
    }
    alive(&agent).await;
}

/// Exit code and standard error of the program, which must end by itself.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_mcp-messaging"))
        .env_clear()
        .env("MCP_SERVER_PORT", "0")
        .envs(variables.iter().copied())
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let patience = Instant::now() + Duration::from_secs(5);
    let status = loop {
        if let Some(status) = process.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > patience {
            process.kill().unwrap();
            process.wait().unwrap();
            return (0, format!("it runs on with {arguments:?} {variables:?}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut said = String::new();
    process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (status.code().expect("not by a signal"), said)
}

#[test]
fn a_mistake_in_the_configuration_stops_the_start_with_one_line_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let unknown = file("unknown.toml", "[http]\nprot = 1\n");
    let section = file("section.toml", "[limit]\nrecipients = 1\n");
    let kind = file("kind.toml", "[limits]\nrecipients = \"many\"\n");
    let broken = file("broken.toml", "[redis]\nurl = \"redis://:hunter2@h\n");
    let mut unclear = Vec::new();
    for (arguments, variables, culprit) in [
        (&[][..], &[("MCP_MESSAGING__HTTP__PROT", "1")][..], "prot"),
        (&[], &[("MCP_MESSAGING__NOTHING__AT_ALL", "1")], "nothing"),
        (&[], &[("MCP_MESSAGING__LIMITS__RECIPIENTS", "many")], "limits.recipients"),
        (&[], &[("MCP_SERVER_PORT", "99999")], "http.port"),
        (&[], &[("QUEUE_BACKEND", "kafka")], "queue.backend"),
        (&[], &[("QUEUE_BACKEND", "redis")], "REDIS_URL"),
        (&[], &[("LOG_LEVEL", "mcp_messaging=loud")], "LOG_LEVEL"),
        (&[], &[("MCP_SERVER_HOST", "0.0.0.0")], "MCP_MESSAGING__AUTH__MODE"),
        (&[], &[("MCP_SERVER_HOST", "no.such.host.invalid")], "http.host"),
        (&["--config", &unknown], &[], "prot"),
        (&["--config", &section], &[], "limit"),
        (&["--config", &kind], &[], "limits.recipients"),
        (&["--config", &broken], &[], "broken.toml"),
        (&["--config", "/no/such/file.toml"], &[], "/no/such/file.toml"),
        (&[], &[("REDIS_URL", "nonsense")], "REDIS_URL"),
        (&[], &[("REDIS_URL", "http://:hunter2@127.0.0.1:6379")], "REDIS_URL"),
        (&[], &[("REDIS_URL", "redis://:hunter2@127.0.0.1:port")], "REDIS_URL"),
        (&[], &[("REDIS_URL", "redis://:hunter2@127.0.0.1:6379/db")], "REDIS_URL"),
        (&["migrate"], &[("REDIS_URL", "redis://:hunter2@127.0.0.1:port")], "REDIS_URL"),
        (&["check-config"], &[("REDIS_URL", "redis://:hunter2@127.0.0.1:port")], "REDIS_URL"),
        (&["migrate"], &[], "REDIS_URL"),
        (
            &[],
            &[("REDIS_URL", "redis://127.0.0.1:1"), ("MCP_MESSAGING__ENCRYPTION__KEYS", "hunter2")],
            "encryption.keys",
        ),
        (
            &["check-config"],
            &[
                ("REDIS_URL", "redis://127.0.0.1:1"),
                ("MCP_MESSAGING__ENCRYPTION__KEYS_FILE", "/no/such/keys"),
            ],
            "encryption.keys_file /no/such/keys",
        ),
    ] {
        let (code, said) = run(arguments, variables);
        let what = format!("{arguments:?} {variables:?}: {said}");
        let named = said.starts_with("mcp-messaging: ") && said.contains(culprit);
        if code == 0 || said.lines().count() != 1 || !named || said.contains("hunter2") {
            unclear.push(format!("{code}: {what}"));
        }
    }
    assert!(unclear.is_empty(), "{unclear:#?}");
}

#[test]
fn a_port_in_use_stops_the_start_and_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let address = format!("127.0.0.1:{port}");
    let here = ("MCP_SERVER_HOST", "127.0.0.1");
    let (code, said) = run(&[], &[here, ("MCP_SERVER_PORT", &port)]);
    assert!(code != 0);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("http.port") && said.contains(&address), "{said}");
    let (code, said) = run(&[], &[here, ("MCP_MESSAGING__OPS__LISTEN", &address)]);
    assert!(code != 0);
    assert!(said.contains("ops.listen") && said.contains(&address), "{said}");
}

/// Something that listens and is not Redis: what it does with a connection.
fn not_redis(serve: fn(TcpStream)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    // It ends with the process of the test.
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || serve(connection));
        }
    });
    url
}

fn says_http(mut connection: TcpStream) {
    let mut bytes = [0; 4096];
    while connection.read(&mut bytes).is_ok_and(|read| read > 0) {
        if connection.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").is_err() {
            return;
        }
    }
}

fn says_noise(mut connection: TcpStream) {
    let mut bytes = [0; 4096];
    while connection.read(&mut bytes).is_ok_and(|read| read > 0) {
        if connection.write_all(b"\xff\x00$-7\r\n*99999999999\r\n:::\r\n").is_err() {
            return;
        }
    }
}

fn says_nothing(mut connection: TcpStream) {
    let mut bytes = [0; 4096];
    while connection.read(&mut bytes).is_ok_and(|read| read > 0) {}
}

fn hangs_up(connection: TcpStream) {
    drop(connection);
}

#[tokio::test]
async fn a_redis_that_is_none_fails_calls_in_seconds_and_hangs_nothing() {
    let nobody = {
        let unused = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("redis://{}", unused.local_addr().unwrap())
    };
    let urls = [
        not_redis(says_http),
        not_redis(says_noise),
        not_redis(says_nothing),
        not_redis(hangs_up),
        nobody,
    ];
    let each = ["http", "noise", "silence", "closed", "nobody"].into_iter().zip(urls).map(
        async |(what, url): (&str, String)| {
            let mut replica = Replica::start(&[("REDIS_URL", &url)]);
            assert_eq!(replica.get("/livez").await.0, 200, "{what}");
            let asked = Instant::now();
            assert_eq!(replica.get("/readyz").await.0, 503, "{what}");
            assert!(asked.elapsed() < Duration::from_secs(5), "{what}: {:?}", asked.elapsed());
            let agent = replica.agent("alice");
            let calls = [
                "checkin_client",
                "send_message",
                "send_message_and_wait",
                "get_messages",
                "list_clients",
            ]
            .map(|tool| {
                let agent = &agent;
                async move {
                    let (status, answer) = post(agent, call(tool, &right(tool))).await;
                    assert_eq!(status, 200, "{what} {tool}: {answer}");
                    let said = answer.to_string();
                    assert!(said.contains("message store"), "{what} {tool}: {said}");
                    assert!(
                        answer["error"]["code"] == -32603 || answer["result"]["isError"] == true
                    );
                }
            });
            let asked = Instant::now();
            futures_util::future::join_all(calls).await;
            assert!(asked.elapsed() < Duration::from_secs(10), "{what}: {:?}", asked.elapsed());
            assert_eq!(replica.get("/api/sessions").await.0, 503, "{what}");
            alive(&agent).await;
            replica.terminate();
            assert!(replica.ended(Duration::from_secs(8)).await.success(), "{what}");
        },
    );
    futures_util::future::join_all(each).await;
}
