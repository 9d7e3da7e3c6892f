//! Too many calls, too many messages, too many ends at once.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    CALLS, Report, Scene, Size,
    http::{Connection, fetch, letter},
    mib,
};
use crate::{Outcome, checker::percentile};

/// Whoever was refused comes back after this: sooner than it was told, as bad clients do.
const COME_BACK: Duration = Duration::from_millis(100);

/// What a number of callers saw.
#[derive(Debug, Default)]
struct Seen {
    /// Ids of what was accepted, by inbox.
    accepted: Vec<(String, String)>,
    /// Microseconds of those calls, sorted.
    took: Vec<u64>,
    refused: u64,
    /// Answers that say neither.
    untold: Vec<String>,
    lasted: Duration,
}

impl Seen {
    /// Accepted a second.
    fn goodput(&self) -> u64 {
        let millis = u64::try_from(self.lasted.as_millis()).unwrap_or(u64::MAX).max(1);
        self.accepted.len() as u64 * 1000 / millis
    }

    fn p(&self, percent: usize) -> u64 {
        percentile(&self.took, percent)
    }

    fn add(&mut self, other: Self) {
        self.accepted.extend(other.accepted);
        self.took.extend(other.took);
        self.took.sort_unstable();
        self.refused += other.refused;
        self.untold.extend(other.untold);
        self.lasted = self.lasted.max(other.lasted);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// So many callers, each with one call after the other, for so long.
async fn callers(
    to: SocketAddr,
    count: usize,
    lasting: Duration,
    numbers: &Arc<AtomicU64>,
) -> Outcome<Seen> {
    let end = Instant::now() + lasting;
    let mut tasks = JoinSet::new();
    for caller in 0..count {
        let numbers = Arc::clone(numbers);
        tasks.spawn(async move {
            let mut connection = Connection::open(to).await?;
            let (mut seen, began) = (Seen::default(), Instant::now());
            let inbox = format!("inbox-{}", caller % 64);
            while Instant::now() < end {
                let number = numbers.fetch_add(1, Ordering::Relaxed);
                let text = format!("message {number}");
                let answer =
                    connection.call("send_message", &letter("caller", &inbox, &text)).await?;
                let result = answer.result();
                let one = &result["structuredContent"]["results"][0];
                if let (Some("queued"), Some(_)) =
                    (one["status"].as_str(), one["message_id"].as_str())
                {
                    seen.accepted.push((inbox.clone(), text));
                    seen.took.push(micros(answer.took));
                } else if answer.told_to_come_back() {
                    seen.refused += 1;
                    sleep(COME_BACK).await;
                } else {
                    seen.untold.push(format!("{} {}", answer.status, answer.body));
                }
            }
            seen.lasted = began.elapsed();
            Outcome::Ok(seen)
        });
    }
    let mut all = Seen::default();
    while let Some(seen) = tasks.join_next().await {
        all.add(seen??);
    }
    Ok(all)
}

/// The texts of everything that lies in the inboxes of the callers.
async fn drained(to: SocketAddr) -> Outcome<HashSet<(String, String)>> {
    let (mut connection, mut came) = (Connection::open(to).await?, HashSet::new());
    for inbox in (0..64).map(|number| format!("inbox-{number}")) {
        loop {
            let answer = connection.call("get_messages", &fetch(&inbox)).await?;
            let result = answer.result();
            let content = &result["structuredContent"];
            let messages = content["messages"].as_array().ok_or("no messages in an answer")?;
            for message in messages {
                came.insert((
                    inbox.clone(),
                    message["text"].as_str().unwrap_or_default().to_owned(),
                ));
            }
            if messages.is_empty() && content["busy"] != true {
                break;
            }
        }
    }
    Ok(came)
}

pub(super) async fn overload(scene: Scene, size: Size) -> Outcome<Report> {
    let (to, lasting) = (scene.replica.address, Duration::from_secs(size.of(15, 4)));
    let (numbers, mut report) = (Arc::new(AtomicU64::new(0)), Report::default());
    callers(to, CALLS, Duration::from_secs(1), &numbers).await?; // warm
    let before = drained(to).await?.len();
    let one = callers(to, CALLS, lasting, &numbers).await?;
    let came_first = drained(to).await?;
    // The first wave of those who are refused comes all at once.
    callers(to, 10 * CALLS, Duration::from_secs(2), &numbers).await?;
    drained(to).await?;
    let ten = callers(to, 10 * CALLS, lasting, &numbers).await?;
    let came_then = drained(to).await?;
    let memory = scene.replica.memory()?;
    for (name, seen) in [("1x", &one), ("10x", &ten)] {
        report.fact(format!(
            "{name}: {} accepted and {} refused a second; accepted calls p50 {:.1} ms, p99 {:.1} ms",
            seen.goodput(),
            seen.refused * 1000 / u64::try_from(seen.lasted.as_millis())?.max(1),
            millis(seen.p(50)),
            millis(seen.p(99)),
        ));
    }
    report.fact(format!("memory of the server at most {}", mib(memory.most)));
    report.must(before > 0, || "nothing was accepted".to_owned());
    report.must(ten.refused > 0, || "ten times as many callers, and nobody was refused".to_owned());
    report.must(3 * ten.goodput() > one.goodput(), || {
        format!("at 10x {} a second are accepted, at 1x {}", ten.goodput(), one.goodput())
    });
    report.must(ten.p(99) < 4 * one.p(99).max(10_000), || {
        format!("p99 at 10x is {:.1} ms, at 1x {:.1} ms", millis(ten.p(99)), millis(one.p(99)))
    });
    for (seen, came) in [(&one, &came_first), (&ten, &came_then)] {
        let lost = seen.accepted.iter().filter(|message| !came.contains(*message)).count();
        report.must(lost == 0, || format!("{lost} accepted messages are lost"));
        let unexpected = came.len().saturating_sub(seen.accepted.len());
        report.must(unexpected == 0, || format!("{unexpected} refused messages came all the same"));
        report.must(seen.untold.is_empty(), || {
            format!("answers that say nothing: {:?}", seen.untold.first())
        });
    }
    Ok(report)
}

fn millis(micros: u64) -> f64 {
    f64::from(u32::try_from(micros).unwrap_or(u32::MAX)) / 1000.0
}

/// Times of sends and of fetches on an inbox of their own, sorted.
async fn pairs(to: SocketAddr, inbox: &str, count: usize) -> Outcome<(Vec<u64>, Vec<u64>)> {
    let mut connection = Connection::open(to).await?;
    let (mut sends, mut fetches) = (Vec::new(), Vec::new());
    for number in 0..count {
        let sent = connection
            .call("send_message", &letter("prober", inbox, &format!("probe {number}")))
            .await?;
        sends.push(micros(sent.took));
        let got = connection
            .call("get_messages", &json!({"client_id": inbox, "max_messages": 1}))
            .await?;
        fetches.push(micros(got.took));
        if sent.result()["isError"] != false || got.result()["isError"] != false {
            return Err(format!("{} {}", sent.body, got.body).into());
        }
    }
    sends.sort_unstable();
    fetches.sort_unstable();
    Ok((sends, fetches))
}

fn told(name: &str, times: &[u64]) -> String {
    format!(
        "{name} p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        millis(percentile(times, 50)),
        millis(percentile(times, 99)),
        millis(percentile(times, 100))
    )
}

/// Fills inboxes by sends to a hundred recipients at once.
async fn fill(
    to: SocketAddr,
    recipients: impl Iterator<Item = String>,
    extra: serde_json::Value,
) -> Outcome<u64> {
    let mut connection = Connection::open(to).await?;
    let (all, mut accepted): (Vec<String>, u64) = (recipients.collect(), 0);
    for recipients in all.chunks(100) {
        let mut arguments = json!({"sender_id": "filler", "message": "one of very many, of a usual length for a letter", "recipients": recipients});
        if let (Some(arguments), Some(extra)) = (arguments.as_object_mut(), extra.as_object()) {
            arguments.extend(extra.clone());
        }
        let answer = connection.call("send_message", &arguments).await?.result();
        let results =
            answer["structuredContent"]["results"].as_array().ok_or("no results")?.clone();
        accepted += results.iter().filter(|one| one["status"] == "queued").count() as u64;
    }
    Ok(accepted)
}

pub(super) async fn deep_inbox(scene: Scene, size: Size) -> Outcome<Report> {
    let (to, depth, probes) = (scene.replica.address, size.of(100_000, 10_000), size.of(1000, 200));
    let mut report = Report::default();
    pairs(to, "shallow", 50).await?; // warm
    let (shallow_sends, shallow_fetches) = pairs(to, "shallow", probes).await?;
    let mut connection = Connection::open(to).await?;
    let mut in_it = 0;
    while in_it < depth {
        // Several recipients of one send may be the same inbox no more than once: so one by one.
        let sent = connection
            .call(
                "send_message",
                &letter("filler", "deep", "a letter of a usual length, one of very many"),
            )
            .await?;
        if sent.result()["isError"] != false {
            return Err(sent.body.into());
        }
        in_it += 1;
    }
    let (deep_sends, deep_fetches) = pairs(to, "deep", probes).await?;
    report.fact(told("empty inbox: send", &shallow_sends));
    report.fact(told("empty inbox: fetch", &shallow_fetches));
    report.fact(told(&format!("{depth} deep: send"), &deep_sends));
    report.fact(told(&format!("{depth} deep: fetch"), &deep_fetches));
    report.fact(format!("memory of Redis {}", mib(scene.redis.memory()?.now)));
    for (what, shallow, deep) in
        [("send", &shallow_sends, &deep_sends), ("fetch", &shallow_fetches, &deep_fetches)]
    {
        let (shallow, deep) = (percentile(shallow, 50), percentile(deep, 50));
        report.must(deep < 3 * shallow.max(1000), || {
            format!(
                "a {what} takes {:.1} ms in a deep inbox, {:.1} ms in an empty one",
                millis(deep),
                millis(shallow)
            )
        });
    }
    Ok(report)
}

pub(super) async fn expiry(scene: Scene, size: Size) -> Outcome<Report> {
    let (to, count) = (scene.replica.address, size.of(100_000, 10_000));
    let mut report = Report::default();
    let began = Instant::now();
    // All end within the same second, whenever they were sent.
    let life = Duration::from_secs(size.of(150, 40));
    let mut accepted = 0;
    for part in 0..count / 1000 {
        let left = life.saturating_sub(began.elapsed()).as_secs().max(1);
        let inboxes = (0..1000).map(|number| format!("brief-{}", part * 1000 + number));
        accepted += fill(to, inboxes, json!({"ttl_seconds": left})).await?;
    }
    report.must(accepted == count, || format!("{accepted} of {count} were accepted"));
    report.must(began.elapsed() + Duration::from_secs(2) < life, || {
        "filling took too long".to_owned()
    });
    let (calm, _) = pairs(to, "prober", 300).await?;
    let memory = scene.redis.memory()?.now;
    // From two seconds before the end to five seconds after it.
    sleep((life.saturating_sub(Duration::from_secs(2))).saturating_sub(began.elapsed())).await;
    let mut at_the_end = Vec::new();
    let until = Instant::now() + Duration::from_secs(7);
    while Instant::now() < until {
        at_the_end.extend(pairs(to, "prober", 50).await?.0);
    }
    at_the_end.sort_unstable();
    let left = scene.redis.memory()?.now;
    report.fact(told(&format!("a send beside {count} full inboxes:"), &calm));
    report.fact(told("a send while they expire:", &at_the_end));
    report.fact(format!("memory of Redis {} before, {} after", mib(memory), mib(left)));
    report.must(percentile(&at_the_end, 99) < 10 * percentile(&calm, 99).max(20_000), || {
        format!(
            "p99 of a send is {:.1} ms while inboxes expire, {:.1} ms before",
            millis(percentile(&at_the_end, 99)),
            millis(percentile(&calm, 99))
        )
    });
    Ok(report)
}
