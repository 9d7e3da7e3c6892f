//! Who can write in Redis changes every part of a message that a text is bound to.

use mcp_messaging::{
    model::{Inbox, KeyName, MessageState},
    queue::NewMessage,
};

use super::*;
use crate::support::Reply;

/// What is done, how, and what a reader is told.
type Change = (&'static str, &'static str, fn() -> Unreadable);

/// What is done to the first record of bob's inbox. `h` and `b` are its header and its stored text, `K` the key
/// of a queue; each comes back as it was afterwards.
const CHANGES: &[Change] = &[
    ("the ciphertext", "b = flip(b, #b - 20)", changed),
    ("the tag", "b = flip(b, #b)", changed),
    ("the nonce", "b = flip(b, 6)", changed),
    ("its end", "b = string.sub(b, 1, -2)", changed),
    ("the sender", "h = string.gsub(h, 'default/alice', 'default/mally')", changed),
    ("the proof of the sender", "h = set(h, 2, bit.bor(string.byte(h, 2), 16))", changed),
    ("that its sender waits", "h = set(h, 2, bit.bor(string.byte(h, 2), 2))", changed),
    ("the message that it answers", "h = flip(h, #h)", changed),
    ("its id", "h = flip(h, 30)", changed),
    ("the text of another message", "b = redis.call('LINDEX', q, 3)", changed),
    ("the text of another inbox", "b = redis.call('LINDEX', K('carol'), 1)", changed),
    (
        "the text of another team",
        "b = redis.call('LINDEX', redis.call('KEYS', '*:acme/bob:q')[1], 1)",
        changed,
    ),
    ("an unknown key", "b = string.gsub(b, '\\1\\1a', '\\1\\1z', 1)", || {
        Unreadable::NoKey(KeyName::new(b"z").unwrap())
    }),
    ("the format", "b = set(b, 2, 2)", || Unreadable::Broken),
    ("nothing but the first byte", "b = '\\255'", || Unreadable::Broken),
    ("a text of its own", "b = 'obey'", || Unreadable::Plain),
    ("no text at all", "b = '\\254'", || Unreadable::Plain),
];

fn changed() -> Unreadable {
    Unreadable::Changed(KeyName::new(b"a").unwrap())
}

const TOOLS: &str = "\
    local function set(s, i, n) return string.sub(s, 1, i - 1) .. string.char(n) .. string.sub(s, i + 1) end \
    local function flip(s, i) return set(s, i, bit.bxor(string.byte(s, i), 1)) end \
    local function K(who) return redis.call('KEYS', '*:default/' .. who .. ':q')[1] end \
    local q = K('bob') ";

/// Runs a script in Redis.
fn script(store: &Backend, body: &str) {
    let done = store.redis().command(&["EVAL", &format!("{TOOLS} {body} return 1"), "0"]);
    assert_eq!(done, Reply::Integer(1), "{body}");
}

#[tokio::test]
async fn a_text_is_bound_to_its_message_its_sender_and_its_inbox() {
    for (what, change, why) in CHANGES {
        let server = RedisServer::start(Persistence::None);
        let store = redis_with(server, seal(Sealing::Require, &[A]), LIMITS).await;
        let reference = MessageId::new();
        let first = message("alice", "bob", "to bob: the first").answering(reference);
        store.queue_up(&first).await;
        store.queue_up(&message("alice", "bob", "to bob: another").answering(reference)).await;
        // The same in every other respect.
        let theirs = Inbox::new("acme".parse().unwrap(), "bob".parse().unwrap());
        for recipient in [inbox("carol"), theirs] {
            store.queue_up(&NewMessage { recipient, ..first.clone() }).await;
        }

        script(&store, "redis.call('COPY', q, 'kept')");
        let apply = format!(
            "local h, b = redis.call('LINDEX', q, 0), redis.call('LINDEX', q, 1) {change} \
             redis.call('LSET', q, 0, h) redis.call('LSET', q, 1, b)"
        );
        script(&store, &apply);
        assert_eq!(refused(&store, "bob").await.1, why(), "{what}");
        let looked = store.browse(&inbox("bob"), 9, 1 << 20).await;
        assert!(matches!(looked, Err(QueueError::Unreadable { .. })), "{what}: {looked:?}");
        assert_eq!(refused(&store, "bob").await.1, why(), "{what}, again");
        let peek = store.peek(&inbox("bob")).await.unwrap();
        assert_eq!((peek.queued, peek.leased), (2, 0), "{what}: it stays");
        assert_eq!(store.state("alice", first.id).await, Some(MessageState::Queued), "{what}");

        script(&store, "redis.call('RENAME', 'kept', q)");
        let got = store.drain("bob").await;
        assert_eq!((got.len(), &*got[0].text), (2, "to bob: the first"), "{what}");
        assert_eq!(
            (got[0].redelivered, got[0].attempt),
            (false, 1),
            "{what}: it was never handed out"
        );
        assert_eq!(got[0].in_reply_to, Some(reference));
    }
}

/// The store marks what it may hand out a second time; that must not make it unreadable.
#[tokio::test]
async fn the_mark_of_a_copy_is_the_stores_own() {
    let server = RedisServer::start(Persistence::None);
    let store = redis_with(server, seal(Sealing::Require, &[A]), LIMITS).await;
    store.queue_up(&message("alice", "bob", "hello")).await;
    script(
        &store,
        "local h = redis.call('LINDEX', q, 0) redis.call('LSET', q, 0, set(h, 2, bit.bor(string.byte(h, 2), 1)))",
    );
    let got = store.drain("bob").await;
    assert!(got[0].redelivered && got[0].text == "hello");
}

#[tokio::test]
async fn a_parked_reply_cannot_be_given_to_another_question() {
    let server = RedisServer::start(Persistence::None);
    let store = redis_with(server, seal(Sealing::Require, &[A]), LIMITS).await;
    let ask = async || {
        let question = message("alice", "bob", "?").asking(secs(20));
        let question = store.queue_up(&question).await;
        store.reply(&message("bob", "alice", "!").answering(question)).await;
        question
    };
    let (one, other) = (ask().await, ask().await);
    let swapped = "local r = redis.call('KEYS', '*:default/alice:r')[1] local f = redis.call('HGETALL', r) \
                   local texts = {} \
                   for i = 1, #f, 2 do if string.sub(f[i], 1, 1) == 'b' then texts[#texts + 1] = i end end \
                   redis.call('HSET', r, f[texts[1]], f[texts[2] + 1], f[texts[2]], f[texts[1] + 1])";
    script(&store, swapped);
    for question in [one, other] {
        let taken = store.wait_take(&inbox("alice"), question).await;
        assert!(
            matches!(&taken, Err(QueueError::Unreadable { why, .. }) if *why == changed()),
            "{taken:?}"
        );
    }
    script(&store, swapped);
    for question in [one, other] {
        let reply = store.take_reply("alice", question).await;
        assert_eq!((&*reply.text, reply.redelivered, reply.attempt), ("!", false, 1));
    }
}

#[tokio::test]
async fn another_secret_of_the_same_name_opens_nothing() {
    let server = RedisServer::start(Persistence::None);
    let store = redis_with(server, seal(Sealing::Seal, &[FORGED]), LIMITS).await;
    store.queue_up(&message("alice", "bob", "forged")).await;
    let real = store.beside(seal(Sealing::Seal, &[A])).await;
    assert_eq!(refused(&real, "bob").await.1, changed());
}
