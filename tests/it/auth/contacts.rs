//! Who takes whose messages, in a team and between two.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    guarded, holder, key, sealed,
    teams::{admin_of, get, post},
};
use crate::support::{Agent, Replica, Reply, Site, Store};

/// The holder of a key for this client of any team.
fn of(replica: &Replica, tenant: &str, client: &str) -> Agent {
    replica.agent(client).with_key(&sealed(&key(tenant, client, "read,send")))
}

/// What a send to one recipient came to: `queued`, `replied`, or why it was refused.
async fn outcome(from: &Agent, to: &str, text: &str, answers: Option<&str>) -> String {
    let arguments = json!({"recipient_id": to, "message": text, "in_reply_to": answers});
    let result = from.try_call("send_message", arguments).await.unwrap();
    let sent = &result["structuredContent"]["results"][0];
    assert_eq!(result["isError"], json!(sent["status"] == "refused"), "{result}");
    assert_eq!(sent["recipient_id"], to);
    match sent["status"].as_str() {
        Some("refused") => {
            assert!(sent.get("message_id").is_none() && sent.get("recipient").is_none(), "{sent}");
            sent["reason"].as_str().unwrap().to_owned()
        }
        Some(status) => status.to_owned(),
        None => panic!("{result}"),
    }
}

/// Two servers, which may be one.
type Pair<'a> = (&'a Replica, &'a Replica);

fn both(site: &Site) -> Pair<'_> {
    (site.here(), site.there())
}

/// Sends on both servers until both say this, and fails if that takes over ten seconds.
async fn comes_to(site: Pair<'_>, tenant: &str, from: &str, to: &str, said: &str) {
    let patience = Instant::now() + Duration::from_secs(10);
    for replica in [site.0, site.1] {
        comes_to_until(&of(replica, tenant, from), to, said, patience).await;
    }
}

/// The same on the one server of a sender.
pub(super) async fn comes_to_agent(sender: &Agent, to: &str, said: &str) {
    comes_to_until(sender, to, said, Instant::now() + Duration::from_secs(10)).await;
}

async fn comes_to_until(sender: &Agent, to: &str, said: &str, patience: Instant) {
    loop {
        let outcome = outcome(sender, to, "is it known?", None).await;
        if outcome.contains(said) {
            return;
        }
        assert!(Instant::now() < patience, "known within 10 s: {said}, not {outcome}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

const NOT_TAKEN: &str = "does not take messages from you";
const NOT_LINKED: &str = "no messages pass between your team and that one";

async fn set(replica: &Replica, agent: &Agent, policy: Value) -> Value {
    post(replica, agent.key.as_deref().unwrap(), "/api/contacts", policy).await.done()
}

#[tokio::test]
async fn a_client_says_whose_messages_it_takes_and_every_server_knows_in_ten_seconds() {
    let site = guarded(Store::Redis, &[]).await;
    let (here, there) = (site.here(), site.there());
    let (alice, bob, eve) = (holder(here, "alice"), holder(here, "bob"), holder(there, "eve"));
    assert_eq!(outcome(&eve, "alice", "hello", None).await, "queued", "open at first");
    let said = set(here, &alice, json!({"block": ["eve"]})).await;
    assert_eq!(said["client"], "alice");
    comes_to(both(&site), "acme", "eve", "alice", NOT_TAKEN).await;
    assert_eq!(outcome(&bob, "alice", "from bob", None).await, "queued");
    assert_eq!(outcome(&eve, "bob", "to others", None).await, "queued");
    // In one send some are taken and others are not, and each is told.
    let letter = json!({"recipients": ["alice", "bob"], "message": "to both"});
    let told = eve.call("send_message", letter).await;
    let statuses: Vec<_> =
        told["results"].as_array().unwrap().iter().map(|it| &it["status"]).collect();
    assert_eq!(statuses, ["refused", "queued"]);
    // Questions too, at once.
    let asks = json!({"recipient_id": "alice", "message": "a question", "timeout": 30});
    let asked = eve.try_call("send_message_and_wait", asks).await.unwrap();
    let text = asked["content"][0]["text"].as_str().unwrap();
    assert!(asked["isError"] == true && text.contains(NOT_TAKEN), "{text}");
    // Nobody but those on a list.
    set(here, &alice, json!({"policy": "allow", "allow": ["carol.*"]})).await;
    comes_to(both(&site), "acme", "bob", "alice", NOT_TAKEN).await;
    assert_eq!(outcome(&holder(here, "carol.1"), "alice", "listed", None).await, "queued");
    assert_eq!(outcome(&alice, "alice", "a note to myself", None).await, "queued");
    // Each refusal is the same text: nobody learns which list it stands on.
    let listed = get(there, alice.key.as_deref().unwrap(), "/api/contacts").await;
    assert_eq!(listed["contacts"][0]["allow"], json!(["carol.*"]));
    // Open again.
    set(there, &alice, json!({})).await;
    comes_to(both(&site), "acme", "eve", "alice", "queued").await;
    let texts = alice.texts(0).await;
    assert!(!texts.contains(&"to both".to_owned()) && !texts.contains(&"a question".to_owned()));
    let refusals = here.get("/metrics").await.1 + &there.get("/metrics").await.1;
    assert!(refusals.contains("reason=\"not_taken\""), "{refusals}");
}

#[tokio::test]
async fn what_a_newer_version_wrote_about_a_team_is_not_misread() {
    let site = guarded(Store::Redis, &[]).await;
    let alice = holder(site.here(), "alice");
    let redis = site.redis().unwrap();
    assert_eq!(
        redis.command(&["HSET", "mb1:{k:acme}:t", "v", "2", "d", "{}", "r", "1"]),
        Reply::Integer(3)
    );
    let told = outcome(&alice, "bob", "x", None).await;
    assert!(told.contains("cannot be found out now; nothing was sent"), "{told}");
    let root = admin_of("acme");
    post(site.here(), &root, "/api/admin/teams", json!({"teams": ["beta"]})).await.refused(500);
    assert_eq!(
        redis.command(&["HGET", "mb1:{k:acme}:t", "v"]),
        Reply::Text("2".into()),
        "nor written over"
    );
}

#[tokio::test]
async fn a_policy_is_set_by_its_owner_or_an_admin_and_nobody_else() {
    let site = guarded(Store::Redis, &[]).await;
    let here = site.here();
    let eve = sealed(&key("acme", "eve", "read,send"));
    let below = sealed(&key("acme", "al.*", "read,send"));
    let of = |client: &str| json!({"client": client, "policy": "team"});
    for (key, client) in
        [(&eve, "alice"), (&eve, "eve.*"), (&below, "al"), (&below, "al*"), (&below, "bob.*")]
    {
        let told = post(here, key, "/api/contacts", of(client)).await;
        assert!(matches!(told.status, 400 | 403), "{client} {}", told.body);
    }
    for (key, client) in [(&eve, "eve"), (&below, "al.1"), (&below, "al.*"), (&below, "al.b.*")] {
        post(here, key, "/api/contacts", of(client)).await.done();
    }
    post(here, &admin_of("acme"), "/api/admin/contacts", of("alice")).await.done();
    post(here, &admin_of("other"), "/api/admin/contacts", of("bob")).await.done();
    let all = get(here, &admin_of("acme"), "/api/admin/contacts").await;
    let clients: Vec<_> =
        all["contacts"].as_array().unwrap().iter().map(|it| &it["client"]).collect();
    assert_eq!(clients, ["al.1", "alice", "eve", "al.*", "al.b.*"], "of one's own team only");
    let own = get(here, &eve, "/api/contacts").await;
    assert_eq!(own["contacts"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_answer_to_ones_own_question_always_comes_through() {
    let site = guarded(Store::Redis, &[]).await;
    answers_come_through(both(&site)).await;
}

/// On two servers, or on one of a Cluster.
pub(crate) async fn answers_come_through((here, there): Pair<'_>) {
    let (alice, bob) = (holder(here, "alice"), holder(there, "bob"));
    set(here, &alice, json!({"policy": "allow"})).await;
    comes_to((here, there), "acme", "bob", "alice", NOT_TAKEN).await;
    // What came before that.
    while !alice.texts(0).await.is_empty() {}
    // She waits, and he answers: by naming the question, and without.
    for named in [true, false] {
        let asking = alice.ask("bob", "well?", 20);
        let answering = async {
            let question = bob.fetch(10).await["messages"][0]["message_id"].clone();
            let answers = named.then(|| question.as_str().unwrap());
            let told = outcome(&bob, "alice", "this", answers).await;
            let again = outcome(&bob, "alice", "and that", answers).await;
            (told, again)
        };
        let (asked, (told, again)) = tokio::join!(asking, answering);
        assert_eq!((asked["status"].as_str(), &*told), (Some("replied"), "replied"), "{asked}");
        assert!(again.contains(NOT_TAKEN), "one answer to one question: {again}");
    }
    // She has stopped waiting: it comes late, once.
    let asked = alice.ask("bob", "no hurry", 0).await;
    assert_ne!(asked["status"], "replied");
    let asked = json!({"recipient_id": "bob", "message": "still no hurry", "timeout": 0.2});
    alice.call("send_message_and_wait", asked).await;
    let mail = bob.fetch(5).await;
    let question = mail["messages"].as_array().unwrap().last().unwrap()["message_id"].clone();
    let other = holder(here, "eve");
    let refused = outcome(&other, "alice", "not mine to answer", question.as_str()).await;
    assert!(refused.contains(NOT_TAKEN), "{refused}");
    assert_eq!(outcome(&bob, "alice", "late", question.as_str()).await, "queued");
    assert!(outcome(&bob, "alice", "later", question.as_str()).await.contains(NOT_TAKEN));
    assert_eq!(alice.texts(0).await, ["late"]);
}

#[tokio::test]
async fn teams_that_list_each_other_talk_and_no_others() {
    let site = guarded(Store::Redis, &[]).await;
    two_teams_talk(both(&site)).await;
}

/// On two servers, or on one of a Cluster.
pub(crate) async fn two_teams_talk((here, there): Pair<'_>) {
    let (acme, beta) = (admin_of("acme"), admin_of("beta"));
    let (alice, bob) = (of(here, "acme", "alice"), of(there, "beta", "bob"));
    let teams = "/api/admin/teams";
    // None, one, the other.
    assert!(outcome(&alice, "beta/bob", "x", None).await.contains(NOT_LINKED));
    post(here, &acme, teams, json!({"teams": ["beta"]})).await.done();
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert!(outcome(&alice, "beta/bob", "x", None).await.contains(NOT_LINKED));
    assert!(outcome(&bob, "acme/alice", "x", None).await.contains(NOT_LINKED));
    let never = outcome(&alice, "nowhere/bob", "x", None).await;
    assert!(never.contains(NOT_LINKED), "the same of a team that there is not: {never}");
    post(there, &beta, teams, json!({"teams": ["acme", "beta"]})).await.done();
    comes_to((here, there), "acme", "alice", "beta/bob", "queued").await;
    comes_to((here, there), "beta", "bob", "acme/alice", "queued").await;
    alice.fetch(0).await;
    bob.fetch(0).await;

    // There and back, as each sees the other.
    let id = alice.send("beta/bob", "hello over there").await;
    let mail = bob.fetch(5).await;
    let letter = &mail["messages"][0];
    assert_eq!((&letter["from"], &letter["message_id"]), (&json!("acme/alice"), &json!(id)));
    assert_eq!(
        (&letter["verified_sender"], &letter["text"]),
        (&json!(true), &json!("hello over there"))
    );
    assert_eq!(outcome(&bob, "acme/alice", "hello back", Some(&id)).await, "queued");
    let mail = alice.fetch(5).await;
    assert_eq!(
        (&mail["messages"][0]["from"], &mail["messages"][0]["in_reply_to"]),
        (&json!("beta/bob"), &json!(id))
    );
    let status = alice.call("message_status", json!({"message_ids": [id]})).await;
    let state = &status["messages"][0];
    assert_eq!(
        (&state["recipient_id"], &state["state"]),
        (&json!("beta/bob"), &json!("acknowledged"))
    );
    // A question and its answer.
    let (asked, told) = tokio::join!(alice.ask("beta/bob", "across?", 20), async {
        let question = bob.fetch(10).await["messages"][0]["message_id"].clone();
        outcome(&bob, "acme/alice", "across", question.as_str()).await
    });
    assert_eq!((asked["status"].as_str(), &*told), (Some("replied"), "replied"), "{asked}");
    assert!(asked.to_string().contains("beta/bob"), "{asked}");
    // A notice.
    let brief = json!({"recipient_id": "beta/bob", "message": "brief", "ttl_seconds": 1});
    let lost = alice.call("send_message", brief).await["results"][0]["message_id"].clone();
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        let told = alice.fetch(1).await;
        if let Some(notice) = told["notices"].as_array().and_then(|all| all.first()) {
            assert_eq!(
                (&notice["recipient_id"], &notice["message_id"]),
                (&json!("beta/bob"), &lost)
            );
            break;
        }
        assert!(Instant::now() < patience, "the sender is told");
    }

    // One's own team by its name is one's own team; the directory stays one's own.
    assert_eq!(outcome(&alice, "acme/alice", "to myself", None).await, "queued");
    assert_eq!(alice.fetch(0).await["messages"][0]["from"], "alice");
    bob.call("checkin_client", json!({"name": "Bob"})).await;
    let listed = alice.call("list_clients", json!({})).await;
    assert!(!listed.to_string().contains("bob"), "{listed}");
    // A client that takes its own team's only.
    set(there, &bob, json!({"policy": "team"})).await;
    comes_to((here, there), "acme", "alice", "beta/bob", NOT_TAKEN).await;
    assert_eq!(outcome(&of(here, "beta", "bea"), "bob", "a colleague", None).await, "queued");
    set(there, &bob, json!({"block": ["acme/alice"]})).await;
    comes_to((here, there), "beta", "bea", "bob", "queued").await;
    comes_to((here, there), "acme", "alice", "beta/bob", NOT_TAKEN).await;
    comes_to((here, there), "acme", "amy", "beta/bob", "queued").await;
    // And the end of it.
    post(here, &acme, teams, json!({"teams": []})).await.done();
    comes_to((here, there), "acme", "amy", "beta/bob", NOT_LINKED).await;
    comes_to((here, there), "beta", "bob", "acme/amy", NOT_LINKED).await;
}

on_every_store!(an_address_of_another_team_is_none_where_nobody_proves_a_team);

async fn an_address_of_another_team_is_none_where_nobody_proves_a_team(store: Store) {
    let site = store.open().await;
    let alice = site.here().agent("alice");
    let sent = json!({"sender_id": "alice", "recipient_id": "beta/bob", "message": "x"});
    let refused = alice.try_call("send_message", sent.clone()).await.unwrap();
    let text = refused["content"][0]["text"].as_str().unwrap();
    assert!(refused["isError"] == true && text.contains("recipient_id contains '/'"), "{text}");
    // With keys and without a store for teams, nothing passes.
    let site = guarded(Store::Memory, &[]).await;
    let alice = holder(site.here(), "alice");
    assert!(outcome(&alice, "beta/bob", "x", None).await.contains(NOT_LINKED));
    assert_eq!(outcome(&alice, "acme/bob", "x", None).await, "queued");
}
