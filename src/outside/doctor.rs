//! Does an installation do what it is for? Asked as a client asks, and told with what to do.

use std::{fmt, time::Duration};

use futures_util::future::join_all;
use hyper::StatusCode;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use super::client::{Endpoint, Failure};

/// What is asked for in the handshake, and the least of what must be offered.
const REVISION: &str = "2025-11-25";
const TOOLS: [&str; 2] = ["send_message", "get_messages"];
/// Probes live so long if we cannot take them away again.
const LIFE_SECONDS: u64 = 60;
/// How long a reader waits. The server's own safety poll may take longer.
const WAIT: Duration = Duration::from_secs(8);
/// A reader gets so long to be at its place before it is written to.
const SETTLE: Duration = Duration::from_millis(300);
/// Who is woken later than this was not woken, but looked by itself.
const WOKEN_WITHIN: Duration = Duration::from_secs(2);

/// What to look at.
#[derive(Debug)]
pub struct Questions {
    /// The mailbox.
    pub endpoint: Endpoint,
    /// Where readiness is told, if not beside the mailbox.
    pub ops: Option<Endpoint>,
    /// What the clients that it plays are called, up to a dot. A key must be good for them.
    pub name: String,
    /// Readers that are written to, each on a connection of its own: the more, the likelier each replica is
    /// among them.
    pub readers: usize,
}

/// A [`Questions::name`] that nobody had before, below `doctor.`.
#[must_use]
pub fn new_name() -> String {
    format!("doctor.{}", Uuid::now_v7().simple())
}

/// What came of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Not as it should be.
    Failed,
    /// It could not be looked at.
    Skipped,
}

/// One check.
#[derive(Debug, Serialize)]
pub struct Check {
    /// Its name; a closed set.
    pub name: &'static str,
    /// What came of it.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<&'static str>,
    /// How long what was measured took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<u64>,
}

/// All checks.
#[derive(Debug, Serialize)]
pub struct Diagnosis {
    /// What was looked at.
    pub url: String,
    /// Nothing failed.
    pub healthy: bool,
    /// In the order of the looking.
    pub checks: Vec<Check>,
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Check { name, verdict, seen, fix, .. } in &self.checks {
            let word = match verdict {
                Verdict::Ok => "ok",
                Verdict::Failed => "FAILED",
                Verdict::Skipped => "skipped",
            };
            write!(f, "{word:7} {name:10} {seen}")?;
            if let Some(fix) = fix {
                write!(f, "{} {fix}", if seen.ends_with('.') { "" } else { "." })?;
            }
            writeln!(f)?;
        }
        let end = if self.healthy { "works" } else { "does not work as it should" };
        write!(f, "{} {end}", self.url)
    }
}

fn ok(name: &'static str, seen: String) -> Check {
    Check { name, verdict: Verdict::Ok, seen, fix: None, milliseconds: None }
}

fn failed(name: &'static str, seen: impl fmt::Display, fix: &'static str) -> Check {
    let (verdict, seen) = (Verdict::Failed, seen.to_string());
    Check { name, verdict, seen, fix: Some(fix), milliseconds: None }
}

fn skipped(name: &'static str, why: &str) -> Check {
    let (verdict, seen) = (Verdict::Skipped, why.to_owned());
    Check { name, verdict, seen, fix: None, milliseconds: None }
}

fn in_ms(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

/// Looks at an installation. What it sends it takes away again; the clients that it plays are forgotten by
/// the store as all others are.
pub async fn examine(questions: &Questions) -> Diagnosis {
    let Questions { endpoint, name, readers, .. } = questions;
    let mut checks = introduce(endpoint).await;
    let talks = checks.iter().all(|check| check.verdict != Verdict::Failed);
    checks.push(readiness(questions).await);
    if talks {
        let (trip, refused) = round_trip(endpoint, name).await;
        checks.push(trip);
        if refused {
            // As who we come we may not play the others either, and nothing was sent that could be left.
            let why = "not looked at: see the round-trip";
            checks.extend(["wake-up", "clean-up"].map(|name| skipped(name, why)));
        } else {
            let woken = wake_up(endpoint, name, *readers).await;
            let left = clean(endpoint, name, *readers).await;
            checks.extend([woken, left]);
        }
    } else {
        let why = "not looked at: the mailbox cannot be talked to";
        checks.extend(["round-trip", "wake-up", "clean-up"].map(|name| skipped(name, why)));
    }
    let healthy = checks.iter().all(|check| check.verdict != Verdict::Failed);
    Diagnosis { url: endpoint.url(), healthy, checks }
}

/// Is it there, does it let us in, does it speak our language?
async fn introduce(endpoint: &Endpoint) -> Vec<Check> {
    let started = Instant::now();
    let params = json!({
        "protocolVersion": REVISION,
        "capabilities": {},
        "clientInfo": { "name": "mcp-messaging-doctor", "version": env!("CARGO_PKG_VERSION") },
    });
    let answer = endpoint.ask("initialize", params, Duration::ZERO).await;
    let took = in_ms(started.elapsed());
    let rest = |names: &[&'static str], why| names.iter().map(|name| skipped(name, why)).collect();
    let not_there: &str = "not looked at: nobody answers";
    let mut checks: Vec<Check>;
    let welcome = match answer {
        Ok(welcome) => welcome,
        Err(Failure::Status { status, said })
            if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status) =>
        {
            checks = vec![ok("reach", format!("answered in {took} ms"))];
            let seen = format!("HTTP {status}: {said}");
            checks.push(match (status, endpoint.has_key()) {
                (StatusCode::UNAUTHORIZED, false) => {
                    failed("auth", seen, "It asks who you are: give --key or MCP_MESSAGING_KEY, or --make-key where its master keys are")
                }
                (StatusCode::UNAUTHORIZED, true) => failed(
                    "auth",
                    seen,
                    "It does not take this credential: see whether it is whole and has not expired; a key must be made with a master key that the servers have, a token be one for this server",
                ),
                _ => failed(
                    "auth",
                    seen,
                    "Add the name in the URL to http.allowed_hosts, see what the credential may do, or come through the proxy that asks for certificates",
                ),
            });
            checks.push(skipped("protocol", "not looked at: we are not let in"));
            return checks;
        }
        Err(failure @ Failure::NoAnswer(_)) => {
            let fix = "See whether a server or a balancer listens there, by its address and port";
            checks = vec![failed("reach", failure, fix)];
            checks.extend::<Vec<Check>>(rest(&["auth", "protocol"], not_there));
            return checks;
        }
        Err(failure @ (Failure::Status { .. } | Failure::NotMcp(_) | Failure::Refused(_))) => {
            let fix = "Something answers that is no mailbox: the path of the endpoint is /mcp, and a proxy must hand POST on";
            checks = vec![failed("reach", failure, fix)];
            checks.extend::<Vec<Check>>(rest(&["auth", "protocol"], not_there));
            return checks;
        }
    };
    let server = &welcome["serverInfo"];
    let said = |name: &str| server[name].as_str().unwrap_or("?").to_owned();
    let seen = format!("{} {} answered in {took} ms", said("name"), said("version"));
    checks = vec![Check { milliseconds: Some(took), ..ok("reach", seen) }];
    checks.push(ok(
        "auth",
        if endpoint.has_key() { "the credential is taken" } else { "no credential was asked for" }
            .to_owned(),
    ));
    checks.push(protocol(endpoint, welcome["protocolVersion"].as_str().unwrap_or("none")).await);
    checks
}

async fn protocol(endpoint: &Endpoint, revision: &str) -> Check {
    const FIX: &str = "See that the URL is that of mcp-messaging and not of another MCP server";
    let tools = match endpoint.ask("tools/list", json!({}), Duration::ZERO).await {
        Ok(list) => list["tools"].as_array().cloned().unwrap_or_default(),
        Err(failure) => return failed("protocol", failure, FIX),
    };
    let has = |name: &&str| tools.iter().any(|tool| tool["name"] == **name);
    if revision != REVISION || !TOOLS.iter().all(has) {
        let seen = format!(
            "it speaks revision {revision} and offers {} tools, not those of a mailbox",
            tools.len()
        );
        return failed("protocol", seen, FIX);
    }
    ok("protocol", format!("it speaks revision {revision} and offers {} tools", tools.len()))
}

/// Is the replica that answers ready, and if not, why?
async fn readiness(Questions { endpoint, ops, .. }: &Questions) -> Check {
    const NAME: &str = "readiness";
    let asked = ops.as_ref().unwrap_or(endpoint).beside("/readyz");
    match asked.get().await {
        Ok((StatusCode::OK, said)) if said.trim() == "ok" => {
            ok(NAME, "the replica and its store are ready".to_owned())
        }
        Ok((StatusCode::SERVICE_UNAVAILABLE, said)) => {
            failed(NAME, said.trim(), "The log of the replica has the cause")
        }
        Ok(_) => skipped(NAME, "/readyz is not served here; --ops-url says where it is"),
        Err(failure) if ops.is_some() => failed(NAME, failure, "See --ops-url"),
        Err(_) => skipped(NAME, "nobody answers; --ops-url says where /readyz is served"),
    }
}

async fn send(endpoint: &Endpoint, from: &str, to: &str, text: &str) -> Result<(), Failure> {
    let message = json!({
        "sender_id": from, "recipient_id": to, "message": text, "ttl_seconds": LIFE_SECONDS,
    });
    endpoint.call("send_message", message, Duration::ZERO).await.map(|_sent| ())
}

/// The texts in an inbox, after at most such a wait.
async fn take(endpoint: &Endpoint, whose: &str, wait: Duration) -> Result<Vec<String>, Failure> {
    let fetch = json!({ "client_id": whose, "wait_seconds": wait.as_secs() });
    let mail = endpoint.call("get_messages", fetch, wait).await?;
    let messages = mail["messages"].as_array().into_iter().flatten();
    Ok(messages.filter_map(|message| message["text"].as_str().map(str::to_owned)).collect())
}

/// A message from one to the other, and whether the credential was refused that it was sent with.
async fn round_trip(endpoint: &Endpoint, name: &str) -> (Check, bool) {
    const NAME: &str = "round-trip";
    let (from, to) = (format!("{name}.a"), format!("{name}.b"));
    let started = Instant::now();
    if let Err(failure) = send(endpoint, &from, &to, name).await {
        let refused = match &failure {
            Failure::Status { status, .. } => *status == StatusCode::FORBIDDEN,
            Failure::Refused(said) => said.contains("your credential"),
            Failure::NoAnswer(_) | Failure::NotMcp(_) => false,
        };
        let fix = if refused {
            "The credential must be one for doctor.*, to read and to send: mcp-messaging keys issue --client 'doctor.*' makes such a key"
        } else {
            "The store does not take messages: see readiness, and the log"
        };
        return (failed(NAME, failure, fix), refused);
    }
    let check = match take(endpoint, &to, Duration::ZERO).await {
        Ok(texts) if texts == [name] => {
            let took = in_ms(started.elapsed());
            let seen = format!("a message was sent and read in {took} ms");
            Check { milliseconds: Some(took), ..ok(NAME, seen) }
        }
        Ok(texts) => {
            let fix = "Replicas do not share a store: give all of them the same REDIS_URL";
            failed(NAME, format!("sent one message, and read {} of it", texts.len()), fix)
        }
        Err(failure) => failed(NAME, failure, "Messages are taken and not given out: see the log"),
    };
    (check, false)
}

/// Readers that wait, each on a connection of its own, and a message to each over another one.
async fn wake_up(endpoint: &Endpoint, name: &str, readers: usize) -> Check {
    const NAME: &str = "wake-up";
    let pairs = (0..readers).map(|number| async move {
        let reader = format!("{name}.{number}");
        let wait = take(endpoint, &reader, WAIT);
        let written = async {
            tokio::time::sleep(SETTLE).await;
            let sent = send(endpoint, &format!("{name}.a"), &reader, "wake up").await;
            sent.map(|()| Instant::now())
        };
        let got = async { (wait.await, Instant::now()) };
        let ((got, at), sent) = tokio::join!(got, written);
        let (got, sent) = (got?, sent?);
        Ok::<_, Failure>((!got.is_empty()).then(|| at.saturating_duration_since(sent)))
    });
    let mut slowest = Duration::ZERO;
    let (mut woken, mut asleep) = (0, 0);
    for pair in join_all(pairs).await {
        match pair {
            Ok(Some(took)) if took <= WOKEN_WITHIN => {
                woken += 1;
                slowest = slowest.max(took);
            }
            Ok(_) => asleep += 1,
            Err(failure) => {
                let fix = "A proxy may cut calls that wait: see docs/proxies.md";
                return failed(NAME, failure, fix);
            }
        }
    }
    if asleep > 0 {
        let seen = format!("{asleep} of {readers} waiting readers were not woken for their mail");
        let fix = "Replicas do not hear of each other's messages: the Redis user needs PUBLISH and the channels mb1:*, and what stands between must pass pub/sub";
        return failed(NAME, seen, fix);
    }
    let took = in_ms(slowest);
    let seen = format!(
        "{woken} waiting readers, each on a connection of its own, were woken within {took} ms"
    );
    Check { milliseconds: Some(took), ..ok(NAME, seen) }
}

/// Takes away what is left, if a check broke off.
async fn clean(endpoint: &Endpoint, name: &str, readers: usize) -> Check {
    const NAME: &str = "clean-up";
    let numbered = (0..readers).map(|number| format!("{name}.{number}"));
    let inboxes: Vec<String> =
        [format!("{name}.a"), format!("{name}.b")].into_iter().chain(numbered).collect();
    let mut left = 0;
    for inbox in &inboxes {
        // The first look may find mail; the second must not.
        let looks = [
            take(endpoint, inbox, Duration::ZERO).await,
            take(endpoint, inbox, Duration::ZERO).await,
        ];
        left += usize::from(!matches!(&looks[1], Ok(texts) if texts.is_empty()));
    }
    if left == 0 {
        return ok(NAME, "no probe is left".to_owned());
    }
    let seen = format!("{left} probes may be left");
    failed(NAME, seen, "They expire within a minute")
}
