//! Random histories: two stores that are told the same answer the same.
//!
//! Ids are made here, so they are equal on both sides; stamps and times are the store's own and are
//! left out of the comparison. At the end every accepted message must have come out.

mod invariants;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::FutureExt;
use mcp_messaging::{
    model::{Message, MessageId, MessageState},
    queue::{
        Browsed, FetchRequest, Fetched, LeaseId, NewMessage, Outcome, Presence, QueueError, Sent,
        Stamp, Taken, TaskRecord, Wakeups,
    },
};
use proptest::{prelude::*, test_runner::TestRunner};

use crate::support::{
    Backend, Draft, Reply, Talk, anything, inbox, memory_backend, message, ms, redis_backend, secs,
};

const CLIENTS: usize = 3;

/// One step. Numbers choose among what there is by then.
#[derive(Debug, Clone)]
enum Op {
    Send { from: usize, to: usize, text: u8, key: Option<u8>, answers: Option<usize>, asks: bool },
    Repeat { sent: usize },
    Fetch { client: usize, max: usize },
    FetchAgain { lease: usize },
    Ack { batch: usize },
    Release { lease: usize },
    Extend { lease: usize },
    Take { question: usize },
    Done { question: usize },
    Close { question: usize },
    Task { question: usize },
    TaskDone { task: usize },
    TaskCancel { task: usize },
    Peek { client: usize },
    Browse { client: usize, max: usize },
    Ledger { client: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let (client, any) = (|| 0..CLIENTS, || 0..64_usize);
    let key = prop::option::weighted(0.2, 0..3_u8);
    let answers = prop::option::weighted(0.4, any());
    prop_oneof![
        8 => (client(), client(), 0..4_u8, key, answers, prop::bool::weighted(0.4)).prop_map(
            |(from, to, text, key, answers, asks)| Op::Send { from, to, text, key, answers, asks }
        ),
        1 => any().prop_map(|sent| Op::Repeat { sent }),
        6 => (client(), 1..4_usize).prop_map(|(client, max)| Op::Fetch { client, max }),
        1 => any().prop_map(|lease| Op::FetchAgain { lease }),
        4 => any().prop_map(|batch| Op::Ack { batch }),
        3 => any().prop_map(|lease| Op::Release { lease }),
        1 => any().prop_map(|lease| Op::Extend { lease }),
        4 => any().prop_map(|question| Op::Take { question }),
        2 => any().prop_map(|question| Op::Done { question }),
        2 => any().prop_map(|question| Op::Close { question }),
        3 => any().prop_map(|question| Op::Task { question }),
        3 => any().prop_map(|task| Op::TaskDone { task }),
        1 => any().prop_map(|task| Op::TaskCancel { task }),
        1 => client().prop_map(|client| Op::Peek { client }),
        3 => (client(), 0..4_usize).prop_map(|(client, max)| Op::Browse { client, max }),
        2 => client().prop_map(|client| Op::Ledger { client }),
    ]
}

/// The newest of `things` counted back by `n`.
fn pick<T>(things: &[T], n: usize) -> Option<&T> {
    things.len().checked_sub(1).map(|last| &things[last - n % things.len()])
}

/// What both sides know.
struct Script {
    names: Vec<String>,
    sent: Vec<NewMessage>,
    /// Questions and whether their reply was taken last.
    questions: Vec<(usize, MessageId)>,
    taken: BTreeSet<MessageId>,
    leases: Vec<(usize, LeaseId)>,
    accepted: BTreeSet<MessageId>,
}

/// A message without its times.
fn told(message: &Message) -> String {
    let Message { id, from, in_reply_to, text, redelivered, asks, .. } = message;
    let from = from.expose();
    format!("{id} {from} {in_reply_to:?} {text} again={redelivered} asks={asks}")
}

/// One store and what only it knows.
struct Side<'a> {
    store: &'a Backend,
    batches: Vec<(usize, Stamp)>,
    tasks: Vec<TaskRecord>,
    /// What it handed out, and how often unmarked.
    handed: BTreeMap<MessageId, u32>,
    /// Of every inbox.
    watches: Vec<Wakeups>,
    /// What a fetch of each inbox would find.
    fetchable: Vec<u64>,
}

impl<'a> Side<'a> {
    async fn of(store: &'a Backend, names: &[String]) -> Self {
        let (batches, tasks, handed) = (Vec::new(), Vec::new(), BTreeMap::new());
        let (mut watches, fetchable) = (Vec::new(), vec![0; names.len()]);
        for name in names {
            watches.push(store.watching(name).await);
        }
        Self { store, batches, tasks, handed, watches, fetchable }
    }

    /// Whoever sleeps where a fetch finds more than before is woken.
    async fn wakes(&mut self, names: &[String], op: &Op) {
        for (index, name) in names.iter().enumerate() {
            let peek = self.store.peek(&inbox(name)).await.unwrap();
            let fetchable = if peek.leased > 0 { 0 } else { peek.queued };
            let before = std::mem::replace(&mut self.fetchable[index], fetchable);
            let watch = &mut self.watches[index];
            if fetchable > before {
                assert!(watch.next_within(secs(5)).await, "nobody was woken after {op:?}");
            }
            while watch.next().now_or_never().is_some() {}
        }
    }

    fn note(&mut self, message: &Message) -> String {
        *self.handed.entry(message.id).or_default() += u32::from(!message.redelivered);
        told(message)
    }

    async fn fetch(&mut self, client: usize, name: &str, request: &FetchRequest) -> String {
        let fetched = self.store.fetch(&inbox(name), request).await.unwrap();
        let Fetched { outcome, remaining, notices_due, .. } = fetched;
        let outcome = match outcome {
            Outcome::Messages(batch) => {
                self.batches.push((client, batch.upto));
                let messages: Vec<_> = batch.messages.iter().map(|one| self.note(one)).collect();
                messages.join("\n")
            }
            other @ (Outcome::Empty | Outcome::Busy | Outcome::Superseded) => format!("{other:?}"),
        };
        format!("{outcome}\nremaining={remaining} notices={notices_due}")
    }

    async fn take(&mut self, name: &str, question: MessageId) -> (String, bool) {
        let state = self.store.wait_take(&inbox(name), question).await.unwrap();
        let queued = state.queued;
        match state.taken {
            Taken::Reply(reply) => (format!("{} queued={queued}", self.note(&reply)), true),
            other @ (Taken::Open | Taken::Gone) => (format!("{other:?} queued={queued}"), false),
        }
    }

    async fn ledger(&self, name: &str) -> Vec<(MessageId, String, MessageState)> {
        let entries = self.store.ledger(&inbox(name)).await.unwrap();
        let entry =
            |e: mcp_messaging::queue::LedgerEntry| (e.id, e.recipient.expose().to_owned(), e.state);
        entries.into_iter().map(entry).collect()
    }
}

fn presence(presence: Presence) -> &'static str {
    match presence {
        Presence::Waiting => "waiting",
        Presence::Seen(_) => "seen",
        Presence::Unknown => "unknown",
    }
}

fn sent(answer: &Result<Sent, QueueError>) -> String {
    match answer {
        Ok(Sent { id, status, recipient, notices_due, unrecorded, unconfirmed: _ }) => {
            let recipient = presence(*recipient);
            format!("{id} {status:?} {recipient} notices={notices_due} unrecorded={unrecorded}")
        }
        Err(QueueError::InboxFull { messages, .. }) => format!("full with {messages}"),
        Err(
            error @ (QueueError::TooManyWaits { .. }
            | QueueError::IdempotencyConflict { .. }
            | QueueError::NoAnswer
            | QueueError::Unavailable { .. }
            | QueueError::Timeout
            | QueueError::Unreadable { .. }
            | QueueError::Contract { .. }),
        ) => format!("{error:?}"),
    }
}

/// Runs one step on both sides, compares what they answer, and keeps what later steps refer to.
#[expect(clippy::too_many_lines, reason = "one arm per operation")]
async fn step(script: &mut Script, sides: &mut [Side<'_>; 2], op: &Op) {
    let mut answers = Vec::new();
    match *op {
        Op::Send { from, to, text, key, answers: reference, asks } => {
            let mut new = message(&script.names[from], &script.names[to], &format!("text {text}"));
            if let Some(key) = key {
                new = new.keyed(&key.to_string());
            } else if asks {
                new = new.asking(secs(120));
            }
            if let Some(question) = reference.and_then(|n| pick(&script.questions, n)) {
                new = new.answering(question.1);
            }
            script.sent.push(new);
            let sent = script.sent.len() - 1;
            send(script, sides, sent, &mut answers).await;
        }
        Op::Repeat { sent } => {
            let Some(last) = script.sent.len().checked_sub(1) else { return };
            let sent = last - sent % script.sent.len();
            // Without a key it would be accepted twice under one id, which no caller does.
            if script.sent[sent].idempotency.is_some() {
                send(script, sides, sent, &mut answers).await;
            }
        }
        Op::Fetch { client, max } => {
            let request = FetchRequest { max_messages: max, lease_for: secs(120), ..anything() };
            script.leases.push((client, request.lease));
            for side in sides {
                answers.push(side.fetch(client, &script.names[client], &request).await);
            }
        }
        Op::FetchAgain { lease } => {
            let Some(&(client, lease)) = pick(&script.leases, lease) else { return };
            let request = FetchRequest { lease, lease_for: secs(120), ..anything() };
            // Only as a repetition: somebody else's turn or an old lease would be a new fetch.
            let name = script.names[client].clone();
            let mut held = Vec::new();
            for side in sides.iter() {
                held.push(side.store.extend(&inbox(&name), lease, secs(120)).await.unwrap());
            }
            assert_eq!(held[0], held[1], "after {op:?}");
            if held[0] {
                for side in sides {
                    answers.push(side.again(client, &name, &request).await);
                }
            }
        }
        Op::Ack { batch } => {
            for side in sides {
                let Some(&(client, upto)) = pick(&side.batches, batch) else { return };
                let removed = side.store.ack(&inbox(&script.names[client]), upto).await.unwrap();
                answers.push(format!("{client} {removed}"));
            }
        }
        Op::Release { lease } => {
            let Some(&(client, lease)) = pick(&script.leases, lease) else { return };
            for side in sides {
                let held = side.store.release(&inbox(&script.names[client]), lease).await.unwrap();
                answers.push(held.to_string());
            }
        }
        Op::Extend { lease } => {
            let Some(&(client, lease)) = pick(&script.leases, lease) else { return };
            for side in sides {
                let client = inbox(&script.names[client]);
                answers
                    .push(side.store.extend(&client, lease, secs(120)).await.unwrap().to_string());
            }
        }
        Op::Take { question } => {
            let Some(&(client, question)) = pick(&script.questions, question) else { return };
            for side in sides {
                let (answer, reply) = side.take(&script.names[client], question).await;
                answers.push(answer);
                if reply {
                    script.taken.insert(question);
                }
            }
        }
        Op::Done { question } => {
            let Some(&(client, question)) = pick(&script.questions, question) else { return };
            if script.taken.contains(&question) {
                for side in sides {
                    let client = inbox(&script.names[client]);
                    side.store.wait_done(&client, question).await.unwrap();
                }
            }
        }
        Op::Close { question } => {
            let Some(&(client, question)) = pick(&script.questions, question) else { return };
            for side in sides {
                let client = inbox(&script.names[client]);
                side.store.wait_close(&client, question).await.unwrap();
            }
        }
        Op::Task { question } => {
            let Some(&(client, question)) = pick(&script.questions, question) else { return };
            for side in sides {
                let client = inbox(&script.names[client]);
                let task = side.store.task_open(&client, question, secs(120)).await.unwrap();
                answers.push(format!("{:?}", task.as_ref().map(|task| (task.wait, &task.peer))));
                side.tasks.extend(task);
            }
        }
        Op::TaskDone { task } => {
            for side in sides {
                let Some(task) = pick(&side.tasks, task) else { return };
                answers.push(side.store.task_done(task).await.unwrap().to_string());
            }
        }
        Op::TaskCancel { task } => {
            for side in sides {
                let Some(task) = pick(&side.tasks, task) else { return };
                let given_up = side.store.task_cancel(task).await.unwrap();
                let known = side.store.task(&task.id).await.unwrap().unwrap();
                answers.push(format!("{given_up} {}", known.cancelled_ms.is_some()));
            }
        }
        Op::Peek { client } => {
            for side in sides {
                let peek = side.store.peek(&inbox(&script.names[client])).await.unwrap();
                let oldest = peek.oldest.is_some();
                let presence = presence(peek.presence);
                answers.push(format!("{} {} {oldest} {presence}", peek.queued, peek.leased));
            }
        }
        Op::Browse { client, max } => {
            for side in sides {
                let found = side.store.browse(&inbox(&script.names[client]), max, 1 << 20).await;
                let Browsed { messages, queued, leased, arrivals, .. } = found.unwrap();
                let messages: Vec<_> = messages.iter().map(told).collect();
                let returned = arrivals.returned.is_some();
                let some = arrivals.newest > Stamp(0);
                answers.push(format!("{messages:?} {queued} {leased} {some} {returned}"));
            }
        }
        Op::Ledger { client } => {
            for side in sides {
                answers.push(format!("{:?}", side.ledger(&script.names[client]).await));
            }
        }
    }
    if let [one, other] = &answers[..] {
        assert_eq!(one, other, "after {op:?}");
    }
}

async fn send(
    script: &mut Script,
    sides: &mut [Side<'_>; 2],
    which: usize,
    answers: &mut Vec<String>,
) {
    let new = &script.sent[which];
    let mut accepted = false;
    for side in sides {
        let answer = side.store.send(new).await;
        accepted = answer.as_ref().is_ok_and(|sent| sent.id == new.id);
        answers.push(sent(&answer));
        // Ledgers of one sender are in the order of the store's clock.
        tokio::time::sleep(Duration::ZERO).await;
    }
    if accepted && script.accepted.insert(new.id) && new.wait.is_some() {
        let client = script.names.iter().position(|name| inbox(name) == new.sender).unwrap();
        script.questions.push((client, new.id));
    }
}

impl Side<'_> {
    /// The same lease again: the same ids; how they are marked is the store's business.
    async fn again(&mut self, client: usize, name: &str, request: &FetchRequest) -> String {
        match self.store.fetch(&inbox(name), request).await.unwrap().outcome {
            Outcome::Messages(batch) => {
                self.batches.push((client, batch.upto));
                let ids = batch.messages.iter().map(|message| message.id);
                format!("{:?}", ids.collect::<Vec<_>>())
            }
            other @ (Outcome::Empty | Outcome::Busy | Outcome::Superseded) => format!("{other:?}"),
        }
    }

    /// Gives everything back, reads everything, and sees that nothing was lost or made.
    async fn everything_comes_out(&mut self, script: &Script) {
        for &(client, lease) in &script.leases {
            self.store.release(&inbox(&script.names[client]), lease).await.unwrap();
        }
        for &(client, question) in &script.questions {
            self.store.wait_close(&inbox(&script.names[client]), question).await.unwrap();
        }
        for name in &script.names {
            for message in self.store.drain(name).await {
                self.note(&message);
            }
        }
        for name in &script.names {
            for (id, _, state) in self.ledger(name).await {
                assert_eq!(state, MessageState::Acknowledged, "{id}");
            }
        }
        assert_eq!(self.handed.keys().copied().collect::<BTreeSet<_>>(), script.accepted);
        for (id, unmarked) in &self.handed {
            assert_eq!(*unmarked, 1, "{id}: every copy but the first is marked");
        }
    }
}

/// Tells both stores the same and compares. Before each step `meanwhile` happens.
async fn same_history(one: &Backend, other: &Backend, ops: &[Op], mut meanwhile: impl FnMut()) {
    let unique = MessageId::new();
    let mut script = Script {
        names: (0..CLIENTS).map(|n| format!("client-{n}-{unique}")).collect(),
        sent: Vec::new(),
        questions: Vec::new(),
        taken: BTreeSet::new(),
        leases: Vec::new(),
        accepted: BTreeSet::new(),
    };
    let mut sides = [Side::of(one, &script.names).await, Side::of(other, &script.names).await];
    for op in ops {
        meanwhile();
        step(&mut script, &mut sides, op).await;
        for side in &mut sides {
            side.wakes(&script.names, op).await;
        }
    }
    meanwhile();
    for side in &mut sides {
        side.everything_comes_out(&script).await;
    }
}

/// Histories of a memory and of a Redis, to which `meanwhile` is done before each step.
fn same_histories(cases: u32, meanwhile: impl Fn(&mut Talk)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let redis = runtime.block_on(redis_backend()); // one for all: names are unique per history
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_time: 30_000,
        ..Default::default()
    };
    let talk = RefCell::new(redis.redis().talk());
    TestRunner::new(config)
        .run(&prop::collection::vec(op(), 1..120), |ops| {
            let mut talk = talk.borrow_mut();
            let meanwhile = || meanwhile(&mut talk);
            runtime.block_on(same_history(&memory_backend(), &redis, &ops, meanwhile));
            Ok(())
        })
        .unwrap();
}

#[test]
fn memory_and_redis_tell_the_same_story() {
    same_histories(64, |_redis| ());
}

/// As if each call came right after an upgrade of the functions.
#[test]
fn what_the_functions_kept_before_tells_the_same_story() {
    let found = Cell::new(0);
    same_histories(24, |redis| found.set(found.get() + make_older(redis)));
    assert!(found.get() > 0, "no inbox was ever rewritten");
}

#[tokio::test]
async fn a_sender_is_told_of_what_it_sent_before_an_upgrade() {
    let store = redis_backend().await;
    let id = store.queue_up(&message("alice", "bob", "x").living(ms(30))).await;
    let mut redis = store.redis().talk();
    assert_eq!(make_older(&mut redis), 2, "the inboxes of both");
    store.pass(ms(60)).await;
    assert!(store.look("alice").await.notices_due);
    assert_eq!(store.noticed("alice").await, [id]);
    assert_eq!(make_older(&mut redis), 1, "what was written since is new");
    assert_eq!(store.look("bob").await.outcome, Outcome::Empty);
}

/// Rewrites what the functions keep as an older revision did. -> how many inboxes
fn make_older(redis: &mut Talk) -> i64 {
    match redis.command(&["EVAL", include_str!("queue_model/older.lua"), "0"]) {
        Reply::Integer(inboxes) => inboxes,
        other @ (Reply::Text(_) | Reply::Error(_) | Reply::Array(_) | Reply::Nil) => {
            panic!("nothing was made older: {other:?}")
        }
    }
}
