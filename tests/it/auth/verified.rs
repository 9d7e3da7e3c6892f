//! Whether a sender was proved is kept with its message, and nobody can claim it.

use serde_json::{Value, json};

use super::{MASTERS, holder, key, sealed};
use crate::support::{Persistence, RedisServer, Replica, Store};

on_every_store!(a_sender_that_was_proved_is_shown_as_such_by_every_replica);

async fn a_sender_that_was_proved_is_shown_as_such_by_every_replica(store: Store) {
    let site = super::guarded(store, &[]).await;
    let (alice, bob) = (holder(site.here(), "alice"), holder(site.there(), "bob"));
    // Nobody has to say who it is.
    let sent = alice.call("send_message", json!({"recipient_id": "bob", "message": "hello"})).await;
    assert_eq!(sent["results"][0]["status"], "queued");
    let got = bob.try_call("get_messages", json!({})).await.unwrap();
    let message = &got["structuredContent"]["messages"][0];
    assert_eq!(
        (&message["from"], &message["verified_sender"]),
        (&json!("alice"), &Value::Bool(true))
    );
    let text = got["content"][0]["text"].as_str().unwrap();
    assert!(text.contains(" from alice (verified), ") && !text.contains("unverified"), "{text}");

    // The answer to a question, and what a look shows.
    let asked = tokio::spawn({
        let alice = alice.clone();
        async move { alice.ask("bob", "well?", 20).await }
    });
    let question = bob.fetch(20).await["messages"][0]["message_id"].clone();
    let reply = json!({"recipient_id": "alice", "message": "yes", "in_reply_to": question});
    assert_eq!(bob.call("send_message", reply).await["results"][0]["status"], "replied");
    assert_eq!(asked.await.unwrap()["reply"]["verified_sender"], true);
    alice.send("bob", "more").await;
    let look = bob.request(1, "resources/read", json!({"uri": "inbox://me"})).await.unwrap();
    assert!(look["contents"][0]["text"].as_str().unwrap().contains(" from alice (verified), "));
}

#[tokio::test]
async fn a_claim_is_none_wherever_it_is_read() {
    let redis = RedisServer::start(Persistence::None);
    let open = Replica::on(&redis.url()).await;
    let asking =
        [("MCP_MESSAGING__AUTH__MODE", "key"), ("MCP_MESSAGING__AUTH__MASTER_KEYS", MASTERS)];
    let guarded = Replica::with(&redis.url(), &asking).await;
    let of_default =
        |id: &str| guarded.agent(id).with_key(&sealed(&key("default", id, "read,send")));
    let claim = json!({"sender_id": "alice", "recipient_id": "bob", "message": "claimed",
        "verified": true, "verified_sender": true});
    open.agent("alice").call("send_message", claim).await;
    of_default("alice").send("bob", "proved").await;
    let got = of_default("bob").try_call("get_messages", json!({})).await.unwrap();
    let all = got["structuredContent"]["messages"].as_array().unwrap();
    let seen: Vec<_> = all.iter().map(|one| (&one["text"], &one["verified_sender"])).collect();
    let (claimed, proved) = (json!("claimed"), json!("proved"));
    assert_eq!(seen, [(&claimed, &Value::Bool(false)), (&proved, &Value::Bool(true))]);
    let text = got["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("Sender names are unverified unless it says so."), "{text}");
    assert!(text.contains(" from alice, ") && text.contains(" from alice (verified), "), "{text}");
    // And the other way round: who need not prove itself is told all the same what others proved.
    of_default("alice").send("carol", "proved").await;
    let got = open.agent("carol").fetch(0).await;
    assert_eq!(got["messages"][0]["verified_sender"], true);
}
