//! Every message lives for its own time.

use mcp_messaging::{
    model::MessageState,
    queue::{FetchRequest, Outcome},
};

use crate::support::{Backend, Draft, anything, inbox, message, ms, secs, texts_of};

for_each_backend!(
    an_expired_message_is_not_delivered,
    a_short_life_in_the_middle_of_the_queue_ends_by_itself,
    later_arrivals_do_not_prolong_a_life,
    many_expired_messages_hide_none_behind_them,
    an_expired_message_does_not_come_back_from_its_lease,
    a_long_life_is_not_cut_by_a_short_one_behind,
);

where_time_can_be_moved!(a_life_of_a_day_lasts_a_day);

async fn an_expired_message_is_not_delivered(backend: Backend) {
    backend.queue_up(&message("alice", "bob", "short").living(ms(300))).await;
    backend.pass(ms(600)).await;
    let fetched = backend.look("bob").await;
    assert_eq!((fetched.outcome, fetched.remaining), (Outcome::Empty, 0));
    assert_eq!(backend.peek(&inbox("bob")).await.unwrap().queued, 0);
}

async fn a_short_life_in_the_middle_of_the_queue_ends_by_itself(backend: Backend) {
    backend.queue_up(&message("alice", "bob", "first")).await;
    backend.queue_up(&message("alice", "bob", "short").living(ms(300))).await;
    backend.queue_up(&message("alice", "bob", "last")).await;
    backend.pass(ms(600)).await;
    let (got, upto) = backend.lease("bob", &anything()).await;
    assert_eq!(texts_of(&got), ["first", "last"]);
    backend.ack(&inbox("bob"), upto).await.unwrap();
    assert_eq!(backend.peek(&inbox("bob")).await.unwrap().queued, 0);
}

async fn later_arrivals_do_not_prolong_a_life(backend: Backend) {
    backend.queue_up(&message("alice", "bob", "short").living(ms(600))).await;
    backend.pass(ms(400)).await;
    backend.queue_up(&message("alice", "bob", "late")).await;
    backend.pass(ms(400)).await;
    assert_eq!(backend.texts("bob").await, ["late"]);
}

async fn many_expired_messages_hide_none_behind_them(backend: Backend) {
    for _ in 0..300 {
        backend.queue_up(&message("alice", "bob", "short").living(ms(700))).await;
    }
    backend.queue_up(&message("alice", "bob", "alive")).await;
    backend.pass(ms(900)).await;
    let mut looks = 0;
    loop {
        let fetched = backend.look("bob").await;
        match fetched.outcome {
            Outcome::Messages(batch) => {
                assert_eq!(texts_of(&batch.messages), ["alive"]);
                assert_eq!(fetched.remaining, 0);
                return;
            }
            // It may take several looks, but then it must say so.
            Outcome::Empty => assert_eq!(fetched.due, Some(secs(0)), "look again at once"),
            other @ (Outcome::Busy | Outcome::Superseded) => panic!("{other:?}"),
        }
        looks += 1;
        assert!(looks < 10);
    }
}

async fn an_expired_message_does_not_come_back_from_its_lease(backend: Backend) {
    backend.queue_up(&message("alice", "bob", "short").living(ms(300))).await;
    backend.queue_up(&message("alice", "bob", "long")).await;
    let request = anything();
    assert_eq!(backend.lease("bob", &request).await.0.len(), 2);
    backend.pass(ms(600)).await;
    backend.release(&inbox("bob"), request.lease).await.unwrap();
    let got = backend.drain("bob").await;
    assert_eq!((texts_of(&got), got[0].redelivered), (vec!["long"], true));
}

async fn a_long_life_is_not_cut_by_a_short_one_behind(backend: Backend) {
    let long = backend.queue_up(&message("alice", "bob", "long").living(secs(3_000))).await;
    backend.queue_up(&message("alice", "bob", "short").living(ms(300))).await;
    backend.pass(ms(600)).await;
    assert_eq!(backend.state("alice", long).await, Some(MessageState::Queued));
    assert_eq!(backend.texts("bob").await, ["long"]);
}

async fn a_life_of_a_day_lasts_a_day(backend: Backend) {
    let (day, almost) = (secs(86_400), secs(86_399));
    for _ in 0..2 {
        backend.queue_up(&message("alice", "bob", "patient").living(day)).await;
    }
    backend.pass(almost).await;
    let request = FetchRequest { max_messages: 1, ..anything() };
    let (got, upto) = backend.lease("bob", &request).await;
    assert_eq!((got.len(), got[0].age), (1, almost));
    backend.ack(&inbox("bob"), upto).await.unwrap();
    backend.pass(secs(1)).await;
    assert_eq!(backend.look("bob").await.outcome, Outcome::Empty);
}
