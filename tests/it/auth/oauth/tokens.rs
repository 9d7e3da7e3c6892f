//! Each way in with each wrong token, on both stores.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{ALL, Guarded, METADATA_AT, Signer, changed, now};
use crate::{
    auth::{
        doors::{Door, SECRET, Said, Whose, doors},
        matrix::refused,
        sealed,
    },
    support::Store,
};

on_every_store!(
    no_door_opens_to_what_is_no_token_for_this_server,
    no_door_opens_beyond_what_a_token_proves,
    a_token_without_a_scope_is_told_what_to_ask_for,
    the_list_of_sessions_is_for_who_may_see_its_team,
);

/// A site where alice of acme has checked in and has mail.
async fn planted(store: Store, more: &[(&str, &str)]) -> Guarded {
    let guarded = Guarded::open(store, more).await;
    let alice = guarded.holder("alice");
    alice.call("checkin_client", json!({"name": "Alice", "capabilities": SECRET})).await;
    alice.send("alice", SECRET).await;
    guarded
}

/// Who came with a token is told of its token, or of its credential, and not of a key that it does not have.
#[track_caller]
fn true_of_a_token(said: &str, who: &str) {
    let said = said.to_lowercase();
    for wrong in ["your key", "this key", "keys that", "holders of a key", "mbk_"] {
        assert!(!said.contains(wrong), "{who}: {wrong}");
    }
}

/// Nothing of what was planted is gone, and nobody wrote as alice.
async fn untouched(guarded: &Guarded) {
    assert_eq!(guarded.holder("alice").texts(0).await, [SECRET], "alice's mail is hers");
    let mail = guarded.holder("dave").texts(0).await;
    assert!(mail.is_empty(), "nobody wrote as alice: {mail:?}");
}

/// A token that says HS256, with the public half of a key for a secret.
fn mac_by(key: &Signer, secret: &[u8], claims: &Value) -> String {
    let header = json!({"alg": "HS256", "kid": key.id, "typ": "at+jwt"});
    let signed = format!("{}.{}", encoded(&header), encoded(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

/// A wrong token: what it is, what the audit log calls it, and itself.
type Wrong = (&'static str, &'static str, String);

fn encoded(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

/// Good ones that were broken.
fn broken(guarded: &Guarded) -> Vec<Wrong> {
    let good = guarded.token("acme", "alice", ALL);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let other = guarded.token("acme", "bob", ALL);
    let (_, other) = other.rsplit_once('.').unwrap();
    let other_body = encoded(&guarded.claims("acme", "bob", ALL));
    let key = sealed(&crate::auth::key("acme", "alice", "read,send,admin"));
    let long = guarded.with_claims(json!({"pad": "x".repeat(9000)}));
    let critical = guarded.with_header(json!({"crit": ["exp"]}));
    vec![
        ("an empty one", "malformed", String::new()),
        ("a word", "malformed", "token".to_owned()),
        ("a key of mode key", "malformed", key),
        ("a long one", "malformed", long),
        ("one without its signature", "malformed", signed.to_owned()),
        ("something critical in it", "malformed", critical),
        ("an empty signature", "wrong_signature", format!("{signed}.")),
        ("the signature of another", "wrong_signature", format!("{signed}.{other}")),
        ("other claims", "wrong_signature", format!("{header}.{other_body}.{signature}")),
    ]
}

/// Those that nobody of the authorization server signed.
fn forged(guarded: &Guarded) -> Vec<Wrong> {
    let claims = guarded.claims("acme", "alice", ALL);
    let good = guarded.token("acme", "alice", ALL);
    let [_, body, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("{good}") };
    let none = encoded(&json!({"alg": "none", "kid": "ed", "typ": "at+jwt"}));
    let (unknown, stranger) = (Signer::ed25519("unknown"), Signer::ed25519("ed"));
    let as_signed = |key: &Signer| key.sign(&key.header(), &claims);
    let as_es256 = json!({"alg": "ES256", "kid": "rs", "typ": "at+jwt"});
    let as_es256 = guarded.es256.sign(&as_es256, &claims);
    let key_along = json!({"jwk": stranger.public(), "jku": "http://127.0.0.1:9/keys"});
    let key_along = stranger.sign(&changed(stranger.header(), key_along), &claims);
    let public = guarded.rs256.public();
    let modulus = URL_SAFE_NO_PAD.decode(public["n"].as_str().unwrap()).unwrap();
    let mac = |secret: &[u8]| mac_by(&guarded.rs256, secret, &claims);
    let nameless = guarded.with_header(json!({"kid": null}));
    vec![
        ("no algorithm", "wrong_algorithm", format!("{none}.{body}.")),
        ("no algorithm and a signature", "wrong_algorithm", format!("{none}.{body}.{signature}")),
        ("a MAC by the modulus", "wrong_algorithm", mac(&modulus)),
        ("a MAC by the public key", "wrong_algorithm", mac(public.to_string().as_bytes())),
        ("a MAC by nothing", "wrong_algorithm", mac(b"")),
        ("another algorithm than its key's", "wrong_algorithm", as_es256),
        ("another key under a known name", "wrong_signature", as_signed(&stranger)),
        ("its own key beside it", "wrong_signature", key_along),
        ("an unknown key", "unknown_signing_key", as_signed(&unknown)),
        ("no name of a key", "unknown_signing_key", nameless),
    ]
}

/// Those that the authorization server did sign, for something else.
fn misused(guarded: &Guarded) -> Vec<Wrong> {
    let header_as = |changes| guarded.with_header(changes);
    let claims_as = |changes| guarded.with_claims(changes);
    // As one gets them where the audience was set to the id of the client.
    let id_token = |more: Value| {
        let claims = changed(guarded.claims("acme", "alice", ALL), more);
        let header = changed(guarded.ed25519.header(), json!({"typ": "JWT"}));
        guarded.ed25519.sign(&header, &claims)
    };
    let slash = format!("{}/", guarded.issuer.url);
    let bound = json!({"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}});
    let other_audience = json!({"aud": "https://mailbox.example.com"});
    vec![
        ("no type", "wrong_type", header_as(json!({"typ": null}))),
        ("a token about a logout", "wrong_type", header_as(json!({"typ": "logout+jwt"}))),
        ("an ID token", "wrong_type", id_token(json!({"nonce": "n", "scope": null}))),
        ("an ID token with scopes", "wrong_type", id_token(json!({"at_hash": "h"}))),
        ("an ID token of Keycloak", "wrong_type", id_token(json!({"typ": "ID"}))),
        ("a token that is bound to a key", "wrong_type", claims_as(bound)),
        ("another issuer", "wrong_issuer", claims_as(json!({"iss": "https://evil.example"}))),
        ("the issuer with a slash", "wrong_issuer", claims_as(json!({"iss": slash}))),
        ("no issuer", "wrong_claim", claims_as(json!({"iss": null}))),
        ("another audience", "wrong_audience", claims_as(other_audience)),
        ("other audiences", "wrong_audience", claims_as(json!({"aud": ["a", "b"]}))),
        ("no audience", "wrong_audience", claims_as(json!({"aud": null}))),
        ("a token that has expired", "expired", claims_as(json!({"exp": now() - 31}))),
        ("no end", "wrong_claim", claims_as(json!({"exp": null}))),
        ("a token before its time", "not_yet_valid", claims_as(json!({"nbf": now() + 120}))),
    ]
}

async fn no_door_opens_to_what_is_no_token_for_this_server(store: Store) {
    let audit = ("MCP_MESSAGING__LOG__AUDIT", "true");
    let guarded = planted(store, &[audit]).await;
    let mut labels = Vec::new();
    let none = ("no token", "missing", None);
    let wrong = [broken(&guarded), forged(&guarded), misused(&guarded)].into_iter().flatten();
    let wrong = wrong.map(|(what, label, token)| (what, label, Some(token)));
    for (what, label, token) in [none].into_iter().chain(wrong) {
        let mut agent = guarded.site.here().agent("somebody");
        agent.key = token;
        for door in doors() {
            let said = door.knock(&agent).await;
            let who = format!("{} with {what}: {} {}", door.name, said.status, said.body);
            assert_eq!(said.status, 401, "{who}");
            let challenge = said.challenge.as_deref().unwrap_or_default();
            let error = if agent.key.is_none() { "" } else { "error=\"invalid_token\", " };
            let scopes = "scope=\"mailbox:read mailbox:send\"";
            assert_eq!(challenge, format!("Bearer {error}{scopes}, {METADATA_AT}"), "{who}");
            let text = said.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
            assert!(text.contains("access token"), "{who}");
            true_of_a_token(&text, &who);
            assert!(!said.body.contains(SECRET), "{who}");
            labels.push(label);
        }
    }
    // A token in the query is none, and refused for being there.
    let mut agent = guarded.site.here().agent("somebody");
    let good = guarded.token("acme", "alice", ALL);
    agent.url = format!("{}?access_token={good}", agent.url);
    let said = doors()[0].knock(&agent).await;
    assert_eq!(said.status, 400);
    true_of_a_token(&said.body, "a token in the URL");
    // Two of them are none either.
    let agent = guarded.site.here().agent("somebody").with_key(&good);
    let twice = agent.post().header("authorization", format!("Bearer {good}"));
    assert_eq!(twice.json(&json!({})).send().await.unwrap().status(), 401);
    labels.push("malformed");
    untouched(&guarded).await;
    // Each was refused for its own reason.
    let log = guarded.site.into_first().ended_log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let refused = lines.filter(|line| line["action"] == "authenticate");
    let told: Vec<_> = refused.map(|line| line["result"].as_str().unwrap().to_owned()).collect();
    assert_eq!(told, labels);
}

async fn no_door_opens_beyond_what_a_token_proves(store: Store) {
    let guarded = planted(store, &[]).await;
    for (team, client, own) in [
        ("acme", "bob", "use bob, or leave it out, or an id that begins with bob. such as bob.1"),
        ("acme", "alic", "use alic, or leave it out"),
        ("other", "bob", "use bob, or leave it out"),
        ("other", "alice", ""),
    ] {
        let token = guarded.token(team, client, ALL);
        let agent = guarded.site.here().agent("somebody").with_key(&token);
        for door in doors() {
            let said = door.knock(&agent).await;
            let who = format!("{} as {team}/{client}: {} {}", door.name, said.status, said.body);
            true_of_a_token(&said.body, &who);
            match door.whose {
                Whose::Holders => assert!(said.is_served(), "{who}"),
                Whose::Team => {
                    assert!(said.is_served(), "{who}");
                    if door.method != "completion/complete" {
                        assert_eq!(said.body.contains(SECRET), team == "acme", "{who}");
                    }
                }
                // Her name in another team: served, and she sees nothing of ours.
                Whose::Own if client == "alice" => assert!(said.is_served(), "{who}"),
                Whose::Own => refused(&door, &said, own, &who),
            }
            if door.whose != Whose::Team || team != "acme" {
                assert!(!said.body.contains(SECRET), "{who}");
            }
        }
    }
    untouched(&guarded).await;
}

async fn a_token_without_a_scope_is_told_what_to_ask_for(store: Store) {
    let guarded = planted(store, &[]).await;
    // What one has, and what one is told to ask for by a door that needs the rest: what one has is asked for
    // again, or the next token would allow less.
    let told = |has: &str, door: &Door| {
        let all = ["read", "send", "admin"];
        let wanted = all.iter().filter(|one| has.contains(*one) || door.needs.contains(one));
        wanted.map(|one| format!("mailbox:{one}")).collect::<Vec<_>>().join(" ")
    };
    for has in [
        "mailbox:send mailbox:admin",
        "mailbox:read mailbox:admin",
        "mailbox:read mailbox:send",
        "mailbox:admin",
        ALL,
    ] {
        let token = guarded.token("acme", "alice", has);
        let agent = guarded.site.here().agent("somebody").with_key(&token);
        for door in doors() {
            let said = door.knock(&agent).await;
            let who = format!("{} with {has}: {} {}", door.name, said.status, said.body);
            if door.needs.iter().all(|need| has.contains(need)) {
                assert!(said.is_served(), "{who}");
                continue;
            }
            step_up(&said, &told(has, &door), &who);
        }
    }
    // Without any of ours nothing is served at all.
    let agent = guarded.site.here().agent("somebody");
    let agent = agent.with_key(&guarded.token("acme", "alice", "openid email"));
    for door in doors() {
        let said = door.knock(&agent).await;
        step_up(&said, "mailbox:read mailbox:send", door.name);
    }
}

fn step_up(said: &Said, scopes: &str, who: &str) {
    assert_eq!(said.status, 403, "{who}");
    let expected =
        format!("Bearer error=\"insufficient_scope\", scope=\"{scopes}\", {METADATA_AT}");
    assert_eq!(said.challenge.as_deref(), Some(&*expected), "{who}");
    assert!(!said.body.contains(SECRET), "{who}");
    true_of_a_token(&said.body, who);
}

async fn the_list_of_sessions_is_for_who_may_see_its_team(store: Store) {
    let guarded = planted(store, &[]).await;
    let ask = async |token: String| {
        let url = format!("http://{}/api/sessions", guarded.site.here().address());
        let answer = reqwest::Client::new().get(url).bearer_auth(token).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, list) = ask(guarded.token("acme", "carol", "mailbox:admin")).await;
    assert!(status == 200 && list.contains("\"client_id\":\"alice\""), "{status} {list}");
    let (status, list) = ask(guarded.token("other", "carol", "mailbox:admin")).await;
    assert!(status == 200 && !list.contains("alice"), "{status} {list}");
    for token in [
        guarded.token("acme", "alice", "mailbox:read mailbox:send"),
        guarded.token("acme", "alice", "openid"),
    ] {
        let (status, said) = ask(token).await;
        assert_eq!(status, 403);
        true_of_a_token(&said, "the list of sessions");
    }
    assert_eq!(ask("none".to_owned()).await.0, 401);
}

#[tokio::test]
async fn bad_tokens_of_one_address_are_held_back_and_those_that_only_expired_are_not() {
    let slow = ("MCP_MESSAGING__AUTH__FAILURES_PER_MINUTE", "60");
    let guarded = Guarded::open(Store::Memory, &[slow]).await;
    let stranger = Signer::ed25519("ed");
    let forged = stranger.sign(&stranger.header(), &guarded.claims("acme", "alice", ALL));
    let expired = guarded.with_claims(json!({"exp": now() - 60}));
    let of = |token: &str| guarded.site.here().agent("alice").with_key(token);
    for (token, held_back) in [(expired, false), (forged, true)] {
        let agent = of(&token);
        let all = futures_util::future::join_all((0..30).map(|_| super::status(&agent))).await;
        let several = all.iter().filter(|(status, _)| *status == 429).count();
        assert_eq!(several > 0, held_back, "{several} of {}", all.len());
        assert!(all.iter().all(|(status, _)| [401, 429].contains(status)), "{all:?}");
        for (_, said) in &all {
            true_of_a_token(said, "held back");
        }
    }
}
