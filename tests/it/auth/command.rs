//! `mcp-messaging keys`, as the program itself, against servers that hear of it.

use std::{
    process::{Command, Output},
    time::{Duration, Instant},
};

use mcp_messaging::auth::{ApiKey, MasterKeys};
use serde_json::json;

use super::{KEYED, MASTERS, guarded, key, sealed};
use crate::support::{Agent, Persistence, RedisServer, Replica, Reply, Site, Store};

/// Runs the program to its end.
pub(super) fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-messaging"));
    command.env_clear().args(arguments).envs(variables.iter().copied());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.success(), text(stdout), text(stderr))
}

/// Runs `keys ...` beside the servers of a site; what it prints.
fn keys(site: &Site, arguments: &str) -> String {
    let url = site.redis().unwrap().url();
    let variables = [&KEYED[..], &[("REDIS_URL", &url)]].concat();
    let words: Vec<_> = ["keys"].into_iter().chain(arguments.split(' ')).collect();
    let (done, said, why) = run(&words, &variables);
    assert!(done, "keys {arguments}: {why}");
    said.trim_end().to_owned()
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
            assert!(Instant::now() < patience, "a revocation is seen within 10 s");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[test]
fn a_master_key_is_made_and_keys_with_it() {
    let (done, master, _) = run(&["keys", "master"], &[]);
    assert!(done);
    let master = master.trim_end();
    let masters: MasterKeys = master.parse().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("# ours\n{master}\n")).unwrap();
    let path = file.path().to_str().unwrap();
    let with_file =
        [("MCP_MESSAGING__AUTH__MODE", "key"), ("MCP_MESSAGING__AUTH__MASTER_KEYS_FILE", path)];
    let with_variable =
        [("MCP_MESSAGING__AUTH__MODE", "key"), ("MCP_MESSAGING__AUTH__MASTER_KEYS", master)];
    for variables in [with_file, with_variable] {
        let arguments = [
            "keys", "issue", "--tenant", "acme", "--client", "alice.*", "--scopes", "read",
            "--days", "0",
        ];
        let (done, said, hint) = run(&arguments, &variables);
        assert!(done, "{hint}");
        let key = ApiKey::open(said.trim_end(), &masters).unwrap();
        assert_eq!((key.tenant.as_str(), &*key.grant.expose()), ("acme", "alice.*"));
        assert_eq!(
            (key.scopes, key.generation, key.expires_at),
            ("read".parse().unwrap(), 1, None)
        );
        for part in
            ["claude mcp add --transport http", "\"Authorization\": \"Bearer KEY\"", "mcpServers"]
        {
            assert!(hint.contains(part), "{hint}");
        }
        assert!(hint.contains(&key.id.to_string()) && !hint.contains("mbk_"), "{hint}");
        // Nothing shows the master key.
        let (done, shown, _) = run(&["check-config"], &variables);
        let secret = master.split(':').nth(1).unwrap();
        assert!(done && !shown.contains(secret), "{shown}");
    }
    let (_, said, _) = run(&["keys", "issue", "--client", "bob"], &with_variable);
    let bob = ApiKey::open(said.trim_end(), &masters).unwrap();
    assert!(bob.expires_at.is_some() && bob.tenant.as_str() == "default");
}

/// Who is told to make a key has a configuration that lacks it.
#[test]
fn a_secret_is_made_for_a_configuration_that_lacks_it() {
    for (what, mode) in
        [("master", "MCP_MESSAGING__AUTH__MODE"), ("encryption", "MCP_MESSAGING__ENCRYPTION__MODE")]
    {
        let lacks = [(mode, if what == "master" { "key" } else { "seal" })];
        let (done, _, why) = run(&["check-config"], &lacks);
        assert!(!done && why.contains(&format!("`mcp-messaging keys {what}` makes one")), "{why}");
        let (done, made, why) = run(&["keys", what], &lacks);
        assert!(done && made.parse::<MasterKeys>().is_ok(), "{why}");
    }
}

#[test]
fn a_mistake_is_told_in_one_line_and_no_secret_in_it() {
    let keyed = |masters: &'static str| {
        [("MCP_MESSAGING__AUTH__MODE", "key"), ("MCP_MESSAGING__AUTH__MASTER_KEYS", masters)]
    };
    let none = [("MCP_MESSAGING__AUTH__MODE", "key")];
    let file = [none[0], ("MCP_MESSAGING__AUTH__MASTER_KEYS_FILE", "/nowhere/keys")];
    let unsaid = [("MCP_MESSAGING__AUTH__MASTER_KEYS", MASTERS)];
    let revoked = [KEYED[0], KEYED[1], ("MCP_MESSAGING__AUTH__REVOKED_KEYS", "hunter")];
    let audit = [("MCP_MESSAGING__LOG__AUDIT", "true")];
    let issue = &["keys", "issue", "--client", "alice"][..];
    let revoke = &["keys", "revoke", "--client", "alice"][..];
    for (arguments, variables, said) in [
        (issue, &none[..], "auth.master_keys or auth.master_keys_file must be set"),
        (issue, &[], "auth.master_keys holds no key; give the one that the servers have, or make"),
        (issue, &keyed("hunter2"), "auth.master_keys must hold keys"),
        (issue, &file, "auth.master_keys_file /nowhere/keys: "),
        (issue, &unsaid, "auth.mode must be key when"),
        (&["serve"], &none, "auth.master_keys or auth.master_keys_file must be set"),
        (&["serve"], &keyed("hunter2"), "auth.master_keys must hold keys"),
        (&["check-config"], &keyed("hunter2"), "auth.master_keys must hold keys"),
        (&["serve"], &revoked, "auth.revoked_keys \"hunter\" is not the id of a key"),
        (&["serve"], &audit, "log.audit needs auth.mode"),
        (revoke, &KEYED, "the servers hear of it through Redis"),
        (&["keys", "list"], &KEYED, "the servers hear of it through Redis"),
        (&["keys", "rotate", "--client", "alice"], &KEYED, "the servers hear of it through Redis"),
    ] {
        let (done, _, why) = run(arguments, variables);
        assert!(!done && why.contains(said), "{arguments:?}: {why}");
        assert!(why.lines().count() == 1 && !why.contains("hunter2"), "{why}");
    }
    for bad in [
        &["keys", "issue"][..],
        &["keys", "issue", "--client", "alice*"],
        &["keys", "issue", "--client", "alice", "--scopes", "write"],
        &["keys", "issue", "--client", "alice", "--tenant", "a/b"],
        &["keys", "revoke"],
        &["keys", "revoke", "--key", "1", "--client", "alice"],
    ] {
        assert!(!run(bad, &KEYED).0, "{bad:?}");
    }
}

/// Nobody there, and somebody who does not let us in, are two things to mend.
#[test]
fn a_redis_that_does_not_answer_a_command_is_told_with_what_to_do() {
    let redis = RedisServer::start(Persistence::None);
    let stranger = redis.url().replace("redis://", "redis://nobody:hunter2@");
    let all = ["keys list", "keys issue --client alice", "team members", "pairs list", "migrate"];
    for (url, seconds, commands, why) in [
        ("redis://127.0.0.1:1", "0.5", &all[..], "see REDIS_URL"),
        (&stranger, "3", &all[3..], "see the password"),
    ] {
        let retry = ("MCP_MESSAGING__REDIS__RETRY_SECONDS", seconds);
        let variables = [KEYED[0], KEYED[1], ("REDIS_URL", url), retry];
        for command in commands {
            let words: Vec<_> = command.split(' ').collect();
            let (done, _, said) = run(&words, &variables);
            let last = said.lines().last().unwrap_or_default();
            assert!(!done && last.contains(why) && !said.contains("hunter2"), "{command}: {said}");
        }
    }
}

#[tokio::test]
async fn what_is_taken_back_is_refused_by_every_server_and_new_keys_are_good() {
    let site = guarded(Store::Redis, &[]).await;
    let issue = "issue --tenant acme --client alice";
    let (first, second) = (keys(&site, issue), keys(&site, issue));
    let bob = keys(&site, "issue --tenant acme --client bob");
    let below = keys(&site, "issue --tenant acme --client alice.*");
    for good in [&first, &second, &bob, &below] {
        assert_eq!(status(site.here(), good).await, 200);
        assert_eq!(status(site.there(), good).await, 200);
    }
    // One key alone.
    let masters: MasterKeys = MASTERS.parse().unwrap();
    let id = ApiKey::open(&first, &masters).unwrap().id.to_string();
    keys(&site, &format!("revoke --tenant acme --key {id}"));
    refused_everywhere(&site, &first).await;
    assert_eq!(status(site.here(), &second).await, 200);
    // All of a client.
    keys(&site, "revoke --tenant acme --client alice");
    refused_everywhere(&site, &second).await;
    let third = keys(&site, issue);
    assert_eq!(ApiKey::open(&third, &masters).unwrap().generation, 2);
    for good in [&third, &bob, &below] {
        assert_eq!(status(site.here(), good).await, 200);
    }
    // The same name in another team is another client.
    let namesake = sealed(&key("other", "alice", "read"));
    assert_eq!(status(site.here(), &namesake).await, 200);

    // Who never got a key that was recorded is taken back too, and may be a slip of the pen.
    let revoke = |client| {
        let url = site.redis().unwrap().url();
        let redis = [KEYED[0], KEYED[1], ("REDIS_URL", &*url)];
        run(&["keys", "revoke", "--tenant", "acme", "--client", client], &redis)
    };
    for (client, doubted) in [("alcie", true), ("carol.*", true), ("bob", false)] {
        let (done, said, hint) = revoke(client);
        assert!(done && said.contains("are revoked"), "{said}{hint}");
        assert_eq!(hint.contains("was recorded there"), doubted, "{client}: {hint}");
    }
    refused_everywhere(&site, &bob).await;
    let bob = keys(&site, "issue --tenant acme --client bob");

    // The next generation, while the last is good for a day, and then for no time at all.
    let fourth = keys(&site, "rotate --tenant acme --client alice");
    let listed = keys(&site, "list --tenant acme");
    for good in [&third, &fourth] {
        assert_eq!(status(site.there(), good).await, 200);
    }
    let fifth = keys(&site, "rotate --tenant acme --client alice --grace-hours 0");
    refused_everywhere(&site, &fourth).await;
    refused_everywhere(&site, &third).await;
    assert_eq!(status(site.there(), &fifth).await, 200);

    // What was issued is listed, and what became of it.
    let line = |list: &str, key: &str| {
        let id = ApiKey::open(key, &masters).unwrap().id.to_string();
        list.lines().find(|line| line.starts_with(&id)).unwrap().to_owned()
    };
    assert!(line(&listed, &third).contains(" until ") && line(&listed, &fourth).contains(" good "));
    let listed = keys(&site, "list --tenant acme");
    for (key, state) in
        [(&first, "revoked"), (&second, "revoked"), (&third, "revoked"), (&fifth, "good")]
    {
        assert!(line(&listed, key).contains(state), "{listed}");
    }
    assert!(line(&listed, &below).contains("alice.*") && line(&listed, &bob).ends_with("bob"));
    assert_eq!(keys(&site, "list --tenant nobody").lines().count(), 1, "the head alone");

    // No key is kept, and what is kept stays.
    let redis = site.redis().unwrap();
    for name in ["mb1:{k:acme}:k", "mb1:{k:acme}:i"] {
        assert_eq!(redis.command(&["TTL", name]), Reply::Integer(-1));
        let kept = format!("{:?}", redis.command(&["HGETALL", name]));
        for key in [&first, &second, &third, &fourth, &fifth, &bob, &below] {
            let (signed, mac) = key.split_once('.').unwrap();
            assert!(!kept.contains(signed) && !kept.contains(mac), "{kept}");
        }
    }
}

#[tokio::test]
async fn the_documented_users_of_redis_may_do_what_they_have_to() {
    let redis = RedisServer::start(Persistence::None);
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let document = std::fs::read_to_string(document).unwrap().replace("\\\n", "");
    // A line of the document, as words of ACL SETUSER.
    let as_user = |name: &str| {
        let line = document.split('`').flat_map(str::lines);
        let begin = format!("user {name} on >CHANGE-ME ");
        let line = line.map(str::trim).find(|line| line.starts_with(&begin)).expect(name);
        let words = line.split_whitespace().skip(1);
        let words: Vec<_> = ["ACL", "SETUSER"].into_iter().chain(words).collect();
        assert_eq!(redis.command(&words), Reply::Text("OK".into()), "{line}");
        redis.url().replace("redis://", &format!("redis://{name}:CHANGE-ME@"))
    };
    // The functions are loaded by another one.
    drop(Replica::on(&redis.url()).await);
    let replica = Replica::with(&as_user("mailbox"), &KEYED).await;
    let url = as_user("keys");
    let keys = |arguments: &str| {
        let words: Vec<_> = ["keys"].into_iter().chain(arguments.split(' ')).collect();
        let (done, said, why) = run(&words, &[KEYED[0], KEYED[1], ("REDIS_URL", &url)]);
        assert!(done, "keys {arguments}: {why}");
        said.trim_end().to_owned()
    };
    let first = keys("issue --client alice");
    assert_eq!(status(&replica, &first).await, 200);
    let second = keys("rotate --client alice --grace-hours 0");
    let patience = Instant::now() + Duration::from_secs(10);
    while status(&replica, &first).await != 401 {
        assert!(Instant::now() < patience, "a revocation is seen within 10 s");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(status(&replica, &second).await, 200);
    keys("revoke --client alice");
    assert_eq!(keys("list").lines().count(), 3);
    // Teams, by the command and by the server.
    let words = ["team", "invite", "--role", "admin", "--client", "root"];
    let (done, code, why) = run(&words, &[KEYED[0], KEYED[1], ("REDIS_URL", &url)]);
    assert!(done, "team invite: {why}");
    let server = format!("http://{}", replica.address());
    let (done, root, why) = run(&["join", "--url", &server, "--code", code.trim_end()], &[]);
    assert!(done, "join: {why}");
    let rotate = json!({"client": "bob"});
    super::teams::post(&replica, root.trim_end(), "/api/admin/keys/rotate", rotate).await.done();
}

/// Reads what needs no store.
async fn guide(agent: &Agent) -> (u16, bool) {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "resources/read",
        "params": {"uri": "guide://usage"}});
    let answer = agent.post().json(&body).send().await.unwrap();
    (answer.status().as_u16(), answer.headers().contains_key("retry-after"))
}

#[tokio::test]
async fn without_redis_what_is_known_of_a_key_serves_for_the_stated_time_and_no_longer() {
    let mut redis = RedisServer::start(Persistence::AppendOnly);
    let stale = [KEYED[0], KEYED[1], ("MCP_MESSAGING__AUTH__STALE_SECONDS", "10")];
    let replica = Replica::with(&redis.url(), &stale).await;
    let alice = super::holder(&replica, "alice");
    let stranger = replica.agent("bob").with_key(&sealed(&key("other", "bob", "read")));
    let before = Instant::now();
    assert_eq!(guide(&alice).await, (200, false));
    redis.kill();
    assert_eq!(guide(&alice).await.0, 200, "known just now");
    assert_eq!(guide(&stranger).await, (503, true), "of this team nothing is known");
    let patience = Instant::now() + Duration::from_secs(30);
    while guide(&alice).await != (503, true) {
        assert!(Instant::now() < patience, "it ends");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(before.elapsed() >= Duration::from_secs(10), "not before its time");
    redis.restart();
    while guide(&alice).await.0 != 200 {
        assert!(Instant::now() < patience, "it comes back");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
