//! Limits refuse, they don't drop.

use mcp_messaging::{
    model::MessageId,
    queue::{QueueError, SentStatus},
};

use crate::support::{Backend, Draft, LIMITS, inbox, message, ms, secs};

for_each_backend!(
    a_full_inbox_refuses_and_keeps_what_it_has,
    a_refusal_leaves_no_trace,
    a_full_inbox_has_room_again_after_an_acknowledgement,
    the_bytes_of_an_inbox_are_limited_too,
    expired_messages_behind_a_live_one_do_not_count,
    an_answer_to_a_wait_finds_room_in_a_full_inbox,
    a_wait_too_many_is_refused_without_a_trace,
    a_wait_that_is_over_makes_room_for_another,
    a_wait_whose_time_is_over_makes_room_though_nobody_closed_it,
);

async fn fill(backend: &Backend, messages: u64) {
    for n in 0..messages {
        backend.queue_up(&message("alice", "bob", &n.to_string())).await;
    }
}

async fn refused(backend: &Backend, sender: &str) -> QueueError {
    backend.send(&message(sender, "bob", "too much")).await.expect_err("a full inbox")
}

async fn a_full_inbox_refuses_and_keeps_what_it_has(backend: Backend) {
    fill(&backend, LIMITS.inbox_messages).await;
    let QueueError::InboxFull { messages, bytes, retry_after } = refused(&backend, "alice").await
    else {
        panic!("a full inbox")
    };
    assert_eq!(messages, LIMITS.inbox_messages);
    assert!(bytes > 0 && bytes <= LIMITS.inbox_bytes);
    assert!(retry_after <= secs(60) && retry_after > secs(5), "{retry_after:?}");
    let got = backend.texts("bob").await;
    let expected: Vec<_> = (0..LIMITS.inbox_messages).map(|n| n.to_string()).collect();
    assert_eq!(got, expected);
}

async fn a_refusal_leaves_no_trace(backend: Backend) {
    fill(&backend, LIMITS.inbox_messages).await;
    let refused = message("carol", "bob", "keyed").keyed("key").asking(secs(20));
    assert!(matches!(backend.send(&refused).await, Err(QueueError::InboxFull { .. })));
    assert_eq!(backend.state("carol", refused.id).await, None);
    let taken = backend.taken("carol", refused.id).await;
    assert_eq!(taken, mcp_messaging::queue::Taken::Gone);
    backend.drain("bob").await;
    let again = message("carol", "bob", "another text").keyed("key");
    backend.queue_up(&again).await;
    assert_eq!(backend.texts("bob").await, ["another text"]);
}

async fn a_full_inbox_has_room_again_after_an_acknowledgement(backend: Backend) {
    fill(&backend, LIMITS.inbox_messages).await;
    refused(&backend, "alice").await;
    backend.drain("bob").await;
    fill(&backend, LIMITS.inbox_messages).await;
    refused(&backend, "alice").await;
}

async fn the_bytes_of_an_inbox_are_limited_too(backend: Backend) {
    let large = "x".repeat(90_000);
    for _ in 0..2 {
        backend.queue_up(&message("alice", "bob", &large)).await;
    }
    let error = backend.send(&message("alice", "bob", &large)).await.unwrap_err();
    let QueueError::InboxFull { messages, bytes, .. } = error else { panic!("{error:?}") };
    assert!(messages == 2 && (180_000..=LIMITS.inbox_bytes).contains(&bytes), "{bytes}");
    backend.queue_up(&message("alice", "bob", "small")).await;
    assert_eq!(backend.drain("bob").await.len(), 3);
    for _ in 0..2 {
        backend.queue_up(&message("alice", "bob", &large)).await;
    }
}

async fn expired_messages_behind_a_live_one_do_not_count(backend: Backend) {
    backend.queue_up(&message("alice", "bob", "alive")).await;
    for _ in 1..LIMITS.inbox_messages {
        backend.queue_up(&message("alice", "bob", "short").living(ms(900))).await;
    }
    backend.pass(ms(1_100)).await;
    for _ in 1..LIMITS.inbox_messages {
        backend.queue_up(&message("alice", "bob", "new")).await;
    }
    refused(&backend, "alice").await;
    let got = backend.texts("bob").await;
    assert_eq!(got.len() as u64, LIMITS.inbox_messages);
    assert!(!got.contains(&"short".to_owned()));
}

async fn an_answer_to_a_wait_finds_room_in_a_full_inbox(backend: Backend) {
    let question = backend.queue_up(&message("bob", "carol", "?").asking(secs(20))).await;
    fill(&backend, LIMITS.inbox_messages).await;
    backend.reply(&message("carol", "bob", "!").answering(question)).await;
    // What was accepted is kept, also when its wait is given up.
    backend.wait_close(&inbox("bob"), question).await.unwrap();
    let got = backend.texts("bob").await;
    assert_eq!(got.len() as u64, LIMITS.inbox_messages + 1);
    assert_eq!(got.last().unwrap(), "!");
}

async fn ask(backend: &Backend) -> MessageId {
    backend.queue_up(&message("bob", "carol", "?").asking(secs(20))).await
}

async fn a_wait_too_many_is_refused_without_a_trace(backend: Backend) {
    for _ in 0..LIMITS.open_waits {
        ask(&backend).await;
    }
    let refused = message("bob", "carol", "?").asking(secs(20)).keyed("key");
    let error = backend.send(&refused).await.unwrap_err();
    assert_eq!(error, QueueError::TooManyWaits { open: LIMITS.open_waits });
    assert_eq!(backend.drain("carol").await.len() as u64, LIMITS.open_waits);
    assert_eq!(backend.state("bob", refused.id).await, None);
    // Without a wait, and with the same key, it is accepted.
    let sent = backend.post(&message("bob", "carol", "?").keyed("key")).await;
    assert_eq!(sent.status, SentStatus::Queued);
}

async fn a_wait_that_is_over_makes_room_for_another(backend: Backend) {
    let first = ask(&backend).await;
    for _ in 1..LIMITS.open_waits {
        ask(&backend).await;
    }
    backend.wait_close(&inbox("bob"), first).await.unwrap();
    let second = ask(&backend).await;
    backend.reply(&message("carol", "bob", "!").answering(second)).await;
    backend.take_reply("bob", second).await;
    backend.wait_done(&inbox("bob"), second).await.unwrap();
    ask(&backend).await;
}

async fn a_wait_whose_time_is_over_makes_room_though_nobody_closed_it(backend: Backend) {
    let ask = |wait| message("alice", "bob", "?").asking(wait);
    for _ in 0..LIMITS.open_waits {
        backend.queue_up(&ask(ms(300))).await;
    }
    assert!(matches!(backend.send(&ask(secs(20))).await, Err(QueueError::TooManyWaits { .. })));
    backend.pass(ms(600)).await;
    backend.queue_up(&ask(secs(20))).await;
}
