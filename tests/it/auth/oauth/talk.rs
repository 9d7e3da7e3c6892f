//! People with tokens talk to each other, each in as many windows as they like, for as long as a token lasts.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::{Guarded, changed, now, status};
use crate::{
    auth::{bound::tells_of_the_credential, contacts, teams},
    support::{Agent, Listener, Store},
};

on_every_store!(two_people_talk_with_their_own_tokens, what_waits_ends_with_its_token);

async fn two_people_talk_with_their_own_tokens(store: Store) {
    let guarded = Guarded::open(store, &[]).await;
    let (alice, bob) = (guarded.holder("alice"), guarded.holder("bob"));
    let bob = Agent { url: guarded.site.there().agent("bob").url, ..bob };
    // Nobody has to say who it is.
    let sent = alice.call("send_message", json!({"recipient_id": "bob", "message": "hello"})).await;
    assert_eq!(sent["results"][0]["status"], "queued");
    let got = bob.call("get_messages", json!({})).await;
    let message = &got["messages"][0];
    assert_eq!((&message["from"], &message["verified_sender"]), (&json!("alice"), &json!(true)));
    let asked = tokio::spawn({
        let alice = alice.clone();
        async move { alice.ask("bob", "well?", 20).await }
    });
    let question = bob.fetch(20).await["messages"][0]["message_id"].clone();
    let reply = json!({"recipient_id": "alice", "message": "yes", "in_reply_to": question});
    assert_eq!(bob.call("send_message", reply).await["results"][0]["status"], "replied");
    assert_eq!(asked.await.unwrap()["reply"]["text"], "yes");
    // Her windows are hers, and have mail of their own.
    let laptop = Agent { id: "alice.laptop".to_owned(), ..alice.clone() };
    bob.send("alice.laptop", "to the laptop").await;
    assert!(alice.texts(0).await.is_empty());
    assert_eq!(laptop.texts(0).await, ["to the laptop"]);
    let me = alice.request(1, "resources/read", json!({"uri": "inbox://me"})).await.unwrap();
    assert!(me["contents"][0]["text"].as_str().unwrap().contains("for alice"), "{me}");
    let identity = alice.call("get_my_identity", json!({})).await;
    assert_eq!((&identity["client_id"], &identity["verified"]), (&json!("alice"), &json!(true)));
    let chosen = json!({"recipients_config": {"my_id": "alice.laptop"}});
    let identity = alice.call("get_my_identity", chosen).await;
    assert_eq!(identity["client_id"], "alice.laptop");
    // And nobody else's.
    for foreign in ["bob", "bob.laptop", "alicia", "alice."] {
        let said = alice.try_call("get_messages", json!({"client_id": foreign})).await.unwrap();
        assert_eq!(said["isError"], true, "{foreign}: {said}");
    }
}

#[tokio::test]
async fn who_has_a_token_says_whose_messages_it_takes_in_all_of_its_windows() {
    let guarded = Guarded::open(Store::Redis, &[]).await;
    let site = &guarded.site;
    let token = |client: &str| guarded.token("acme", client, "mailbox:read mailbox:send");
    let only = json!({"policy": "allow", "allow": ["carol"]});
    let said = teams::post(site.here(), &token("alice"), "/api/contacts", only).await.done();
    assert_eq!(said["client"], "alice,alice.*");
    for to in ["alice", "alice.laptop"] {
        contacts::comes_to_agent(&guarded.holder("bob"), to, "does not take messages").await;
        contacts::comes_to_agent(&guarded.holder("carol"), to, "queued").await;
    }
    contacts::comes_to_agent(&guarded.holder("bob"), "alicia", "queued").await;
    let own = teams::get(site.there(), &token("alice"), "/api/contacts").await;
    assert_eq!(own["contacts"][0]["client"], "alice,alice.*");
    let foreign = json!({"client": "alicia", "policy": "team"});
    let why = teams::post(site.here(), &token("alice"), "/api/contacts", foreign).await;
    assert!(why.refused(403).contains("your credential is not that of this client"));
    // Keys are not made where tokens are asked for.
    let root = guarded.token("acme", "root", super::ALL);
    let why = teams::post(site.here(), &root, "/api/admin/keys", json!({"client": "x"})).await;
    assert!(why.refused(501).contains("makes no keys"));
}

async fn what_waits_ends_with_its_token(store: Store) {
    let guarded = Guarded::open(store, &[]).await;
    // The leeway counts: it ends in three seconds.
    let claims = guarded.claims("acme", "alice", super::ALL);
    let claims = changed(claims, json!({"exp": now() - 27}));
    let token = guarded.ed25519.sign(&guarded.ed25519.header(), &claims);
    let alice = guarded.site.here().agent("alice").with_key(&token);
    let waiting = tokio::spawn({
        let alice = alice.clone();
        let arguments = json!({"name": "get_messages", "arguments": {"wait_seconds": 30}});
        async move { alice.request(1, "tools/call", arguments).await }
    });
    let mut listener = Listener::of(&alice, &["inbox://me"]).await;
    let mut stays = Listener::of(&guarded.holder("alice"), &["inbox://alice"]).await;
    for listener in [&mut listener, &mut stays] {
        assert_eq!(
            listener.next().await.unwrap()["method"],
            "notifications/subscriptions/acknowledged"
        );
    }
    let ended = timeout(Duration::from_secs(15), waiting).await.expect("it ends with its token");
    let text = ended.unwrap().unwrap()["content"][0]["text"].as_str().unwrap().to_owned();
    tells_of_the_credential(&text);
    assert_eq!(listener.next().await.unwrap()["result"]["resultType"], "complete");
    assert_eq!(listener.next().await, None);
    assert_eq!(status(&alice).await.0, 401);
    // Who watches the same inbox with a token that is good goes on.
    guarded.holder("bob").send("alice", "news").await;
    assert_eq!(stays.updated().await, "inbox://alice");
}

#[tokio::test]
async fn who_is_no_client_is_told_which_claim_would_do_and_never_which_value() {
    let audit = ("MCP_MESSAGING__LOG__AUDIT", "true");
    let guarded = Guarded::open(Store::Memory, &[audit]).await;
    for (claims, said, silent) in [
        (
            json!({"sub": "auth0|700", "preferred_username": "carol7"}),
            "these would do: preferred_username, client_id",
            ["auth0|700", "carol7"],
        ),
        (
            json!({"sub": "carol.secret", "client_id": null}),
            "has a dot",
            ["carol.secret", "secret"],
        ),
        (json!({"sub": null, "client_id": null}), "is missing", ["an-ide", "acme"]),
        (json!({"team": "a/b"}), "is of no team", ["a/b", "alice"]),
        (json!({"team": null}), "is of no team", ["acme", "alice"]),
    ] {
        let agent = guarded.site.here().agent("x").with_key(&guarded.with_claims(claims.clone()));
        let answer = agent.post().json(&json!({})).send().await.unwrap();
        assert_eq!(answer.status(), 403, "{claims}");
        assert!(!answer.headers().contains_key("www-authenticate"), "to log in again is no help");
        let text = answer.text().await.unwrap();
        assert!(text.contains(said), "{claims}: {text}");
        assert!(silent.iter().all(|value| !text.contains(value)), "{claims}: {text}");
    }
    let log = guarded.site.into_first().ended_log();
    for value in ["auth0|700", "carol7", "carol.secret", "eyJ", "an-ide"] {
        assert!(!log.contains(value), "{value} in {log}");
    }
    assert_eq!(log.matches("\"result\":\"no_client\"").count(), 3);
    assert_eq!(log.matches("\"result\":\"no_tenant\"").count(), 2);
}

#[tokio::test]
async fn nothing_of_tokens_and_clients_is_in_the_log() {
    let loud = ("LOG_LEVEL", "info,mcp_messaging=trace");
    let guarded = Guarded::open(Store::Memory, &[loud]).await;
    let alice = guarded.holder("alice");
    alice.send("bob", "planted-text").await;
    let header = json!({"kid": "planted-kid"});
    let wrong = guarded.with_header(header);
    assert_eq!(status(&alice.clone().with_key(&wrong)).await.0, 401);
    let (_, metrics) = guarded.site.here().get("/metrics").await;
    assert!(
        metrics.contains("mcp_messaging_refusals_total{reason=\"token_invalid\"} 1"),
        "{metrics}"
    );
    let log = guarded.site.into_first().ended_log();
    for text in [&log, &metrics] {
        for secret in ["alice", "bob", "acme", "planted", "eyJ", "an-ide"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

#[tokio::test]
async fn what_a_token_must_be_and_whom_it_names_can_be_said() {
    let guarded = Guarded::open(
        Store::Memory,
        &[
            ("MCP_MESSAGING__OAUTH__AUDIENCE", "4be6b9e2"),
            ("MCP_MESSAGING__OAUTH__CLIENT_CLAIM", "preferred_username"),
            ("MCP_MESSAGING__OAUTH__WINDOWS", "false"),
            ("MCP_MESSAGING__OAUTH__LEEWAY_SECONDS", "0"),
        ],
    )
    .await;
    let named = json!({"aud": "4be6b9e2", "preferred_username": "alice.smith"});
    let agent = |more: serde_json::Value| {
        let token = guarded.with_claims(changed(named.clone(), more));
        guarded.site.here().agent("alice.smith").with_key(&token)
    };
    let alice = agent(json!({}));
    let identity = alice.call("get_my_identity", json!({})).await;
    assert_eq!(identity["client_id"], "alice.smith");
    // Without windows she is nobody but herself.
    let said = alice.try_call("get_messages", json!({"client_id": "alice.smith.2"})).await.unwrap();
    assert_eq!(said["isError"], true, "{said}");
    for (more, expected) in [
        (json!({"aud": super::RESOURCE}), 401),
        (json!({"exp": now() - 1}), 401),
        (json!({"nbf": now() + 20}), 401),
        (json!({"preferred_username": "alice smith"}), 403),
    ] {
        assert_eq!(status(&agent(more.clone())).await.0, expected, "{more}");
    }
}
