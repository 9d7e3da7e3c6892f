//! Taken means received: what is handed out stays until it is acknowledged.

use mcp_messaging::queue::{FetchRequest, LeaseId, Outcome, Stamp};

use crate::support::{Backend, Draft, anything, inbox, message, ms, secs, texts_of};

for_each_backend!(
    fetched_messages_stay_until_they_are_acknowledged,
    an_acknowledgement_says_how_many_it_removed_and_may_be_repeated,
    an_acknowledgement_never_removes_what_was_not_handed_out,
    an_acknowledgement_of_a_part_leaves_the_rest,
    an_acknowledgement_in_an_unknown_inbox_removes_nothing,
    the_same_lease_returns_the_same_batch,
    another_reader_finds_a_leased_head_busy,
    a_busy_inbox_hands_out_nothing_even_if_more_lies_behind,
    a_lease_given_back_returns_its_messages_at_once_in_their_place_and_marked,
    only_what_was_handed_out_before_is_marked_as_redelivered,
    only_its_holder_gives_a_lease_back,
    a_lease_that_ran_out_returns_its_messages,
    a_lease_can_be_prolonged,
    only_its_holder_prolongs_a_lease,
    a_late_acknowledgement_counts_although_another_reader_took_over,
    a_lease_that_is_acknowledged_in_full_is_over,
    a_fetch_takes_no_more_messages_than_asked_for,
    a_fetch_takes_no_more_bytes_than_asked_for_but_always_one_message,
    remaining_counts_what_was_not_handed_out,
    a_look_takes_nothing,
);

fn up_to(max_messages: usize) -> FetchRequest {
    FetchRequest { max_messages, ..anything() }
}

async fn post(backend: &Backend, texts: &[&str]) {
    for text in texts {
        backend.queue_up(&message("alice", "bob", text)).await;
    }
}

async fn fetched_messages_stay_until_they_are_acknowledged(backend: Backend) {
    post(&backend, &["one", "two"]).await;
    let (_, upto) = backend.lease("bob", &anything()).await;
    let peek = backend.peek(&inbox("bob")).await.unwrap();
    assert_eq!((peek.queued, peek.leased), (2, 2));
    backend.ack(&inbox("bob"), upto).await.unwrap();
    let peek = backend.peek(&inbox("bob")).await.unwrap();
    assert_eq!((peek.queued, peek.leased, peek.oldest), (0, 0, None));
    assert_eq!(backend.look("bob").await.outcome, Outcome::Empty);
}

async fn an_acknowledgement_says_how_many_it_removed_and_may_be_repeated(backend: Backend) {
    post(&backend, &["one", "two"]).await;
    let (_, upto) = backend.lease("bob", &anything()).await;
    assert_eq!(backend.ack(&inbox("bob"), upto).await.unwrap(), 2);
    post(&backend, &["three"]).await;
    assert_eq!(backend.ack(&inbox("bob"), upto).await.unwrap(), 0);
    assert_eq!(backend.texts("bob").await, ["three"]);
}

async fn an_acknowledgement_never_removes_what_was_not_handed_out(backend: Backend) {
    post(&backend, &["one", "two", "three"]).await;
    assert_eq!(backend.ack(&inbox("bob"), Stamp(u64::MAX >> 11)).await.unwrap(), 0);
    let (_, upto) = backend.lease("bob", &up_to(1)).await;
    let beyond = Stamp(upto.0 + 3_600_000_000);
    assert_eq!(backend.ack(&inbox("bob"), beyond).await.unwrap(), 1);
    assert_eq!(backend.texts("bob").await, ["two", "three"]);
}

async fn an_acknowledgement_of_a_part_leaves_the_rest(backend: Backend) {
    post(&backend, &["one", "two", "three"]).await;
    let request = up_to(1);
    let (_, first) = backend.lease("bob", &request).await;
    assert!(backend.release(&inbox("bob"), request.lease).await.unwrap());
    let all = anything();
    backend.lease("bob", &all).await;
    assert_eq!(backend.ack(&inbox("bob"), first).await.unwrap(), 1);
    // The rest is still under the second lease.
    assert_eq!(backend.look("bob").await.outcome, Outcome::Busy);
    assert!(backend.release(&inbox("bob"), all.lease).await.unwrap());
    assert_eq!(backend.texts("bob").await, ["two", "three"]);
}

async fn an_acknowledgement_in_an_unknown_inbox_removes_nothing(backend: Backend) {
    assert_eq!(backend.ack(&inbox("nobody"), Stamp(1)).await.unwrap(), 0);
    assert!(!backend.release(&inbox("nobody"), LeaseId::new()).await.unwrap());
    assert!(!backend.extend(&inbox("nobody"), LeaseId::new(), secs(1)).await.unwrap());
    backend.leave(&inbox("nobody")).await.unwrap();
}

async fn the_same_lease_returns_the_same_batch(backend: Backend) {
    post(&backend, &["one", "two"]).await;
    let request = anything();
    let (first, upto) = backend.lease("bob", &request).await;
    post(&backend, &["three"]).await;
    let (again, upto_again) = backend.lease("bob", &request).await;
    assert_eq!(texts_of(&again), texts_of(&first));
    assert_eq!(upto_again, upto);
    backend.ack(&inbox("bob"), upto).await.unwrap();
    assert_eq!(backend.texts("bob").await, ["three"]);
}

async fn another_reader_finds_a_leased_head_busy(backend: Backend) {
    post(&backend, &["one"]).await;
    let request = anything();
    backend.lease("bob", &request).await;
    let fetched = backend.look("bob").await;
    assert_eq!((fetched.outcome, fetched.remaining), (Outcome::Busy, 1));
    let due = fetched.due.expect("the end of the lease");
    assert!(due <= request.lease_for && due > secs(1), "{due:?}");
}

async fn a_busy_inbox_hands_out_nothing_even_if_more_lies_behind(backend: Backend) {
    post(&backend, &["one", "two", "three"]).await;
    let (got, upto) = backend.lease("bob", &up_to(1)).await;
    assert_eq!(texts_of(&got), ["one"]);
    assert_eq!(backend.look("bob").await.outcome, Outcome::Busy);
    backend.ack(&inbox("bob"), upto).await.unwrap();
    assert_eq!(backend.texts("bob").await, ["two", "three"]);
}

async fn a_lease_given_back_returns_its_messages_at_once_in_their_place_and_marked(
    backend: Backend,
) {
    post(&backend, &["one", "two"]).await;
    let request = anything();
    backend.lease("bob", &request).await;
    post(&backend, &["three"]).await;
    assert!(backend.release(&inbox("bob"), request.lease).await.unwrap());
    let got = backend.drain("bob").await;
    assert_eq!(texts_of(&got), ["one", "two", "three"]);
    assert_eq!((got[0].redelivered, got[0].attempt), (true, 2));
}

async fn only_what_was_handed_out_before_is_marked_as_redelivered(backend: Backend) {
    post(&backend, &["one"]).await;
    let request = anything();
    backend.lease("bob", &request).await;
    backend.release(&inbox("bob"), request.lease).await.unwrap();
    post(&backend, &["two"]).await;
    let got = backend.drain("bob").await;
    let marks: Vec<_> = got.iter().map(|message| message.redelivered).collect();
    assert_eq!(marks, [true, false]);
    assert_eq!(got[1].attempt, 1);
}

async fn only_its_holder_gives_a_lease_back(backend: Backend) {
    post(&backend, &["one"]).await;
    let request = anything();
    backend.lease("bob", &request).await;
    assert!(!backend.release(&inbox("bob"), LeaseId::new()).await.unwrap());
    assert_eq!(backend.look("bob").await.outcome, Outcome::Busy);
    assert!(backend.release(&inbox("bob"), request.lease).await.unwrap());
    assert!(!backend.release(&inbox("bob"), request.lease).await.unwrap());
}

async fn a_lease_that_ran_out_returns_its_messages(backend: Backend) {
    post(&backend, &["one"]).await;
    backend.lease("bob", &FetchRequest { lease_for: ms(200), ..anything() }).await;
    backend.pass(ms(500)).await;
    assert_eq!(backend.peek(&inbox("bob")).await.unwrap().leased, 0);
    let got = backend.drain("bob").await;
    assert_eq!((texts_of(&got), got[0].redelivered), (vec!["one"], true));
}

async fn a_lease_can_be_prolonged(backend: Backend) {
    post(&backend, &["one"]).await;
    let request = FetchRequest { lease_for: ms(500), ..anything() };
    backend.lease("bob", &request).await;
    assert!(backend.extend(&inbox("bob"), request.lease, secs(20)).await.unwrap());
    backend.pass(ms(900)).await;
    let fetched = backend.look("bob").await;
    assert_eq!(fetched.outcome, Outcome::Busy);
    assert!(fetched.due.unwrap() <= secs(20));
}

async fn only_its_holder_prolongs_a_lease(backend: Backend) {
    post(&backend, &["one"]).await;
    let request = FetchRequest { lease_for: ms(200), ..anything() };
    let (_, upto) = backend.lease("bob", &request).await;
    assert!(!backend.extend(&inbox("bob"), LeaseId::new(), secs(20)).await.unwrap());
    backend.pass(ms(500)).await;
    backend.lease("bob", &anything()).await;
    assert!(!backend.extend(&inbox("bob"), request.lease, secs(20)).await.unwrap());
    assert!(!backend.release(&inbox("bob"), request.lease).await.unwrap());
    backend.ack(&inbox("bob"), upto).await.unwrap();
    assert!(!backend.extend(&inbox("bob"), request.lease, secs(20)).await.unwrap());
}

async fn a_late_acknowledgement_counts_although_another_reader_took_over(backend: Backend) {
    post(&backend, &["one", "two"]).await;
    let late = FetchRequest { lease_for: ms(200), ..anything() };
    let (_, upto) = backend.lease("bob", &late).await;
    backend.pass(ms(500)).await;
    backend.lease("bob", &up_to(1)).await;
    assert_eq!(backend.ack(&inbox("bob"), upto).await.unwrap(), 2);
    assert_eq!(backend.look("bob").await.outcome, Outcome::Empty);
}

async fn a_lease_that_is_acknowledged_in_full_is_over(backend: Backend) {
    post(&backend, &["one"]).await;
    let request = anything();
    let (_, upto) = backend.lease("bob", &request).await;
    backend.ack(&inbox("bob"), upto).await.unwrap();
    assert!(!backend.release(&inbox("bob"), request.lease).await.unwrap());
    assert!(!backend.extend(&inbox("bob"), request.lease, secs(20)).await.unwrap());
    post(&backend, &["two"]).await;
    assert_eq!(backend.texts("bob").await, ["two"]);
}

async fn a_fetch_takes_no_more_messages_than_asked_for(backend: Backend) {
    post(&backend, &["one", "two", "three"]).await;
    let (got, upto) = backend.lease("bob", &up_to(2)).await;
    assert_eq!(texts_of(&got), ["one", "two"]);
    backend.ack(&inbox("bob"), upto).await.unwrap();
    assert_eq!(backend.texts("bob").await, ["three"]);
}

async fn a_fetch_takes_no_more_bytes_than_asked_for_but_always_one_message(backend: Backend) {
    let long = "x".repeat(5_000);
    for text in [&long, "short", "short", &long] {
        backend.queue_up(&message("alice", "bob", text).living(secs(30))).await;
    }
    let request = || FetchRequest { max_bytes: 1_000, ..anything() };
    let mut sizes = Vec::new();
    for _ in 0..3 {
        let (got, upto) = backend.lease("bob", &request()).await;
        sizes.push(got.len());
        backend.ack(&inbox("bob"), upto).await.unwrap();
    }
    assert_eq!(sizes, [1, 2, 1]);
}

async fn remaining_counts_what_was_not_handed_out(backend: Backend) {
    post(&backend, &["one", "two", "three"]).await;
    let fetched = backend.fetch(&inbox("bob"), &up_to(1)).await.unwrap();
    assert_eq!(fetched.remaining, 2);
    assert_eq!(backend.peek(&inbox("bob")).await.unwrap().leased, 1);
}

async fn a_look_takes_nothing(backend: Backend) {
    post(&backend, &["one", "two"]).await;
    for _ in 0..2 {
        let peek = backend.peek(&inbox("bob")).await.unwrap();
        assert_eq!((peek.queued, peek.leased), (2, 0));
        assert!(peek.oldest.is_some_and(|age| age < secs(30)));
    }
    let got = backend.drain("bob").await;
    assert_eq!((got.len(), got[0].redelivered), (2, false));
}
