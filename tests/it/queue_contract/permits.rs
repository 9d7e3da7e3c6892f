//! How often something may happen, as the store keeps it for all replicas.

use std::time::Duration;

use mcp_messaging::{
    model::Rate,
    queue::{Bucket, Permits},
};

use crate::support::{Backend, Reply, ms, redis_backend, secs, tenant};

for_each_backend!(
    a_burst_passes_and_then_one_at_a_time,
    a_batch_is_at_least_what_is_needed_and_at_most_what_is_there,
    a_refusal_takes_nothing_and_says_when,
    an_unused_bucket_is_never_above_its_burst,
    everybody_has_a_bucket_of_its_own,
);

/// One each 200 ms.
fn rate(burst: u32) -> Rate {
    Rate::new(300, secs(60), burst).unwrap()
}

fn bucket() -> Bucket {
    Bucket::caller("default/alice")
}

async fn take(backend: &Backend, rate: Rate, need: u32, want: u32) -> Permits {
    backend.limits.permits(&bucket(), rate, need, want).await.unwrap()
}

fn later(permits: Permits) -> Duration {
    match permits {
        Permits::Later(wait) => wait,
        other @ (Permits::Granted(_) | Permits::Paused(_)) => panic!("a refusal, not {other:?}"),
    }
}

/// Slow enough that nothing comes back while a law runs.
fn slow(burst: u32) -> Rate {
    Rate::new(1, secs(60), burst).unwrap()
}

async fn a_burst_passes_and_then_one_at_a_time(backend: Backend) {
    for _ in 0..3 {
        assert_eq!(take(&backend, slow(3), 1, 1).await, Permits::Granted(1));
    }
    let wait = later(take(&backend, slow(3), 1, 1).await);
    assert!(wait > secs(50) && wait <= secs(60) + ms(2), "{wait:?}");
}

async fn a_batch_is_at_least_what_is_needed_and_at_most_what_is_there(backend: Backend) {
    assert_eq!(take(&backend, slow(10), 2, 6).await, Permits::Granted(6));
    assert_eq!(take(&backend, slow(10), 3, 6).await, Permits::Granted(4));
    assert!(matches!(take(&backend, slow(10), 1, 6).await, Permits::Later(_)));
}

async fn a_refusal_takes_nothing_and_says_when(backend: Backend) {
    assert_eq!(take(&backend, rate(5), 5, 5).await, Permits::Granted(5));
    let (one, five) = (take(&backend, rate(5), 1, 1).await, take(&backend, rate(5), 5, 5).await);
    let (one, five) = (later(one), later(five));
    assert!(one <= ms(202) && five > ms(700) && five <= ms(1002), "{one:?} {five:?}");
    backend.pass(one).await;
    assert!(matches!(take(&backend, rate(5), 1, 1).await, Permits::Granted(1)), "as it was told");
}

async fn an_unused_bucket_is_never_above_its_burst(backend: Backend) {
    assert_eq!(take(&backend, rate(2), 2, 2).await, Permits::Granted(2));
    backend.pass(ms(1500)).await;
    assert_eq!(take(&backend, rate(2), 1, 100).await, Permits::Granted(2));
}

async fn everybody_has_a_bucket_of_its_own(backend: Backend) {
    assert_eq!(take(&backend, slow(2), 2, 2).await, Permits::Granted(2));
    for other in [Bucket::caller("default/bob"), Bucket::tenant(&tenant())] {
        let taken = backend.limits.permits(&other, slow(2), 2, 2).await.unwrap();
        assert_eq!(taken, Permits::Granted(2), "{}", other.name());
    }
}

/// What is full again takes no room.
#[tokio::test]
async fn a_bucket_in_redis_ends_when_it_is_full() {
    let backend = redis_backend().await;
    let buckets = || backend.redis().command(&["KEYS", "mb1:*:g:*"]);
    assert_eq!(take(&backend, rate(4), 1, 1).await, Permits::Granted(1));
    assert_ne!(buckets(), Reply::Array(Vec::new()));
    backend.pass(ms(400)).await;
    assert_eq!(buckets(), Reply::Array(Vec::new()));
}
