//! Mode `oauth`: whose tokens open what, and where their keys come from.

mod issuer;
mod keys;
mod metadata;
mod talk;
mod tokens;

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use self::issuer::{Issuer, Signer};
use crate::support::{Agent, Site, Store};

/// The public URL of the endpoint, as it was configured. Nobody has to reach it.
const RESOURCE: &str = "https://mailbox.example.com/mcp";
/// What every challenge says.
const METADATA_AT: &str =
    "resource_metadata=\"https://mailbox.example.com/.well-known/oauth-protected-resource/mcp\"";

/// An authorization server with one key of each kind, and servers that believe it.
struct Guarded {
    site: Site,
    issuer: Issuer,
    ed25519: Signer,
    es256: Signer,
    rs256: Signer,
}

/// Seconds since the Unix epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Bad tokens come by the hundred here, from one address.
fn believing(issuer: &str) -> [(&str, &str); 5] {
    [
        ("MCP_MESSAGING__AUTH__MODE", "oauth"),
        ("MCP_MESSAGING__OAUTH__ISSUER", issuer),
        ("MCP_MESSAGING__OAUTH__RESOURCE", RESOURCE),
        ("MCP_MESSAGING__OAUTH__TENANT_CLAIM", "team"),
        ("MCP_MESSAGING__AUTH__FAILURES_PER_MINUTE", "0"),
    ]
}

impl Guarded {
    async fn open(store: Store, more: &[(&str, &str)]) -> Self {
        let keys = [Signer::ed25519("ed"), Signer::es256("es"), Signer::rs256("rs")];
        let issuer = Issuer::with(&[&keys[0], &keys[1], &keys[2]]).await;
        let site = store.with(&[&believing(&issuer.url)[..], more].concat()).await;
        let [ed25519, es256, rs256] = keys;
        Self { site, issuer, ed25519, es256, rs256 }
    }

    /// The claims of a token for this client of a team.
    fn claims(&self, team: &str, client: &str, scopes: &str) -> Value {
        json!({"iss": self.issuer.url, "aud": RESOURCE, "sub": client, "team": team,
            "scope": scopes, "exp": now() + 300, "iat": now(), "client_id": "an-ide", "jti": "1"})
    }

    fn token(&self, team: &str, client: &str, scopes: &str) -> String {
        self.ed25519.sign(&self.ed25519.header(), &self.claims(team, client, scopes))
    }

    /// A token with other claims; `null` takes one away.
    fn with_claims(&self, changes: Value) -> String {
        let claims = changed(self.claims("acme", "alice", ALL), changes);
        self.ed25519.sign(&self.ed25519.header(), &claims)
    }

    /// A token with another header; the signature is right for it.
    fn with_header(&self, changes: Value) -> String {
        let header = changed(self.ed25519.header(), changes);
        self.ed25519.sign(&header, &self.claims("acme", "alice", ALL))
    }

    /// The holder of a token of `acme`.
    fn holder(&self, client: &str) -> Agent {
        let token = self.token("acme", client, "mailbox:read mailbox:send");
        self.site.here().agent(client).with_key(&token)
    }
}

const ALL: &str = "mailbox:read mailbox:send mailbox:admin";

fn changed(mut object: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { panic!("{changes}") };
    let members = object.as_object_mut().unwrap();
    for (name, value) in changes {
        if value.is_null() {
            members.remove(&name);
        } else {
            members.insert(name, value);
        }
    }
    object
}

/// The status of a call that needs no scope of its own, and what it says.
async fn status(agent: &Agent) -> (u16, String) {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let answer = agent.post().json(&body).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}
