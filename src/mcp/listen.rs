//! `subscriptions/listen`: one stream on which a client hears of what it asked for (2026-07-28).
//!
//! The stream begins with what is honoured, then says what has changed, and ends with the result of the
//! request when the replica goes away. A client that leaves simply closes it.

use std::future::pending;

use bytes::Bytes;
use futures_util::{Stream, future::select_all, stream::unfold};
use serde_json::{Value, json};
use tracing::Instrument;

use super::{
    call::{Finished, Frame, refused},
    discover::members,
    error::McpError,
    operation::Operation,
    revision::Era,
    server::McpServer,
};
use crate::{
    messaging::CallContext,
    resources::{Changes, ResourceError},
};

/// Names the subscription in all of its messages.
const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
/// Most resources of one subscription. What is beyond it is not honoured, and its client is told so.
const RESOURCES: usize = 100;

/// A subscription, checked and not yet begun.
pub struct PreparedListen {
    pub(super) server: McpServer,
    pub(super) resources: Vec<String>,
    pub(super) context: CallContext,
    pub(super) id: Box<str>,
    pub(super) operation: Operation,
}

impl PreparedListen {
    /// Begins to watch. From here on nothing is missed.
    ///
    /// # Errors
    /// What is to be answered in place of a stream.
    pub async fn begin(mut self) -> Result<(Subscription, Operation), Finished> {
        let span = self.operation.trace(self.context.trace);
        self.begin_in_span().instrument(span).await
    }

    async fn begin_in_span(mut self) -> Result<(Subscription, Operation), Finished> {
        let mut watched = Vec::new();
        for uri in std::mem::take(&mut self.resources) {
            if watched.len() == RESOURCES || watched.iter().any(|(known, _)| *known == uri) {
                continue;
            }
            match self.watch(&uri).await {
                Ok(Some(changes)) => watched.push((uri, changes)),
                // Not honoured: the acknowledgement leaves it out.
                Ok(None) | Err(ResourceError::NotFound) => {}
                Err(error @ (ResourceError::Unavailable | ResourceError::Internal)) => {
                    let error = McpError::from_resource(error, &uri);
                    let frame = Frame::default();
                    return Err(refused(frame, &self.id, Era::Modern, &error, self.operation));
                }
            }
        }
        let Self { server, context, id, operation, resources: _ } = self;
        let subscription = Subscription { server, context, id, watched, stage: Stage::Begun };
        Ok((subscription, operation.finish(200, "")))
    }

    async fn watch(&self, uri: &str) -> Result<Option<Box<dyn Changes>>, ResourceError> {
        match self.server.offer().resources.find(uri) {
            Some(resource) => resource.watch(uri, &self.context).await,
            None => Ok(None),
        }
    }
}

/// A subscription that watches.
pub struct Subscription {
    server: McpServer,
    context: CallContext,
    id: Box<str>,
    watched: Vec<(String, Box<dyn Changes>)>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begun,
    Acknowledged,
    Ended,
}

impl Subscription {
    /// Its messages, each in a frame, to the last one. Dropping the stream ends the subscription.
    pub fn messages(self, frame: Frame) -> impl Stream<Item = Bytes> {
        unfold(self, move |mut subscription| async move {
            let message = subscription.next().await?;
            let framed = Bytes::from(format!("{}{message}{}", frame.before, frame.after));
            Some((framed, subscription))
        })
    }

    async fn next(&mut self) -> Option<String> {
        match self.stage {
            Stage::Begun => {
                self.stage = Stage::Acknowledged;
                Some(self.acknowledgement())
            }
            Stage::Acknowledged => tokio::select! {
                biased;
                () = self.context.stop.cancelled() => {
                    self.stage = Stage::Ended;
                    Some(self.result())
                }
                changed = changed(&mut self.watched) => {
                    let params = json!({ "uri": self.watched[changed].0 });
                    Some(self.notification("notifications/resources/updated", &params))
                }
            },
            Stage::Ended => None,
        }
    }

    fn acknowledgement(&self) -> String {
        let uris: Vec<&str> = self.watched.iter().map(|(uri, _)| &**uri).collect();
        let mut honoured = json!({});
        if !uris.is_empty() {
            honoured["resourceSubscriptions"] = json!(uris);
        }
        let params = json!({ "notifications": honoured });
        self.notification("notifications/subscriptions/acknowledged", &params)
    }

    /// A notification that names the subscription, by the id of its request as it came.
    fn notification(&self, method: &str, params: &Value) -> String {
        let (id, params) = (&self.id, members(params));
        format!(
            r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"_meta":{{"{SUBSCRIPTION}":{id}}},{params}}}}}"#
        )
    }

    /// The answer to the request: the subscription has ended as it should.
    fn result(&self) -> String {
        let (id, info) = (&self.id, self.server.info());
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","_meta":{{{info},"{SUBSCRIPTION}":{id}}}}}}}"#
        )
    }
}

/// Which one has changed next.
async fn changed(watched: &mut [(String, Box<dyn Changes>)]) -> usize {
    if watched.is_empty() {
        return pending().await;
    }
    let ((), index, _) = select_all(watched.iter_mut().map(|(_, changes)| changes.changed())).await;
    index
}
