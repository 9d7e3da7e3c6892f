//! From a request of a known revision to what it asks for: a result that is there already, or work to be done.

use std::{borrow::Cow, sync::Arc};

use tokio::sync::mpsc;

use super::McpServer;
use crate::{
    mcp::{
        call::{Suggester, Work},
        discover,
        error::McpError,
        exchange::Wire,
        headers::Headers,
        jsonrpc::Request,
        list::List,
        meta::{Meta, Params, Reference, Wanted},
        method::Method,
        operation::Operation,
        result::Freshness,
        revision::{Era, Revision},
        task::{self, Inquiry},
    },
    messaging::CallContext,
    queue::{CallKey, SessionKey},
    resources::ResourceError,
};

/// What a request comes to.
pub(super) enum Sorted<'a> {
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

impl McpServer {
    /// What a request of a known revision comes to.
    pub(super) fn sort<'a>(
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
