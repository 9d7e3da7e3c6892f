//! From a body to what is to be done: the order of the checks is the protocol's.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    call::{Batch, BatchItem, Frame, PreparedCall, Suggester, Work},
    discover,
    error::McpError,
    exchange::Wire,
    headers::Headers,
    jsonrpc::{self, Body, Id, Message, Rejected, Request},
    list::List,
    listen::PreparedListen,
    meta::{Meta, Params, Reference, Wanted},
    method::Method,
    offer::{Lists, Offer},
    operation::Operation,
    progress::Progress,
    result::{self, Freshness, Writer},
    revision::{Era, Revision},
    select::{notified, select},
    task::{self, Inquiry},
};
use crate::{
    dialogue::{self, AskError, RequestKey},
    messaging::CallContext,
    model::Scopes,
    queue::{CallKey, SessionKey},
    resources::ResourceError,
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
            match self.one(headers, item.get()) {
                Incoming::Answer(Answer { session: Some(_), .. }) => {
                    let error = McpError::InvalidRequest("initialize must not be in a batch");
                    let body = result::error(Frame::default(), None, &error, Era::Legacy);
                    todo.push(BatchItem::Answer(body));
                }
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
        match jsonrpc::read(text) {
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
            principal: headers.principal(),
            stop: self.parts.stop.clone(),
            trace: meta.trace(headers),
            takes_tasks: era == Era::Modern
                && offer.tasks.is_some()
                && meta.declares(task::EXTENSION),
            ..CallContext::default()
        };
        let plain =
            |work| Ok(Sorted::Work { work, waits: false, context: context(), messages: None });
        match method {
            Method::ToolsCall => self.sort_call(headers, request, era, meta, context(), operation),
            Method::ResourcesRead => {
                let uri = params.uri()?;
                let unknown = || McpError::from_resource(ResourceError::NotFound, &uri);
                let resource = Arc::clone(offer.resources.find(&uri).ok_or_else(unknown)?);
                headers.check_scopes(resource.scopes())?;
                plain(Work::Resource(resource, uri.into()))
            }
            Method::PromptsGet => {
                let name = params.name()?;
                let prompt =
                    offer.prompts.get(&name).ok_or_else(|| McpError::unknown_prompt(&name))?;
                let work = Work::Prompt(Arc::clone(prompt), params.arguments()?);
                if !prompt.converses() {
                    return plain(work);
                }
                let mut context = context();
                let messages = Some(self.open(headers, params, meta, era, &mut context)?);
                Ok(Sorted::Work { work, waits: true, context, messages })
            }
            Method::Complete => {
                let (reference, argument) = params.completion()?;
                let suggester = self.suggester(reference)?;
                if let Suggester::Resource(resource) = &suggester {
                    headers.check_scopes(resource.scopes())?;
                }
                plain(Work::Complete(suggester, argument))
            }
            Method::SetLevel => {
                let (level, session) = (params.level()?, headers.session().map(str::to_owned));
                plain(Work::SetLevel { level, session })
            }
            Method::Subscribe | Method::Unsubscribe => {
                let uri = params.uri()?.into_owned();
                match offer.resources.find(&uri) {
                    Some(resource) => headers.check_scopes(resource.scopes())?,
                    None => return Err(McpError::from_resource(ResourceError::NotFound, &uri)),
                }
                let wanted = method == Method::Subscribe;
                plain(Work::Subscribe {
                    uri,
                    wanted,
                    session: headers.session().map(str::to_owned),
                })
            }
            Method::Listen => {
                let (wanted, context) = (params.notifications()?, context());
                // "For non-declaring clients requesting task notifications", where there are tasks at all.
                if !wanted.tasks.is_empty() && offer.tasks.is_some() && !context.takes_tasks {
                    return Err(McpError::MissingExtension(task::EXTENSION));
                }
                for resource in wanted.resources.iter().filter_map(|uri| offer.resources.find(uri))
                {
                    headers.check_scopes(resource.scopes())?;
                }
                Ok(Sorted::Listen { wanted, context })
            }
            Method::TasksGet => self.sort_task(params, context(), || Ok(Inquiry::Get)),
            Method::TasksCancel => self.sort_task(params, context(), || Ok(Inquiry::Cancel)),
            Method::TasksUpdate => {
                self.sort_task(params, context(), || params.task_answers().map(Inquiry::Update))
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

    /// What a call of a tool comes to.
    fn sort_call<'a>(
        &'a self,
        headers: &Headers<'_>,
        request: &Request<'_>,
        era: Era,
        meta: &Meta<'_>,
        mut context: CallContext,
        operation: &mut Operation,
    ) -> Result<Sorted<'a>, McpError> {
        let (offer, lists, params) = (&self.parts.offer, &self.parts.lists, &request.params);
        let name = params.name()?;
        let tool = offer.tools.get(&name).ok_or_else(|| McpError::unknown_tool(&name))?;
        operation.calls(tool.name());
        headers.check_scopes(tool.scopes())?;
        let arguments = params.arguments()?;
        if era == Era::Modern
            && !lists.mirrored.is_empty()
            && let Some(mirrored) = lists.mirrored.get(tool.name())
        {
            mirrored.iter().try_for_each(|one| one.check(headers, &arguments))?;
        }
        let (converses, waits) = (tool.converses(), tool.may_wait(&arguments));
        // Only a wait can be given up, or be taken over by another wait of its session.
        if waits
            && era == Era::Legacy
            && let Some(session) = headers.session()
        {
            let principal = &context.principal;
            context.session = Some(SessionKey::new(principal, session));
            context.call = Some(CallKey::new(principal, session, request.id.as_json()));
        }
        let messages = if converses {
            Some(self.open(headers, params, meta, era, &mut context)?)
        } else {
            None
        };
        let work = Work::Tool(Arc::clone(tool), arguments);
        Ok(Sorted::Work { work, waits: waits || converses, context, messages })
    }

    /// What a question about a task comes to.
    fn sort_task(
        &self,
        params: &Params<'_>,
        context: CallContext,
        inquiry: impl FnOnce() -> Result<Inquiry, McpError>,
    ) -> Result<Sorted<'_>, McpError> {
        let tasks = self.parts.offer.tasks.as_ref().ok_or(McpError::MethodNotFound)?;
        // "For non-declaring clients issuing tasks/get, tasks/update, and tasks/cancel requests."
        if !context.takes_tasks {
            return Err(McpError::MissingExtension(task::EXTENSION));
        }
        if let Some(lacking) = context.principal.lacks(tasks.scopes()) {
            return Err(McpError::InsufficientScope(lacking));
        }
        let work = Work::Task(Arc::clone(tasks), params.task_id()?.into(), inquiry()?);
        Ok(Sorted::Work { work, waits: false, context, messages: None })
    }

    /// Lets a call talk to its client.
    fn open(
        &self,
        headers: &Headers<'_>,
        params: &Params<'_>,
        meta: &Meta<'_>,
        era: Era,
        context: &mut CallContext,
    ) -> Result<mpsc::Receiver<String>, McpError> {
        let (wire, messages) = Wire::open(&self.parts.offer, era, headers, params, meta)?;
        context.exchange = Some(Arc::new(wire));
        Ok(messages)
    }

    fn suggester(&self, reference: Reference) -> Result<Suggester, McpError> {
        let offer = &self.parts.offer;
        match reference {
            Reference::Prompt { name } => match offer.prompts.get(&name) {
                Some(prompt) => Ok(Suggester::Prompt(Arc::clone(prompt))),
                None => Err(McpError::unknown_prompt(&name)),
            },
            Reference::Resource { uri } => {
                // Of a template, or of one of its resources.
                let resources = offer.resources.all();
                let templated = resources
                    .iter()
                    .find(|resource| resource.definition()["uriTemplate"] == *uri)
                    .or_else(|| offer.resources.find(&uri));
                match templated {
                    Some(resource) => Ok(Suggester::Resource(Arc::clone(resource))),
                    None => Err(McpError::from_resource(ResourceError::NotFound, &uri)),
                }
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
        messages: Option<mpsc::Receiver<String>>,
    },
    Listen {
        wanted: Wanted,
        context: CallContext,
    },
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
