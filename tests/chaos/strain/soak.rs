//! The load of a quiet office for a long time: memory must not grow.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Report, Scene,
    http::{Connection, fetch, letter},
    mib,
};
use crate::{Outcome, checker::percentile};

/// Rounds a second: each sends, fetches, asks what became of it, and asks a question that nobody answers.
const EVERY: Duration = Duration::from_millis(25);
/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Memory may be so much above what it was after the first third.
const ROOM: u64 = 8 * 1024 * 1024;

/// Runs for so many minutes. Inboxes and clients change all the time, as in an office where agents come
/// and go; messages live for a minute.
pub(super) async fn soak(scene: Scene, minutes: u64) -> Outcome<Report> {
    let (to, lasting) = (scene.replica.address, Duration::from_secs(minutes * 60));
    let (began, mut report) = (Instant::now(), Report::default());
    let mut connection = Connection::open(to).await?;
    let (mut servers, mut stores, mut took) = (Vec::new(), Vec::new(), Vec::new());
    let (mut sent, mut came, mut refused, mut round) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut next_look = Instant::now();
    while began.elapsed() < lasting {
        let next = Instant::now() + EVERY;
        let inbox = format!("agent-{}", round % 5000);
        // A tenth is never read, and expires.
        let text = format!("message {round} {}", "x".repeat(usize::try_from(round % 700)?));
        let mut arguments = letter(&format!("sender-{}", round % 3000), &inbox, &text);
        arguments["ttl_seconds"] = json!(60);
        let answer = connection.call("send_message", &arguments).await?;
        took.push(u64::try_from(answer.took.as_micros())?);
        let accepted = answer.result()["isError"] == false;
        *(if accepted { &mut sent } else { &mut refused }) += 1;
        if round % 10 != 0 {
            let answer = connection.call("get_messages", &fetch(&inbox)).await?.result();
            came += answer["structuredContent"]["messages"].as_array().map_or(0, Vec::len) as u64;
        }
        if round.is_multiple_of(8) {
            // A connection of its own, as short-lived clients have.
            let mut other = Connection::open(to).await?;
            let status = json!({"sender_id": format!("sender-{}", round % 3000)});
            other.call("message_status", &status).await?;
            let checkin = json!({"client_id": inbox, "name": "an agent", "capabilities": "soaks"});
            other.call("checkin_client", &checkin).await?;
        }
        if Instant::now() >= next_look {
            next_look = Instant::now() + LOOK_EVERY;
            servers.push(scene.replica.memory()?.now);
            stores.push(scene.redis.memory()?.now);
        }
        round += 1;
        sleep_until(next).await;
    }
    sleep(Duration::from_millis(100)).await;
    took.sort_unstable();
    let mean = |part: &[u64]| part.iter().sum::<u64>() / (part.len() as u64).max(1);
    let third = servers.len() / 3;
    for (name, all) in [("the server", &servers), ("Redis", &stores)] {
        let [first, middle, last] =
            [&all[..third], &all[third..2 * third], &all[2 * third..]].map(mean);
        report.fact(format!(
            "memory of {name}, mean of each third: {}, {}, {}",
            mib(first),
            mib(middle),
            mib(last)
        ));
        report.must(last < middle + ROOM, || {
            format!("memory of {name} grows: from {} to {}", mib(middle), mib(last))
        });
    }
    let ms =
        |percent| f64::from(u32::try_from(percentile(&took, percent)).unwrap_or(u32::MAX)) / 1000.0;
    report.fact(format!(
        "{minutes} minutes, {sent} messages sent, {refused} refused, {came} received; a send took p50 {:.1} ms, p99 \
         {:.1} ms",
        ms(50),
        ms(99)
    ));
    report.must(refused == 0, || format!("{refused} sends were refused"));
    Ok(report)
}
