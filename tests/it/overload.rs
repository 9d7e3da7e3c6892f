//! More than a replica may do: whoever comes on top is told, nothing is half done, the others go on.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use mcp_messaging::http::HttpConfig;

use crate::{
    house::{Over, post, quick},
    support::{Persistence, RedisServer, Replica},
};

#[tokio::test]
async fn a_call_above_the_limit_is_refused_with_a_time_and_leaves_nothing() {
    let redis = RedisServer::start(Persistence::None);
    let variables = [("MCP_MESSAGING__LIMITS__REPLICA_CALLS", "2")];
    let replica = Replica::with(&redis.url(), &variables).await;
    let (alice, bob) = (replica.agent("alice"), replica.agent("bob"));
    // Those who wait take no place of those who run.
    let mut waiting = Vec::new();
    for number in 0..5 {
        let agent = replica.agent(&format!("waiter-{number}"));
        waiting.push(tokio::spawn(async move { agent.texts(30).await }));
        replica.waiters(number + 1).await;
    }
    redis.hang(true);
    let running: Vec<_> = (0..2)
        .map(|number| {
            let alice = alice.clone();
            tokio::spawn(async move {
                let letter = json!({"sender_id": "alice", "recipient_id": "bob", "message": format!("let in {number}")});
                alice.try_call("send_message", letter).await
            })
        })
        .collect();
    sleep(Duration::from_millis(300)).await;
    let letter = json!({"sender_id": "alice", "recipient_id": "bob", "message": "too much"});
    let refused = alice.try_call("send_message", letter).await.unwrap();
    assert_eq!(refused["isError"], true, "{refused}");
    let told = refused["content"][0]["text"].as_str().unwrap();
    assert!(told.contains("nothing was done. Try again in "), "{told}");
    redis.hang(false);
    for sent in running {
        let sent = sent.await.unwrap().unwrap();
        assert_eq!(sent["structuredContent"]["results"][0]["status"], "queued", "{sent}");
    }
    let mut came = bob.texts(0).await;
    came.sort();
    assert_eq!(came, ["let in 0", "let in 1"], "what was refused is not there");
    // Who was let in to wait is served.
    for number in 0..5 {
        alice.send(&format!("waiter-{number}"), "wake up").await;
    }
    for waiter in waiting {
        assert_eq!(waiter.await.unwrap(), ["wake up"]);
    }
}

fn head(length: usize) -> String {
    format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\naccept: application/json\r\n\
         content-length: {length}\r\n\r\n"
    )
}

async fn answer(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 4096];
    let read = timeout(Duration::from_secs(20), stream.read(&mut bytes)).await;
    let count = read.expect("an answer").unwrap();
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

#[tokio::test]
async fn uploads_beyond_the_memory_are_answered_with_503_and_a_letter_finds_its_way() {
    let variables = [
        ("MCP_MESSAGING__HTTP__MEMORY_BYTES", "1048576"),
        ("MCP_MESSAGING__HTTP__REQUEST_TIMEOUT_SECONDS", "10"),
    ];
    let replica = Replica::start(&variables);
    let mut first = TcpStream::connect(replica.address()).await.unwrap();
    first.write_all(format!("{}{{", head(1_000_000)).as_bytes()).await.unwrap();
    sleep(Duration::from_millis(200)).await;
    for announced in [true, false] {
        let mut second = TcpStream::connect(replica.address()).await.unwrap();
        let chunked = "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                       transfer-encoding: chunked\r\n\r\n8000\r\n";
        let start = if announced { head(1_000_000) } else { chunked.to_owned() };
        second.write_all(start.as_bytes()).await.unwrap();
        second.write_all(&vec![b' '; 0x8000]).await.unwrap();
        let said = answer(&mut second).await.to_ascii_lowercase();
        assert!(said.starts_with("http/1.1 503 ") && said.contains("retry-after: 1\r\n"), "{said}");
        assert!(said.contains("nothing was done. try again"), "{said}");
    }
    let alice = replica.agent("alice");
    alice.send("bob", "past the uploads").await;
    drop(first);
    // Room again, once its end was seen.
    let patience = Instant::now() + Duration::from_secs(10);
    let text = "x".repeat(100_000);
    let letter = json!({"sender_id": "alice", "recipient_id": "bob", "message": text});
    while alice.try_call("send_message", letter.clone()).await.is_err() {
        assert!(Instant::now() < patience, "what it held is not free again");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_head_may_not_come_byte_by_byte_on_any_request_of_a_connection() {
    let patience = Duration::from_secs(1);
    for over in [Over::Plain, Over::Tls] {
        let config = HttpConfig { client_request_timeout: patience, ..quick() };
        let house = over.open(&config);
        let mut client = house.client().await;
        for _ in 0..2 {
            client.send(&post("", r#"{"jsonrpc": "2.0", "id": 1, "method": "ping"}"#)).await;
            assert_eq!(client.reply().await.status, 200);
            sleep(patience + Duration::from_millis(200)).await; // to be idle is no offence
        }
        assert_eq!(house.stopper.open(), 1);
        let slow = async {
            for byte in head(2).chars().cycle() {
                client.send_what_it_takes(&byte.to_string()).await;
                sleep(Duration::from_millis(100)).await;
                if house.stopper.open() == 0 {
                    return;
                }
            }
        };
        timeout(Duration::from_secs(10), slow)
            .await
            .unwrap_or_else(|_| panic!("{over:?}: it is cut off before its head is there"));
        house.close().await;
    }
}

#[tokio::test]
async fn a_head_that_stops_is_cut_off_and_a_connection_that_rests_between_requests_is_not() {
    let patience = Duration::from_secs(1);
    for over in [Over::Plain, Over::Tls] {
        // To be idle is allowed for longer than this test waits.
        let config = HttpConfig { client_request_timeout: patience, ..quick() };
        assert!(config.idle_timeout >= Duration::from_secs(60));
        let house = over.open(&config);
        let mut client = house.client().await;
        for request in
            [post("", r#"{"jsonrpc": "2.0", "id": 1, "method": "ping"}"#), probe(), probe()]
        {
            client.send(&request).await;
            assert_eq!(client.reply().await.status, 200, "{over:?}");
            sleep(patience + Duration::from_millis(200)).await;
        }
        client
            .send(&format!("POST /mcp HTTP/1.1\r\nhost: localhost\r\nx: {}", "y".repeat(60_000)))
            .await;
        let gone = async {
            while house.stopper.open() != 0 {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(20), gone)
            .await
            .unwrap_or_else(|_| panic!("{over:?}: what it sent is held"));
        house.close().await;
    }
}

fn probe() -> String {
    "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned()
}
