//! The client's side of a request on the wire: what it sent beside its arguments, and messages to it on
//! the stream of its answer.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    error::McpError,
    headers::Headers,
    meta::{Meta, Params},
    offer::Offer,
    revision::Era,
};
use crate::dialogue::{AskError, Exchange, LogLevel, LogLevels, Rendezvous, RequestKey};

/// Messages that may wait for their stream to take them.
const WAITING: usize = 16;

/// The exchange of one request.
pub(super) struct Wire {
    capabilities: Map<String, Value>,
    inputs: Map<String, Value>,
    state: Option<String>,
    progress_token: Option<Box<str>>,
    logs: Logs,
    session: Option<Box<str>>,
    rendezvous: Option<Arc<dyn Rendezvous>>,
    stream: mpsc::Sender<String>,
}

/// Which log lines the client wants.
enum Logs {
    None,
    From(LogLevel),
    /// It said so before.
    OfSession(Arc<dyn LogLevels>),
}

impl Wire {
    /// The exchange of a request, and the messages that its stream is to carry.
    pub(super) fn open(
        offer: &Offer,
        era: Era,
        headers: &Headers<'_>,
        params: &Params<'_>,
        meta: &Meta<'_>,
    ) -> Result<(Self, mpsc::Receiver<String>), McpError> {
        let (stream, messages) = mpsc::channel(WAITING);
        let progress_token = meta.progress_token().map(Box::from);
        let wire = match era {
            Era::Modern => Self {
                capabilities: meta.capabilities(),
                inputs: params.input_responses()?,
                state: params.request_state()?,
                progress_token,
                logs: match (&offer.logging, meta.log_level()?) {
                    (Some(_), Some(level)) => Logs::From(level),
                    (None, _) | (_, None) => Logs::None,
                },
                session: None,
                rendezvous: None,
                stream,
            },
            Era::Legacy => Self {
                capabilities: Map::new(),
                inputs: Map::new(),
                state: None,
                progress_token,
                logs: offer.logging.clone().map_or(Logs::None, Logs::OfSession),
                session: headers.session().map(Box::from),
                rendezvous: offer.rendezvous.clone(),
                stream,
            },
        };
        Ok((wire, messages))
    }

    async fn notify(&self, method: &str, params: Value) {
        let message = json!({ "jsonrpc": "2.0", "method": method, "params": params });
        // Fails without a stream: then it is left out.
        let _ = self.stream.send(message.to_string()).await;
    }

    async fn wants(&self, level: LogLevel) -> bool {
        match &self.logs {
            Logs::None => false,
            Logs::From(least) => level >= *least,
            Logs::OfSession(levels) => level >= levels.get(self.session.as_deref()).await,
        }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

#[async_trait]
impl Exchange for Wire {
    fn client_can(&self, capability: &str) -> bool {
        self.capabilities.contains_key(capability)
    }

    fn input(&self, key: &str) -> Option<&Value> {
        self.inputs.get(key)
    }

    fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    async fn progress(&self, progress: f64, total: Option<f64>, message: Option<&str>) {
        let Some(token) = &self.progress_token else { return };
        // The token was read from JSON: it is one.
        let token: Value = serde_json::from_str(token).unwrap_or_default();
        let mut params = json!({ "progressToken": token, "progress": progress });
        if let Some(total) = total {
            params["total"] = json!(total);
        }
        if let Some(message) = message {
            params["message"] = json!(message);
        }
        self.notify("notifications/progress", params).await;
    }

    async fn log(&self, level: LogLevel, logger: &str, data: Value) {
        if self.wants(level).await {
            let params = json!({ "level": level.as_str(), "logger": logger, "data": data });
            self.notify("notifications/message", params).await;
        }
    }

    async fn ask(&self, method: &str, params: Value) -> Result<Value, AskError> {
        let (Some(rendezvous), Some(session)) = (&self.rendezvous, &self.session) else {
            return Err(AskError::NoWay);
        };
        let id = Uuid::now_v7().simple().to_string();
        let request =
            json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string();
        let answer = rendezvous.expect(RequestKey { session: session.to_string(), id }).await?;
        self.stream.send(request).await.map_err(|_| AskError::NoWay)?;
        answer.await.map_err(|_| AskError::NoWay)?
    }
}
