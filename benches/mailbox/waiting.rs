//! Those who wait: how fast they are woken across replicas, and what they cost while nothing comes.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::{
    Outcome,
    client::{Connection, Dialect, text},
    process::Server,
    report::{Report, Sample, Side},
    rounds::micros,
};

/// A waiter is given so long to settle before it is woken.
const SETTLE: Duration = Duration::from_millis(8);
const INBOXES: usize = 8;

/// Two replicas on one Redis.
pub(crate) struct Replicas<'a> {
    pub name: &'static str,
    pub sends: &'a Server,
    pub waits: &'a Server,
    pub dialect: Dialect,
}

/// Wakes a waiter on one replica by a send on the other, again and again.
pub(crate) async fn wake_up(
    pairs: &[Replicas<'_>],
    rounds: usize,
    each: usize,
) -> Outcome<Vec<Side>> {
    let mut sides: Vec<_> =
        pairs.iter().map(|pair| Side { name: pair.name, rounds: Vec::new() }).collect();
    for round in 0..=rounds {
        for (pair, side) in pairs.iter().zip(&mut sides) {
            let mut latencies = Vec::new();
            let mut sender = Connection::open(pair.sends.address()).await?;
            let mut waiter = Connection::open(pair.waits.address()).await?;
            let count = if round == 0 { INBOXES * 2 } else { each };
            for index in 0..count {
                let inbox = format!("wake-{}", index % INBOXES);
                latencies.push(once(pair.dialect, &mut sender, &mut waiter, &inbox).await?);
            }
            if round > 0 {
                side.rounds.push(Sample::of(&mut latencies));
            }
        }
    }
    Ok(sides)
}

async fn once(
    wire: Dialect,
    sender: &mut Connection,
    waiter: &mut Connection,
    inbox: &str,
) -> Outcome<f64> {
    waiter.send(&wire.wait(inbox, 30)).await?;
    sleep(SETTLE).await;
    let request = wire.send("waker", inbox, &text(1));
    let started = Instant::now();
    let (sent, got) = tokio::join!(sender.call(&request), waiter.reply());
    sent?;
    let got = got?;
    if got.messages()?.len() != 1 {
        return Err("a waiter was woken without its message".into());
    }
    Ok(micros(got.at - started))
}

/// Holds `count` waiters for so long.
pub(crate) async fn idle(
    report: &mut Report,
    name: &str,
    server: &Server,
    dialect: Dialect,
    count: usize,
    hold: Duration,
) -> Outcome<Idle> {
    sleep(Duration::from_millis(500)).await;
    let before = server.resident()?;
    let mut waiters = Vec::with_capacity(count);
    for number in 0..count {
        let mut waiter = Connection::open(server.address()).await?;
        waiter.send(&dialect.wait(&format!("idle-{number}"), 120)).await?;
        waiters.push(waiter);
        if number % 100 == 99 {
            sleep(Duration::from_millis(10)).await;
        }
    }
    sleep(Duration::from_secs(3)).await;
    let (cpu, started) = (server.cpu()?, Instant::now());
    sleep(hold).await;
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let count = count as f64;
    let idle = Idle {
        bytes: (server.resident()? - before) / count,
        cpu: (server.cpu()? - cpu) / count / started.elapsed().as_secs_f64(),
    };
    report.note(&format!("{name}: memory of each"), idle.bytes / 1024.0, " KB");
    report.note(&format!("{name}: CPU of each per second"), idle.cpu, " us");
    Ok(idle)
}

/// What one waiter costs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle {
    pub bytes: f64,
    pub cpu: f64,
}
