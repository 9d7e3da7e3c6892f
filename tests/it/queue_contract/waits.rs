//! The right answer: a question, its wait, the one reply to it.

use mcp_messaging::{
    model::{MessageId, MessageState},
    queue::{Outcome, Presence, SentStatus, Taken, Topic},
};

use crate::support::{Backend, Draft, LIMITS, anything, inbox, message, ms, secs, texts_of, wakes};

for_each_backend!(
    a_reply_that_names_the_question_is_parked_for_its_wait,
    only_the_one_who_was_asked_answers,
    a_message_that_names_something_else_is_no_answer,
    without_a_reference_it_answers_only_after_the_question_was_handed_over,
    without_a_reference_the_oldest_question_is_answered_first,
    two_who_wait_for_each_other_answer_each_other,
    a_wait_takes_one_reply,
    a_reply_stays_parked_until_the_wait_is_done,
    a_reply_that_is_taken_twice_is_marked,
    an_unknown_wait_is_gone,
    a_wait_leaves_other_mail_alone,
    an_answer_after_the_wait_was_closed_goes_to_the_inbox,
    an_answer_after_the_deadline_goes_to_the_inbox,
    a_closed_wait_returns_its_reply_to_the_end_of_the_inbox,
    a_returned_reply_is_marked_only_if_it_was_handed_out,
    a_returned_reply_can_be_acknowledged_like_any_other,
    a_wait_may_be_closed_twice,
    a_repetition_extends_the_wait,
    a_repetition_of_an_answered_question_keeps_the_answer,
    a_repetition_opens_a_closed_wait_again,
    a_repetition_does_not_count_its_own_wait,
    several_waits_do_not_steal_from_each_other,
    a_question_says_that_it_asks,
    who_waits_for_a_reply_counts_as_waiting,
    a_parked_reply_wakes_the_wait_and_not_the_inbox_alone,
    who_sleeps_learns_when_a_reply_that_nobody_takes_will_be_its_own,
    a_parked_reply_that_expires_is_reported_to_its_sender,
);

where_time_can_be_moved!(
    the_reply_of_a_dead_wait_goes_to_the_inbox_ten_seconds_after_its_deadline,
    a_dead_wait_without_a_reply_ends_ten_seconds_after_its_deadline,
    a_reply_in_a_long_wait_lives_no_longer_than_its_own_time,
);

async fn ask(backend: &Backend, text: &str) -> MessageId {
    backend.queue_up(&message("alice", "bob", text).asking(secs(20))).await
}

fn answer(question: MessageId, text: &str) -> mcp_messaging::queue::NewMessage {
    message("bob", "alice", text).answering(question)
}

async fn close(backend: &Backend, question: MessageId) {
    backend.wait_close(&inbox("alice"), question).await.unwrap();
}

async fn a_reply_that_names_the_question_is_parked_for_its_wait(backend: Backend) {
    let question = ask(&backend, "?").await;
    assert_eq!(backend.taken("alice", question).await, Taken::Open);
    let id = backend.reply(&answer(question, "!")).await;
    assert_eq!(backend.look("alice").await.outcome, Outcome::Empty);
    let reply = backend.take_reply("alice", question).await;
    assert_eq!((reply.id, reply.text.as_str(), reply.from.expose()), (id, "!", "bob"));
    assert_eq!((reply.in_reply_to, reply.redelivered, reply.attempt), (Some(question), false, 1));
}

async fn only_the_one_who_was_asked_answers(backend: Backend) {
    let question = ask(&backend, "?").await;
    backend.drain("bob").await;
    let forged = message("eve", "alice", "forged").answering(question);
    backend.queue_up(&forged).await;
    backend.queue_up(&message("eve", "alice", "unasked")).await;
    assert_eq!(backend.taken("alice", question).await, Taken::Open);
    assert_eq!(backend.texts("alice").await, ["forged", "unasked"]);
}

async fn a_message_that_names_something_else_is_no_answer(backend: Backend) {
    let question = ask(&backend, "?").await;
    backend.drain("bob").await;
    backend.queue_up(&answer(MessageId::new(), "on something else")).await;
    assert_eq!(backend.taken("alice", question).await, Taken::Open);
}

async fn without_a_reference_it_answers_only_after_the_question_was_handed_over(backend: Backend) {
    let question = ask(&backend, "?").await;
    backend.queue_up(&message("bob", "alice", "crossed on the way")).await;
    assert_eq!(backend.taken("alice", question).await, Taken::Open);
    backend.lease("bob", &anything()).await;
    backend.reply(&message("bob", "alice", "!")).await;
    assert_eq!(backend.take_reply("alice", question).await.text, "!");
    assert_eq!(backend.texts("alice").await, ["crossed on the way"]);
}

async fn without_a_reference_the_oldest_question_is_answered_first(backend: Backend) {
    let (first, second) = (ask(&backend, "1?").await, ask(&backend, "2?").await);
    backend.drain("bob").await;
    backend.reply(&message("bob", "alice", "1!")).await;
    backend.reply(&message("bob", "alice", "2!")).await;
    backend.queue_up(&message("bob", "alice", "more")).await;
    assert_eq!(backend.take_reply("alice", first).await.text, "1!");
    assert_eq!(backend.take_reply("alice", second).await.text, "2!");
}

async fn two_who_wait_for_each_other_answer_each_other(backend: Backend) {
    let hers = ask(&backend, "hers?").await;
    backend.drain("bob").await;
    // Bob asks back: that is the answer to Alice, who gets his question by her wait.
    let his = backend.reply(&message("bob", "alice", "his?").asking(secs(20))).await;
    let got = backend.take_reply("alice", hers).await;
    assert_eq!((got.id, got.asks), (his, true));
    backend.wait_done(&inbox("alice"), hers).await.unwrap();
    backend.reply(&message("alice", "bob", "to his")).await;
    assert_eq!(backend.take_reply("bob", his).await.text, "to his");
}

async fn a_wait_takes_one_reply(backend: Backend) {
    let question = ask(&backend, "?").await;
    backend.drain("bob").await;
    backend.reply(&answer(question, "first")).await;
    backend.queue_up(&answer(question, "second")).await;
    backend.queue_up(&message("bob", "alice", "third")).await;
    assert_eq!(backend.take_reply("alice", question).await.text, "first");
    assert_eq!(backend.texts("alice").await, ["second", "third"]);
}

async fn a_reply_stays_parked_until_the_wait_is_done(backend: Backend) {
    let question = ask(&backend, "?").await;
    let reply = backend.reply(&answer(question, "!")).await;
    backend.take_reply("alice", question).await;
    assert_eq!(backend.state("bob", reply).await, Some(MessageState::Delivered));
    backend.wait_done(&inbox("alice"), question).await.unwrap();
    assert_eq!(backend.state("bob", reply).await, Some(MessageState::Acknowledged));
    assert_eq!(backend.taken("alice", question).await, Taken::Gone);
    // Done is done, however often it is said.
    backend.wait_done(&inbox("alice"), question).await.unwrap();
    close(&backend, question).await;
    assert!(backend.texts("alice").await.is_empty());
}

async fn a_reply_that_is_taken_twice_is_marked(backend: Backend) {
    let question = ask(&backend, "?").await;
    let id = backend.reply(&answer(question, "!")).await;
    assert!(!backend.take_reply("alice", question).await.redelivered);
    let again = backend.take_reply("alice", question).await;
    assert_eq!((again.id, again.redelivered, again.attempt), (id, true, 2));
}

async fn an_unknown_wait_is_gone(backend: Backend) {
    assert_eq!(backend.taken("alice", MessageId::new()).await, Taken::Gone);
    let told = backend.queue_up(&message("alice", "bob", "no question")).await;
    assert_eq!(backend.taken("alice", told).await, Taken::Gone);
    backend.wait_done(&inbox("alice"), told).await.unwrap();
    close(&backend, told).await;
}

async fn a_wait_leaves_other_mail_alone(backend: Backend) {
    let question = ask(&backend, "?").await;
    backend.queue_up(&message("carol", "alice", "one")).await;
    backend.queue_up(&message("carol", "alice", "two")).await;
    let state = backend.wait_take(&inbox("alice"), question).await.unwrap();
    assert_eq!((state.taken, state.queued), (Taken::Open, 2));
    backend.reply(&answer(question, "!")).await;
    let state = backend.wait_take(&inbox("alice"), question).await.unwrap();
    assert!(matches!(state.taken, Taken::Reply(_)) && state.queued == 2);
    assert_eq!(backend.texts("alice").await, ["one", "two"]);
}

async fn an_answer_after_the_wait_was_closed_goes_to_the_inbox(backend: Backend) {
    let question = ask(&backend, "?").await;
    backend.drain("bob").await;
    close(&backend, question).await;
    assert_eq!(backend.taken("alice", question).await, Taken::Gone);
    backend.queue_up(&answer(question, "late")).await;
    let got = backend.drain("alice").await;
    assert_eq!((texts_of(&got), got[0].in_reply_to), (vec!["late"], Some(question)));
}

async fn an_answer_after_the_deadline_goes_to_the_inbox(backend: Backend) {
    let question = backend.queue_up(&message("alice", "bob", "?").asking(ms(300))).await;
    backend.drain("bob").await;
    backend.pass(ms(600)).await;
    backend.queue_up(&answer(question, "late")).await;
    backend.queue_up(&message("bob", "alice", "later")).await;
    assert_eq!(backend.texts("alice").await, ["late", "later"]);
}

async fn a_closed_wait_returns_its_reply_to_the_end_of_the_inbox(backend: Backend) {
    let question = ask(&backend, "?").await;
    backend.queue_up(&message("carol", "alice", "before")).await;
    let id = backend.reply(&answer(question, "!")).await;
    backend.queue_up(&message("carol", "alice", "after")).await;
    let mut watching = backend.watching("alice").await;
    close(&backend, question).await;
    wakes(&mut watching).await;
    let got = backend.drain("alice").await;
    assert_eq!(texts_of(&got), ["before", "after", "!"]);
    assert_eq!((got[2].id, got[2].in_reply_to), (id, Some(question)));
    assert_eq!(backend.state("bob", id).await, Some(MessageState::Acknowledged));
}

async fn a_returned_reply_is_marked_only_if_it_was_handed_out(backend: Backend) {
    let (untouched, taken) = (ask(&backend, "1?").await, ask(&backend, "2?").await);
    backend.reply(&answer(untouched, "1!")).await;
    backend.reply(&answer(taken, "2!")).await;
    backend.take_reply("alice", taken).await;
    close(&backend, untouched).await;
    close(&backend, taken).await;
    let got = backend.drain("alice").await;
    let marks: Vec<_> = got.iter().map(|m| (m.text.as_str(), m.redelivered)).collect();
    assert_eq!(marks, [("1!", false), ("2!", true)]);
    assert!(got[1].attempt >= 2);
}

async fn a_returned_reply_can_be_acknowledged_like_any_other(backend: Backend) {
    let question = ask(&backend, "?").await;
    backend.reply(&answer(question, "!")).await;
    backend.queue_up(&message("carol", "alice", "other")).await;
    let (_, upto) = backend.lease("alice", &anything()).await;
    close(&backend, question).await;
    // It returned behind what is leased, so an acknowledgement of that does not touch it.
    assert_eq!(backend.ack(&inbox("alice"), upto).await.unwrap(), 1);
    assert_eq!(backend.texts("alice").await, ["!"]);
}

async fn a_wait_may_be_closed_twice(backend: Backend) {
    let question = ask(&backend, "?").await;
    backend.reply(&answer(question, "!")).await;
    close(&backend, question).await;
    close(&backend, question).await;
    assert_eq!(backend.texts("alice").await, ["!"]);
}

async fn a_repetition_extends_the_wait(backend: Backend) {
    let ask = |wait| message("alice", "bob", "?").keyed("k").asking(wait);
    let first = backend.queue_up(&ask(ms(400))).await;
    let again = backend.post(&ask(secs(20))).await;
    assert_eq!((again.id, again.status), (first, SentStatus::Duplicate(MessageState::Queued)));
    backend.pass(ms(700)).await;
    backend.reply(&answer(first, "!")).await;
    assert_eq!(backend.take_reply("alice", first).await.text, "!");
}

async fn a_repetition_of_an_answered_question_keeps_the_answer(backend: Backend) {
    let ask = || message("alice", "bob", "?").keyed("k").asking(secs(20));
    let question = backend.queue_up(&ask()).await;
    backend.drain("bob").await;
    backend.reply(&answer(question, "first")).await;
    assert_eq!(backend.post(&ask()).await.id, question);
    backend.queue_up(&answer(question, "second")).await;
    backend.queue_up(&message("bob", "alice", "third")).await;
    assert_eq!(backend.take_reply("alice", question).await.text, "first");
    assert_eq!(backend.texts("alice").await, ["second", "third"]);
}

async fn a_repetition_opens_a_closed_wait_again(backend: Backend) {
    let ask = || message("alice", "bob", "?").keyed("k").asking(secs(20));
    let question = backend.queue_up(&ask()).await;
    backend.drain("bob").await;
    close(&backend, question).await;
    assert_eq!(backend.post(&ask()).await.id, question);
    assert_eq!(backend.taken("alice", question).await, Taken::Open);
    backend.reply(&answer(question, "!")).await;
    assert_eq!(backend.take_reply("alice", question).await.text, "!");
}

async fn a_repetition_does_not_count_its_own_wait(backend: Backend) {
    let ask = || message("alice", "bob", "?").keyed("k").asking(secs(20));
    let question = backend.queue_up(&ask()).await;
    for _ in 1..LIMITS.open_waits {
        backend.queue_up(&message("alice", "bob", "another?").asking(secs(20))).await;
    }
    assert_eq!(backend.post(&ask()).await.id, question);
    backend.reply(&answer(question, "!")).await;
    assert_eq!(backend.post(&ask()).await.id, question);
}

async fn several_waits_do_not_steal_from_each_other(backend: Backend) {
    let of_bob = ask(&backend, "bob?").await;
    let of_carol = backend.queue_up(&message("alice", "carol", "carol?").asking(secs(20))).await;
    backend.reply(&message("carol", "alice", "carol!").answering(of_carol)).await;
    assert_eq!(backend.taken("alice", of_bob).await, Taken::Open);
    backend.reply(&answer(of_bob, "bob!")).await;
    assert_eq!(backend.take_reply("alice", of_carol).await.text, "carol!");
    assert_eq!(backend.take_reply("alice", of_bob).await.text, "bob!");
}

async fn a_question_says_that_it_asks(backend: Backend) {
    ask(&backend, "?").await;
    backend.queue_up(&message("alice", "bob", "by the way")).await;
    let asks: Vec<_> = backend.drain("bob").await.iter().map(|message| message.asks).collect();
    assert_eq!(asks, [true, false]);
}

async fn who_waits_for_a_reply_counts_as_waiting(backend: Backend) {
    let question = ask(&backend, "?").await;
    let sent = backend.post(&answer(question, "!")).await;
    assert_eq!((sent.status, sent.recipient), (SentStatus::Replied, Presence::Waiting));
}

async fn a_parked_reply_wakes_the_wait_and_not_the_inbox_alone(backend: Backend) {
    let question = ask(&backend, "?").await;
    let topic = Topic::Reply(inbox("alice"), question);
    let mut watching = backend.watch(topic).await.unwrap();
    backend.reply(&answer(question, "!")).await;
    wakes(&mut watching).await;
}

/// Who sleeps knew of no wait when it fell asleep.
async fn who_sleeps_learns_when_a_reply_that_nobody_takes_will_be_its_own(backend: Backend) {
    let mut watching = backend.watching("alice").await;
    assert_eq!(backend.look("alice").await.due, None);
    while watching.next_within(ms(300)).await {} // a fresh subscription's
    let question = ask(&backend, "?").await;
    backend.reply(&answer(question, "!")).await;
    wakes(&mut watching).await;
    let due = backend.look("alice").await.due.expect("the end of the wait");
    assert!(due <= secs(30), "{due:?}");
}

async fn a_parked_reply_that_expires_is_reported_to_its_sender(backend: Backend) {
    let question = ask(&backend, "?").await;
    let reply = backend.reply(&answer(question, "!").living(ms(300))).await;
    assert_eq!(backend.state("bob", reply).await, Some(MessageState::Queued));
    backend.pass(ms(600)).await;
    assert_eq!(backend.state("bob", reply).await, Some(MessageState::Expired));
    assert_eq!(backend.noticed("bob").await, [reply]);
    close(&backend, question).await;
    assert!(backend.texts("alice").await.is_empty());
}

async fn the_reply_of_a_dead_wait_goes_to_the_inbox_ten_seconds_after_its_deadline(
    backend: Backend,
) {
    let question = ask(&backend, "?").await;
    backend.reply(&answer(question, "!")).await;
    let fetched = backend.look("alice").await;
    let due = fetched.due.expect("the end of the dead wait");
    assert!(due <= secs(30) && due > secs(29), "{due:?}");
    backend.pass(secs(29)).await;
    assert_eq!(backend.look("alice").await.outcome, Outcome::Empty);
    let mut watching = backend.watching("alice").await;
    backend.pass(secs(1)).await;
    assert_eq!(backend.peek(&inbox("alice")).await.unwrap().queued, 1);
    wakes(&mut watching).await;
    assert_eq!(backend.texts("alice").await, ["!"]);
    assert_eq!(backend.taken("alice", question).await, Taken::Gone);
}

async fn a_dead_wait_without_a_reply_ends_ten_seconds_after_its_deadline(backend: Backend) {
    let question = ask(&backend, "?").await;
    backend.pass(secs(29)).await;
    assert_eq!(backend.taken("alice", question).await, Taken::Open);
    backend.pass(secs(2)).await;
    assert_eq!(backend.taken("alice", question).await, Taken::Gone);
}

async fn a_reply_in_a_long_wait_lives_no_longer_than_its_own_time(backend: Backend) {
    let question = backend.queue_up(&message("alice", "bob", "?").asking(secs(600))).await;
    let reply = backend.reply(&answer(question, "!").living(secs(300))).await;
    backend.pass(secs(299)).await;
    assert_eq!(backend.state("bob", reply).await, Some(MessageState::Queued));
    backend.pass(secs(2)).await;
    assert_eq!(backend.noticed("bob").await, [reply]);
    assert_eq!(backend.taken("alice", question).await, Taken::Gone);
}
