//! What its users had before, and what was wrong with it: every defect of the Python original stays
//! mended, and every form of a call that its clients send still works.
//!
//! That anybody could read any inbox belongs to authentication; what it logged, to `secrets`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    house::{Client, post},
    support::{Agent, Site, Store, texts},
};

const NOBODY: [&str; 0] = [];

on_every_store!(
    a_reader_that_hangs_up_costs_nobody_the_next_message,
    mail_that_comes_as_its_reader_hangs_up_comes_to_the_next_one,
    a_third_partys_message_is_no_answer,
    two_readers_of_one_inbox_both_wait_for_their_message,
    a_blank_id_does_not_check_in,
    who_writes_to_a_stranger_is_told_at_once_and_again_when_it_expires,
    a_check_in_says_when_it_was_and_ends_and_every_replica_knows_it,
    nothing_is_called_delivered_before_it_is,
    the_last_releases_send_takes_every_form_of_recipients_and_brings_the_senders_mail,
    a_conversation_that_expects_no_answer_does_not_wait,
    older_names_of_the_own_id_and_arguments_nobody_knows_are_understood,
    the_tools_of_the_first_release_are_called_by_their_names,
    the_session_list_keeps_its_shape_and_lets_dashboards_of_allowed_origins_read_it,
);

/// A call that runs while the test goes on.
fn meanwhile(
    agent: &Agent,
    tool: &'static str,
    arguments: Value,
) -> tokio::task::JoinHandle<Value> {
    let agent = agent.clone();
    tokio::spawn(async move { agent.call(tool, arguments).await })
}

fn reading(client: &str) -> Value {
    json!({"client_id": client, "wait_seconds": 30})
}

/// What a refused call says.
async fn refused(agent: &Agent, tool: &str, arguments: Value) -> String {
    let result = agent.try_call(tool, arguments.clone()).await.unwrap();
    assert_eq!(result["isError"], true, "{tool} {arguments}: {result}");
    result["content"][0]["text"].as_str().unwrap().to_owned()
}

async fn state(agent: &Agent, id: &str) -> Value {
    let arguments = json!({"sender_id": agent.id, "message_ids": [id]});
    agent.call("message_status", arguments).await["messages"][0]["state"].clone()
}

/// Asks until the state of a message is this one: the mark follows the answer.
async fn becomes(agent: &Agent, id: &str, wanted: &str) {
    let patience = Instant::now() + Duration::from_secs(5);
    loop {
        let seen = state(agent, id).await;
        if seen == wanted {
            return;
        }
        assert!(Instant::now() < patience, "{seen} in place of {wanted}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn two(store: Store) -> (Site, Agent, Agent) {
    let site = store.open().await;
    let (alice, bob) = (site.here().agent("alice"), site.there().agent("bob"));
    (site, alice, bob)
}

// Defect 1: the message was popped for the dead call.
async fn a_reader_that_hangs_up_costs_nobody_the_next_message(store: Store) {
    let (site, alice, bob) = two(store).await;
    let reader = meanwhile(&bob, "get_messages", reading("bob"));
    site.there().waiters(1).await;
    reader.abort();
    site.there().waiters(0).await;
    let arguments = json!({"sender_id": "alice", "recipient_id": "bob", "message": "kept"});
    let sent = alice.call("send_message", arguments).await;
    // Seen, or not even that: the store may not have been asked yet.
    assert_ne!(sent["results"][0]["recipient"]["presence"], "waiting", "nobody waits any more");
    let got = bob.fetch(0).await;
    assert_eq!(texts(&got), ["kept"]);
    assert_eq!(got["messages"][0]["redelivered"], false);
    assert_eq!(got["messages"][0]["attempt"], 1);
}

// The same, without time for the server to notice: then a copy may be marked, and none is lost.
async fn mail_that_comes_as_its_reader_hangs_up_comes_to_the_next_one(store: Store) {
    let (site, alice, bob) = two(store).await;
    for round in 0..20 {
        // Closed before the send begins: a socket of our own, because a library closes when it likes.
        let mut reader = Client::connect(site.there().address()).await;
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "get_messages", "arguments": reading("bob")}});
        reader.send(&post("", &call.to_string())).await;
        site.there().waiters(1).await;
        reader.until("\r\n\r\n").await; // what was not read would make the end a reset
        drop(reader);
        alice.send("bob", &round.to_string()).await;
        assert_eq!(bob.texts(15).await, [round.to_string()]);
    }
    assert_eq!(bob.texts(0).await, NOBODY);
}

// Defect 2: any message ended the wait for somebody else's reply.
async fn a_third_partys_message_is_no_answer(store: Store) {
    let (site, alice, bob) = two(store).await;
    let question =
        json!({"sender_id": "alice", "recipient_id": "bob", "message": "?", "timeout": 30});
    let mut question = meanwhile(&alice, "send_message_and_wait", question);
    let asked = bob.fetch(10).await["messages"][0]["message_id"].clone();
    site.there().agent("eve").send("alice", "not for you to wait for").await;
    let early = timeout(Duration::from_millis(300), &mut question).await;
    assert!(early.is_err(), "it still waits: {early:?}");
    let answer =
        json!({"sender_id": "bob", "recipient_id": "alice", "message": "!", "in_reply_to": asked});
    bob.call("send_message", answer).await;
    let answered = question.await.unwrap();
    assert_eq!(
        (&answered["reply"]["from"], &answered["reply"]["text"]),
        (&json!("bob"), &json!("!"))
    );
    assert_eq!(answered["other_messages"], 1);
    assert_eq!(alice.texts(0).await, ["not for you to wait for"]);
}

// Defect 3: the reader without mail came back with nothing.
async fn two_readers_of_one_inbox_both_wait_for_their_message(store: Store) {
    let site = store.open().await;
    let (alice, bob) = (site.here().agent("alice"), site.here().agent("bob"));
    let mut first = meanwhile(&bob, "get_messages", reading("bob"));
    site.here().waiters(1).await;
    let mut second = meanwhile(&site.there().agent("bob"), "get_messages", reading("bob"));
    site.there().waiters(if store == Store::Memory { 2 } else { 1 }).await;
    alice.send("bob", "one").await;
    // Which of them gets it is nobody's right.
    let (got, mut other) = tokio::select! {
        got = &mut first => (got.unwrap(), second),
        got = &mut second => (got.unwrap(), first),
    };
    assert_eq!(texts(&got), ["one"]);
    let early = timeout(Duration::from_millis(500), &mut other).await;
    assert!(early.is_err(), "it still waits: {early:?}");
    alice.send("bob", "two").await;
    assert_eq!(texts(&other.await.unwrap()), ["two"]);
}

// Defect 5: a blank id was recorded.
async fn a_blank_id_does_not_check_in(store: Store) {
    let (site, alice, _) = two(store).await;
    for blank in [json!(""), json!("  \t"), json!(null)] {
        let said =
            refused(&alice, "checkin_client", json!({"client_id": blank, "name": "x"})).await;
        assert!(said.contains("client_id"), "{said}");
    }
    let said = refused(&alice, "checkin_client", json!({"name": "x"})).await;
    assert!(said.contains("client_id is missing"), "{said}");
    assert_eq!(alice.call("list_clients", json!({})).await["clients"], json!([]));
    let (_, sessions) = site.there().get("/api/sessions").await;
    let sessions: Value = serde_json::from_str(&sessions).unwrap();
    assert_eq!(sessions["messagingClients"], json!([]));
}

// Defect 6: it was accepted without a word, and aged out without a word.
async fn who_writes_to_a_stranger_is_told_at_once_and_again_when_it_expires(store: Store) {
    let (site, alice, _) = two(store).await;
    let letter =
        json!({"sender_id": "alice", "recipient_id": "bbo", "message": "?", "ttl_seconds": 1});
    let sent = alice.try_call("send_message", letter).await.unwrap();
    let result = &sent["structuredContent"]["results"][0];
    assert_eq!(result["status"], "queued");
    assert_eq!(result["recipient"], json!({"presence": "unknown"}));
    let said = sent["content"][0]["text"].as_str().unwrap();
    assert!(said.contains("queued for bbo (never seen here"), "{said}");
    assert!(said.contains("expires after 1 s"), "{said}");
    sleep(Duration::from_millis(1100)).await;
    let elsewhere = site.there().agent("alice");
    let told = elsewhere.try_call("get_messages", json!({"client_id": "alice"})).await.unwrap();
    let notices = &told["structuredContent"]["notices"];
    assert_eq!(notices[0]["message_id"], result["message_id"]);
    assert_eq!(
        (&notices[0]["recipient_id"], &notices[0]["state"]),
        (&json!("bbo"), &json!("expired"))
    );
    let said = told["content"][0]["text"].as_str().unwrap();
    assert!(said.contains("to bbo") && said.contains("expired unread"), "{said}");
    assert_eq!(state(&alice, result["message_id"].as_str().unwrap()).await, "expired");
}

// Defect 8: last_seen never ended, and replicas shared nothing.
async fn a_check_in_says_when_it_was_and_ends_and_every_replica_knows_it(store: Store) {
    let site = store.with(&[("MCP_MESSAGING__MESSAGING__PRESENCE_SECONDS", "2")]).await;
    let (alice, bob) = (site.here().agent("alice"), site.there().agent("bob"));
    let profile = json!({"client_id": "alice", "name": "Alice", "capabilities": "reviews"});
    assert_eq!(alice.call("checkin_client", profile).await["present_seconds"], 2);
    let seen = bob.call("list_clients", json!({})).await;
    let row = json!({"client_id": "alice", "trust": "agent", "name": "Alice", "capabilities": "reviews",
        "last_seen_seconds": 0, "waiting": false, "queued": 0});
    assert_eq!(seen["clients"], json!([row]));
    sleep(Duration::from_millis(1100)).await;
    let seen = bob.call("list_clients", json!({"query": "reviews"})).await;
    assert_eq!(seen["clients"][0]["last_seen_seconds"], 1);
    sleep(Duration::from_millis(1100)).await;
    for replica in [site.here(), site.there()] {
        let seen = replica.agent("bob").call("list_clients", json!({})).await;
        assert_eq!(seen["clients"], json!([]));
        let (_, sessions) = replica.get("/api/sessions").await;
        let sessions: Value = serde_json::from_str(&sessions).unwrap();
        assert_eq!(sessions["messagingClients"], json!([]));
    }
}

// Defect 9: "sent" was said before anybody could know that it will be read.
async fn nothing_is_called_delivered_before_it_is(store: Store) {
    let (site, alice, bob) = two(store).await;
    let letter = json!({"sender_id": "alice", "recipient_id": "bob", "message": "hi"});
    let sent = alice.try_call("send_message", letter).await.unwrap();
    let said = sent["content"][0]["text"].as_str().unwrap();
    assert!(said.contains("is queued for bob") && !said.contains("deliver"), "{said}");
    let result = &sent["structuredContent"]["results"][0];
    assert_eq!(result["status"], "queued");
    let id = result["message_id"].as_str().unwrap();
    assert_eq!(state(&alice, id).await, "queued");
    // A client that never had its answer has nothing: a reader that hangs up delivers nothing.
    let count = |text: &str, event: &str| {
        let name = format!("mcp_messaging_messages_total{{event=\"{event}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).unwrap_or(0)
    };
    let metrics = site.there().get("/metrics").await.1;
    assert_eq!((count(&metrics, "delivered"), count(&metrics, "acknowledged")), (0, 0));
    // Handed out, and not confirmed.
    let held = bob.call("get_messages", json!({"client_id": "bob", "ack": "manual"})).await;
    becomes(&alice, id, "delivered").await;
    let receipt = json!({"client_id": "bob", "receipt": held["receipt"]});
    bob.call("get_messages", receipt).await;
    becomes(&alice, id, "acknowledged").await;
    let metrics = site.there().get("/metrics").await.1;
    assert_eq!((count(&metrics, "delivered"), count(&metrics, "acknowledged")), (1, 1));
}

async fn the_last_releases_send_takes_every_form_of_recipients_and_brings_the_senders_mail(
    store: Store,
) {
    let (site, alice, bob) = two(store).await;
    let carol = site.here().agent("carol");
    let config =
        json!({"my_id": "alice", "recipients": {"bob": {"name": "Bob", "description": ""}}});
    let call = async |arguments: Value| {
        let sent = alice.call("send_message_without_waiting", arguments).await;
        let results = sent["results"].as_array().unwrap();
        assert!(results.iter().all(|result| result["status"] == "queued"), "{sent}");
        sent
    };
    for (arguments, to_bob, to_carol) in [
        (
            json!({"sender_id": "alice", "recipients_config": config,
                "recipients": [{"id": "bob", "message": "b"}, {"id": "carol", "message": "c"}]}),
            "b",
            "c",
        ),
        (
            json!({"sender_id": "alice", "recipient_ids": ["bob", "carol"], "messages": ["b", "c"]}),
            "b",
            "c",
        ),
        (
            json!({"sender_id": "alice", "recipient_ids": ["bob", "carol"], "messages": ["all"]}),
            "all",
            "all",
        ),
        (
            json!({"sender_id": "alice", "recipients": ["bob", "carol"], "message": "all"}),
            "all",
            "all",
        ),
        (
            json!({"recipients_config": config, "random_string": "x",
                "recipients": [{"id": "bob", "message": "b"}, {"id": "carol", "message": "c"}]}),
            "b",
            "c",
        ),
        (
            json!({"sender_id": "alice", "recipients": r#"[{"id":"bob","message":"b"},{"id":"carol","message":"c"}]"#}),
            "b",
            "c",
        ),
    ] {
        carol.send("alice", "meanwhile").await;
        let sent = call(arguments.clone()).await;
        assert_eq!(texts(&sent), ["meanwhile"], "the sender's own mail: {arguments}");
        assert_eq!(bob.texts(0).await, [to_bob], "{arguments}");
        assert_eq!(carol.texts(0).await, [to_carol], "{arguments}");
        sleep(Duration::from_millis(50)).await; // the mail is settled after it was written
        assert_eq!(alice.texts(0).await, NOBODY, "popped: {arguments}");
    }
    let said = refused(
        &alice,
        "send_message_without_waiting",
        json!({"sender_id": "alice", "recipient_ids": ["bob", "carol", "dave"], "messages": ["b", "c"]}),
    )
    .await;
    assert!(said.contains("messages has 2 texts for 3 recipients"), "{said}");
}

async fn a_conversation_that_expects_no_answer_does_not_wait(store: Store) {
    let (_site, alice, bob) = two(store).await;
    for expectation in ["no_response", "end_conversation"] {
        let before = Instant::now();
        let arguments = json!({"sender_id": "alice", "recipient_id": "bob", "message": expectation,
            "expectation": expectation});
        let asked = alice.call("send_message_and_wait", arguments).await;
        assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
        assert_eq!(asked["status"], "pending");
        assert_eq!(bob.texts(0).await, [expectation]);
    }
    let arguments = json!({"sender_id": "alice", "recipient_id": "bob", "message": "well?",
        "expectation": "response_expected"});
    let question = meanwhile(&alice, "send_message_and_wait", arguments);
    assert_eq!(bob.texts(10).await, ["well?"]);
    bob.send("alice", "well!").await;
    assert_eq!(question.await.unwrap()["reply"]["text"], "well!");
}

async fn older_names_of_the_own_id_and_arguments_nobody_knows_are_understood(store: Store) {
    let (_site, alice, bob) = two(store).await;
    for (number, own) in [
        json!({"client_id": "bob"}),
        json!({"sender_id": "bob"}),
        json!({"my_id": "bob"}),
        json!({"my_sender_id": "bob"}),
        json!({"recipients_config": {"my_id": "bob"}}),
        json!({"recipients_config": {"my_sender_id": "bob", "recipients": {}}}),
        json!({"sender_id": "bob", "recipients_config": {"my_id": "bob"}, "random_string": "dummy"}),
    ]
    .into_iter()
    .enumerate()
    {
        alice.send("bob", &number.to_string()).await;
        let got = bob.call("get_messages", own.clone()).await;
        assert_eq!(got["client_id"], "bob");
        assert_eq!(texts(&got), [number.to_string()], "{own}");
        sleep(Duration::from_millis(20)).await;
    }
    // Without wait_seconds nobody waits.
    let before = Instant::now();
    assert_eq!(bob.texts(0).await, NOBODY);
    let empty =
        bob.call("get_messages", json!({"sender_id": "bob", "recipients_config": {}})).await;
    assert_eq!(texts(&empty), NOBODY);
    assert!(before.elapsed() < Duration::from_secs(5));
    let config = json!({"my_id": "bob", "my_name": "Bob", "my_description": "backend",
        "recipients": {"alice": {"name": "Alice", "description": "frontend"}},
        "server_info": {"url": "http://localhost:8123/mcp", "transport": "http_streamable"},
        "message_config": {"max_tokens": 1000, "timeouts": {"get_messages": 60}}});
    let me = bob.call("get_my_identity", json!({"recipients_config": config})).await;
    assert_eq!((&me["client_id"], &me["verified"]), (&json!("bob"), &json!(false)));
    assert_eq!(me["recipients"][0]["recipient_id"], "alice");
    assert_eq!(me["recipients"][0]["description"], "frontend");
    let explained =
        bob.try_call("get_my_identity", json!({"random_string": "dummy"})).await.unwrap();
    assert!(explained["content"][0]["text"].as_str().unwrap().contains("mcp_recipients.json"));
}

async fn the_tools_of_the_first_release_are_called_by_their_names(store: Store) {
    let (_site, alice, bob) = two(store).await;
    alice.call("checkin_client", json!({"client_id": "alice", "name": "Alice"})).await;
    bob.send("alice", "hi").await;
    let sessions = bob.call("get_active_sessions", json!({"random_string": "dummy"})).await;
    assert_eq!(sessions["clients"].as_array().unwrap().len(), 1);
    assert_eq!(sessions["clients"][0]["client_id"], "alice");
    assert_eq!(sessions["clients"][0]["queued"], 1);
    let listed = alice.request(1, "tools/list", json!({})).await.unwrap();
    let names: Vec<_> = listed["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| tool["name"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 7, "{names:?}");
    for alias in ["send_message_without_waiting", "get_active_sessions"] {
        assert!(!names.contains(&alias), "{alias} is called and not listed");
    }
    // The original's path ends with a slash, and its clients don't all follow a redirect.
    let slash = Agent { url: format!("{}/", bob.url), ..bob.clone() };
    assert_eq!(slash.call("list_clients", json!({})).await["clients"][0]["client_id"], "alice");
}

async fn the_session_list_keeps_its_shape_and_lets_dashboards_of_allowed_origins_read_it(
    store: Store,
) {
    let origin = "https://dashboard.example";
    let site = store.with(&[("MCP_MESSAGING__HTTP__ALLOWED_ORIGINS", origin)]).await;
    let (alice, bob) = (site.here().agent("alice"), site.there().agent("bob"));
    let profile = json!({"client_id": "alice", "name": "Alice", "capabilities": "reviews"});
    alice.call("checkin_client", profile).await;
    bob.send("alice", "1").await;
    bob.send("alice", "2").await;
    bob.send("carol", "3").await;
    let reader = meanwhile(&site.here().agent("dave"), "get_messages", reading("dave"));
    site.here().waiters(1).await;
    let url = format!("http://{}/api/sessions", site.there().address());
    let answer = alice.http.get(&url).header("origin", origin).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    assert_eq!(answer.headers()["access-control-allow-origin"], origin);
    let body: Value = answer.json().await.unwrap();
    let rows = body["messagingClients"].as_array().unwrap();
    let row = |id: &str| rows.iter().find(|row| row["client_id"] == id).unwrap_or(&Value::Null);
    let mut first = row("alice").clone();
    let seen = first["last_seen"].take();
    assert!(seen.as_str().is_some_and(|text| text.len() == 20 && text.ends_with('Z')), "{seen}");
    let expected = json!({"client_id": "alice", "name": "Alice", "description": "reviews",
        "clientType": "agent by IDE", "last_seen": null, "messages_in_queue": 2});
    assert_eq!(first, expected);
    let stranger = json!({"client_id": "carol", "name": "carol", "description": "",
        "clientType": "untracked client", "last_seen": null, "messages_in_queue": 1});
    assert_eq!(row("carol"), &stranger);
    assert_eq!(body["total_messages"], 3);
    assert_eq!(body["queueStats"]["total_messages"], 3);
    assert_eq!(body["queueStats"]["active_waiters"], 1);
    assert!(body["queueStats"]["total_queues"].as_u64().unwrap() >= 2, "{body}");
    reader.abort();
    let asked = alice
        .http
        .request(reqwest::Method::OPTIONS, &url)
        .header("origin", origin)
        .header("access-control-request-method", "GET")
        .send()
        .await
        .unwrap();
    assert!(asked.status().is_success(), "{}", asked.status());
    assert_eq!(asked.headers()["access-control-allow-origin"], origin);
    let methods = asked.headers()["access-control-allow-methods"].to_str().unwrap();
    assert!(methods.contains("GET") && methods.contains("OPTIONS"), "{methods}");
}
