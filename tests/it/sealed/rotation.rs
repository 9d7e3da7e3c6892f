//! Keys come, change and go while messages are on their way.

use mcp_messaging::{model::KeyName, queue::SentStatus};

use super::*;
use crate::support::redis_sealed_by;

/// Two replicas on one Redis: each sends to the other, repeats what the other sent with a key, asks it, and
/// leaves it the answer.
async fn understand_each_other(one: &Backend, other: &Backend) {
    for (from, to) in [(one, other), (other, one)] {
        from.queue_up(&message("alice", "bob", "across").keyed("k")).await;
        let again = to.post(&message("alice", "bob", "across").keyed("k")).await;
        assert!(matches!(again.status, SentStatus::Duplicate(_)), "{again:?}");
        let changed = to.send(&message("alice", "bob", "something else").keyed("k")).await;
        assert!(matches!(changed, Err(QueueError::IdempotencyConflict { .. })), "{changed:?}");
        let question = message("alice", "bob", "?").asking(secs(20));
        let question = from.queue_up(&question).await;
        assert_eq!(to.texts("bob").await, ["across", "?"]);
        to.reply(&message("bob", "alice", "!").answering(question)).await;
        assert_eq!(from.take_reply("alice", question).await.text, "!");
        from.wait_close(&inbox("alice"), question).await.unwrap();
        assert_eq!(to.texts("alice").await, ["!"]);
        one.redis().command(&["FLUSHALL"]); // the key is to be new again
    }
}

#[tokio::test]
async fn keys_are_changed_while_both_old_and_new_replicas_serve() {
    let steps: [&[&str]; 4] = [&[A], &[A, B], &[B, A], &[B]];
    for pair in steps.windows(2) {
        let before = redis_sealed_by(seal(Sealing::Require, pair[0])).await;
        let after = before.beside(seal(Sealing::Require, pair[1])).await;
        understand_each_other(&before, &after).await;
    }
}

#[tokio::test]
async fn sealing_is_begun_and_ended_while_both_old_and_new_replicas_serve() {
    let steps = [
        Seal::default(),
        seal(Sealing::Open, &[A]),
        seal(Sealing::Seal, &[A]),
        seal(Sealing::Open, &[A]),
        Seal::default(),
    ];
    for pair in steps.windows(2) {
        let before = redis_sealed_by(pair[0].clone()).await;
        let after = before.beside(pair[1].clone()).await;
        understand_each_other(&before, &after).await;
    }
}

#[tokio::test]
async fn what_was_sent_before_is_read_until_sealing_is_required() {
    let plain = redis_sealed_by(Seal::default()).await;
    plain.queue_up(&message("alice", "bob", "from before")).await;
    let sealing = plain.beside(seal(Sealing::Seal, &[A])).await;
    sealing.queue_up(&message("alice", "bob", "from now on")).await;
    let all = sealing.lease("bob", &anything()).await;
    assert_eq!(crate::support::texts_of(&all.0), ["from before", "from now on"]);
    plain.queue_up(&message("alice", "carol", "planted")).await;
    let requiring = plain.beside(seal(Sealing::Require, &[A])).await;
    assert_eq!(refused(&requiring, "carol").await.1, Unreadable::Plain);
    assert_eq!(sealing.texts("carol").await, ["planted"]);
}

#[tokio::test]
async fn a_key_that_was_taken_out_too_early_can_be_put_back() {
    let before = redis_sealed_by(seal(Sealing::Require, &[A])).await;
    before.queue_up(&message("alice", "bob", "kept")).await;
    let after = before.beside(seal(Sealing::Require, &[B])).await;
    let missing = Unreadable::NoKey(KeyName::new(b"a").unwrap());
    assert_eq!(refused(&after, "bob").await.1, missing);
    let again = before.beside(seal(Sealing::Require, &[B, A])).await;
    assert_eq!(again.texts("bob").await, ["kept"]);
}
