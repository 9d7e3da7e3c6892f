//! `redis.durability = "replicated"`: a send is answered when replicas of Redis have it, or says that it is not.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    support::{Persistence, RedisServer, Replica, Reply},
    tasks::Modern,
};

/// A primary and what follows it.
struct Pair {
    primary: RedisServer,
    follower: RedisServer,
}

impl Pair {
    async fn start() -> Self {
        let primary = RedisServer::start(Persistence::None);
        let following = ["--replicaof", "127.0.0.1", primary.port()];
        let follower = RedisServer::start_with(Persistence::None, &following);
        let pair = Self { primary, follower };
        pair.in_step().await;
        pair
    }

    /// Waits until the follower has said that it has all that the primary has.
    async fn in_step(&self) {
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            let Reply::Text(told) = self.primary.command(&["INFO", "replication"]) else {
                panic!("no word of followers")
            };
            let field = |name: &str| told.lines().find_map(|line| line.strip_prefix(name));
            let own = field("master_repl_offset:").unwrap();
            let online = field("slave0:").filter(|line| line.contains("state=online"));
            let theirs = online.and_then(|line| line.split("offset=").nth(1));
            if theirs.is_some_and(|rest| rest.split(',').next() == Some(own)) {
                return;
            }
            assert!(Instant::now() < patience, "the follower does not follow: {told}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn replica(&self, confirm_timeout: &str) -> Replica {
        let variables = [
            ("MCP_MESSAGING__REDIS__DURABILITY", "replicated"),
            ("MCP_MESSAGING__REDIS__CONFIRM_TIMEOUT_SECONDS", confirm_timeout),
        ];
        Replica::with(&self.primary.url(), &variables).await
    }
}

fn letter(to: &str, text: &str) -> Value {
    json!({"sender_id": "alice", "recipient_id": to, "message": text})
}

const UNCONFIRMED: &str = "mcp_messaging_unconfirmed_sends_total";

#[tokio::test]
async fn a_send_that_a_follower_has_is_plain_and_is_there_after_its_promotion() {
    let mut pair = Pair::start().await;
    let replica = pair.replica("5").await;
    let alice = replica.agent("alice");
    for number in 0..20 {
        let sent = alice.call("send_message", letter("bob", &format!("letter {number}"))).await;
        assert_eq!(sent["results"][0]["status"], "queued");
        assert!(sent["results"][0].get("unconfirmed").is_none(), "{sent}");
    }
    assert_eq!(replica.metric(UNCONFIRMED).await, 0);
    pair.primary.kill();
    assert_eq!(pair.follower.command(&["REPLICAOF", "NO", "ONE"]), Reply::Text("OK".into()));
    let promoted = Replica::on(&pair.follower.url()).await;
    let came = promoted.agent("bob").texts(0).await;
    assert_eq!(came.len(), 20, "all that was confirmed: {came:?}");
}

#[tokio::test]
async fn a_send_that_no_follower_takes_says_so_and_is_accepted_all_the_same() {
    let pair = Pair::start().await;
    let replica = pair.replica("0.3").await;
    let alice = replica.agent("alice");
    pair.follower.hang(true);
    let result = alice.try_call("send_message", letter("bob", "hello")).await.unwrap();
    let one = &result["structuredContent"]["results"][0];
    assert_eq!((&one["status"], &one["unconfirmed"]), (&json!("queued"), &json!(true)));
    assert_eq!(result["isError"], false, "it is accepted");
    let told = result["content"][0]["text"].as_str().unwrap();
    assert!(told.contains("unconfirmed") && told.contains("message_status"), "{told}");
    assert_eq!(replica.metric(UNCONFIRMED).await, 1);
    let asked = alice.ask("bob", "are you there?", 1).await;
    assert_eq!((&asked["status"], &asked["unconfirmed"]), (&json!("pending"), &json!(true)));
    assert_eq!(replica.agent("bob").texts(0).await, ["hello", "are you there?"]);
    pair.follower.hang(false);
    pair.in_step().await;
    let sent = alice.call("send_message", letter("bob", "again")).await;
    assert!(sent["results"][0].get("unconfirmed").is_none(), "{sent}");
}

#[tokio::test]
async fn without_any_follower_every_send_is_unconfirmed() {
    let redis = RedisServer::start(Persistence::None);
    let variables = [
        ("MCP_MESSAGING__REDIS__DURABILITY", "replicated"),
        ("MCP_MESSAGING__REDIS__CONFIRM_TIMEOUT_SECONDS", "0.05"),
    ];
    let mut replica = Replica::with(&redis.url(), &variables).await;
    let sent = replica.agent("alice").call("send_message", letter("bob", "hello")).await;
    assert_eq!(sent["results"][0]["unconfirmed"], true);
    assert_eq!(replica.agent("bob").texts(0).await, ["hello"]);
    assert!(replica.ended_log().contains("fewer replicas than redis.confirm_replicas"));
}

#[tokio::test]
async fn a_repetition_confirms_what_was_written_before_it() {
    let pair = Pair::start().await;
    let replica = pair.replica("0.3").await;
    // Another connection, which has written nothing of it: from Redis 7.2 on its WAIT would have nothing to wait for.
    let other = pair.replica("0.3").await;
    let mut letter = letter("bob", "once");
    letter["idempotency_key"] = json!("key");
    pair.follower.hang(true);
    for (status, replica) in [("queued", &replica), ("duplicate", &replica), ("duplicate", &other)]
    {
        let sent = replica.agent("alice").call("send_message", letter.clone()).await;
        let one = &sent["results"][0];
        assert_eq!((&one["status"], &one["unconfirmed"]), (&json!(status), &json!(true)));
    }
    pair.follower.hang(false);
    pair.in_step().await;
    let sent = other.agent("alice").call("send_message", letter).await;
    assert_eq!(sent["results"][0]["status"], "duplicate");
    assert!(sent["results"][0].get("unconfirmed").is_none(), "{sent}");
    assert_eq!(replica.agent("bob").texts(0).await, ["once"]);
}

#[tokio::test]
async fn who_waits_for_followers_holds_up_nobody_else() {
    let pair = Pair::start().await;
    let replica = pair.replica("4").await;
    pair.follower.hang(true);
    let sends: Vec<_> = (0..60)
        .map(|number| {
            let alice = replica.agent("alice");
            let text = format!("letter {number}");
            tokio::spawn(async move { alice.call("send_message", letter("bob", &text)).await })
        })
        .collect();
    // Mail is there before its sender is answered.
    let bob = replica.agent("bob");
    let mut came = bob.texts(30).await.len();
    assert!(sends.iter().all(|send| !send.is_finished()), "a fetch waits for no follower");
    while came < 60 {
        let texts = bob.texts(30).await;
        assert!(!texts.is_empty(), "{came} came");
        came += texts.len();
    }
    // One after the other they would take four minutes.
    let all = futures_util::future::join_all(sends);
    for sent in timeout(Duration::from_secs(40), all).await.expect("they wait together") {
        assert_eq!(sent.unwrap()["results"][0]["unconfirmed"], true);
    }
}

#[tokio::test]
async fn a_user_who_may_not_wait_for_followers_is_named_as_the_reason() {
    let redis = RedisServer::start(Persistence::None);
    let user = ["ACL", "SETUSER", "mailbox", "on", ">secret", "~*", "&*", "+@all", "-wait"];
    assert_eq!(redis.command(&user), Reply::Text("OK".into()));
    let url = redis.url().replace("redis://", "redis://mailbox:secret@");
    let variables = [("REDIS_URL", &*url), ("MCP_MESSAGING__REDIS__DURABILITY", "replicated")];
    let mut replica = Replica::start(&variables);
    let patience = Instant::now() + Duration::from_secs(20);
    while !replica.log().contains("+wait") {
        assert!(Instant::now() < patience, "it does not say why it is not ready");
        let (status, said) = replica.get("/readyz").await;
        assert_eq!(status, 503, "{said}");
        sleep(Duration::from_millis(50)).await;
    }
    replica.kill();
}

#[tokio::test]
async fn the_handle_of_a_task_is_confirmed_as_its_question_is() {
    let pair = Pair::start().await;
    let replica = pair.replica("5").await;
    let waits = || {
        let Reply::Text(told) = pair.primary.command(&["INFO", "commandstats"]) else {
            panic!("no statistics")
        };
        let line = told.lines().find_map(|line| line.strip_prefix("cmdstat_wait:calls="));
        line.map_or(0, |line| line.split(',').next().unwrap().parse::<u64>().unwrap())
    };
    let before = waits();
    let task = Modern::by(replica.agent("alice")).begin("bob", 60).await;
    assert_eq!(task["status"], "working", "{task}");
    assert!(waits() - before >= 2, "one for the question, one for the task");
}
