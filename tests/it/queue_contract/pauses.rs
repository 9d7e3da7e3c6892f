//! Two clients who look like a loop may not talk for a while, and hear of it.

use std::time::Duration;

use mcp_messaging::{
    model::{Rate, Tenant},
    queue::{Bucket, Pair, Pause, Permits},
};

use crate::support::{Backend, inbox, message, ms, secs, tenant};

for_each_backend!(
    a_paused_pair_gets_nothing_and_everything_when_it_is_over,
    a_pause_that_runs_is_not_prolonged_and_not_told_twice,
    the_other_one_is_due_to_be_told_until_it_was,
    who_was_told_is_told_of_the_next_one_too,
    what_is_told_is_not_what_began_since,
    a_lifted_pause_is_over_and_nobody_is_told,
    a_list_names_the_pairs_of_its_tenant_that_are_paused_now,
);

fn pair(one: &str, other: &str) -> Pair {
    Pair::new(tenant(), one.parse().unwrap(), other.parse().unwrap())
}

async fn pause(backend: &Backend, told: &str, time: Duration) -> (Duration, bool) {
    let told = told.parse().unwrap();
    backend.limits.pause(&pair("alice", "bob"), time, &told).await.unwrap()
}

async fn take(backend: &Backend) -> Permits {
    let rate = Rate::new(2, secs(60), 2).unwrap();
    backend.limits.permits(&Bucket::pair(&pair("bob", "alice")), rate, 1, 1).await.unwrap()
}

async fn untold(backend: &Backend, client: &str) -> Vec<String> {
    let pauses = backend.limits.pauses(&inbox(client)).await.unwrap();
    pauses.iter().map(|pause| pause.peer.expose().to_owned()).collect()
}

/// Whether fetching and sending say that there is something to be told.
async fn due(backend: &Backend, client: &str) -> (bool, bool) {
    let fetched = backend.look(client).await.notices_due;
    (fetched, backend.post(&message(client, "nobody", "x")).await.notices_due)
}

async fn a_paused_pair_gets_nothing_and_everything_when_it_is_over(backend: Backend) {
    for _ in 0..2 {
        assert_eq!(take(&backend).await, Permits::Granted(1));
    }
    assert!(matches!(take(&backend).await, Permits::Later(_)));
    assert_eq!(pause(&backend, "bob", ms(1200)).await, (ms(1200), true));
    let Permits::Paused(left) = take(&backend).await else { panic!("it is paused") };
    assert!(left > ms(300) && left <= ms(1200), "{left:?}");
    backend.pass(ms(1210)).await;
    for _ in 0..2 {
        assert_eq!(take(&backend).await, Permits::Granted(1));
    }
    assert!(matches!(take(&backend).await, Permits::Later(_)));
}

async fn a_pause_that_runs_is_not_prolonged_and_not_told_twice(backend: Backend) {
    pause(&backend, "bob", secs(30)).await;
    let first = backend.limits.pauses(&inbox("bob")).await.unwrap();
    backend.pass(ms(50)).await;
    let (left, begun) = pause(&backend, "bob", secs(600)).await;
    assert!(!begun && left > secs(20) && left < secs(30), "{left:?}");
    assert_eq!(backend.limits.pauses(&inbox("bob")).await.unwrap(), first);
    let Permits::Paused(left) = take(&backend).await else { panic!("it is paused") };
    assert!(left < secs(30), "{left:?}");
}

async fn the_other_one_is_due_to_be_told_until_it_was(backend: Backend) {
    assert_eq!(due(&backend, "bob").await, (false, false));
    pause(&backend, "bob", ms(300)).await;
    backend.pass(ms(310)).await; // it is told afterwards too
    for _ in 0..2 {
        assert_eq!(due(&backend, "bob").await, (true, true));
        assert_eq!(untold(&backend, "bob").await, ["alice"]);
    }
    assert_eq!(due(&backend, "alice").await, (false, false));
    assert!(untold(&backend, "alice").await.is_empty());
    let told = backend.limits.pauses(&inbox("bob")).await.unwrap();
    backend.limits.pauses_told(&inbox("bob"), &told).await.unwrap();
    assert_eq!(due(&backend, "bob").await, (false, false));
    assert!(untold(&backend, "bob").await.is_empty());
}

async fn who_was_told_is_told_of_the_next_one_too(backend: Backend) {
    for _ in 0..2 {
        assert!(pause(&backend, "bob", ms(100)).await.1);
        assert_eq!(due(&backend, "bob").await, (true, true));
        let told = backend.limits.pauses(&inbox("bob")).await.unwrap();
        backend.limits.pauses_told(&inbox("bob"), &told).await.unwrap();
        assert_eq!(due(&backend, "bob").await, (false, false));
        backend.pass(ms(110)).await;
    }
}

async fn what_is_told_is_not_what_began_since(backend: Backend) {
    pause(&backend, "bob", ms(100)).await;
    let told = backend.limits.pauses(&inbox("bob")).await.unwrap();
    backend.pass(ms(110)).await;
    pause(&backend, "bob", secs(5)).await;
    backend.limits.pauses_told(&inbox("bob"), &told).await.unwrap();
    assert_eq!(untold(&backend, "bob").await, ["alice"]);
    assert_eq!(due(&backend, "bob").await, (true, true));
    let unknown = Pause { peer: "carol".parse().unwrap(), until_ms: 7 };
    backend.limits.pauses_told(&inbox("bob"), &[unknown]).await.unwrap();
    assert_eq!(untold(&backend, "bob").await, ["alice"]);
}

async fn a_lifted_pause_is_over_and_nobody_is_told(backend: Backend) {
    assert!(!backend.limits.lift(&pair("alice", "bob")).await.unwrap(), "there was none");
    pause(&backend, "bob", secs(30)).await;
    assert!(backend.limits.lift(&pair("bob", "alice")).await.unwrap());
    assert!(!backend.limits.lift(&pair("alice", "bob")).await.unwrap(), "not any more");
    assert_eq!(take(&backend).await, Permits::Granted(1));
    assert_eq!(due(&backend, "bob").await, (false, false));
    assert!(backend.limits.paused_pairs(&tenant()).await.unwrap().is_empty());
}

async fn a_list_names_the_pairs_of_its_tenant_that_are_paused_now(backend: Backend) {
    pause(&backend, "bob", secs(30)).await;
    let (carol, dave) = ("carol".parse().unwrap(), "dave".parse().unwrap());
    let short = Pair::new(tenant(), carol, dave);
    let told = "dave".parse().unwrap();
    backend.limits.pause(&short, ms(100), &told).await.unwrap();
    let other: Tenant = "acme".parse().unwrap();
    let theirs = Pair::new(other.clone(), "alice".parse().unwrap(), "bob".parse().unwrap());
    assert!(backend.limits.pause(&theirs, secs(60), &"bob".parse().unwrap()).await.unwrap().1);
    assert_eq!(backend.limits.paused_pairs(&tenant()).await.unwrap().len(), 2);
    backend.pass(ms(110)).await;
    let listed = backend.limits.paused_pairs(&tenant()).await.unwrap();
    let [(found, left)] = &listed[..] else { panic!("one is paused, not {listed:?}") };
    assert!(*found == pair("alice", "bob") && *left > secs(20) && *left <= secs(30), "{left:?}");
    assert_eq!(backend.limits.paused_pairs(&other).await.unwrap()[0].0, theirs);
}
