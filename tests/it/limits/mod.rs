//! Limits on who calls how much: told with a way out, shared by replicas, and nothing that was accepted is lost.

mod addresses;
mod pairs;
mod rates;
mod waits;

use serde_json::{Value, json};

use crate::support::{Agent, Replica};

/// The first text of a result.
fn told(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap()
}

/// A send that is refused; what is said.
async fn refused(agent: &Agent, to: &str) -> String {
    let letter = json!({"sender_id": agent.id, "recipient_id": to, "message": "too much"});
    let result = agent.try_call("send_message", letter).await.unwrap();
    assert_eq!(result["isError"], true, "{result}");
    told(&result).to_owned()
}

/// The value of a series of a replica.
async fn series(replica: &Replica, name: &str) -> u64 {
    let (_, text) = replica.get("/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}
