//! Calls that are ready to run, and what comes of them.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    error::McpError, operation::Operation, progress::Progress, result, revision::Era,
    server::McpServer,
};
use tracing::Instrument;

use crate::{
    messaging::{CallContext, Delivery},
    queue::CallKey,
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

/// A tool call, checked and not yet begun.
pub struct PreparedCall {
    pub(super) tool: Arc<dyn Tool>,
    pub(super) arguments: Arguments,
    pub(super) context: CallContext,
    pub(super) id: Box<str>,
    pub(super) era: Era,
    pub(super) progress: Option<Progress>,
    pub(super) operation: Operation,
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
}

impl Finished {
    fn nothing() -> Self {
        Self { status: 202, body: Bytes::new(), delivery: None }
    }
}

impl PreparedCall {
    /// Whether it may take long, so that its answer should begin before it ends.
    #[must_use]
    pub fn may_wait(&self) -> bool {
        self.tool.may_wait(&self.arguments)
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
        let Self { tool, arguments, context, id, era, progress: _, operation } = self;
        let error = match tool.call(arguments, &context).await {
            Ok(outcome) if outcome.cancelled => {
                operation.finish(202, "cancelled");
                return Finished::nothing();
            }
            Ok(outcome) => match result::of_tool(frame, &id, era, &outcome) {
                Ok(body) => {
                    operation.finish(200, if outcome.is_error { "tool_error" } else { "" });
                    return Finished { status: 200, body, delivery: outcome.delivery };
                }
                Err(error) => {
                    tracing::error!(error = %error, "rendering a tool result failed");
                    McpError::Internal
                }
            },
            Err(error) => McpError::from_tool(error, tool.name()),
        };
        let status = error.status(era);
        operation.fail(status, &error);
        Finished { status, body: result::error(frame, Some(&id), &error), delivery: None }
    }
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
            return Finished::nothing();
        }
        body.push(b']');
        Finished { status: 200, body: Bytes::from(body), delivery }
    }
}
