//! What one caller was given is of no use to another: sessions, receipts, ids of messages. And the key
//! that ends while its holder waits ends the wait.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use mcp_messaging::{
    auth::ApiKey,
    messaging::{self, Acknowledge, AskRequest, CallContext, ReceiveRequest},
};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{guarded, holder, key, sealed, teams};
use crate::{
    house,
    support::{Agent, Listener, Replica, Store},
    tasks::Modern,
};

on_every_store!(
    nobody_cancels_the_call_of_another,
    what_another_was_given_opens_nothing,
    a_task_is_its_clients_only,
    a_key_of_several_clients_is_each_of_them,
    what_waits_ends_with_its_key,
    whose_key_ends_in_a_wait_is_told_so_and_loses_nothing,
    a_batch_ends_with_its_key,
);

/// Waits for mail under a request id.
fn waits(agent: &Agent, id: u64) -> tokio::task::JoinHandle<Result<Value, String>> {
    let agent = agent.clone();
    let arguments = json!({"name": "get_messages", "arguments": {"wait_seconds": 30}});
    tokio::spawn(async move { agent.request(id, "tools/call", arguments).await })
}

async fn cancel(agent: &Agent, session: &str, id: u64) {
    let body =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
    let agent = Agent { session: Some(session.to_owned()), ..agent.clone() };
    assert_eq!(agent.post().json(&body).send().await.unwrap().status(), 202);
}

async fn nobody_cancels_the_call_of_another(store: Store) {
    let site = guarded(store, &[]).await;
    let mut alice = holder(site.here(), "alice");
    alice.initialize().await;
    let session = alice.session.clone().unwrap();
    let waiting = waits(&alice, 7);
    site.here().waiters(1).await;
    // She knows the session and the request, and is somebody else.
    let other = site.there().agent("alice").with_key(&sealed(&key("other", "alice", "read,send")));
    for eve in [&holder(site.there(), "eve"), &other] {
        cancel(eve, &session, 7).await;
    }
    let bob = holder(site.there(), "bob");
    bob.send("alice", "still there?").await;
    let got = timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(got["structuredContent"]["messages"][0]["text"], "still there?");
    // Alice can.
    let waiting = waits(&alice, 8);
    site.here().waiters(1).await;
    cancel(&holder(site.there(), "alice"), &session, 8).await;
    let gone = timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap();
    assert!(gone.is_err(), "no answer to a cancelled call: {gone:?}");
}

async fn what_another_was_given_opens_nothing(store: Store) {
    let site = guarded(store, &[]).await;
    let (alice, bob, eve) =
        (holder(site.here(), "alice"), holder(site.there(), "bob"), holder(site.there(), "eve"));
    let twin = site.there().agent("alice").with_key(&sealed(&key("other", "alice", "read,send")));
    let question = alice.send("bob", "for bob").await;

    // The id of a message.
    for agent in [&eve, &twin] {
        let asked = agent.call("message_status", json!({"message_ids": [question]})).await;
        assert_eq!(asked["messages"][0]["state"], "unknown");
    }
    let known = alice.call("message_status", json!({"message_ids": [question]})).await;
    assert_eq!(known["messages"][0]["state"], "queued");

    // A receipt.
    let held = bob.call("get_messages", json!({"ack": "manual"})).await;
    let receipt = held["receipt"].as_str().unwrap();
    for agent in [&eve, &twin] {
        let refused = agent.try_call("get_messages", json!({"receipt": receipt})).await.unwrap();
        assert_eq!(refused["isError"], true, "{refused}");
    }
    let taken = bob.try_call("get_messages", json!({"receipt": receipt})).await.unwrap();
    assert!(taken["content"][0]["text"].as_str().unwrap().starts_with("Receipt taken: 1 earlier"));

    // The question of another: an answer to it is a letter like any other.
    let asked = tokio::spawn({
        let alice = alice.clone();
        async move { alice.ask("bob", "which?", 3).await }
    });
    let question = bob.fetch(20).await["messages"][0]["message_id"].clone();
    let forged = json!({"recipient_id": "alice", "message": "this", "in_reply_to": question});
    for agent in [&eve, &twin] {
        let sent = agent.call("send_message", forged.clone()).await;
        assert_eq!(sent["results"][0]["status"], "queued", "{sent}");
    }
    let asked = asked.await.unwrap();
    assert_eq!((&asked["status"], &asked["other_messages"]), (&json!("pending"), &json!(1)));
    let mail = alice.fetch(0).await;
    assert_eq!(mail["messages"][0]["from"], "eve", "and it says whose it is");
}

async fn a_task_is_its_clients_only(store: Store) {
    let site = guarded(store, &[]).await;
    let asker = |scopes| {
        let key = sealed(&key("acme", "alice", scopes));
        Modern::by(site.there().agent("alice").with_key(&key))
    };
    let alice = asker("read,send");
    let task = alice.begin("bob", 30).await;
    let id = json!({"taskId": task["taskId"]});
    let bob = holder(site.here(), "bob");
    let question = bob.fetch(20).await["messages"][0]["message_id"].clone();
    // The handle is known to who is somebody else, to her namesake, and to a key of hers that may not read.
    let twin = site.there().agent("alice").with_key(&sealed(&key("other", "alice", "read,send")));
    for other in [holder(site.there(), "eve"), twin] {
        let other = Modern::by(other);
        for method in ["tasks/get", "tasks/cancel"] {
            let (status, refused) = other.ask(method, id.clone()).await;
            assert_eq!((status, &refused["error"]["code"]), (200, &json!(-32602)), "{refused}");
        }
    }
    let (status, refused) = asker("send").ask("tasks/get", id.clone()).await;
    assert_eq!(status, 403, "{refused}");
    let answer = json!({"recipient_id": "alice", "message": "this", "in_reply_to": question});
    bob.call("send_message", answer).await;
    let answered = alice.get(&task).await;
    assert_eq!(answered["status"], "completed", "{answered}");
    assert!(answered.to_string().contains("this"), "{answered}");
}

async fn a_key_of_several_clients_is_each_of_them(store: Store) {
    let site = guarded(store, &[]).await;
    let windows =
        site.here().agent("alice.1").with_key(&sealed(&key("acme", "alice.*", "read,send")));
    let other = Agent { id: "alice.2".to_owned(), ..windows.clone() };
    windows.send("alice.2", "from one window to the other").await;
    assert!(windows.texts(0).await.is_empty());
    assert_eq!(other.texts(0).await, ["from one window to the other"]);
    let unsaid = windows.try_call("get_messages", json!({})).await.unwrap();
    let text = unsaid["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("client_id is missing; use ids that begin with alice."), "{text}");
    let me = windows.request(1, "resources/read", json!({"uri": "inbox://me"})).await.unwrap_err();
    assert!(me.contains("several clients"), "{me}");
    let identity = windows.call("get_my_identity", json!({})).await;
    assert_eq!(identity["verified"], false, "which one it is, it has not said: {identity}");
}

/// A key that ends in so many seconds.
fn ending(replica: &Replica, within: u64) -> Agent {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let key = key("acme", "alice", "read,send");
    let key = ApiKey { expires_at: Some(now.as_secs() + within), ..key };
    replica.agent("alice").with_key(&sealed(&key))
}

async fn what_waits_ends_with_its_key(store: Store) {
    let site = guarded(store, &[]).await;
    let alice = ending(site.here(), 3);
    let waiting = waits(&alice, 1);
    let mut listener = Listener::of(&alice, &["inbox://me", "inbox://alice"]).await;
    let mut stays = Listener::of(&holder(site.here(), "alice"), &["inbox://alice"]).await;
    for (listener, uris) in [(&mut listener, 2), (&mut stays, 1)] {
        let honoured = listener.next().await.unwrap();
        let uris_honoured = &honoured["params"]["notifications"]["resourceSubscriptions"];
        assert_eq!(uris_honoured.as_array().unwrap().len(), uris, "{honoured}");
    }
    let ended = timeout(Duration::from_secs(15), waiting).await.expect("it ends with its key");
    let text = ended.unwrap().unwrap()["content"][0]["text"].as_str().unwrap().to_owned();
    tells_of_the_credential(&text);
    let last = listener.next().await.unwrap();
    assert_eq!(last["result"]["resultType"], "complete");
    assert_eq!(listener.next().await, None);
    assert_eq!(alice.post().json(&json!({})).send().await.unwrap().status(), 401);
    // Who watches the same inbox with a key that is good goes on.
    holder(site.there(), "bob").send("alice", "news").await;
    assert_eq!(stays.updated().await, "inbox://alice");
}

/// What a wait says that ended with its credential.
#[track_caller]
pub(super) fn tells_of_the_credential(text: &str) {
    assert!(text.contains("our credential no longer holds"), "{text}");
    assert!(text.contains("othing is lost") && !text.contains("restart"), "{text}");
}

/// Waits for mail, and for the answer to a question; what each says in the end, in words.
async fn waits_in_both_ways(agent: &Agent, question: &str) -> [String; 2] {
    let ask = json!({"recipient_id": "bob", "message": question, "timeout": 40});
    let ask = agent.try_call("send_message_and_wait", ask);
    let fetch = agent.try_call("get_messages", json!({"wait_seconds": 40}));
    let both = timeout(Duration::from_secs(30), async { tokio::join!(fetch, ask) });
    let (fetched, asked) = both.await.expect("they end with their key");
    [fetched.unwrap(), asked.unwrap()].map(|said| {
        assert_eq!(said["isError"], false, "{said}");
        said["content"][0]["text"].as_str().unwrap().to_owned()
    })
}

async fn whose_key_ends_in_a_wait_is_told_so_and_loses_nothing(store: Store) {
    let site = guarded(store, &[]).await;
    let (good, bob) = (holder(site.here(), "alice"), holder(site.there(), "bob"));
    let expires = ending(site.here(), 3);
    for text in waits_in_both_ways(&expires, "until it expires").await {
        tells_of_the_credential(&text);
    }
    if store == Store::Redis {
        // What is taken back while its holder waits.
        let revoked = holder(site.here(), "alice");
        let root = sealed(&key("acme", "root", "read,send,admin"));
        let revoke = async {
            site.here().waiters(2).await;
            let body = json!({"client": "alice"});
            teams::post(site.there(), &root, "/api/admin/keys/revoke", body).await.done();
        };
        let (told, ()) = tokio::join!(waits_in_both_ways(&revoked, "until it is revoked"), revoke);
        for text in told {
            tells_of_the_credential(&text);
        }
    }
    // The questions were asked, their answers come, and so does what was sent meanwhile.
    let good = if store == Store::Redis {
        let next = ApiKey { generation: 2, ..key("acme", "alice", "read,send") };
        good.with_key(&sealed(&next))
    } else {
        good
    };
    let questions = bob.fetch(0).await["messages"].as_array().unwrap().clone();
    assert_eq!(questions.len(), if store == Store::Redis { 2 } else { 1 });
    for question in &questions {
        let answer = json!({"recipient_id": "alice", "message": "here", "in_reply_to": question["message_id"]});
        assert_eq!(bob.call("send_message", answer).await["results"][0]["status"], "queued");
    }
    bob.send("alice", "news").await;
    let mut expected = vec!["here"; questions.len()];
    expected.push("news");
    assert_eq!(good.texts(0).await, expected);
}

async fn a_batch_ends_with_its_key(store: Store) {
    let site = guarded(store, &[]).await;
    let alice = ending(site.here(), 3);
    let call = |id: u64, tool: &str, arguments: Value| {
        let params = json!({"name": tool, "arguments": arguments});
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
    };
    let batch = json!([
        call(1, "get_messages", json!({"wait_seconds": 40})),
        call(2, "get_messages", json!({"wait_seconds": 40})),
        call(3, "send_message", json!({"recipient_id": "bob", "message": "too late"})),
    ]);
    let told = timeout(Duration::from_secs(20), alice.post().json(&batch).send()).await;
    let told: Value = told.expect("it ends with its key").unwrap().json().await.unwrap();
    tells_of_the_credential(told[0]["result"]["content"][0]["text"].as_str().unwrap());
    for late in [1, 2] {
        assert_eq!(told[late]["id"], late + 1);
        let why = told[late]["error"]["message"].as_str().unwrap();
        assert!(why.contains("credential no longer holds"), "{told}");
    }
    assert!(holder(site.there(), "bob").texts(0).await.is_empty());
}

/// One that can be shown out.
fn guest() -> CallContext {
    CallContext { unwelcome: Some(CancellationToken::new()), ..CallContext::default() }
}

/// Ends a call soon after it began: its caller is not welcome any more, or else the server goes away.
async fn ends(context: &CallContext, unwelcome: bool) {
    tokio::time::sleep(Duration::from_millis(100)).await;
    if unwelcome {
        context.unwelcome.as_ref().unwrap().cancel();
    }
    context.stop.cancel();
}

/// Asks a store that accepts a question and then answers nothing more.
async fn ask_without_a_store(unwelcome: bool) -> messaging::Reply {
    let (mailbox, context) = (house::mailbox(Arc::new(house::Store::default())), guest());
    let request = AskRequest {
        wait: Some(Duration::from_secs(30)),
        idempotency_key: Some("once".to_owned()),
        ..house::question()
    };
    let asked = timeout(Duration::from_secs(10), mailbox.ask(request, &context));
    tokio::join!(asked, ends(&context, unwelcome)).0.expect("it ends early").unwrap().reply
}

#[tokio::test(start_paused = true)]
async fn without_a_store_too_a_question_says_whether_its_key_or_its_server_ended() {
    assert!(matches!(ask_without_a_store(true).await, messaging::Reply::Unwelcome));
    assert!(matches!(ask_without_a_store(false).await, messaging::Reply::AskAgain));
}

#[tokio::test(start_paused = true)]
async fn who_is_shown_out_while_the_store_is_away_is_handed_nothing_when_it_is_back() {
    let store = Arc::new(house::Store::default());
    store.down.store(true, Ordering::SeqCst);
    store.put("not for everybody");
    let (mailbox, context) = (house::mailbox(Arc::clone(&store) as _), guest());
    let request = ReceiveRequest {
        client: "bob".parse().unwrap(),
        wait: Duration::from_secs(30),
        max_messages: None,
        acknowledge: Acknowledge::Auto,
        receipt: None,
    };
    let comes_back = async {
        ends(&context, true).await;
        store.down.store(false, Ordering::SeqCst);
    };
    let (received, ()) = tokio::join!(mailbox.receive(&request, &context), comes_back);
    assert!(received.is_err(), "{received:?}");
    assert_eq!(store.count(house::Did::Fetched), 0);
}
