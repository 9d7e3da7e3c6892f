//! Blocking fetches: who counts as waiting, and who has to give way.

use mcp_messaging::{
    model::Principal,
    queue::{FetchRequest, Fetched, LeaseId, Outcome, Presence, SessionKey, Waiting},
};

use crate::support::{Backend, anything, inbox, message, ms, secs, wakes};
use std::time::Duration;

for_each_backend!(
    a_fetch_that_waits_is_seen_by_senders,
    a_fetch_that_got_messages_waits_no_more,
    a_fetch_that_went_away_waits_no_more,
    a_wait_is_over_when_its_time_is,
    a_fetch_that_finds_the_head_busy_waits_too,
    a_fetch_that_does_not_wait_is_not_waiting,
    a_later_call_of_a_session_supersedes_the_older_one,
    a_superseded_call_gets_nothing_more,
    who_follows_a_call_that_got_its_messages_wakes_nobody,
    who_was_served_stays_served_when_it_asks_again,
    a_call_does_not_supersede_itself,
    calls_of_other_sessions_wait_side_by_side,
    a_session_supersedes_its_own_call_though_another_waits_too,
    who_came_before_many_other_sessions_waits_on,
    calls_without_a_session_wait_side_by_side,
    a_session_waits_in_each_inbox_by_itself,
);

/// A wake-up that was published has come by then.
const QUIET: Duration = Duration::from_millis(300);

fn waiting(session: Option<&str>, call: LeaseId, first: bool, remaining: Duration) -> FetchRequest {
    let session = session.map(|session| SessionKey::new(&Principal::anyone(), session));
    FetchRequest { waiting: Some(Waiting { remaining, session, call, first }), ..anything() }
}

async fn wait(backend: &Backend, session: Option<&str>, call: LeaseId, first: bool) -> Fetched {
    backend.fetch(&inbox("bob"), &waiting(session, call, first, secs(20))).await.unwrap()
}

async fn presence(backend: &Backend) -> Presence {
    backend.peek(&inbox("bob")).await.unwrap().presence
}

async fn a_fetch_that_waits_is_seen_by_senders(backend: Backend) {
    assert_eq!(wait(&backend, None, LeaseId::new(), true).await.outcome, Outcome::Empty);
    assert_eq!(presence(&backend).await, Presence::Waiting);
    let sent = backend.post(&message("alice", "bob", "x")).await;
    assert_eq!(sent.recipient, Presence::Waiting);
}

async fn a_fetch_that_got_messages_waits_no_more(backend: Backend) {
    let call = LeaseId::new();
    wait(&backend, None, call, true).await;
    backend.queue_up(&message("alice", "bob", "x")).await;
    let fetched = wait(&backend, None, call, false).await;
    assert!(matches!(fetched.outcome, Outcome::Messages(_)));
    assert!(matches!(presence(&backend).await, Presence::Seen(_)));
}

async fn a_fetch_that_went_away_waits_no_more(backend: Backend) {
    wait(&backend, None, LeaseId::new(), true).await;
    backend.leave(&inbox("bob")).await.unwrap();
    assert!(matches!(presence(&backend).await, Presence::Seen(_)));
}

async fn a_wait_is_over_when_its_time_is(backend: Backend) {
    let request = waiting(None, LeaseId::new(), true, ms(300));
    backend.fetch(&inbox("bob"), &request).await.unwrap();
    assert_eq!(presence(&backend).await, Presence::Waiting);
    backend.pass(ms(600)).await;
    assert!(matches!(presence(&backend).await, Presence::Seen(_)));
}

async fn a_fetch_that_finds_the_head_busy_waits_too(backend: Backend) {
    backend.queue_up(&message("alice", "bob", "x")).await;
    backend.lease("bob", &anything()).await;
    assert_eq!(wait(&backend, None, LeaseId::new(), true).await.outcome, Outcome::Busy);
    assert_eq!(presence(&backend).await, Presence::Waiting);
}

async fn a_fetch_that_does_not_wait_is_not_waiting(backend: Backend) {
    backend.look("bob").await;
    assert!(matches!(presence(&backend).await, Presence::Seen(_)));
}

async fn a_later_call_of_a_session_supersedes_the_older_one(backend: Backend) {
    let (older, later) = (LeaseId::new(), LeaseId::new());
    assert_eq!(wait(&backend, Some("s"), older, true).await.outcome, Outcome::Empty);
    let mut watching = backend.watching("bob").await;
    assert_eq!(wait(&backend, Some("s"), later, true).await.outcome, Outcome::Empty);
    wakes(&mut watching).await;
    let fetched = wait(&backend, Some("s"), older, false).await;
    assert_eq!(fetched.outcome, Outcome::Superseded);
    assert_eq!(wait(&backend, Some("s"), later, false).await.outcome, Outcome::Empty);
    assert_eq!(presence(&backend).await, Presence::Waiting);
}

async fn a_superseded_call_gets_nothing_more(backend: Backend) {
    let (older, later) = (LeaseId::new(), LeaseId::new());
    wait(&backend, Some("s"), older, true).await;
    wait(&backend, Some("s"), later, true).await;
    backend.queue_up(&message("alice", "bob", "x")).await;
    assert_eq!(wait(&backend, Some("s"), older, false).await.outcome, Outcome::Superseded);
    let fetched = wait(&backend, Some("s"), later, false).await;
    let Outcome::Messages(batch) = fetched.outcome else { panic!("{fetched:?}") };
    assert!(!batch.messages[0].redelivered);
}

/// The way of most agents, one wait after another: nothing of it is worth a second look.
async fn who_follows_a_call_that_got_its_messages_wakes_nobody(backend: Backend) {
    let [at_once, woken, next] = [LeaseId::new(), LeaseId::new(), LeaseId::new()];
    let mut watching = backend.watching("bob").await;
    backend.queue_up(&message("alice", "bob", "mail lies there")).await;
    take(&backend, at_once, true).await;
    while watching.next_within(QUIET).await {} // that message's, and a fresh subscription's
    assert_eq!(wait(&backend, Some("s"), woken, true).await.outcome, Outcome::Empty);
    assert!(!watching.next_within(QUIET).await, "the call before it was served at once");
    backend.queue_up(&message("alice", "bob", "mail comes")).await;
    wakes(&mut watching).await;
    take(&backend, woken, false).await;
    assert_eq!(wait(&backend, Some("s"), next, true).await.outcome, Outcome::Empty);
    assert!(!watching.next_within(QUIET).await, "the call before it was woken, and served");
    // One that was overtaken while it waited is told so, whoever was served since.
    assert_eq!(wait(&backend, Some("s"), woken, false).await.outcome, Outcome::Superseded);
    assert_eq!(wait(&backend, Some("s"), LeaseId::new(), true).await.outcome, Outcome::Empty);
    wakes(&mut watching).await;
    assert_eq!(wait(&backend, Some("s"), next, false).await.outcome, Outcome::Superseded);
}

/// Its answer may have got lost on the way from the store.
async fn who_was_served_stays_served_when_it_asks_again(backend: Backend) {
    let (older, call) = (LeaseId::new(), LeaseId::new());
    wait(&backend, Some("s"), older, true).await;
    backend.queue_up(&message("alice", "bob", "x")).await;
    let mut request = waiting(Some("s"), call, true, secs(20));
    for first in [true, false] {
        request.waiting.as_mut().unwrap().first = first;
        let fetched = backend.fetch(&inbox("bob"), &request).await.unwrap();
        assert!(matches!(fetched.outcome, Outcome::Messages(_)), "{fetched:?}");
    }
    assert_eq!(wait(&backend, Some("s"), older, false).await.outcome, Outcome::Superseded);
    // Meanwhile somebody else took them: it waits again, and learns of the next one.
    assert!(backend.release(&inbox("bob"), request.lease).await.unwrap());
    let (_, upto) = backend.lease("bob", &anything()).await;
    backend.ack(&inbox("bob"), upto).await.unwrap();
    assert_eq!(wait(&backend, Some("s"), call, false).await.outcome, Outcome::Empty);
    let mut watching = backend.watching("bob").await;
    assert_eq!(wait(&backend, Some("s"), LeaseId::new(), true).await.outcome, Outcome::Empty);
    wakes(&mut watching).await;
}

/// Fetches what is there, and acknowledges it.
async fn take(backend: &Backend, call: LeaseId, first: bool) {
    let fetched = wait(backend, Some("s"), call, first).await;
    let Outcome::Messages(batch) = fetched.outcome else { panic!("{fetched:?}") };
    backend.ack(&inbox("bob"), batch.upto).await.unwrap();
}

async fn a_call_does_not_supersede_itself(backend: Backend) {
    let call = LeaseId::new();
    for first in [true, false, false] {
        assert_eq!(wait(&backend, Some("s"), call, first).await.outcome, Outcome::Empty);
    }
}

async fn calls_of_other_sessions_wait_side_by_side(backend: Backend) {
    let (one, two) = (LeaseId::new(), LeaseId::new());
    for first in [true, false] {
        assert_eq!(wait(&backend, Some("s"), one, first).await.outcome, Outcome::Empty);
        assert_eq!(wait(&backend, Some("t"), two, first).await.outcome, Outcome::Empty);
    }
}

async fn a_session_supersedes_its_own_call_though_another_waits_too(backend: Backend) {
    let [older, later] = [LeaseId::new(), LeaseId::new()];
    let (others, others_later) = (LeaseId::new(), LeaseId::new());
    wait(&backend, Some("s"), older, true).await;
    wait(&backend, Some("t"), others, true).await;
    let mut watching = backend.watching("bob").await;
    while watching.next_within(QUIET).await {} // a fresh subscription's
    assert_eq!(wait(&backend, Some("s"), later, true).await.outcome, Outcome::Empty);
    wakes(&mut watching).await;
    assert_eq!(wait(&backend, Some("t"), others_later, true).await.outcome, Outcome::Empty);
    wakes(&mut watching).await;
    backend.queue_up(&message("alice", "bob", "x")).await;
    for (session, call) in [("s", older), ("t", others)] {
        assert_eq!(wait(&backend, Some(session), call, false).await.outcome, Outcome::Superseded);
    }
    let fetched = wait(&backend, Some("s"), later, false).await;
    assert!(matches!(fetched.outcome, Outcome::Messages(_)), "{fetched:?}");
}

/// More than a store remembers: who was forgotten is not sent away for it.
async fn who_came_before_many_other_sessions_waits_on(backend: Backend) {
    let (call, later) = (LeaseId::new(), LeaseId::new());
    wait(&backend, Some("first"), call, true).await;
    for n in 0..200 {
        wait(&backend, Some(&format!("session-{n}")), LeaseId::new(), true).await;
    }
    assert_eq!(wait(&backend, Some("first"), call, false).await.outcome, Outcome::Empty);
    assert_eq!(wait(&backend, Some("first"), later, true).await.outcome, Outcome::Empty);
    assert_eq!(wait(&backend, Some("first"), call, false).await.outcome, Outcome::Superseded);
}

async fn calls_without_a_session_wait_side_by_side(backend: Backend) {
    let (one, two) = (LeaseId::new(), LeaseId::new());
    for first in [true, false] {
        assert_eq!(wait(&backend, None, one, first).await.outcome, Outcome::Empty);
        assert_eq!(wait(&backend, None, two, first).await.outcome, Outcome::Empty);
    }
}

async fn a_session_waits_in_each_inbox_by_itself(backend: Backend) {
    let (bobs, carols) = (LeaseId::new(), LeaseId::new());
    wait(&backend, Some("s"), bobs, true).await;
    let request = waiting(Some("s"), carols, true, secs(20));
    backend.fetch(&inbox("carol"), &request).await.unwrap();
    assert_eq!(wait(&backend, Some("s"), bobs, false).await.outcome, Outcome::Empty);
}
