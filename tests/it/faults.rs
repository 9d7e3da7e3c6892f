//! Redis in trouble: nothing that was accepted is lost, nobody sleeps beside mail.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::sleep;

use crate::support::{Persistence, RedisServer, Replica, Reply};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// So many readers, half on each replica; each answers with what it got.
async fn readers(
    replicas: [&Replica; 2],
    count: usize,
) -> Vec<tokio::task::JoinHandle<Vec<String>>> {
    let readers = (0..count).map(|number| {
        let agent = replicas[number % 2].agent(&format!("reader-{number}"));
        tokio::spawn(async move { agent.texts(50).await })
    });
    let readers: Vec<_> = readers.collect();
    let patience = Instant::now() + secs(20);
    loop {
        let mut now = 0;
        for replica in replicas {
            now += replica.metric("mcp_messaging_waiters").await;
        }
        if now >= count {
            sleep(Duration::from_millis(200)).await; // from the count to the store
            return readers;
        }
        assert!(Instant::now() < patience, "{now} of {count} wait");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn all_are_woken(
    replicas: [&Replica; 2],
    readers: Vec<tokio::task::JoinHandle<Vec<String>>>,
) {
    let alice = replicas[0].agent("alice");
    for number in 0..readers.len() {
        alice.send(&format!("reader-{number}"), &format!("for {number}")).await;
    }
    let sent = Instant::now();
    for (number, reader) in readers.into_iter().enumerate() {
        assert_eq!(reader.await.unwrap(), [format!("for {number}")]);
    }
    assert!(sent.elapsed() < secs(10), "woken after {:?}", sent.elapsed());
    for replica in replicas {
        assert_eq!(replica.metric("mcp_messaging_missed_wakeups_total").await, 0);
    }
}

#[tokio::test]
async fn a_hundred_waiters_survive_a_restart_of_redis() {
    let mut redis = RedisServer::start(Persistence::AppendOnly);
    let (one, two) = (Replica::on(&redis.url()).await, Replica::on(&redis.url()).await);
    one.agent("alice").send("keeper", "accepted before the crash").await;
    let readers = readers([&one, &two], 100).await;
    redis.kill();
    sleep(Duration::from_millis(500)).await;
    let (status, _) = one.get("/readyz").await;
    assert_eq!(status, 503, "without Redis nobody is ready");
    let (status, _) = one.get("/livez").await;
    assert_eq!(status, 200, "without Redis everybody is alive");
    redis.restart();
    one.ready(secs(10)).await;
    two.ready(secs(10)).await;
    all_are_woken([&one, &two], readers).await;
    assert_eq!(two.agent("keeper").texts(0).await, ["accepted before the crash"]);
}

#[tokio::test]
async fn a_cut_subscription_misses_nobody() {
    let redis = RedisServer::start(Persistence::None);
    let (one, two) = (Replica::on(&redis.url()).await, Replica::on(&redis.url()).await);
    let readers = readers([&one, &two], 40).await;
    let killed = redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    assert_eq!(killed, Reply::Integer(2), "one subscriber a replica");
    all_are_woken([&one, &two], readers).await;
}

#[tokio::test]
async fn a_deaf_subscription_is_found_and_renewed() {
    let redis = RedisServer::start(Persistence::None);
    let (one, two) = (Replica::on(&redis.url()).await, Replica::on(&redis.url()).await);
    let readers = readers([&one, &two], 10).await;
    // Redis stays healthy, but the subscriptions no longer hear a thing.
    redis.command(&["ACL", "SETUSER", "default", "resetchannels"]);
    sleep(Duration::from_millis(200)).await;
    redis.command(&["ACL", "SETUSER", "default", "allchannels"]);
    sleep(secs(4)).await;
    all_are_woken([&one, &two], readers).await;
}

#[tokio::test]
async fn functions_that_redis_lost_are_loaded_again() {
    let redis = RedisServer::start(Persistence::None);
    let one = Replica::on(&redis.url()).await;
    let alice = one.agent("alice");
    alice.send("bob", "before").await;
    assert_eq!(redis.command(&["FUNCTION", "FLUSH", "SYNC"]), Reply::Text("OK".into()));
    alice.send("bob", "after").await;
    assert_eq!(one.agent("bob").texts(0).await, ["before", "after"]);
}

#[tokio::test]
async fn a_redis_without_functions_runs_the_scripts() {
    let old = ["--rename-command", "FUNCTION", "", "--rename-command", "FCALL", ""];
    let redis = RedisServer::start_with(Persistence::None, &old);
    let one = Replica::on(&redis.url()).await;
    let (alice, bob) = (one.agent("alice"), one.agent("bob"));
    alice.send("bob", "by script").await;
    redis.command(&["SCRIPT", "FLUSH"]);
    assert_eq!(bob.texts(0).await, ["by script"]);
    let question = tokio::spawn(async move { alice.ask("bob", "?", 10).await });
    assert_eq!(bob.texts(10).await, ["?"]);
    bob.send("alice", "!").await;
    assert_eq!(question.await.unwrap()["reply"]["text"], "!");
}

#[tokio::test]
async fn a_newer_revision_of_the_functions_is_never_replaced() {
    let redis = RedisServer::start(Persistence::None);
    let newer = include_str!("../../migrations/functions/mb1.lua")
        .replace("local REVISION = 1", "local REVISION = 1000");
    redis.command(&["FUNCTION", "LOAD", &newer]);
    let one = Replica::on(&redis.url()).await;
    one.agent("alice").send("bob", "works with the newer one").await;
    assert_eq!(one.agent("bob").texts(0).await, ["works with the newer one"]);
    assert_eq!(redis.command(&["FCALL", "mb1_revision", "0"]), Reply::Integer(1000));
}

#[tokio::test]
async fn an_older_revision_is_replaced() {
    let redis = RedisServer::start(Persistence::None);
    let older = include_str!("../../migrations/functions/mb1.lua")
        .replace("local REVISION = 1", "local REVISION = 0");
    redis.command(&["FUNCTION", "LOAD", &older]);
    let _one = Replica::on(&redis.url()).await;
    assert_eq!(redis.command(&["FCALL", "mb1_revision", "0"]), Reply::Integer(1));
}

#[tokio::test]
async fn a_replica_that_starts_without_redis_becomes_ready_when_it_comes() {
    let mut redis = RedisServer::start(Persistence::None);
    redis.kill();
    let one = Replica::start(&[("REDIS_URL", &redis.url())]);
    assert_eq!(one.get("/readyz").await.0, 503);
    assert_eq!(one.get("/livez").await.0, 200);
    let refused = one
        .agent("alice")
        .try_call(
            "send_message",
            json!({"sender_id": "alice", "recipient_id": "bob", "message": "?"}),
        )
        .await;
    // Whatever its shape, the caller is told, and told what to do.
    let told = refused.map_or_else(
        |error| error,
        |result| {
            assert_eq!(result["isError"], true);
            result.to_string()
        },
    );
    assert!(told.contains("may have been accepted"), "{told}");
    redis.restart();
    one.ready(secs(15)).await;
    one.agent("alice").send("bob", "here").await;
    assert_eq!(one.agent("bob").texts(0).await, ["here"]);
}

#[tokio::test]
async fn a_redis_that_evicts_is_not_ready_and_says_why() {
    let redis = RedisServer::start_with(Persistence::None, &["--maxmemory-policy", "volatile-lru"]);
    let one = Replica::start(&[("REDIS_URL", &redis.url())]);
    sleep(secs(1)).await;
    assert_eq!(one.get("/readyz").await.0, 503);
    redis.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    one.ready(secs(5)).await;
}

#[tokio::test]
async fn a_full_redis_refuses_sends_and_lets_readers_drain() {
    let redis = RedisServer::start(Persistence::None);
    let one = Replica::on(&redis.url()).await;
    let alice = one.agent("alice");
    alice.send("bob", "before").await;
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let message = json!({"sender_id": "alice", "recipient_id": "bob", "message": "no room"});
    let refused = alice.try_call("send_message", message).await;
    assert!(refused.map_or(true, |result| result["isError"] == true));
    assert_eq!(one.agent("bob").texts(0).await, ["before"]);
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    alice.send("bob", "room again").await;
    assert_eq!(one.agent("bob").texts(0).await, ["room again"]);
}

#[tokio::test]
async fn every_key_has_a_life() {
    let redis = RedisServer::start(Persistence::None);
    let one = Replica::on(&redis.url()).await;
    let (alice, bob) = (one.agent("alice"), one.agent("bob"));
    alice.call("checkin_client", json!({"client_id": "alice", "name": "Alice"})).await;
    alice.send("bob", "read").await;
    bob.texts(0).await;
    alice.send("bob", "unread").await;
    let keyed = json!({"sender_id": "alice", "recipient_id": "bob", "message": "k", "idempotency_key": "k"});
    alice.call("send_message", keyed).await;
    assert_eq!(alice.ask("bob", "?", 1).await["status"], "pending");
    let Reply::Array(keys) = redis.command(&["KEYS", "*"]) else { panic!("no keys") };
    assert!(keys.len() >= 7, "{keys:?}");
    for key in keys {
        let Reply::Text(key) = key else { panic!("a key is text") };
        let Reply::Integer(life) = redis.command(&["PTTL", &key]) else { panic!("no life") };
        assert!(life > 0 || life == -2, "{key} lives for ever");
    }
}
