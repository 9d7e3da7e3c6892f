//! Where the keys come from: found, renewed, missed, and not asked for more often than needed. What takes
//! minutes is tested beside `SigningKeys`, where time can be moved.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    ALL, Guarded, Issuer, Signer, believing,
    issuer::{KEYS, METADATA},
    status,
};
use crate::support::{Agent, Replica, Store};

/// Calls until the answer has this status.
async fn becomes(agent: &Agent, expected: u16) {
    let patience = Instant::now() + Duration::from_secs(15);
    loop {
        let (status, said) = status(agent).await;
        if status == expected {
            return;
        }
        assert!(Instant::now() < patience, "{status} {said}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn tokens_of_every_kind_of_key_are_good() {
    let guarded = Guarded::open(Store::Memory, &[]).await;
    for key in [&guarded.ed25519, &guarded.es256, &guarded.rs256] {
        for typ in ["at+jwt", "JWT"] {
            let header = super::changed(key.header(), json!({"typ": typ}));
            let token = key.sign(&header, &guarded.claims("acme", "alice", ALL));
            let agent = guarded.site.here().agent("alice").with_key(&token);
            assert_eq!(status(&agent).await.0, 200, "{} {typ}", key.algorithm());
        }
    }
    assert_eq!(guarded.issuer.asked(KEYS), 1);
    // An algorithm that was not allowed is none, whatever the keys can do.
    let only = ("MCP_MESSAGING__OAUTH__ALGORITHMS", "ES256");
    let variables = [&believing(&guarded.issuer.url)[..], &[only]].concat();
    let strict = Replica::start(&variables);
    for (key, expected) in [(&guarded.ed25519, 401), (&guarded.es256, 200), (&guarded.rs256, 401)] {
        let token = key.sign(&key.header(), &guarded.claims("acme", "alice", ALL));
        let (status, said) = status(&strict.agent("alice").with_key(&token)).await;
        assert_eq!(status, expected, "{said}");
    }
}

#[tokio::test]
async fn a_new_key_is_good_at_once_and_the_old_one_no_more() {
    let guarded = Guarded::open(Store::Memory, &[]).await;
    let old = guarded.holder("alice");
    assert_eq!(status(&old).await.0, 200);
    let renewed = Signer::ed25519("renewed");
    guarded.issuer.publishes(&[&renewed]);
    let token = renewed.sign(&renewed.header(), &guarded.claims("acme", "alice", ALL));
    let new = guarded.site.here().agent("alice").with_key(&token);
    // Many at once, as when it is renewed under load.
    let all = (0..20).map(|_| status(&new));
    for (status, said) in futures_util::future::join_all(all).await {
        assert_eq!(status, 200, "{said}");
    }
    assert_eq!(status(&old).await.0, 401);
    assert_eq!(guarded.issuer.asked(KEYS), 2);
}

#[tokio::test]
async fn made_up_names_of_keys_reach_the_authorization_server_once() {
    let guarded = Guarded::open(Store::Memory, &[]).await;
    let made_up = |n: u32| {
        let header = json!({"alg": "EdDSA", "kid": format!("made up {n}"), "typ": "at+jwt"});
        let token = guarded.ed25519.sign(&header, &guarded.claims("acme", "alice", ALL));
        guarded.site.here().agent("alice").with_key(&token)
    };
    let agents: Vec<_> = (0..200).map(made_up).collect();
    let all = agents.iter().map(status);
    for (status, said) in futures_util::future::join_all(all).await {
        assert_eq!(status, 401, "{said}");
    }
    assert_eq!(guarded.issuer.asked(KEYS), 2, "once at start, once for all of them");
    assert_eq!(status(&guarded.holder("alice")).await.0, 200);
}

#[tokio::test]
async fn without_keys_nobody_is_let_in_and_they_are_found_when_they_come() {
    let key = Signer::ed25519("ed");
    let issuer = Issuer::with(&[&key]).await;
    issuer.answers(KEYS, 500, "", "");
    let replica = Replica::start(&believing(&issuer.url));
    let claims = json!({"iss": issuer.url, "aud": super::RESOURCE, "sub": "alice", "team": "acme",
        "scope": ALL, "exp": super::now() + 300});
    let agent = replica.agent("alice").with_key(&key.sign(&key.header(), &claims));
    becomes(&agent, 503).await;
    let answer = agent.post().json(&json!({})).send().await.unwrap();
    assert_eq!(answer.headers()["retry-after"], "2");
    assert!(!answer.headers().contains_key("www-authenticate"), "a new token would be no better");
    let text = answer.text().await.unwrap();
    assert!(text.contains("the keys of the authorization server cannot be had"), "{text}");
    // It is alive and ready all the same: another place would do no better.
    assert_eq!((replica.get("/livez").await.0, replica.get("/readyz").await.0), (200, 200));
    issuer.publishes(&[&key]);
    becomes(&agent, 200).await;
    // And from then on what is known serves.
    issuer.answers(KEYS, 500, "", "");
    issuer.answers(METADATA, 500, "", "");
    let unknown = Signer::ed25519("unknown");
    let hunter = replica.agent("alice").with_key(&unknown.sign(&unknown.header(), &claims));
    assert_eq!(status(&hunter).await.0, 401, "it was looked for");
    assert_eq!(status(&agent).await.0, 200);
}

/// What a server says of an authorization server that it does not believe.
async fn doubts(prepare: impl Fn(&Issuer)) -> String {
    let key = Signer::ed25519("ed");
    let issuer = Issuer::with(&[&key]).await;
    prepare(&issuer);
    let replica = Replica::start(&believing(&issuer.url));
    replica.says("the keys of the authorization server cannot be had").await;
    let claims = json!({"iss": issuer.url, "aud": super::RESOURCE, "sub": "alice", "team": "acme",
        "scope": ALL, "exp": super::now() + 300});
    let agent = replica.agent("alice").with_key(&key.sign(&key.header(), &claims));
    assert_eq!(status(&agent).await.0, 503);
    assert_eq!(issuer.asked("/elsewhere"), 0);
    replica.log()
}

#[tokio::test]
async fn an_authorization_server_must_be_the_one_that_was_configured_and_answer_itself() {
    let other = |issuer: &Issuer| {
        let keys = format!("{}{KEYS}", issuer.url);
        issuer.describes(&json!({"issuer": "https://id.example.com", "jwks_uri": keys}));
    };
    assert!(doubts(other).await.contains("metadata of another issuer than oauth.issuer"));
    let slash = |issuer: &Issuer| {
        let keys = format!("{}{KEYS}", issuer.url);
        issuer.describes(&json!({"issuer": format!("{}/", issuer.url), "jwks_uri": keys}));
    };
    assert!(doubts(slash).await.contains("metadata of another issuer than oauth.issuer"));
    let plain = |issuer: &Issuer| {
        let keys = "http://id.example.com/keys";
        issuer.describes(&json!({"issuer": issuer.url, "jwks_uri": keys}));
    };
    assert!(doubts(plain).await.contains("its jwks_uri must begin with https://"));
    let none = |issuer: &Issuer| issuer.answers(METADATA, 404, "", "");
    assert!(doubts(none).await.contains("HTTP 404"));
    for (path, what) in [(METADATA, "of metadata"), (KEYS, "of keys")] {
        let away = |issuer: &Issuer| issuer.answers(path, 302, "location: /elsewhere\r\n", "");
        assert!(doubts(away).await.contains("HTTP 302"), "a redirect {what} is not followed");
    }
    let large = |issuer: &Issuer| issuer.answers(KEYS, 200, "", &" ".repeat(300 * 1024));
    assert!(doubts(large).await.contains("an answer of more than 262144 bytes"));
    let html = |issuer: &Issuer| issuer.answers(KEYS, 200, "", "<html>");
    assert!(doubts(html).await.contains("not a JWK set"));
    let empty = |issuer: &Issuer| issuer.publishes(&[]);
    assert!(doubts(empty).await.contains("no key in it"));
}

#[tokio::test]
async fn the_place_of_the_keys_can_be_said_and_metadata_found_where_openid_puts_it() {
    let key = Signer::ed25519("ed");
    let issuer = Issuer::with(&[&key]).await;
    let keys = format!("{}{KEYS}", issuer.url);
    let realm = format!("{}/realms/agents", issuer.url);
    let claims = json!({"iss": realm, "aud": super::RESOURCE, "sub": "alice", "team": "acme",
        "scope": ALL, "exp": super::now() + 300});
    let token = key.sign(&key.header(), &claims);
    // Said: no metadata is read.
    let said = ("MCP_MESSAGING__OAUTH__JWKS_URL", &*keys);
    let replica = Replica::start(&[&believing(&realm)[..], &[said]].concat());
    becomes(&replica.agent("alice").with_key(&token), 200).await;
    assert_eq!(issuer.asked(METADATA), 0);
    // Not said: by the metadata of a realm, as Keycloak has it.
    let metadata = json!({"issuer": realm, "jwks_uri": keys}).to_string();
    issuer.answers("/realms/agents/.well-known/openid-configuration", 200, "", &metadata);
    let replica = Replica::start(&believing(&realm));
    becomes(&replica.agent("alice").with_key(&token), 200).await;
    assert_eq!(issuer.asked("/.well-known/oauth-authorization-server/realms/agents"), 1);
}
