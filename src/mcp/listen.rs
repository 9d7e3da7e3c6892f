//! `subscriptions/listen`: one stream on which a client hears of what it asked for (2026-07-28).
//!
//! The stream begins with what is honoured, then says what has changed, and ends with the result of the
//! request when the replica goes away. A client that leaves simply closes it.

use std::future::pending;

use bytes::Bytes;
use futures_util::{Stream, future::select_all, stream::unfold};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    call::{Finished, Frame, refused},
    discover::members,
    error::McpError,
    meta::Wanted,
    offer::ListKind,
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
    pub(super) wanted: Wanted,
    pub(super) context: CallContext,
    pub(super) id: Box<str>,
    /// Ends it with its result.
    pub(super) until: CancellationToken,
    pub(super) operation: Operation,
}

impl PreparedListen {
    /// What ends it before its time, as the end of the replica would: for whoever learns that its caller
    /// is no longer welcome. What it watches, others may watch with it: that goes on.
    pub fn ends_early(&mut self) -> impl FnOnce() + use<> {
        self.until = self.until.child_token();
        let until = self.until.clone();
        move || until.cancel()
    }

    /// Begins to watch. From here on nothing is missed.
    ///
    /// # Errors
    /// What is to be answered in place of a stream.
    pub async fn begin(mut self) -> Result<(Subscription, Operation), Finished> {
        let span = self.operation.trace(self.context.trace);
        self.begin_in_span().instrument(span).await
    }

    async fn begin_in_span(mut self) -> Result<(Subscription, Operation), Finished> {
        let mut watched: Vec<Watched> = Vec::new();
        for uri in std::mem::take(&mut self.wanted.resources) {
            let known = watched.iter().any(|known| known.what.is_resource(&uri));
            if known || watched.len() == RESOURCES {
                continue;
            }
            match self.watch(&uri).await {
                Ok(Some(changes)) => watched.push(Watched { what: What::Resource(uri), changes }),
                // Not honoured: the acknowledgement leaves it out.
                Ok(None)
                | Err(
                    ResourceError::NotFound
                    | ResourceError::NoIdentity
                    | ResourceError::ManyIdentities
                    | ResourceError::Foreign,
                ) => {}
                Err(
                    error @ (ResourceError::Busy
                    | ResourceError::Unreadable(_)
                    | ResourceError::CallerBusy
                    | ResourceError::Unavailable
                    | ResourceError::Internal),
                ) => {
                    let error = McpError::from_resource(error, &uri);
                    let frame = Frame::default();
                    return Err(refused(frame, &self.id, Era::Modern, &error, self.operation));
                }
            }
        }
        for (list, wanted) in [
            (ListKind::Tools, self.wanted.tools),
            (ListKind::Resources, self.wanted.resource_list),
            (ListKind::Prompts, self.wanted.prompts),
        ] {
            if wanted && let Some(changes) = self.server.offer().changes_of(list) {
                watched
                    .push(Watched { what: What::List(list), changes: changes.watch(list).await });
            }
        }
        let Self { server, until, id, operation, wanted: _, context: _ } = self;
        let subscription = Subscription { server, until, id, watched, stage: Stage::Begun };
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
    until: CancellationToken,
    id: Box<str>,
    watched: Vec<Watched>,
    stage: Stage,
}

struct Watched {
    what: What,
    changes: Box<dyn Changes>,
}

enum What {
    Resource(String),
    List(ListKind),
}

impl What {
    fn is_resource(&self, uri: &str) -> bool {
        match self {
            Self::Resource(known) => known == uri,
            Self::List(_) => false,
        }
    }
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
            Some((frame.around(&message), subscription))
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
                () = self.until.cancelled() => {
                    self.stage = Stage::Ended;
                    Some(self.result())
                }
                changed = changed(&mut self.watched) => {
                    Some(match &self.watched[changed].what {
                        What::Resource(uri) => {
                            let params = json!({ "uri": uri });
                            self.notification("notifications/resources/updated", &params)
                        }
                        What::List(list) => self.notification(notice(*list), &json!({})),
                    })
                }
            },
            Stage::Ended => None,
        }
    }

    fn acknowledgement(&self) -> String {
        let mut honoured = json!({});
        let mut uris = Vec::new();
        for watched in &self.watched {
            match &watched.what {
                What::Resource(uri) => uris.push(&**uri),
                What::List(ListKind::Tools) => honoured["toolsListChanged"] = json!(true),
                What::List(ListKind::Resources) => honoured["resourcesListChanged"] = json!(true),
                What::List(ListKind::Prompts) => honoured["promptsListChanged"] = json!(true),
            }
        }
        if !uris.is_empty() {
            honoured["resourceSubscriptions"] = json!(uris);
        }
        let params = json!({ "notifications": honoured });
        self.notification("notifications/subscriptions/acknowledged", &params)
    }

    /// A notification that names the subscription, by the id of its request as it came.
    fn notification(&self, method: &str, params: &Value) -> String {
        let (id, params) = (&self.id, members(params));
        let comma = if params.is_empty() { "" } else { "," };
        format!(
            r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"_meta":{{"{SUBSCRIPTION}":{id}}}{comma}{params}}}}}"#
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

fn notice(list: ListKind) -> &'static str {
    match list {
        ListKind::Tools => "notifications/tools/list_changed",
        ListKind::Resources => "notifications/resources/list_changed",
        ListKind::Prompts => "notifications/prompts/list_changed",
    }
}

/// Which one has changed next.
async fn changed(watched: &mut [Watched]) -> usize {
    if watched.is_empty() {
        return pending().await;
    }
    let changes = watched.iter_mut().map(|watched| watched.changes.changed());
    let ((), index, _) = select_all(changes).await;
    index
}
