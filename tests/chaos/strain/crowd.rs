//! Very many connections, and slow ones.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    Report, Scene, Size,
    http::{Connection, head, letter},
    mib,
};
use crate::{Outcome, agent::request, checker::percentile};

/// The time in which a head must have come, in this row.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// A busy machine may see its end later.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a slow client is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Slow {
    Head,
    /// The head of a later request on the same connection.
    NextHead,
    Body,
}

pub(super) async fn slowloris(scene: Scene, size: Size) -> Outcome<Report> {
    let (to, count, mut report) = (scene.replica.address, size.of(300, 30), Report::default());
    let mut slow = JoinSet::new();
    for kind in [Slow::Head, Slow::NextHead, Slow::Body] {
        for _ in 0..count {
            slow.spawn(async move {
                let mut connection = Connection::open(to).await?;
                if kind == Slow::NextHead {
                    connection.call("send_message", &letter("a", "b", "one")).await?;
                }
                let body = request("send_message", &letter("a", "b", "slow")).to_string();
                let head = head(body.len());
                let (at_once, slowly) = match kind {
                    Slow::Head | Slow::NextHead => (String::new(), head),
                    Slow::Body => (head, body),
                };
                connection.write(at_once.as_bytes()).await?;
                let began = Instant::now();
                for byte in slowly.bytes() {
                    if connection.write(&[byte]).await.is_err()
                        || connection.ended(Duration::from_millis(100)).await
                    {
                        return Outcome::Ok((kind, Some(began.elapsed())));
                    }
                    if began.elapsed() > PATIENCE {
                        return Ok((kind, None));
                    }
                }
                Ok((kind, None))
            });
        }
    }
    sleep(Duration::from_millis(500)).await;
    let mut connection = Connection::open(to).await?;
    let mut took = Vec::new();
    for number in 0..size.of(300, 50) {
        let sent = connection
            .call("send_message", &letter("c", "d", &format!("message {number}")))
            .await?;
        report.must(sent.result()["isError"] == false, || {
            format!("beside slow clients: {}", sent.body)
        });
        took.push(u64::try_from(sent.took.as_micros())?);
    }
    took.sort_unstable();
    let mut ends: Vec<(Slow, Option<Duration>)> = Vec::new();
    while let Some(ended) = slow.join_next().await {
        ends.push(ended??);
    }
    for kind in [Slow::Head, Slow::NextHead, Slow::Body] {
        let of_kind = ends.iter().filter(|(of, _)| *of == kind);
        let times: Vec<Option<Duration>> = of_kind.map(|(_, time)| *time).collect();
        let longest = times.iter().flatten().max().copied().unwrap_or_default();
        let name = match kind {
            Slow::Head => "a head",
            Slow::NextHead => "the head of a second request",
            Slow::Body => "a body",
        };
        report.fact(format!(
            "{name}, byte by byte: {} of {} connections ended, the last after {:.1} s (allowed {} s)",
            times.iter().flatten().count(),
            times.len(),
            longest.as_secs_f64(),
            REQUEST_TIMEOUT.as_secs()
        ));
        report.must(times.iter().all(Option::is_some), || format!("{name} may come for ever"));
    }
    report.fact(format!("a send beside them: p99 {:.1} ms", ms(percentile(&took, 99))));
    Ok(report)
}

fn ms(micros: u64) -> f64 {
    f64::from(u32::try_from(micros).unwrap_or(u32::MAX)) / 1000.0
}

pub(super) async fn idle(scene: Scene, size: Size) -> Outcome<Report> {
    let (to, count, mut report) =
        (scene.replica.address, size.of(10_000, 1_000), Report::default());
    let files = rlimit::increase_nofile_limit(20_000)?;
    let count = count.min(usize::try_from(files.saturating_sub(200))?);
    let mut connection = Connection::open(to).await?;
    for _ in 0..200 {
        connection.call("send_message", &letter("a", "b", "warm")).await?;
        connection.call("get_messages", &super::http::fetch("b")).await?;
    }
    let before = scene.replica.memory()?.now;
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        open.push(Connection::open(to).await?);
    }
    // Each has been used once: what a request leaves behind stays with its connection.
    for connection in &mut open {
        connection.call("message_status", &serde_json::json!({"sender_id": "nobody"})).await?;
    }
    let after = scene.replica.memory()?.now;
    let sent = connection.call("send_message", &letter("a", "b", "beside them")).await?;
    report.must(sent.result()["isError"] == false, || {
        format!("a send beside idle connections: {}", sent.body)
    });
    let each = after.saturating_sub(before) / count as u64;
    report.fact(format!(
        "{count} connections, each used once: memory of the server from {} to {}, {:.1} KiB a connection",
        mib(before),
        mib(after),
        f64::from(u32::try_from(each)?) / 1024.0
    ));
    report.must(each < 64 * 1024, || format!("{each} bytes a connection"));
    Ok(report)
}

pub(super) async fn connections(scene: Scene, size: Size) -> Outcome<Report> {
    let (to, count, mut report) = (scene.replica.address, size.of(400, 200), Report::default());
    let mut clients = JoinSet::new();
    for client in 0..count {
        clients.spawn(async move {
            // Beyond the limit a connection waits in the kernel, and is served when another one ends.
            let mut connection = Connection::open(to).await?;
            let sent = connection
                .call("send_message", &letter("a", "b", &format!("message {client}")))
                .await?;
            Outcome::Ok(sent.result()["isError"] == false)
        });
    }
    let all = async {
        let mut served = 0;
        while let Some(sent) = clients.join_next().await {
            served += usize::from(sent??);
        }
        Outcome::Ok(served)
    };
    let served = timeout(PATIENCE * 3, all).await.map_err(|_| "clients wait for ever")??;
    report.fact(format!("{served} of {count} clients were served by 50 connections, none refused"));
    report.must(served == count, || format!("{served} of {count} were served"));
    Ok(report)
}
