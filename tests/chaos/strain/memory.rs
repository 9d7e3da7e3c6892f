//! Clients that make a server hold what it cannot get rid of.

use std::{collections::HashSet, net::SocketAddr, time::Duration};

use serde_json::json;
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    Report, Scene, Size,
    http::{Connection, fetch, head, letter},
    mib,
};
use crate::{Outcome, agent::request};

/// What clients may hold up at most: the budget of the row and some room for the rest of the server.
const ROOM: u64 = 64 * 1024 * 1024;
const BODY: usize = 1024 * 1024;
/// Without a message for so long, nothing comes any more.
const PATIENCE: Duration = Duration::from_secs(45);
/// The budget of the row, in such bodies.
const BODIES: usize = 8;

pub(super) async fn uploads(scene: Scene, size: Size) -> Outcome<Report> {
    let (to, count, mut report) = (scene.replica.address, size.of(200, 40), Report::default());
    Connection::open(to).await?.call("send_message", &letter("a", "b", "warm")).await?;
    let before = scene.replica.memory()?;
    let mut uploads = JoinSet::new();
    for _ in 0..count {
        uploads.spawn(async move {
            let (mut connection, began) = (Connection::open(to).await?, Instant::now());
            connection.write(head(BODY).as_bytes()).await?;
            // Refused at its head, it may be cut off while it still sends.
            let sent = connection.write(&vec![b' '; BODY - 1]).await;
            match connection.answer(began).await {
                Ok(answer) => Outcome::Ok((answer.status, answer.told_to_come_back())),
                Err(_) if sent.is_err() => Ok((0, false)),
                Err(error) => Err(error),
            }
        });
    }
    sleep(Duration::from_millis(1500)).await;
    // Small ones find their way past all of them.
    let mut connection = Connection::open(to).await?;
    let sent = connection.call("send_message", &letter("a", "b", "past the uploads")).await?;
    report.must(sent.status == 200 && sent.result()["isError"] == false, || {
        format!("a small send beside large uploads: {} {}", sent.status, sent.body)
    });
    let (mut late, mut refused, mut cut) = (0, 0, 0);
    while let Some(upload) = uploads.join_next().await {
        match upload?? {
            (408, _) => late += 1,
            (503, true) => refused += 1,
            (0, _) => cut += 1,
            (status, _) => report.must(false, || format!("an upload was answered with {status}")),
        }
    }
    // Whatever they held is free again.
    let text = "x".repeat(200_000);
    let sent = connection.call("send_message", &letter("a", "b", &text)).await?;
    report.must(sent.result()["isError"] == false, || {
        format!("a large send afterwards: {}", sent.body)
    });
    let most = scene.replica.memory()?.most;
    report.fact(format!(
        "of {count} uploads of 1 MiB {late} were let in and told that they were late, {refused} told to come back, \
         {cut} cut off while they sent"
    ));
    report.fact(format!("memory of the server {}, at most {}", mib(before.now), mib(most)));
    report.must(late > 0 && late <= BODIES, || format!("{late} of {BODIES} were let in"));
    report.must(refused > 0, || "nobody was told to come back".to_owned());
    report.must(most < before.now + ROOM, || format!("memory rose to {}", mib(most)));
    Ok(report)
}

/// Connects so that little fits on the way.
async fn narrow(to: SocketAddr) -> Outcome<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    Ok(socket.connect(to).await?)
}

pub(super) async fn slow_readers(scene: Scene, size: Size) -> Outcome<Report> {
    const LETTERS: usize = 32;
    let (to, count, mut report) = (scene.replica.address, size.of(60, 20), Report::default());
    let mut connection = Connection::open(to).await?;
    // Each finds an answer of several times what fits into the buffers of a connection.
    let text = "y".repeat(120_000);
    let inbox = |number: usize| format!("stuck-{number}");
    for number in 0..count {
        for letter_number in 0..LETTERS {
            let text = format!("{letter_number} {text}");
            let sent = connection.call("send_message", &letter("a", &inbox(number), &text)).await?;
            if sent.result()["isError"] != false {
                return Err(sent.body.into());
            }
        }
    }
    let before = scene.replica.memory()?;
    let mut stuck = Vec::new();
    for number in 0..count {
        let stream = narrow(to).await?;
        let body = request("get_messages", &fetch(&inbox(number))).to_string();
        stream.writable().await?;
        let bytes = format!("{}{body}", head(body.len()));
        if stream.try_write(bytes.as_bytes())? != bytes.len() {
            return Err("a request does not fit into a fresh connection".into());
        }
        stuck.push(stream);
    }
    sleep(Duration::from_secs(2)).await;
    let most = scene.replica.memory()?;
    // One worker that renders answers of 8 MB may keep a send waiting for longer than the store may take: then
    // it is told, and tries again.
    let mut sent = connection.call("send_message", &letter("a", "b", "beside them")).await?;
    for _ in 0..5 {
        if sent.result()["isError"] == false {
            break;
        }
        sent = connection.call("send_message", &letter("a", "b", "beside them")).await?;
    }
    report.must(sent.result()["isError"] == false, || {
        format!("a send beside slow readers: {}", sent.body)
    });
    drop(stuck);
    // What they did not take comes to who does, marked or not: nothing of it is lost.
    let (mut came, mut patience) = (HashSet::new(), Instant::now() + PATIENCE);
    for number in 0..count {
        while came.iter().filter(|(owner, _)| *owner == number).count() < LETTERS
            && Instant::now() < patience
        {
            let fetched = connection
                .call("get_messages", &json!({"client_id": inbox(number), "max_messages": 4}))
                .await?;
            let result = fetched.result();
            for message in result["structuredContent"]["messages"].as_array().into_iter().flatten()
            {
                patience = Instant::now() + PATIENCE;
                came.insert((
                    number,
                    message["message_id"].as_str().unwrap_or_default().to_owned(),
                ));
            }
        }
    }
    let expected = count * LETTERS;
    report.fact(format!(
        "{count} readers that take nothing: all {} of their messages came to others",
        came.len()
    ));
    report.fact(format!("memory of the server {}, at most {}", mib(before.now), mib(most.most)));
    report.must(came.len() == expected, || format!("{} of {expected} messages came", came.len()));
    // Four stalled answers of 8 MB, and as much again for making them.
    report
        .must(most.most < before.most + 2 * ROOM, || format!("memory rose to {}", mib(most.most)));
    Ok(report)
}
