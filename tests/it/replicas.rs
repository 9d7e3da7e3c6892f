//! Several servers on one Redis: any replica, any time.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::sleep;

use crate::support::{Agent, Persistence, RedisServer, Replica, texts};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn two() -> (RedisServer, Replica, Replica) {
    let redis = RedisServer::start(Persistence::None);
    let (one, two) = (Replica::on(&redis.url()).await, Replica::on(&redis.url()).await);
    (redis, one, two)
}

/// Waits until somebody waits in this replica.
async fn waiting(replica: &Replica, count: usize) {
    let patience = Instant::now() + secs(10);
    while replica.metric("mcp_messaging_waiters").await < count {
        assert!(Instant::now() < patience, "nobody waits");
        sleep(Duration::from_millis(10)).await;
    }
    sleep(Duration::from_millis(300)).await; // from the count to the store
}

#[tokio::test]
async fn a_question_is_answered_across_replicas() {
    let (_redis, one, two) = two().await;
    let (alice, bob) = (one.agent("alice"), two.agent("bob"));
    let question = tokio::spawn({
        let alice = alice.clone();
        async move { alice.ask("bob", "which port?", 20).await }
    });
    let got = bob.fetch(10).await;
    assert_eq!(texts(&got), ["which port?"]);
    let id = got["messages"][0]["message_id"].clone();
    let answer =
        json!({"sender_id": "bob", "recipient_id": "alice", "message": "8123", "in_reply_to": id});
    let sent = bob.call("send_message", answer).await;
    assert_eq!(sent["results"][0]["status"], "replied");
    let reply = question.await.unwrap();
    assert_eq!(reply["status"], "replied");
    assert_eq!(reply["reply"]["text"], "8123");
    assert_eq!(reply["reply"]["in_reply_to"], id);
    assert_eq!(reply["other_messages"], 0);
}

#[tokio::test]
async fn two_agents_that_wait_for_each_other_answer_each_other() {
    let (_redis, one, two) = two().await;
    let (alice, bob) = (one.agent("alice"), two.agent("bob"));
    let question = tokio::spawn({
        let alice = alice.clone();
        async move { alice.ask("bob", "ping", 20).await }
    });
    assert_eq!(bob.texts(10).await, ["ping"]);
    // Bob answers with a question of his own and names nothing.
    let back = tokio::spawn(async move { bob.ask("alice", "pong, and you?", 20).await });
    let reply = question.await.unwrap();
    assert_eq!(reply["reply"]["text"], "pong, and you?");
    alice.send("bob", "fine").await;
    assert_eq!(back.await.unwrap()["reply"]["text"], "fine");
}

#[tokio::test]
async fn a_third_partys_message_does_not_end_a_wait() {
    let (_redis, one, two) = two().await;
    let (alice, eve) = (one.agent("alice"), two.agent("eve"));
    let question = tokio::spawn({
        let alice = alice.clone();
        async move { alice.ask("bob", "anybody?", 1).await }
    });
    waiting(&one, 1).await;
    eve.send("alice", "buy gold").await;
    let asked = question.await.unwrap();
    assert_eq!(asked["status"], "pending");
    assert_eq!(asked["other_messages"], 1);
    assert_eq!(alice.texts(0).await, ["buy gold"]);
}

#[tokio::test]
async fn a_waiter_is_woken_by_a_send_on_another_replica() {
    let (_redis, one, two) = two().await;
    let bob = two.agent("bob");
    let wait = tokio::spawn(async move { bob.texts(20).await });
    waiting(&two, 1).await;
    // Counted in the replica it may still be on its way to the store, which tells senders.
    let patience = Instant::now() + secs(10);
    while !one.get("/api/sessions").await.1.contains("\"active_waiters\":1") {
        assert!(Instant::now() < patience, "the store knows of no waiter");
        sleep(Duration::from_millis(10)).await;
    }
    let alice = one.agent("alice");
    let sent = alice
        .call(
            "send_message",
            json!({"sender_id": "alice", "recipient_id": "bob", "message": "up!"}),
        )
        .await;
    assert_eq!(sent["results"][0]["recipient"]["presence"], "waiting");
    let woken = Instant::now();
    assert_eq!(wait.await.unwrap(), ["up!"]);
    assert!(woken.elapsed() < secs(5), "only the safety poll woke it");
    assert_eq!(two.metric("mcp_messaging_missed_wakeups_total").await, 0);
}

#[tokio::test]
async fn a_replica_killed_with_a_lease_loses_nothing_and_the_copy_is_marked() {
    let redis = RedisServer::start(Persistence::None);
    let short = [("MCP_MESSAGING__MESSAGING__MANUAL_LEASE_SECONDS", "1")];
    let mut one = Replica::with(&redis.url(), &short).await;
    let two = Replica::on(&redis.url()).await;
    two.agent("alice").send("bob", "first").await;
    two.agent("alice").send("bob", "second").await;
    let arguments = json!({"client_id": "bob", "ack": "manual"});
    let held = one.agent("bob").call("get_messages", arguments).await;
    assert_eq!(texts(&held), ["first", "second"]);
    one.kill();
    let busy = two.agent("bob").fetch(0).await;
    assert_eq!((texts(&busy).len(), &busy["busy"]), (0, &json!(true)), "busy is not empty");
    let again = two.agent("bob").fetch(10).await;
    assert_eq!(texts(&again), ["first", "second"]);
    assert!(again["messages"].as_array().unwrap().iter().all(|m| m["redelivered"] == true));
    assert_eq!(again["messages"][0]["attempt"], 2);
}

#[tokio::test]
async fn a_replica_killed_with_a_waiting_reader_loses_nothing() {
    let (_redis, mut one, two) = two().await;
    let bob = one.agent("bob");
    let wait = tokio::spawn(async move {
        bob.try_call("get_messages", json!({"client_id": "bob", "wait_seconds": 30})).await
    });
    waiting(&one, 1).await;
    one.kill();
    assert!(wait.await.unwrap().is_err());
    two.agent("alice").send("bob", "still here").await;
    let got = two.agent("bob").fetch(5).await;
    assert_eq!(texts(&got), ["still here"]);
    assert_eq!(got["messages"][0]["redelivered"], false);
}

#[tokio::test]
async fn the_answer_to_a_wait_that_died_with_its_replica_comes_to_the_inbox() {
    let (_redis, mut one, two) = two().await;
    let alice = one.agent("alice");
    let wait = tokio::spawn(async move {
        let question =
            json!({"sender_id": "alice", "recipient_id": "bob", "message": "?", "timeout": 1});
        alice.try_call("send_message_and_wait", question).await
    });
    let bob = two.agent("bob");
    assert_eq!(bob.texts(10).await, ["?"]);
    one.kill();
    assert!(wait.await.unwrap().is_err());
    bob.send("alice", "the answer").await;
    // Parked for a dead wait: it returns ten seconds after the deadline at the latest.
    let got = two.agent("alice").fetch(20).await;
    assert_eq!(texts(&got), ["the answer"]);
}

#[tokio::test]
async fn a_repeated_question_takes_up_the_wait_on_another_replica() {
    let (_redis, mut one, two) = two().await;
    let alice = one.agent("alice");
    let question = json!({"sender_id": "alice", "recipient_id": "bob", "message": "?", "timeout": 20,
        "idempotency_key": "q1"});
    let wait = tokio::spawn({
        let question = question.clone();
        async move { alice.try_call("send_message_and_wait", question).await }
    });
    let bob = two.agent("bob");
    assert_eq!(bob.texts(10).await, ["?"]);
    one.kill();
    assert!(wait.await.unwrap().is_err());
    bob.send("alice", "the answer").await;
    let asked = two.agent("alice").call("send_message_and_wait", question).await;
    assert_eq!(asked["reply"]["text"], "the answer");
    assert_eq!(bob.texts(0).await, [""; 0], "the question was not sent twice");
}

/// The client gives up a call of its session; the notification goes to `replica`.
async fn cancel(agent: &Agent, replica: &Replica, id: u64) {
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": {"requestId": id, "reason": "timeout"}});
    let answer = agent
        .http
        .post(replica.agent("any").url)
        .header("accept", "application/json, text/event-stream")
        .header("mcp-session-id", agent.session.clone().unwrap())
        .json(&cancel)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status().as_u16(), 202);
}

#[tokio::test]
async fn a_cancellation_that_overtakes_its_call_ends_it() {
    let (_redis, one, two) = two().await;
    let mut bob = one.agent("bob");
    bob.initialize().await;
    let question = json!({"sender_id": "bob", "recipient_id": "alice", "message": "?"});
    for (id, name, arguments) in [
        (7, "get_messages", json!({"client_id": "bob", "wait_seconds": 30})),
        (8, "send_message_and_wait", question),
    ] {
        cancel(&bob, &two, id).await;
        let call = bob.request(id, "tools/call", json!({"name": name, "arguments": arguments}));
        let ended = tokio::time::timeout(secs(5), call).await.expect("the stream ends");
        assert!(ended.unwrap_err().starts_with("no answer"), "{name}");
    }
}

#[tokio::test]
async fn a_cancellation_reaches_the_call_on_another_replica() {
    let (_redis, one, two) = two().await;
    let mut bob = one.agent("bob");
    bob.initialize().await;
    let wait = tokio::spawn({
        let bob = bob.clone();
        async move {
            let call = json!({"name": "get_messages", "arguments": {"client_id": "bob", "wait_seconds": 30}});
            bob.request(7, "tools/call", call).await
        }
    });
    waiting(&one, 1).await;
    cancel(&bob, &two, 7).await;
    let ended = tokio::time::timeout(secs(5), wait).await.expect("the stream ends").unwrap();
    assert!(ended.unwrap_err().starts_with("no answer"));
    two.agent("alice").send("bob", "after").await;
    let got = two.agent("bob").fetch(0).await;
    assert_eq!(texts(&got), ["after"]);
    assert_eq!(got["messages"][0]["redelivered"], false);
}

#[tokio::test]
async fn a_later_wait_of_the_same_session_ends_the_older_one() {
    let (_redis, one, two) = two().await;
    let mut bob = one.agent("bob");
    bob.initialize().await;
    let older = tokio::spawn({
        let bob = bob.clone();
        async move { bob.fetch(30).await }
    });
    waiting(&one, 1).await;
    let newer = Agent { url: two.agent("bob").url, ..bob.clone() };
    let newer = tokio::spawn(async move { newer.texts(30).await });
    let older = tokio::time::timeout(secs(5), older).await.expect("the older one ends").unwrap();
    assert_eq!(texts(&older), [""; 0]);
    one.agent("alice").send("bob", "for the newer one").await;
    assert_eq!(newer.await.unwrap(), ["for the newer one"]);
}

#[tokio::test]
async fn a_sender_is_told_once_of_what_expired_unread() {
    let (_redis, one, two) = two().await;
    let alice = one.agent("alice");
    let brief =
        json!({"sender_id": "alice", "recipient_id": "nobody", "message": "!", "ttl_seconds": 1});
    let sent = alice.call("send_message", brief).await;
    let id = sent["results"][0]["message_id"].clone();
    sleep(Duration::from_millis(1100)).await;
    let told = two.agent("alice").fetch(0).await;
    assert_eq!(told["notices"][0]["message_id"], id);
    assert_eq!(told["notices"][0]["recipient_id"], "nobody");
    assert_eq!(told["notices"][0]["state"], "expired");
    sleep(Duration::from_millis(100)).await; // the answer is settled after it was written
    assert_eq!(one.agent("alice").fetch(0).await["notices"], json!([]));
    let status = alice.call("message_status", json!({"sender_id": "alice"})).await;
    assert_eq!(status["messages"][0]["state"], "expired");
}

#[tokio::test]
async fn a_waiting_sender_is_told_as_soon_as_its_message_expires() {
    let (_redis, one, _two) = two().await;
    let alice = one.agent("alice");
    let brief =
        json!({"sender_id": "alice", "recipient_id": "nobody", "message": "!", "ttl_seconds": 1});
    alice.call("send_message", brief).await;
    let told = alice.fetch(20).await;
    assert_eq!(told["notices"][0]["recipient_id"], "nobody");
}

#[tokio::test]
async fn a_stopping_replica_tells_those_who_wait_to_ask_again() {
    let (_redis, mut one, two) = two().await;
    let (bob, alice) = (one.agent("bob"), one.agent("alice"));
    let reader = tokio::spawn({
        let bob = bob.clone();
        async move {
            bob.try_call("get_messages", json!({"client_id": "bob", "wait_seconds": 60})).await
        }
    });
    let question = tokio::spawn(async move { alice.ask("carol", "there?", 60).await });
    waiting(&one, 2).await;
    let asked_to_end = Instant::now();
    one.terminate();
    let told = reader.await.unwrap().unwrap();
    assert_eq!(told["isError"], false);
    assert_eq!(texts(&told["structuredContent"]), [""; 0]);
    let pending = question.await.unwrap();
    assert_eq!(pending["status"], "pending");
    let status = one.ended(secs(10)).await;
    assert!(status.success());
    assert!(asked_to_end.elapsed() < secs(3), "it took {:?}", asked_to_end.elapsed());
    // Nothing was lost: the question is there, and its answer finds the asker's inbox.
    let carol = two.agent("carol");
    assert_eq!(carol.texts(0).await, ["there?"]);
    carol.send("alice", "yes").await;
    assert_eq!(two.agent("alice").texts(5).await, ["yes"]);
}

#[tokio::test]
async fn a_replica_that_drains_is_not_ready_and_serves_on_until_its_time_is_over() {
    let redis = RedisServer::start(Persistence::None);
    let mut one = Replica::with(&redis.url(), &[("MCP_MESSAGING__HTTP__DRAIN_SECONDS", "2")]).await;
    let reader = tokio::spawn({
        let bob = one.agent("bob");
        async move { bob.fetch(60).await }
    });
    waiting(&one, 1).await;
    one.terminate();
    one.says("not ready any more").await;
    let (status, said) = one.get("/readyz").await;
    assert_eq!(status, 503);
    assert!(said.starts_with("stopping"), "{said}");
    // On a new connection, as from a balancer that has not noticed; and who waits goes on waiting.
    let carol = one.agent("carol");
    carol.send("dave", "still here").await;
    assert_eq!(one.agent("dave").texts(0).await, ["still here"]);
    carol.send("bob", "woken").await;
    assert_eq!(texts(&reader.await.unwrap()), ["woken"]);
    let told = tokio::spawn({
        let erin = one.agent("erin");
        async move { erin.fetch(60).await }
    });
    assert!(one.ended(secs(10)).await.success());
    assert_eq!(texts(&told.await.unwrap()), [""; 0]);
}

#[tokio::test]
async fn a_second_signal_ends_a_drain() {
    let mut one = Replica::start(&[("MCP_MESSAGING__HTTP__DRAIN_SECONDS", "600")]);
    one.terminate();
    one.says("not ready any more").await;
    one.terminate();
    assert!(one.ended(secs(10)).await.success());
}

#[tokio::test]
async fn a_rolling_restart_under_load_loses_nothing_and_repeats_nothing() {
    let (redis, mut one, two) = two().await;
    let (before, after) = (one.agent("alice"), two.agent("alice"));
    let sender = tokio::spawn(async move {
        let (mut sent, mut agent) = (0_usize, &before);
        let until = Instant::now() + secs(3);
        while Instant::now() < until {
            let message = json!({"sender_id": "alice", "recipient_id": "bob", "message": sent.to_string(),
                "idempotency_key": sent.to_string()});
            match agent.try_call("send_message", message).await {
                Ok(result) => {
                    assert_eq!(result["isError"], false, "{result}");
                    sent += 1;
                }
                Err(_) => agent = &after, // its connection ended: the same message, elsewhere
            }
        }
        sent
    });
    let reader = tokio::spawn({
        let bob = two.agent("bob");
        async move {
            let mut got = Vec::new();
            loop {
                let batch = bob.texts(2).await;
                if batch.is_empty() {
                    return got;
                }
                got.extend(batch);
            }
        }
    });
    sleep(secs(1)).await;
    one.terminate();
    assert!(one.ended(secs(10)).await.success());
    let _third = Replica::on(&redis.url()).await;
    let sent = sender.await.unwrap();
    let got = reader.await.unwrap();
    let wanted: Vec<String> = (0..sent).map(|number| number.to_string()).collect();
    assert!(sent > 10, "{sent} messages");
    assert_eq!(got, wanted);
}

#[tokio::test]
async fn two_readers_of_one_inbox_each_get_what_the_other_did_not() {
    let (_redis, one, two) = two().await;
    let read = |agent: Agent| {
        tokio::spawn(async move {
            let mut got = Vec::new();
            loop {
                let batch = agent.texts(2).await;
                if batch.is_empty() {
                    return got;
                }
                got.extend(batch);
            }
        })
    };
    let (first, second) = (read(one.agent("bob")), read(two.agent("bob")));
    let alice = one.agent("alice");
    for number in 0..60 {
        alice.send("bob", &format!("{number:02}")).await;
    }
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert!(first.is_sorted() && second.is_sorted(), "each gets its share in order");
    let mut all = [first, second].concat();
    all.sort();
    assert_eq!(all, (0..60).map(|number| format!("{number:02}")).collect::<Vec<_>>());
}
