//! Looking into an inbox: everything is shown, nothing happens to it.

use mcp_messaging::{
    model::{Message, MessageState},
    queue::{Browsed, FetchRequest, Outcome, Presence, Stamp},
};

use crate::support::{Backend, Draft, anything, inbox, message, ms, secs, texts_of};

for_each_backend!(
    what_is_shown_is_what_the_next_fetch_hands_out,
    a_look_leaves_no_trace,
    a_look_shows_no_more_messages_than_asked_for,
    a_look_shows_no_more_bytes_than_asked_for_but_always_one_message,
    an_inbox_that_nobody_wrote_to_shows_nothing,
    what_a_reader_holds_is_shown_and_counted,
    what_has_expired_is_not_shown,
    a_message_that_expired_between_others_is_not_shown,
    a_new_message_is_an_arrival_and_the_same_look_again_is_none,
    taking_messages_is_no_arrival,
    a_lease_given_back_is_an_arrival,
    a_lease_that_ran_out_is_an_arrival_when_it_was_due,
    a_reply_given_back_by_its_wait_is_an_arrival,
);

where_time_can_be_moved!(a_reply_whose_waiter_died_is_an_arrival_when_it_was_due);

async fn shown(backend: &Backend) -> Browsed {
    backend.browse(&inbox("bob"), 1000, 1 << 20).await.unwrap()
}

async fn post(backend: &Backend, texts: &[&str]) {
    for text in texts {
        backend.queue_up(&message("alice", "bob", text)).await;
    }
}

/// Without its age, which goes on.
fn still(mut messages: Vec<Message>) -> Vec<Message> {
    for message in &mut messages {
        message.age = ms(0);
    }
    messages
}

async fn what_is_shown_is_what_the_next_fetch_hands_out(backend: Backend) {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
    let question = message("alice", "bob", "ä\0\r\n?").asking(secs(30));
    let mut answer = message("carol", "bob", "one").answering(question.id);
    answer.trace = Some(trace);
    backend.queue_up(&answer).await;
    backend.queue_up(&question).await;
    let looked = still(shown(&backend).await.messages);
    let request = anything();
    assert_eq!(looked, still(backend.lease("bob", &request).await.0));
    assert_eq!((looked[0].redelivered, looked[1].asks), (false, true));

    // And again, when one was handed out and the other is new.
    assert!(backend.release(&inbox("bob"), request.lease).await.unwrap());
    post(&backend, &["late"]).await;
    let looked = still(shown(&backend).await.messages);
    assert_eq!(looked, still(backend.lease("bob", &anything()).await.0));
    let marks: Vec<_> = looked.iter().map(|one| (one.redelivered, one.attempt)).collect();
    assert_eq!(marks, [(true, 2), (true, 2), (false, 1)]);
}

async fn a_look_leaves_no_trace(backend: Backend) {
    let id = backend.queue_up(&message("alice", "bob", "one")).await;
    for _ in 0..3 {
        assert_eq!(texts_of(&shown(&backend).await.messages), ["one"]);
    }
    let peek = backend.peek(&inbox("bob")).await.unwrap();
    assert_eq!((peek.queued, peek.leased, peek.presence), (1, 0, Presence::Unknown));
    assert_eq!(backend.state("alice", id).await, Some(MessageState::Queued));
    let got = backend.drain("bob").await;
    assert_eq!((got[0].redelivered, got[0].attempt), (false, 1));
}

async fn a_look_shows_no_more_messages_than_asked_for(backend: Backend) {
    post(&backend, &["one", "two", "three"]).await;
    for (most, expected) in [(0, &[][..]), (2, &["one", "two"]), (9, &["one", "two", "three"])] {
        let found = backend.browse(&inbox("bob"), most, 1 << 20).await.unwrap();
        assert_eq!((texts_of(&found.messages), found.queued), (expected.to_vec(), 3));
    }
}

async fn a_look_shows_no_more_bytes_than_asked_for_but_always_one_message(backend: Backend) {
    post(&backend, &["12345", "678", "9"]).await;
    let seen = async |most| backend.browse(&inbox("bob"), 10, most).await.unwrap().messages.len();
    for (messages, bytes) in [(1, 5), (2, 8), (3, 9)] {
        let all = bytes + messages * backend.added_bytes;
        assert_eq!(seen(all).await, messages, "{all}");
        assert_eq!(seen(all - 1).await, (messages - 1).max(1), "less than {all}");
    }
    assert_eq!(seen(1).await, 1);
}

async fn an_inbox_that_nobody_wrote_to_shows_nothing(backend: Backend) {
    assert_eq!(shown(&backend).await, Browsed::default());
    let peek = backend.peek(&inbox("bob")).await.unwrap();
    assert_eq!(peek.presence, Presence::Unknown);
}

async fn what_a_reader_holds_is_shown_and_counted(backend: Backend) {
    post(&backend, &["one", "two", "three"]).await;
    let request = FetchRequest { max_messages: 2, ..anything() };
    let (_, upto) = backend.lease("bob", &request).await;
    let found = shown(&backend).await;
    assert_eq!(texts_of(&found.messages), ["one", "two", "three"]);
    assert_eq!((found.queued, found.leased, found.arrivals.returned), (3, 2, None));
    let due = found.due.expect("the end of the lease");
    assert!(due <= secs(10) && due > secs(1), "{due:?}");
    // The lease is as it was.
    assert_eq!(backend.look("bob").await.outcome, Outcome::Busy);
    assert_eq!(backend.ack(&inbox("bob"), upto).await.unwrap(), 2);
    let found = shown(&backend).await;
    assert_eq!((texts_of(&found.messages), found.leased), (vec!["three"], 0));
    assert_eq!(found.due, None);
}

async fn what_has_expired_is_not_shown(backend: Backend) {
    for text in ["one", "two"] {
        backend.queue_up(&message("alice", "bob", text).living(secs(1))).await;
    }
    post(&backend, &["three"]).await;
    backend.pass(ms(1300)).await;
    let found = shown(&backend).await;
    assert_eq!((texts_of(&found.messages), found.queued), (vec!["three"], 1));
    backend.queue_up(&message("alice", "carol", "all gone").living(secs(1))).await;
    backend.pass(ms(1300)).await;
    let found = backend.browse(&inbox("carol"), 10, 1000).await.unwrap();
    assert_eq!((found.messages.len(), found.queued), (0, 0));
}

async fn a_message_that_expired_between_others_is_not_shown(backend: Backend) {
    post(&backend, &["one"]).await;
    backend.queue_up(&message("alice", "bob", "short").living(secs(1))).await;
    post(&backend, &["two"]).await;
    backend.pass(ms(1300)).await;
    assert_eq!(texts_of(&shown(&backend).await.messages), ["one", "two"]);
    assert_eq!(backend.texts("bob").await, ["one", "two"]);
}

async fn a_new_message_is_an_arrival_and_the_same_look_again_is_none(backend: Backend) {
    let empty = shown(&backend).await.arrivals;
    assert_eq!(empty.newest, Stamp(0));
    post(&backend, &["one"]).await;
    let one = shown(&backend).await.arrivals;
    assert!(one.beyond(&empty));
    assert!(!shown(&backend).await.arrivals.beyond(&one));
    post(&backend, &["two"]).await;
    assert!(shown(&backend).await.arrivals.beyond(&one));
}

async fn taking_messages_is_no_arrival(backend: Backend) {
    post(&backend, &["one", "two"]).await;
    let mut last = shown(&backend).await.arrivals;
    for _ in 0..2 {
        let (_, upto) = backend.lease("bob", &FetchRequest { max_messages: 1, ..anything() }).await;
        let leased = shown(&backend).await.arrivals;
        assert!(!leased.beyond(&last));
        backend.ack(&inbox("bob"), upto).await.unwrap();
        let acknowledged = shown(&backend).await.arrivals;
        assert!(!acknowledged.beyond(&leased) && !acknowledged.beyond(&last));
        last = acknowledged;
    }
    // Emptied, and filled again.
    post(&backend, &["three"]).await;
    assert!(shown(&backend).await.arrivals.beyond(&last));
}

async fn a_lease_given_back_is_an_arrival(backend: Backend) {
    post(&backend, &["one"]).await;
    let mut last = shown(&backend).await.arrivals;
    // Also when nobody looked while it was held.
    for look_between in [true, false, false] {
        let request = anything();
        backend.lease("bob", &request).await;
        if look_between {
            last = shown(&backend).await.arrivals;
        }
        backend.release(&inbox("bob"), request.lease).await.unwrap();
        let back = shown(&backend).await.arrivals;
        assert!(back.beyond(&last));
        assert!(!shown(&backend).await.arrivals.beyond(&back));
        last = back;
    }
}

async fn a_lease_that_ran_out_is_an_arrival_when_it_was_due(backend: Backend) {
    post(&backend, &["one"]).await;
    backend.lease("bob", &FetchRequest { lease_for: ms(400), ..anything() }).await;
    let held = shown(&backend).await;
    assert_eq!(held.leased, 1);
    backend.pass(held.due.expect("the end of the lease") + ms(5)).await;
    let back = shown(&backend).await;
    assert_eq!((back.leased, back.due), (0, None));
    assert!(back.arrivals.beyond(&held.arrivals));
}

async fn a_reply_given_back_by_its_wait_is_an_arrival(backend: Backend) {
    let question = message("bob", "alice", "?").asking(secs(30));
    backend.queue_up(&question).await;
    let before = shown(&backend).await.arrivals;
    backend.reply(&message("alice", "bob", "!").answering(question.id)).await;
    let parked = shown(&backend).await;
    assert_eq!((parked.queued, parked.arrivals), (0, before));
    backend.wait_close(&inbox("bob"), question.id).await.unwrap();
    let back = shown(&backend).await;
    assert_eq!(texts_of(&back.messages), ["!"]);
    assert!(back.arrivals.beyond(&parked.arrivals));
}

async fn a_reply_whose_waiter_died_is_an_arrival_when_it_was_due(backend: Backend) {
    let question = message("bob", "alice", "?").asking(secs(1));
    backend.queue_up(&question).await;
    backend.reply(&message("alice", "bob", "!").answering(question.id)).await;
    let parked = shown(&backend).await;
    assert_eq!(parked.queued, 0);
    let due = parked.due.expect("the end of the wait");
    assert!(due > secs(10) && due <= secs(11), "{due:?}");
    backend.pass(due).await;
    let back = shown(&backend).await;
    assert_eq!(texts_of(&back.messages), ["!"]);
    assert!(back.arrivals.beyond(&parked.arrivals));
}
