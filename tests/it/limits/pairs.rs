//! Two clients that answer each other for ever are paused: both hear of it, a human can end it, and no message that
//! was accepted is lost.

use std::{
    process::{Command, Output},
    time::{Duration, Instant},
};

use serde_json::json;

use super::{refused, series};
use crate::{
    auth::{guarded, holder},
    support::{Persistence, RedisServer, Replica, Site, Store},
};

on_every_store!(
    both_directions_count_and_both_are_told,
    a_send_to_several_is_refused_for_the_paused_one_alone,
    a_pause_ends_by_itself,
    a_note_to_oneself_is_no_loop,
);

/// Four messages, exactly: a batch is one.
fn four(pause: &'static str) -> [(&'static str, &'static str); 2] {
    [
        ("MCP_MESSAGING__LIMITS__PAIR_MESSAGES", "4"),
        ("MCP_MESSAGING__LIMITS__PAIR_PAUSE_SECONDS", pause),
    ]
}

/// Alice and bob talk until they may not.
async fn talk(site: &Site) {
    for number in 0..2 {
        site.here().agent("alice").send("bob", &format!("ping {number}")).await;
        site.there().agent("bob").send("alice", &format!("pong {number}")).await;
    }
}

async fn both_directions_count_and_both_are_told(store: Store) {
    let site = store.with(&four("600")).await;
    talk(&site).await;
    let said = refused(&site.here().agent("alice"), "bob").await;
    for part in [
        "you and bob sent each other more than 4 messages in 600 s, which looks like a loop",
        "paused for another 600 s. This one was not sent",
        "`mcp-messaging pairs lift alice bob`",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    // The other one hears of it as soon as it shows up, from whichever server, and once.
    let bob = site.there().agent("bob");
    let fetched = bob.fetch(0).await;
    assert_eq!(crate::support::texts(&fetched), ["ping 0", "ping 1"], "accepted is kept");
    let notice = &fetched["notices"][0];
    assert_eq!((&notice["state"], &notice["recipient_id"]), (&json!("paused"), &json!("alice")));
    assert!(notice["until"].as_str().unwrap().ends_with('Z') && notice.get("message_id").is_none());
    told_once(&site).await;
    let said = refused(&bob, "alice").await;
    assert!(
        said.contains("you and alice sent each other") && said.contains("lift alice bob"),
        "{said}"
    );
    // Nobody else is held up.
    site.here().agent("alice").send("carol", "hello").await;
    bob.send("carol", "hello").await;
    assert_eq!(site.here().agent("alice").texts(0).await, ["pong 0", "pong 1"]);
    let paused: u64 = if store == Store::Memory {
        series(site.here(), "mcp_messaging_pairs_paused_total").await
    } else {
        series(site.here(), "mcp_messaging_pairs_paused_total").await
            + series(site.there(), "mcp_messaging_pairs_paused_total").await
    };
    assert_eq!(paused, 1);
}

/// Waits until bob is told nothing more: that he was is noted when the response was written.
async fn told_once(site: &Site) {
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        let fetched = site.here().agent("bob").fetch(0).await;
        if fetched["notices"].as_array().unwrap().is_empty() {
            return;
        }
        assert!(Instant::now() < patience, "told again and again: {fetched}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn a_send_to_several_is_refused_for_the_paused_one_alone(store: Store) {
    let site = store.with(&four("600")).await;
    talk(&site).await;
    let letter = json!({"sender_id": "alice", "recipients": ["bob", "carol"], "message": "x"});
    let results = site.there().agent("alice").call("send_message", letter).await;
    let status = |index: usize| results["results"][index]["status"].as_str().unwrap();
    assert_eq!((status(0), status(1)), ("refused", "queued"), "{results}");
    assert!(results["results"][0]["reason"].as_str().unwrap().contains("looks like a loop"));
    assert_eq!(site.here().agent("bob").texts(0).await.len(), 2);
    assert_eq!(site.here().agent("carol").texts(0).await, ["x"]);
}

async fn a_pause_ends_by_itself(store: Store) {
    let site = store.with(&four("1")).await;
    talk(&site).await;
    refused(&site.here().agent("alice"), "bob").await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    // A send is a contact too: bob hears of the pause though it is over.
    let letter = json!({"sender_id": "bob", "recipient_id": "alice", "message": "pong"});
    let sent = site.there().agent("bob").call("send_message", letter).await;
    assert_eq!(sent["notices"][0]["state"], "paused", "{sent}");
    for number in 0..3 {
        site.here().agent("alice").send("bob", &number.to_string()).await;
    }
    refused(&site.there().agent("bob"), "alice").await;
    let fetched = site.here().agent("alice").fetch(0).await;
    assert_eq!(fetched["notices"][0]["recipient_id"], "bob", "{fetched}");
}

async fn a_note_to_oneself_is_no_loop(store: Store) {
    let site = store.with(&four("600")).await;
    let alice = site.here().agent("alice");
    for number in 0..9 {
        alice.send("alice", &number.to_string()).await;
    }
}

/// What a replica was about to say is said by another one.
#[tokio::test]
async fn a_notice_outlives_the_replica_that_made_it() {
    let redis = RedisServer::start(Persistence::None);
    let mut one = Replica::with(&redis.url(), &four("600")).await;
    let other = Replica::with(&redis.url(), &four("600")).await;
    for number in 0..4 {
        one.agent("alice").send("bob", &number.to_string()).await;
    }
    refused(&one.agent("alice"), "bob").await;
    one.kill();
    assert_eq!(other.agent("bob").fetch(0).await["notices"][0]["state"], "paused");
}

fn pairs(site: &Site, arguments: &str) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-messaging"));
    command.env_clear().arg("pairs").args(arguments.split(' '));
    if let Some(redis) = site.redis() {
        command.env("REDIS_URL", redis.url());
    }
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().trim_end().to_owned();
    (status.success(), text(stdout), text(stderr))
}

#[tokio::test]
async fn a_human_sees_who_is_paused_and_lifts_it() {
    let site = guarded(Store::Redis, &four("600")).await;
    let (alice, bob) = (holder(site.here(), "alice"), holder(site.there(), "bob"));
    for _ in 0..2 {
        alice.send("bob", "ping").await;
        bob.send("alice", "pong").await;
    }
    let said = refused(&alice, "bob").await;
    assert!(said.contains("`mcp-messaging pairs lift alice bob --tenant acme`"), "{said}");
    refused(&bob, "alice").await;
    assert_eq!(pairs(&site, "list").1, "", "another team");
    let (done, listed, _) = pairs(&site, "list --tenant acme");
    assert!(done && listed.starts_with("alice bob, for another "), "{listed}");
    let (done, said, why) = pairs(&site, "lift bob alice --tenant acme");
    assert!(done && said == "bob and alice may send to each other again", "{said} {why}");
    assert_eq!(pairs(&site, "list --tenant acme").1, "");
    let (done, _, why) = pairs(&site, "lift alice bob --tenant acme");
    assert!(!done && why.contains("not paused"), "{why}");
    // Both servers hear of it in time.
    tokio::time::sleep(Duration::from_secs(4)).await;
    alice.send("bob", "again").await;
    bob.send("alice", "again").await;
}

#[tokio::test]
async fn without_redis_the_command_says_what_to_do() {
    let site = Store::Memory.open().await;
    let (done, _, why) = pairs(&site, "list");
    assert!(!done && why.contains("REDIS_URL"), "{why}");
}
