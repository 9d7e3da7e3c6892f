//! What agents and operators are told of a message that cannot be read, by real servers.

use serde_json::{Value, json};

use super::{A, B};
use crate::{
    support::{Agent, Persistence, RedisServer, Replica, texts},
    tasks::Modern,
};

const KEYS: &str = "MCP_MESSAGING__ENCRYPTION__KEYS";
const MODE: &str = "MCP_MESSAGING__ENCRYPTION__MODE";

/// A server that lacks the second key, and one that seals with it.
async fn two() -> (RedisServer, Replica, Replica) {
    let redis = RedisServer::start(Persistence::None);
    let without = Replica::with(&redis.url(), &[(KEYS, A)]).await;
    let with_b = Replica::with(&redis.url(), &[(KEYS, &format!("{B},{A}"))]).await;
    (redis, without, with_b)
}

async fn told(agent: &Agent) -> String {
    let result = agent.try_call("get_messages", json!({"client_id": agent.id, "wait_seconds": 20}));
    let result = result.await.unwrap();
    assert_eq!(result["isError"], true, "{result}");
    result["content"][0]["text"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_reader_is_told_why_and_nothing_is_lost() {
    let (_redis, mut without, with_b) = two().await;
    let (alice, bob) = (with_b.agent("alice"), without.agent("bob"));
    let id = alice.send("bob", "secret").await;
    let said = told(&bob).await;
    assert!(
        said.starts_with(&format!("Refused: message {id} is sealed with the key b, which")),
        "{said}"
    );
    assert!(said.contains("Nothing was taken or lost"), "{said}");
    let read = bob.request(1, "resources/read", json!({"uri": "inbox://bob"})).await.unwrap_err();
    assert!(read.contains("sealed with the key b"), "{read}");
    let status = without.agent("alice").call("message_status", json!({"sender_id": "alice"})).await;
    assert_eq!(status["messages"][0]["state"], "queued");
    let counted = "mcp_messaging_unreadable_messages_total{reason=\"no_key\"}";
    assert_eq!(without.metric(counted).await, 2);
    assert_eq!(with_b.agent("bob").texts(0).await, ["secret"]);
    let log = without.ended_log();
    let line = log.lines().find(|line| line.contains("cannot be read")).expect("a line in the log");
    assert!(line.contains("no_key") && line.contains("the key b"), "{line}");
    assert!(!log.contains("secret") && !log.contains(&A[2..]) && !log.contains(&B[2..]), "{log}");
}

#[tokio::test]
async fn who_asks_hears_that_there_is_an_answer() {
    let (_redis, without, with_b) = two().await;
    let asking = tokio::spawn({
        let alice = without.agent("alice");
        async move { alice.ask("bob", "?", 20).await }
    });
    let bob = with_b.agent("bob");
    let question = bob.fetch(10).await["messages"][0]["message_id"].clone();
    let reply = json!({"sender_id": "bob", "recipient_id": "alice", "message": "!", "in_reply_to": question});
    bob.call("send_message", reply).await;
    assert_eq!(asking.await.unwrap()["status"], "pending");
    assert!(told(&without.agent("alice")).await.contains("sealed with the key b"));
    assert_eq!(with_b.agent("alice").texts(0).await, ["!"]);
}

#[tokio::test]
async fn a_task_says_that_there_is_an_answer() {
    let (_redis, without, with_b) = two().await;
    let (alice, there) = (Modern::by(without.agent("alice")), Modern::by(with_b.agent("alice")));
    let task = alice.begin("bob", 60).await;
    let bob = with_b.agent("bob");
    let question = bob.fetch(10).await["messages"][0]["message_id"].clone();
    let reply = json!({"sender_id": "bob", "recipient_id": "alice", "message": "!", "in_reply_to": question});
    bob.call("send_message", reply).await;
    let waiting = alice.get(&task).await;
    assert_eq!(waiting["status"], "working", "{waiting}");
    let said = waiting["statusMessage"].as_str().unwrap();
    assert!(said.contains("sealed with the key b") && said.contains("not lost"), "{said}");
    let done = there.get(&task).await;
    assert_eq!(done["result"]["structuredContent"]["reply"]["text"], "!", "{done}");
}

#[tokio::test]
async fn keys_come_from_a_file_and_a_mode_may_be_said() {
    let redis = RedisServer::start(Persistence::AppendOnly);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("# of November\n{B}\n{A}\n")).unwrap();
    let path = file.path().to_str().unwrap();
    let own = [("MCP_MESSAGING__ENCRYPTION__KEYS_FILE", path), (MODE, "require")];
    let replica = Replica::with(&redis.url(), &own).await;
    replica.agent("alice").send("bob", "canary-text").await;
    let word = b"canary-text";
    assert!(!redis.files().windows(word.len()).any(|bytes| bytes == word));
    assert_eq!(replica.agent("bob").texts(0).await, ["canary-text"]);
    let plain = Replica::on(&redis.url()).await;
    plain.agent("mallory").send("bob", "forged").await;
    assert!(told(&replica.agent("bob")).await.contains("is not sealed"));
    let fetched: Value = plain.agent("bob").fetch(0).await;
    assert_eq!(texts(&fetched), ["forged"]);
}
