//! Clocks that are wrong: that of a replica means nothing to messages, and that of Redis no more than how long they live.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    auth::{KEYED, key_until, sealed},
    support::{Agent, Clock, Persistence, RedisServer, Replica, Reply},
};

const HOUR: i64 = 3600;

/// Whether this test can be run here; says why not.
fn can_move_clocks() -> bool {
    let why = Clock::unavailable();
    if let Some(why) = why {
        eprintln!("skipped: {why}");
    }
    why.is_none()
}

/// A replica on this Redis whose clock is wrong by so many seconds.
async fn off_by(seconds: i64, redis: &str, more: &[(&str, &str)], dir: &Path) -> Replica {
    let clock = Clock::right(dir, &format!("replica{seconds}")).unwrap();
    clock.set(seconds).unwrap();
    let own = clock.variables();
    let own: Vec<_> = own.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let replica = Replica::with(redis, &[&own[..], more].concat()).await;
    assert!(clock.is_of(replica.id()), "it goes by the machine's clock");
    replica
}

async fn state(agent: &Agent, message: &str) -> String {
    let arguments = json!({"sender_id": agent.id, "message_ids": [message]});
    let status = agent.call("message_status", arguments).await;
    status["messages"][0]["state"].as_str().unwrap().to_owned()
}

async fn send_for(agent: &Agent, to: &str, text: &str, ttl: u64) -> String {
    let arguments =
        json!({"sender_id": agent.id, "recipient_id": to, "message": text, "ttl_seconds": ttl});
    let sent = agent.call("send_message", arguments).await;
    sent["results"][0]["message_id"].as_str().unwrap().to_owned()
}

/// Seconds since the epoch, by the clock of Redis.
fn time(redis: &RedisServer) -> i64 {
    let answer = redis.command(&["TIME"]);
    let Reply::Array(words) = &answer else { panic!("no time: {answer:?}") };
    let Reply::Text(seconds) = &words[0] else { panic!("no time: {answer:?}") };
    seconds.parse().unwrap()
}

#[tokio::test]
async fn replicas_whose_clocks_are_hours_apart_agree_on_everything() {
    if !can_move_clocks() {
        return;
    }
    let (redis, dir) = (RedisServer::start(Persistence::None), TempDir::new().unwrap());
    let right = Replica::on(&redis.url()).await;
    let ahead = off_by(HOUR, &redis.url(), &[], dir.path()).await;
    let behind = off_by(-HOUR, &redis.url(), &[], dir.path()).await;
    for (from, to) in [(&ahead, &behind), (&behind, &ahead), (&behind, &right), (&right, &ahead)] {
        // Who waits is woken, and the message is as old as it is.
        let (alice, bob) = (from.agent("alice"), to.agent("bob"));
        let waits = tokio::spawn({
            let bob = bob.clone();
            async move { bob.fetch(50).await }
        });
        to.waiters(1).await;
        alice.send("bob", "hello").await;
        let fetched = waits.await.unwrap();
        let message = &fetched["messages"][0];
        assert_eq!(message["text"], "hello");
        assert!(message["age_seconds"].as_u64().unwrap() < 60, "{message}");
        // Who asks is answered.
        let asks = tokio::spawn({
            let alice = alice.clone();
            async move { alice.ask("bob", "?", 50).await }
        });
        assert_eq!(bob.texts(50).await, ["?"]);
        bob.send("alice", "!").await;
        assert_eq!(asks.await.unwrap()["reply"]["text"], "!");
        // A life is as long as its sender said, whoever looks.
        let (short, long) = (
            send_for(&alice, "carol", "short", 1).await,
            send_for(&alice, "carol", "long", 60).await,
        );
        let looks = to.agent("alice");
        let patience = Instant::now() + Duration::from_secs(20);
        while state(&looks, &short).await != "expired" {
            assert!(Instant::now() < patience, "it lives on");
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(state(&looks, &long).await, "queued");
        assert_eq!(to.agent("carol").texts(0).await, ["long"]);
        // What is handed out by one is held for its reader at the other, and acknowledged by its receipt there.
        alice.send("dave", "once").await;
        let manual = |receipt: Option<Value>| {
            let mut arguments = json!({"client_id": "dave", "ack": "manual"});
            if let Some(receipt) = receipt {
                arguments["receipt"] = receipt;
            }
            arguments
        };
        let held = from.agent("dave").call("get_messages", manual(None)).await;
        assert_eq!(held["messages"][0]["text"], "once");
        assert_eq!(to.agent("dave").fetch(0).await["busy"], true);
        let done =
            to.agent("dave").call("get_messages", manual(Some(held["receipt"].clone()))).await;
        assert_eq!(done["messages"], json!([]));
    }
    for replica in [&right, &ahead, &behind] {
        assert_eq!(replica.metric("mcp_messaging_missed_wakeups_total").await, 0);
    }
}

#[tokio::test]
async fn a_key_ends_by_the_clock_of_the_server_that_is_shown_it() {
    if !can_move_clocks() {
        return;
    }
    let (redis, dir) = (RedisServer::start(Persistence::None), TempDir::new().unwrap());
    let right = Replica::with(&redis.url(), &KEYED).await;
    let ahead = off_by(HOUR, &redis.url(), &KEYED, dir.path()).await;
    let behind = off_by(-HOUR, &redis.url(), &KEYED, dir.path()).await;
    let ends_in = |seconds: i64| {
        let key = key_until("acme", "alice", u64::try_from(time(&redis) + seconds).unwrap());
        sealed(&key)
    };
    for (ends_in_seconds, good_at) in
        [(HOUR / 2, [true, false, true]), (-HOUR / 2, [false, false, true]), (2 * HOUR, [true; 3])]
    {
        let key = ends_in(ends_in_seconds);
        for (replica, good) in [&right, &ahead, &behind].into_iter().zip(good_at) {
            let alice = replica.agent("alice").with_key(&key);
            let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
                "params": {"name": "get_messages", "arguments": {"client_id": "alice"}}});
            let status = alice.post().json(&body).send().await.unwrap().status().as_u16();
            assert_eq!(status, if good { 200 } else { 401 }, "ends in {ends_in_seconds} s");
        }
    }
}

#[tokio::test]
async fn when_the_clock_of_redis_steps_order_stays_and_a_life_is_off_by_the_step() {
    if !can_move_clocks() {
        return;
    }
    let redis = RedisServer::start_with_clock();
    let one = Replica::on(&redis.url()).await;
    let (alice, bob) = (one.agent("alice"), one.agent("bob"));
    let before = time(&redis);
    let steps = [0, 60, -60, 30, -3600, 0];
    for (number, off) in steps.into_iter().enumerate() {
        redis.set_clock(off);
        alice.send("bob", &format!("message {number}")).await;
    }
    redis.set_clock(-3600);
    assert!(time(&redis) < before - 3000, "the clock has moved");
    let fetched = bob.fetch(0).await;
    let messages = fetched["messages"].as_array().unwrap();
    let texts: Vec<_> = messages.iter().map(|message| message["text"].as_str().unwrap()).collect();
    assert_eq!(texts, (0..steps.len()).map(|n| format!("message {n}")).collect::<Vec<_>>());
    // The time of acceptance never goes back, and an age is never below nothing.
    let times: Vec<_> =
        messages.iter().map(|message| message["sent_at"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!(messages.iter().all(|message| message["age_seconds"] == 0), "{messages:?}");
    // They were acknowledged, although the clock stands before the time at which they came.
    assert_eq!(bob.texts(0).await, [""; 0]);
    alice.send("bob", "after it all").await;
    assert_eq!(bob.texts(0).await, ["after it all"]);
    // A life that is passed over by a step ends with it, and its sender is told.
    redis.set_clock(0);
    let gone = send_for(&alice, "carol", "jumped over", 50).await;
    redis.set_clock(60);
    assert_eq!(state(&alice, &gone).await, "expired");
    assert_eq!(one.agent("carol").texts(0).await, [""; 0]);
    let told = alice.fetch(0).await;
    assert_eq!(told["notices"][0]["message_id"], gone, "{told}");
    // Who waits while it steps is woken all the same, and a wait is as long as it is by any clock.
    for off in [-60, 60] {
        let waits = tokio::spawn({
            let bob = bob.clone();
            async move { bob.texts(50).await }
        });
        one.waiters(1).await;
        redis.set_clock(off);
        alice.send("bob", "wake up").await;
        assert_eq!(waits.await.unwrap(), ["wake up"]);
        let short = tokio::spawn({
            let bob = bob.clone();
            async move { bob.texts(2).await }
        });
        one.waiters(1).await;
        redis.set_clock(-off);
        let ended = tokio::time::timeout(Duration::from_secs(20), short).await;
        assert_eq!(ended.expect("a wait of two seconds ends").unwrap(), [""; 0]);
    }
    assert_eq!(one.metric("mcp_messaging_missed_wakeups_total").await, 0);
}

#[tokio::test]
async fn an_answer_for_somebody_who_is_gone_comes_back_also_when_the_clock_of_redis_steps_far() {
    if !can_move_clocks() {
        return;
    }
    let redis = RedisServer::start_with_clock();
    let (mut gone, here) = (Replica::on(&redis.url()).await, Replica::on(&redis.url()).await);
    let alice = gone.agent("alice");
    let asks = tokio::spawn(async move {
        let arguments =
            json!({"sender_id": "alice", "recipient_id": "bob", "message": "?", "timeout": 20});
        alice.try_call("send_message_and_wait", arguments).await
    });
    let question = here.agent("bob").fetch(20).await;
    gone.kill();
    assert!(asks.await.unwrap().is_err(), "nobody waits any more");
    let answer = json!({"sender_id": "bob", "recipient_id": "alice", "message": "!",
        "in_reply_to": question["messages"][0]["message_id"]});
    let sent = here.agent("bob").call("send_message", answer).await;
    assert_eq!(sent["results"][0]["status"], "replied", "it is kept for who asked");
    // Beyond the end of the question, its grace, and what Redis keeps of it longer.
    redis.set_clock(200);
    assert_eq!(here.agent("alice").texts(20).await, ["!"]);
}
