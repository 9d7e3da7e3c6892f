//! One message that cannot be read, between others that can.

use mcp_messaging::{
    model::{KeyName, MessageState},
    queue::{FetchRequest, LeaseId},
};

use super::*;
use crate::support::{Reply, ms, redis_sealed_by, texts_of, wakes};

fn without_b() -> Unreadable {
    Unreadable::NoKey(KeyName::new(b"b").unwrap())
}

/// Ten messages for bob, of which the fourth is sealed with a key that only the second store has.
async fn ten() -> (Backend, Backend, Vec<MessageId>) {
    let store = redis_sealed_by(seal(Sealing::Seal, &[A])).await;
    let with_b = store.beside(seal(Sealing::Seal, &[B, A])).await;
    let mut ids = Vec::new();
    for number in 1..=10 {
        let sender = if number == 4 { &with_b } else { &store };
        ids.push(sender.queue_up(&message("alice", "bob", &number.to_string())).await);
    }
    (store, with_b, ids)
}

#[tokio::test]
async fn what_is_before_it_is_delivered_and_it_and_the_rest_stay() {
    let (store, with_b, ids) = ten().await;
    let fetched = store.look("bob").await;
    assert_eq!(fetched.remaining, 7);
    let Outcome::Messages(batch) = fetched.outcome else { panic!("{fetched:?}") };
    assert_eq!(texts_of(&batch.messages), ["1", "2", "3"]);
    let peek = store.peek(&inbox("bob")).await.unwrap();
    assert_eq!((peek.queued, peek.leased), (10, 3), "what was not read is not held");
    assert_eq!(store.ack(&inbox("bob"), batch.upto).await.unwrap(), 3);

    for _ in 0..3 {
        assert_eq!(refused(&store, "bob").await, (ids[3], without_b()));
    }
    for (index, id) in ids.iter().enumerate() {
        let expected = if index < 3 { MessageState::Acknowledged } else { MessageState::Queued };
        assert_eq!(store.state("alice", *id).await, Some(expected), "{index}");
    }
    let got = with_b.drain("bob").await;
    assert_eq!(texts_of(&got), ["4", "5", "6", "7", "8", "9", "10"]);
    assert!(got.iter().all(|one| !one.redelivered && one.attempt == 1), "{got:?}");
}

#[tokio::test]
async fn what_was_handed_out_before_it_keeps_its_marks() {
    let (store, with_b, _) = ten().await;
    let marks = |messages: &[mcp_messaging::model::Message]| -> Vec<_> {
        messages.iter().map(|one| (one.redelivered, one.attempt)).collect()
    };
    for attempt in 1..=3 {
        let request = anything();
        let (got, _) = store.lease("bob", &request).await;
        assert_eq!(marks(&got), [(attempt > 1, attempt); 3]);
        assert!(store.release(&inbox("bob"), request.lease).await.unwrap());
    }
    let got = with_b.drain("bob").await;
    assert_eq!(marks(&got[..3]), [(true, 4); 3]);
    assert_eq!(marks(&got[3..]), [(false, 1); 7]);
}

#[tokio::test]
async fn a_look_shows_what_is_before_it() {
    let (store, with_b, ids) = ten().await;
    let found = store.browse(&inbox("bob"), 9, 1 << 20).await.unwrap();
    assert_eq!((texts_of(&found.messages), found.queued), (vec!["1", "2", "3"], 10));
    store.ack(&inbox("bob"), store.lease("bob", &anything()).await.1).await.unwrap();
    let looked = store.browse(&inbox("bob"), 9, 1 << 20).await;
    assert_eq!(looked, Err(QueueError::Unreadable { id: ids[3], why: without_b() }));
    // A look at how many there are reads none of them.
    assert_eq!(store.browse(&inbox("bob"), 0, 0).await.unwrap().queued, 7);
    assert_eq!(with_b.browse(&inbox("bob"), 9, 1 << 20).await.unwrap().messages.len(), 7);
}

#[tokio::test]
async fn it_expires_as_any_other_and_its_sender_is_told() {
    let store = redis_sealed_by(seal(Sealing::Seal, &[A])).await;
    let with_b = store.beside(seal(Sealing::Seal, &[B])).await;
    let lost = message("alice", "bob", "too late").living(secs(1));
    let lost = with_b.queue_up(&lost).await;
    store.queue_up(&message("alice", "bob", "behind it")).await;
    assert_eq!(refused(&store, "bob").await, (lost, without_b()));
    store.pass(ms(1200)).await;
    assert_eq!(store.texts("bob").await, ["behind it"]);
    assert_eq!(store.state("alice", lost).await, Some(MessageState::Expired));
    assert_eq!(store.noticed("alice").await, [lost]);
}

#[tokio::test]
async fn whoever_waits_for_the_end_of_its_lease_is_woken_when_it_gives_up() {
    let (store, with_b, _) = ten().await;
    // A reader without the key holds the head for as long as it takes to find out; another one comes meanwhile.
    let lease = *b"sixteen letters!";
    let hold =
        FetchRequest { lease: LeaseId::from_bytes(lease), lease_for: secs(60), ..anything() };
    with_b.lease("bob", &hold).await;
    let mut wakeups = with_b.watching("bob").await;
    assert_eq!(with_b.look("bob").await.outcome, Outcome::Busy);
    while wakeups.next_within(ms(300)).await {} // those of the sends
    let Reply::Array(found) = store.redis().command(&["KEYS", "*/bob:q"]) else {
        panic!("no queue")
    };
    let [Reply::Text(queue)] = &found[..] else { panic!("{found:?}") };
    let key = |letter: &str| format!("{}{letter}", &queue[..queue.len() - 1]);
    let (meta, waits, lease) = (key("m"), key("w"), std::str::from_utf8(&lease).unwrap());
    let words = ["FCALL", "mb1_unfetch", "3", queue, &meta, &waits, lease, "0", "0"];
    assert_eq!(store.redis().command(&words), Reply::Integer(0));
    wakes(&mut wakeups).await;
    assert_eq!(with_b.drain("bob").await.len(), 10);
}

#[tokio::test]
async fn who_cannot_read_it_does_not_count_as_a_reader() {
    let store = redis_sealed_by(seal(Sealing::Seal, &[A])).await;
    let with_b = store.beside(seal(Sealing::Seal, &[B])).await;
    with_b.queue_up(&message("alice", "bob", "hello")).await;
    let first = anything();
    with_b.lease("bob", &first).await;
    with_b.release(&inbox("bob"), first.lease).await.unwrap();
    for _ in 0..3 {
        refused(&store, "bob").await;
    }
    let got = with_b.drain("bob").await;
    assert_eq!((got[0].redelivered, got[0].attempt), (true, 2));
}

#[tokio::test]
async fn a_reader_that_cannot_read_wakes_nobody_who_does_not_wait_for_it() {
    let (store, _with_b, _) = ten().await;
    store.ack(&inbox("bob"), store.lease("bob", &anything()).await.1).await.unwrap();
    let mut wakeups = store.watching("bob").await;
    while wakeups.next_within(ms(300)).await {} // those of the acknowledgement
    for _ in 0..3 {
        refused(&store, "bob").await;
    }
    assert!(
        !wakeups.next_within(ms(500)).await,
        "two readers without the key would wake each other for ever"
    );
}

#[tokio::test]
async fn a_reply_is_kept_for_its_wait_and_then_for_the_inbox() {
    let store = redis_sealed_by(seal(Sealing::Seal, &[A])).await;
    let with_b = store.beside(seal(Sealing::Seal, &[B, A])).await;
    let question = message("alice", "bob", "?").asking(secs(20));
    let question = store.queue_up(&question).await;
    let reply = with_b.reply(&message("bob", "alice", "!").answering(question)).await;
    let error = QueueError::Unreadable { id: reply, why: without_b() };
    for _ in 0..2 {
        assert_eq!(store.wait_take(&inbox("alice"), question).await, Err(error.clone()));
        assert_eq!(store.state("bob", reply).await, Some(MessageState::Queued));
    }
    store.wait_close(&inbox("alice"), question).await.unwrap();
    assert_eq!(refused(&store, "alice").await, (reply, without_b()));
    let got = with_b.drain("alice").await;
    assert_eq!((&*got[0].text, got[0].redelivered, got[0].attempt), ("!", false, 1));
}

#[tokio::test]
async fn a_question_that_was_not_read_is_answered_by_nobody_by_chance() {
    let store = redis_sealed_by(seal(Sealing::Seal, &[A])).await;
    let with_b = store.beside(seal(Sealing::Seal, &[B, A])).await;
    let question = message("alice", "bob", "?").asking(secs(20));
    let question = with_b.queue_up(&question).await;
    refused(&store, "bob").await;
    // A message without a reference answers what its sender was handed. Bob was handed nothing.
    store.queue_up(&message("bob", "alice", "by the way")).await;
    assert_eq!(with_b.texts("bob").await, ["?"]);
    with_b.reply(&message("bob", "alice", "!")).await;
    assert_eq!(with_b.take_reply("alice", question).await.text, "!");
}

#[tokio::test]
async fn what_counts_an_inbox_counts_what_is_stored() {
    let plain = redis_sealed_by(Seal::default()).await;
    let sealed = redis_sealed_by(seal(Sealing::Seal, &[A])).await;
    let most = usize::try_from(LIMITS.inbox_bytes).unwrap();
    // Too large by what seals it and no more: the header and the sender are some 52 bytes.
    let text = "x".repeat(most - 60);
    plain.queue_up(&message("alice", "bob", &text)).await;
    let full = sealed.send(&message("alice", "bob", &text)).await;
    assert!(matches!(full, Err(QueueError::InboxFull { .. })), "{full:?}");
    sealed.queue_up(&message("alice", "bob", &text[..most - 60 - 32])).await;
}
