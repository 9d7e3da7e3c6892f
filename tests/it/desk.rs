//! `mcp-messaging send`, `inbox` and `hook`: the mailbox for shells, CI jobs and the hooks of agents' hosts.

use std::{
    io::Write,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    auth,
    support::{Agent, Replica, Store},
};

const TRY_AGAIN: i32 = 75;

/// Somebody's shell: a client id, and what its commands keep between calls.
struct Shell {
    variables: Vec<(&'static str, String)>,
    home: TempDir,
}

/// What a command did.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Shell {
    fn of(replica: &Replica, client: &str) -> Self {
        let url = format!("http://{}", replica.address());
        let variables =
            vec![("MCP_MESSAGING_URL", url), ("MCP_MESSAGING_CLIENT", client.to_owned())];
        Self { variables, home: tempfile::tempdir().unwrap() }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.retain(|(other, _)| *other != name);
        self.variables.push((name, value.to_owned()));
        self
    }

    fn start(&self, arguments: &[&str], input: &str) -> Child {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mcp-messaging"))
            .args(arguments)
            .env_clear()
            .env("HOME", self.home.path())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child
    }

    async fn run(&self, arguments: &[&str], input: &str) -> Ran {
        ended(self.start(arguments, input)).await
    }

    /// The hook at this event of a session.
    async fn hook(&self, event: &str, session: &str, more: &[&str]) -> Ran {
        self.run(&[&["hook"], more].concat(), &at(event, session)).await
    }
}

fn at(event: &str, session: &str) -> String {
    json!({ "hook_event_name": event, "session_id": session, "cwd": "/", "stop_hook_active": false })
        .to_string()
}

async fn ended(child: Child) -> Ran {
    let waiting = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let output = tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("an end");
    let Output { status, stdout, stderr } = output.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code().unwrap(), out: text(stdout), err: text(stderr) }
}

impl Ran {
    #[track_caller]
    fn quiet(&self) {
        assert_eq!((self.code, self.out.as_str(), self.err.as_str()), (0, "", ""));
    }

    #[track_caller]
    fn json(&self) -> Value {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{self:?}");
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("{}", self.out))
    }

    /// The reason why a host is to go on.
    #[track_caller]
    fn blocks(&self) -> String {
        let said = self.json();
        assert_eq!(said["decision"], "block");
        said["reason"].as_str().unwrap().to_owned()
    }
}

async fn depth(agent: &Agent) -> Value {
    let read = agent.request(1, "resources/read", json!({ "uri": "inbox://bob" })).await.unwrap();
    read["contents"][0]["_meta"]["mailbox"]["queued"].clone()
}

#[tokio::test]
async fn what_a_shell_sends_another_takes_once() {
    for store in [Store::Memory, Store::Redis] {
        let site = store.open().await;
        let (alice, bob) = (Shell::of(site.here(), "alice"), Shell::of(site.there(), "bob"));
        let none = bob.run(&["inbox"], "").await;
        assert_eq!((none.code, none.out.as_str(), none.err.as_str()), (TRY_AGAIN, "", ""));
        let sent = alice.run(&["send", "--to", "bob", "build 7 failed"], "").await;
        assert_eq!(sent.code, 0, "{sent:?}");
        let sent = alice.run(&["send", "--to", "bob", "--to", "carol", "--json"], "from a pipe\n");
        let sent = sent.await.json();
        assert_eq!(sent["results"].as_array().unwrap().len(), 2);
        let got = bob.run(&["inbox", "--json"], "").await.json();
        let texts: Vec<_> =
            got["messages"].as_array().unwrap().iter().map(|one| one["text"].clone()).collect();
        assert_eq!(texts, ["build 7 failed", "from a pipe\n"]);
        assert_eq!(bob.run(&["inbox"], "").await.code, TRY_AGAIN, "taken once");
        let agent = site.here().agent("alice");
        let id = sent["results"][0]["message_id"].clone();
        let status = agent
            .call("message_status", json!({ "sender_id": "alice", "message_ids": [id] }))
            .await;
        assert_eq!(status["messages"][0]["state"], "acknowledged", "{status}");
    }
}

#[tokio::test]
async fn an_inbox_is_emptied_portion_by_portion() {
    let site = Store::Memory.with(&[("MCP_MESSAGING__LIMITS__FETCH_MESSAGES", "2")]).await;
    let agent = site.here().agent("alice");
    for number in 0..5 {
        agent.send("bob", &format!("m{number}")).await;
    }
    let got = Shell::of(site.here(), "bob").run(&["inbox", "--json", "--wait", "1"], "").await;
    assert_eq!(got.code, 0, "{got:?}");
    let texts: Vec<String> = got
        .out
        .lines()
        .flat_map(|line| {
            let portion: Value = serde_json::from_str(line).unwrap();
            portion["messages"].as_array().unwrap().clone()
        })
        .map(|message| message["text"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(texts, ["m0", "m1", "m2", "m3", "m4"]);
    assert_eq!(depth(&agent).await, 0);
}

#[tokio::test]
async fn what_could_not_be_printed_stays() {
    let site = Store::Memory.with(&[("MCP_MESSAGING__MESSAGING__MANUAL_LEASE_SECONDS", "1")]).await;
    site.here().agent("alice").send("bob", "keep me").await;
    let bob = Shell::of(site.here(), "bob");
    let mut child = bob.start(&["inbox"], "");
    drop(child.stdout.take()); // a pipe whose reader has gone
    let broken = ended(child).await;
    assert_eq!(broken.code, 1, "{broken:?}");
    assert!(broken.err.contains("stays in the inbox"), "{broken:?}");
    let again = bob.run(&["inbox", "--json", "--wait", "20"], "").await.json();
    assert_eq!(again["messages"][0]["text"], "keep me");
    assert_eq!(again["messages"][0]["redelivered"], true);
}

#[tokio::test]
async fn a_shell_asks_and_gets_its_answer_or_says_that_there_is_none_yet() {
    let site = Store::Redis.open().await;
    let alice = Shell::of(site.here(), "alice");
    let asking = alice.start(&["send", "--to", "bob", "--wait", "30", "--json", "which?"], "");
    let bob = site.there().agent("bob");
    let question = bob.fetch(20).await["messages"][0]["message_id"].clone();
    let question = question.as_str().unwrap();
    let answer = ["send", "--to", "alice", "--in-reply-to", question, "that one"];
    assert_eq!(Shell::of(site.there(), "bob").run(&answer, "").await.code, 0);
    let said = ended(asking).await.json();
    assert_eq!((&said["status"], &said["reply"]["text"]), (&json!("replied"), &json!("that one")));
    let late = alice.run(&["send", "--to", "bob", "--wait", "1", "and now?"], "").await;
    assert_eq!(late.code, TRY_AGAIN, "{late:?}");
}

#[tokio::test]
async fn a_shell_is_told_what_is_wrong() {
    let site = Store::Memory.open().await;
    let alice = Shell::of(site.here(), "alice");
    let refused = alice.run(&["send", "--to", "not an id", "x"], "").await;
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("recipient_id"), "{refused:?}");
    assert_eq!(alice.run(&["send", "x"], "").await.code, 2, "to whom?");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nowhere = alice.with("MCP_MESSAGING_URL", &format!("http://{nobody}"));
    for command in [&["send", "--to", "bob", "x"][..], &["inbox"], &["hook"]] {
        let ran = nowhere.run(command, &at("Stop", "s")).await;
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
        assert!(ran.err.contains("refused"), "{ran:?}");
    }
    let odd = nowhere.with("MCP_MESSAGING_URL", "localhost");
    assert_eq!(odd.run(&["inbox"], "").await.code, 64);
}

#[tokio::test]
async fn an_agent_that_would_rest_is_told_once_of_mail_and_takes_it_itself() {
    for store in [Store::Memory, Store::Redis] {
        let site = store.open().await;
        let (alice, bob) = (site.here().agent("alice"), site.there().agent("bob"));
        let shell = Shell::of(site.there(), "bob");
        shell.hook("Stop", "one", &[]).await.quiet();
        alice.send("bob", "the secret word").await;
        let reason = shell.hook("Stop", "one", &[]).await.blocks();
        assert!(reason.starts_with("1 message waits in your mailbox from alice."), "{reason}");
        assert!(reason.contains("get_messages with client_id=bob"), "{reason}");
        assert!(!reason.contains("secret"), "{reason}");
        assert_eq!(depth(&bob).await, 1, "nothing was taken");
        // It does not want to: it may rest. Another session was not told, and neither was one that begins anew.
        shell.hook("Stop", "one", &[]).await.quiet();
        shell.hook("Stop", "two", &[]).await.blocks();
        let begins = shell.hook("SessionStart", "one", &[]).await.json();
        let context = begins["hookSpecificOutput"]["additionalContext"].as_str().unwrap();
        assert!(context.starts_with("1 message waits"), "{context}");
        alice.send("bob", "more").await;
        let reason = shell.hook("Stop", "one", &[]).await.blocks();
        assert!(reason.starts_with("2 messages wait"), "{reason}");
        assert_eq!(bob.texts(0).await, ["the secret word", "more"]);
        shell.hook("Stop", "one", &[]).await.quiet();
    }
}

#[tokio::test]
async fn messages_in_somebodys_hands_are_nothing_to_tell_of_until_they_come_back() {
    let site = Store::Memory.with(&[("MCP_MESSAGING__MESSAGING__MANUAL_LEASE_SECONDS", "1")]).await;
    let (alice, bob) = (site.here().agent("alice"), site.here().agent("bob"));
    let shell = Shell::of(site.here(), "bob");
    alice.send("bob", "x").await;
    shell.hook("Stop", "s", &[]).await.blocks();
    bob.call("get_messages", json!({ "client_id": "bob", "ack": "manual" })).await;
    shell.hook("Stop", "s", &[]).await.quiet();
    // Whoever took it has died: it is there again, and that is news.
    let reason = shell.hook("Stop", "s", &["--wait", "20"]).await.blocks();
    assert!(reason.starts_with("1 message waits"), "{reason}");
}

#[tokio::test]
async fn a_hook_that_waits_wakes_its_agent_when_mail_comes_on_another_replica() {
    for store in [Store::Memory, Store::Redis] {
        let site = store.open().await;
        let shell = Shell::of(site.there(), "bob");
        let waiting = shell.start(&["hook", "--wait", "40", "--rewake"], &at("Stop", "s"));
        site.there().counts("mcp_messaging_listeners", 1).await;
        site.here().agent("alice").send("bob", "wake up").await;
        let woken = ended(waiting).await;
        assert_eq!((woken.code, woken.out.as_str()), (2, ""), "{woken:?}");
        assert!(woken.err.starts_with("1 message waits in your mailbox from alice."), "{woken:?}");
        // It was told: the next one waits for more.
        shell.hook("Stop", "s", &["--wait", "1", "--rewake"]).await.quiet();
    }
}

#[tokio::test]
async fn where_no_session_idles_a_hook_that_would_wake_it_does_not_wait() {
    let site = Store::Memory.open().await;
    let shell = Shell::of(site.here(), "bob").with("CLAUDE_CODE_SESSION_ATTENDED", "0");
    // The command would be given up by this test before it had waited so long.
    shell.hook("Stop", "s", &["--wait", "3000", "--rewake"]).await.quiet();
    site.here().agent("alice").send("bob", "x").await;
    assert_eq!(shell.hook("Stop", "s", &["--wait", "3000", "--rewake"]).await.code, 2);
    let attended = shell.with("CLAUDE_CODE_SESSION_ATTENDED", "1");
    let waiting = attended.start(&["hook", "--wait", "40", "--rewake"], &at("Stop", "s"));
    site.here().counts("mcp_messaging_listeners", 1).await;
    site.here().agent("alice").send("bob", "y").await;
    assert_eq!(ended(waiting).await.code, 2);
}

#[tokio::test]
async fn a_hook_waits_on_while_its_server_is_away() {
    let site = Store::Redis.open().await;
    let mut there = Replica::on(&site.redis().unwrap().url()).await;
    let address = there.address();
    let shell = Shell::of(&there, "bob");
    let waiting = shell.start(&["hook", "--wait", "50"], &at("Stop", "s"));
    there.counts("mcp_messaging_listeners", 1).await;
    there.kill();
    site.here().agent("alice").send("bob", "while nobody listened").await;
    let port = address.port().to_string();
    let again = Replica::with(&site.redis().unwrap().url(), &[("MCP_SERVER_PORT", &port)]).await;
    assert_eq!(again.address(), address);
    assert!(ended(waiting).await.blocks().starts_with("1 message waits"));
}

#[tokio::test]
async fn the_latest_hook_of_a_session_waits_and_those_before_it_end() {
    let site = Store::Memory.open().await;
    let shell = Shell::of(site.here(), "bob");
    let older = shell.start(&["hook", "--wait", "50"], &at("Stop", "s"));
    site.here().counts("mcp_messaging_listeners", 1).await;
    let other = shell.start(&["hook", "--wait", "50"], &at("Stop", "another session"));
    let newer = shell.start(&["hook", "--wait", "50"], &at("Stop", "s"));
    ended(older).await.quiet();
    site.here().counts("mcp_messaging_listeners", 2).await;
    site.here().agent("alice").send("bob", "x").await;
    ended(newer).await.blocks();
    ended(other).await.blocks();
}

#[tokio::test]
async fn a_key_says_whose_mail_it_is_and_opens_nobody_elses() {
    let site = auth::guarded(Store::Memory, &[]).await;
    let key = auth::sealed(&auth::key("default", "bob", "read,send"));
    let anyone = Shell::of(site.here(), "");
    let anyone = Shell {
        variables: anyone
            .variables
            .into_iter()
            .filter(|(name, _)| *name != "MCP_MESSAGING_CLIENT")
            .collect(),
        ..anyone
    };
    let keyless = anyone.hook("Stop", "s", &[]).await;
    assert_eq!(keyless.code, 1);
    assert!(keyless.err.contains("401"), "{keyless:?}");
    let bob = anyone.with("MCP_MESSAGING_KEY", &key);
    assert_eq!(bob.run(&["send", "--to", "bob", "note to self"], "").await.code, 0);
    let reason = bob.hook("Stop", "s", &[]).await.blocks();
    assert!(reason.contains("from bob. Call get_messages of"), "{reason}");
    let foreign = bob.run(&["hook", "--client", "carol"], &at("Stop", "s")).await;
    assert_eq!(foreign.code, 1);
    assert!(foreign.err.contains("own clients only"), "{foreign:?}");
    for ran in [&keyless, &foreign] {
        assert!(!ran.err.contains(&key), "{ran:?}");
    }
    assert_eq!(bob.run(&["inbox"], "").await.code, 0);
}

#[tokio::test]
async fn where_no_key_says_whose_mail_it_is_the_hook_asks() {
    let site = Store::Memory.open().await;
    let url = format!("http://{}", site.here().address());
    let shell =
        Shell { variables: vec![("MCP_MESSAGING_URL", url)], home: tempfile::tempdir().unwrap() };
    let whose = shell.hook("Stop", "s", &[]).await;
    assert_eq!(whose.code, 1);
    assert!(whose.err.contains("--client or MCP_MESSAGING_CLIENT"), "{whose:?}");
    let event = shell.run(&["hook", "--client", "bob"], "not an event").await;
    assert!(event.code == 1 && event.err.contains("no event of a host"), "{event:?}");
    let event = shell.hook("PreToolUse", "s", &["--client", "bob"]).await;
    assert!(
        event.code == 1 && event.err.contains("nothing can be told at \"PreToolUse\""),
        "{event:?}"
    );
}
