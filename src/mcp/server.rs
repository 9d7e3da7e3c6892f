//! From a body to what is to be done: the order of the checks is the protocol's.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    call::{Batch, BatchItem, Frame, PreparedCall},
    discover,
    error::McpError,
    headers::Headers,
    jsonrpc::{self, Body, Id, Message, Rejected, Request},
    meta::{Meta, Params},
    method::Method,
    operation::Operation,
    progress::Progress,
    result::{self, Freshness},
    revision::{Era, Revision},
    tools::Tools,
};
use crate::{
    messaging::{CallContext, MessagingService},
    model::Tenant,
    queue::{CallKey, SessionKey},
    telemetry::Metrics,
    tools::ToolRegistry,
};

/// The protocol on a set of tools. Cheap to clone.
#[derive(Clone)]
pub struct McpServer {
    parts: Arc<Parts>,
}

struct Parts {
    tools: Tools,
    messaging: MessagingService,
    metrics: Arc<Metrics>,
    tenant: Tenant,
    stop: CancellationToken,
    discover: String,
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
    /// Run it.
    Batch(Batch),
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
}

impl McpServer {
    /// Serves `tools`. Waits end with "ask again" once `stop` is cancelled; `messaging` routes
    /// cancellations.
    #[must_use]
    pub fn new(
        tools: ToolRegistry,
        messaging: MessagingService,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Self {
        let (tools, tenant) = (Tools::new(tools), Tenant::default());
        let discover = discover::discover();
        Self { parts: Arc::new(Parts { tools, messaging, metrics, tenant, stop, discover }) }
    }

    /// Sorts the body of a POST. Nothing is run yet.
    #[must_use]
    pub fn receive(&self, headers: &Headers<'_>, body: &[u8]) -> Incoming {
        match Body::read(body) {
            Ok(Body::One(bytes)) => self.one(headers, bytes),
            Ok(Body::Batch(items)) => self.batch(headers, &items),
            Err(error) => refuse(self.begin(), None, &error, Era::Legacy),
        }
    }

    /// Tells a call that its client gave it up. A failure is logged: a cancel is a courtesy.
    pub async fn cancel(&self, call: &CallKey) {
        if let Err(error) = self.parts.messaging.cancel(call).await {
            tracing::warn!(error = %error, "routing a cancellation failed");
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
            match self.one(headers, item.get().as_bytes()) {
                Incoming::Answer(Answer { session: Some(_), .. }) => {
                    let error = McpError::InvalidRequest("initialize must not be in a batch");
                    todo.push(BatchItem::Answer(result::error(Frame::default(), None, &error)));
                }
                Incoming::Answer(answer) => todo.push(BatchItem::Answer(answer.body)),
                Incoming::Cancel(call) => todo.push(BatchItem::Cancel(call)),
                Incoming::Call(call) => todo.push(BatchItem::Call(call)),
                // A message within a batch is never one itself.
                Incoming::Accepted | Incoming::Batch(_) => {}
            }
        }
        if todo.is_empty() {
            return Incoming::Accepted;
        }
        Incoming::Batch(Batch { server: self.clone(), items: todo })
    }

    fn one(&self, headers: &Headers<'_>, bytes: &[u8]) -> Incoming {
        match jsonrpc::read(bytes) {
            Ok(Message::Request(request)) => self.request(headers, &request),
            Ok(Message::Notification { method, params }) => notified(headers, &method, params),
            Ok(Message::Response) => Incoming::Accepted,
            Err(Rejected { id, error }) => refuse(self.begin(), id, &error, Era::Legacy),
        }
    }

    fn request(&self, headers: &Headers<'_>, request: &Request<'_>) -> Incoming {
        let mut operation = self.begin();
        let method = Method::named(&request.method);
        operation.is(method);
        let selected = request
            .params
            .meta()
            .and_then(|meta| Ok((select(headers, method, request, &meta)?, meta)));
        let (revision, meta) = match selected {
            Ok(selected) => selected,
            Err(error) => return refuse(operation, Some(request.id), &error, Era::Legacy),
        };
        operation.speaks(revision);
        let era = revision.era();
        if !method.served_in(era) {
            return refuse(operation, Some(request.id), &McpError::MethodNotFound, era);
        }
        let id = request.id.as_json();
        let (members, freshness): (Cow<'_, str>, _) = match method {
            Method::ToolsCall => {
                return match self.prepare(headers, request, &meta, era, &mut operation) {
                    Ok((tool, arguments, context)) => {
                        let progress = meta.progress_token().map(Progress::new);
                        let id = Box::from(id);
                        let call =
                            PreparedCall { tool, arguments, context, id, era, progress, operation };
                        Incoming::Call(Box::new(call))
                    }
                    Err(error) => refuse(operation, Some(request.id), &error, era),
                };
            }
            Method::ToolsList => match self.parts.tools.list(&request.params) {
                Ok(list) => (list.into(), Freshness::Stable),
                Err(error) => return refuse(operation, Some(request.id), &error, era),
            },
            Method::Discover => (self.parts.discover.as_str().into(), Freshness::Stable),
            Method::Initialize => (discover::initialize(revision).into(), Freshness::Stable),
            Method::Ping | Method::Unknown => ("".into(), Freshness::Call),
        };
        let body = result::rendered(id, era, freshness, &members);
        operation.finish(200, "");
        // Opaque and stored nowhere: it only routes the cancellation of this client's calls.
        let session = (method == Method::Initialize).then(|| Uuid::now_v7().simple().to_string());
        Incoming::Answer(Answer { status: 200, body, session })
    }

    fn prepare(
        &self,
        headers: &Headers<'_>,
        request: &Request<'_>,
        meta: &Meta<'_>,
        era: Era,
        operation: &mut Operation,
    ) -> Result<(Arc<dyn crate::tools::Tool>, crate::tools::Arguments, CallContext), McpError> {
        let name = request.params.name()?;
        let tool = self.parts.tools.find(&name)?;
        operation.calls(tool.name());
        let arguments = request.params.arguments()?;
        let session = match era {
            Era::Legacy => headers.session(),
            Era::Modern => None,
        };
        let context = CallContext {
            tenant: self.parts.tenant.clone(),
            session: session.map(SessionKey::new),
            call: session.map(|session| CallKey::new(session, request.id.as_json())),
            stop: self.parts.stop.clone(),
            trace: meta.trace(headers),
        };
        Ok((Arc::clone(tool), arguments, context))
    }
}

fn refuse(operation: Operation, id: Option<Id<'_>>, error: &McpError, era: Era) -> Incoming {
    let status = error.status(era);
    operation.fail(status, error);
    let body = result::error(Frame::default(), id.map(Id::as_json), error);
    Incoming::Answer(Answer { status, body, session: None })
}

/// A notification is never refused: nobody would read the refusal.
fn notified(headers: &Headers<'_>, method: &str, params: Option<&RawValue>) -> Incoming {
    if method != "notifications/cancelled" {
        return Incoming::Accepted;
    }
    let request = Params::read(params).ok().and_then(|params| params.request_id());
    match (headers.session(), request) {
        (Some(session), Some(id)) => Incoming::Cancel(CallKey::new(session, id.as_json())),
        (None, _) | (_, None) => Incoming::Accepted,
    }
}

/// Which revision a request speaks, or why it cannot be served in any.
fn select(
    headers: &Headers<'_>,
    method: Method,
    request: &Request<'_>,
    meta: &Meta<'_>,
) -> Result<Revision, McpError> {
    if method == Method::Initialize && !meta.names_version() {
        return Ok(discover::negotiated(request.params.protocol_version().as_deref()));
    }
    let header = headers.protocol_version.text("MCP-Protocol-Version")?;
    let named = meta.version()?;
    let (header, named) = match (header, named) {
        (None, None) if method == Method::Discover => {
            return Err(McpError::MalformedParams(
                "_meta io.modelcontextprotocol/protocolVersion is missing",
            ));
        }
        (None, None) => return Ok(Revision::ASSUMED),
        (None, Some(_)) => {
            let why = "MCP-Protocol-Version is missing; send the version of _meta";
            return Err(McpError::HeaderMismatch(why.into()));
        }
        (Some(header), Some(named)) if header != named => {
            let why = "MCP-Protocol-Version differs from the version of _meta";
            return Err(McpError::HeaderMismatch(why.into()));
        }
        (Some(header), named) => (header, named),
    };
    let revision = Revision::named(header).ok_or_else(|| McpError::unsupported(header))?;
    match revision.era() {
        Era::Legacy => {}
        Era::Modern => {
            if named.is_none() {
                return Err(McpError::MalformedParams(
                    "_meta io.modelcontextprotocol/protocolVersion is missing",
                ));
            }
            meta.check_capabilities()?;
            headers.check_method(&request.method)?;
            if method.is_named() {
                headers.check_name(&request.params.name()?)?;
            }
        }
    }
    Ok(revision)
}
