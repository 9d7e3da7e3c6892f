//! Calls of one credential that wait, and inboxes that it listens to.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::told;
use crate::{
    auth::{guarded, holder, key, sealed},
    support::{Agent, Listener, Replica, Store},
};

fn waits(agent: &Agent) -> JoinHandle<Vec<String>> {
    let agent = agent.clone();
    tokio::spawn(async move { agent.texts(30).await })
}

fn window(replica: &Replica, id: &str) -> Agent {
    replica.agent(id).with_key(&sealed(&key("acme", "alice.*", "read,send")))
}

#[tokio::test]
async fn a_credential_has_so_many_waiting_calls_and_others_have_theirs() {
    let site = guarded(Store::Memory, &[("MCP_MESSAGING__LIMITS__PRINCIPAL_WAITS", "2")]).await;
    let one = waits(&window(site.here(), "alice.1"));
    let two = waits(&window(site.here(), "alice.2"));
    site.here().waiters(2).await;
    let three = window(site.here(), "alice.3");
    for (tool, arguments) in [
        ("get_messages", json!({"client_id": "alice.3", "wait_seconds": 9})),
        (
            "send_message_and_wait",
            json!({"sender_id": "alice.3", "recipient_id": "bob", "message": "?"}),
        ),
    ] {
        let result = three.try_call(tool, arguments).await.unwrap();
        assert_eq!(result["isError"], true, "{result}");
        let text = "2 calls of yours wait on this server already, which is your limit";
        assert!(told(&result).contains(text), "{result}");
    }
    // What does not wait, and who else waits, is not held up.
    assert_eq!(three.texts(0).await, [""; 0]);
    let other = waits(&holder(site.here(), "bob"));
    site.here().waiters(3).await;
    let sender = holder(site.here(), "carol");
    for id in ["alice.1", "alice.2", "bob"] {
        sender.send(id, "wake up").await;
    }
    for waiting in [one, two, other] {
        assert_eq!(waiting.await.unwrap(), ["wake up"]);
    }
    let again = waits(&three);
    site.here().waiters(1).await;
    sender.send("alice.3", "room again").await;
    assert_eq!(again.await.unwrap(), ["room again"]);
}

async fn listen(agent: &Agent, uri: &str) -> (u16, Value) {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen",
        "params": {"_meta": meta, "notifications": {"resourceSubscriptions": [uri]}}});
    let request = agent
        .post()
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "subscriptions/listen");
    let answer = request.json(&body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn listening_has_a_limit_of_its_own() {
    let variables = [
        ("MCP_MESSAGING__LIMITS__PRINCIPAL_WAITS", "1"),
        ("MCP_MESSAGING__LIMITS__PRINCIPAL_LISTENS", "1"),
    ];
    let site = guarded(Store::Memory, &variables).await;
    let alice = window(site.here(), "alice.1");
    let waiting = waits(&alice);
    site.here().waiters(1).await;
    let mut listens = Listener::of(&alice, &["inbox://alice.1"]).await;
    assert!(listens.next().await.is_some(), "a call that waits does not count");
    let (status, answer) = listen(&window(site.here(), "alice.2"), "inbox://alice.2").await;
    assert_eq!(status, 429, "{answer}");
    let text = answer["error"]["message"].as_str().unwrap();
    assert!(text.contains("as many inboxes on this server as you may"), "{answer}");
    let mut other = Listener::of(&holder(site.here(), "bob"), &["inbox://bob"]).await;
    assert!(other.next().await.is_some());
    drop(listens);
    let patience = tokio::time::Instant::now() + Duration::from_secs(10);
    while site.here().metric("mcp_messaging_listeners").await > 1 {
        assert!(tokio::time::Instant::now() < patience, "its end is seen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut again = Listener::of(&window(site.here(), "alice.2"), &["inbox://alice.2"]).await;
    assert!(again.next().await.is_some());
    holder(site.here(), "carol").send("alice.1", "done").await;
    assert_eq!(waiting.await.unwrap(), ["done"]);
}

/// Where nothing is proved, whoever has too many would call itself something else.
#[tokio::test]
async fn who_proves_nothing_has_no_limit_of_its_own() {
    let site = Store::Memory.with(&[("MCP_MESSAGING__LIMITS__PRINCIPAL_WAITS", "1")]).await;
    let all: Vec<_> = (0..3).map(|_| waits(&site.here().agent("alice"))).collect();
    site.here().waiters(3).await;
    for (number, waiting) in all.into_iter().enumerate() {
        site.here().agent("bob").send("alice", &number.to_string()).await;
        drop(waiting);
    }
}
