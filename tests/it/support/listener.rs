//! A client that listens.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Agent, Replica};

/// How long what must come may take: less than it takes to look at an inbox that nobody spoke of.
const PATIENCE: Duration = Duration::from_secs(15);

/// The stream of a `subscriptions/listen`.
pub(crate) struct Listener {
    answer: reqwest::Response,
    read: String,
}

impl Listener {
    /// Listens to these resources, all of which must be honoured.
    pub(crate) async fn to(replica: &Replica, uris: &[&str]) -> Self {
        let mut listener = Self::ask(replica, uris).await;
        let first = listener.next().await.expect("an acknowledgement");
        assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
        assert_eq!(first["params"]["notifications"]["resourceSubscriptions"], json!(uris));
        listener
    }

    /// Asks for these resources, whatever of them is honoured.
    pub(crate) async fn ask(replica: &Replica, uris: &[&str]) -> Self {
        Self::of(&replica.agent("listener"), uris).await
    }

    /// The same as this agent.
    pub(crate) async fn of(agent: &Agent, uris: &[&str]) -> Self {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {}});
        let body = json!({"jsonrpc": "2.0", "id": "listen:0", "method": "subscriptions/listen",
            "params": {"_meta": meta, "notifications": {"resourceSubscriptions": uris}}});
        let answer = agent
            .post()
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "subscriptions/listen")
            .json(&body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        Self { answer, read: String::new() }
    }

    /// The next message; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        self.next_within(PATIENCE).await
    }

    /// The next message, which may take so long; `None` at the end of the stream.
    pub(crate) async fn next_within(&mut self, patience: Duration) -> Option<Value> {
        timeout(patience, self.message()).await.expect("something happens")
    }

    async fn message(&mut self) -> Option<Value> {
        loop {
            while let Some(end) = self.read.find("\n\n") {
                let event: String = self.read.drain(..end + 2).collect();
                if let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) {
                    return Some(serde_json::from_str(data).unwrap());
                }
            }
            let chunk = self.answer.chunk().await.unwrap()?;
            self.read.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The URI of the update that must come now.
    pub(crate) async fn updated(&mut self) -> String {
        let message = self.next().await.expect("an update");
        assert_eq!(message["method"], "notifications/resources/updated", "{message}");
        message["params"]["uri"].as_str().unwrap().to_owned()
    }

    /// Fails if something comes within this time.
    pub(crate) async fn silent(&mut self, within: Duration) {
        if let Ok(message) = timeout(within, self.message()).await {
            panic!("silence expected, not {message:?}");
        }
    }
}
