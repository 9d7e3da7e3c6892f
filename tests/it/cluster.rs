//! Redis Cluster: slots that move under the mailbox.

use std::{net::TcpListener, time::Duration};

use mcp_messaging::queue::SentStatus;
use tokio::time::sleep;

use crate::{
    auth::{KEYED, contacts},
    faults::library_at,
    support::{
        Draft, Persistence, RedisServer, Replica, Reply, anything, inbox, message, redis_behind,
        secs,
    },
};

/// Two primaries, of which the first holds every slot.
struct Cluster {
    holder: RedisServer,
    other: RedisServer,
}

impl Cluster {
    fn start() -> Self {
        let node = || {
            let bus = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let bus = bus.to_string();
            let arguments = ["--cluster-enabled", "yes", "--cluster-port", &bus];
            (RedisServer::start_with(Persistence::None, &arguments), bus)
        };
        let ((holder, _), (other, bus)) = (node(), node());
        holder.expect(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
        holder.expect(&["CLUSTER", "MEET", "127.0.0.1", other.port(), &bus]);
        let cluster = Self { holder, other };
        for node in [&cluster.holder, &cluster.other] {
            // The state that a node is in after its start lasts for two seconds.
            node.until(&["CLUSTER", "INFO"], "cluster_state:ok");
            node.until(&["CLUSTER", "INFO"], "cluster_known_nodes:2");
        }
        cluster
    }

    fn url(&self) -> String {
        self.holder.url().replace("redis:", "redis-cluster:")
    }

    /// The slot of an inbox, by way of its bucket (`migrations/KEYSPACE.md`).
    fn slot_of(&self, inbox: &str) -> String {
        let slot = |key: &str| {
            let answer = self.holder.command(&["CLUSTER", "KEYSLOT", key]);
            let Reply::Integer(slot) = answer else { panic!("no slot: {answer:?}") };
            slot
        };
        slot(&format!("{{b{}}}", slot(inbox) % 256)).to_string()
    }

    /// Says to both that a slot is on its way from the first to the second.
    fn begin_to_move(&self, slot: &str) {
        let (from, to) = (self.holder.id(), self.other.id());
        self.other.expect(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &from]);
        self.holder.expect(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &to]);
    }

    fn end_to_move(&self, slot: &str) {
        let to = self.other.id();
        self.other.expect(&["CLUSTER", "SETSLOT", slot, "NODE", &to]);
        self.holder.expect(&["CLUSTER", "SETSLOT", slot, "NODE", &to]);
    }
}

impl RedisServer {
    fn expect(&self, words: &[&str]) {
        assert_eq!(self.command(words), Reply::Text("OK".to_owned()), "{words:?}");
    }

    fn id(&self) -> String {
        let answer = self.command(&["CLUSTER", "MYID"]);
        let Reply::Text(id) = answer else { panic!("no id: {answer:?}") };
        id
    }

    fn until(&self, words: &[&str], part: &str) {
        let patience = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            let answer = self.command(words);
            if matches!(&answer, Reply::Text(text) if text.contains(part)) {
                return;
            }
            assert!(std::time::Instant::now() < patience, "{answer:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[tokio::test]
async fn a_send_into_a_slot_that_moves_waits_for_it_and_hurts_nobody_else() {
    let cluster = Cluster::start();
    let one = Replica::on(&cluster.url()).await;
    let alice = one.agent("alice");
    alice.send("bob", "before").await;
    let slot = cluster.slot_of("default/carol");
    assert_ne!(slot, cluster.slot_of("default/bob"));
    cluster.begin_to_move(&slot);
    // Redis sends whoever asks for what is not there to the other one.
    let moving = tokio::spawn({
        let alice = alice.clone();
        async move { alice.send("carol", "moving").await }
    });
    sleep(Duration::from_millis(500)).await;
    assert!(!moving.is_finished(), "it waits");
    alice.send("bob", "meanwhile").await;
    cluster.end_to_move(&slot);
    moving.await.unwrap();
    assert_eq!(one.agent("carol").texts(0).await, ["moving"]);
    assert_eq!(one.agent("bob").texts(0).await, ["before", "meanwhile"]);
}

#[tokio::test]
async fn who_waits_is_woken_after_one_slot_of_many_has_moved() {
    const READERS: usize = 40;
    let cluster = Cluster::start();
    let one = Replica::on(&cluster.url()).await;
    let mut readers = Vec::new();
    for number in 0..READERS {
        let reader = one.agent(&format!("reader-{number}"));
        readers.push(tokio::spawn(async move { reader.texts(50).await }));
    }
    one.waiters(READERS).await;
    let slot = cluster.slot_of("default/reader-0");
    cluster.begin_to_move(&slot);
    // The small hash of the inbox goes along.
    let keys = cluster.holder.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "10"]);
    let Reply::Array(keys) = keys else { panic!("no keys: {keys:?}") };
    for key in &keys {
        let Reply::Text(key) = key else { panic!("a key is text") };
        let to = cluster.other.port();
        cluster.holder.expect(&["MIGRATE", "127.0.0.1", to, key, "0", "5000"]);
    }
    cluster.end_to_move(&slot);
    let alice = one.agent("alice");
    for (number, reader) in readers.into_iter().enumerate() {
        alice.send(&format!("reader-{number}"), "at its place").await;
        assert_eq!(reader.await.unwrap(), ["at its place"]);
    }
    // The slow poll found nothing: the loss of one subscription among many is noticed long before.
    assert_eq!(one.metric("mcp_messaging_missed_wakeups_total").await, 0);
}

#[tokio::test]
async fn what_lies_in_a_cluster_is_counted_slot_by_slot() {
    let cluster = Cluster::start();
    let sampled = [("MCP_MESSAGING__OPS__SAMPLE_SECONDS", "1")];
    let one = Replica::with(&cluster.url(), &sampled).await;
    for number in 0..20 {
        one.agent("alice").send(&format!("reader-{number}"), "x").await;
    }
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    let counted = async || one.get("/metrics").await.1;
    while !counted().await.contains("mcp_messaging_queued_messages 20") {
        assert!(std::time::Instant::now() < patience, "{}", counted().await);
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_primary_without_functions_gets_them_and_costs_no_other_one_newer_ones() {
    let cluster = Cluster::start();
    let slot = cluster.slot_of("default/bob");
    cluster.begin_to_move(&slot);
    cluster.end_to_move(&slot);
    cluster.holder.command(&["FUNCTION", "LOAD", &library_at(1000)]);
    let one = Replica::on(&cluster.url()).await;
    one.agent("alice").send("bob", "to the other one").await;
    assert_eq!(one.agent("bob").texts(0).await, ["to the other one"]);
    let revision = |node: &RedisServer| node.command(&["FCALL", "mb1_revision", "0"]);
    assert_eq!(revision(&cluster.holder), Reply::Integer(1000));
    assert!(matches!(revision(&cluster.other), Reply::Integer(ours) if ours < 1000));
    cluster.other.command(&["FUNCTION", "FLUSH", "SYNC"]);
    one.agent("alice").send("bob", "again").await;
    assert_eq!(one.agent("bob").texts(0).await, ["again"]);
    assert_eq!(revision(&cluster.holder), Reply::Integer(1000));
}

#[tokio::test]
async fn contacts_and_teams_hold_in_a_cluster() {
    let cluster = Cluster::start();
    let one = Replica::with(&cluster.url(), &KEYED).await;
    contacts::two_teams_talk((&one, &one)).await;
    contacts::answers_come_through((&one, &one)).await;
}

/// A send whose answer got lost is made again by the store itself: the same message, under the same id.
#[tokio::test]
async fn a_send_that_is_made_again_keeps_its_place_in_the_ledger_and_its_answer() {
    let Cluster { holder, other } = Cluster::start();
    let url = holder.url().replace("redis:", "redis-cluster:");
    let backend = redis_behind(url, holder).await;
    let question = message("alice", "bob", "?").keyed("question").asking(secs(20));
    let id = backend.queue_up(&question).await;
    backend.lease("bob", &anything()).await;
    backend.reply(&message("bob", "alice", "!").answering(id)).await;
    assert!(matches!(backend.post(&question).await.status, SentStatus::Duplicate(_)));
    assert_eq!(backend.take_reply("alice", id).await.text, "!");
    assert_eq!(backend.ledger(&inbox("alice")).await.unwrap().len(), 1, "noted once");

    // It broke off before the ledger was written.
    let brief = message("alice", "carol", "unread").keyed("brief").living(secs(1));
    let id = backend.queue_up(&brief).await;
    let Reply::Array(keys) = backend.redis().command(&["KEYS", "*default/alice:l"]) else {
        panic!("keys")
    };
    let [Reply::Text(key)] = &keys[..] else { panic!("{keys:?}") };
    assert_eq!(backend.redis().command(&["DEL", key]), Reply::Integer(1));
    assert!(matches!(backend.post(&brief).await.status, SentStatus::Duplicate(_)));
    sleep(Duration::from_millis(1300)).await;
    assert_eq!(backend.noticed("alice").await, [id]);
    drop(other);
}
