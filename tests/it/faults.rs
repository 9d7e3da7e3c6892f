//! Redis in trouble: nothing that was accepted is lost, nobody sleeps beside mail.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use mcp_messaging::{
    messaging::{Acknowledge, CallContext, ReceiveRequest},
    model::Principal,
    queue::CallKey,
};
use serde_json::json;
use tokio::time::sleep;

use crate::house::{self, eventually};
use crate::support::{Persistence, Proxy, RedisServer, Replica, Reply, Weather};

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

/// Readers on a replica whose wire goes bad for four seconds, while they are written to.
async fn written_to_in(weather: Weather) -> (Replica, Replica, RedisServer) {
    let redis = RedisServer::start(Persistence::None);
    let proxy = Proxy::before(&redis.url()).await;
    let (bad, good) = (Replica::on(&proxy.url()).await, Replica::on(&redis.url()).await);
    let mut waiting = Vec::new();
    for number in 0..10 {
        let agent = bad.agent(&format!("reader-{number}"));
        waiting.push(tokio::spawn(async move { agent.texts(50).await }));
    }
    while bad.metric("mcp_messaging_waiters").await < 10 {
        sleep(Duration::from_millis(20)).await;
    }
    sleep(Duration::from_millis(300)).await; // from the count to the store
    proxy.turn(weather);
    let alice = good.agent("alice");
    for number in 0..10 {
        alice.send(&format!("reader-{number}"), &format!("for {number}")).await;
    }
    sleep(secs(4)).await;
    proxy.turn(Weather::Fair);
    let fair = Instant::now();
    for (number, reader) in waiting.into_iter().enumerate() {
        assert_eq!(reader.await.unwrap(), [format!("for {number}")]);
    }
    assert!(fair.elapsed() < secs(8), "woken after {:?}", fair.elapsed());
    assert_eq!(bad.metric("mcp_messaging_missed_wakeups_total").await, 0);
    (bad, good, redis)
}

#[tokio::test]
async fn a_deaf_subscription_is_found_and_renewed() {
    let (bad, _good, _redis) = written_to_in(Weather::Deaf).await;
    assert!(bad.metric("mcp_messaging_deaf_subscriptions_total").await >= 1);
}

#[tokio::test]
async fn a_half_open_connection_is_found_and_replaced() {
    written_to_in(Weather::Hole).await;
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
async fn functions_that_redis_loses_again_and_again_fail_nobody() {
    let redis = RedisServer::start(Persistence::None);
    let one = Replica::on(&redis.url()).await;
    let over = Arc::new(AtomicBool::new(false));
    let flushing = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            while !over.load(Ordering::SeqCst) {
                redis.command(&["FUNCTION", "FLUSH", "SYNC"]);
                std::thread::sleep(Duration::from_millis(10));
            }
            redis
        }
    });
    let senders = (0..8).map(|number| {
        let (alice, to) = (one.agent(&format!("alice-{number}")), format!("reader-{number}"));
        async move {
            for _ in 0..50 {
                alice.send(&to, "through it all").await;
            }
        }
    });
    futures_util::future::join_all(senders).await;
    over.store(true, Ordering::SeqCst);
    let _redis = flushing.join().unwrap();
    assert_eq!(one.agent("reader-7").texts(0).await, ["through it all"; 50]);
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

/// The library as another version of the server would bring it.
pub(crate) fn library_at(revision: u32) -> String {
    let source = include_str!("../../migrations/functions/mb1.lua");
    let (before, rest) = source.split_once("local REVISION = ").unwrap();
    let (_ours, after) = rest.split_once('\n').unwrap();
    format!("{before}local REVISION = {revision}\n{after}")
}

#[tokio::test]
async fn a_newer_revision_of_the_functions_is_never_replaced() {
    let redis = RedisServer::start(Persistence::None);
    redis.command(&["FUNCTION", "LOAD", &library_at(1000)]);
    let one = Replica::on(&redis.url()).await;
    one.agent("alice").send("bob", "works with the newer one").await;
    assert_eq!(one.agent("bob").texts(0).await, ["works with the newer one"]);
    assert_eq!(redis.command(&["FCALL", "mb1_revision", "0"]), Reply::Integer(1000));
}

#[tokio::test]
async fn an_older_revision_is_replaced() {
    let redis = RedisServer::start(Persistence::None);
    redis.command(&["FUNCTION", "LOAD", &library_at(0)]);
    let _one = Replica::on(&redis.url()).await;
    assert_ne!(redis.command(&["FCALL", "mb1_revision", "0"]), Reply::Integer(0));
}

#[tokio::test]
async fn who_loads_the_functions_waits_for_another_loader_and_leaves_what_it_left() {
    let redis = RedisServer::start(Persistence::None);
    redis.command(&["FUNCTION", "LOAD", &library_at(0)]);
    redis.command(&["SET", "mb1:{load}:l", "somebody else", "PX", "60000"]);
    let url = redis.url();
    let starting = tokio::spawn(async move { Replica::on(&url).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let revision = || redis.command(&["FCALL", "mb1_revision", "0"]);
    assert_eq!(revision(), Reply::Integer(0), "not while another one loads");
    redis.command(&["FUNCTION", "LOAD", "REPLACE", &library_at(1000)]);
    redis.command(&["DEL", "mb1:{load}:l"]);
    let _one = starting.await.unwrap();
    assert_eq!(revision(), Reply::Integer(1000));
}

#[tokio::test]
async fn the_lock_of_a_loader_is_given_back() {
    let redis = RedisServer::start(Persistence::None);
    redis.command(&["FUNCTION", "LOAD", &library_at(0)]);
    let _one = Replica::on(&redis.url()).await;
    assert_ne!(redis.command(&["FCALL", "mb1_revision", "0"]), Reply::Integer(0));
    // Its workers may still look one after the other. Nothing else unlinks a key, and what only ended was not.
    eventually("the lock is free", || {
        let Reply::Text(told) = redis.command(&["INFO", "commandstats"]) else { panic!("no INFO") };
        let held = redis.command(&["EXISTS", "mb1:{load}:l"]) != Reply::Integer(0);
        !held && told.contains("cmdstat_unlink:")
    })
    .await;
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
    let (status, said) = one.get("/readyz").await;
    assert_eq!(status, 503);
    assert!(said.contains("noeviction"), "{said}");
    redis.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    one.ready(secs(5)).await;
    // It looked again and again, and says what else there is to say when it is through.
    eventually("warned", || one.log().contains("append-only")).await;
    assert_eq!(one.log().matches("append-only").count(), 1);
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

/// Whether its client gave it up cannot be found out just then.
#[tokio::test(start_paused = true)]
async fn who_waits_in_a_session_outlives_trouble_of_the_store_too() {
    let store = Arc::new(house::Store::default());
    let mailbox = house::mailbox(Arc::clone(&store) as _);
    let call = Some(CallKey::new(&Principal::anyone(), "session", "1"));
    let context = CallContext { call, ..CallContext::default() };
    let request = ReceiveRequest {
        client: "bob".parse().unwrap(),
        wait: secs(30),
        max_messages: None,
        acknowledge: Acknowledge::Auto,
        receipt: None,
    };
    let trouble = async {
        sleep(secs(1)).await;
        store.down.store(true, Ordering::SeqCst);
        store.wake_all();
        sleep(secs(5)).await;
        store.down.store(false, Ordering::SeqCst);
        store.put("after it");
    };
    let (received, ()) = tokio::join!(mailbox.receive(&request, &context), trouble);
    let received = received.expect("it waits on");
    assert_eq!(received.messages.len(), 1);
    received.delivery.expect("it is to be acknowledged").flushed();
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

/// A send whose answer the network ate; whether it was read meanwhile.
async fn a_send_without_an_answer(read_meanwhile: bool) -> (Vec<String>, serde_json::Value) {
    let redis = RedisServer::start(Persistence::None);
    let proxy = Proxy::before(&redis.url()).await;
    let (bad, good) = (Replica::on(&proxy.url()).await, Replica::on(&redis.url()).await);
    let bob = good.agent("bob");
    bad.agent("alice").send("carol", "so that there are permits left").await;
    proxy.turn(Weather::Hole);
    let sending = tokio::spawn({
        let alice = bad.agent("alice");
        async move { alice.send("bob", "once").await }
    });
    sleep(Duration::from_millis(500)).await;
    let before = if read_meanwhile { bob.texts(0).await } else { Vec::new() };
    proxy.turn(Weather::Fair);
    let id = sending.await.unwrap(); // it was repeated until it was answered
    let got = bob.fetch(0).await;
    assert!(got["messages"].as_array().unwrap().iter().all(|message| message["message_id"] == id));
    (before, got)
}

#[tokio::test]
async fn a_send_whose_answer_was_lost_is_accepted_once() {
    let (_, got) = a_send_without_an_answer(false).await;
    assert_eq!(got["messages"].as_array().unwrap().len(), 1);
    assert_eq!(got["messages"][0]["redelivered"], false);
}

#[tokio::test]
async fn a_send_that_was_read_before_its_repetition_is_at_most_a_marked_copy() {
    let (before, got) = a_send_without_an_answer(true).await;
    assert_eq!(before, ["once"]);
    for copy in got["messages"].as_array().unwrap() {
        assert_eq!(copy["redelivered"], true, "{copy}");
    }
}

#[tokio::test]
async fn a_wait_that_ends_in_an_outage_ends_in_time_says_so_and_loses_nothing() {
    let redis = RedisServer::start(Persistence::None);
    // Far longer than the wait, so that only the wait can end the call.
    let patient = [("MCP_MESSAGING__REDIS__RETRY_SECONDS", "60")];
    let one = Replica::with(&redis.url(), &patient).await;
    let bob = one.agent("bob");
    let waiting = tokio::spawn({
        let bob = bob.clone();
        async move { bob.try_call("get_messages", json!({"client_id": "bob", "wait_seconds": 3})).await }
    });
    one.waiters(1).await;
    redis.hang(true);
    let answer = tokio::time::timeout(secs(25), waiting).await;
    redis.hang(false);
    let said = answer.expect("it ends with its wait").unwrap().unwrap_err();
    assert!(said.contains("-32603") && said.contains("try again"), "{said}");
    one.agent("alice").send("bob", "after the outage").await;
    assert_eq!(bob.texts(20).await, ["after the outage"]);
}

#[tokio::test]
async fn a_question_that_was_accepted_is_no_failure_when_the_store_goes_while_it_waits() {
    let redis = RedisServer::start(Persistence::None);
    // Far longer than the wait, so that only the wait can end the call.
    let patient = [("MCP_MESSAGING__REDIS__RETRY_SECONDS", "60")];
    let one = Replica::with(&redis.url(), &patient).await;
    let (alice, bob) = (one.agent("alice"), one.agent("bob"));
    let asking = tokio::spawn({
        let alice = alice.clone();
        async move { alice.ask("bob", "are you there?", 3).await }
    });
    assert_eq!(bob.texts(20).await, ["are you there?"]);
    redis.hang(true);
    let answer = tokio::time::timeout(secs(25), asking).await;
    redis.hang(false);
    let asked = answer.expect("it ends with its wait").unwrap();
    assert_eq!(asked["status"], "pending", "{asked}");
    bob.call("send_message", json!({"sender_id": "bob", "recipient_id": "alice", "message": "here", "in_reply_to": asked["message_id"]})).await;
    assert_eq!(alice.texts(20).await, ["here"], "its answer is where it was said to be");
    assert!(bob.texts(0).await.is_empty(), "it was asked once");
}
