//! Messages of one caller and of its team.

use serde_json::json;

use super::{refused, series, told};
use crate::{
    auth::{guarded, holder, key, sealed},
    support::{Persistence, RedisServer, Replica, Store},
};

on_every_store!(
    a_caller_over_its_limit_is_told_and_others_are_not_held_up,
    a_send_to_several_costs_each_of_them,
    a_question_costs_as_a_message_does,
    the_windows_of_one_person_share_its_limit,
    a_team_has_a_limit_of_its_own,
);

/// Ten messages, exactly: a batch is one.
const TEN: [(&str, &str); 3] = [
    ("MCP_MESSAGING__LIMITS__RECIPIENTS", "5"),
    ("MCP_MESSAGING__LIMITS__PRINCIPAL_MESSAGES_PER_MINUTE", "10"),
    ("MCP_MESSAGING__LIMITS__PRINCIPAL_MESSAGES_AT_ONCE", "10"),
];

async fn a_caller_over_its_limit_is_told_and_others_are_not_held_up(store: Store) {
    let site = store.with(&TEN).await;
    for number in 0..10 {
        let replica = if number % 2 == 0 { site.here() } else { site.there() };
        replica.agent("alice").send("bob", &number.to_string()).await;
    }
    for replica in [site.here(), site.there()] {
        let said = refused(&replica.agent("alice"), "bob").await;
        let text =
            "your limit of 10 messages in 60 s is reached; this call sent nothing. Try again in ";
        assert!(said.contains(text), "{said}");
        let refusals = r#"mcp_messaging_refusals_total{reason="rate_limited"}"#;
        assert!(series(replica, refusals).await >= 1);
    }
    site.here().agent("carol").send("bob", "from another").await;
    // Who only reads is not held up.
    site.here().agent("alice").fetch(0).await;
    let got = site.there().agent("bob").texts(0).await;
    let mut expected: Vec<_> = (0..10).map(|number| number.to_string()).collect();
    expected.push("from another".to_owned());
    assert_eq!(got, expected, "what was accepted and nothing else");
}

async fn a_send_to_several_costs_each_of_them(store: Store) {
    let site = store.with(&TEN).await;
    let letter = json!({"sender_id": "alice", "recipients": ["a", "b", "c", "d"], "message": "x"});
    for replica in [site.here(), site.there()] {
        replica.agent("alice").call("send_message", letter.clone()).await;
    }
    let result = site.here().agent("alice").try_call("send_message", letter).await.unwrap();
    assert_eq!(result["isError"], true, "two are left, not four: {result}");
    assert_eq!(site.here().agent("a").texts(0).await.len(), 2, "nothing of it was sent");
    site.there().agent("alice").send("a", "one").await;
    site.here().agent("alice").send("a", "two").await;
    refused(&site.there().agent("alice"), "a").await;
}

async fn a_question_costs_as_a_message_does(store: Store) {
    let site = store.with(&TEN).await;
    let alice = site.here().agent("alice");
    for _ in 0..10 {
        assert_eq!(alice.ask("bob", "?", 0).await["status"], "pending");
    }
    let question =
        json!({"sender_id": "alice", "recipient_id": "bob", "message": "?", "timeout": 0});
    let result = alice.try_call("send_message_and_wait", question).await.unwrap();
    assert!(told(&result).contains("your limit of 10 messages"), "{result}");
}

async fn the_windows_of_one_person_share_its_limit(store: Store) {
    let site = guarded(store, &TEN).await;
    let window = |replica: &Replica, id: &str| {
        replica.agent(id).with_key(&sealed(&key("acme", "alice.*", "read,send")))
    };
    for number in 0..5 {
        window(site.here(), "alice.1").send("bob", &number.to_string()).await;
        window(site.there(), "alice.2").send("bob", &number.to_string()).await;
    }
    refused(&window(site.here(), "alice.3"), "bob").await;
    // Another credential, and the same name in another team, are somebody else.
    holder(site.here(), "alice").send("bob", "x").await;
    let other = sealed(&key("other", "alice.*", "read,send"));
    site.here().agent("alice.1").with_key(&other).send("bob", "x").await;
}

async fn a_team_has_a_limit_of_its_own(store: Store) {
    let team = [
        ("MCP_MESSAGING__LIMITS__RECIPIENTS", "5"),
        ("MCP_MESSAGING__LIMITS__TENANT_MESSAGES_PER_MINUTE", "6"),
    ];
    let site = guarded(store, &team).await;
    for number in 0..3 {
        holder(site.here(), "alice").send("bob", &number.to_string()).await;
        holder(site.there(), "carol").send("bob", &number.to_string()).await;
    }
    let said = refused(&holder(site.there(), "dave"), "bob").await;
    assert!(said.contains("your team's limit of 6 messages in 60 s is reached"), "{said}");
    let other = sealed(&key("other", "dave", "read,send"));
    site.there().agent("dave").with_key(&other).send("bob", "x").await;
}

/// The price of a limit that is not reached: a call to the store now and then.
#[tokio::test]
async fn a_replica_takes_permits_in_batches() {
    let redis = RedisServer::start(Persistence::None);
    let variables = [
        ("MCP_MESSAGING__LIMITS__PRINCIPAL_MESSAGES_PER_MINUTE", "400"),
        ("MCP_MESSAGING__LIMITS__PRINCIPAL_MESSAGES_AT_ONCE", "400"),
    ];
    let replica = Replica::with(&redis.url(), &variables).await;
    let alice = replica.agent("alice");
    for number in 0..100 {
        alice.send("bob", &number.to_string()).await;
    }
    let calls = r#"mcp_messaging_redis_command_duration_seconds_count{function="mb1_permits"}"#;
    assert_eq!(series(&replica, calls).await, 5, "batches of a twentieth");
}

#[tokio::test]
async fn without_its_store_a_limit_is_not_what_a_send_fails_of() {
    let mut redis = RedisServer::start(Persistence::None);
    let replica = Replica::with(&redis.url(), &TEN).await;
    let alice = replica.agent("alice");
    alice.send("bob", "before").await;
    redis.kill();
    for _ in 0..2 {
        let letter = json!({"sender_id": "alice", "recipient_id": "bob", "message": "x"});
        let result = alice.try_call("send_message", letter).await.unwrap();
        assert!(told(&result).contains("the message store failed"), "{result}");
    }
    assert!(series(&replica, "mcp_messaging_limits_unchecked_total").await >= 2);
    redis.restart();
    replica.ready(std::time::Duration::from_secs(20)).await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await; // it is left alone for a second
    // The limit holds again. What was asked in vain may have been taken all the same.
    let letter = json!({"sender_id": "alice", "recipient_id": "bob", "message": "after"});
    let mut accepted = 0;
    while alice.try_call("send_message", letter.clone()).await.unwrap()["isError"] == false {
        accepted += 1;
        assert!(accepted <= 12, "no limit holds");
    }
    assert!(accepted >= 6, "an outage costs a permit for each call: {accepted}");
}
