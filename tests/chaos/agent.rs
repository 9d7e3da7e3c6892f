//! A client of the tools, which goes to another replica when one fails it.

use std::{net::SocketAddr, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    Outcome as Fallible,
    history::{self, Batch, Got, Micros, Outcome, Recorder},
};

/// A call may take so much longer than it asked to wait: more than any fault lasts, so that it is the
/// server that ends it. (A client that hangs up may miss what its kernel took for it.)
const GRACE: Duration = Duration::from_secs(45);
/// A client that was failed tries again after this.
const PAUSE: Duration = Duration::from_millis(100);

/// One agent.
pub(crate) struct Agent {
    pub id: String,
    pub chance: StdRng,
    pub recorder: Recorder,
    http: reqwest::Client,
    replicas: Vec<SocketAddr>,
    at: usize,
}

/// How a send is made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Letter<'a> {
    pub to: &'a str,
    pub text: &'a str,
    /// Accept it once, so that it may be repeated.
    pub key: Option<&'a str>,
    /// The question that it answers, by its id.
    pub answers: Option<&'a str>,
    pub ttl: Option<u64>,
}

/// An answer to a fetch.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    pub messages: Vec<Got>,
    pub receipt: Option<String>,
}

impl Agent {
    /// Its chances follow from the seed and its name.
    pub(crate) fn new(id: &str, replicas: &[SocketAddr], recorder: &Recorder, seed: u64) -> Self {
        let mut own = [0; 32];
        own[..8].copy_from_slice(&seed.to_le_bytes());
        for (index, byte) in id.bytes().enumerate() {
            own[8 + index % 24] ^= byte.rotate_left(u32::try_from(index / 24).unwrap_or_default());
        }
        let mut chance = StdRng::from_seed(own);
        let at = chance.random_range(0..replicas.len());
        let (recorder, replicas) = (recorder.clone(), replicas.to_vec());
        Self { id: id.to_owned(), chance, recorder, http: reqwest::Client::new(), replicas, at }
    }

    /// Where it would go now; then somewhere else.
    pub(crate) fn next_replica(&mut self) -> SocketAddr {
        self.at = self.chance.random_range(0..self.replicas.len());
        self.replicas[self.at]
    }

    /// The structured content of a tool call. An error: no answer, or a failure of the server.
    async fn call(&mut self, tool: &str, arguments: Value, wait: u64) -> Fallible<Value> {
        let answer = self.http.post(format!("http://{}/mcp", self.replicas[self.at]));
        let answer = answer
            .header("accept", "application/json, text/event-stream")
            .timeout(GRACE + Duration::from_secs(wait))
            .json(&request(tool, &arguments));
        let read = async {
            let text = answer.send().await?.text().await?;
            Fallible::Ok(content(&text))
        };
        let answer = match read.await {
            Ok(Err(error)) => {
                self.recorder.with(|history| history.errors += 1);
                Err(error)
            }
            Ok(Ok(content)) => Ok(content),
            Err(gone) => Err(gone),
        };
        if answer.is_err() {
            self.at = (self.at + 1) % self.replicas.len();
            sleep(PAUSE).await;
        }
        answer
    }

    /// Sends once, and takes down what came of it.
    pub(crate) async fn send(&mut self, letter: &Letter<'_>) -> Outcome {
        let mut arguments =
            json!({"sender_id": self.id, "recipient_id": letter.to, "message": letter.text});
        let optional = [
            ("idempotency_key", letter.key.map(Value::from)),
            ("in_reply_to", letter.answers.map(Value::from)),
            ("ttl_seconds", letter.ttl.map(Value::from)),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                arguments[name] = value;
            }
        }
        let invoked = self.recorder.now();
        let answer = self.call("send_message", arguments, 0).await;
        let outcome = match &answer {
            Ok(content) => {
                self.note_notices(content);
                told(&content["results"][0])
            }
            Err(_) => Outcome::Unknown,
        };
        self.note(letter.to, letter.text, letter.answers.is_none(), invoked, outcome.clone());
        outcome
    }

    fn note(&self, to: &str, text: &str, in_order: bool, invoked: Micros, outcome: Outcome) {
        let send = history::Send {
            text: text.to_owned(),
            from: self.id.clone(),
            inbox: to.to_owned(),
            in_order,
            invoked,
            completed: self.recorder.now(),
            outcome,
        };
        self.recorder.with(|history| history.sends.push(send));
    }

    /// Asks and waits so many seconds. The id of the question and its answer, if there is one.
    pub(crate) async fn ask(&mut self, to: &str, text: &str, wait: u64) -> Option<(String, Got)> {
        let arguments =
            json!({"sender_id": self.id, "recipient_id": to, "message": text, "timeout": wait});
        let invoked = self.recorder.now();
        let answer = self.call("send_message_and_wait", arguments, wait).await;
        let outcome = match &answer {
            Ok(content) => match content["message_id"].as_str() {
                Some(_) if content["unconfirmed"] == true => Outcome::Unknown,
                Some(id) => Outcome::Acknowledged(id.to_owned()),
                None => Outcome::Refused,
            },
            Err(_) => Outcome::Unknown,
        };
        // The wait is no time without acceptance, and no order follows from its end.
        self.note(to, text, false, invoked, outcome.clone());
        let (Ok(content), Outcome::Acknowledged(id)) = (answer, outcome) else { return None };
        self.note_notices(&content);
        let reply = got(&content["reply"])?;
        self.note_batch(invoked, vec![reply.clone()]);
        Some((id, reply))
    }

    /// Fetches, waiting so many seconds, and takes down what came.
    pub(crate) async fn fetch(
        &mut self,
        wait: u64,
        most: u64,
        manual: bool,
        receipt: Option<&str>,
    ) -> Fallible<Fetched> {
        let arguments = fetch_arguments(&self.id, wait, most, manual, receipt);
        let invoked = self.recorder.now();
        let content = self.call("get_messages", arguments, wait).await?;
        Ok(self.note_fetched(invoked, &content))
    }

    /// Takes down the answer of a fetch that began then.
    pub(crate) fn note_fetched(&self, invoked: Micros, content: &Value) -> Fetched {
        let messages = content["messages"].as_array().into_iter().flatten();
        let messages: Vec<Got> = messages.filter_map(got).collect();
        self.note_batch(invoked, messages.clone());
        self.note_notices(content);
        let receipt = content["receipt"].as_str().map(str::to_owned);
        Fetched { messages, receipt }
    }

    fn note_batch(&self, invoked: Micros, messages: Vec<Got>) {
        if !messages.is_empty() {
            let (inbox, completed) = (self.id.clone(), self.recorder.now());
            let batch = Batch { inbox, invoked, completed, messages };
            self.recorder.with(|history| history.batches.push(batch));
        }
    }

    fn note_notices(&self, content: &Value) {
        let notices = content["notices"].as_array().into_iter().flatten();
        let ids = notices.filter_map(|notice| notice["message_id"].as_str().map(str::to_owned));
        let ids: Vec<String> = ids.collect();
        self.recorder.with(|history| history.expired.extend(ids));
    }
}

/// The arguments of `get_messages`.
pub(crate) fn fetch_arguments(
    id: &str,
    wait: u64,
    most: u64,
    manual: bool,
    receipt: Option<&str>,
) -> Value {
    let ack = if manual { "manual" } else { "auto" };
    let mut arguments =
        json!({"client_id": id, "wait_seconds": wait, "max_messages": most, "ack": ack});
    if let Some(receipt) = receipt {
        arguments["receipt"] = receipt.into();
    }
    arguments
}

/// A call of a tool as it goes over the wire.
pub(crate) fn request(tool: &str, arguments: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": tool, "arguments": arguments}})
}

/// The structured content in a body, be it JSON or a stream of events.
pub(crate) fn content(body: &str) -> Fallible<Value> {
    let mut events = body.lines().filter_map(|line| line.strip_prefix("data: "));
    let json = events.next_back().unwrap_or(body);
    let answer: Value = serde_json::from_str(json).map_err(|_| "no whole answer")?;
    match answer.get("result") {
        Some(result) => Ok(result["structuredContent"].clone()),
        None => Err(answer["error"].to_string().into()),
    }
}

/// What became of one message of a send.
fn told(result: &Value) -> Outcome {
    // Accepted, but not yet where this level of durability wants it.
    if result["unconfirmed"] == true {
        return Outcome::Unknown;
    }
    match (result["status"].as_str(), result["message_id"].as_str()) {
        (Some("queued" | "replied" | "duplicate"), Some(id)) => {
            Outcome::Acknowledged(id.to_owned())
        }
        // Refused with an id: it may have been accepted all the same.
        (Some("refused"), None) => Outcome::Refused,
        _ => Outcome::Unknown,
    }
}

fn got(message: &Value) -> Option<Got> {
    let word = |name: &str| message[name].as_str().map(str::to_owned);
    Some(Got {
        text: word("text")?,
        from: word("from")?,
        id: word("message_id")?,
        accepted: word("sent_at")?,
        redelivered: message["redelivered"] == true,
    })
}
