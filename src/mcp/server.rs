//! From a body to what is to be done: the order of the checks is the protocol's.

mod sort;

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::sort::Sorted;
use super::{
    call::{Batch, BatchItem, Frame, PreparedCall},
    discover,
    error::McpError,
    headers::Headers,
    jsonrpc::{self, Body, Id, Message, Rejected, Request},
    listen::PreparedListen,
    method::Method,
    offer::{Lists, Offer},
    operation::Operation,
    progress::Progress,
    result::{self, Writer},
    revision::Era,
    select::{notified, select},
};
use crate::{
    dialogue::{self, AskError, RequestKey},
    model::Scopes,
    queue::CallKey,
    telemetry::Metrics,
};

/// The protocol on what a server offers. Cheap to clone.
#[derive(Clone)]
pub struct McpServer {
    parts: Arc<Parts>,
}

struct Parts {
    offer: Offer,
    lists: Lists,
    /// See [`result::info`].
    info: String,
    discover: String,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

/// What is to be done about a body.
pub enum Incoming {
    /// Write this.
    Answer(Answer),
    /// Nothing to write: 202.
    Accepted,
    /// Tell the call that its client gave it up ([`McpServer::cancel`]), then as `Accepted`.
    Cancel(CallKey),
    /// Run it.
    Call(Box<PreparedCall>),
    /// Begin it. It is answered as a stream.
    Listen(Box<PreparedListen>),
    /// Take it to who waits for it ([`McpServer::replied`]), then as `Accepted`.
    Reply(Reply),
    /// Run it.
    Batch(Batch),
}

/// What a client answered to a request of ours.
#[derive(Debug)]
pub struct Reply {
    request: RequestKey,
    answer: dialogue::Answer,
}

/// An answer that needed nothing to be run.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The JSON-RPC message.
    pub body: Bytes,
    /// `Mcp-Session-Id` to be minted.
    pub session: Option<String>,
    /// The scopes that the caller's credential lacks.
    pub lacking: Option<Scopes>,
    /// To be dropped by whoever has written the answer.
    pub operation: Operation,
}

impl McpServer {
    /// Serves `offer`. Waits end with "ask again", and subscriptions end, once `stop` is cancelled.
    #[must_use]
    pub fn new(offer: Offer, metrics: Arc<Metrics>, stop: CancellationToken) -> Self {
        let parts = Parts {
            lists: offer.lists(),
            info: result::info(offer.name, offer.version),
            discover: discover::discover(&offer),
            offer,
            metrics,
            stop,
        };
        Self { parts: Arc::new(parts) }
    }

    pub(super) fn offer(&self) -> &Offer {
        &self.parts.offer
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.parts.metrics
    }

    /// See [`result::info`].
    pub(super) fn info(&self) -> &str {
        &self.parts.info
    }

    pub(super) fn writer<'a>(&'a self, frame: Frame, id: &'a str, era: Era) -> Writer<'a> {
        Writer { frame, id, era, info: &self.parts.info }
    }

    /// Sorts the body of a POST. Nothing is run yet.
    #[must_use]
    pub fn receive(&self, headers: &Headers<'_>, body: &[u8]) -> Incoming {
        match Body::read(body) {
            Ok(Body::One(text)) => self.one(headers, text),
            Ok(Body::Batch(items)) => self.batch(headers, &items),
            Err(error) => refuse(self.begin(), None, &error, Era::Legacy),
        }
    }

    /// Tells a call that its client gave it up. A failure is logged: a cancel is a courtesy.
    pub async fn cancel(&self, call: &CallKey) {
        let Some(cancellations) = &self.parts.offer.cancellations else { return };
        if let Err(error) = cancellations.cancel(call).await {
            tracing::warn!(error = %error, "routing a cancellation failed");
        }
    }

    /// Takes a client's answer to who asked it.
    pub async fn replied(&self, reply: Reply) {
        if let Some(rendezvous) = &self.parts.offer.rendezvous {
            rendezvous.answer(reply.request, reply.answer).await;
        }
    }

    fn begin(&self) -> Operation {
        Operation::begin(&self.parts.metrics)
    }

    fn batch(&self, headers: &Headers<'_>, items: &[&RawValue]) -> Incoming {
        let version = headers.protocol_version.text("MCP-Protocol-Version");
        if !matches!(version, Ok(None | Some("2025-03-26"))) {
            let error =
                McpError::InvalidRequest("only revision 2025-03-26 has batches; send one message");
            return refuse(self.begin(), None, &error, Era::Legacy);
        }
        let mut todo = Vec::with_capacity(items.len());
        for item in items {
            let message = jsonrpc::read(item.get());
            if let Ok(Message::Request(Request { id, method, .. })) = &message
                && method == "initialize"
            {
                let error = McpError::InvalidRequest("initialize must not be in a batch");
                let id = Some(id.as_json());
                let body = result::error(Frame::default(), id, &error, Era::Legacy);
                drop(self.begin().fail(200, &error));
                todo.push(BatchItem::Answer(body));
                continue;
            }
            match self.message(headers, message) {
                Incoming::Answer(answer) => todo.push(BatchItem::Answer(answer.body)),
                Incoming::Cancel(call) => todo.push(BatchItem::Cancel(call)),
                Incoming::Call(call) => todo.push(BatchItem::Call(call)),
                Incoming::Reply(reply) => todo.push(BatchItem::Reply(reply)),
                // Batches are legacy: a subscription is not, and a message of a batch is never one itself.
                Incoming::Accepted | Incoming::Listen(_) | Incoming::Batch(_) => {}
            }
        }
        if todo.is_empty() {
            return Incoming::Accepted;
        }
        Incoming::Batch(Batch { server: self.clone(), items: todo })
    }

    fn one(&self, headers: &Headers<'_>, text: &str) -> Incoming {
        self.message(headers, jsonrpc::read(text))
    }

    fn message(
        &self,
        headers: &Headers<'_>,
        message: Result<Message<'_>, Rejected<'_>>,
    ) -> Incoming {
        match message {
            Ok(Message::Request(request)) => self.request(headers, &request),
            Ok(Message::Notification { method, params }) => notified(headers, &method, params),
            Ok(Message::Response { id, answer }) => self.reply(headers, id, answer),
            Err(Rejected { id, error }) => refuse(self.begin(), id, &error, Era::Legacy),
        }
    }

    /// An answer is never refused: nobody would read the refusal.
    fn reply(
        &self,
        headers: &Headers<'_>,
        id: Option<Id<'_>>,
        answer: Result<&RawValue, &RawValue>,
    ) -> Incoming {
        let (Some(_), Some(session), Some(id)) =
            (&self.parts.offer.rendezvous, headers.session(), id)
        else {
            return Incoming::Accepted;
        };
        // Ours are strings.
        let Ok(id) = serde_json::from_str(id.as_json()) else { return Incoming::Accepted };
        let answer = match answer {
            Ok(result) => serde_json::from_str(result.get()).map_err(|_| AskError::NoWay),
            Err(error) => Err(serde_json::from_str(error.get()).map_or(
                AskError::NoWay,
                |Refusal { code, message }| AskError::Refused { code, message },
            )),
        };
        Incoming::Reply(Reply { request: RequestKey { session: session.to_owned(), id }, answer })
    }

    fn request(&self, headers: &Headers<'_>, request: &Request<'_>) -> Incoming {
        let mut operation = self.begin();
        let method = Method::named(&request.method);
        operation.is(method);
        // What is not served is not found, whatever it names.
        let mirrored = method.mirrored().filter(|_| self.parts.offer.serves(method, Era::Modern));
        let selected = request
            .params
            .meta()
            .and_then(|meta| Ok((select(headers, method, mirrored, request, &meta)?, meta)));
        let (revision, meta) = match selected {
            Ok(selected) => selected,
            Err(error) => return refuse(operation, Some(request.id), &error, Era::Legacy),
        };
        operation.speaks(revision);
        let era = revision.era();
        match self.sort(headers, request, method, revision, &meta, &mut operation) {
            Ok(Sorted::Members(members, freshness)) => {
                let writer = self.writer(Frame::default(), request.id.as_json(), era);
                let body = writer.rendered(freshness, &members);
                // Opaque and stored nowhere: it only routes the cancellation of this client's calls.
                let session =
                    (method == Method::Initialize).then(|| Uuid::now_v7().simple().to_string());
                let operation = operation.finish(200, "");
                Incoming::Answer(Answer { status: 200, body, session, lacking: None, operation })
            }
            Ok(Sorted::Work { work, waits, context, messages }) => {
                // Who converses reports its progress itself.
                let progress = match messages {
                    None => meta.progress_token().map(Progress::new),
                    Some(_) => None,
                };
                let call = PreparedCall {
                    server: self.clone(),
                    work,
                    waits,
                    context,
                    id: request.id.as_json().into(),
                    era,
                    progress,
                    messages,
                    operation,
                };
                Incoming::Call(Box::new(call))
            }
            Ok(Sorted::Listen { wanted, context }) => {
                let (server, id) = (self.clone(), request.id.as_json().into());
                let until = context.stop.clone();
                let listen = PreparedListen { server, wanted, context, id, until, operation };
                Incoming::Listen(Box::new(listen))
            }
            Err(error) => refuse(operation, Some(request.id), &error, era),
        }
    }
}

/// The `error` of a client's answer.
#[derive(Deserialize)]
struct Refusal {
    code: i64,
    message: String,
}

fn refuse(operation: Operation, id: Option<Id<'_>>, error: &McpError, era: Era) -> Incoming {
    let status = error.status(era);
    let body = result::error(Frame::default(), id.map(Id::as_json), error, era);
    Incoming::Answer(Answer {
        status,
        body,
        session: None,
        lacking: error.lacking(),
        operation: operation.fail(status, error),
    })
}
