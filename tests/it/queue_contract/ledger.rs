//! Accepted means delivered, or the sender is told.

use std::time::Duration;

use mcp_messaging::{
    model::{MessageId, MessageState},
    queue::{FetchRequest, LeaseId, Limits, Outcome, Stamp, Waiting},
};

use crate::support::{
    Backend, Draft, LIMITS, anything, inbox, memory_backend_with, message, ms, redis_backend_with,
    secs, texts_of,
};

for_each_backend!(
    the_ledger_says_where_a_message_is,
    the_ledger_is_in_the_order_of_sending,
    a_stranger_has_an_empty_ledger,
    what_was_given_back_counts_as_delivered,
    an_expired_message_is_reported_until_its_sender_was_told,
    each_expired_message_is_told_by_itself,
    an_acknowledged_message_is_never_reported,
    a_message_that_expired_in_the_middle_of_an_acknowledged_batch_is_reported,
    a_message_that_expired_after_it_was_given_back_is_reported,
    an_acknowledgement_under_the_lease_counts_though_the_message_expired_meanwhile,
    an_acknowledgement_counts_though_a_later_reader_found_that_its_messages_had_expired,
    an_acknowledgement_of_some_counts_though_a_later_reader_found_that_all_had_expired,
    an_acknowledgement_says_nothing_of_what_had_expired_before_its_lease,
    what_was_read_since_says_nothing_of_what_expired_before_it_came,
    a_sender_is_told_at_its_next_send,
    a_sender_is_told_at_its_next_fetch,
    a_sender_that_waits_learns_when_to_look_for_notices,
    a_long_ledger_forgets_what_is_settled_first,
);

where_time_can_be_moved!(
    a_ledger_forgets_after_its_life,
    an_unread_message_of_a_day_is_still_reported,
);

async fn the_ledger_says_where_a_message_is(backend: Backend) {
    let before = backend.ledger(&inbox("alice")).await.unwrap();
    assert!(before.is_empty());
    let id = backend.queue_up(&message("alice", "bob", "x")).await;
    assert_eq!(backend.state("alice", id).await, Some(MessageState::Queued));
    let (got, upto) = backend.lease("bob", &anything()).await;
    assert_eq!(backend.state("alice", id).await, Some(MessageState::Delivered));
    backend.ack(&inbox("bob"), upto).await.unwrap();
    assert_eq!(backend.state("alice", id).await, Some(MessageState::Acknowledged));
    let entry = backend.ledger(&inbox("alice")).await.unwrap().remove(0);
    assert_eq!((entry.id, entry.recipient.expose()), (id, "bob"));
    assert_eq!(entry.sent_at_ms, got[0].accepted_at_ms);
}

async fn the_ledger_is_in_the_order_of_sending(backend: Backend) {
    let mut ids = Vec::new();
    for n in 0..30 {
        ids.push(backend.queue_up(&message("alice", ["bob", "carol"][n % 2], "x")).await);
        backend.pass(ms(2)).await;
    }
    let entries = backend.ledger(&inbox("alice")).await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), ids);
}

async fn a_stranger_has_an_empty_ledger(backend: Backend) {
    assert!(backend.ledger(&inbox("nobody")).await.unwrap().is_empty());
    assert!(backend.noticed("nobody").await.is_empty());
    backend.notices_told(&inbox("nobody"), &[MessageId::new()]).await.unwrap();
}

async fn what_was_given_back_counts_as_delivered(backend: Backend) {
    let id = backend.queue_up(&message("alice", "bob", "x")).await;
    let request = anything();
    backend.lease("bob", &request).await;
    backend.release(&inbox("bob"), request.lease).await.unwrap();
    assert_eq!(backend.state("alice", id).await, Some(MessageState::Delivered));
}

async fn short(backend: &Backend, text: &str) -> MessageId {
    backend.queue_up(&message("alice", "bob", text).living(ms(300))).await
}

async fn an_expired_message_is_reported_until_its_sender_was_told(backend: Backend) {
    let id = short(&backend, "unread").await;
    assert!(backend.noticed("alice").await.is_empty());
    backend.pass(ms(600)).await;
    assert_eq!(backend.state("alice", id).await, Some(MessageState::Expired));
    for _ in 0..2 {
        let notices = backend.notices(&inbox("alice")).await.unwrap();
        assert_eq!(notices.len(), 1);
        assert_eq!((notices[0].id, notices[0].recipient.expose()), (id, "bob"));
        assert!(notices[0].sent_at_ms > 1_600_000_000_000);
    }
    backend.notices_told(&inbox("alice"), &[id]).await.unwrap();
    assert!(backend.noticed("alice").await.is_empty());
    assert_eq!(backend.state("alice", id).await, Some(MessageState::Expired));
}

async fn each_expired_message_is_told_by_itself(backend: Backend) {
    let first = short(&backend, "1").await;
    backend.pass(ms(5)).await;
    let second = short(&backend, "2").await;
    let lives = backend.queue_up(&message("alice", "bob", "lives")).await;
    backend.pass(ms(600)).await;
    assert_eq!(backend.noticed("alice").await, [first, second]);
    backend.notices_told(&inbox("alice"), &[first, lives]).await.unwrap();
    assert_eq!(backend.noticed("alice").await, [second]);
    backend.notices_told(&inbox("alice"), &[second]).await.unwrap();
    assert!(backend.noticed("alice").await.is_empty());
    assert_eq!(backend.state("alice", lives).await, Some(MessageState::Queued));
}

async fn an_acknowledged_message_is_never_reported(backend: Backend) {
    let id = short(&backend, "read").await;
    backend.drain("bob").await;
    backend.pass(ms(600)).await;
    assert!(backend.noticed("alice").await.is_empty());
    assert_eq!(backend.state("alice", id).await, Some(MessageState::Acknowledged));
}

async fn a_message_that_expired_in_the_middle_of_an_acknowledged_batch_is_reported(
    backend: Backend,
) {
    backend.queue_up(&message("alice", "bob", "first")).await;
    let id = short(&backend, "short").await;
    backend.queue_up(&message("alice", "bob", "last")).await;
    backend.pass(ms(600)).await;
    assert_eq!(backend.texts("bob").await, ["first", "last"]);
    assert_eq!(backend.state("alice", id).await, Some(MessageState::Expired));
    assert_eq!(backend.noticed("alice").await, [id]);
}

async fn a_message_that_expired_after_it_was_given_back_is_reported(backend: Backend) {
    let id = backend.queue_up(&message("alice", "bob", "x").living(ms(800))).await;
    let request = anything();
    backend.lease("bob", &request).await;
    backend.release(&inbox("bob"), request.lease).await.unwrap();
    backend.pass(ms(1_100)).await;
    assert_eq!(backend.noticed("alice").await, [id]);
    assert_eq!(backend.state("alice", id).await, Some(MessageState::Expired));
}

async fn an_acknowledgement_under_the_lease_counts_though_the_message_expired_meanwhile(
    backend: Backend,
) {
    let id = backend.queue_up(&message("alice", "bob", "x").living(ms(500))).await;
    let (_, upto) = backend.lease("bob", &anything()).await;
    backend.pass(ms(800)).await;
    // Nobody gets it any more, but the first reader has it.
    assert!(!matches!(backend.look("bob").await.outcome, Outcome::Messages(_)));
    assert_eq!(backend.state("alice", id).await, Some(MessageState::Delivered));
    assert!(backend.noticed("alice").await.is_empty());
    backend.ack(&inbox("bob"), upto).await.unwrap();
    assert_eq!(backend.state("alice", id).await, Some(MessageState::Acknowledged));
    assert!(backend.noticed("alice").await.is_empty());
}

/// Notices may be found a few seconds late.
async fn soon(backend: &Backend, mut due: impl AsyncFnMut() -> bool) {
    for _ in 0..60 {
        if due().await {
            return;
        }
        backend.pass(ms(100)).await;
    }
    panic!("told within 6 s");
}

/// Leases as one whose lease runs out at once. Up to where it reaches.
async fn lease_briefly(backend: &Backend, most: usize) -> Stamp {
    let brief = FetchRequest { lease_for: ms(100), max_messages: most, ..anything() };
    backend.lease("bob", &brief).await.1
}

async fn an_acknowledgement_counts_though_a_later_reader_found_that_its_messages_had_expired(
    backend: Backend,
) {
    let id = short(&backend, "read slowly").await;
    let upto = lease_briefly(&backend, 10).await;
    let next = backend.queue_up(&message("alice", "bob", "next")).await;
    backend.pass(ms(600)).await;
    let (got, next_upto) = backend.lease("bob", &anything()).await;
    assert_eq!(got[0].id, next);
    backend.ack(&inbox("bob"), upto).await.unwrap();
    assert_eq!(backend.state("alice", id).await, Some(MessageState::Acknowledged));
    assert_eq!(backend.state("alice", next).await, Some(MessageState::Delivered));
    backend.ack(&inbox("bob"), next_upto).await.unwrap();
    assert!(backend.noticed("alice").await.is_empty());
}

async fn an_acknowledgement_of_some_counts_though_a_later_reader_found_that_all_had_expired(
    backend: Backend,
) {
    let (one, two) = (short(&backend, "1").await, short(&backend, "2").await);
    let upto = lease_briefly(&backend, 1).await;
    backend.pass(ms(110)).await;
    lease_briefly(&backend, 10).await;
    backend.queue_up(&message("alice", "bob", "next")).await;
    backend.pass(ms(500)).await;
    assert_eq!(texts_of(&backend.lease("bob", &anything()).await.0), ["next"]);
    backend.ack(&inbox("bob"), upto).await.unwrap();
    assert_eq!(backend.state("alice", one).await, Some(MessageState::Acknowledged));
    assert_eq!(backend.noticed("alice").await, [two]);
}

/// Nobody ever said that it was received.
async fn an_acknowledgement_says_nothing_of_what_had_expired_before_its_lease(backend: Backend) {
    let lost = short(&backend, "handed out, and its reader died").await;
    backend.queue_up(&message("alice", "bob", "next")).await;
    lease_briefly(&backend, 10).await;
    backend.pass(ms(600)).await;
    assert_eq!(backend.texts("bob").await, ["next"]);
    assert_eq!(backend.state("alice", lost).await, Some(MessageState::Expired));
    assert_eq!(backend.noticed("alice").await, [lost]);
}

async fn what_was_read_since_says_nothing_of_what_expired_before_it_came(backend: Backend) {
    let unread = short(&backend, "unread").await;
    let handed = backend.queue_up(&message("alice", "carol", "not received").living(ms(300))).await;
    let brief = FetchRequest { lease_for: ms(100), ..anything() };
    backend.lease("carol", &brief).await;
    backend.pass(ms(600)).await;
    for client in ["bob", "carol"] {
        backend.queue_up(&message("alice", client, "next")).await;
        assert_eq!(backend.texts(client).await, ["next"]);
    }
    for id in [unread, handed] {
        assert_eq!(backend.state("alice", id).await, Some(MessageState::Expired));
    }
    assert_eq!(backend.noticed("alice").await, [unread, handed]);
}

async fn a_sender_is_told_at_its_next_send(backend: Backend) {
    assert!(!backend.post(&message("alice", "carol", "x")).await.notices_due);
    let id = short(&backend, "unread").await;
    backend.pass(ms(600)).await;
    soon(&backend, async || backend.post(&message("alice", "carol", "x")).await.notices_due).await;
    assert_eq!(backend.noticed("alice").await, [id]);
    backend.notices_told(&inbox("alice"), &[id]).await.unwrap();
    assert!(!backend.post(&message("alice", "carol", "x")).await.notices_due);
}

async fn a_sender_is_told_at_its_next_fetch(backend: Backend) {
    let id = short(&backend, "unread").await;
    assert!(!backend.look("alice").await.notices_due);
    backend.pass(ms(600)).await;
    soon(&backend, async || backend.look("alice").await.notices_due).await;
    assert_eq!(backend.noticed("alice").await, [id]);
    backend.notices_told(&inbox("alice"), &[id]).await.unwrap();
    assert!(!backend.look("alice").await.notices_due);
}

async fn a_sender_that_waits_learns_when_to_look_for_notices(backend: Backend) {
    short(&backend, "unread").await;
    let call = LeaseId::new();
    let request = |first| {
        let waiting = Waiting { remaining: secs(30), session: None, call, first };
        FetchRequest { waiting: Some(waiting), ..anything() }
    };
    let mut fetched = backend.fetch(&inbox("alice"), &request(true)).await.unwrap();
    let mut slept = Duration::ZERO;
    while !fetched.notices_due {
        assert!(slept < secs(7), "told soon after the message expired");
        let due = fetched.due.expect("when the message expires").max(ms(1));
        slept += due;
        backend.pass(due).await;
        fetched = backend.fetch(&inbox("alice"), &request(false)).await.unwrap();
    }
    assert_eq!(backend.noticed("alice").await.len(), 1);
}

async fn a_long_ledger_forgets_what_is_settled_first(backend: Backend) {
    let kept = backend.queue_up(&message("alice", "carol", "unread")).await;
    for _ in 0..2 {
        for _ in 0..LIMITS.inbox_messages {
            backend.queue_up(&message("alice", "bob", "x")).await;
        }
        backend.drain("bob").await;
    }
    let last = backend.queue_up(&message("alice", "carol", "last")).await;
    let entries = backend.ledger(&inbox("alice")).await.unwrap();
    // A store may forget in steps.
    assert!(entries.len() as u64 <= LIMITS.ledger_entries + 100, "{}", entries.len());
    assert_eq!(entries.first().map(|entry| entry.id), Some(kept));
    assert_eq!(entries.last().map(|entry| entry.id), Some(last));
}

async fn a_ledger_forgets_after_its_life(backend: Backend) {
    short(&backend, "unread").await;
    backend.pass(secs(86_399)).await;
    assert_eq!(backend.ledger(&inbox("alice")).await.unwrap().len(), 1);
    assert_eq!(backend.noticed("alice").await.len(), 1);
    backend.pass(secs(3)).await;
    assert!(backend.ledger(&inbox("alice")).await.unwrap().is_empty());
    assert!(backend.noticed("alice").await.is_empty());
}

async fn an_unread_message_of_a_day_is_still_reported(backend: Backend) {
    let day = LIMITS.ledger_life;
    let id = backend.queue_up(&message("alice", "bob", "patient").living(day)).await;
    backend.pass(day + secs(3600)).await;
    assert_eq!(backend.noticed("alice").await, [id]);
}

const SHORT_LEDGER: Limits = Limits { ledger_entries: 10, ..LIMITS };

#[tokio::test]
async fn nothing_unsettled_is_lost_without_saying_so_in_memory() {
    nothing_unsettled_is_lost_without_saying_so(memory_backend_with(SHORT_LEDGER)).await;
}

#[tokio::test]
async fn nothing_unsettled_is_lost_without_saying_so_on_redis() {
    nothing_unsettled_is_lost_without_saying_so(redis_backend_with(SHORT_LEDGER).await).await;
}

async fn nothing_unsettled_is_lost_without_saying_so(backend: Backend) {
    let mut recorded = Vec::new();
    for _ in 0..50 {
        let sent = backend.post(&message("alice", "bob", "x")).await;
        if !sent.unrecorded {
            recorded.push(sent.id);
        }
    }
    assert_eq!(recorded.len(), 40);
    // To look at all of a full ledger takes long, so it is not asked for at each send.
    let (begun, mut asked) = (std::time::Instant::now(), 0);
    for _ in 0..50 {
        asked += u64::from(backend.post(&message("alice", "bob", "x")).await.notices_due);
    }
    assert!(asked <= 1 + begun.elapsed().as_secs(), "asked {asked} times in {:?}", begun.elapsed());
    let entries = backend.ledger(&inbox("alice")).await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), recorded);
    assert_eq!(backend.drain("bob").await.len(), 100);
    assert!(backend.noticed("alice").await.is_empty()); // settles what was received
    assert!(!backend.post(&message("alice", "bob", "x")).await.unrecorded);
    assert!(backend.ledger(&inbox("alice")).await.unwrap().len() <= 10);
}

const BRIEF_LEDGER: Limits = Limits { ledger_life: ms(1600), ..LIMITS };

#[tokio::test]
async fn a_long_life_is_remembered_after_its_end_in_memory() {
    a_long_life_is_remembered_after_its_end(memory_backend_with(BRIEF_LEDGER)).await;
}

#[tokio::test]
async fn a_long_life_is_remembered_after_its_end_on_redis() {
    a_long_life_is_remembered_after_its_end(redis_backend_with(BRIEF_LEDGER).await).await;
}

/// What is known of it must not go by when its sender wrote first, but by when it ends.
async fn a_long_life_is_remembered_after_its_end(backend: Backend) {
    backend.queue_up(&message("alice", "bob", "x").living(ms(100))).await;
    backend.pass(ms(760)).await;
    let long = message("alice", "bob", "as long as the ledger").living(BRIEF_LEDGER.ledger_life);
    let long = backend.queue_up(&long).await;
    backend.pass(ms(1900)).await;
    assert_eq!(backend.state("alice", long).await, Some(MessageState::Expired));
    assert!(backend.noticed("alice").await.contains(&long));
}
