//! Each way in with each wrong token, on both stores.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{ALL, Guarded, METADATA_AT, Signer, now};
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

/// Nothing of what was planted is gone, and nobody wrote as alice.
async fn untouched(guarded: &Guarded) {
    assert_eq!(guarded.holder("alice").texts(0).await, [SECRET], "alice's mail is hers");
    let mail = guarded.holder("dave").texts(0).await;
    assert!(mail.is_empty(), "nobody wrote as alice: {mail:?}");
}

/// A token that says HS256, with the public half of a key for a secret.
fn mac_by(key: &Signer, secret: &[u8], claims: &Value) -> String {
    let header = json!({"alg": "HS256", "kid": key.id, "typ": "at+jwt"});
    let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let signed = format!("{}.{}", part(&header), part(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

/// Each wrong token, and what the audit log calls it.
fn wrong(guarded: &Guarded) -> Vec<(&'static str, &'static str, Option<String>)> {
    let claims = guarded.claims("acme", "alice", ALL);
    let good = guarded.token("acme", "alice", ALL);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, body) = signed.split_once('.').unwrap();
    let (_, other_signature) = good_of(guarded, "bob");
    let stranger = Signer::ed25519(&guarded.ed25519.id);
    let unknown = Signer::ed25519("unknown");
    let public = guarded.rs256.public();
    let modulus = URL_SAFE_NO_PAD.decode(public["n"].as_str().unwrap()).unwrap();
    let text = |text: &Value| text.to_string().into_bytes();
    let header_as = |changes| guarded.with_header(changes);
    let claims_as = |changes| guarded.with_claims(changes);
    let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let none = part(&json!({"alg": "none", "kid": "ed", "typ": "at+jwt"}));
    let as_es256 = json!({"alg": "ES256", "kid": "rs", "typ": "at+jwt"});
    let with_own_key = json!({"jwk": stranger.public(), "jku": "http://127.0.0.1:9/keys"});
    let stolen = json!({"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}});
    let key = crate::auth::key("acme", "alice", "read,send,admin");
    let rows = [
        ("no token", "missing", None),
        ("an empty one", "malformed", Some(String::new())),
        ("a word", "malformed", Some("token".to_owned())),
        ("a key of mode key", "malformed", Some(sealed(&key))),
        ("a long one", "malformed", Some(claims_as(json!({"pad": "x".repeat(9000)})))),
        ("without its signature", "malformed", Some(signed.to_owned())),
        ("with an empty signature", "wrong_signature", Some(format!("{signed}."))),
        (
            "the signature of another",
            "wrong_signature",
            Some(format!("{signed}.{other_signature}")),
        ),
        (
            "changed",
            "wrong_signature",
            Some(format!("{header}.{}.{signature}", part(&json!({"sub": "alice"})))),
        ),
        ("signed by nobody", "wrong_algorithm", Some(format!("{none}.{body}."))),
        (
            "signed by nobody, with a signature",
            "wrong_algorithm",
            Some(format!("{none}.{body}.{signature}")),
        ),
        (
            "a MAC by the modulus",
            "wrong_algorithm",
            Some(mac_by(&guarded.rs256, &modulus, &claims)),
        ),
        (
            "a MAC by the public key",
            "wrong_algorithm",
            Some(mac_by(&guarded.rs256, &text(&public), &claims)),
        ),
        ("a MAC by nothing", "wrong_algorithm", Some(mac_by(&guarded.rs256, b"", &claims))),
        (
            "another algorithm than its key's",
            "wrong_algorithm",
            Some(guarded.es256.sign(&as_es256, &claims)),
        ),
        (
            "another key under a known name",
            "wrong_signature",
            Some(stranger.sign(&stranger.header(), &claims)),
        ),
        (
            "its own key beside it",
            "wrong_signature",
            Some(stranger.sign(&super::changed(stranger.header(), with_own_key), &claims)),
        ),
        ("an unknown key", "unknown_signing_key", Some(unknown.sign(&unknown.header(), &claims))),
        ("without the name of a key", "unknown_signing_key", Some(header_as(json!({"kid": null})))),
        ("with something critical", "malformed", Some(header_as(json!({"crit": ["exp"]})))),
        ("without a type", "wrong_type", Some(header_as(json!({"typ": null})))),
        ("a token about a logout", "wrong_type", Some(header_as(json!({"typ": "logout+jwt"})))),
        (
            "an ID token",
            "wrong_type",
            Some(id_token(guarded, &json!({"nonce": "n", "scope": null}))),
        ),
        (
            "an ID token with scopes",
            "wrong_type",
            Some(id_token(guarded, &json!({"at_hash": "h"}))),
        ),
        ("an ID token of Keycloak", "wrong_type", Some(id_token(guarded, &json!({"typ": "ID"})))),
        ("bound to a key", "wrong_type", Some(claims_as(stolen))),
        (
            "another issuer",
            "wrong_issuer",
            Some(claims_as(json!({"iss": "https://evil.example.com"}))),
        ),
        (
            "the issuer with a slash",
            "wrong_issuer",
            Some(claims_as(json!({"iss": format!("{}/", guarded.issuer.url)}))),
        ),
        ("no issuer", "wrong_claim", Some(claims_as(json!({"iss": null})))),
        (
            "another audience",
            "wrong_audience",
            Some(claims_as(json!({"aud": "https://mailbox.example.com"}))),
        ),
        ("other audiences", "wrong_audience", Some(claims_as(json!({"aud": ["a", "b"]})))),
        ("no audience", "wrong_audience", Some(claims_as(json!({"aud": null})))),
        ("expired", "expired", Some(claims_as(json!({"exp": now() - 31})))),
        ("without an end", "wrong_claim", Some(claims_as(json!({"exp": null})))),
        ("before its time", "not_yet_valid", Some(claims_as(json!({"nbf": now() + 120})))),
    ];
    rows.into()
}

fn good_of(guarded: &Guarded, client: &str) -> (String, String) {
    let token = guarded.token("acme", client, ALL);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    (signed.to_owned(), signature.to_owned())
}

/// An ID token for this audience, as one gets where the audience was set to the id of the client.
fn id_token(guarded: &Guarded, more: &Value) -> String {
    let claims = super::changed(guarded.claims("acme", "alice", ALL), more.clone());
    let header = super::changed(guarded.ed25519.header(), json!({"typ": "JWT"}));
    guarded.ed25519.sign(&header, &claims)
}

async fn no_door_opens_to_what_is_no_token_for_this_server(store: Store) {
    let audit = ("MCP_MESSAGING__LOG__AUDIT", "true");
    let guarded = planted(store, &[audit]).await;
    let mut labels = Vec::new();
    for (what, label, token) in wrong(&guarded) {
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
            assert!(!said.body.contains(SECRET), "{who}");
            labels.push(label);
        }
    }
    // A token in the query is none.
    let mut agent = guarded.site.here().agent("somebody");
    let good = guarded.token("acme", "alice", ALL);
    agent.url = format!("{}?access_token={good}", agent.url);
    assert_eq!(doors()[0].knock(&agent).await.status, 401);
    labels.push("missing");
    // Two of them are none either.
    let twice = agent.with_key(&good).post().header("authorization", format!("Bearer {good}"));
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
        assert_eq!(ask(token).await.0, 403);
    }
    assert_eq!(ask("none".to_owned()).await.0, 401);
}
