//! Mode `proxy`: each way in with each wrong name, from the proxy and from elsewhere, and a real nginx that asks for
//! certificates.

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use mcp_messaging::tls::{self, CertificateFiles};
use reqwest::{
    Client as Http,
    header::{HeaderMap, HeaderValue},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    contacts,
    doors::{SECRET, Whose, doors},
    matrix::refused,
};
use crate::{
    house::{Client, post},
    support::{Agent, Authority, Replica, Site, Store},
};

on_every_store!(
    no_door_opens_to_who_is_not_named_by_the_proxy,
    no_door_opens_beyond_who_is_named,
    two_who_are_named_talk_and_are_verified,
);

const HEADER: &str = "x-client-name";
/// The proxy's address; everybody else here comes from 127.0.0.1.
const PROXY: &str = "127.0.0.2";

/// Servers that believe the proxy.
async fn believing(store: Store) -> Site {
    store
        .with(&[
            ("MCP_MESSAGING__AUTH__MODE", "proxy"),
            ("MCP_MESSAGING__PROXY__TRUSTED", PROXY),
            ("MCP_MESSAGING__PROXY__ADMINS", "acme/root"),
            ("MCP_MESSAGING__LOG__AUDIT", "true"),
        ])
        .await
}

/// Who comes from an address, with a name or without one.
fn coming(replica: &Replica, from: &str, name: Option<&[u8]>) -> Agent {
    let mut headers = HeaderMap::new();
    if let Some(name) = name {
        headers.insert(HEADER, HeaderValue::from_bytes(name).unwrap());
    }
    let from: IpAddr = from.parse().unwrap();
    let http = Http::builder().local_address(from).default_headers(headers);
    let http = http.timeout(Duration::from_secs(60)).build().unwrap();
    Agent { http, ..replica.agent("somebody") }
}

/// Whom the proxy names; it acts as the last part of its name.
fn named(replica: &Replica, name: &str) -> Agent {
    let id = name.rsplit('/').next().unwrap().trim_end_matches(".*").to_owned();
    Agent { id, ..coming(replica, PROXY, Some(name.as_bytes())) }
}

/// A site where alice of acme has checked in and has mail.
async fn planted(store: Store) -> Site {
    let site = believing(store).await;
    let alice = named(site.here(), "acme/alice");
    alice.call("checkin_client", json!({"name": "Alice", "capabilities": SECRET})).await;
    alice.send("alice", SECRET).await;
    site
}

/// Nothing of what was planted is gone, and nobody wrote as alice.
async fn untouched(site: &Site) {
    assert_eq!(named(site.there(), "acme/alice").texts(0).await, [SECRET], "her mail is hers");
    let mail = named(site.there(), "acme/dave").texts(0).await;
    assert!(mail.is_empty(), "nobody wrote as alice: {mail:?}");
}

async fn no_door_opens_to_who_is_not_named_by_the_proxy(store: Store) {
    const STRANGER: &str = "127.0.0.1";
    let site = planted(store).await;
    let mut labels = Vec::new();
    for (from, name, label) in [
        (PROXY, None, "missing"),
        (STRANGER, None, "missing"),
        (STRANGER, Some(&b"acme/alice"[..]), "not_the_proxy"),
        (STRANGER, Some(b"acme/alice.*"), "not_the_proxy"),
        (STRANGER, Some(b""), "not_the_proxy"),
        (PROXY, Some(b""), "malformed"),
        (PROXY, Some(b"-"), "malformed"),
        (PROXY, Some(b"acme/alice, acme/alice"), "malformed"),
        (PROXY, Some(b"CN=alice,O=acme"), "malformed"),
        (PROXY, Some(b"acme/alice/x"), "malformed"),
        (PROXY, Some(b"acme/al\xffice"), "malformed"),
    ] {
        let agent = coming(site.here(), from, name);
        for door in doors() {
            let said = door.knock(&agent).await;
            let who =
                format!("{} as {name:?} from {from}: {} {}", door.name, said.status, said.body);
            assert_eq!((said.status, said.challenge.as_deref()), (403, None), "{who}");
            assert!(!said.body.contains(SECRET), "{who}");
            let text = said.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
            assert!(text.contains("proxy") && !text.contains("Bearer"), "{who}");
            labels.push(label);
        }
        for path in ["/api/sessions", "/api/contacts", "/api/admin/members"] {
            let url = format!("http://{}{path}", site.here().address());
            assert_eq!(agent.http.get(url).send().await.unwrap().status(), 403, "{path} {name:?}");
            labels.push(label);
        }
    }
    // Two names are none, also where they are the same, and a key or a token beside one opens nothing.
    let agent = coming(site.here(), PROXY, None);
    for (headers, label) in [
        ([(HEADER, "acme/alice"), (HEADER, "acme/alice")], "malformed"),
        ([(HEADER, "acme/alice"), (HEADER, "")], "malformed"),
        ([("authorization", "Bearer acme/alice"), ("x-client", "acme/alice")], "missing"),
    ] {
        let mut request = agent.post();
        for (header, value) in headers {
            request = request.header(header, value);
        }
        let answer = request.json(&json!({})).send().await.unwrap();
        assert_eq!(answer.status(), 403, "{headers:?}");
        labels.push(label);
    }
    untouched(&site).await;
    // Each was refused for its own reason, and that is in the audit log.
    let log = site.into_first().ended_log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let refused = lines.filter(|line| line["action"] == "authenticate");
    let told: Vec<_> = refused.map(|line| line["result"].as_str().unwrap().to_owned()).collect();
    assert_eq!(told, labels);
}

async fn no_door_opens_beyond_who_is_named(store: Store) {
    let site = planted(store).await;
    for (name, own) in [
        ("acme/bob", "use bob, or leave it out"),
        ("acme/alic", "use alic, or leave it out"),
        ("acme/alice.*", "use ids that begin with alice. such as alice.1"),
        ("acme/ali.*", "use ids that begin with ali. such as ali.1"),
        ("acme/root", "use root, or leave it out"),
        ("bob", "use bob, or leave it out"),
        ("other/alice", ""),
    ] {
        let agent = named(site.here(), name);
        let (team, alice) = (name.starts_with("acme/"), name == "other/alice");
        for door in doors() {
            let said = door.knock(&agent).await;
            let who = format!("{} as {name}: {} {}", door.name, said.status, said.body);
            match door.whose {
                Whose::Holders | Whose::Team => assert!(said.is_served(), "{who}"),
                // Her name in another team: served, and she sees nothing of ours.
                Whose::Own if alice => assert!(said.is_served(), "{who}"),
                Whose::Own => refused(&door, &said, own, &who),
            }
            if door.whose == Whose::Team && door.method != "completion/complete" {
                assert_eq!(said.body.contains(SECRET), team, "{who}");
            }
            if door.whose != Whose::Team || !team {
                assert!(!said.body.contains(SECRET), "{who}");
            }
        }
    }
    // What is an admin's.
    let seen = async |name: &str, path: &str| {
        let url = format!("http://{}{path}", site.here().address());
        let answer = named(site.here(), name).http.get(url).send().await.unwrap();
        assert!(
            !answer.headers().contains_key("www-authenticate"),
            "there is nothing to log in to"
        );
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, list) = seen("acme/root", "/api/sessions").await;
    assert!(status == 200 && list.contains("\"client_id\":\"alice\""), "{status} {list}");
    for name in ["acme/alice", "root", "other/root", "acme/root.*"] {
        let (status, said) = seen(name, "/api/sessions").await;
        assert!(
            status == 403 && said.contains("your credential lacks the scope"),
            "{name}: {said}"
        );
    }
    // Nobody makes keys where nobody asks for them.
    if store == Store::Redis {
        let (status, _) = seen("acme/root", "/api/admin/contacts").await;
        assert_eq!(status, 200);
        let url = format!("http://{}/api/admin/keys", site.here().address());
        let root = named(site.here(), "acme/root");
        let answer = root.http.post(url).json(&json!({"client": "eve"})).send().await.unwrap();
        assert_eq!(answer.status(), 501);
    }
    untouched(&site).await;
}

async fn two_who_are_named_talk_and_are_verified(store: Store) {
    let site = believing(store).await;
    let (alice, bob) = (named(site.here(), "acme/alice"), named(site.there(), "acme/bob.*"));
    let laptop = Agent { id: "bob.laptop".to_owned(), ..bob };
    alice.send("bob.laptop", "hello").await;
    let got = laptop.fetch(10).await;
    let message = &got["messages"][0];
    assert_eq!((&message["from"], &message["verified_sender"]), (&json!("alice"), &json!(true)));
    let identity = alice.call("get_my_identity", json!({})).await;
    assert_eq!((&identity["client_id"], &identity["verified"]), (&json!("alice"), &json!(true)));
    // Whose messages she takes she says for herself.
    if store == Store::Redis {
        let url = format!("http://{}/api/contacts", site.here().address());
        let only = json!({"policy": "allow", "allow": ["carol"]});
        let said = alice.http.post(url).json(&only).send().await.unwrap();
        assert_eq!(said.status(), 200);
        let bob = named(site.there(), "acme/bob");
        contacts::comes_to_agent(&bob, "alice", "does not take messages").await;
    }
}

#[test]
fn whoever_would_believe_everybody_is_not_started() {
    let check = |more: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-messaging"));
        command.arg("check-config").env_clear().env("MCP_MESSAGING__AUTH__MODE", "proxy");
        let done = command.envs(more.iter().copied()).output().unwrap();
        (done.status.success(), String::from_utf8(done.stderr).unwrap())
    };
    let trusted = |list| ("MCP_MESSAGING__PROXY__TRUSTED", list);
    for (variables, culprit) in [
        (&[][..], "proxy.trusted must name the proxies"),
        (&[trusted("0.0.0.0/0")], "proxy.trust_anybody"),
        (&[trusted("10.0.0.1,::/0")], "proxy.trust_anybody"),
        (&[trusted("0.0.0.0/1,128.0.0.0/1")], "proxy.trust_anybody"),
        (&[trusted("nginx")], "proxy.trusted"),
        (&[trusted("10.0.0.1"), ("MCP_MESSAGING__PROXY__HEADER", "Authorization")], "proxy.header"),
        (&[trusted("10.0.0.1"), ("MCP_MESSAGING__PROXY__HEADER", "a b")], "proxy.header"),
        (&[trusted("10.0.0.1"), ("MCP_MESSAGING__PROXY__ADMINS", "a/b/c")], "proxy.admins"),
        (&[trusted("10.0.0.1"), ("MCP_MESSAGING__AUTH__MODE", "none")], "auth.mode"),
        (&[trusted("10.0.0.1"), ("MCP_MESSAGING__AUTH__MASTER_KEYS", super::MASTERS)], "auth.mode"),
    ] {
        let (fine, said) = check(variables);
        assert!(!fine && said.contains(culprit), "{variables:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let anybody = ("MCP_MESSAGING__PROXY__TRUST_ANYBODY", "true");
    for variables in [&[trusted("10.0.0.0/8,fd00::/16,::1")][..], &[trusted("0.0.0.0/0"), anybody]]
    {
        let (fine, said) = check(variables);
        assert!(fine, "{variables:?}: {said}");
    }
}

/// The nginx of this machine with the documented file, ended with this value.
struct Nginx {
    process: Child,
    address: SocketAddr,
    _dir: TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        self.process.wait().unwrap();
    }
}

/// From this address it reaches the servers.
const NGINX: &str = "127.0.0.3";

impl Nginx {
    /// `None`: this machine has none.
    async fn before(
        replica: &Replica,
        own: &CertificateFiles,
        clients: &Authority,
    ) -> Option<Self> {
        let documented = include_str!("../../../deploy/nginx-certificates.conf");
        let dir = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
        let mut site = documented.to_owned();
        for (placeholder, here) in [
            ("listen 443 ssl", format!("listen {address} ssl")),
            ("/etc/nginx/tls/server.pem", path(&own.certificate)),
            ("/etc/nginx/tls/server-key.pem", path(&own.key)),
            ("/etc/nginx/tls/clients-ca.pem", path(&clients.file())),
        ] {
            assert!(site.contains(placeholder), "{placeholder}");
            site = site.replace(placeholder, &here);
        }
        let here = path(dir.path());
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {here}/{kind};"))
            .concat();
        let whole = format!(
            "daemon off; master_process off; pid {here}/pid; error_log stderr; events {{}}\n\
             http {{ access_log off; {temporary} proxy_bind {NGINX};\n\
             upstream mcp_messaging {{ server {}; }}\n{site}}}\n",
            replica.address()
        );
        let file = dir.path().join("nginx.conf");
        std::fs::write(&file, whole).unwrap();
        let mut command = Command::new("nginx");
        command.args(["-e", "stderr", "-p", &here, "-c"]).arg(&file).stdin(Stdio::null());
        let process = match command.spawn() {
            Ok(process) => process,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => panic!("nginx does not start: {error}"),
        };
        let mut nginx = Self { process, address, _dir: dir };
        let patience = Instant::now() + Duration::from_secs(15);
        while tokio::net::TcpStream::connect(address).await.is_err() {
            assert!(nginx.process.try_wait().unwrap().is_none(), "nginx has ended");
            assert!(Instant::now() < patience, "nginx does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Some(nginx)
    }

    /// Status and body of a tool call, with a certificate or without one.
    async fn call(
        &self,
        authority: &Authority,
        own: Option<CertificateFiles>,
        headers: &str,
        (tool, arguments): (&str, Value),
    ) -> (u16, String) {
        let tls = tls::client(Some(&authority.file()), own).unwrap();
        let mut client = Client::connect_tls(self.address, Arc::new(tls)).await;
        let params = json!({"name": tool, "arguments": arguments});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        client
            .send(&post(&format!("Accept: application/json\r\n{headers}"), &body.to_string()))
            .await;
        let reply = client.reply().await;
        (reply.status, reply.body)
    }
}

#[tokio::test]
async fn behind_nginx_a_certificate_says_who_calls_and_nothing_else_does() {
    let replica = Replica::start(&[
        ("MCP_MESSAGING__AUTH__MODE", "proxy"),
        ("MCP_MESSAGING__PROXY__TRUSTED", NGINX),
    ]);
    let (clients, strangers, servers) = (Authority::new(), Authority::new(), Authority::new());
    let own = servers.issue("127.0.0.1");
    let Some(nginx) = Nginx::before(&replica, &own, &clients).await else {
        eprintln!("skipped: there is no nginx on this machine");
        return;
    };
    let who = || ("get_my_identity", json!({}));
    for (subject, headers, expected) in [
        (&["acme", "alice"][..], "", "alice"),
        (&["acme", "bob"], "", "bob"),
        // What a client says itself is overwritten.
        (&["acme", "alice"], "X-Client-Name: acme/bob\r\n", "alice"),
        (&["acme", "alice"], "x-client-name: acme/bob\r\nX-Client-Name: acme/eve\r\n", "alice"),
    ] {
        let own = clients.issue_to(subject);
        let (status, said) = nginx.call(&servers, Some(own), headers, who()).await;
        let said: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{status} {said}"));
        let identity = &said["result"]["structuredContent"];
        assert_eq!(identity["client_id"], expected, "{subject:?} {said}");
        assert_eq!(identity["verified"], true, "{said}");
    }
    // No name, one that would pass for a team or for windows, and a certificate of somebody else.
    for (own, headers, expected) in [
        (None, "X-Client-Name: acme/alice\r\n", 400),
        (Some(strangers.issue_to(&["acme", "alice"])), "", 400),
        (Some(clients.issue_to(&["acme"])), "", 403),
        (Some(clients.issue_to(&["acme", "alice/bob"])), "", 403),
        (Some(clients.issue_to(&["acme", "alice.*"])), "", 403),
        (Some(clients.issue_to(&["acme", "alice,O=other"])), "X-Client-Name: acme/alice\r\n", 403),
        (Some(clients.issue_to(&["acme", "other", "alice"])), "", 403),
    ] {
        let (status, said) = nginx.call(&servers, own, headers, who()).await;
        assert_eq!(status, expected, "{headers:?} {said}");
    }
    // Past the proxy nobody is anybody.
    let forged = coming(&replica, "127.0.0.1", Some(b"acme/alice"));
    assert_eq!(forged.post().json(&json!({})).send().await.unwrap().status(), 403);
    // A message from one certificate to the other.
    let letter = ("send_message", json!({"recipient_id": "bob", "message": "by certificate"}));
    let (status, said) =
        nginx.call(&servers, Some(clients.issue_to(&["acme", "alice"])), "", letter).await;
    assert!(status == 200 && said.contains("queued"), "{status} {said}");
    let fetch = ("get_messages", json!({"wait_seconds": 5}));
    let (_, said) = nginx.call(&servers, Some(clients.issue_to(&["acme", "bob"])), "", fetch).await;
    let said: Value = serde_json::from_str(&said).unwrap();
    let message = &said["result"]["structuredContent"]["messages"][0];
    assert_eq!(message["text"], "by certificate", "{said}");
    assert_eq!((&message["from"], &message["verified_sender"]), (&json!("alice"), &json!(true)));
}

#[test]
fn the_documented_lines_of_nginx_are_those_that_were_tried() {
    let tried = include_str!("../../../deploy/nginx-certificates.conf");
    let documented = include_str!("../../../docs/security.md");
    for beginning in
        ["map $ssl_client_s_dn", "    ssl_verify_client", "        proxy_set_header X-Client"]
    {
        let line = tried.lines().find(|line| line.starts_with(beginning)).unwrap();
        assert!(documented.contains(line.trim()), "{line}");
    }
}
