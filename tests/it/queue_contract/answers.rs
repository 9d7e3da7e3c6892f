//! A recipient that takes answers only.

use mcp_messaging::queue::{NewMessage, QueueError, SentStatus, Taken, Taking};

use crate::support::{Backend, Draft, inbox, message, ms, secs};

for_each_backend!(
    what_answers_nothing_is_refused_without_a_trace,
    the_answer_to_an_open_wait_is_taken_once,
    a_late_answer_to_a_question_that_was_handed_over_is_taken_once,
    nobody_else_answers_and_nothing_else_is_answered,
    a_question_can_be_answered_for_as_long_as_it_lives,
    what_was_accepted_before_is_a_duplicate_still,
);

fn only(message: NewMessage) -> NewMessage {
    NewMessage { taken: Taking::Answers, ..message }
}

async fn refused(backend: &Backend, message: NewMessage) {
    let id = message.id;
    let sender = message.sender.client().expose().to_owned();
    assert_eq!(backend.send(&only(message)).await, Err(QueueError::NoAnswer));
    assert_eq!(backend.state(&sender, id).await, None, "its sender's ledger does not have it");
}

async fn what_answers_nothing_is_refused_without_a_trace(backend: Backend) {
    let earlier = backend.queue_up(&message("alice", "bob", "no question")).await;
    backend.drain("bob").await;
    refused(&backend, message("bob", "alice", "unasked")).await;
    refused(&backend, message("bob", "alice", "unasked").answering(earlier)).await;
    refused(&backend, message("bob", "alice", "may I ask?").asking(secs(20))).await;
    assert_eq!(backend.texts("alice").await, [""; 0]);
    // The wait that was not opened does not count.
    for _ in 0..crate::support::LIMITS.open_waits {
        backend.queue_up(&message("bob", "carol", "?").asking(secs(20))).await;
    }
}

async fn the_answer_to_an_open_wait_is_taken_once(backend: Backend) {
    for named in [true, false] {
        let question = backend.queue_up(&message("alice", "bob", "?").asking(secs(20))).await;
        if !named {
            refused(&backend, message("bob", "alice", "too early")).await;
        }
        backend.drain("bob").await;
        let answer = |text| {
            let message = message("bob", "alice", text);
            if named { message.answering(question) } else { message }
        };
        backend.reply(&only(answer("!"))).await;
        refused(&backend, answer("!!")).await;
        let reply = backend.take_reply("alice", question).await;
        assert_eq!(reply.text, "!");
        backend.wait_done(&inbox("alice"), question).await.unwrap();
        refused(&backend, answer("!!!")).await;
        assert_eq!(backend.texts("alice").await, [""; 0]);
    }
}

async fn a_late_answer_to_a_question_that_was_handed_over_is_taken_once(backend: Backend) {
    for named in [true, false] {
        let question = backend.queue_up(&message("alice", "bob", "?").asking(secs(20))).await;
        backend.drain("bob").await;
        backend.wait_close(&inbox("alice"), question).await.unwrap();
        assert_eq!(backend.taken("alice", question).await, Taken::Gone);
        let answer = |text| {
            let message = message("bob", "alice", text);
            if named { message.answering(question) } else { message }
        };
        assert_eq!(backend.post(&only(answer("late"))).await.status, SentStatus::Queued);
        refused(&backend, answer("later")).await;
        assert_eq!(backend.texts("alice").await, ["late"]);
    }
}

async fn nobody_else_answers_and_nothing_else_is_answered(backend: Backend) {
    let question = backend.queue_up(&message("alice", "bob", "?").asking(secs(20))).await;
    let other = backend.queue_up(&message("carol", "bob", "?").asking(secs(20))).await;
    backend.drain("bob").await;
    refused(&backend, message("eve", "alice", "mine!").answering(question)).await;
    refused(&backend, message("bob", "alice", "to carol").answering(other)).await;
    refused(&backend, message("bob", "eve", "to eve").answering(question)).await;
    backend.reply(&only(message("bob", "carol", "to carol"))).await;
    backend.reply(&only(message("bob", "alice", "to alice").answering(question))).await;
}

async fn a_question_can_be_answered_for_as_long_as_it_lives(backend: Backend) {
    let brief = message("alice", "bob", "?").asking(ms(200)).living(ms(1500));
    let question = backend.queue_up(&brief).await;
    backend.drain("bob").await;
    backend.wait_close(&inbox("alice"), question).await.unwrap();
    backend.pass(ms(1600)).await;
    refused(&backend, message("bob", "alice", "too late").answering(question)).await;
    refused(&backend, message("bob", "alice", "too late")).await;
}

async fn what_was_accepted_before_is_a_duplicate_still(backend: Backend) {
    let first = message("bob", "alice", "hello").keyed("k");
    let id = backend.queue_up(&first).await;
    let again = only(message("bob", "alice", "hello").keyed("k"));
    let sent = backend.post(&again).await;
    assert!(matches!(sent.status, SentStatus::Duplicate(_)) && sent.id == id, "{sent:?}");
}
