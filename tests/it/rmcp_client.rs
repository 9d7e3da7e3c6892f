//! The official Rust SDK as a client, in both lifecycles of the protocol.

use std::time::Duration;

use rmcp::{
    ClientLifecycleMode, ClientServiceExt as _, ServiceError,
    model::{CallToolRequestParams, CallToolResult, ProtocolVersion},
    service::{RoleClient, RunningService},
    transport::StreamableHttpClientTransport,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{Replica, Store, texts};

on_every_store!(
    a_client_that_initializes_can_do_everything,
    a_client_that_discovers_can_do_everything,
    a_client_that_probes_finds_the_latest_revision,
);

type Client = RunningService<RoleClient, ()>;

fn latest() -> ClientLifecycleMode {
    ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
}

async fn connect(replica: &Replica, lifecycle: &ClientLifecycleMode) -> Client {
    let uri = format!("http://{}/mcp", replica.address());
    let transport = StreamableHttpClientTransport::from_uri(uri);
    ().serve_with_lifecycle(transport, lifecycle.clone()).await.unwrap()
}

async fn result(
    client: &rmcp::Peer<RoleClient>,
    tool: &'static str,
    arguments: Value,
) -> Result<CallToolResult, ServiceError> {
    let arguments = arguments.as_object().unwrap().clone();
    let call = client.call_tool(CallToolRequestParams::new(tool).with_arguments(arguments));
    timeout(Duration::from_secs(20), call).await.expect("an answer in time")
}

/// The structured content of a call that succeeds.
async fn call(client: &rmcp::Peer<RoleClient>, tool: &'static str, arguments: Value) -> Value {
    let result = result(client, tool, arguments).await.unwrap();
    assert_ne!(result.is_error, Some(true), "{result:?}");
    assert!(result.content[0].as_text().is_some_and(|text| !text.text.is_empty()));
    result.structured_content.unwrap()
}

async fn a_client_that_initializes_can_do_everything(store: Store) {
    everything(store, &ClientLifecycleMode::Initialize, ProtocolVersion::V_2025_11_25).await;
}

async fn a_client_that_discovers_can_do_everything(store: Store) {
    everything(store, &latest(), ProtocolVersion::V_2026_07_28).await;
}

async fn everything(store: Store, lifecycle: &ClientLifecycleMode, revision: ProtocolVersion) {
    let site = store.open().await;
    let alice = connect(site.here(), lifecycle).await;
    let bob = connect(site.there(), lifecycle).await;
    let server = alice.peer_info().unwrap();
    assert_eq!(server.protocol_version, revision);
    assert_eq!(server.server_info.as_ref().unwrap().name, "mcp-messaging");
    assert!(server.instructions.as_ref().unwrap().contains("send_message"));

    let tools = alice.list_all_tools().await.unwrap();
    let names: Vec<_> = tools.iter().map(|tool| tool.name.as_ref()).collect();
    assert_eq!(
        names,
        [
            "checkin_client",
            "send_message",
            "send_message_and_wait",
            "get_messages",
            "get_my_identity",
            "list_clients",
            "message_status"
        ]
    );
    assert!(tools.iter().all(|tool| tool.output_schema.is_some() && tool.annotations.is_some()));

    let profile = json!({"client_id": "bob", "name": "Bob", "capabilities": "reviews"});
    call(&bob, "checkin_client", profile).await;
    let there = call(&alice, "list_clients", json!({"query": "review"})).await;
    assert_eq!(there["clients"][0]["client_id"], "bob");

    // A reader is woken by the other's message.
    let reading = tokio::spawn({
        let bob = bob.peer().clone();
        async move { call(&bob, "get_messages", json!({"client_id": "bob", "wait_seconds": 15})).await }
    });
    site.there().waiters(1).await;
    let letter = json!({"sender_id": "alice", "recipient_id": "bob", "message": "wake up"});
    let sent = call(&alice, "send_message", letter).await;
    assert_eq!(sent["results"][0]["recipient"]["presence"], "waiting");
    assert_eq!(texts(&reading.await.unwrap()), ["wake up"]);

    // A question, and the answer to it.
    let asking = tokio::spawn({
        let alice = alice.peer().clone();
        let question = json!({"sender_id": "alice", "recipient_id": "bob", "message": "which port?", "timeout": 15});
        async move { call(&alice, "send_message_and_wait", question).await }
    });
    let asked = call(&bob, "get_messages", json!({"client_id": "bob", "wait_seconds": 15})).await;
    assert_eq!(texts(&asked), ["which port?"]);
    let question = &asked["messages"][0]["message_id"];
    let answer = json!({"sender_id": "bob", "recipient_id": "alice", "message": "8123", "in_reply_to": question});
    assert_eq!(call(&bob, "send_message", answer).await["results"][0]["status"], "replied");
    let answered = asking.await.unwrap();
    assert_eq!(
        (&answered["status"], &answered["reply"]["text"]),
        (&json!("replied"), &json!("8123"))
    );

    // The mark follows the answer that it marks.
    let mut states = Value::Null;
    for _ in 0..200 {
        let told = call(&alice, "message_status", json!({"sender_id": "alice"})).await;
        let each = told["messages"].as_array().unwrap();
        states = each.iter().map(|one| one["state"].clone()).collect();
        if states == json!(["acknowledged", "acknowledged"]) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(states, json!(["acknowledged", "acknowledged"]));

    // What is wrong with arguments is the tool's answer, for the model; a tool that is not there is
    // the protocol's, for the program.
    let wrong = result(&alice, "get_messages", json!({"client_id": "a{b}"})).await.unwrap();
    assert_eq!(wrong.is_error, Some(true));
    assert!(wrong.content[0].as_text().unwrap().text.contains("client_id"));
    let unknown = result(&alice, "fetch_messages", json!({})).await;
    let Err(ServiceError::McpError(error)) = &unknown else { panic!("{unknown:?}") };
    assert_eq!(error.code.0, -32602);

    // A client that goes away ends its wait, and costs nobody the message.
    let waiting = tokio::spawn({
        let bob = bob.peer().clone();
        async move {
            result(&bob, "get_messages", json!({"client_id": "bob", "wait_seconds": 60})).await
        }
    });
    site.there().waiters(1).await;
    bob.cancel().await.unwrap();
    assert!(waiting.await.unwrap().is_err());
    site.there().waiters(0).await;
    let letter =
        json!({"sender_id": "alice", "recipient_id": "bob", "message": "for the next one"});
    call(&alice, "send_message", letter).await;
    let next = connect(site.here(), lifecycle).await;
    let got = call(&next, "get_messages", json!({"client_id": "bob", "wait_seconds": 15})).await;
    assert_eq!(texts(&got), ["for the next one"]);
    assert_eq!(got["messages"][0]["redelivered"], false);
    alice.cancel().await.unwrap();
}

async fn a_client_that_probes_finds_the_latest_revision(store: Store) {
    let site = store.open().await;
    let lifecycle = ClientLifecycleMode::Auto {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        legacy_version: None,
    };
    let client = connect(site.there(), &lifecycle).await;
    assert_eq!(client.peer_info().unwrap().protocol_version, ProtocolVersion::V_2026_07_28);
    assert_eq!(client.list_all_tools().await.unwrap().len(), 7);
}
