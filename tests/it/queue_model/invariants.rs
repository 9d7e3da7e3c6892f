//! What must hold of the keys themselves, after every step of random histories.
//!
//! Read straight from Redis, one atomic look a step. Lives, leases and waits are short, so that they run
//! out on the way; what the store answers is of no interest here, only what it keeps.

use std::collections::{BTreeMap, BTreeSet};

use mcp_messaging::{
    model::MessageId,
    queue::{FetchRequest, LeaseId, Limits, NewMessage, Outcome, QueueError, Stamp, Taken},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::support::{
    Backend, Draft, LIMITS, Reply, Talk, anything, inbox, message, ms, redis_backend_with,
};

const STEPS: usize = 20_000;
/// Steps of one history; the next one begins with an empty store.
const HISTORY: usize = 250;
const CLIENTS: usize = 3;
/// Small ones, so that they are met.
const SMALL: Limits = Limits { inbox_messages: 8, inbox_bytes: 2_000, open_waits: 2, ..LIMITS };

/// A message as it stands in a key.
#[derive(Debug, Clone)]
struct Held {
    wait: String,
    id: String,
    stamp: i64,
    expires: i64,
    bytes: i64,
    sender: String,
    text: String,
}

#[derive(Debug, Clone)]
struct Wait {
    answered: bool,
    peer: String,
}

#[derive(Debug, Clone)]
struct Lease {
    messages: usize,
    until: i64,
    top: i64,
}

/// The keys of one client.
#[derive(Debug, Clone, Default)]
struct Box {
    queue: Vec<Held>,
    parked: Vec<Held>,
    waits: BTreeMap<String, Wait>,
    markers: BTreeSet<String>,
    bytes: i64,
    /// Messages in the queue, as counted.
    count: usize,
    /// Highest stamp handed out.
    handed: i64,
    lease: Option<Lease>,
}

#[derive(Debug, Clone, Default)]
struct Snapshot {
    now: i64,
    boxes: BTreeMap<String, Box>,
}

/// What a step may change.
#[derive(Debug, Clone, Default)]
struct May {
    /// This message appears, in this inbox.
    add: Option<(String, String)>,
    /// Nothing is remembered of it either.
    refused: bool,
    /// What was handed out up to this stamp leaves this inbox.
    ack: Option<(String, i64)>,
    /// The reply to this wait leaves the store, or its place.
    done: Option<String>,
    close: Option<String>,
}

impl Snapshot {
    fn take(redis: &mut Talk, names: &[String]) -> Self {
        let mut words = vec!["EVAL", include_str!("snapshot.lua"), "0"];
        words.extend(names.iter().map(String::as_str));
        let lines = match redis.command(&words) {
            Reply::Array(lines) => lines,
            other @ (Reply::Text(_) | Reply::Error(_) | Reply::Integer(_) | Reply::Nil) => {
                panic!("no snapshot: {other:?}")
            }
        };
        let mut snapshot = Self::default();
        for line in lines {
            let Reply::Array(words) = line else { panic!("no line: {line:?}") };
            let words = words.into_iter().map(|word| match word {
                Reply::Text(text) => text,
                other @ (Reply::Error(_) | Reply::Integer(_) | Reply::Array(_) | Reply::Nil) => {
                    panic!("no word: {other:?}")
                }
            });
            snapshot.read(&words.collect::<Vec<_>>());
        }
        snapshot
    }

    fn read(&mut self, words: &[String]) {
        let number = |at: usize| words[at].parse::<i64>().unwrap();
        if words[1] == "now" {
            self.now = number(2);
            return;
        }
        let one = self.boxes.entry(words[0].clone()).or_default();
        let held = || {
            assert_eq!(number(7), 0, "a header says how long its text is");
            Held {
                wait: words[2].clone(),
                id: words[3].clone(),
                stamp: number(4),
                expires: number(5),
                bytes: number(6),
                sender: words[8].clone(),
                text: words[9].clone(),
            }
        };
        match &*words[1] {
            "q" => one.queue.push(held()),
            "r" => one.parked.push(held()),
            "m" => {
                (one.bytes, one.handed) = (number(2), number(3));
                one.count = usize::try_from(number(8)).unwrap();
                one.lease = (number(7) == 1).then(|| Lease {
                    messages: usize::try_from(number(4)).unwrap(),
                    until: number(5),
                    top: number(6),
                });
            }
            "w" => {
                let wait = Wait { answered: words[4] != "0", peer: words[5].clone() };
                one.waits.insert(words[2].clone(), wait);
            }
            "d" => {
                one.markers.insert(words[2].clone());
            }
            "eternal" => panic!("a key without an end: {}", words[2]),
            other => panic!("no kind: {other}"),
        }
    }

    /// What must hold at any time.
    fn check(&self, sent: &BTreeMap<String, NewMessage>) {
        for (client, one) in &self.boxes {
            let mut ids = BTreeSet::new();
            for held in one.queue.iter().chain(&one.parked) {
                assert!(ids.insert(&held.id), "{} is there twice", held.id);
                let original = sent.get(&held.id).expect("somebody sent it");
                assert_eq!(held.text, original.text, "it comes out as it went in");
                assert_eq!(held.sender, original.sender.name());
                assert_eq!(client, original.recipient.client().expose());
            }
            let stamps: Vec<_> = one.queue.iter().map(|held| held.stamp).collect();
            assert!(stamps.is_sorted_by(|one, two| one < two), "{stamps:?}");
            let bytes: i64 = one.queue.iter().map(|held| held.bytes).sum();
            assert!(one.queue.is_empty() || one.bytes == bytes, "{} bytes, not {bytes}", one.bytes);
            let there = one.queue.len();
            assert!(there == 0 || one.count == there, "{} counted, not {there}", one.count);
            if let Some(lease) = &one.lease
                && lease.until > self.now
            {
                // What it covered may have expired as a whole, and new mail come behind it.
                let under = one.queue.iter().filter(|held| held.stamp <= lease.top).count();
                assert!(under <= lease.messages, "{under} under {lease:?}");
            }
            for held in &one.parked {
                let wait = one.waits.get(&held.wait).expect("a parked reply has its wait");
                assert!(wait.answered && wait.peer == held.sender, "{held:?} for {wait:?}");
            }
            for (id, wait) in &one.waits {
                let replies = one.parked.iter().filter(|held| held.wait == *id).count();
                assert!(replies <= 1, "{replies} replies to {id}");
                assert!(wait.answered || replies == 0, "{id} is open and has a reply");
            }
        }
    }

    /// What this step may have changed since `before`, and nothing else.
    fn check_step(&self, before: &Self, may: &May) {
        let none = Box::default();
        let names: BTreeSet<_> = before.boxes.keys().chain(self.boxes.keys()).collect();
        for name in names {
            let old = before.boxes.get(name).unwrap_or(&none);
            let new = self.boxes.get(name).unwrap_or(&none);
            let is_there = |id: &str| new.queue.iter().chain(&new.parked).any(|held| held.id == id);
            for held in &old.queue {
                let acked = may.ack.as_ref().is_some_and(|(client, upto)| {
                    client == name && held.stamp <= *upto && held.stamp <= old.handed
                });
                let over = held.expires <= self.now;
                assert!(is_there(&held.id) || acked || over, "lost from the queue: {held:?}");
                let stayed =
                    new.queue.iter().any(|now| now.id == held.id && now.stamp == held.stamp);
                assert!(stayed || !is_there(&held.id), "it lost its place: {held:?}");
            }
            for held in &old.parked {
                let (done, over) =
                    (may.done.as_ref() == Some(&held.wait), held.expires <= self.now);
                assert!(is_there(&held.id) || done || over, "lost from its wait: {held:?}");
                let parked = new.parked.iter().any(|now| now.id == held.id);
                let closed = may.close.as_ref() == Some(&held.wait);
                assert!(parked || done || over || closed, "it left its wait: {held:?}");
            }
            for held in new.queue.iter().chain(&new.parked) {
                let known = old.queue.iter().chain(&old.parked).any(|one| one.id == held.id);
                let added = may.add.as_ref().is_some_and(|(to, id)| to == name && *id == held.id);
                assert!(known || added, "out of nothing: {held:?}");
            }
            assert!(
                !may.refused || new.markers.is_subset(&old.markers),
                "a refused send is remembered"
            );
        }
        if let Some((name, id)) = &may.add {
            let new = self.boxes.get(name).unwrap_or(&none);
            let there = new.queue.iter().chain(&new.parked).find(|held| held.id == *id);
            // A short life may be over before we look.
            assert!(there.is_some() || self.boxes.get(name).is_none_or(|one| one.queue.is_empty()));
        }
    }
}

fn hex(id: MessageId) -> String {
    id.to_string().replace('-', "")
}

/// One history under way.
struct Walk<'a> {
    store: &'a Backend,
    chance: StdRng,
    names: Vec<String>,
    sent: BTreeMap<String, NewMessage>,
    keyed: Vec<NewMessage>,
    leases: Vec<(usize, LeaseId)>,
    cursors: Vec<(usize, Stamp)>,
    questions: Vec<(usize, MessageId)>,
    taken: BTreeSet<MessageId>,
    diary: Vec<String>,
}

impl Walk<'_> {
    fn any(&mut self, count: usize) -> usize {
        self.chance.random_range(0..count.max(1))
    }

    /// One of the latest, mostly.
    fn pick<T: Copy>(&mut self, things: &[T]) -> Option<T> {
        let back = self.any(6).min(self.chance.random_range(0..64));
        let last = things.len().checked_sub(1)?;
        Some(things[last.saturating_sub(back)])
    }

    async fn step(&mut self) -> May {
        let kind = self.any(20);
        self.diary.push(format!("{kind}"));
        match kind {
            0..=6 => self.send().await,
            7..=10 => self.fetch().await,
            11..=13 => self.ack().await,
            14 => {
                let leases = self.leases.clone();
                let Some((client, lease)) = self.pick(&leases) else { return May::default() };
                self.store.release(&inbox(&self.names[client]), lease).await.unwrap();
                May::default()
            }
            15 => {
                let leases = self.leases.clone();
                let Some((client, lease)) = self.pick(&leases) else { return May::default() };
                self.store.extend(&inbox(&self.names[client]), lease, ms(30)).await.unwrap();
                May::default()
            }
            16 => self.repeat().await,
            _ => self.wait(kind).await,
        }
    }

    async fn send(&mut self) -> May {
        let (from, to) = (self.any(CLIENTS), self.any(CLIENTS));
        let padding = "y".repeat(self.any(200));
        let text = format!("text {} {padding}", self.sent.len());
        let life = if self.chance.random_bool(0.4) { self.any(60) as u64 + 1 } else { 60_000 };
        let mut new = message(&self.names[from], &self.names[to], &text).living(ms(life));
        if self.chance.random_bool(0.5) {
            let questions = self.questions.clone();
            if let Some((_, question)) = self.pick(&questions) {
                new = new.answering(question);
            }
        }
        if self.chance.random_bool(0.2) {
            let key = self.any(5).to_string();
            new = new.keyed(&key);
        } else if self.chance.random_bool(0.4) {
            let wait = self.any(200) as u64 + 1;
            new = new.asking(ms(wait));
        }
        self.post(new, from).await
    }

    /// A send with a key again.
    async fn repeat(&mut self) -> May {
        if self.keyed.is_empty() {
            return May::default();
        }
        let which = self.any(self.keyed.len());
        // Each request has an id of its own.
        let again = NewMessage { id: MessageId::new(), ..self.keyed[which].clone() };
        let from = self.names.iter().position(|name| inbox(name) == again.sender).unwrap();
        self.post(again, from).await
    }

    async fn post(&mut self, new: NewMessage, from: usize) -> May {
        let id = hex(new.id);
        self.diary.push(format!("send {id} {new:?}"));
        match self.store.send(&new).await {
            Ok(sent) if sent.id == new.id => {
                if new.wait.is_some() {
                    self.questions.push((from, new.id));
                }
                if new.idempotency.is_some() {
                    self.keyed.push(new.clone());
                }
                let to = new.recipient.client().expose().to_owned();
                self.sent.insert(id.clone(), new);
                May { add: Some((to, id)), ..May::default() }
            }
            Ok(_duplicate) => May::default(),
            Err(
                QueueError::InboxFull { .. }
                | QueueError::TooManyWaits { .. }
                | QueueError::IdempotencyConflict { .. }
                | QueueError::NoAnswer,
            ) => May { refused: true, ..May::default() },
            Err(
                error @ (QueueError::Unavailable { .. }
                | QueueError::Timeout
                | QueueError::Unreadable { .. }
                | QueueError::Contract { .. }),
            ) => panic!("{error}"),
        }
    }

    async fn fetch(&mut self) -> May {
        let leases = self.leases.clone();
        let again = self.pick(&leases).filter(|_| self.chance.random_bool(0.2));
        let (client, lease) =
            again.unwrap_or_else(|| (self.chance.random_range(0..CLIENTS), LeaseId::new()));
        let life = if self.chance.random_bool(0.5) { self.any(40) as u64 + 1 } else { 10_000 };
        let max_messages = self.any(5) + 1;
        let request = FetchRequest { lease, lease_for: ms(life), max_messages, ..anything() };
        self.leases.push((client, lease));
        let fetched = self.store.fetch(&inbox(&self.names[client]), &request).await.unwrap();
        self.diary.push(format!("fetched {client} {:?}", fetched.outcome));
        if let Outcome::Messages(batch) = fetched.outcome {
            self.cursors.push((client, batch.upto));
        }
        May::default()
    }

    /// With a cursor that was handed out, to whomever, or with one that never was.
    async fn ack(&mut self) -> May {
        let cursors = self.cursors.clone();
        let Some((mut client, mut upto)) = self.pick(&cursors) else { return May::default() };
        if self.chance.random_bool(0.2) {
            client = self.any(CLIENTS);
            upto = Stamp(if self.chance.random_bool(0.5) { u64::MAX >> 12 } else { upto.0 - 1 });
        }
        self.diary.push(format!("ack {client} {upto:?}"));
        self.store.ack(&inbox(&self.names[client]), upto).await.unwrap();
        let upto = i64::try_from(upto.0).unwrap();
        May { ack: Some((self.names[client].clone(), upto)), ..May::default() }
    }

    /// Takes a reply, is done with it, or gives the wait up.
    async fn wait(&mut self, kind: usize) -> May {
        let questions = self.questions.clone();
        let Some((client, question)) = self.pick(&questions) else { return May::default() };
        let (name, id) = (inbox(&self.names[client]), hex(question));
        self.diary.push(format!("wait {kind} {id}"));
        if kind == 17 {
            let state = self.store.wait_take(&name, question).await.unwrap();
            if matches!(state.taken, Taken::Reply(_)) {
                self.taken.insert(question);
            }
            return May::default();
        }
        if kind == 18 && self.taken.contains(&question) {
            self.store.wait_done(&name, question).await.unwrap();
            return May { done: Some(id), ..May::default() };
        }
        self.store.wait_close(&name, question).await.unwrap();
        May { close: Some(id), ..May::default() }
    }
}

/// Walks through one history and looks at the keys after every step.
async fn walk(store: &Backend, seed: u64) {
    let mut redis = store.redis().talk();
    assert_eq!(redis.command(&["FLUSHALL"]), Reply::Text("OK".to_owned()));
    let unique = MessageId::new();
    let mut walk = Walk {
        store,
        chance: StdRng::seed_from_u64(seed),
        names: (0..CLIENTS).map(|n| format!("client-{n}-{unique}")).collect(),
        sent: BTreeMap::new(),
        keyed: Vec::new(),
        leases: Vec::new(),
        cursors: Vec::new(),
        questions: Vec::new(),
        taken: BTreeSet::new(),
        diary: Vec::new(),
    };
    let mut before = Snapshot::take(&mut redis, &walk.names);
    for _ in 0..HISTORY {
        let may = walk.step().await;
        let after = Snapshot::take(&mut redis, &walk.names);
        let checked = std::panic::catch_unwind(|| {
            after.check(&walk.sent);
            after.check_step(&before, &may);
        });
        if let Err(broken) = checked {
            let last = walk.diary.len().saturating_sub(12);
            eprintln!("seed {seed}, after {:#?}\nbefore {before:#?}", &walk.diary[last..]);
            eprintln!("now {after:#?}\nwhat the step may do: {may:?}");
            std::panic::resume_unwind(broken);
        }
        before = after;
    }
}

/// A share of the steps; they run side by side.
async fn walks() {
    let store = redis_backend_with(SMALL).await;
    let first: u64 = rand::random();
    for history in 0..STEPS / SHARES / HISTORY {
        walk(&store, first.wrapping_add(history as u64)).await;
    }
}

macro_rules! what_is_kept_is_whole_after_every_step {
    ($($share:ident),*) => {
        const SHARES: usize = [$(stringify!($share)),*].len();
        mod what_is_kept_is_whole_after_every_step {
            $( #[tokio::test] async fn $share() { super::walks().await; } )*
        }
    };
}
what_is_kept_is_whole_after_every_step!(one, two, three, four);
