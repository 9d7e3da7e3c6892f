//! Waits that are asked for by an id.

use std::time::Duration;

use mcp_messaging::{
    model::{MessageId, MessageState},
    queue::{Outcome, Taken, TaskId, TaskRecord},
};

use crate::support::{Backend, Draft, LIMITS, inbox, message, ms, secs, texts_of, wakes};

for_each_backend!(
    a_task_is_known_by_its_id,
    an_id_that_was_not_given_out_is_unknown,
    a_wait_that_is_over_becomes_no_task,
    a_wait_that_has_its_reply_becomes_a_task,
    the_reply_of_a_task_is_taken_as_that_of_any_wait,
    a_received_reply_stays_for_who_asks_again,
    a_reply_that_nobody_was_handed_cannot_be_received,
    a_received_reply_ends_with_its_task,
    an_unread_reply_goes_to_the_inbox_after_its_hold,
    an_unread_reply_has_half_of_its_life_in_the_inbox,
    who_sleeps_learns_that_the_reply_of_a_task_comes_sooner_than_that_of_its_wait,
    a_reply_that_was_handed_out_and_not_received_goes_to_the_inbox_marked,
    a_task_is_known_until_its_end,
    a_cancelled_task_says_so_and_its_late_reply_goes_to_the_inbox,
    a_cancelled_task_gives_its_unread_reply_to_the_inbox,
    a_task_whose_reply_was_handed_out_cannot_be_cancelled,
    a_task_whose_wait_is_over_cannot_be_cancelled,
    a_client_has_so_many_tasks_and_more_waits,
);

where_time_can_be_moved!(an_unread_reply_is_held_from_when_it_came_and_not_from_the_deadline);

const HOLD: Duration = secs(20);

async fn ask(backend: &Backend) -> MessageId {
    backend.queue_up(&message("alice", "bob", "?").asking(secs(20))).await
}

async fn open(backend: &Backend, question: MessageId, hold: Duration) -> TaskRecord {
    let opened = backend.task_open(&inbox("alice"), question, hold).await.unwrap();
    opened.expect("it becomes a task")
}

async fn begin(backend: &Backend, hold: Duration) -> TaskRecord {
    let question = ask(backend).await;
    open(backend, question, hold).await
}

async fn answer(backend: &Backend, task: &TaskRecord) -> MessageId {
    backend.reply(&message("bob", "alice", "!").answering(task.wait)).await
}

async fn a_task_is_known_by_its_id(backend: Backend) {
    let task = begin(&backend, secs(7)).await;
    let found = backend.task(&task.id).await.unwrap().unwrap();
    assert_eq!(TaskRecord { now_ms: task.now_ms, ..found.clone() }, task);
    assert_eq!((task.inbox.name(), task.peer.expose()), (inbox("alice").name(), "bob"));
    assert_eq!(task.cancelled_ms, None);
    assert_eq!(task.ends_ms, task.deadline_ms + 7000);
    let wait = task.deadline_ms - task.created_ms;
    assert!((19_000..=20_000).contains(&wait), "{wait}");
    assert_eq!(TaskId::parse(&task.id.expose()), Some(task.id));
}

async fn an_id_that_was_not_given_out_is_unknown(backend: Backend) {
    let (one, two) = (begin(&backend, HOLD).await, begin(&backend, HOLD).await);
    assert_ne!(one.id, two.id);
    let (shard, _) = one.id.parts();
    assert_eq!(backend.task(&TaskId::in_shard(shard)).await.unwrap(), None);
}

async fn a_wait_that_is_over_becomes_no_task(backend: Backend) {
    let question = ask(&backend).await;
    backend.wait_close(&inbox("alice"), question).await.unwrap();
    assert_eq!(backend.task_open(&inbox("alice"), question, HOLD).await.unwrap(), None);
    assert_eq!(backend.task_open(&inbox("bob"), MessageId::new(), HOLD).await.unwrap(), None);
}

async fn a_wait_that_has_its_reply_becomes_a_task(backend: Backend) {
    let question = ask(&backend).await;
    backend.reply(&message("bob", "alice", "!").answering(question)).await;
    let task = open(&backend, question, HOLD).await;
    assert_eq!(backend.take_reply("alice", task.wait).await.text, "!");
}

async fn the_reply_of_a_task_is_taken_as_that_of_any_wait(backend: Backend) {
    let task = begin(&backend, HOLD).await;
    assert_eq!(backend.taken("alice", task.wait).await, Taken::Open);
    let id = answer(&backend, &task).await;
    let reply = backend.take_reply("alice", task.wait).await;
    assert_eq!((reply.id, reply.text.as_str(), reply.redelivered), (id, "!", false));
    assert_eq!(backend.state("bob", id).await, Some(MessageState::Delivered));
    assert_eq!(backend.look("alice").await.outcome, Outcome::Empty);
}

async fn a_received_reply_stays_for_who_asks_again(backend: Backend) {
    let task = begin(&backend, HOLD).await;
    let id = answer(&backend, &task).await;
    backend.take_reply("alice", task.wait).await;
    assert!(backend.task_done(&task).await.unwrap());
    assert_eq!(backend.state("bob", id).await, Some(MessageState::Acknowledged));
    for _ in 0..2 {
        let again = backend.take_reply("alice", task.wait).await;
        assert_eq!((again.id, again.redelivered), (id, true));
        assert!(!backend.task_done(&task).await.unwrap(), "it was received before");
        assert_eq!(backend.state("bob", id).await, Some(MessageState::Acknowledged));
    }
    // However the wait ends, what was received does not come again.
    backend.wait_close(&task.inbox, task.wait).await.unwrap();
    assert_eq!(backend.taken("alice", task.wait).await, Taken::Gone);
    assert!(backend.texts("alice").await.is_empty());
    assert_eq!(backend.state("bob", id).await, Some(MessageState::Acknowledged));
}

async fn a_reply_that_nobody_was_handed_cannot_be_received(backend: Backend) {
    let task = begin(&backend, HOLD).await;
    assert!(!backend.task_done(&task).await.unwrap());
    let id = answer(&backend, &task).await;
    assert!(!backend.task_done(&task).await.unwrap());
    assert_eq!(backend.state("bob", id).await, Some(MessageState::Queued));
    assert!(!backend.take_reply("alice", task.wait).await.redelivered);
}

async fn a_received_reply_ends_with_its_task(backend: Backend) {
    let question = backend.queue_up(&message("alice", "bob", "?").asking(ms(500))).await;
    let task = open(&backend, question, ms(500)).await;
    let id = answer(&backend, &task).await;
    backend.take_reply("alice", task.wait).await;
    assert!(backend.task_done(&task).await.unwrap());
    backend.pass(ms(700)).await;
    assert!(backend.take_reply("alice", task.wait).await.redelivered, "not before its end");
    backend.pass(ms(600)).await;
    assert!(backend.texts("alice").await.is_empty());
    assert_eq!(backend.taken("alice", task.wait).await, Taken::Gone);
    assert_eq!(backend.state("bob", id).await, Some(MessageState::Acknowledged));
}

async fn an_unread_reply_goes_to_the_inbox_after_its_hold(backend: Backend) {
    let task = begin(&backend, ms(600)).await;
    let id = answer(&backend, &task).await;
    assert_eq!(backend.look("alice").await.outcome, Outcome::Empty);
    backend.pass(ms(900)).await;
    let got = backend.drain("alice").await;
    assert_eq!((texts_of(&got), got[0].id, got[0].redelivered), (vec!["!"], id, false));
    assert_eq!(backend.taken("alice", task.wait).await, Taken::Gone);
    assert!(!backend.task_done(&task).await.unwrap());
}

async fn an_unread_reply_has_half_of_its_life_in_the_inbox(backend: Backend) {
    let task = begin(&backend, HOLD).await;
    let brief = message("bob", "alice", "brief").answering(task.wait).living(secs(2));
    backend.reply(&brief).await;
    backend.pass(ms(1200)).await;
    assert_eq!(backend.texts("alice").await, ["brief"]);
}

async fn who_sleeps_learns_that_the_reply_of_a_task_comes_sooner_than_that_of_its_wait(
    backend: Backend,
) {
    let question = ask(&backend).await;
    backend.reply(&message("bob", "alice", "!").answering(question)).await;
    assert!(backend.look("alice").await.due.unwrap() > secs(20));
    let mut watching = backend.watching("alice").await;
    while watching.next_within(ms(300)).await {} // a fresh subscription's
    open(&backend, question, ms(600)).await;
    wakes(&mut watching).await;
    backend.pass(backend.look("alice").await.due.unwrap() + ms(20)).await;
    assert_eq!(backend.texts("alice").await, ["!"]);
}

async fn a_reply_that_was_handed_out_and_not_received_goes_to_the_inbox_marked(backend: Backend) {
    let task = begin(&backend, ms(600)).await;
    let id = answer(&backend, &task).await;
    backend.take_reply("alice", task.wait).await;
    backend.pass(ms(900)).await;
    let got = backend.drain("alice").await;
    assert_eq!((got[0].id, got[0].redelivered), (id, true));
    assert_eq!(backend.state("bob", id).await, Some(MessageState::Acknowledged));
}

async fn a_task_is_known_until_its_end(backend: Backend) {
    let question = backend.queue_up(&message("alice", "bob", "?").asking(ms(400))).await;
    let task = open(&backend, question, ms(800)).await;
    backend.pass(ms(600)).await;
    let known = backend.task(&task.id).await.unwrap().unwrap();
    assert!(known.now_ms >= known.deadline_ms);
    // Its wait takes no reply any more.
    backend.queue_up(&message("bob", "alice", "late").answering(task.wait)).await;
    backend.pass(ms(800)).await;
    assert_eq!(backend.task(&task.id).await.unwrap(), None);
}

async fn a_cancelled_task_says_so_and_its_late_reply_goes_to_the_inbox(backend: Backend) {
    let task = begin(&backend, HOLD).await;
    assert!(backend.task_cancel(&task).await.unwrap());
    assert!(!backend.task_cancel(&task).await.unwrap(), "it was given up before");
    let known = backend.task(&task.id).await.unwrap().unwrap();
    assert!(known.cancelled_ms.is_some_and(|at_ms| at_ms >= known.created_ms));
    assert_eq!(backend.taken("alice", task.wait).await, Taken::Gone);
    backend.queue_up(&message("bob", "alice", "late").answering(task.wait)).await;
    assert_eq!(backend.texts("alice").await, ["late"]);
}

async fn a_cancelled_task_gives_its_unread_reply_to_the_inbox(backend: Backend) {
    let task = begin(&backend, HOLD).await;
    answer(&backend, &task).await;
    let mut watching = backend.watching("alice").await;
    assert!(backend.task_cancel(&task).await.unwrap());
    wakes(&mut watching).await;
    let got = backend.drain("alice").await;
    assert_eq!((texts_of(&got), got[0].redelivered), (vec!["!"], false));
}

async fn a_task_whose_reply_was_handed_out_cannot_be_cancelled(backend: Backend) {
    let task = begin(&backend, HOLD).await;
    answer(&backend, &task).await;
    backend.take_reply("alice", task.wait).await;
    for received in [false, true] {
        assert!(!backend.task_cancel(&task).await.unwrap());
        assert_eq!(backend.task(&task.id).await.unwrap().unwrap().cancelled_ms, None);
        assert_eq!(backend.take_reply("alice", task.wait).await.text, "!");
        assert_eq!(backend.task_done(&task).await.unwrap(), !received);
    }
}

async fn a_task_whose_wait_is_over_cannot_be_cancelled(backend: Backend) {
    let question = backend.queue_up(&message("alice", "bob", "?").asking(ms(300))).await;
    let task = open(&backend, question, HOLD).await;
    backend.pass(ms(500)).await;
    assert!(!backend.task_cancel(&task).await.unwrap());
    assert_eq!(backend.task(&task.id).await.unwrap().unwrap().cancelled_ms, None);
}

async fn a_client_has_so_many_tasks_and_more_waits(backend: Backend) {
    let mut tasks = Vec::new();
    for _ in 0..LIMITS.open_waits {
        tasks.push(begin(&backend, HOLD).await);
    }
    // One that was received is no open wait, but still a task.
    answer(&backend, &tasks[0]).await;
    backend.take_reply("alice", tasks[0].wait).await;
    assert!(backend.task_done(&tasks[0]).await.unwrap());
    let question = ask(&backend).await;
    assert_eq!(backend.task_open(&inbox("alice"), question, HOLD).await.unwrap(), None);
    assert_eq!(backend.taken("alice", question).await, Taken::Open, "it is a wait as before");
    // A second id for the same question is not a further task.
    let again = open(&backend, tasks[1].wait, HOLD).await;
    assert_eq!((again.wait, again.id != tasks[1].id), (tasks[1].wait, true));
    assert!(backend.task_cancel(&tasks[1]).await.unwrap());
    open(&backend, question, HOLD).await;
}

async fn an_unread_reply_is_held_from_when_it_came_and_not_from_the_deadline(backend: Backend) {
    let question = backend.queue_up(&message("alice", "bob", "?").asking(secs(250))).await;
    let task = open(&backend, question, secs(60)).await;
    backend.pass(secs(10)).await;
    backend.reply(&message("bob", "alice", "!").answering(task.wait).living(secs(200))).await;
    backend.pass(secs(59)).await;
    assert!(backend.texts("alice").await.is_empty());
    backend.pass(secs(1)).await;
    assert_eq!(backend.texts("alice").await, ["!"]);
    assert!(backend.task(&task.id).await.unwrap().is_some(), "the task itself is known on");
}
