//! Each way in with each wrong key, on both stores.

use std::collections::BTreeSet;

use mcp_messaging::{auth::ApiKey, prompts, resources, tools};
use serde_json::Value;

use super::{
    FORGED, UNKNOWN,
    doors::{Door, SECRET, Said, Whose, doors},
    guarded, holder, key, made_with, sealed,
};
use crate::{
    house,
    support::{Agent, Replica, Site, Store, memory_backend},
};

on_every_store!(
    no_door_opens_to_what_is_no_key,
    no_door_opens_beyond_what_a_key_proves,
    a_key_without_a_scope_is_told_which,
    the_list_of_sessions_is_for_who_may_see_its_team,
);

#[test]
fn whatever_is_served_has_a_row_here() {
    let mailbox = house::mailbox(memory_backend().queue);
    let mut served = BTreeSet::new();
    for tool in tools::registry(mailbox.clone()).all() {
        served.insert(format!("tool {}", tool.name()));
    }
    for resource in resources::registry(mailbox.clone()).all() {
        let definition = resource.definition();
        let uri = definition.get("uri").or(definition.get("uriTemplate")).unwrap();
        served.insert(format!("resource {}", uri.as_str().unwrap()));
    }
    for prompt in prompts::registry(mailbox).all() {
        served.insert(format!("prompt {}", prompt.name()));
    }
    let rows: BTreeSet<_> = doors().iter().map(|door| door.name.to_owned()).collect();
    let missing: Vec<_> = served.difference(&rows).collect();
    assert!(missing.is_empty(), "without a row in tests/it/auth/doors.rs: {missing:?}");
}

/// A site where alice of acme has checked in and has mail, and where one key of hers was revoked.
async fn planted(store: Store) -> (Site, ApiKey) {
    let revoked = key("acme", "alice", "read,send,admin");
    let id = revoked.id.to_string();
    let site = guarded(store, &[("MCP_MESSAGING__AUTH__REVOKED_KEYS", &id)]).await;
    let alice = holder(site.here(), "alice");
    alice
        .call("checkin_client", serde_json::json!({"name": "Alice", "capabilities": SECRET}))
        .await;
    alice.send("alice", SECRET).await;
    (site, revoked)
}

/// As whoever sends this.
fn somebody(replica: &Replica, key: &str) -> Agent {
    replica.agent("somebody").with_key(key)
}

/// Nothing of what was planted is gone, and nobody wrote as alice.
async fn untouched(site: &Site) {
    let mail = holder(site.there(), "alice").texts(0).await;
    assert_eq!(mail, [SECRET], "alice's mail is hers");
    let mail = holder(site.there(), "dave").texts(0).await;
    assert!(mail.is_empty(), "nobody wrote as alice: {mail:?}");
}

async fn no_door_opens_to_what_is_no_key(store: Store) {
    let (site, revoked) = planted(store).await;
    let good = key("acme", "alice", "read,send,admin");
    let expired = ApiKey { expires_at: Some(1_700_000_000), ..good.clone() };
    let token = sealed(&good);
    let (signed, mac) = token.split_once('.').unwrap();
    let other_mac = sealed(&key("acme", "alice", "read,send,admin"));
    let other_mac = other_mac.split_once('.').unwrap().1;
    let wrong = [
        ("no key", None),
        ("an empty one", Some(String::new())),
        ("malformed", Some("mbk_nothing".to_owned())),
        ("without its mac", Some(signed.to_owned())),
        ("its mac alone", Some(mac.to_owned())),
        ("the mac of another", Some(format!("{signed}.{other_mac}"))),
        ("a guessed master key", Some(made_with(FORGED, &good))),
        ("an unknown master key", Some(made_with(UNKNOWN, &good))),
        ("expired", Some(sealed(&expired))),
        ("revoked", Some(sealed(&revoked))),
    ];
    for (what, token) in wrong {
        let mut agent = site.here().agent("somebody");
        agent.key = token;
        for door in doors() {
            let said = door.knock(&agent).await;
            let who = format!("{} with {what}: {} {}", door.name, said.status, said.body);
            assert_eq!(said.status, 401, "{who}");
            let challenge = said.challenge.as_deref().unwrap_or_default();
            let expected =
                if agent.key.is_none() { "Bearer" } else { "Bearer error=\"invalid_token\"" };
            assert_eq!(challenge, expected, "{who}");
            let error = &said.json()["error"];
            assert!(error["message"].as_str().is_some_and(|text| text.contains("key")), "{who}");
            nothing_of_alice(&said, &who);
            assert!(!said.body.contains("mac") && !said.body.contains("m1"), "{who}");
        }
    }
    // A key in the URL is none, and spoils one in the header: it must be taken back.
    for query in [format!("key={token}"), format!("x=1&{token}"), "access_token=x".to_owned()] {
        let mut agent = holder(site.here(), "alice");
        agent.url = format!("{}?{query}", agent.url);
        let said = doors()[0].knock(&agent).await;
        let who = format!("{query}: {} {}", said.status, said.body);
        assert_eq!(said.status, 400, "{who}");
        assert_eq!(said.challenge.as_deref(), Some("Bearer error=\"invalid_request\""), "{who}");
        assert!(
            said.body.contains("Authorization: Bearer") && !said.body.contains(&*token),
            "{who}"
        );
        nothing_of_alice(&said, &who);
        let (status, list) = site.here().get(&format!("/api/sessions?{query}")).await;
        assert_eq!(status, 400, "{list}");
    }
    untouched(&site).await;
}

#[track_caller]
fn nothing_of_alice(said: &Said, who: &str) {
    assert!(!said.body.contains(SECRET), "{who}");
}

async fn no_door_opens_beyond_what_a_key_proves(store: Store) {
    let (site, _) = planted(store).await;
    let all = "read,send,admin";
    for (tenant, client, own) in [
        ("acme", "bob", "use bob, or leave it out"),
        ("acme", "alic", "use alic, or leave it out"),
        ("acme", "alice.*", "use ids that begin with alice. such as alice.1"),
        ("acme", "ali.*", "use ids that begin with ali. such as ali.1"),
        ("other", "bob", "use bob, or leave it out"),
        ("other", "alice", ""),
    ] {
        let agent = somebody(site.here(), &sealed(&key(tenant, client, all)));
        for door in doors() {
            let said = door.knock(&agent).await;
            let who = format!("{} as {tenant}/{client}: {} {}", door.name, said.status, said.body);
            let team = tenant == "acme";
            match door.whose {
                Whose::Holders => assert!(said.is_served(), "{who}"),
                Whose::Team => {
                    assert!(said.is_served(), "{who}");
                    let completes = door.method == "completion/complete";
                    let shows = |word| said.body.contains(word);
                    let seen = if completes { shows("\"alice\"") } else { shows(SECRET) };
                    let herself = completes && client == "alice";
                    assert_eq!(seen, team || herself, "{who}");
                }
                // Its own name in another team: served, and it sees nothing of ours.
                Whose::Own if client == "alice" => assert!(said.is_served(), "{who}"),
                Whose::Own => refused(&door, &said, own, &who),
            }
            if door.whose != Whose::Team || !team {
                nothing_of_alice(&said, &who);
            }
        }
    }
    // What the other alice wrote stays in her team.
    let dave = site.here().agent("dave").with_key(&sealed(&key("other", "dave", all)));
    assert!(!dave.texts(0).await.is_empty(), "she did write");
    untouched(&site).await;
}

/// A door that is not this caller's, and says so.
pub(super) fn refused(door: &Door, said: &Said, own: &str, who: &str) {
    let json = said.json();
    match door.method {
        "tools/call" => {
            let text = json["result"]["content"][0]["text"].as_str().unwrap_or_default();
            assert_eq!(
                (said.status, &json["result"]["isError"]),
                (200, &Value::Bool(true)),
                "{who}"
            );
            assert!(
                text.starts_with("Refused: your credential is not that of this client_id"),
                "{who}"
            );
            assert!(text.contains(own), "{who}");
        }
        "resources/read" => {
            let text = json["error"]["message"].as_str().unwrap_or_default();
            assert!(text.starts_with("resource not found: your credential opens"), "{who}");
        }
        "prompts/get" => {
            let text = json["error"]["message"].as_str().unwrap_or_default();
            assert!(
                text.contains("your credential is not that of this client_id")
                    && text.contains(own),
                "{who}"
            );
        }
        "subscriptions/listen" => {
            assert_eq!(json["params"]["notifications"], serde_json::json!({}), "{who}");
        }
        "completion/complete" => {
            assert_eq!(json["result"]["completion"]["values"], serde_json::json!([]), "{who}");
        }
        other => panic!("{other} says nothing of whose it is"),
    }
}

async fn a_key_without_a_scope_is_told_which(store: Store) {
    let (site, _) = planted(store).await;
    // All but one, for each; then what it takes, so that a refusal is not for everybody.
    for (lacking, rest) in [
        ("read", "send,admin"),
        ("send", "read,admin"),
        ("admin", "read,send"),
        ("", "read,send,admin"),
    ] {
        let agent = somebody(site.here(), &sealed(&key("acme", "alice", rest)));
        for door in doors() {
            let said = door.knock(&agent).await;
            let who = format!("{} without {lacking}: {} {}", door.name, said.status, said.body);
            if !door.needs.contains(&lacking) {
                assert!(said.is_served(), "{who}");
                continue;
            }
            assert_eq!(said.status, 403, "{who}");
            let expected =
                format!("Bearer error=\"insufficient_scope\", scope=\"mailbox:{lacking}\"");
            assert_eq!(said.challenge.as_deref(), Some(&*expected), "{who}");
            let text = said.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
            assert!(text.contains(&format!("lacks the scope mailbox:{lacking}")), "{who}");
            nothing_of_alice(&said, &who);
        }
    }
}

async fn the_list_of_sessions_is_for_who_may_see_its_team(store: Store) {
    let (site, revoked) = planted(store).await;
    let ask = async |key: Option<String>| {
        let url = format!("http://{}/api/sessions", site.here().address());
        let request = reqwest::Client::new().get(url);
        let request = match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        let answer = request.send().await.unwrap();
        let challenged = answer.headers().contains_key("www-authenticate");
        (answer.status().as_u16(), challenged, answer.text().await.unwrap())
    };
    let of = |tenant: &str, scopes: &str| Some(sealed(&key(tenant, "carol", scopes)));
    let (status, _, list) = ask(of("acme", "admin")).await;
    assert_eq!(status, 200);
    assert!(list.contains("\"client_id\":\"alice\"") && list.contains("\"messages_in_queue\":1"));
    let (status, _, list) = ask(of("other", "admin")).await;
    assert_eq!(status, 200);
    assert!(list.contains("\"total_messages\":0") && !list.contains("alice"), "{list}");
    for (key, expected) in
        [(of("acme", "read,send"), 403), (None, 401), (Some(sealed(&revoked)), 401)]
    {
        let (status, challenged, text) = ask(key).await;
        assert!(status == expected && challenged && !text.contains("alice"), "{status} {text}");
    }
}
