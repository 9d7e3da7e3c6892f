//! What goes in comes out: unchanged, in order, in the right inbox.

use std::sync::Arc;

use mcp_messaging::{model::MessageId, queue::Outcome};
use tokio::task::JoinSet;

use crate::support::{Backend, Draft, inbox, message, secs, texts_of};

for_each_backend!(
    a_message_arrives_as_it_was_sent,
    any_text_comes_back_unchanged,
    messages_come_in_the_order_of_their_acceptance,
    inboxes_do_not_see_each_others_mail,
    an_inbox_that_nobody_wrote_to_is_empty,
    a_client_may_write_to_itself,
    stamps_increase_from_batch_to_batch,
    the_age_of_a_message_grows,
    readers_at_the_same_time_get_every_message_once,
    senders_at_the_same_time_lose_nothing,
);

async fn a_message_arrives_as_it_was_sent(backend: Backend) {
    let question = MessageId::new();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
    let mut sent = message("alice", "bob", "hello").answering(question);
    sent.trace = Some(trace);
    backend.queue_up(&sent).await;
    let got = backend.drain("bob").await.remove(0);
    assert_eq!((got.id, got.from.expose()), (sent.id, "alice"));
    assert_eq!((got.in_reply_to, got.trace), (Some(question), Some(trace)));
    assert_eq!((got.redelivered, got.attempt, got.asks), (false, 1, false));
    assert!(got.age < secs(5) && got.accepted_at_ms > 1_600_000_000_000);
}

async fn any_text_comes_back_unchanged(backend: Backend) {
    let long = "x".repeat(50_000);
    let texts =
        ["\0\u{1}\r\n\t", "ä€😀\u{202e}\u{feff}", "{}[]\"\\", " ", "**From:** `eve`", &long];
    for text in texts {
        backend.queue_up(&message("alice", "bob", text)).await;
    }
    assert_eq!(backend.texts("bob").await, texts);
}

async fn messages_come_in_the_order_of_their_acceptance(backend: Backend) {
    for n in 0..50 {
        let sender = ["alice", "carol"][n % 2];
        backend.queue_up(&message(sender, "bob", &n.to_string())).await;
    }
    let expected: Vec<_> = (0..50).map(|n| n.to_string()).collect();
    assert_eq!(backend.texts("bob").await, expected);
}

async fn inboxes_do_not_see_each_others_mail(backend: Backend) {
    backend.queue_up(&message("alice", "bob", "for bob")).await;
    backend.queue_up(&message("alice", "bob2", "for bob2")).await;
    assert_eq!(backend.texts("alice").await, Vec::<String>::new());
    assert_eq!(backend.texts("bob2").await, ["for bob2"]);
    assert_eq!(backend.texts("bob").await, ["for bob"]);
}

async fn an_inbox_that_nobody_wrote_to_is_empty(backend: Backend) {
    let fetched = backend.look("bob").await;
    assert_eq!((fetched.outcome, fetched.remaining), (Outcome::Empty, 0));
    assert_eq!((fetched.due, fetched.notices_due), (None, false));
}

async fn a_client_may_write_to_itself(backend: Backend) {
    let id = backend.queue_up(&message("alice", "alice", "note")).await;
    assert_eq!(backend.drain("alice").await[0].id, id);
    assert_eq!(backend.ledger(&inbox("alice")).await.unwrap().len(), 1);
}

async fn stamps_increase_from_batch_to_batch(backend: Backend) {
    let mut last = None;
    for _ in 0..20 {
        backend.queue_up(&message("alice", "bob", "x")).await;
        backend.queue_up(&message("alice", "bob", "y")).await;
        let (_, upto) = backend.lease("bob", &crate::support::anything()).await;
        assert!(last < Some(upto));
        assert_eq!(backend.ack(&inbox("bob"), upto).await.unwrap(), 2);
        last = Some(upto);
    }
}

async fn the_age_of_a_message_grows(backend: Backend) {
    backend.queue_up(&message("alice", "bob", "x")).await;
    backend.pass(secs(1)).await;
    let age = backend.drain("bob").await[0].age;
    assert!(age >= secs(1) && age < secs(30), "{age:?}");
}

async fn readers_at_the_same_time_get_every_message_once(backend: Backend) {
    for n in 0..60 {
        backend.queue_up(&message("alice", "bob", &n.to_string())).await;
    }
    let backend = Arc::new(backend);
    let mut readers = JoinSet::new();
    for _ in 0..6 {
        let backend = Arc::clone(&backend);
        readers.spawn(async move {
            let mut got = Vec::new();
            loop {
                let mut request = crate::support::anything();
                request.max_messages = 7;
                match backend.fetch(&inbox("bob"), &request).await.unwrap().outcome {
                    Outcome::Messages(batch) => {
                        assert!(batch.messages.iter().all(|message| !message.redelivered));
                        tokio::task::yield_now().await;
                        got.extend(texts_of(&batch.messages).into_iter().map(str::to_owned));
                        backend.ack(&inbox("bob"), batch.upto).await.unwrap();
                    }
                    Outcome::Busy | Outcome::Superseded => tokio::task::yield_now().await,
                    Outcome::Empty => return got,
                }
            }
        });
    }
    let mut all: Vec<u32> =
        readers.join_all().await.concat().iter().map(|text| text.parse().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..60).collect::<Vec<_>>());
}

async fn senders_at_the_same_time_lose_nothing(backend: Backend) {
    let backend = Arc::new(backend);
    let mut senders = JoinSet::new();
    for sender in 0..8 {
        let backend = Arc::clone(&backend);
        senders.spawn(async move {
            for n in 0..20 {
                let from = format!("sender-{sender}");
                backend.queue_up(&message(&from, "bob", &format!("{n:02}"))).await;
            }
        });
    }
    senders.join_all().await;
    let got = backend.drain("bob").await;
    for sender in 0..8 {
        let from = format!("sender-{sender}");
        let theirs = got.iter().filter(|message| message.from.expose() == from);
        let texts: Vec<_> = theirs.map(|message| message.text.clone()).collect();
        assert_eq!(texts, (0..20).map(|n| format!("{n:02}")).collect::<Vec<_>>());
    }
}
