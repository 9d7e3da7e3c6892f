//! Taken means received: a client that goes away at whatever moment loses nothing, with TLS or without.

use std::{sync::atomic::Ordering, time::Duration};

use mcp_messaging::http::HttpConfig;
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep, timeout},
};

use crate::{
    house::{Did, House, Over, eventually, post, quick},
    support::{Replica, texts},
};

const MIB: usize = 1 << 20;

/// Runs every story over a plain connection and over TLS.
macro_rules! over_both {
    ($($story:ident),* $(,)?) => {
        mod plain {
            $( #[tokio::test] async fn $story() { super::$story(super::Over::Plain).await; } )*
        }
        mod tls {
            $( #[tokio::test] async fn $story() { super::$story(super::Over::Tls).await; } )*
        }
    };
}

over_both! {
    what_was_written_is_acknowledged_once_and_the_connection_goes_on,
    a_client_that_hangs_up_while_it_waits_is_noticed_at_once,
    mail_is_not_acknowledged_to_a_client_that_was_gone_before_it_came,
    a_large_response_that_is_cut_off_at_any_point_is_given_back,
    nothing_is_acknowledged_before_the_last_byte_was_taken_and_the_lease_is_kept_meanwhile,
    a_client_that_never_reads_loses_its_lease_in_the_end,
    pipelined_requests_are_answered_in_order_and_settled_each,
    a_stop_ends_waits_with_an_answer_and_takes_well_under_a_second,
    a_reader_that_is_stuck_does_not_hold_a_stop,
}

fn call(name: &str, arguments: &str) -> String {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{name}","arguments":{arguments}}}}}"#
    );
    post("", &body)
}

/// Everything that was fetched is in the store again, and nothing was acknowledged.
async fn assert_given_back(house: &House, what: &str) {
    eventually(what, || house.store.count(Did::Released) == house.store.count(Did::Fetched)).await;
    // An acknowledgement that came late would come now.
    sleep(Duration::from_millis(50)).await;
    assert_eq!(house.store.count(Did::Acked), 0, "{what}: {:?}", house.store.diary());
}

async fn what_was_written_is_acknowledged_once_and_the_connection_goes_on(over: Over) {
    let house = over.open(&quick());
    let mut client = house.client().await;
    for arguments in
        ["{}", r#"{"wait_ms":5000}"#, r#"{"pad":3000000}"#, r#"{"wait_ms":5000,"pad":3000000}"#]
    {
        let before = house.store.count(Did::Acked);
        house.store.put("mail");
        client.send(&call("take", arguments)).await;
        assert!(client.reply().await.body.contains("mail"));
        eventually("acknowledged", || house.store.count(Did::Acked) == before + 1).await;
    }
    assert_eq!(house.store.count(Did::Released), 0);
    // A client that closes as soon as it has its answer has it.
    house.store.put("mail");
    client.send(&call("take", "{}")).await;
    client.reply().await;
    drop(client);
    eventually("acknowledged", || house.store.count(Did::Acked) == 5).await;
    assert_eq!(house.store.count(Did::Released), 0);
    house.close().await;
}

/// As `HAProxy` does with every connection that it needs no more.
///
/// Not over TLS: a kernel that has sent several times before acknowledges late, and a reset overtakes that. What
/// such a client had read comes again, marked.
#[tokio::test]
async fn a_client_that_has_all_and_resets_the_connection_has_it() {
    let house = Over::Plain.open(&quick());
    for round in 1..=40 {
        let arguments = if round % 2 == 0 { "{}" } else { r#"{"wait_ms":5000}"# };
        let mut client = house.client().await;
        house.store.put("mail");
        client.send(&call("take", arguments)).await;
        assert!(client.reply().await.body.contains("mail"));
        client.tcp().set_zero_linger().unwrap();
        drop(client);
        let settled = || house.store.count(Did::Acked) + house.store.count(Did::Released) == round;
        eventually("settled", settled).await;
    }
    assert_eq!(house.store.count(Did::Released), 0);
    house.close().await;
}

async fn a_client_that_hangs_up_while_it_waits_is_noticed_at_once(over: Over) {
    let house = over.open(&quick());
    for arguments in [r#"{"stream":1}"#, "{}"] {
        let mut client = house.client().await;
        client.send(&call("hang", arguments)).await;
        eventually("running", || house.store.hangs.load(Ordering::SeqCst)).await;
        let hung_up = Instant::now();
        drop(client);
        eventually("dropped", || !house.store.hangs.load(Ordering::SeqCst)).await;
        assert!(hung_up.elapsed() < Duration::from_secs(1), "{:?}", hung_up.elapsed());
    }
    // A waiting reader that is gone takes nothing.
    let mut client = house.client().await;
    client.send(&call("take", r#"{"wait_ms":60000}"#)).await;
    client.until("keep-alive").await;
    drop(client);
    eventually("nobody waits", || house.store.watchers() == 0).await;
    house.store.put("mail");
    sleep(Duration::from_millis(50)).await;
    assert_eq!(house.store.diary(), []);
    house.close().await;
}

async fn mail_is_not_acknowledged_to_a_client_that_was_gone_before_it_came(over: Over) {
    let house = over.open(&quick());
    for arguments in [r#"{"wait_ms":60000}"#, r#"{"wait_ms":60000,"pad":100000}"#] {
        for round in 0..50 {
            let mut client = house.client().await;
            client.send(&call("take", arguments)).await;
            client.until("keep-alive").await;
            // At once, or first its own side only, in TLS with a good-bye.
            let half = round % 2 == 0;
            if half {
                client.socket.shutdown().await.unwrap();
            }
            let client = half.then_some(client);
            house.store.put("mail");
            eventually("gone", || house.stopper.open() == 0).await;
            drop(client);
            eventually("given back", || {
                house.store.count(Did::Released) == house.store.count(Did::Fetched)
            })
            .await;
            house.store.clear();
        }
    }
    assert_given_back(&house, "given back").await;
    house.close().await;
}

async fn a_large_response_that_is_cut_off_at_any_point_is_given_back(over: Over) {
    let house = over.open(&quick());
    house.store.put("m".repeat(8 * MIB));
    for arguments in ["{}", r#"{"wait_ms":60000}"#] {
        for read_before in [0, 1, 100, 10_000, MIB] {
            let fetched = house.store.count(Did::Fetched);
            let mut client = house.small_client().await;
            client.send(&call("take", arguments)).await;
            eventually("handed out", || house.store.count(Did::Fetched) > fetched).await;
            let mut some = vec![0; read_before.max(1)];
            if read_before > 0 {
                tokio::io::AsyncReadExt::read_exact(&mut client.socket, &mut some).await.unwrap();
            }
            assert_eq!(house.store.count(Did::Acked), 0);
            drop(client);
            assert_given_back(&house, &format!("{arguments} after {read_before} bytes")).await;
        }
    }
    // Who reads to the end has it.
    let mut client = house.small_client().await;
    client.send(&call("take", "{}")).await;
    assert!(client.reply().await.body.len() > 8 * MIB);
    eventually("acknowledged", || house.store.count(Did::Acked) == 1).await;
    house.close().await;
}

async fn nothing_is_acknowledged_before_the_last_byte_was_taken_and_the_lease_is_kept_meanwhile(
    over: Over,
) {
    let house = over.open(&quick());
    for arguments in ["{}", r#"{"wait_ms":60000}"#] {
        let (acked, extended) = (house.store.count(Did::Acked), house.store.count(Did::Extended));
        house.store.put("m".repeat(8 * MIB));
        let mut client = house.small_client().await;
        client.send(&call("take", arguments)).await;
        // The lease is 400 ms long: it would be over without more.
        eventually("kept", || house.store.count(Did::Extended) >= extended + 3).await;
        assert_eq!(house.store.count(Did::Acked), acked, "{arguments}");
        assert!(client.reply().await.body.len() > 8 * MIB);
        eventually("acknowledged", || house.store.count(Did::Acked) == acked + 1).await;
    }
    assert_eq!(house.store.count(Did::Released), 0);
    house.close().await;
}

async fn a_client_that_never_reads_loses_its_lease_in_the_end(over: Over) {
    let config = HttpConfig { write_stall_timeout: Duration::from_millis(600), ..quick() };
    let house = over.open(&config);
    house.store.put("m".repeat(8 * MIB));
    let mut client = house.small_client().await;
    client.send(&call("take", "{}")).await;
    eventually("given back", || house.store.count(Did::Released) == 1).await;
    assert_eq!(house.store.count(Did::Acked), 0);
    eventually("hung up on", || house.stopper.open() == 0).await;
    house.close().await;
}

async fn pipelined_requests_are_answered_in_order_and_settled_each(over: Over) {
    let house = over.open(&quick());
    house.store.put("one");
    let mut client = house.client().await;
    let echo = call("echo", r#"{"text":"hi"}"#);
    let take = call("take", r#"{"wait_ms":50}"#);
    client.send(&format!("{take}{echo}{take}{echo}")).await;
    assert!(client.reply().await.body.contains("one"));
    assert!(client.reply().await.body.contains("hi"));
    assert!(client.reply().await.body.contains("nothing"));
    assert!(client.reply().await.body.contains("hi"));
    eventually("acknowledged", || house.store.count(Did::Acked) == 1).await;
    // Gone with requests in the queue: the answer that nobody read is given back.
    house.store.put("m".repeat(8 * MIB));
    let mut client = house.small_client().await;
    client.send(&format!("{take}{take}{echo}")).await;
    eventually("handed out", || house.store.count(Did::Fetched) == 2).await;
    drop(client);
    eventually("given back", || house.store.count(Did::Released) == 1).await;
    assert_eq!((house.store.count(Did::Acked), house.store.count(Did::Fetched)), (1, 2));
    house.close().await;
}

async fn a_stop_ends_waits_with_an_answer_and_takes_well_under_a_second(over: Over) {
    let house = over.open(&quick());
    let mut idle = house.client().await;
    idle.send(&call("echo", r#"{"text":"hi"}"#)).await;
    idle.reply().await;
    let mut fresh = house.client().await;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut client = house.client().await;
        client.send(&call("take", r#"{"wait_ms":60000}"#)).await;
        client.until("keep-alive").await;
        waiting.push(client);
    }
    let asked = Instant::now();
    timeout(Duration::from_secs(5), house.close()).await.unwrap();
    let took = asked.elapsed();
    for mut client in waiting {
        assert_eq!(client.reply().await.events()[0]["result"]["content"][0]["text"], "ask again");
    }
    let mut rest = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut fresh.socket, &mut rest).await.unwrap();
    assert!(took < Duration::from_millis(700), "{took:?}");
}

async fn a_reader_that_is_stuck_does_not_hold_a_stop(over: Over) {
    let house = over.open(&quick());
    house.store.put("m".repeat(8 * MIB));
    let mut client = house.small_client().await;
    client.send(&call("take", "{}")).await;
    eventually("handed out", || house.store.count(Did::Fetched) == 1).await;
    let (store, asked) = (std::sync::Arc::clone(&house.store), Instant::now());
    timeout(Duration::from_secs(5), house.close()).await.unwrap();
    assert!(asked.elapsed() < Duration::from_millis(1200), "{:?}", asked.elapsed());
    assert_eq!(store.count(Did::Acked), 0);
}

/// What an early call of a batch took is held while a later one waits.
#[tokio::test]
async fn a_batch_that_waits_keeps_what_it_took() {
    let one = Replica::start(&[("MCP_MESSAGING__MESSAGING__LEASE_SECONDS", "1")]);
    one.agent("alice").send("bob", "once").await;
    let bob = one.agent("bob");
    let call = |id: u64, wait: u64| {
        let arguments = json!({"client_id": "bob", "wait_seconds": wait});
        let params = json!({"name": "get_messages", "arguments": arguments});
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
    };
    let batch = json!([call(1, 0), call(2, 4)]);
    let told: Value = bob.post().json(&batch).send().await.unwrap().json().await.unwrap();
    let texts = |at: usize| texts(&told[at]["result"]["structuredContent"]);
    assert_eq!((texts(0), texts(1)), (vec!["once".to_owned()], Vec::new()), "{told}");
}
