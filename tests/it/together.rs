//! Calls of a worker that are ready at the same moment travel to Redis as one.

use std::time::Duration;

use futures_util::future::join_all;
use mcp_messaging::queue::{Limits, Outcome, QueueError, SentStatus, Taken, redis::Seal};

use crate::support::{
    Backend, Draft, LIMITS, Persistence, Proxy, RedisServer, Reply, Weather, anything, inbox,
    message, redis_backend, redis_backend_with, redis_behind, secs, texts_of,
};

/// How often a function was called from outside, and what all of them did inside: how many messages were stored.
fn calls(redis: &RedisServer) -> (u64, u64) {
    let Reply::Text(told) = redis.command(&["INFO", "commandstats"]) else { panic!("no INFO") };
    let count = |command: &str| {
        let line = told.lines().find_map(|line| line.strip_prefix(command));
        let count = line.and_then(|rest| rest.strip_prefix(":calls=")?.split(',').next());
        count.map_or(0, |count| count.parse().unwrap())
    };
    (count("cmdstat_fcall"), count("cmdstat_publish"))
}

/// Sends so many letters at once, to as many inboxes.
async fn post_at_once(backend: &Backend, letters: usize) -> Vec<Result<SentStatus, QueueError>> {
    let letters = (0..letters).map(|n| async move {
        let letter = message("alice", &format!("bob-{n}"), &n.to_string());
        backend.send(&letter).await.map(|sent| sent.status)
    });
    join_all(letters).await
}

async fn each_has_its_own(backend: &Backend, letters: usize) {
    for n in 0..letters {
        assert_eq!(backend.texts(&format!("bob-{n}")).await, [n.to_string()]);
    }
}

#[tokio::test]
async fn calls_at_once_share_a_way() {
    let backend = redis_backend().await;
    let before = calls(backend.redis());
    let sent = post_at_once(&backend, 100).await;
    assert!(sent.iter().all(|sent| matches!(sent, Ok(SentStatus::Queued))), "{sent:?}");
    let after = calls(backend.redis());
    assert_eq!(after.1 - before.1, 100, "each was stored");
    assert!(after.0 - before.0 <= 100 / 32 + 1, "{} ways for 100 letters", after.0 - before.0);
    each_has_its_own(&backend, 100).await;
    let bobs: Vec<_> = (0..100).map(|n| inbox(&format!("bob-{n}"))).collect();
    assert_eq!(post_at_once(&backend, 100).await.len(), 100);
    let fetches =
        bobs.iter().map(|bob| async { backend.fetch(bob, &anything()).await.unwrap().outcome });
    let before = calls(backend.redis()).0;
    let handed = join_all(fetches).await;
    assert!(calls(backend.redis()).0 - before <= 100 / 32 + 1, "fetches too");
    for (n, handed) in handed.into_iter().enumerate() {
        let Outcome::Messages(batch) = handed else { panic!("{handed:?}") };
        assert_eq!(batch.messages[0].text, n.to_string(), "each reader has its own");
    }
}

#[tokio::test]
async fn one_that_is_refused_spoils_no_other() {
    let backend = redis_backend_with(Limits { inbox_messages: 2, ..LIMITS }).await;
    for text in ["one", "two"] {
        backend.queue_up(&message("alice", "full", text)).await;
    }
    backend.queue_up(&message("carol", "dave", "first").keyed("key")).await;
    // A function that fails half way: its key is of another type.
    backend.queue_up(&message("alice", "broken", "lost")).await;
    let Reply::Array(keys) = backend.redis().command(&["KEYS", "*/broken:q"]) else { panic!() };
    let [Reply::Text(key)] = &keys[..] else { panic!("{keys:?}") };
    assert_eq!(backend.redis().command(&["SET", key, "text"]), Reply::Text("OK".into()));
    let refused = [
        message("alice", "full", "three"),
        message("carol", "dave", "other").keyed("key"),
        message("alice", "broken", "not"),
    ];
    let refusals = refused.iter().map(|letter| backend.send(letter));
    let (letters, refusals) =
        tokio::join!(post_at_once(&backend, 20), join_all(refusals.collect::<Vec<_>>()));
    assert!(letters.iter().all(Result::is_ok), "{letters:?}");
    let [full, conflict, broken] = <[_; 3]>::try_from(refusals).unwrap();
    assert!(matches!(full, Err(QueueError::InboxFull { messages: 2, .. })), "{full:?}");
    assert!(matches!(conflict, Err(QueueError::IdempotencyConflict { .. })), "{conflict:?}");
    assert!(matches!(broken, Err(QueueError::Contract { .. })), "{broken:?}");
    each_has_its_own(&backend, 20).await;
    assert_eq!(backend.texts("full").await, ["one", "two"]);
}

#[tokio::test]
async fn letters_of_one_moment_keep_their_order() {
    let backend = redis_backend().await;
    let letters: Vec<_> = (0..80).map(|n| message("alice", "bob", &n.to_string())).collect();
    let sent = join_all(letters.iter().map(|letter| backend.send(letter))).await;
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");
    let expected: Vec<_> = (0..80).map(|n| n.to_string()).collect();
    assert_eq!(backend.texts("bob").await, expected);
}

#[tokio::test]
async fn functions_that_redis_lost_are_loaded_for_all_who_travel() {
    let backend = redis_backend().await;
    assert_eq!(backend.redis().command(&["FUNCTION", "FLUSH"]), Reply::Text("OK".into()));
    let sent = post_at_once(&backend, 40).await;
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");
    each_has_its_own(&backend, 40).await;
}

#[tokio::test]
async fn an_answer_that_is_lost_on_the_way_stores_nothing_twice() {
    let redis = RedisServer::start(Persistence::None);
    let proxy = Proxy::before(&redis.url()).await;
    let backend = redis_behind(proxy.url(), redis).await;
    proxy.turn(Weather::Hole);
    let fair_again = async {
        while calls(backend.redis()).1 < 40 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        proxy.turn(Weather::Fair);
    };
    let (sent, ()) = tokio::join!(post_at_once(&backend, 40), fair_again);
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");
    assert_eq!(calls(backend.redis()).1, 40, "found again, not stored again");
    each_has_its_own(&backend, 40).await;
}

#[tokio::test]
async fn a_reply_that_was_received_before_its_sender_heard_of_it_is_marked_when_it_comes_again() {
    let redis = RedisServer::start(Persistence::None);
    let proxy = Proxy::before(&redis.url()).await;
    let backend = redis_behind(proxy.url(), redis).await;
    let near = backend.beside(Seal::default()).await;
    near.queue_up(&message("carol", "alice", "older")).await;
    let question = near.queue_up(&message("alice", "bob", "?").asking(secs(20))).await;
    proxy.turn(Weather::Hole);
    let reply = message("bob", "alice", "!").answering(question);
    let received = async {
        while !matches!(near.taken("alice", question).await, Taken::Reply(_)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        near.wait_done(&inbox("alice"), question).await.unwrap();
        proxy.turn(Weather::Fair);
    };
    let (sent, ()) = tokio::join!(backend.post(&reply), received);
    assert_eq!(sent.status, SentStatus::Queued, "nothing is known of the first time");
    let got = near.drain("alice").await;
    assert_eq!(texts_of(&got), ["older", "!"]);
    assert_eq!([got[0].redelivered, got[1].redelivered], [false, true]);
}

/// Without as many replicas as it wants it takes no writes.
fn refuse_writes(redis: &RedisServer, refuse: bool) {
    let replicas = if refuse { "1" } else { "0" };
    let set = redis.command(&["CONFIG", "SET", "min-replicas-to-write", replicas]);
    assert_eq!(set, Reply::Text("OK".into()));
}

#[tokio::test]
async fn reads_at_once_are_answered_by_a_redis_that_takes_no_writes() {
    let backend = redis_backend().await;
    post_at_once(&backend, 40).await;
    refuse_writes(backend.redis(), true);
    assert!(backend.send(&message("alice", "bob-0", "refused")).await.is_err());
    let bobs: Vec<_> = (0..40).map(|n| inbox(&format!("bob-{n}"))).collect();
    let before = calls(backend.redis()).0;
    let peeks = join_all(bobs.iter().map(|bob| backend.peek(bob))).await;
    assert!(peeks.iter().all(|peek| peek.as_ref().is_ok_and(|peek| peek.queued == 1)), "{peeks:?}");
    assert!(calls(backend.redis()).0 - before <= 40 / 32 + 1, "they share a way");
}

#[tokio::test]
async fn what_redis_refused_to_take_is_no_copy_when_it_takes_it() {
    let backend = redis_backend().await;
    backend.queue_up(&message("alice", "bob", "one before it")).await;
    backend.drain("bob").await;
    refuse_writes(backend.redis(), true);
    let later = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        refuse_writes(backend.redis(), false);
    };
    let letter = message("alice", "bob", "tried more than once");
    tokio::join!(backend.queue_up(&letter), later);
    assert!(!backend.drain("bob").await[0].redelivered);
}
