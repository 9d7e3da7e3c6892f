//! What grows: the depth of an inbox, the number of inboxes, the memory of Redis.

use std::{
    slice::from_ref,
    time::{Duration, Instant},
};

use fred::{
    clients::Client,
    interfaces::ClientLike,
    types::{ClusterHash, CustomCommand, Value},
};

use futures_util::future::try_join_all;
use serde_json::json;

use crate::{
    Outcome,
    client::{Connection, text},
    process::Server,
    report::{Report, Sample, Side},
    rounds::{self, Load, Shape, Target, micros},
};

/// Sends to and receives from inboxes that stay so deep. Per message.
pub(crate) async fn depth(
    report: &mut Report,
    server: &Server,
    redis: &Server,
    depths: &[usize],
    shape: Shape,
) -> Outcome<()> {
    let mut sides = Vec::new();
    for &depth in depths {
        rounds::fill(server.address(), shape, depth, move |_| format!("deep-{depth}")).await?;
        let name = match depth {
            10 => "10 messages",
            10_000 => "10,000 messages",
            _ => "100,000 messages",
        };
        sides.push(Side { name, rounds: Vec::new() });
    }
    for round in 0..=shape.rounds {
        for (&depth, side) in depths.iter().zip(&mut sides) {
            let sample = at_depth(server, redis, depth, shape).await?;
            if round > 0 {
                side.rounds.push(sample);
            }
        }
    }
    let title = "8 sends + receive at depth";
    report.title(title);
    for side in &sides {
        report.side(title, side);
    }
    if let [first, .., last] = sides.as_slice() {
        report.verdict("server CPU, deepest / 10", last.ratio(first, |s| s.server), 1.15, "x");
        report.verdict("Redis CPU, deepest / 10", last.ratio(first, |s| s.redis), 1.15, "x");
    }
    Ok(())
}

/// Some send one message each, at once; then one of them receives as many.
async fn at_depth(server: &Server, redis: &Server, depth: usize, shape: Shape) -> Outcome<Sample> {
    const AT_ONCE: usize = 8;
    /// Fewer say nothing, as the kernel counts processor time.
    const TURNS: usize = 60;
    let (inbox, wire) = (format!("deep-{depth}"), shape.dialect);
    let mut connections = Vec::new();
    for _ in 0..AT_ONCE {
        connections.push(Connection::open(server.address()).await?);
    }
    let arguments = json!({ "client_id": inbox, "max_messages": AT_ONCE });
    let get = wire.tool("get_messages", &arguments);
    let (server_before, redis_before) = (server.cpu()?, redis.cpu()?);
    let started = Instant::now();
    let mut latencies = Vec::new();
    while started.elapsed() < Duration::from_secs_f64(shape.seconds) || latencies.len() < TURNS {
        let at = Instant::now();
        let sends = connections.iter_mut().enumerate().map(|(number, connection)| {
            let from = format!("d-{}", (latencies.len() * AT_ONCE + number) % 1024);
            let request = wire.send(&from, &inbox, &text(1));
            async move { connection.call(&request).await }
        });
        try_join_all(sends).await?;
        let got = connections[0].call(&get).await?;
        latencies.push(micros(at.elapsed()));
        if got.messages()?.len() != AT_ONCE {
            return Err("a deep inbox gave too few messages".into());
        }
    }
    let took = started.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let count = (latencies.len() * AT_ONCE) as f64;
    let mut sample = Sample::of(&mut latencies);
    sample.per_second = count / took;
    sample.server = (server.cpu()? - server_before) / count;
    sample.redis = (redis.cpu()? - redis_before) / count;
    Ok(sample)
}

/// The same load among few and among many inboxes.
pub(crate) async fn inboxes(
    report: &mut Report,
    few: (&Server, &Server, usize),
    many: (&Server, &Server, usize),
    shape: Shape,
) -> Outcome<()> {
    for (server, _redis, count) in [few, many] {
        rounds::fill(server.address(), shape, count, |index| format!("many-{index}")).await?;
    }
    let target = |name, (server, redis, count)| Target {
        name,
        servers: from_ref(server),
        redis: Some(redis),
        load: Load::Among(count),
    };
    let targets = [target("few inboxes (100)", few), target("many inboxes", many)];
    let sides = rounds::report(report, "send + receive among inboxes", &targets, shape).await?;
    report.verdict("server CPU, many / few", sides[1].ratio(&sides[0], |s| s.server), 1.15, "x");
    report.verdict("Redis CPU, many / few", sides[1].ratio(&sides[0], |s| s.redis), 1.15, "x");
    Ok(())
}

/// What Redis needs for an inbox with one message of 200 bytes, and for each further one.
pub(crate) async fn memory(
    report: &mut Report,
    server: &Server,
    client: &Client,
    shape: Shape,
) -> Outcome<()> {
    const MORE: u32 = 40;
    let mut connection = Connection::open(server.address()).await?;
    let (wire, inbox, sender) = (shape.dialect, "memory-inbox", "memory-sender");
    connection.call(&wire.send(sender, inbox, &text(1))).await?;
    let (one, sender_one) = (used(client, inbox).await?, used(client, sender).await?);
    for number in 0..MORE {
        connection.call(&wire.send(sender, inbox, &text(u64::from(number)))).await?;
    }
    let (all, sender_all) = (used(client, inbox).await?, used(client, sender).await?);
    report.title("memory in Redis");
    report.verdict("inbox with one message of 200 B", one, 800.0, " B");
    report.verdict("each further message", (all - one) / f64::from(MORE), 320.0, " B");
    report.note("a sender with one entry in its ledger", sender_one, " B");
    report.note("each further entry", (sender_all - sender_one) / f64::from(MORE), " B");
    connection.call(&wire.get(inbox)).await?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    report.note("the inbox after its messages were received", used(client, inbox).await?, " B");
    Ok(())
}

/// `MEMORY USAGE` of all keys of a client.
async fn used(client: &Client, name: &str) -> Outcome<f64> {
    let command = |name| CustomCommand::new_static(name, ClusterHash::Custom(0), false);
    let pattern = format!("mb1:*:default/{name}:*");
    let keys: Vec<Value> = client.custom(command("KEYS"), vec![Value::from(pattern)]).await?;
    let mut sum = 0.0;
    for key in keys {
        let args = vec![Value::from("USAGE"), key, "SAMPLES".into(), 0.into()];
        sum += client.custom::<f64, Value>(command("MEMORY"), args).await?;
    }
    Ok(sum)
}
