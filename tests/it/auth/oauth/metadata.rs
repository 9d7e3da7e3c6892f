//! What clients are told before they have a token, and what a configuration must be.

use std::process::Command;

use serde_json::{Value, json};

use super::{Guarded, METADATA_AT, RESOURCE, believing};
use crate::{
    auth::MASTERS,
    support::{Replica, Store},
};

const AT: &str = "/.well-known/oauth-protected-resource";

async fn ask(replica: &Replica, method: reqwest::Method, path: &str) -> reqwest::Response {
    let url = format!("http://{}{path}", replica.address());
    reqwest::Client::new().request(method, url).send().await.unwrap()
}

#[tokio::test]
async fn the_metadata_of_the_resource_is_where_clients_look_and_for_everybody() {
    let guarded = Guarded::open(Store::Memory, &[]).await;
    let here = guarded.site.here();
    for path in [AT, &format!("{AT}/mcp"), &format!("{AT}/mcp/")] {
        let answer = ask(here, reqwest::Method::GET, path).await;
        assert_eq!(answer.status(), 200, "{path}");
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("cache-control"), "public, max-age=600");
        assert_eq!(header("access-control-allow-origin"), "*");
        let said: Value = answer.json().await.unwrap();
        assert_eq!(
            said,
            json!({
                "resource": RESOURCE,
                "resource_name": "mcp-messaging",
                "authorization_servers": [guarded.issuer.url],
                "scopes_supported": ["mailbox:read", "mailbox:send"],
                "bearer_methods_supported": ["header"],
            })
        );
        // A page asks first whether it may, with the header that MCP has.
        let preflight = ask(here, reqwest::Method::OPTIONS, path).await;
        assert_eq!(preflight.status(), 204);
        assert_eq!(preflight.headers()["access-control-allow-headers"], "*");
    }
    // The challenge leads to it.
    let answer = here.agent("x").post().json(&json!({})).send().await.unwrap();
    let challenge = answer.headers()["www-authenticate"].to_str().unwrap();
    assert!(answer.status() == 401 && challenge.contains(METADATA_AT), "{challenge}");
    for path in
        [format!("{AT}/other"), format!("{AT}x"), "/.well-known/openid-configuration".into()]
    {
        assert_eq!(ask(here, reqwest::Method::GET, &path).await.status(), 404, "{path}");
    }
    assert_eq!(ask(here, reqwest::Method::POST, AT).await.status(), 405);
    // A page of another name that leads here learns nothing.
    let url = format!("http://{}{AT}", here.address());
    let foreign = reqwest::Client::new().get(url).header("host", "evil.example.com");
    assert_eq!(foreign.send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn where_there_is_nothing_to_log_in_to_there_is_no_metadata() {
    let keyed =
        [("MCP_MESSAGING__AUTH__MODE", "key"), ("MCP_MESSAGING__AUTH__MASTER_KEYS", MASTERS)];
    for variables in [&[][..], &keyed] {
        let replica = Replica::start(variables);
        for path in [AT, &format!("{AT}/mcp")] {
            assert_eq!(ask(&replica, reqwest::Method::GET, path).await.status(), 404);
        }
    }
}

#[test]
fn a_configuration_that_cannot_work_is_refused_with_its_culprit() {
    let check = |changes: &[(&str, &str)]| {
        let mut variables = believing("https://id.example.com").to_vec();
        variables.extend(changes);
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-messaging"));
        command.env_clear().arg("check-config").envs(variables);
        let said = command.output().unwrap();
        (said.status.success(), String::from_utf8(said.stderr).unwrap())
    };
    assert_eq!(check(&[]), (true, String::new()));
    for (name, value, culprit) in [
        ("OAUTH__ISSUER", "", "oauth.issuer must be set"),
        ("OAUTH__ISSUER", "http://id.example.com", "oauth.issuer must begin with https://"),
        ("OAUTH__ISSUER", "id.example.com", "oauth.issuer must be a URL"),
        ("OAUTH__ISSUER", "https://id.example.com?x=1", "oauth.issuer must have no query"),
        ("OAUTH__RESOURCE", "", "oauth.resource must be set"),
        (
            "OAUTH__RESOURCE",
            "https://mailbox.example.com/mcp#x",
            "oauth.resource must have no user",
        ),
        ("OAUTH__RESOURCE", "http://mailbox.example.com/mcp", "oauth.resource must begin with"),
        (
            "OAUTH__JWKS_URL",
            "http://id.example.com/keys",
            "oauth.jwks_url must begin with https://",
        ),
        ("OAUTH__ALGORITHMS", "RS256,HS256", "oauth.algorithms \"HS256\" must be some of RS256"),
        ("OAUTH__ALGORITHMS", "none", "oauth.algorithms \"none\" must be some of RS256"),
        ("OAUTH__TENANT_CLAIM", "sub", "oauth.tenant_claim must be another claim"),
        ("OAUTH__LEEWAY_SECONDS", "3600", "oauth.leeway_seconds must be at most 300"),
        ("OAUTH__AUDIENCES", "x", "audiences"),
        ("AUTH__MODE", "none", "auth.mode must be oauth when oauth.issuer"),
        ("AUTH__MODE", "jwt", "auth.mode must be none, key, oauth or proxy"),
        ("AUTH__MASTER_KEYS", MASTERS, "auth.mode must be key when auth.master_keys"),
    ] {
        let (usable, said) = check(&[(&format!("MCP_MESSAGING__{name}"), value)]);
        assert!(!usable && said.contains(culprit), "{name}={value}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }
}
