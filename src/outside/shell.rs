//! Sending and receiving by hand: for shells, scripts and CI jobs.

use std::{io, time::Duration};

use serde_json::{Map, Value, json};

use super::client::{Endpoint, Failure};

/// What was asked for did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// The mailbox refused, or did not answer.
    #[error("{0}")]
    Mailbox(String),
    /// What came could not be written. It was not acknowledged, and comes again.
    #[error("not written, so it stays in the inbox: {0}")]
    Output(#[from] io::Error),
}

impl From<Failure> for ShellError {
    fn from(failure: Failure) -> Self {
        Self::Mailbox(failure.to_string())
    }
}

/// A message.
#[derive(Debug)]
pub struct Letter {
    /// From whom. `None`: the identity that the key proves.
    pub from: Option<String>,
    /// To whom; one or several.
    pub to: Vec<String>,
    /// What is sent.
    pub text: String,
    /// Wait so long for the answer; for one recipient.
    pub wait: Option<Duration>,
    /// The message that it answers.
    pub in_reply_to: Option<String>,
    /// The same key again is the same message again.
    pub idempotency_key: Option<String>,
    /// Its life, in seconds.
    pub ttl: Option<u64>,
}

/// What a tool said, in both forms.
#[derive(Debug)]
pub struct Said {
    /// For people.
    pub text: String,
    /// For programs.
    pub data: Value,
}

impl Said {
    fn of(mut result: Value) -> Self {
        let text = result["content"][0]["text"].as_str().unwrap_or_default().trim_end().to_owned();
        Self { text, data: result["structuredContent"].take() }
    }

    /// One of them, as it is printed.
    #[must_use]
    pub fn shown(&self, json: bool) -> String {
        if json { self.data.to_string() } else { self.text.clone() }
    }
}

/// Arguments of a tool: those that were given.
fn arguments<const N: usize>(given: [(&str, Option<Value>); N]) -> Value {
    let given = given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(given.collect::<Map<_, _>>())
}

/// Sends a letter, and waits for its answer if it asks for one. Also: whether what was asked for is there, the answer, or
/// the acceptance for each recipient.
///
/// # Errors
/// [`ShellError::Mailbox`]: it was refused. If the mailbox did not answer, it may have been accepted all the same: with an
/// idempotency key it is safe to send it again.
pub async fn send(endpoint: &Endpoint, letter: &Letter) -> Result<(Said, bool), ShellError> {
    let to = match letter.to.as_slice() {
        [one] => ("recipient_id", Some(json!(one))),
        several => ("recipients", Some(json!(several))),
    };
    let waits = letter.wait.unwrap_or_default();
    let given = arguments([
        ("sender_id", letter.from.as_ref().map(|id| json!(id))),
        to,
        ("message", Some(json!(letter.text))),
        ("in_reply_to", letter.in_reply_to.as_ref().map(|id| json!(id))),
        ("idempotency_key", letter.idempotency_key.as_ref().map(|key| json!(key))),
        ("ttl_seconds", letter.ttl.map(|seconds| json!(seconds))),
        ("timeout", letter.wait.map(|wait| json!(wait.as_secs()))),
    ]);
    let tool = if letter.wait.is_some() { "send_message_and_wait" } else { "send_message" };
    let said = Said::of(endpoint.call_tool(tool, given, waits).await?);
    let done = if letter.wait.is_some() {
        said.data["status"] == "replied"
    } else {
        let each = said.data["results"].as_array();
        each.is_some_and(|each| each.iter().all(|one| one["status"] != "refused"))
    };
    Ok((said, done))
}

/// Takes all that waits for `client` (`None`: the identity that the key proves), or waits so long for the first message.
/// Each portion is handed to `show`, and acknowledged once that has returned: what was not shown comes again. Returns how many
/// messages there were.
///
/// # Errors
/// [`ShellError`].
pub async fn receive(
    endpoint: &Endpoint,
    client: Option<&str>,
    wait: Duration,
    mut show: impl FnMut(&Said) -> io::Result<()>,
) -> Result<usize, ShellError> {
    let (mut receipt, mut waits, mut total) = (None::<Value>, wait, 0);
    loop {
        let given = arguments([
            ("client_id", client.map(|id| json!(id))),
            ("wait_seconds", Some(json!(waits.as_secs()))),
            ("ack", Some(json!("manual"))),
            ("receipt", receipt.take()),
        ]);
        let said = Said::of(endpoint.call_tool("get_messages", given, waits).await?);
        let count = said.data["messages"].as_array().map_or(0, Vec::len);
        let notices = said.data["notices"].as_array().is_some_and(|notices| !notices.is_empty());
        total += count;
        if count > 0 || notices {
            show(&said)?;
        }
        waits = Duration::ZERO;
        receipt = said.data.get("receipt").filter(|receipt| receipt.is_string()).cloned();
        if receipt.is_none() {
            return Ok(total);
        }
    }
}
