//! Retry is safe.

use mcp_messaging::{
    model::{MessageId, MessageState},
    queue::{QueueError, SentStatus},
};

use crate::support::{Backend, Draft, anything, inbox, message, ms};

for_each_backend!(
    a_repetition_is_accepted_once_and_answers_with_the_first_id,
    a_repetition_says_what_became_of_the_first,
    the_same_key_for_another_text_is_refused,
    the_same_key_for_another_reference_is_refused,
    a_key_belongs_to_its_sender,
    a_key_belongs_to_its_recipient,
    a_key_ends_with_the_life_of_its_message,
    a_repetition_does_not_prolong_the_life_of_the_first,
    without_a_key_the_same_text_is_another_message,
);

async fn a_repetition_is_accepted_once_and_answers_with_the_first_id(backend: Backend) {
    let first = backend.queue_up(&message("alice", "bob", "once").keyed("k")).await;
    for _ in 0..2 {
        let again = backend.post(&message("alice", "bob", "once").keyed("k")).await;
        assert_eq!(again.id, first);
        assert_eq!(again.status, SentStatus::Duplicate(MessageState::Queued));
    }
    assert_eq!(backend.ledger(&inbox("alice")).await.unwrap().len(), 1);
    assert_eq!(backend.texts("bob").await, ["once"]);
}

async fn a_repetition_says_what_became_of_the_first(backend: Backend) {
    let again = || async {
        let sent = backend.post(&message("alice", "bob", "once").keyed("k")).await;
        sent.status
    };
    backend.queue_up(&message("alice", "bob", "once").keyed("k")).await;
    assert_eq!(again().await, SentStatus::Duplicate(MessageState::Queued));
    let (_, upto) = backend.lease("bob", &anything()).await;
    assert_eq!(again().await, SentStatus::Duplicate(MessageState::Delivered));
    backend.ack(&inbox("bob"), upto).await.unwrap();
    assert_eq!(again().await, SentStatus::Duplicate(MessageState::Acknowledged));
    assert!(backend.texts("bob").await.is_empty());
}

async fn the_same_key_for_another_text_is_refused(backend: Backend) {
    let first = backend.queue_up(&message("alice", "bob", "one").keyed("k")).await;
    let other = message("alice", "bob", "two").keyed("k");
    let error = backend.send(&other).await.unwrap_err();
    assert_eq!(error, QueueError::IdempotencyConflict { first });
    assert_eq!(backend.state("alice", other.id).await, None);
    assert_eq!(backend.texts("bob").await, ["one"]);
}

async fn the_same_key_for_another_reference_is_refused(backend: Backend) {
    let reference = MessageId::new();
    let one = message("alice", "bob", "one").keyed("k").answering(reference);
    let first = backend.queue_up(&one).await;
    for other in [
        message("alice", "bob", "one").keyed("k"),
        message("alice", "bob", "one").keyed("k").answering(MessageId::new()),
    ] {
        let error = backend.send(&other).await.unwrap_err();
        assert_eq!(error, QueueError::IdempotencyConflict { first });
    }
    let same = backend.post(&message("alice", "bob", "one").keyed("k").answering(reference)).await;
    assert_eq!(same.id, first);
}

async fn a_key_belongs_to_its_sender(backend: Backend) {
    backend.queue_up(&message("alice", "bob", "hers").keyed("k")).await;
    backend.queue_up(&message("eve", "bob", "another's").keyed("k")).await;
    assert_eq!(backend.texts("bob").await, ["hers", "another's"]);
}

async fn a_key_belongs_to_its_recipient(backend: Backend) {
    backend.queue_up(&message("alice", "bob", "same").keyed("k")).await;
    backend.queue_up(&message("alice", "carol", "same").keyed("k")).await;
    assert_eq!(backend.texts("bob").await, ["same"]);
    assert_eq!(backend.texts("carol").await, ["same"]);
}

async fn a_key_ends_with_the_life_of_its_message(backend: Backend) {
    let short = || message("alice", "bob", "short").living(ms(400)).keyed("k");
    let first = backend.queue_up(&short()).await;
    backend.drain("bob").await;
    assert_eq!(backend.post(&short()).await.id, first);
    backend.pass(ms(700)).await;
    let second = backend.queue_up(&message("alice", "bob", "another").keyed("k")).await;
    assert_ne!(first, second);
    assert_eq!(backend.texts("bob").await, ["another"]);
}

async fn a_repetition_does_not_prolong_the_life_of_the_first(backend: Backend) {
    backend.queue_up(&message("alice", "bob", "short").living(ms(500)).keyed("k")).await;
    let again = backend.post(&message("alice", "bob", "short").keyed("k")).await;
    assert_eq!(again.status, SentStatus::Duplicate(MessageState::Queued));
    backend.pass(ms(800)).await;
    assert!(backend.texts("bob").await.is_empty());
}

async fn without_a_key_the_same_text_is_another_message(backend: Backend) {
    for _ in 0..2 {
        backend.queue_up(&message("alice", "bob", "twice")).await;
    }
    assert_eq!(backend.texts("bob").await, ["twice", "twice"]);
}
