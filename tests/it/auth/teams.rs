//! The API of teams over HTTP: who may, what happens, and when every server knows.

use std::time::{Duration, Instant};

use mcp_messaging::auth::{ApiKey, MasterKeys};
use reqwest::Method;
use serde_json::{Value, json};

use super::{FORGED, MASTERS, UNKNOWN, guarded, key, made_with, sealed};
use crate::support::{Replica, Reply, Site, Store};

on_every_store!(no_way_of_the_api_opens_to_a_wrong_key);

const ALL: &str = "read,send,admin";

/// Every way of the API, with what an admin may send there.
fn ways() -> Vec<(Method, &'static str, Value)> {
    let (get, post) = (Method::GET, Method::POST);
    vec![
        (get.clone(), "/api/contacts", Value::Null),
        (post.clone(), "/api/contacts", json!({"policy": "open"})),
        (get.clone(), "/api/admin/keys", Value::Null),
        (post.clone(), "/api/admin/keys", json!({"client": "dave"})),
        (post.clone(), "/api/admin/keys/rotate", json!({"client": "dave"})),
        (post.clone(), "/api/admin/keys/revoke", json!({"client": "dave"})),
        (get.clone(), "/api/admin/invitations", Value::Null),
        (post.clone(), "/api/admin/invitations", json!({"role": "member"})),
        (post.clone(), "/api/admin/invitations/withdraw", json!({"id": "none"})),
        (get.clone(), "/api/admin/members", Value::Null),
        (post.clone(), "/api/admin/members/remove", json!({"client": "nobody"})),
        (get, "/api/admin/contacts", Value::Null),
        (post.clone(), "/api/admin/contacts", json!({"client": "dave"})),
        (post, "/api/admin/teams", json!({"teams": []})),
    ]
}

/// What the API said.
pub(super) struct Told {
    pub(super) status: u16,
    challenge: Option<String>,
    kind: String,
    pub(super) body: Value,
}

impl Told {
    /// The answer of what must have been done.
    #[track_caller]
    pub(super) fn done(self) -> Value {
        assert!(matches!(self.status, 200 | 201), "{} {}", self.status, self.body);
        self.body
    }

    /// Why it was refused, as problem details.
    #[track_caller]
    pub(super) fn refused(self, status: u16) -> String {
        assert_eq!(
            (self.status, &*self.kind),
            (status, "application/problem+json"),
            "{}",
            self.body
        );
        assert_eq!(self.body["status"], status);
        self.body["detail"].as_str().unwrap().to_owned()
    }
}

/// Asks a server, bearing this key.
pub(super) async fn ask(
    replica: &Replica,
    bearer: Option<&str>,
    method: Method,
    path: &str,
    body: &Value,
) -> Told {
    let url = format!("http://{}{path}", replica.address());
    let mut request = reqwest::Client::new().request(method, url);
    if let Some(bearer) = bearer {
        request = request.bearer_auth(bearer);
    }
    if !body.is_null() {
        request = request.json(body);
    }
    let answer = request.send().await.unwrap();
    let header =
        |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (challenge, kind) =
        (header("www-authenticate"), header("content-type").unwrap_or_default());
    assert_eq!(header("cache-control").as_deref(), Some("no-store"), "{path}");
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    Told {
        status,
        challenge,
        kind,
        body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
    }
}

pub(super) async fn post(replica: &Replica, bearer: &str, path: &str, body: Value) -> Told {
    ask(replica, Some(bearer), Method::POST, path, &body).await
}

pub(super) async fn get(replica: &Replica, bearer: &str, path: &str) -> Value {
    ask(replica, Some(bearer), Method::GET, path, &Value::Null).await.done()
}

async fn join(replica: &Replica, code: &str, client: Option<&str>) -> Told {
    let body = json!({"code": code, "client": client});
    ask(replica, None, Method::POST, "/api/join", &body).await
}

async fn invite(replica: &Replica, admin: &str, body: Value) -> (String, Value) {
    let invited = post(replica, admin, "/api/admin/invitations", body).await.done();
    (invited["code"].as_str().unwrap().to_owned(), invited)
}

pub(super) fn admin_of(tenant: &str) -> String {
    sealed(&key(tenant, "root", ALL))
}

/// The status of a call that needs nothing but a key.
async fn status(replica: &Replica, key: &str) -> u16 {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    replica.agent("x").with_key(key).post().json(&body).send().await.unwrap().status().as_u16()
}

/// Waits until every server refuses a key, and fails if that takes over ten seconds.
async fn refused_everywhere(site: &Site, key: &str) {
    let patience = Instant::now() + Duration::from_secs(10);
    for replica in [site.here(), site.there()] {
        while status(replica, key).await != 401 {
            assert!(Instant::now() < patience, "it is seen within 10 s");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn no_way_of_the_api_opens_to_a_wrong_key(store: Store) {
    let revoked = key("acme", "root", ALL);
    let id = revoked.id.to_string();
    let site = guarded(store, &[("MCP_MESSAGING__AUTH__REVOKED_KEYS", &id)]).await;
    let good = key("acme", "root", ALL);
    let expired = ApiKey { expires_at: Some(1_700_000_000), ..good.clone() };
    for (what, token) in [
        ("no key", None),
        ("malformed", Some("mbk_nothing".to_owned())),
        ("a guessed master key", Some(made_with(FORGED, &good))),
        ("an unknown master key", Some(made_with(UNKNOWN, &good))),
        ("expired", Some(sealed(&expired))),
        ("revoked", Some(sealed(&revoked))),
    ] {
        for (method, path, body) in ways() {
            let told = ask(site.here(), token.as_deref(), method, path, &body).await;
            assert!(told.challenge.as_deref().is_some_and(|it| it.starts_with("Bearer")), "{path}");
            assert!(told.refused(401).contains("key"), "{path} with {what}");
        }
    }
    let member = sealed(&key("acme", "alice", "read,send"));
    for (method, path, body) in ways() {
        let told = ask(site.here(), Some(&member), method, path, &body).await;
        if path.starts_with("/api/admin/") {
            let scope = "Bearer error=\"insufficient_scope\", scope=\"mailbox:admin\"";
            assert_eq!(told.challenge.as_deref(), Some(scope), "{path}");
            told.refused(403);
        } else {
            assert_eq!(told.status, if store == Store::Redis { 200 } else { 501 }, "{path}");
        }
    }
    // It opens to an admin, or says that there is no store for it.
    for (method, path, body) in ways() {
        let told = ask(site.here(), Some(&sealed(&good)), method, path, &body).await;
        match (store, path) {
            (Store::Memory, _) => {
                assert!(told.refused(501).contains("redis.url"), "{path}");
            }
            (Store::Redis, "/api/admin/invitations/withdraw" | "/api/admin/members/remove") => {
                told.refused(404);
            }
            (Store::Redis, _) => drop(told.done()),
        }
    }
    assert_eq!(status(site.here(), &member).await, 200, "and nothing of it took a key back");
}

#[tokio::test]
async fn where_nobody_proves_anything_there_are_no_teams() {
    let site = Store::Redis.open().await;
    for (method, path, body) in ways() {
        let told = ask(site.here(), None, method, path, &body).await;
        assert!(told.refused(501).contains("auth.mode = none"), "{path}");
    }
    assert!(join(site.here(), "mbj_default.x", None).await.refused(403).contains("not good"));
    let code = format!("mbj_default.{}", "A".repeat(32));
    assert!(join(site.here(), &code, None).await.refused(501).contains("master key"));
}

#[tokio::test]
async fn what_is_not_asked_for_is_refused_and_says_so() {
    let site = guarded(Store::Redis, &[]).await;
    let root = admin_of("acme");
    let here = site.here();
    for (path, body, said) in [
        ("/api/admin/keys", json!({}), "missing field `client`"),
        ("/api/admin/keys", json!({"client": "a b"}), "' '"),
        ("/api/admin/keys", json!({"client": "x,x.*"}), "client must be an id such as"),
        ("/api/admin/invitations", json!({"client": "x,x.*"}), "client must be an id such as"),
        ("/api/admin/keys", json!({"client": "x", "more": 1}), "unknown field `more`"),
        ("/api/admin/keys", json!({"client": "x", "scopes": ["write"]}), "scopes must be some of"),
        ("/api/admin/keys", json!({"client": "x", "days": 366}), "days must be 1 to 365"),
        ("/api/admin/keys", json!({"client": "x", "grace_hours": 1}), "keys/rotate"),
        ("/api/admin/keys/revoke", json!({}), "client or key"),
        ("/api/admin/keys/revoke", json!({"key": "x"}), "16 hexadecimal digits"),
        ("/api/admin/invitations", json!({"role": "owner"}), "unknown variant `owner`"),
        ("/api/admin/invitations", json!({"hours": 0}), "hours must be 1 to 720"),
        ("/api/admin/contacts", json!({"policy": "open"}), "client must be given"),
        ("/api/admin/teams", json!({"teams": ["a/b"]}), "1-64 characters"),
        ("/api/contacts", json!({"block": ["x*"]}), "must be a client id"),
    ] {
        let why = post(here, &root, path, body.clone()).await.refused(400);
        assert!(why.contains(said), "{path} {body}: {why}");
    }
    let long: Vec<_> = (0..101).map(|n| format!("c{n}")).collect();
    let why = post(here, &root, "/api/contacts", json!({"block": long})).await.refused(422);
    assert!(why.contains("100"), "{why}");
    let huge = json!({"client": "x".repeat(70_000)});
    post(here, &root, "/api/admin/keys", huge).await.refused(413);
    // Another method, another media type, another origin.
    let told = ask(here, Some(&root), Method::DELETE, "/api/admin/keys", &Value::Null).await;
    assert!(told.refused(405).contains("GET, POST"));
    let send = async |name: &'static str, value: &'static str| {
        let url = format!("http://{}/api/admin/keys", here.address());
        let request =
            reqwest::Client::new().post(url).bearer_auth(&root).body("{\"client\":\"x\"}");
        request.header(name, value).send().await.unwrap().status().as_u16()
    };
    assert_eq!(send("content-type", "text/plain").await, 415);
    assert_eq!(send("origin", "https://evil.example").await, 403);
    let listed = get(here, &root, "/api/admin/keys").await;
    assert_eq!(listed, json!({"keys": []}), "nothing of all that was done");
}

#[tokio::test]
async fn whoever_has_a_code_joins_once_with_a_key_of_its_own() {
    let site = guarded(Store::Redis, &[]).await;
    let (here, there, root) = (site.here(), site.there(), admin_of("acme"));
    let (code, invited) = invite(here, &root, json!({})).await;
    assert!(code.starts_with("mbj_acme.") && invited["role"] == "member");
    let listed = get(there, &root, "/api/admin/invitations").await;
    assert_eq!(listed["invitations"][0]["id"], invited["id"]);
    assert!(!listed.to_string().contains(&code), "it is shown once");
    assert!(join(there, &code, None).await.refused(400).contains("client is missing"));

    let joined = join(there, &code, Some("bob")).await.done();
    assert_eq!((&joined["team"], &joined["client"]), (&json!("acme"), &json!("bob")));
    assert_eq!(joined["scopes"], json!(["mailbox:read", "mailbox:send"]));
    let bob = joined["key"].as_str().unwrap();
    let masters: MasterKeys = MASTERS.parse().unwrap();
    let proved = ApiKey::open(bob, &masters).unwrap();
    assert_eq!((proved.tenant.as_str(), &*proved.grant.expose()), ("acme", "bob"));
    site.here().agent("bob").with_key(bob).send("bob", "it works").await;

    // Once, for whomever.
    for client in [Some("bob"), Some("eve"), None] {
        assert!(join(here, &code, client).await.refused(403).contains("not good"));
    }
    assert_eq!(get(here, &root, "/api/admin/invitations").await, json!({"invitations": []}));
    let members = get(here, &root, "/api/admin/members").await;
    assert_eq!(members["members"][0]["client"], "bob");
    assert_eq!(members["members"][0]["good_keys"], 1);
    // Another team has none of it.
    let other = admin_of("other");
    assert_eq!(get(here, &other, "/api/admin/members").await, json!({"members": []}));
    assert_eq!(get(here, &other, "/api/admin/keys").await, json!({"keys": []}));

    // A guess, a code of another team, what is none: one answer.
    let guess = format!("mbj_acme.{}", "A".repeat(32));
    let mut answers = Vec::new();
    for wrong in [&*guess, &code.replace("acme", "other"), "nothing", ""] {
        answers.push(join(here, wrong, Some("eve")).await.refused(403));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");

    // What is kept is no code and no key, and it stays.
    let (open, _) = invite(here, &root, json!({"client": "carol"})).await;
    let redis = site.redis().unwrap();
    assert_eq!(redis.command(&["TTL", "mb1:{k:acme}:t"]), Reply::Integer(-1));
    for name in ["mb1:{k:acme}:k", "mb1:{k:acme}:i", "mb1:{k:acme}:t"] {
        let kept = format!("{:?}", redis.command(&["HGETALL", name]));
        for secret in [&*code, &open, bob] {
            let secret = secret.rsplit('.').next().unwrap();
            assert!(!kept.contains(secret), "{kept}");
        }
    }
}

#[tokio::test]
async fn of_many_who_redeem_one_code_at_the_same_time_one_wins() {
    let site = guarded(Store::Redis, &[]).await;
    let root = admin_of("acme");
    for round in 0..5 {
        let (code, _) = invite(site.here(), &root, json!({})).await;
        let names: Vec<_> = (0..8).map(|n| format!("racer-{round}-{n}")).collect();
        let tries = names.iter().enumerate().map(|(n, name)| {
            let replica = if n % 2 == 0 { site.here() } else { site.there() };
            join(replica, &code, Some(name))
        });
        let told = futures_util::future::join_all(tries).await;
        let won = told.iter().filter(|told| told.status == 201).count();
        let refused = told.iter().filter(|told| told.status == 403).count();
        assert_eq!((won, refused), (1, 7), "round {round}");
        let members = get(site.there(), &root, "/api/admin/members").await;
        assert_eq!(members["members"].as_array().unwrap().len(), round + 1);
    }
    // Nor do two codes make two of one name.
    let codes = [
        invite(site.here(), &root, json!({})).await.0,
        invite(site.here(), &root, json!({})).await.0,
    ];
    let both = futures_util::future::join(
        join(site.here(), &codes[0], Some("twin")),
        join(site.there(), &codes[1], Some("twin")),
    );
    let (one, other) = both.await;
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
}

#[tokio::test]
async fn a_removed_member_is_refused_everywhere_within_ten_seconds() {
    let site = guarded(Store::Redis, &[]).await;
    let (here, root) = (site.here(), admin_of("acme"));
    let (code, _) = invite(here, &root, json!({"role": "admin"})).await;
    let joined = join(here, &code, Some("dana.*")).await.done();
    let dana = joined["key"].as_str().unwrap();
    assert_eq!(joined["role"], "admin");
    let further = post(here, dana, "/api/admin/keys", json!({"client": "dana.phone"})).await.done();
    let further = further["key"].as_str().unwrap();
    let (back_door, _) = invite(here, dana, json!({})).await;
    for good in [dana, further] {
        assert_eq!((status(here, good).await, status(site.there(), good).await), (200, 200));
    }
    // She is the one admin whose key is known here: not by accident.
    let remove = |client: &str| json!({"client": client});
    let path = "/api/admin/members/remove";
    assert!(post(here, dana, path, remove("dana.*")).await.refused(409).contains("admin key"));
    let revoke = json!({"client": "dana.*"});
    post(here, dana, "/api/admin/keys/revoke", revoke).await.refused(409);
    let demote = json!({"client": "dana.*", "scopes": ["read", "send"]});
    post(here, dana, "/api/admin/keys/rotate", demote).await.refused(409);
    assert_eq!(status(here, dana).await, 200);
    let other = json!({"client": "erin", "scopes": ["read", "send", "admin"]});
    let erin = post(here, dana, "/api/admin/keys", other).await.done();
    let erin = erin["key"].as_str().unwrap();

    post(here, erin, path, remove("dana.*")).await.done();
    refused_everywhere(&site, dana).await;
    refused_everywhere(&site, further).await;
    assert_eq!(status(here, erin).await, 200);
    // What she made goes with her.
    assert!(join(here, &back_door, Some("eve")).await.refused(403).contains("not good"));
    let members = get(here, erin, "/api/admin/members").await;
    assert_eq!(members["members"].as_array().unwrap().len(), 1, "{members}");
    post(here, erin, path, remove("dana.*")).await.refused(404);
    // Now she is the last one, unless she insists.
    post(here, erin, path, remove("erin")).await.refused(409);
    let insist = json!({"client": "erin", "even_the_last_admin": true});
    post(here, erin, path, insist).await.done();
    refused_everywhere(&site, erin).await;
}

#[tokio::test]
async fn an_admin_makes_no_key_that_may_do_more_than_its_own() {
    let site = guarded(Store::Redis, &[]).await;
    let here = site.here();
    let half = sealed(&key("acme", "half", "send,admin"));
    for (path, body) in [
        ("/api/admin/keys", json!({"client": "x", "scopes": ["read"]})),
        ("/api/admin/keys", json!({"client": "x"})),
        ("/api/admin/keys/rotate", json!({"client": "x", "scopes": ["mailbox:read"]})),
        ("/api/admin/invitations", json!({"role": "member"})),
        ("/api/admin/invitations", json!({"role": "admin"})),
    ] {
        let why = post(here, &half, path, body).await.refused(403);
        assert!(why.contains("you cannot give mailbox:read"), "{why}");
    }
    let own = json!({"client": "x", "scopes": ["send", "admin"]});
    let made = post(here, &half, "/api/admin/keys", own).await.done();
    assert_eq!(made["scopes"], json!(["mailbox:send", "mailbox:admin"]));
    assert_eq!(get(here, &half, "/api/admin/keys").await["keys"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn keys_are_issued_rotated_and_revoked_as_by_the_command() {
    let site = guarded(Store::Redis, &[]).await;
    let (here, there, root) = (site.here(), site.there(), admin_of("acme"));
    let issue =
        async || post(here, &root, "/api/admin/keys", json!({"client": "alice"})).await.done();
    let (first, second) = (issue().await, issue().await);
    let text = |made: &Value| made["key"].as_str().unwrap().to_owned();
    let (one, two) = (text(&first), text(&second));
    assert_eq!((status(here, &one).await, status(there, &two).await), (200, 200));
    let body = json!({"key": first["id"]});
    post(there, &root, "/api/admin/keys/revoke", body).await.done();
    refused_everywhere(&site, &one).await;
    assert_eq!(status(here, &two).await, 200);
    let rotate = json!({"client": "alice", "grace_hours": 1});
    let third = post(here, &root, "/api/admin/keys/rotate", rotate).await.done();
    assert_eq!(third["generation"], 2);
    let states = async || {
        let listed = get(there, &root, "/api/admin/keys").await;
        let listed = listed["keys"].as_array().unwrap().clone();
        assert!(listed.iter().all(|it| it.get("key").is_none()), "no key is in the list");
        [&first, &second, &third].map(|made| {
            let row = listed.iter().find(|row| row["id"] == made["id"]).unwrap();
            row["state"].as_str().unwrap().to_owned()
        })
    };
    assert_eq!(states().await, ["revoked", "ends", "good"]);
    assert_eq!((status(here, &two).await, status(here, &text(&third)).await), (200, 200));
    post(here, &root, "/api/admin/keys/revoke", json!({"client": "alice"})).await.done();
    refused_everywhere(&site, &two).await;
    refused_everywhere(&site, &text(&third)).await;
    assert_eq!(states().await, ["revoked"; 3]);
    // A key for more ids than are free.
    let taken = json!({"client": "alice.*"});
    post(here, &root, "/api/admin/keys", taken).await.done();
    let (code, _) = invite(here, &root, json!({})).await;
    for client in ["alice", "alice.*", "alice.phone", "alice.b.*"] {
        assert!(join(here, &code, Some(client)).await.refused(409).contains("belongs"), "{client}");
    }
    join(here, &code, Some("alicia")).await.done();
}

#[tokio::test]
async fn who_did_what_to_a_team_is_in_the_audit_log_and_no_code_or_key_is_in_any() {
    let loud = ("LOG_LEVEL", "info,mcp_messaging=trace,audit=trace");
    let site = guarded(Store::Redis, &[loud, ("MCP_MESSAGING__LOG__AUDIT", "true")]).await;
    let (here, root) = (site.here(), admin_of("acme"));
    let (code, _) = invite(here, &root, json!({"client": "bob"})).await;
    let guess = format!("mbj_acme.{}", "A".repeat(32));
    join(here, &guess, Some("eve")).await.refused(403);
    join(here, &code, Some("eve")).await.refused(409);
    let joined = join(here, &code, None).await.done();
    let bob = joined["key"].as_str().unwrap().to_owned();
    post(here, &bob, "/api/contacts", json!({"client": "alice"})).await.refused(403);
    let half = sealed(&key("acme", "half", "admin"));
    post(here, &half, "/api/admin/keys", json!({"client": "bob"})).await.refused(403);
    post(here, &root, "/api/admin/members/remove", json!({"client": "bob"})).await.done();
    let log = site.into_first().ended_log();
    let (audit, others): (Vec<_>, Vec<_>) =
        log.lines().partition(|line| line.contains("\"target\":\"audit\""));
    let said: Vec<_> = audit
        .iter()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            ["action", "client", "inbox", "result"]
                .map(|name| line[name].as_str().unwrap_or("-").to_owned())
        })
        .collect();
    let expected = [
        ["invite", "root", "bob", "ok"],
        ["join", "-", "-", "bad_code"],
        ["join", "-", "-", "refused"],
        ["join", "bob", "-", "ok"],
        ["set_contacts", "bob", "alice", "refused"],
        ["keys_issue", "half", "bob", "refused"],
        ["member_remove", "root", "bob", "ok"],
    ];
    assert_eq!(said, expected);
    for secret in [&code, &guess, &bob, &root] {
        for part in secret.split('.').filter(|part| *part != "mbj_acme") {
            assert!(!log.contains(part), "{part} in the log");
        }
    }
    for name in ["bob", "acme"] {
        assert!(!others.iter().any(|line| line.contains(name)), "{name} outside of the audit log");
    }
}

#[test]
fn every_way_of_the_api_is_documented() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/teams.md");
    let document = std::fs::read_to_string(document).unwrap();
    for (method, path, _) in ways() {
        assert!(document.contains(&format!("`{method} {path}")), "{method} {path}");
    }
}
