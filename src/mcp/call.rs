//! Calls that are ready to run, and what comes of them.

use std::{pin::pin, sync::Arc};

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    error::{McpError, Stop},
    meta::Argument,
    operation::Operation,
    progress::Progress,
    result::{self, Freshness, Writer},
    revision::Era,
    server::{McpServer, Reply},
    task::{self, Inquiry},
};
use crate::{
    dialogue::{Completion, InputRequired, LogLevel},
    messaging::{CallContext, Delivery},
    prompts::{Prompt, PromptArguments, PromptOutcome},
    queue::CallKey,
    resources::Resource,
    tools::{Arguments, Tasks, Tool, ToolError, ToolOutcome},
};

/// Most suggestions of one completion, by the protocol.
const SUGGESTIONS: usize = 100;

/// What the transport wants around an answer, so that nobody has to copy it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Frame {
    /// Before it.
    pub before: &'static str,
    /// After it.
    pub after: &'static str,
}

impl Frame {
    /// A message in the frame.
    #[must_use]
    pub fn around(self, message: &str) -> Bytes {
        let Self { before, after } = self;
        Bytes::from(format!("{before}{message}{after}"))
    }
}

/// A request that has to be run, checked and not yet begun.
pub struct PreparedCall {
    pub(super) server: McpServer,
    pub(super) work: Work,
    pub(super) waits: bool,
    pub(super) context: CallContext,
    pub(super) id: Box<str>,
    pub(super) era: Era,
    pub(super) progress: Option<Progress>,
    pub(super) messages: Option<mpsc::Receiver<String>>,
    pub(super) operation: Operation,
}

/// What is to be run.
pub(super) enum Work {
    Tool(Arc<dyn Tool>, Arguments),
    Resource(Arc<dyn Resource>, Box<str>),
    Prompt(Arc<dyn Prompt>, PromptArguments),
    Complete(Suggester, Argument),
    Task(Arc<dyn Tasks>, Box<str>, Inquiry),
    SetLevel { level: LogLevel, session: Option<String> },
    Subscribe { uri: String, wanted: bool, session: Option<String> },
}

/// What suggests values.
pub(super) enum Suggester {
    Prompt(Arc<dyn Prompt>),
    Resource(Arc<dyn Resource>),
}

/// What a call came to.
#[derive(Debug)]
pub struct Finished {
    /// The HTTP status, if the answer has not begun yet.
    pub status: u16,
    /// The answer. Empty: nothing is to be written, its client gave it up.
    pub body: Bytes,
    /// To be settled by whoever writes the answer.
    pub delivery: Option<Delivery>,
    /// To be dropped by whoever has written the answer. A batch has dropped those of its calls.
    pub operation: Option<Operation>,
}

impl Finished {
    fn nothing(operation: Option<Operation>) -> Self {
        Self { status: 202, body: Bytes::new(), delivery: None, operation }
    }

    /// An answer that carries nothing.
    pub(super) fn plain(status: u16, body: Bytes, operation: Operation) -> Self {
        Self { status, body, delivery: None, operation: Some(operation) }
    }
}

impl PreparedCall {
    /// Whether it may take long, so that its answer should begin before it ends.
    #[must_use]
    pub fn may_wait(&self) -> bool {
        self.waits
    }

    /// What ends it before its time: for whoever learns that its caller is no longer welcome.
    pub fn ends_early(&mut self) -> impl FnOnce() + use<> {
        self.context.stop = self.context.stop.child_token();
        let CallContext { stop, unwelcome, .. } = &mut self.context;
        let (stop, unwelcome) = (stop.clone(), unwelcome.get_or_insert_default().clone());
        move || {
            unwelcome.cancel();
            stop.cancel();
        }
    }

    fn is_unwelcome(&self) -> bool {
        self.context.unwelcome.as_ref().is_some_and(CancellationToken::is_cancelled)
    }

    fn refuse(self: Box<Self>, error: &McpError) -> Finished {
        let body = result::error(Frame::default(), Some(&self.id), error, self.era);
        Finished::plain(200, body, self.operation.fail(200, error))
    }

    /// Where its progress is to be reported, if the client asked for that.
    pub fn take_progress(&mut self) -> Option<Progress> {
        self.progress.take()
    }

    /// What it says to its client before its answer, if it converses. Who does not take this carries
    /// none of it.
    pub fn take_messages(&mut self) -> Option<mpsc::Receiver<String>> {
        self.messages.take()
    }

    /// Runs it. Its span begins now.
    ///
    /// # Cancel safety
    /// Dropping the future gives the call up: what it took goes back.
    pub fn run(self: Box<Self>, frame: Frame) -> impl Future<Output = Finished> + use<> {
        let Self { server, work, context, id, era, mut operation, .. } = *self;
        let span = operation.trace(context.trace);
        let run = Run { server, context, id, era, frame, operation };
        // Thousands of these wait for messages, and a future has room for its largest branch and, if it is of an
        // `async fn`, for its arguments beside what it makes of them.
        async move {
            let rendered = match work {
                Work::Tool(tool, arguments) => {
                    let outcome = tool.call(arguments, &run.context).await;
                    return run.answer(tool.name(), outcome);
                }
                Work::Resource(resource, uri) => run.read(&*resource, &uri).await,
                Work::Prompt(prompt, arguments) => run.get(&*prompt, arguments).await,
                Work::Complete(suggester, argument) => run.complete(&suggester, &argument).await,
                Work::Task(tasks, id, inquiry) => {
                    let writer = run.server.writer(frame, &run.id, era);
                    let asked = (&*id, inquiry);
                    let answer = task::run(&*tasks, asked, &run.context, &writer, run.operation);
                    return Box::pin(answer).await;
                }
                Work::Subscribe { uri, wanted, session } => {
                    if let Some(subscriptions) = &run.server.offer().subscriptions {
                        subscriptions.set(session.as_deref(), &uri, wanted).await;
                    }
                    Ok(run.writer().empty())
                }
                Work::SetLevel { level, session } => {
                    if let Some(levels) = &run.server.offer().logging {
                        levels.set(session.as_deref(), level).await;
                    }
                    Ok(run.writer().empty())
                }
            };
            run.finish(rendered)
        }
        .instrument(span)
    }
}

/// A call under way.
struct Run {
    server: McpServer,
    context: CallContext,
    id: Box<str>,
    era: Era,
    frame: Frame,
    operation: Operation,
}

impl Run {
    fn writer(&self) -> Writer<'_> {
        self.server.writer(self.frame, &self.id, self.era)
    }

    /// Answers what a tool came to.
    fn answer(self, tool: &'static str, outcome: Result<ToolOutcome, ToolError>) -> Finished {
        let outcome = match outcome {
            Ok(outcome) if outcome.cancelled => {
                return Finished::nothing(Some(self.operation.finish(202, "cancelled")));
            }
            Ok(outcome) => outcome,
            Err(error) => return self.finish(Err(Stop::of_tool(error, tool))),
        };
        let body = match answered(&self.writer(), &outcome, &self.context) {
            Ok(body) => body,
            Err(error) => return self.finish(Err(error.into())),
        };
        if let Some(reason) = outcome.refusal {
            self.server.metrics().refusal(reason);
        }
        let error = match &outcome {
            // Its client reads a refusal; for the service it is a failure of its own.
            ToolOutcome { store_failed: true, .. } => "unavailable",
            ToolOutcome { is_error: true, .. } => "tool_error",
            ToolOutcome { .. } => "",
        };
        let operation = Some(self.operation.finish(200, error));
        Finished { status: 200, body, delivery: outcome.delivery, operation }
    }

    async fn read(&self, resource: &dyn Resource, uri: &str) -> Result<Bytes, Stop> {
        let read = resource.read(uri, &self.context).await;
        let contents = read.map_err(|error| McpError::from_resource(error, uri))?;
        self.object(Freshness::Now, &ReadResult { contents: &contents })
    }

    async fn get(&self, prompt: &dyn Prompt, arguments: PromptArguments) -> Result<Bytes, Stop> {
        let outcome = prompt.get(arguments, &self.context).await.map_err(Stop::of_prompt)?;
        let PromptOutcome { description, messages } = &outcome;
        self.object(Freshness::Call, &PromptResult { description, messages })
    }

    async fn complete(
        &self,
        suggester: &Suggester,
        Argument { name, value }: &Argument,
    ) -> Result<Bytes, Stop> {
        let Completion { mut values, total, has_more } = match suggester {
            Suggester::Prompt(prompt) => prompt.complete(name, value, &self.context).await,
            Suggester::Resource(resource) => resource.complete(name, value, &self.context).await,
        };
        let has_more = has_more || values.len() > SUGGESTIONS;
        values.truncate(SUGGESTIONS);
        let completion = Suggested { values, total, has_more };
        self.object(Freshness::Call, &CompleteResult { completion })
    }

    fn object(&self, freshness: Freshness, result: &impl Serialize) -> Result<Bytes, Stop> {
        self.writer().object(freshness, result).map_err(|error| unwritten(&error).into())
    }

    fn finish(self, rendered: Result<Bytes, Stop>) -> Finished {
        let rendered = match rendered {
            Err(Stop::Input(input)) => may_require(&input, self.era, &self.context)
                .map(|()| self.writer().input_required(&input)),
            Err(Stop::Error(error)) => Err(error),
            Ok(body) => Ok(body),
        };
        match rendered {
            Ok(body) => Finished::plain(200, body, self.operation.finish(200, "")),
            Err(error) => refused(self.frame, &self.id, self.era, &error, self.operation),
        }
    }
}

/// What a tool answered: its outcome, or the handle of a task.
fn answered(
    writer: &Writer<'_>,
    outcome: &ToolOutcome,
    context: &CallContext,
) -> Result<Bytes, McpError> {
    match &outcome.task {
        None => writer.tool(outcome).map_err(|error| unwritten(&error)),
        Some(task) if context.takes_tasks => task::created(writer, task),
        Some(_) => {
            tracing::error!("a tool answered with a task, which its client does not know");
            Err(McpError::Internal)
        }
    }
}

/// Whether the client can be told that it is to answer something first: only what it can answer.
fn may_require(input: &InputRequired, era: Era, context: &CallContext) -> Result<(), McpError> {
    if era == Era::Legacy {
        return Err(McpError::InvalidParams(
            "this needs an input that only clients of revision 2026-07-28 can be asked for",
        ));
    }
    let client = context.exchange.as_deref();
    for request in input.requests.values() {
        let needed = match request["method"].as_str() {
            Some("elicitation/create") => "elicitation",
            Some("sampling/createMessage") => "sampling",
            Some("roots/list") => "roots",
            Some(_) | None => {
                tracing::error!("an input is required by a method that clients do not have");
                return Err(McpError::Internal);
            }
        };
        if !client.is_some_and(|client| client.client_can(needed)) {
            return Err(McpError::MissingCapability(needed));
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct CompleteResult {
    completion: Suggested,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Suggested {
    values: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<usize>,
    has_more: bool,
}

#[derive(Serialize)]
struct ReadResult<'a> {
    contents: &'a [Value],
}

#[derive(Serialize)]
struct PromptResult<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    messages: &'a [Value],
}

/// Writes an error.
pub(super) fn refused(
    frame: Frame,
    id: &str,
    era: Era,
    error: &McpError,
    operation: Operation,
) -> Finished {
    let status = error.status(era);
    let body = result::error(frame, Some(id), error, era);
    Finished::plain(status, body, operation.fail(status, error))
}

pub(super) fn unwritten(error: &serde_json::Error) -> McpError {
    tracing::error!(error = %error, "rendering a result failed");
    McpError::Internal
}

/// One message of a batch.
pub(super) enum BatchItem {
    Answer(Bytes),
    Cancel(CallKey),
    Call(Box<PreparedCall>),
    Reply(Reply),
}

/// Messages that came together and are answered together (2025-03-26).
pub struct Batch {
    pub(super) server: McpServer,
    pub(super) items: Vec<BatchItem>,
}

/// Runs what comes after something was taken, and keeps hold of that meanwhile.
async fn holding<T>(taken: Option<&Delivery>, work: impl Future<Output = T>) -> T {
    let Some(taken) = taken else { return work.await };
    let mut work = pin!(work);
    let every = taken.keep_alive_every();
    loop {
        match tokio::time::timeout(every, work.as_mut()).await {
            Ok(done) => return done,
            Err(_elapsed) => taken.keep_alive(),
        }
    }
}

impl Batch {
    fn calls(&mut self) -> impl Iterator<Item = &mut PreparedCall> {
        self.items.iter_mut().filter_map(|item| match item {
            BatchItem::Call(call) => Some(&mut **call),
            BatchItem::Answer(_) | BatchItem::Cancel(_) | BatchItem::Reply(_) => None,
        })
    }

    /// Whether one of its calls may take long.
    #[must_use]
    pub fn may_wait(&mut self) -> bool {
        self.calls().any(|call| call.may_wait())
    }

    /// As [`PreparedCall::ends_early`]. Those that have not begun then never do.
    pub fn ends_early(&mut self) -> impl FnOnce() + use<> {
        let ends: Vec<_> = self.calls().map(PreparedCall::ends_early).collect();
        move || ends.into_iter().for_each(|end| end())
    }

    /// Runs what is to be run, one after the other.
    ///
    /// # Cancel safety
    /// As that of [`PreparedCall::run`].
    pub async fn run(self) -> Finished {
        let mut body = vec![b'['];
        let mut delivery: Option<Delivery> = None;
        for item in self.items {
            let answer = match item {
                BatchItem::Answer(answer) => answer,
                BatchItem::Cancel(call) => {
                    self.server.cancel(&call).await;
                    continue;
                }
                BatchItem::Reply(reply) => {
                    self.server.replied(reply).await;
                    continue;
                }
                BatchItem::Call(call) => {
                    let finished = if call.is_unwelcome() {
                        call.refuse(&McpError::InvalidRequest(
                            "your credential no longer holds; this call of the batch was not begun",
                        ))
                    } else {
                        holding(delivery.as_ref(), call.run(Frame::default())).await
                    };
                    delivery = match delivery {
                        Some(delivery) => Some(delivery.and(finished.delivery)),
                        None => finished.delivery,
                    };
                    finished.body
                }
            };
            if !answer.is_empty() {
                if body.len() > 1 {
                    body.push(b',');
                }
                body.extend_from_slice(&answer);
            }
        }
        if body.len() == 1 {
            return Finished::nothing(None);
        }
        body.push(b']');
        Finished { status: 200, body: Bytes::from(body), delivery, operation: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::{Task, TaskState};

    /// Beside what its tool holds.
    #[test]
    fn a_call_that_waits_holds_little() {
        fn held<F: Future>(_run: impl Fn(Box<PreparedCall>, Frame) -> F) -> usize {
            size_of::<F>()
        }
        let held = held(PreparedCall::run);
        assert!(held <= 720, "{held} bytes");
    }

    #[test]
    fn a_task_never_reaches_a_client_that_did_not_declare_it() {
        let no_time = std::time::Duration::ZERO;
        let task = Task {
            id: "id".into(),
            state: TaskState::Working,
            message: String::new(),
            created_at_ms: 0,
            updated_at_ms: 0,
            ttl: no_time,
            poll: no_time,
        };
        let outcome = ToolOutcome { task: Some(Box::new(task)), ..ToolOutcome::default() };
        let writer = Writer { frame: Frame::default(), id: "1", era: Era::Modern, info: "" };
        let undeclared = CallContext::default();
        assert_eq!(answered(&writer, &outcome, &undeclared), Err(McpError::Internal));
        let declared = CallContext { takes_tasks: true, ..undeclared };
        assert!(answered(&writer, &outcome, &declared).is_ok());
    }
}
