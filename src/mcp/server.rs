//! From a body to what is to be done: the order of the checks is the protocol's.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    call::{Batch, BatchItem, Frame, PreparedCall, Work},
    discover,
    error::McpError,
    headers::Headers,
    jsonrpc::{self, Body, Id, Message, Rejected, Request},
    list::List,
    listen::PreparedListen,
    meta::{Meta, Params},
    method::{Method, Named},
    offer::{Lists, Offer},
    operation::Operation,
    progress::Progress,
    result::{self, Freshness, Writer},
    revision::{Era, Revision},
};
use crate::{
    messaging::CallContext,
    model::Tenant,
    queue::{CallKey, SessionKey},
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
    tenant: Tenant,
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
            tenant: Tenant::default(),
            stop,
        };
        Self { parts: Arc::new(parts) }
    }

    pub(super) fn offer(&self) -> &Offer {
        &self.parts.offer
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
            Ok(Body::One(bytes)) => self.one(headers, bytes),
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
                    let body = result::error(Frame::default(), None, &error, Era::Legacy);
                    todo.push(BatchItem::Answer(body));
                }
                Incoming::Answer(answer) => todo.push(BatchItem::Answer(answer.body)),
                Incoming::Cancel(call) => todo.push(BatchItem::Cancel(call)),
                Incoming::Call(call) => todo.push(BatchItem::Call(call)),
                // Batches are legacy: a subscription is not, and a message of a batch is never one itself.
                Incoming::Accepted | Incoming::Listen(_) | Incoming::Batch(_) => {}
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
        match self.sort(headers, request, method, revision, &meta, &mut operation) {
            Ok(Sorted::Members(members, freshness)) => {
                let writer = self.writer(Frame::default(), request.id.as_json(), era);
                let body = writer.rendered(freshness, &members);
                // Opaque and stored nowhere: it only routes the cancellation of this client's calls.
                let session =
                    (method == Method::Initialize).then(|| Uuid::now_v7().simple().to_string());
                let operation = operation.finish(200, "");
                Incoming::Answer(Answer { status: 200, body, session, operation })
            }
            Ok(Sorted::Work { work, waits, context }) => {
                let (server, id) = (self.clone(), request.id.as_json().into());
                let progress = meta.progress_token().map(Progress::new);
                let call =
                    PreparedCall { server, work, waits, context, id, era, progress, operation };
                Incoming::Call(Box::new(call))
            }
            Ok(Sorted::Listen { resources, context }) => {
                let (server, id) = (self.clone(), request.id.as_json().into());
                let listen = PreparedListen { server, resources, context, id, operation };
                Incoming::Listen(Box::new(listen))
            }
            Err(error) => refuse(operation, Some(request.id), &error, era),
        }
    }

    /// What a request of a known revision comes to.
    fn sort<'a>(
        &'a self,
        headers: &Headers<'_>,
        request: &Request<'_>,
        method: Method,
        revision: Revision,
        meta: &Meta<'_>,
        operation: &mut Operation,
    ) -> Result<Sorted<'a>, McpError> {
        let (offer, lists, params) = (&self.parts.offer, &self.parts.lists, &request.params);
        let era = revision.era();
        if !offer.serves(method, era) {
            return Err(McpError::MethodNotFound);
        }
        let list = |list: &'a List| {
            let page = list.page(params.cursor()?)?;
            Ok(Sorted::Members(Cow::Borrowed(page), Freshness::Stable))
        };
        let context = || CallContext {
            tenant: self.parts.tenant.clone(),
            stop: self.parts.stop.clone(),
            trace: meta.trace(headers),
            session: None,
            call: None,
        };
        match method {
            Method::ToolsCall => {
                let name = params.name()?;
                let tool = offer.tools.get(&name).ok_or_else(|| McpError::unknown_tool(&name))?;
                operation.calls(tool.name());
                let arguments = params.arguments()?;
                let waits = tool.may_wait(&arguments);
                let mut context = context();
                // Only a wait can be given up, or be taken over by another wait of its session.
                if waits
                    && era == Era::Legacy
                    && let Some(session) = headers.session()
                {
                    context.session = Some(SessionKey::new(session));
                    context.call = Some(CallKey::new(session, request.id.as_json()));
                }
                Ok(Sorted::Work { work: Work::Tool(Arc::clone(tool), arguments), waits, context })
            }
            Method::ResourcesRead => {
                let uri = params.uri()?;
                let unknown = || McpError::UnknownResource { uri: uri.clone().into_owned() };
                let resource = Arc::clone(offer.resources.find(&uri).ok_or_else(unknown)?);
                let work = Work::Resource(resource, uri.into());
                Ok(Sorted::Work { work, waits: false, context: context() })
            }
            Method::PromptsGet => {
                let name = params.name()?;
                let prompt =
                    offer.prompts.get(&name).ok_or_else(|| McpError::unknown_prompt(&name))?;
                let work = Work::Prompt(Arc::clone(prompt), params.arguments()?);
                Ok(Sorted::Work { work, waits: false, context: context() })
            }
            Method::Listen => {
                let resources = params.notifications()?.resources;
                Ok(Sorted::Listen { resources, context: context() })
            }
            Method::ToolsList => list(&lists.tools),
            Method::ResourcesList => list(&lists.resources),
            Method::TemplatesList => list(&lists.templates),
            Method::PromptsList => list(&lists.prompts),
            Method::Discover => {
                Ok(Sorted::Members(Cow::Borrowed(&self.parts.discover), Freshness::Stable))
            }
            Method::Initialize => {
                let members = discover::initialize(offer, revision);
                Ok(Sorted::Members(Cow::Owned(members), Freshness::Stable))
            }
            Method::Ping | Method::Unknown => {
                Ok(Sorted::Members(Cow::Borrowed(""), Freshness::Call))
            }
        }
    }
}

/// What a request comes to.
enum Sorted<'a> {
    /// A result with these members.
    Members(Cow<'a, str>, Freshness),
    /// A result that has to be worked for.
    Work {
        work: Work,
        waits: bool,
        context: CallContext,
    },
    Listen {
        resources: Vec<String>,
        context: CallContext,
    },
}

fn refuse(operation: Operation, id: Option<Id<'_>>, error: &McpError, era: Era) -> Incoming {
    let status = error.status(era);
    let body = result::error(Frame::default(), id.map(Id::as_json), error, era);
    Incoming::Answer(Answer {
        status,
        body,
        session: None,
        operation: operation.fail(status, error),
    })
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
            match method.mirrored() {
                Some(Named::Name) => headers.check_name("name", &request.params.name()?)?,
                Some(Named::Uri) => headers.check_name("uri", &request.params.uri()?)?,
                None => {}
            }
        }
    }
    Ok(revision)
}
