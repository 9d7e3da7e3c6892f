//! Calls that are ready to run, and what comes of them.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use tracing::Instrument;

use super::{
    error::McpError,
    operation::Operation,
    progress::Progress,
    result::{self, Freshness, Writer},
    revision::Era,
    server::McpServer,
};
use crate::{
    messaging::{CallContext, Delivery},
    prompts::{Prompt, PromptArguments},
    queue::CallKey,
    resources::Resource,
    tools::{Arguments, Tool},
};

/// What the transport wants around an answer, so that nobody has to copy it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Frame {
    /// Before it.
    pub before: &'static str,
    /// After it.
    pub after: &'static str,
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
    pub(super) operation: Operation,
}

/// What is to be run.
pub(super) enum Work {
    Tool(Arc<dyn Tool>, Arguments),
    Resource(Arc<dyn Resource>, Box<str>),
    Prompt(Arc<dyn Prompt>, PromptArguments),
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

    /// Where its progress is to be reported, if the client asked for that.
    pub fn take_progress(&mut self) -> Option<Progress> {
        self.progress.take()
    }

    /// Runs it.
    ///
    /// # Cancel safety
    /// Dropping the future gives the call up: what it took goes back.
    pub async fn run(mut self, frame: Frame) -> Finished {
        let span = self.operation.trace(self.context.trace);
        self.run_in_span(frame).instrument(span).await
    }

    async fn run_in_span(self, frame: Frame) -> Finished {
        let Self { server, work, context, id, era, operation, waits: _, progress: _ } = self;
        let writer = server.writer(frame, &id, era);
        let rendered = match work {
            Work::Tool(tool, arguments) => match tool.call(arguments, &context).await {
                Ok(outcome) if outcome.cancelled => {
                    return Finished::nothing(Some(operation.finish(202, "cancelled")));
                }
                Ok(outcome) => match writer.tool(&outcome) {
                    Ok(body) => {
                        let error = if outcome.is_error { "tool_error" } else { "" };
                        let (delivery, operation) =
                            (outcome.delivery, operation.finish(200, error));
                        return Finished {
                            status: 200,
                            body,
                            delivery,
                            operation: Some(operation),
                        };
                    }
                    Err(error) => Err(unwritten(&error)),
                },
                Err(error) => Err(McpError::from_tool(error, tool.name())),
            },
            Work::Resource(resource, uri) => read(&writer, &*resource, &uri, &context).await,
            Work::Prompt(prompt, arguments) => get(&writer, &*prompt, arguments, &context).await,
        };
        match rendered {
            Ok(body) => Finished::plain(200, body, operation.finish(200, "")),
            Err(error) => refused(frame, &id, era, &error, operation),
        }
    }
}

async fn read(
    writer: &Writer<'_>,
    resource: &dyn Resource,
    uri: &str,
    context: &CallContext,
) -> Result<Bytes, McpError> {
    let read = resource.read(uri, context).await;
    let contents = read.map_err(|error| McpError::from_resource(error, uri))?;
    let result = ReadResult { contents: &contents };
    writer.object(Freshness::Now, &result).map_err(|error| unwritten(&error))
}

async fn get(
    writer: &Writer<'_>,
    prompt: &dyn Prompt,
    arguments: PromptArguments,
    context: &CallContext,
) -> Result<Bytes, McpError> {
    let outcome = prompt.get(arguments, context).await?;
    let result = PromptResult { description: &outcome.description, messages: &outcome.messages };
    writer.object(Freshness::Call, &result).map_err(|error| unwritten(&error))
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

fn unwritten(error: &serde_json::Error) -> McpError {
    tracing::error!(error = %error, "rendering a result failed");
    McpError::Internal
}

/// One message of a batch.
pub(super) enum BatchItem {
    Answer(Bytes),
    Cancel(CallKey),
    Call(Box<PreparedCall>),
}

/// Messages that came together and are answered together (2025-03-26).
pub struct Batch {
    pub(super) server: McpServer,
    pub(super) items: Vec<BatchItem>,
}

impl Batch {
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
                BatchItem::Call(call) => {
                    let finished = call.run(Frame::default()).await;
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
