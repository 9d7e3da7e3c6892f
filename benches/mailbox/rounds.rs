//! Rounds of load on one server, and scenarios that compare two of them: A B A B, so that what else
//! the machine does hits both.

use std::{
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    Outcome,
    client::{Connection, Dialect, text, with_key},
    process::Server,
    report::{Report, Sample, Side},
};

/// Senders and recipients of a send that is spread.
const CLIENTS: usize = 1024;
/// Senders of a send with keys.
pub(crate) const HOLDERS: usize = 256;

/// What a round asks for.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Load {
    /// `ping`.
    Ping,
    /// `tools/list`.
    ToolsList,
    /// One message, senders and recipients spread.
    Send,
    /// One message, all of them from one sender.
    SendFromOne,
    /// One message, in turn from each of [`HOLDERS`], who have these keys: none, one for all, or one each.
    SendWith(Rc<[String]>),
    /// A message to an own inbox, and its receipt.
    SendReceive,
    /// The same on inboxes that hold a message, so many of them.
    Among(usize),
    /// A question and its answer, through one call or through the two that the spike has.
    Ask(Asking),
}

/// How an answer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asking {
    /// `send_message_and_wait`.
    OneCall,
    /// `send_message`, then `get_messages` that waits.
    TwoCalls,
}

/// The id of such a sender.
pub(crate) fn holder(number: usize) -> String {
    format!("k.{number:03}")
}

/// What is loaded: a server, or replicas over which connections are spread.
pub(crate) struct Target<'a> {
    pub name: &'static str,
    pub servers: &'a [Server],
    pub redis: Option<&'a Server>,
    pub load: Load,
}

/// How long, how often, how many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub dialect: Dialect,
    pub connections: usize,
    pub rounds: usize,
    pub seconds: f64,
}

/// Runs all targets in turn, `shape.rounds` times after a round to warm up.
pub(crate) async fn compare(targets: &[Target<'_>], shape: Shape) -> Outcome<Vec<Side>> {
    let mut sides: Vec<_> =
        targets.iter().map(|target| Side { name: target.name, rounds: Vec::new() }).collect();
    for round in 0..=shape.rounds {
        for (target, side) in targets.iter().zip(&mut sides) {
            let seconds = if round == 0 { 0.3 } else { shape.seconds };
            let sample = measure(target, Shape { seconds, ..shape }, round).await?;
            if round > 0 {
                side.rounds.push(sample);
            }
        }
    }
    Ok(sides)
}

/// [`compare`], with the rows and how each side compares to the first.
pub(crate) async fn report(
    report: &mut Report,
    scenario: &str,
    targets: &[Target<'_>],
    shape: Shape,
) -> Outcome<Vec<Side>> {
    let sides = compare(targets, shape).await?;
    report.title(scenario);
    for side in &sides {
        report.side(scenario, side);
    }
    Ok(sides)
}

async fn measure(target: &Target<'_>, shape: Shape, round: usize) -> Outcome<Sample> {
    let used = || -> Outcome<(f64, f64)> {
        let servers = target.servers.iter().map(Server::cpu).sum::<Outcome<f64>>()?;
        Ok((servers, target.redis.map_or(Ok(0.0), Server::cpu)?))
    };
    let (server, redis) = used()?;
    let started = Instant::now();
    let mut latencies = drive(target, shape, round).await?;
    let took = started.elapsed().as_secs_f64();
    sleep(Duration::from_millis(30)).await; // what is acknowledged after the last answer
    let (server_after, redis_after) = used()?;
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let count = latencies.len() as f64;
    let mut sample = Sample::of(&mut latencies);
    sample.per_second = count / took;
    sample.server = (server_after - server) / count;
    sample.redis = (redis_after - redis) / count;
    Ok(sample)
}

/// Loads a target for a while. Answers the latency of each operation.
async fn drive(target: &Target<'_>, shape: Shape, round: usize) -> Outcome<Vec<f64>> {
    let until = Instant::now() + Duration::from_secs_f64(shape.seconds);
    let mut workers = JoinSet::new();
    let workers_wanted = match target.load {
        Load::Ask(_) => shape.connections / 2,
        Load::Ping
        | Load::ToolsList
        | Load::Send
        | Load::SendFromOne
        | Load::SendWith(_)
        | Load::SendReceive
        | Load::Among(_) => shape.connections,
    };
    for number in 0..workers_wanted.max(1) {
        let address = target.servers[number % target.servers.len()].address();
        let own = Own { address, dialect: shape.dialect, number, of: workers_wanted, round, until };
        workers.spawn_local(own.work(target.load.clone()));
    }
    let mut latencies = Vec::new();
    while let Some(worker) = workers.join_next().await {
        latencies.append(&mut worker??);
    }
    if latencies.is_empty() {
        return Err("nothing was done in this round".into());
    }
    Ok(latencies)
}

/// One worker of a round.
#[derive(Clone, Copy)]
struct Own {
    address: SocketAddr,
    dialect: Dialect,
    number: usize,
    of: usize,
    round: usize,
    until: Instant,
}

impl Own {
    async fn work(self, load: Load) -> Outcome<Vec<f64>> {
        let mut connection = Connection::open(self.address).await?;
        let mut latencies = Vec::with_capacity(1 << 14);
        let mut count = 0;
        while Instant::now() < self.until {
            let started = Instant::now();
            let latency = match &load {
                Load::Ping => self.fixed(&mut connection, "ping").await?,
                Load::ToolsList => self.fixed(&mut connection, "tools/list").await?,
                Load::Send | Load::SendFromOne => {
                    let to = (count * self.of + self.number) % CLIENTS;
                    let from = if load == Load::Send { (to + 17) % CLIENTS } else { 0 };
                    let (from, to) = (format!("s-{from:04}"), format!("r-{to:04}"));
                    let request = self.dialect.send(&from, &to, &text(count as u64));
                    queued(&connection.call(&request).await?)?;
                    started.elapsed()
                }
                Load::SendWith(keys) => {
                    let to = (count * self.of + self.number) % CLIENTS;
                    let from = (to + 17) % HOLDERS;
                    let (sender, to) = (holder(from), format!("r-{to:04}"));
                    let mut request = self.dialect.send(&sender, &to, &text(count as u64));
                    if let Some(key) = keys.get(from % keys.len().max(1)) {
                        request = with_key(&request, key);
                    }
                    queued(&connection.call(&request).await?)?;
                    started.elapsed()
                }
                Load::SendReceive => {
                    let inbox = format!("pair-{}-{}", self.round, self.number);
                    let sent = text(count as u64);
                    let request = self.dialect.send(&self.peer(count), &inbox, &sent);
                    queued(&connection.call(&request).await?)?;
                    let got = connection.call(&self.dialect.get(&inbox)).await?;
                    let latency = started.elapsed();
                    let got = got.messages()?;
                    if got.len() != 1 || got[0].0 != sent {
                        return Err(format!("sent {sent:?}, received {got:?}").into());
                    }
                    latency
                }
                Load::Among(inboxes) => {
                    let inbox = format!("many-{}", (count * self.of + self.number) % *inboxes);
                    let peer = self.peer(count);
                    let request = self.dialect.send(&peer, &inbox, &text(count as u64));
                    queued(&connection.call(&request).await?)?;
                    let got = connection.call(&self.dialect.get_one(&inbox)).await?;
                    let latency = started.elapsed();
                    let got = got.messages()?;
                    if got.len() != 1 {
                        return Err(format!("one message was asked for: {got:?}").into());
                    }
                    latency
                }
                Load::Ask(asking) => return self.ask(connection, *asking).await,
            };
            latencies.push(micros(latency));
            count += 1;
        }
        Ok(latencies)
    }

    /// Who sends: agents are many, and none of them sends all the time.
    fn peer(&self, count: usize) -> String {
        format!("p-{:04}", (count * self.of + self.number) % CLIENTS)
    }

    async fn fixed(&self, connection: &mut Connection, method: &str) -> Outcome<Duration> {
        let request = self.dialect.request(method, json!({}));
        let started = Instant::now();
        connection.call(&request).await?;
        Ok(started.elapsed())
    }

    /// Asks on one connection; somebody answers on another one.
    async fn ask(self, mut asker: Connection, asking: Asking) -> Outcome<Vec<f64>> {
        let (a, b) = (
            format!("asker-{}-{}", self.round, self.number),
            format!("answerer-{}-{}", self.round, self.number),
        );
        let mut answerer = Connection::open(self.address).await?;
        let (wire, mut latencies) = (self.dialect, Vec::new());
        let asks = async {
            let mut count = 0;
            while Instant::now() < self.until {
                let question = text(count);
                let started = Instant::now();
                let reply = match asking {
                    Asking::OneCall => {
                        let arguments = json!({
                            "sender_id": a, "recipient_id": b, "message": question, "timeout": 30,
                        });
                        asker.call(&wire.tool("send_message_and_wait", &arguments)).await?
                    }
                    Asking::TwoCalls => {
                        queued(&asker.call(&wire.send(&a, &b, &question)).await?)?;
                        asker.call(&wire.wait(&a, 30)).await?
                    }
                };
                latencies.push(micros(started.elapsed()));
                if !reply.has(&question) {
                    return Err("the answer is not to this question".into());
                }
                count += 1;
            }
            Ok::<(), Box<dyn std::error::Error>>(())
        };
        let answers = async {
            loop {
                let got = answerer.call(&wire.wait(&b, 30)).await?.messages()?;
                for (question, id) in got {
                    let mut arguments =
                        json!({ "sender_id": b, "recipient_id": a, "message": question });
                    if !id.is_empty() {
                        arguments["in_reply_to"] = id.into();
                    }
                    answerer.call(&wire.tool("send_message", &arguments)).await?;
                }
            }
        };
        tokio::select! {
            done = asks => done?,
            failed = answers => return failed,
        }
        Ok(latencies)
    }
}

pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn queued(reply: &crate::client::Reply) -> Outcome<()> {
    if reply.has(r#""status":"queued""#) {
        return Ok(());
    }
    Err(format!("not queued: {}", String::from_utf8_lossy(&reply.body)).into())
}

/// Leaves `count` messages, `to` says for whom, through as many connections as a round has.
pub(crate) async fn fill(
    address: SocketAddr,
    shape: Shape,
    count: usize,
    to: impl Fn(usize) -> String + Clone + 'static,
) -> Outcome<()> {
    let mut workers = JoinSet::new();
    for number in 0..shape.connections {
        let (to, wire, of) = (to.clone(), shape.dialect, shape.connections);
        workers.spawn_local(async move {
            let mut connection = Connection::open(address).await?;
            for index in (number..count).step_by(of) {
                let arguments = json!({
                    "sender_id": format!("f-{}", index % 4096), "recipient_id": to(index),
                    "message": text(index as u64), "ttl_seconds": 3600,
                });
                queued(&connection.call(&wire.tool("send_message", &arguments)).await?)?;
            }
            Ok::<(), Box<dyn std::error::Error>>(())
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    Ok(())
}
