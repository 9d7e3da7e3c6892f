//! Never a lost wake-up.

use mcp_messaging::{
    model::{MessageId, Principal},
    queue::{CallKey, FetchRequest, Outcome, Topic},
};

use crate::support::{Backend, anything, inbox, message, ms, secs, wakes};

for_each_backend!(
    a_send_wakes_who_watches_the_inbox,
    a_send_wakes_all_who_watch_the_inbox,
    a_send_between_watching_and_waiting_is_not_missed,
    a_lease_given_back_wakes_the_next_reader,
    an_acknowledgement_wakes_readers_if_messages_remain,
    mail_of_others_wakes_nobody,
    a_lease_that_runs_out_is_announced_by_due,
    a_cancelled_call_is_remembered_and_woken,
);

where_time_can_be_moved!(a_cancellation_is_remembered_for_a_minute);

async fn a_send_wakes_who_watches_the_inbox(backend: Backend) {
    let mut watching = backend.watching("bob").await;
    let waiting = tokio::spawn(async move { watching.next_within(secs(5)).await });
    backend.queue_up(&message("alice", "bob", "x")).await;
    assert!(waiting.await.unwrap());
}

async fn a_send_wakes_all_who_watch_the_inbox(backend: Backend) {
    let mut one = backend.watching("bob").await;
    let mut two = backend.watching("bob").await;
    backend.queue_up(&message("alice", "bob", "x")).await;
    wakes(&mut one).await;
    wakes(&mut two).await;
}

async fn a_send_between_watching_and_waiting_is_not_missed(backend: Backend) {
    let mut watching = backend.watching("bob").await;
    assert_eq!(backend.look("bob").await.outcome, Outcome::Empty);
    backend.queue_up(&message("alice", "bob", "x")).await;
    backend.pass(ms(50)).await;
    wakes(&mut watching).await;
}

async fn a_lease_given_back_wakes_the_next_reader(backend: Backend) {
    backend.queue_up(&message("alice", "bob", "x")).await;
    let request = anything();
    backend.lease("bob", &request).await;
    let mut watching = backend.watching("bob").await;
    assert_eq!(backend.look("bob").await.outcome, Outcome::Busy);
    backend.release(&inbox("bob"), request.lease).await.unwrap();
    wakes(&mut watching).await;
}

async fn an_acknowledgement_wakes_readers_if_messages_remain(backend: Backend) {
    backend.queue_up(&message("alice", "bob", "one")).await;
    backend.queue_up(&message("alice", "bob", "two")).await;
    let request = FetchRequest { max_messages: 1, ..anything() };
    let (_, upto) = backend.lease("bob", &request).await;
    let mut watching = backend.watching("bob").await;
    assert_eq!(backend.look("bob").await.outcome, Outcome::Busy);
    backend.ack(&inbox("bob"), upto).await.unwrap();
    wakes(&mut watching).await;
    assert_eq!(backend.texts("bob").await, ["two"]);
}

async fn mail_of_others_wakes_nobody(backend: Backend) {
    // Spurious wake-ups are allowed, a storm of them is not.
    let mut watching = backend.watching("bob").await;
    for n in 0..50 {
        backend.queue_up(&message("alice", &format!("client-{n}"), "x")).await;
    }
    let mut woken = 0;
    while woken < 50 && watching.next_within(ms(20)).await {
        woken += 1;
    }
    assert!(woken < 10, "{woken} wake-ups");
}

async fn a_lease_that_runs_out_is_announced_by_due(backend: Backend) {
    backend.queue_up(&message("alice", "bob", "x")).await;
    backend.lease("bob", &FetchRequest { lease_for: ms(400), ..anything() }).await;
    let fetched = backend.look("bob").await;
    assert_eq!(fetched.outcome, Outcome::Busy);
    backend.pass(fetched.due.expect("the end of the lease") + ms(20)).await;
    assert_eq!(backend.texts("bob").await, ["x"]);
}

async fn a_cancelled_call_is_remembered_and_woken(backend: Backend) {
    let unique = MessageId::new().to_string();
    let (ours, another) = (
        CallKey::new(&Principal::anyone(), &unique, "1"),
        CallKey::new(&Principal::anyone(), &unique, "2"),
    );
    let mut watching = backend.watch(Topic::Call(ours)).await.unwrap();
    assert!(!backend.call_cancelled(&ours).await.unwrap());
    backend.cancel_call(&ours).await.unwrap();
    wakes(&mut watching).await;
    assert!(backend.call_cancelled(&ours).await.unwrap());
    assert!(!backend.call_cancelled(&another).await.unwrap());
}

async fn a_cancellation_is_remembered_for_a_minute(backend: Backend) {
    let (ours, another) = (
        CallKey::new(&Principal::anyone(), "s", "1"),
        CallKey::new(&Principal::anyone(), "s", "2"),
    );
    backend.cancel_call(&ours).await.unwrap();
    backend.pass(secs(59)).await;
    assert!(backend.call_cancelled(&ours).await.unwrap());
    backend.pass(secs(1)).await;
    backend.cancel_call(&another).await.unwrap();
    assert!(!backend.call_cancelled(&ours).await.unwrap());
    assert!(backend.call_cancelled(&another).await.unwrap());
}
