//! What agents can read by URI, and watch.
//!
//! [`Resource`] is one resource or one template of resources, [`ResourceRegistry`] what a server
//! offers. A resource knows nothing of JSON-RPC or HTTP. Reading never takes anything from an inbox.

mod clients;
mod guide;
mod inbox;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::{
    dialogue::Completion,
    messaging::{CallContext, InboxWatch, MessagingError, MessagingService},
    model::Scope,
    queue::Unreadable,
};

/// One resource, or one template of resources.
#[async_trait]
pub trait Resource: Send + Sync {
    /// Its entry in `resources/list`, with `uri`; of a template in `resources/templates/list`, with
    /// `uriTemplate`.
    fn definition(&self) -> Value;

    /// Whether it is a template.
    fn is_template(&self) -> bool {
        false
    }

    /// What a caller's credential must allow, where there are credentials.
    fn scopes(&self) -> &'static [Scope] {
        &[]
    }

    /// Whether a URI is one of its.
    fn matches(&self, uri: &str) -> bool;

    /// The `contents` of `resources/read`: objects with `uri`, `mimeType` and `text` or `blob`. Never
    /// empty.
    ///
    /// # Errors
    /// [`ResourceError`].
    async fn read(&self, uri: &str, context: &CallContext) -> Result<Vec<Value>, ResourceError>;

    /// Whether a template suggests values for its variables ([`complete`](Self::complete)).
    fn completes(&self) -> bool {
        false
    }

    /// Suggests values for a variable that begins with `value`.
    async fn complete(&self, _variable: &str, _value: &str, _context: &CallContext) -> Completion {
        Completion::default()
    }

    /// Whether [`watch`](Self::watch) watches anything: then clients are told that they can subscribe.
    fn can_be_watched(&self) -> bool {
        false
    }

    /// Begins to watch a URI: what changes after this has returned is seen. `None`: it never changes.
    ///
    /// # Errors
    /// [`ResourceError`].
    async fn watch(
        &self,
        _uri: &str,
        _context: &CallContext,
    ) -> Result<Option<Box<dyn Changes>>, ResourceError> {
        Ok(None)
    }
}

/// Changes of one watched resource. Dropping it ends the watch.
#[async_trait]
pub trait Changes: Send {
    /// Waits until the resource has changed since the last time (or since the watch began). Changes that
    /// came together count once.
    ///
    /// # Cancel safety
    /// A change is consumed only when this returns.
    async fn changed(&mut self);
}

/// Why a resource was not read. Causes never get into the texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// No such resource.
    #[error("resource not found")]
    NotFound,
    /// `inbox://me`, where no credential says whose that is.
    #[error(
        "resource not found: inbox://me is the inbox of the identity that a credential proves, and this \
         server checks none; use inbox:// with your own client id"
    )]
    NoIdentity,
    /// `inbox://me`, where the credential proves several ids.
    #[error(
        "resource not found: your credential is that of several clients, so inbox://me is none of theirs; use \
         inbox:// with one of their ids (get_my_identity says which)"
    )]
    ManyIdentities,
    /// An inbox that is not the caller's. Whether there is one is not said.
    #[error(
        "resource not found: your credential opens the inboxes of its own clients only (get_my_identity says which)"
    )]
    Foreign,
    /// As many wait as may.
    #[error("this server has as many calls as it may; try again in a few seconds")]
    Busy,
    /// The oldest message of an inbox cannot be read.
    #[error(
        "the oldest message in this inbox {0}. Nothing was lost; tell whoever runs this server"
    )]
    Unreadable(Unreadable),
    /// The caller listens to as many inboxes as it may.
    #[error(
        "you listen to as many inboxes on this server as you may; end one of these subscriptions first"
    )]
    CallerBusy,
    /// The store is not there.
    #[error("the message store does not answer; try again")]
    Unavailable,
    /// A fault of ours.
    #[error("internal error")]
    Internal,
}

/// The resources of one server, in the order of the lists.
#[derive(Clone, Default)]
pub struct ResourceRegistry {
    resources: Arc<Vec<Arc<dyn Resource>>>,
}

impl ResourceRegistry {
    /// These resources.
    #[must_use]
    pub fn new(resources: Vec<Arc<dyn Resource>>) -> Self {
        Self { resources: Arc::new(resources) }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Arc<dyn Resource>] {
        &self.resources
    }

    /// The first that a URI is one of.
    #[must_use]
    pub fn find(&self, uri: &str) -> Option<&Arc<dyn Resource>> {
        self.resources.iter().find(|resource| resource.matches(uri))
    }
}

/// The resources of a mailbox, in the order of the lists.
#[must_use]
pub fn registry(messaging: MessagingService) -> ResourceRegistry {
    ResourceRegistry::new(vec![
        Arc::new(guide::Guide),
        Arc::new(clients::Clients { messaging: messaging.clone() }),
        Arc::new(inbox::InboxResource { messaging }),
    ])
}

#[async_trait]
impl Changes for InboxWatch {
    async fn changed(&mut self) {
        InboxWatch::changed(self).await;
    }
}

/// What all of ours are written in: for the model of whoever attaches it.
const MARKDOWN: &str = "text/markdown";

/// The one content of a resource.
fn markdown(uri: &str, text: &str) -> Vec<Value> {
    vec![json!({"uri": uri, "mimeType": MARKDOWN, "text": text.trim_end()})]
}

/// Sorts a domain error. The store's failures are logged here, once, because this is where their cause
/// leaves the program.
fn sorted(error: MessagingError) -> ResourceError {
    let cause = match error {
        MessagingError::Queue(cause) => cause,
        MessagingError::ReplicaBusy { .. } | MessagingError::Overloaded { .. } => {
            return ResourceError::Busy;
        }
        MessagingError::CallerBusy { .. } => return ResourceError::CallerBusy,
        MessagingError::ForeignClient { .. } => return ResourceError::Foreign,
        MessagingError::Unreadable { why, .. } => return ResourceError::Unreadable(why),
        // Rules for what is sent and fetched: nothing here does.
        MessagingError::EmptyMessage
        | MessagingError::MessageTooLarge { .. }
        | MessagingError::NoRecipient
        | MessagingError::TooManyRecipients { .. }
        | MessagingError::TtlOutOfRange { .. }
        | MessagingError::WaitOutOfRange { .. }
        | MessagingError::InboxFull { .. }
        | MessagingError::TooManyWaits { .. }
        | MessagingError::RateLimited { .. }
        | MessagingError::PairPaused { .. }
        | MessagingError::IdempotencyConflict { .. }
        | MessagingError::NotTaken
        | MessagingError::NotLinked
        | MessagingError::ContactsUnknown
        | MessagingError::InvalidReceipt
        | MessagingError::ForeignReceipt => return ResourceError::Internal,
    };
    tracing::error!(error.kind = cause.label(), error = %cause, "a resource was not read");
    if cause.is_passing() { ResourceError::Unavailable } else { ResourceError::Internal }
}
