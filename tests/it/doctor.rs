//! `mcp-messaging doctor`: what it says of installations that work, and of those that do not.

use std::{
    process::{Command, Output},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    auth,
    support::{Persistence, RedisServer, Replica, Reply, Store},
};

async fn run(arguments: &[&str]) -> Output {
    run_with(arguments, &[]).await
}

async fn run_with(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-messaging"));
    command.args(arguments).env_clear().envs(variables.iter().copied());
    let running = tokio::task::spawn_blocking(move || command.output().unwrap());
    tokio::time::timeout(Duration::from_secs(60), running).await.expect("an end").unwrap()
}

/// What it says of this address, and whether all is well by its exit code.
async fn doctor(url: &str, more: &[&str]) -> (bool, Value) {
    doctor_with(url, more, &[]).await
}

async fn doctor_with(url: &str, more: &[&str], variables: &[(&str, &str)]) -> (bool, Value) {
    let output = run_with(&[&["doctor", "--url", url, "--json"], more].concat(), variables).await;
    let said = String::from_utf8(output.stdout).unwrap();
    let said: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
    let code = output.status.code().unwrap();
    assert_eq!(said["healthy"], code == 0, "{code} {said}");
    assert!(code < 2, "{code}");
    (code == 0, said)
}

fn check<'a>(said: &'a Value, name: &str) -> &'a Value {
    let found = said["checks"].as_array().unwrap().iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {said}"))
}

/// A check failed for this, and says what to do.
fn failed(said: &Value, name: &str, seen: &str) {
    let check = check(said, name);
    assert_eq!(check["verdict"], "failed", "{said}");
    assert!(check["seen"].as_str().unwrap().contains(seen), "{check}");
    assert!(check["fix"].is_string(), "{check}");
}

fn url(replica: &Replica) -> String {
    format!("http://{}", replica.address())
}

/// Hands each connection to the next of two replicas, as a balancer does.
async fn balancer(one: &Replica, two: &Replica) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let replicas = [one.address(), two.address()];
    tokio::spawn(async move {
        for turn in 0.. {
            let (mut client, _) = listener.accept().await.unwrap();
            let to = replicas[turn % 2];
            tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(to).await.unwrap();
                // Either side may hang up.
                drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
            });
        }
    });
    url
}

#[tokio::test]
async fn an_installation_that_works_is_healthy_and_nothing_is_left_in_it() {
    let redis = RedisServer::start(Persistence::None);
    let (one, two) = (Replica::on(&redis.url()).await, Replica::on(&redis.url()).await);
    let balancer = balancer(&one, &two).await;
    let (healthy, said) = doctor(&balancer, &[]).await;
    assert!(healthy, "{said}");
    let names: Vec<_> = said["checks"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    let all = ["reach", "auth", "protocol", "readiness", "round-trip", "wake-up", "clean-up"];
    assert_eq!(names, all);
    for name in ["round-trip", "wake-up"] {
        assert!(check(&said, name)["milliseconds"].is_u64(), "{said}");
    }
    assert!(check(&said, "reach")["seen"].as_str().unwrap().contains(env!("CARGO_PKG_VERSION")));
    let Reply::Array(keys) = redis.command(&["KEYS", "*:q"]) else { panic!("keys") };
    assert_eq!(keys, [], "mail is left");
    let listed = one.agent("somebody").call("list_clients", json!({})).await;
    assert!(!listed.to_string().contains("doctor"), "{listed}");
}

#[tokio::test]
async fn for_people_it_is_a_line_each_and_a_verdict() {
    let site = Store::Memory.open().await;
    let url = format!("{}/mcp", url(site.here()));
    let output = run(&["doctor", "--url", &url, "--readers", "1"]).await;
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.lines().filter(|line| line.starts_with("ok ")).count(), 7, "{said}");
    assert!(said.trim_end().ends_with(&format!("{url} works")), "{said}");
    assert!(output.status.success());
}

#[tokio::test]
async fn with_a_key_of_its_own_it_looks_at_an_installation_that_asks_for_keys() {
    let site = auth::guarded(Store::Redis, &[]).await;
    let url = url(site.here());
    let (healthy, said) = doctor(&url, &[]).await;
    assert!(!healthy);
    failed(&said, "auth", "401");
    let key = |client| auth::sealed(&auth::key("acme", client, "read,send"));
    let (healthy, said) = doctor(&url, &["--key", &key("doctor.*")]).await;
    assert!(healthy, "{said}");
    // Somebody else's mail is nothing to try with.
    let (healthy, said) = doctor(&url, &["--key", &key("alice")]).await;
    assert!(!healthy);
    failed(&said, "round-trip", "your credential is not that of this client_id");
    assert!(check(&said, "round-trip")["fix"].as_str().unwrap().contains("doctor.*"), "{said}");
    // Nor is a key that may not send: and what the key is to blame for is blamed on nothing else.
    let reader = auth::sealed(&auth::key("acme", "doctor.*", "read"));
    for key in [key("alice"), reader] {
        let (_, said) = doctor(&url, &["--key", &key]).await;
        assert!(check(&said, "round-trip")["fix"].as_str().unwrap().contains("doctor.*"), "{said}");
        for name in ["wake-up", "clean-up"] {
            assert_eq!(check(&said, name)["verdict"], "skipped", "{said}");
        }
    }
    let text = run(&["doctor", "--url", &url, "--key", &key("alice")]).await.stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("leave it out. The credential must be"), "{text}");
}

#[tokio::test]
async fn beside_the_master_keys_it_makes_itself_a_key_that_leaves_nothing() {
    let site = auth::guarded(Store::Redis, &[]).await;
    let url = url(site.here());
    let mode = ("MCP_MESSAGING__AUTH__MODE", "key");
    let ours = [mode, ("MCP_MESSAGING__AUTH__MASTER_KEYS", auth::MASTERS)];
    // Whatever became of keys for doctor.* that somebody issued: this one is for a name of its own.
    let store = site.redis().unwrap();
    store.command(&["HSET", "mb1:{k:default}:k", "g:doctor.*:2", "0"]);
    let revoked = auth::sealed(&auth::key("default", "doctor.*", "read,send"));
    let (healthy, _) = doctor(&url, &["--key", &revoked]).await;
    assert!(!healthy, "a key for doctor.* is revoked");
    let (healthy, said) = doctor_with(&url, &["--make-key"], &ours).await;
    assert!(healthy, "{said}");
    assert_eq!(check(&said, "auth")["seen"], "the credential is taken");
    assert!(!said.to_string().contains("mbk_"), "{said}");
    let Reply::Array(recorded) = store.command(&["HKEYS", "mb1:{k:default}:i"]) else {
        panic!("keys")
    };
    assert_eq!(recorded, [], "it is recorded");

    let others = format!("m9:{}", "A".repeat(43));
    let others = [mode, ("MCP_MESSAGING__AUTH__MASTER_KEYS", others.as_str())];
    let (healthy, said) = doctor_with(&url, &["--make-key"], &others).await;
    assert!(!healthy);
    failed(&said, "auth", "401");
    assert!(check(&said, "auth")["fix"].as_str().unwrap().contains("master key"), "{said}");
    let output = run_with(&["doctor", "--url", &url, "--make-key"], &[mode]).await;
    let why = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && why.contains("auth.master_keys"), "{why}");
    let both = ["doctor", "--url", &url, "--make-key", "--key", "mbk_x"];
    assert_eq!(run_with(&both, &ours).await.status.code(), Some(2), "one of them");
}

#[tokio::test]
async fn where_nobody_is_it_says_so() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (healthy, said) = doctor(&format!("http://{nobody}"), &[]).await;
    assert!(!healthy);
    failed(&said, "reach", "refused");
    assert_eq!(check(&said, "round-trip")["verdict"], "skipped");
}

#[tokio::test]
async fn a_path_that_is_no_mailbox_is_told_from_a_server_that_is_not_there() {
    let site = Store::Memory.open().await;
    let (healthy, said) = doctor(&format!("{}/elsewhere", url(site.here())), &[]).await;
    assert!(!healthy);
    failed(&said, "reach", "404");
    assert!(check(&said, "reach")["fix"].as_str().unwrap().contains("/mcp"), "{said}");
    assert_eq!(check(&said, "readiness")["verdict"], "ok", "{said}");
}

#[tokio::test]
async fn a_name_that_is_not_allowed_is_named() {
    let site = Store::Memory.open().await;
    // The address of this machine under a name that the server was not told.
    let url = format!("http://[::ffff:127.0.0.1]:{}", site.here().address().port());
    let (healthy, said) = doctor(&url, &[]).await;
    assert!(!healthy);
    failed(&said, "auth", "403");
    assert!(check(&said, "auth")["fix"].as_str().unwrap().contains("allowed_hosts"), "{said}");
}

#[tokio::test]
async fn a_redis_that_evicts_is_found_before_it_does() {
    let redis = RedisServer::start(Persistence::None);
    let one = Replica::on(&redis.url()).await;
    redis.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let (healthy, said) = doctor(&url(&one), &["--readers", "1"]).await;
    assert!(!healthy);
    failed(&said, "readiness", "maxmemory-policy");
    assert_eq!(check(&said, "round-trip")["verdict"], "ok", "{said}");
}

#[tokio::test]
async fn replicas_that_do_not_wake_their_waiters_are_found() {
    let redis = RedisServer::start_with(Persistence::None, &["--rename-command", "PUBLISH", ""]);
    let one = Replica::on(&redis.url()).await;
    let (healthy, said) = doctor(&url(&one), &[]).await;
    assert!(!healthy);
    failed(&said, "wake-up", "were not woken");
    assert_eq!(check(&said, "round-trip")["verdict"], "ok", "{said}");
    assert_eq!(check(&said, "clean-up")["verdict"], "ok", "{said}");
}

#[tokio::test]
async fn replicas_that_do_not_share_their_store_are_found() {
    let (one, two) = (Store::Memory.open().await, Store::Memory.open().await);
    let (healthy, said) =
        doctor(&balancer(one.here(), two.here()).await, &["--readers", "1"]).await;
    assert!(!healthy);
    failed(&said, "round-trip", "read 0");
}

/// A server that asks for a key, and what it was shown.
async fn guard(key: &'static str) -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (shown, heads) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let length = socket.read(&mut head).await.unwrap();
            let head = String::from_utf8_lossy(&head[..length]).into_owned();
            let answer = if head.contains(key) { "404 Not Found" } else { "401 Unauthorized" };
            shown.send(head).unwrap();
            let answer =
                format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, heads)
}

#[tokio::test]
async fn a_missing_key_is_told_from_a_wrong_one_and_neither_is_shown() {
    let (url, mut heads) = guard("Bearer right").await;
    let (healthy, said) = doctor(&url, &[]).await;
    assert!(!healthy);
    failed(&said, "auth", "401");
    assert!(check(&said, "auth")["fix"].as_str().unwrap().contains("--key"), "{said}");
    assert!(!heads.recv().await.unwrap().to_lowercase().contains("authorization"));
    let (_, said) = doctor(&url, &["--key", "wrong-secret"]).await;
    assert!(
        check(&said, "auth")["fix"].as_str().unwrap().contains("does not take this credential"),
        "{said}"
    );
    assert!(!said.to_string().contains("wrong-secret"), "{said}");
    let (_, said) = doctor(&url, &["--key", "right"]).await;
    failed(&said, "reach", "404");
}

#[tokio::test]
async fn two_agents_talk_until_their_time_is_over() {
    let site = Store::Redis.open().await;
    let url = url(site.here());
    let output = run(&["demo", "--url", &url, "--rate", "20", "--seconds", "3"]).await;
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let (first, last) = (said.lines().next().unwrap(), said.lines().last().unwrap());
    assert!(first.starts_with("demo.asker asks demo.answerer 20 times a second"), "{said}");
    let answered =
        last.strip_suffix(" questions were answered").unwrap_or_else(|| panic!("{said}"));
    assert!(answered.parse::<u64>().unwrap() >= 4, "{said}");
    let (_, metrics) = site.here().get("/metrics").await;
    let delivered = metrics
        .lines()
        .find_map(|line| line.strip_prefix(r#"mcp_messaging_messages_total{event="delivered"} "#))
        .unwrap();
    assert!(delivered.parse::<u64>().unwrap() >= 4, "{delivered}");
    for agent in ["demo.asker", "demo.answerer"] {
        assert!(site.here().agent(agent).texts(0).await.is_empty(), "mail is left for {agent}");
    }
}
