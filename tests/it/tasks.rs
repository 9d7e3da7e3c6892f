//! The tasks extension from outside: real servers, one with its memory and two that share a Redis.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mcp_messaging::{
    messaging::{CallContext, Delivery, MessagingService, Reply, TaskProgress},
    model::MessageState,
    queue::TaskRecord,
    telemetry::Metrics,
};
use serde_json::{Value, json};

use tokio_util::task::TaskTracker;

use crate::{
    house::{self, schema},
    support::{
        Agent, Backend, Draft, Persistence, RedisServer, Replica, Store, inbox, message, texts,
    },
};

for_each_backend!(
    a_handle_that_was_not_written_holds_no_reply,
    a_written_handle_holds_its_reply,
    a_result_that_was_not_written_is_not_received,
);

on_every_store!(
    a_question_becomes_a_task_that_any_replica_answers,
    a_result_can_be_read_again_and_is_received_once,
    a_client_that_does_not_declare_it_never_sees_a_task,
    a_task_ends_without_a_reply_and_a_late_one_is_in_the_inbox,
    a_given_up_task_leaves_its_reply_to_the_inbox,
    a_reply_that_nobody_reads_goes_to_the_inbox,
    a_repeated_question_is_one_question_and_has_its_reply,
    how_long_a_task_lives_is_configured_and_not_asked_for,
    update_knows_the_task_and_changes_nothing,
);

const TASKS: &str = "io.modelcontextprotocol/tasks";
const LATEST: &str = "2026-07-28";

/// A client of the latest revision.
pub(crate) struct Modern {
    agent: Agent,
    /// Whether it declares the tasks extension.
    declares: bool,
}

impl Modern {
    fn of(replica: &Replica, id: &str) -> Self {
        Self::by(replica.agent(id))
    }

    pub(crate) fn by(agent: Agent) -> Self {
        Self { agent, declares: true }
    }

    fn undeclared(replica: &Replica, id: &str) -> Self {
        Self { declares: false, ..Self::of(replica, id) }
    }

    fn request(&self, method: &str, mut params: Value) -> reqwest::RequestBuilder {
        let extensions = if self.declares { json!({ TASKS: {} }) } else { json!({}) };
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": LATEST,
            "io.modelcontextprotocol/clientCapabilities": { "extensions": extensions },
        });
        let mut request =
            self.agent.post().header("mcp-protocol-version", LATEST).header("mcp-method", method);
        if let Some(name) = params["name"].as_str().or(params["taskId"].as_str()) {
            request = request.header("mcp-name", name);
        }
        request.json(&json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }))
    }

    /// Status and answer, which the schemas have.
    pub(crate) async fn ask(&self, method: &str, params: Value) -> (u16, Value) {
        let answer = self.request(method, params).send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or(&text);
        let message: Value = serde_json::from_str(data).unwrap();
        schema::message(LATEST, method, &message);
        (status, message)
    }

    async fn result(&self, method: &str, params: Value) -> Value {
        let (status, answer) = self.ask(method, params).await;
        assert_eq!(status, 200, "{answer}");
        answer["result"].clone()
    }

    fn question(&self, whom: &str, timeout: u64) -> Value {
        json!({ "name": "send_message_and_wait", "arguments": {
            "sender_id": self.agent.id, "recipient_id": whom, "message": "?", "timeout": timeout } })
    }

    /// Asks `whom`; the handle.
    pub(crate) async fn begin(&self, whom: &str, timeout: u64) -> Value {
        let task = self.result("tools/call", self.question(whom, timeout)).await;
        assert_eq!((&task["resultType"], &task["status"]), (&json!("task"), &json!("working")));
        task
    }

    pub(crate) async fn get(&self, task: &Value) -> Value {
        self.result("tasks/get", json!({ "taskId": task["taskId"] })).await
    }

    async fn cancel(&self, task: &Value) {
        self.result("tasks/cancel", json!({ "taskId": task["taskId"] })).await;
    }

    /// Asks for it until it is no longer working.
    async fn settled(&self, task: &Value) -> Value {
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            let now = self.get(task).await;
            if now["status"] != "working" {
                return now;
            }
            assert!(Instant::now() < patience, "still working");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The structured content of a task that was answered.
    async fn answered(&self, task: &Value) -> Value {
        let settled = self.settled(task).await;
        assert_eq!(settled["status"], "completed", "{settled}");
        assert_eq!(settled["result"]["isError"], false);
        settled["result"]["structuredContent"].clone()
    }

    /// That the id names nothing.
    async fn knows_nothing_of(&self, task: &Value) {
        for method in ["tasks/get", "tasks/cancel", "tasks/update"] {
            let params = json!({ "taskId": task["taskId"], "inputResponses": {} });
            let (status, answer) = self.ask(method, params).await;
            assert_eq!((status, &answer["error"]["code"]), (200, &json!(-32602)), "{answer}");
        }
    }
}

/// Waits until the sender's ledger says so of its only message.
async fn becomes(sender: &Agent, state: &str) {
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        let status = sender.call("message_status", json!({ "sender_id": sender.id })).await;
        if status["messages"][0]["state"] == state {
            return;
        }
        assert!(Instant::now() < patience, "not {state}: {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Takes the question and replies to it.
async fn reply(bob: &Agent, text: &str) {
    let got = bob.fetch(10).await;
    assert_eq!(texts(&got), ["?"]);
    let arguments = json!({ "sender_id": "bob", "recipient_id": "alice", "message": text,
        "in_reply_to": got["messages"][0]["message_id"] });
    bob.call("send_message", arguments).await;
}

async fn a_question_becomes_a_task_that_any_replica_answers(store: Store) {
    let site = store.open().await;
    let (alice, there) = (Modern::of(site.here(), "alice"), Modern::of(site.there(), "alice"));
    let task = alice.begin("bob", 60).await;
    assert!(task["statusMessage"].as_str().unwrap().contains("is queued for bob"), "{task}");
    // Nobody waits: the task is its wait in the store.
    site.here().waiters(0).await;
    let working = there.get(&task).await;
    for member in ["taskId", "status", "createdAt", "lastUpdatedAt", "ttlMs", "pollIntervalMs"] {
        assert_eq!(working[member], task[member], "{member}");
    }
    reply(&site.there().agent("bob"), "yes").await;
    let told = there.answered(&task).await;
    assert_eq!((&told["status"], &told["reply"]["text"]), (&json!("replied"), &json!("yes")));
    assert_eq!(told["reply"]["redelivered"], false);
    assert_eq!(alice.answered(&task).await["reply"]["text"], "yes");
}

async fn a_result_can_be_read_again_and_is_received_once(store: Store) {
    let site = store.open().await;
    let (alice, bob) = (Modern::of(site.here(), "alice"), site.there().agent("bob"));
    let task = alice.begin("bob", 60).await;
    reply(&bob, "once").await;
    becomes(&bob, "queued").await;
    let first = alice.answered(&task).await;
    becomes(&bob, "acknowledged").await;
    let again = Modern::of(site.there(), "alice").answered(&task).await;
    assert_eq!(again["reply"]["message_id"], first["reply"]["message_id"]);
    assert_eq!(
        (&again["reply"]["redelivered"], &again["reply"]["attempt"]),
        (&json!(true), &json!(2))
    );
    // What has come to its end cannot be given up.
    alice.cancel(&task).await;
    assert_eq!(alice.get(&task).await["status"], "completed");
    assert_eq!(site.here().agent("alice").texts(0).await, [""; 0]);
}

async fn a_client_that_does_not_declare_it_never_sees_a_task(store: Store) {
    let site = store.open().await;
    let (alice, bob) = (Modern::undeclared(site.here(), "alice"), site.there().agent("bob"));
    let asked = tokio::spawn({
        let call = alice.request("tools/call", alice.question("bob", 60));
        async move { call.send().await.unwrap().text().await.unwrap() }
    });
    reply(&bob, "waited for").await;
    let answer = asked.await.unwrap();
    assert!(answer.contains("waited for") && !answer.contains("taskId"), "{answer}");

    // With a task of somebody else in hand, it is told what it lacks.
    let task = Modern::of(site.here(), "alice").begin("carol", 60).await;
    let calls = [
        ("tasks/get", json!({ "taskId": task["taskId"] })),
        ("tasks/cancel", json!({ "taskId": task["taskId"] })),
        ("tasks/update", json!({ "taskId": task["taskId"] })),
        ("subscriptions/listen", json!({ "notifications": { "taskIds": [task["taskId"]] } })),
    ];
    for (method, params) in calls {
        let (status, answer) = alice.ask(method, params).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!(-32021)), "{method}");
        let needed = &answer["error"]["data"]["requiredCapabilities"];
        assert_eq!(*needed, json!({ "extensions": { TASKS: {} } }));
    }
    for method in ["tasks/list", "tasks/result"] {
        let params = json!({ "taskId": task["taskId"] });
        let (status, answer) = Modern::of(site.here(), "alice").ask(method, params).await;
        assert_eq!((status, &answer["error"]["code"]), (404, &json!(-32601)), "{method}");
    }
    let listed = alice.result("tools/list", json!({})).await.to_string();
    assert!(!listed.contains("task"), "{listed}");
    let discovered = alice.result("server/discover", json!({})).await;
    assert_eq!(discovered["capabilities"]["extensions"], json!({ TASKS: {} }));

    // Older revisions have neither the methods nor the capability.
    let legacy = site.here().agent("dave");
    let begun = json!({ "protocolVersion": "2025-11-25", "capabilities": { "tasks": {} },
        "clientInfo": { "name": "test", "version": "1" } });
    let begun = legacy.request(1, "initialize", begun).await.unwrap();
    assert!(!begun["capabilities"].to_string().contains("task"), "{begun}");
    let refused = legacy.request(1, "tasks/get", json!({ "taskId": task["taskId"] })).await;
    assert!(refused.unwrap_err().contains("-32601"));
}

async fn a_task_ends_without_a_reply_and_a_late_one_is_in_the_inbox(store: Store) {
    let site = store.open().await;
    let (alice, bob) = (Modern::of(site.here(), "alice"), site.there().agent("bob"));
    let task = alice.begin("bob", 1).await;
    let told = Modern::of(site.there(), "alice").answered(&task).await;
    assert_eq!((&told["status"], told.get("reply")), (&json!("pending"), None));
    reply(&bob, "late").await;
    assert_eq!(alice.answered(&task).await["status"], "pending", "an end is an end");
    assert_eq!(site.here().agent("alice").texts(5).await, ["late"]);
}

async fn a_given_up_task_leaves_its_reply_to_the_inbox(store: Store) {
    let site = store.open().await;
    let (alice, bob) = (Modern::of(site.here(), "alice"), site.there().agent("bob"));
    let task = alice.begin("bob", 60).await;
    Modern::of(site.there(), "alice").cancel(&task).await;
    alice.cancel(&task).await;
    assert_eq!(alice.get(&task).await["status"], "cancelled");
    reply(&bob, "anyway").await;
    assert_eq!(site.here().agent("alice").texts(5).await, ["anyway"]);
    assert_eq!(alice.get(&task).await["status"], "cancelled");
}

async fn a_reply_that_nobody_reads_goes_to_the_inbox(store: Store) {
    let site = store.with(&[("MCP_MESSAGING__MESSAGING__TASK_SECONDS", "1")]).await;
    let (alice, bob) = (Modern::of(site.here(), "alice"), site.there().agent("bob"));
    let task = alice.begin("bob", 60).await;
    reply(&bob, "unread").await;
    // Nobody asks for it any more; a reader that waits is woken when the task lets go of it.
    let got = site.there().agent("alice").fetch(20).await;
    assert_eq!(texts(&got), ["unread"]);
    assert_eq!(got["messages"][0]["redelivered"], false);
    assert_eq!(alice.answered(&task).await["status"], "pending");
}

async fn a_repeated_question_is_one_question_and_has_its_reply(store: Store) {
    let site = store.open().await;
    let (alice, bob) = (Modern::of(site.here(), "alice"), site.there().agent("bob"));
    let mut question = alice.question("bob", 60);
    question["arguments"]["idempotency_key"] = json!("k");
    let first = alice.result("tools/call", question.clone()).await;
    let second = alice.result("tools/call", question.clone()).await;
    assert_ne!(first["taskId"], second["taskId"]);
    reply(&bob, "to both").await;
    assert_eq!(bob.texts(0).await, [""; 0], "the question came once");
    assert_eq!(alice.answered(&first).await["reply"]["text"], "to both");
    assert_eq!(alice.answered(&second).await["reply"]["text"], "to both");
    // With its reply there, the answer needs no task.
    let third = alice.result("tools/call", question).await;
    assert_eq!(third["resultType"], "complete");
    assert_eq!(third["structuredContent"]["reply"]["text"], "to both");
}

async fn how_long_a_task_lives_is_configured_and_not_asked_for(store: Store) {
    let settings = [
        ("MCP_MESSAGING__MESSAGING__TASK_SECONDS", "2"),
        ("MCP_MESSAGING__LIMITS__MAX_WAIT_SECONDS", "30"),
        ("MCP_MESSAGING__MESSAGING__DEFAULT_WAIT_SECONDS", "30"),
    ];
    let site = store.with(&settings).await;
    let alice = Modern::of(site.here(), "alice");
    let mut question = alice.question("bob", 30);
    question["task"] = json!({ "ttl": 86_400_000 });
    question["ttlMs"] = json!(86_400_000);
    let task = alice.result("tools/call", question).await;
    // The wait and task_seconds, whatever was asked for; counted from when it was made, a moment later.
    let ttl = |task: &Value| task["ttlMs"].as_u64().unwrap();
    assert!((31_000..=32_000).contains(&ttl(&task)), "{task}");
    let over = alice.result("tools/call", alice.question("bob", 31)).await;
    assert_eq!((&over["resultType"], &over["isError"]), (&json!("complete"), &json!(true)));

    let brief = alice.begin("bob", 1).await;
    assert!((2_000..=3_000).contains(&ttl(&brief)), "{brief}");
    alice.settled(&brief).await;
    tokio::time::sleep(Duration::from_millis(3100)).await;
    alice.knows_nothing_of(&brief).await;
    assert_eq!(alice.get(&task).await["status"], "working");

    let none = store.with(&[("MCP_MESSAGING__MESSAGING__TASK_SECONDS", "0")]).await;
    let alice = Modern::of(none.here(), "alice");
    let discovered = alice.result("server/discover", json!({})).await;
    assert_eq!(discovered["capabilities"].get("extensions"), None);
    let (status, answer) = alice.ask("tasks/get", json!({ "taskId": "x" })).await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!(-32601)));
    let asked = alice.result("tools/call", alice.question("bob", 1)).await;
    assert_eq!(asked["resultType"], "complete");
}

async fn update_knows_the_task_and_changes_nothing(store: Store) {
    let site = store.open().await;
    let alice = Modern::of(site.here(), "alice");
    let task = alice.begin("bob", 60).await;
    let answers =
        json!({ "taskId": task["taskId"], "inputResponses": { "never": { "asked": 1 } } });
    alice.result("tasks/update", answers).await;
    assert_eq!(alice.get(&task).await["status"], "working");
    for missing in [json!({ "taskId": task["taskId"] }), json!({ "inputResponses": {} })] {
        let (_, answer) = alice.ask("tasks/update", missing).await;
        assert_eq!(answer["error"]["code"], -32602);
    }
    let id = task["taskId"].as_str().unwrap();
    // The id is a secret, and nothing near it is an id.
    for wrong in [id.to_uppercase(), format!("{id}0"), id[1..].to_owned(), "alice".to_owned()] {
        alice.knows_nothing_of(&json!({ "taskId": wrong })).await;
    }
    assert!(!id.contains("alice") && !id.contains("bob"));
    let mut last = id.chars().last().unwrap();
    last = if last == '0' { '1' } else { '0' };
    let near = format!("{}{last}", &id[..id.len() - 1]);
    alice.knows_nothing_of(&json!({ "taskId": near })).await;
}

#[tokio::test]
async fn a_task_outlives_the_replica_that_began_it() {
    let redis = RedisServer::start(Persistence::None);
    let (mut one, two) = (Replica::on(&redis.url()).await, Replica::on(&redis.url()).await);
    let task = Modern::of(&one, "alice").begin("bob", 60).await;
    one.kill();
    let alice = Modern::of(&two, "alice");
    assert_eq!(alice.get(&task).await["status"], "working");
    reply(&two.agent("bob"), "to the survivor").await;
    assert_eq!(alice.answered(&task).await["reply"]["text"], "to the survivor");
}

#[tokio::test]
async fn a_result_that_was_on_its_way_from_a_killed_replica_is_told_by_another_one() {
    let redis = RedisServer::start(Persistence::None);
    let brief = [("MCP_MESSAGING__MESSAGING__TASK_SECONDS", "3")];
    let mut one = Replica::with(&redis.url(), &brief).await;
    let two = Replica::with(&redis.url(), &brief).await;
    let bob = two.agent("bob");
    let task = Modern::of(&one, "alice").begin("bob", 60).await;
    reply(&bob, "in the air").await;
    // The answer is written, and the replica dies: its acknowledgement may be lost, and the reply not.
    assert_eq!(Modern::of(&one, "alice").answered(&task).await["reply"]["text"], "in the air");
    one.kill();
    assert_eq!(Modern::of(&two, "alice").answered(&task).await["reply"]["text"], "in the air");
    becomes(&bob, "acknowledged").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(two.agent("alice").texts(0).await, [""; 0], "what was received does not come again");
}

#[tokio::test]
async fn tasks_survive_a_crash_of_redis() {
    let mut redis = RedisServer::start(Persistence::AppendOnly);
    let (one, two) = (Replica::on(&redis.url()).await, Replica::on(&redis.url()).await);
    let (alice, bob) = (Modern::of(&one, "alice"), two.agent("bob"));
    let (open, read) = (alice.begin("carol", 60).await, alice.begin("bob", 60).await);
    reply(&bob, "kept").await;
    alice.answered(&read).await;
    becomes(&bob, "acknowledged").await;
    redis.kill();
    redis.restart();
    one.ready(Duration::from_secs(10)).await;
    two.ready(Duration::from_secs(10)).await;
    let there = Modern::of(&two, "alice");
    assert_eq!(there.answered(&read).await["reply"]["text"], "kept");
    assert_eq!(there.get(&open).await["status"], "working");
    let carol = one.agent("carol");
    let id = carol.fetch(10).await["messages"][0]["message_id"].clone();
    let answer = json!({ "sender_id": "carol", "recipient_id": "alice", "message": "after", "in_reply_to": id });
    carol.call("send_message", answer).await;
    assert_eq!(there.answered(&open).await["reply"]["text"], "after");
}

/// A mailbox on a store, whose deliveries are settled by hand.
struct Desk {
    messaging: MessagingService,
    settling: TaskTracker,
    context: CallContext,
}

impl Desk {
    fn on(backend: &Backend) -> Self {
        let settling = TaskTracker::new();
        let (queue, metrics) = (Arc::clone(&backend.queue), Arc::new(Metrics::new().unwrap()));
        let messaging = house::mailbox_settling(queue, settling.clone(), metrics);
        let context = CallContext { takes_tasks: true, ..CallContext::default() };
        Self { messaging, settling, context }
    }

    /// Asks as Alice: the task, and what is to be said of its handle.
    async fn begin(&self) -> (TaskRecord, Delivery) {
        let asked = self.messaging.ask(house::question(), &self.context).await.unwrap();
        let Reply::Task(task) = asked.reply else { panic!("a task, not {:?}", asked.reply) };
        (*task, asked.delivery.expect("the handle is to be settled"))
    }

    /// Asks what the task has come to, which is its reply.
    async fn replied(&self, task: &TaskRecord) -> Delivery {
        let look = self.messaging.task(&task.id.expose(), &self.context).await.unwrap().unwrap();
        assert!(matches!(look.progress, TaskProgress::Replied(_)), "{look:?}");
        look.delivery.expect("the reply is to be settled")
    }

    /// Waits for what was settled.
    async fn settled(&self) {
        self.settling.close();
        self.settling.wait().await;
        self.settling.reopen();
    }
}

async fn a_handle_that_was_not_written_holds_no_reply(backend: Backend) {
    let desk = Desk::on(&backend);
    let (task, handle) = desk.begin().await;
    drop(handle);
    desk.settled().await;
    backend.queue_up(&message("bob", "alice", "late").answering(task.wait)).await;
    assert_eq!(backend.texts("alice").await, ["late"]);
}

async fn a_written_handle_holds_its_reply(backend: Backend) {
    let desk = Desk::on(&backend);
    let (task, handle) = desk.begin().await;
    handle.flushed();
    desk.settled().await;
    backend.reply(&message("bob", "alice", "!").answering(task.wait)).await;
    drop(desk.replied(&task).await);
}

async fn a_result_that_was_not_written_is_not_received(backend: Backend) {
    let desk = Desk::on(&backend);
    let (task, handle) = desk.begin().await;
    handle.flushed();
    let id = backend.reply(&message("bob", "alice", "!").answering(task.wait)).await;
    for _ in 0..2 {
        drop(desk.replied(&task).await);
        desk.settled().await;
        assert_eq!(backend.state("bob", id).await, Some(MessageState::Delivered));
    }
    desk.replied(&task).await.flushed();
    desk.settled().await;
    assert_eq!(backend.state("bob", id).await, Some(MessageState::Acknowledged));
    // Received, it does not come to the inbox when its wait is closed.
    backend.wait_close(&inbox("alice"), task.wait).await.unwrap();
    assert!(backend.texts("alice").await.is_empty());
}
