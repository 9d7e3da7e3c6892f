//! Listening to an inbox on one replica of several: whoever writes where, and whatever Redis does, what
//! arrives is told.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{
    Agent, Listener, Persistence, Proxy, RedisServer, Replica, Reply, Weather, ms, secs,
};

const BOB: &str = "inbox://bob";

async fn read(agent: &Agent, uri: &str) -> Result<String, String> {
    let result = agent.request(1, "resources/read", json!({ "uri": uri })).await?;
    Ok(result["contents"][0]["text"].as_str().unwrap().to_owned())
}

async fn missed(replica: &Replica) -> usize {
    replica.metric("mcp_messaging_missed_wakeups_total").await
}

async fn listeners(replica: &Replica, count: usize) {
    for _ in 0..1000 {
        if replica.metric("mcp_messaging_listeners").await == count {
            return;
        }
        sleep(ms(10)).await;
    }
    panic!("not {count} listeners");
}

#[tokio::test]
async fn mail_sent_at_one_replica_is_told_and_shown_at_the_other_and_stays() {
    let redis = RedisServer::start(Persistence::None);
    let (one, two) = (Replica::on(&redis.url()).await, Replica::on(&redis.url()).await);
    let mut listener = Listener::to(&one, &[BOB, "inbox://carol"]).await;
    let id = two.agent("alice").send("bob", "from afar").await;
    assert_eq!(listener.updated().await, BOB);
    for replica in [&one, &two] {
        let text = read(&replica.agent("bob"), BOB).await.unwrap();
        assert!(text.contains("| from afar\n") && text.contains(&id), "{text}");
    }
    listener.silent(ms(500)).await;
    two.agent("alice").send("carol", "for carol").await;
    assert_eq!(listener.updated().await, "inbox://carol");
    let got = two.agent("bob").fetch(0).await;
    assert_eq!((&got["messages"][0]["text"], &got["remaining"]), (&json!("from afar"), &json!(0)));
    let first = (&got["messages"][0]["redelivered"], &got["messages"][0]["attempt"]);
    assert_eq!(first, (&json!(false), &json!(1)));
    listener.silent(ms(500)).await;
}

#[tokio::test]
async fn mail_that_a_dead_replica_had_in_hand_is_told_again() {
    let redis = RedisServer::start(Persistence::None);
    let lease = [("MCP_MESSAGING__MESSAGING__MANUAL_LEASE_SECONDS", "2")];
    let one = Replica::on(&redis.url()).await;
    let mut two = Replica::with(&redis.url(), &lease).await;
    let mut listener = Listener::to(&one, &[BOB]).await;
    one.agent("alice").send("bob", "in hand").await;
    assert_eq!(listener.updated().await, BOB);
    let arguments = json!({"client_id": "bob", "ack": "manual"});
    assert_eq!(two.agent("bob").call("get_messages", arguments).await["messages"][0]["attempt"], 1);
    two.kill();
    assert_eq!(listener.updated().await, BOB);
    let text = read(&one.agent("bob"), BOB).await.unwrap();
    assert!(text.contains("; redelivered (attempt 2)"), "{text}");
}

#[tokio::test]
async fn the_reply_to_a_question_of_a_dead_replica_is_told() {
    let redis = RedisServer::start(Persistence::None);
    let one = Replica::on(&redis.url()).await;
    let mut two = Replica::on(&redis.url()).await;
    let question = tokio::spawn({
        let bob = two.agent("bob");
        let arguments =
            json!({"sender_id": "bob", "recipient_id": "alice", "message": "?", "timeout": 5});
        async move { bob.try_call("send_message_and_wait", arguments).await }
    });
    assert_eq!(one.agent("alice").texts(10).await, ["?"]);
    two.kill();
    assert!(question.await.unwrap().is_err(), "nobody answers who waited there");
    let mut listener = Listener::to(&one, &[BOB]).await;
    let reply = json!({"sender_id": "alice", "recipient_id": "bob", "message": "!"});
    let sent = one.agent("alice").call("send_message", reply).await;
    assert_eq!(sent["results"][0]["status"], "replied", "{sent}");
    assert_eq!(read(&one.agent("bob"), BOB).await.unwrap(), "No messages wait for bob.");
    // Ten seconds after its deadline the wait counts as dead, and nobody publishes that.
    let update = listener.next_within(secs(40)).await.unwrap();
    assert_eq!(update["params"]["uri"], BOB);
    assert!(read(&one.agent("bob"), BOB).await.unwrap().contains("| !\n"));
}

#[tokio::test]
async fn a_listener_survives_a_restart_of_redis() {
    let mut redis = RedisServer::start(Persistence::AppendOnly);
    let (one, two) = (Replica::on(&redis.url()).await, Replica::on(&redis.url()).await);
    let mut listener = Listener::to(&one, &[BOB]).await;
    for round in 0..2 {
        redis.kill();
        sleep(ms(500)).await;
        let down = read(&one.agent("bob"), BOB).await.unwrap_err();
        assert!(down.contains("does not answer; try again"), "{down}");
        redis.restart();
        two.ready(secs(10)).await;
        two.agent("alice").send("bob", &format!("after crash {round}")).await;
        assert_eq!(listener.updated().await, BOB);
    }
    assert_eq!((missed(&one).await, missed(&two).await), (0, 0));
}

/// What was sent while the wire of the listener's replica was bad is told after it has mended.
async fn told_after(weather: Weather) {
    let redis = RedisServer::start(Persistence::None);
    let proxy = Proxy::before(&redis.url()).await;
    let (bad, good) = (Replica::on(&proxy.url()).await, Replica::on(&redis.url()).await);
    let mut listener = Listener::to(&bad, &[BOB]).await;
    proxy.turn(weather);
    good.agent("alice").send("bob", "while deaf").await;
    sleep(secs(4)).await;
    proxy.turn(Weather::Fair);
    assert_eq!(listener.updated().await, BOB);
    good.agent("alice").send("bob", "in fair weather").await;
    assert_eq!(listener.updated().await, BOB);
    assert_eq!(missed(&bad).await, 0);
}

#[tokio::test]
async fn what_was_sent_while_the_subscription_was_deaf_is_told() {
    told_after(Weather::Deaf).await;
}

#[tokio::test]
async fn what_was_sent_while_the_connection_was_half_open_is_told() {
    told_after(Weather::Hole).await;
}

#[tokio::test]
async fn a_listener_is_sent_its_result_when_the_replica_goes_away() {
    let redis = RedisServer::start(Persistence::None);
    let mut one = Replica::on(&redis.url()).await;
    let mut listener = Listener::to(&one, &[BOB]).await;
    one.terminate();
    let last = listener.next().await.expect("a result");
    assert_eq!(
        (&last["id"], &last["result"]["resultType"]),
        (&json!("listen:0"), &json!("complete"))
    );
    let meta = &last["result"]["_meta"];
    assert_eq!(meta["io.modelcontextprotocol/subscriptionId"], "listen:0");
    assert_eq!(listener.next().await, None);
    assert!(one.ended(secs(10)).await.success());
}

#[tokio::test]
async fn a_hundred_listeners_of_one_inbox_cost_one_subscription_and_one_look_a_worker() {
    const LOOKS: &str =
        "mcp_messaging_redis_command_duration_seconds_count{function=\"mb1_browse\"}";
    let redis = RedisServer::start(Persistence::None);
    let one = Replica::with(&redis.url(), &[("MCP_MESSAGING__HTTP__WORKERS", "2")]).await;
    let two = Replica::on(&redis.url()).await;
    let mut all = Vec::new();
    for _ in 0..100 {
        all.push(Listener::to(&one, &[BOB]).await);
    }
    listeners(&one, 100).await;
    let Reply::Array(channels) = redis.command(&["PUBSUB", "CHANNELS", "mb1:*"]) else { panic!() };
    let [Reply::Text(channel)] = &channels[..] else { panic!("one channel: {channels:?}") };
    let heard = redis.command(&["PUBSUB", "NUMSUB", channel]);
    assert_eq!(heard, Reply::Array(vec![Reply::Text(channel.clone()), Reply::Integer(1)]));
    let before = one.metric(LOOKS).await;
    two.agent("alice").send("bob", "for all of you").await;
    for listener in &mut all {
        assert_eq!(listener.updated().await, BOB);
    }
    let looks = one.metric(LOOKS).await - before;
    assert!((1..20).contains(&looks), "{looks} looks for 100 listeners");
    drop(all);
    listeners(&one, 0).await;
}

#[tokio::test]
async fn mail_beside_a_listener_is_no_missed_wake_up() {
    let redis = RedisServer::start(Persistence::None);
    let one = Replica::on(&redis.url()).await;
    let mut listener = Listener::to(&one, &[BOB]).await;
    one.agent("alice").send("bob", "read me some day").await;
    assert_eq!(listener.updated().await, BOB);
    listener.silent(secs(23)).await; // the safety poll comes every 20 seconds
    assert_eq!(missed(&one).await, 0);
}

#[tokio::test]
async fn what_cannot_be_listened_to_is_left_out_and_its_reading_says_why() {
    let replica = Replica::start(&[]);
    let wanted = [BOB, "inbox://me", "inbox://a b", "clients://", "guide://usage", "x://y"];
    let mut listener = Listener::ask(&replica, &wanted).await;
    let first = listener.next().await.unwrap();
    assert_eq!(first["params"]["notifications"]["resourceSubscriptions"], json!([BOB]));
    let agent = replica.agent("bob");
    let mine = read(&agent, "inbox://me").await.unwrap_err();
    assert!(mine.contains("-32002") && mine.contains("a credential proves"), "{mine}");
    for uri in ["inbox://a b", "x://y"] {
        let unknown = read(&agent, uri).await.unwrap_err();
        assert!(unknown.contains("-32002") && unknown.contains("not found"), "{unknown}");
    }
}

#[tokio::test]
async fn the_lists_show_what_can_be_read_and_started() {
    let replica = Replica::start(&[]);
    let agent = replica.agent("bob");
    let list = async |method: &str, key: &str, name: &str| {
        let result = agent.request(1, method, json!({})).await.unwrap();
        let entries = result[key].as_array().unwrap().iter();
        entries.map(|entry| entry[name].clone()).collect::<Vec<Value>>()
    };
    assert_eq!(list("resources/list", "resources", "uri").await, ["guide://usage", "clients://"]);
    let templates = list("resources/templates/list", "resourceTemplates", "uriTemplate").await;
    assert_eq!(templates, ["inbox://{client_id}"]);
    let prompts = list("prompts/list", "prompts", "name").await;
    assert_eq!(prompts, ["check_inbox", "ask_agent", "introduce_yourself"]);
    let guide = read(&agent, "guide://usage").await.unwrap();
    assert!(guide.starts_with("# How to use this mailbox"));
    let arguments = json!({"name": "check_inbox", "arguments": {"client_id": "bob"}});
    let prompt = agent.request(1, "prompts/get", arguments).await.unwrap();
    assert!(prompt["messages"][0]["content"]["text"].as_str().unwrap().contains("client_id=bob"));
    let nobody = json!({"name": "check_inbox", "arguments": {}});
    let refused = agent.request(1, "prompts/get", nobody).await.unwrap_err();
    assert!(refused.contains("-32602") && refused.contains("client_id is missing"), "{refused}");
}

/// Told within the patience of [`Listener`], on a server with its mail in memory.
#[tokio::test]
async fn a_listener_is_told_without_redis_too() {
    let replica = Replica::start(&[]);
    let mut listener = Listener::to(&replica, &[BOB]).await;
    replica.agent("alice").send("bob", "here").await;
    assert_eq!(listener.updated().await, BOB);
    listener.silent(Duration::from_millis(500)).await;
}
