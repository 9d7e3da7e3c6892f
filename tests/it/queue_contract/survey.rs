//! What lies in all inboxes at once.

use mcp_messaging::{
    model::{Inbox, Survey},
    queue::{FetchRequest, LeaseId, Waiting},
};

use crate::support::{Backend, Draft, anything, inbox, message, ms, redis_backend, secs};

for_each_backend!(
    an_empty_store_holds_nothing,
    a_survey_counts_what_lies_in_all_inboxes_of_all_tenants,
    a_survey_tells_who_waits_from_who_was_seen,
    what_expired_does_not_count,
);

where_time_can_be_moved!(who_was_not_seen_for_long_is_away, the_oldest_message_is_as_old_as_it_is);

async fn survey(backend: &Backend) -> Survey {
    backend.survey(secs(60)).await.unwrap().expect("nobody else counts")
}

async fn an_empty_store_holds_nothing(backend: Backend) {
    assert_eq!(survey(&backend).await, Survey::default());
}

async fn a_survey_counts_what_lies_in_all_inboxes_of_all_tenants(backend: Backend) {
    for text in ["one", "two", "three"] {
        backend.post(&message("alice", "bob", text)).await;
    }
    let mut elsewhere = message("alice", "bob", "four");
    elsewhere.recipient = Inbox::from_name("another/bob").unwrap();
    backend.post(&elsewhere).await;
    let found = survey(&backend).await;
    assert_eq!((found.messages, found.inboxes, found.most_messages), (4, 2, 3));
    assert!(found.most_bytes > 3 * 30 && found.bytes > found.most_bytes, "{found:?}");
    backend.drain("bob").await;
    let found = survey(&backend).await;
    assert_eq!((found.messages, found.inboxes, found.most_messages), (1, 1, 1));
    assert_eq!(found.bytes, found.most_bytes);
}

async fn a_survey_tells_who_waits_from_who_was_seen(backend: Backend) {
    backend.post(&message("alice", "bob", "x")).await;
    let waiting = Waiting { remaining: secs(50), session: None, call: LeaseId::new(), first: true };
    let request = FetchRequest { waiting: Some(waiting), ..anything() };
    backend.fetch(&inbox("carol"), &request).await.unwrap();
    let found = survey(&backend).await;
    // Bob has mail and was never here.
    assert_eq!((found.waiting, found.active, found.away), (1, 1, 0));
}

async fn what_expired_does_not_count(backend: Backend) {
    backend.post(&message("alice", "bob", "short").living(secs(2))).await;
    backend.post(&message("alice", "bob", "long")).await;
    backend.post(&message("alice", "carol", "short").living(secs(2))).await;
    assert_eq!(survey(&backend).await.messages, 3);
    backend.pass(ms(2_200)).await;
    let found = survey(&backend).await;
    assert_eq!((found.messages, found.inboxes, found.most_messages), (1, 1, 1));
}

async fn who_was_not_seen_for_long_is_away(backend: Backend) {
    backend.post(&message("alice", "bob", "x")).await;
    backend.pass(Survey::ACTIVE + secs(1)).await;
    let found = survey(&backend).await;
    assert_eq!((found.waiting, found.active, found.away), (0, 0, 1));
}

async fn the_oldest_message_is_as_old_as_it_is(backend: Backend) {
    backend.post(&message("alice", "bob", "x")).await;
    backend.pass(secs(10)).await;
    backend.post(&message("alice", "carol", "y")).await;
    assert_eq!(survey(&backend).await.oldest, secs(10));
    backend.drain("bob").await;
    assert_eq!(survey(&backend).await.oldest, secs(0));
}

#[tokio::test]
async fn a_bucket_of_many_inboxes_is_read_in_steps() {
    let backend = redis_backend().await;
    let bucket = |name: &str| crc16::State::<crc16::XMODEM>::calculate(name.as_bytes()) % 256;
    let names = (0..).map(|number| format!("n-{number}"));
    for name in names.filter(|name| bucket(&format!("default/{name}")) == 7).take(150) {
        backend.post(&message("alice", &name, "x")).await;
    }
    let found = survey(&backend).await;
    assert_eq!((found.messages, found.inboxes), (150, 150));
}
