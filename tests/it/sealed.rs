//! Texts that are sealed in Redis: what lies there, what becomes of one that was tampered with or whose key is
//! away, and how keys are changed while everybody works.

mod rotation;
mod tampered;
mod tools;
mod unread;

use mcp_messaging::{
    model::{KeyRing, MessageId, NamedKey},
    queue::{
        Outcome, QueueError, Unreadable,
        redis::{Seal, Sealing},
    },
};
use secrecy::ExposeSecret;

use crate::support::{
    Backend, Draft, LIMITS, Persistence, RedisServer, anything, inbox, message, redis_with, secs,
};

const A: &str = "a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
const B: &str = "b:IAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
/// The name of the first, with another secret.
const FORGED: &str = "a:QAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

fn seal(sealing: Sealing, keys: &[&str]) -> Seal {
    Seal::new(&keys.join("\n").parse::<KeyRing>().unwrap(), sealing)
}

/// Why nothing of an inbox can be read.
async fn refused(store: &Backend, client: &str) -> (MessageId, Unreadable) {
    match store.fetch(&inbox(client), &anything()).await {
        Err(QueueError::Unreadable { id, why }) => (id, why),
        other => panic!("what cannot be read was expected, not {other:?}"),
    }
}

/// Everything that a text can go through on its way: a queue, a parked reply that is returned, a task, a key.
async fn say_everything(store: &Backend) {
    store.queue_up(&message("alice", "bob", "canary-queued").keyed("canary-kept")).await;
    let again = message("alice", "bob", "canary-queued").keyed("canary-kept");
    store.post(&again).await;
    for kind in ["parked", "returned", "task"] {
        let question = message("alice", "bob", "canary-question").asking(secs(20));
        let question = store.queue_up(&question).await;
        if kind == "task" {
            store.task_open(&inbox("alice"), question, secs(20)).await.unwrap().unwrap();
        }
        let reply = message("bob", "alice", &format!("canary-{kind}")).answering(question);
        store.reply(&reply).await;
        assert_eq!(store.take_reply("alice", question).await.text, format!("canary-{kind}"));
        if kind == "returned" {
            store.wait_close(&inbox("alice"), question).await.unwrap();
        }
    }
    assert_eq!(store.browse(&inbox("bob"), 9, 1 << 20).await.unwrap().messages.len(), 4);
    assert_eq!(store.lease("bob", &anything()).await.0[0].text, "canary-queued");
    assert_eq!(store.texts("alice").await, ["canary-returned"]);
}

/// How often a word stands in what Redis wrote to its disk: every write that it made.
async fn written(seal: Seal, word: &str) -> usize {
    let server = RedisServer::start(Persistence::AppendOnly);
    let store = redis_with(server, seal, LIMITS).await;
    say_everything(&store).await;
    let files = store.redis().files();
    files.windows(word.len()).filter(|bytes| *bytes == word.as_bytes()).count()
}

#[tokio::test]
async fn no_text_lies_in_redis_as_it_was_sent() {
    assert!(written(Seal::default(), "canary-").await >= 8, "what is plain is found");
    assert_eq!(written(seal(Sealing::Seal, &[A]), "canary-").await, 0);
    assert_eq!(written(seal(Sealing::Require, &[A]), "canary-").await, 0);
}

#[tokio::test]
async fn no_text_can_be_guessed_from_what_is_kept_of_its_key() {
    let found = async |seal| {
        let server = RedisServer::start(Persistence::AppendOnly);
        let store = redis_with(server, seal, LIMITS).await;
        let sent = message("alice", "bob", "yes").keyed("k");
        store.queue_up(&sent).await;
        let (files, digest) = (store.redis().files(), sent.content_digest());
        files.windows(digest.len()).any(|bytes| *bytes == digest)
    };
    assert!(found(Seal::default()).await, "a plain digest is found");
    assert!(found(seal(Sealing::Open, &[A])).await);
    assert!(!found(seal(Sealing::Seal, &[A])).await);
    assert!(!found(seal(Sealing::Require, &[A])).await);
}

#[tokio::test]
async fn equal_texts_are_sealed_to_different_ones() {
    let store =
        redis_with(RedisServer::start(Persistence::None), seal(Sealing::Seal, &[A]), LIMITS);
    let store = store.await;
    for _ in 0..2 {
        store.queue_up(&message("alice", "bob", "again and again")).await;
    }
    let script = "local k = redis.call('KEYS', '*/bob:q')[1] \
                  return redis.call('LINDEX', k, 1) == redis.call('LINDEX', k, 3) and 1 or 0";
    let equal = store.redis().command(&["EVAL", script, "0"]);
    assert_eq!(equal, crate::support::Reply::Integer(0));
    assert_eq!(store.texts("bob").await, ["again and again", "again and again"]);
}

#[test]
fn a_seal_shows_nothing_of_its_keys() {
    let key = NamedKey::generate('e');
    let shown = format!("{:?}", seal(Sealing::Seal, &[key.expose_secret()]));
    assert_eq!(shown, "Seal { sealing: Some(Seal), .. }");
}
