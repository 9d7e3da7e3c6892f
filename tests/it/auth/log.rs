//! The audit log says who did what; nothing else of the log says who, and nothing at all says what.

use serde_json::{Value, json};

use super::{
    FORGED, MASTERS,
    doors::{SECRET, doors},
    guarded, holder, key, made_with, sealed,
};
use crate::{
    support::{Listener, Replica, Store},
    traces::Collector,
};

const AUDIT: (&str, &str) = ("MCP_MESSAGING__LOG__AUDIT", "true");
const LOUD: (&str, &str) = ("LOG_LEVEL", "info,mcp_messaging=trace,audit=trace");

/// The lines of the audit log, and all others.
fn sorted(log: &str) -> (Vec<Value>, Vec<&str>) {
    let is_audit = |line: &&str| line.contains("\"target\":\"audit\"");
    let (audit, others): (Vec<_>, Vec<_>) = log.lines().partition(is_audit);
    (audit.into_iter().map(|line| serde_json::from_str(line).unwrap()).collect(), others)
}

#[tokio::test]
async fn who_did_what_to_whose_inbox_is_in_the_audit_log() {
    let site = guarded(Store::Memory, &[AUDIT]).await;
    let (alice, bob) = (holder(site.here(), "alice"), holder(site.here(), "bob"));
    let id = alice.send("bob", "twelve bytes").await;
    assert_eq!(bob.texts(0).await, ["twelve bytes"]);
    let spoof = json!({"sender_id": "carol", "recipient_id": "bob", "message": "x"});
    assert_eq!(bob.try_call("send_message", spoof).await.unwrap()["isError"], true);
    drop(Listener::of(&bob, &["inbox://me"]).await);
    let reader = site.here().agent("dave").with_key(&sealed(&key("acme", "dave", "read")));
    reader.try_call("message_status", json!({})).await.unwrap_err();
    let forged = made_with(FORGED, &key("acme", "eve", "read"));
    site.here()
        .agent("eve")
        .with_key(&forged)
        .try_call("list_clients", json!({}))
        .await
        .unwrap_err();

    let log = ended(site);
    let (audit, _) = sorted(&log);
    let said: Vec<Value> = audit
        .into_iter()
        .map(|mut line| {
            let members = line.as_object_mut().unwrap();
            for always in ["timestamp", "level", "target"] {
                assert!(members.remove(always).is_some());
            }
            line
        })
        .collect();
    let (acme, ok) = ("acme", "ok");
    assert_eq!(
        said,
        [
            json!({"action": "send", "tenant": acme, "client": "alice", "inbox": "bob",
                "message_id": id, "size": 12, "result": "queued"}),
            json!({"action": "take", "tenant": acme, "client": "bob", "inbox": "bob",
                "message_id": id, "size": 12, "result": ok}),
            json!({"action": "spoof_rejected", "tenant": acme, "client": "bob", "inbox": "carol",
                "result": "refused"}),
            json!({"action": "watch", "tenant": acme, "client": "bob", "inbox": "bob", "result": ok}),
            json!({"action": "scope_rejected", "tenant": acme, "client": "dave",
                "scope": "mailbox:send", "result": "refused"}),
            json!({"action": "authenticate", "result": "wrong_mac"}),
        ]
    );
}

/// Ends the one server of a site; everything that it logged.
fn ended(site: crate::support::Site) -> String {
    site.into_first().ended_log()
}

#[tokio::test]
async fn nothing_of_keys_and_clients_is_in_the_rest_of_the_log() {
    for audit in [false, true] {
        let audited = if audit { "true" } else { "false" };
        let variables = [LOUD, (AUDIT.0, audited)];
        let site = guarded(Store::Redis, &variables).await;
        let good = key("acme", "alice", "read,send,admin");
        let wrong = [made_with(FORGED, &good), sealed(&key("acme", "bob", "read"))];
        let tokens: Vec<String> = [sealed(&good)].into_iter().chain(wrong).collect();
        for token in &tokens {
            let agent = site.here().agent("somebody").with_key(token);
            for door in doors() {
                door.knock(&agent).await;
            }
        }
        let (_, metrics) = site.here().get("/metrics").await;
        let log = ended(site);
        let (said, others) = sorted(&log);
        assert_eq!(!said.is_empty(), audit);
        let secrets = secrets_of(&tokens);
        for text in others.into_iter().chain([&*metrics]) {
            for secret in &secrets {
                assert!(!text.contains(secret), "{secret} in {text}");
            }
        }
        // What was said, and what proves who said it, is in no log at all.
        for secret in secrets.iter().skip(4) {
            assert!(!log.contains(secret), "{secret} in the log");
        }
    }
}

/// What must not be anywhere but in the audit log.
fn secrets_of(tokens: &[String]) -> Vec<&str> {
    let mut secrets = vec!["alice", "bob", "dave", "acme", SECRET, "as alice", "mbk_"];
    secrets.extend(tokens.iter().flat_map(|token| token.split('.')));
    secrets.extend(MASTERS.split([',', ':']).filter(|part| part.len() > 20).map(str::trim));
    secrets
}

#[tokio::test]
async fn nothing_of_keys_and_clients_is_in_a_span() {
    let collector = Collector::start();
    let endpoint = collector.endpoint();
    let site = guarded(
        Store::Redis,
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "50"), AUDIT],
    )
    .await;
    let good = key("acme", "alice", "read,send,admin");
    let wrong = [made_with(FORGED, &good), sealed(&key("acme", "bob", "read"))];
    let tokens: Vec<String> = [sealed(&good)].into_iter().chain(wrong).collect();
    for token in &tokens {
        let agent = site.here().agent("somebody").with_key(token);
        for door in doors() {
            door.knock(&agent).await;
        }
        site.here().get(&format!("/api/sessions?key={token}")).await;
    }
    // Spans come in the order in which they end: with this one all others are there.
    let last = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let call = json!({"name": "list_clients", "arguments": {}, "_meta": {"traceparent": last}});
    holder(site.here(), "alice").request(1, "tools/call", call).await.unwrap();
    let spans = collector.spans_to(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736).await;
    assert!(spans.iter().any(|span| span.name == "tools/call get_messages"));
    let told = collector.everything();
    assert!(told.contains("tools/call send_message"), "what is exported is looked at");
    for secret in secrets_of(&tokens) {
        assert!(!told.contains(secret), "{secret} in a span");
    }
}

#[test]
fn a_server_never_shows_a_master_key() {
    let mut replica = Replica::start(&[
        ("MCP_MESSAGING__AUTH__MODE", "key"),
        ("MCP_MESSAGING__AUTH__MASTER_KEYS", MASTERS),
        LOUD,
    ]);
    let log = replica.ended_log();
    let secrets = MASTERS.split([',', ':']).filter(|part| part.len() > 20);
    for secret in secrets {
        assert!(!log.contains(secret.trim()), "{log}");
    }
}
