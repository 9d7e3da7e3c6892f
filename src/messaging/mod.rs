//! The mailbox: what a send, a question, a receive mean, on whichever store.
//!
//! The rules of the house live here: limits, deadlines, waiting, giving back what was not received.
//! It knows neither MCP nor HTTP nor Redis. What it hands out is settled by whoever writes the
//! response ([`Delivery`]).

mod ask;
mod audit;
mod delivery;
mod directory;
mod error;
mod limiter;
mod notice;
mod receipt;
mod receive;
mod rules;
mod sampling;
mod send;
mod task;
mod waiters;
mod waiting;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use ask::{AskRequest, Asked, Reply};
pub use delivery::Delivery;
pub use error::{MessagingError, lift_command, own_ids};
pub use limiter::{Limiter, SendLimits, Stocks, Whose};
pub use notice::Notice;
pub use receive::{Acknowledge, ReceiveRequest, Received, ReceivedWhy};
pub use rules::Rules;
pub use sampling::{keep_sampled, keep_watching_readiness};
pub use send::{Parcel, Posted, Refusal, SendRequest, SendResult};
pub use task::{TaskLook, TaskProgress};
pub use waiters::{Held, Waiters};
pub use watch::InboxWatch;

use crate::{
    dialogue::Exchange,
    model::{Address, ClientId, Inbox, Principal, Tenant, TraceParent},
    queue::{CallKey, QueueBackend, SessionKey, Unready},
    teams::Contacts,
    telemetry::Metrics,
};

/// The mailbox. Cheap to clone.
#[derive(Clone)]
pub struct MessagingService {
    queue: Arc<dyn QueueBackend>,
    rules: Arc<Rules>,
    waiters: Waiters,
    tasks: TaskTracker,
    metrics: Arc<Metrics>,
    watches: watch::Watches,
    limiter: Option<Limiter>,
    contacts: Contacts,
}

/// Where a call comes from and what ends it early.
#[derive(Debug, Clone, Default)]
pub struct CallContext {
    /// Who calls.
    pub principal: Principal,
    /// The protocol session that the call belongs to, if there is one.
    pub session: Option<SessionKey>,
    /// The call within its session, to hear of its cancellation.
    pub call: Option<CallKey>,
    /// The replica is going away: waits end with "ask again".
    pub stop: CancellationToken,
    /// Of a call that ends with its caller's credential: it does not hold any more, so that waits hand out
    /// nothing. Cancelled before `stop`, which ends them.
    pub unwelcome: Option<CancellationToken>,
    /// The caller's trace.
    pub trace: Option<TraceParent>,
    /// The client, for what converses with it. The mailbox does not.
    pub exchange: Option<Arc<dyn Exchange>>,
    /// The client of this very request takes a task for an answer: a handle by which it asks later.
    pub takes_tasks: bool,
}

impl CallContext {
    fn tenant(&self) -> &Tenant {
        self.principal.tenant()
    }

    /// The inbox of the client as which the caller acts. This is where a foreign id is refused: nothing
    /// else makes an inbox that is read, sent from or asked about.
    fn own(&self, client: &ClientId) -> Result<Inbox, MessagingError> {
        self.check_own(client)?;
        Ok(self.inbox(client))
    }

    /// An inbox of the caller's team.
    fn inbox(&self, client: &ClientId) -> Inbox {
        Inbox::new(self.tenant().clone(), client.clone())
    }

    /// Whether the caller may act as this client.
    ///
    /// # Errors
    /// [`MessagingError::ForeignClient`].
    pub fn check_own(&self, client: &ClientId) -> Result<(), MessagingError> {
        match self.principal.grant() {
            Some(grant) if !grant.covers(client) => {
                audit::spoof_rejected(&grant.expose(), &self.inbox(client));
                Err(MessagingError::ForeignClient { own: grant.clone() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The inbox of somebody to write to, in the caller's team or another one.
    fn peer(&self, to: &Address) -> Inbox {
        to.inbox(self.tenant())
    }
}

/// Tells a call that its client gave it up, on whichever replica it waits.
#[async_trait]
pub trait Cancellations: Send + Sync {
    /// Ends the call, if it is one that waits. It may have ended already.
    ///
    /// # Errors
    /// [`MessagingError::Queue`].
    async fn cancel(&self, call: &CallKey) -> Result<(), MessagingError>;
}

#[async_trait]
impl Cancellations for MessagingService {
    async fn cancel(&self, call: &CallKey) -> Result<(), MessagingError> {
        Ok(self.queue.cancel_call(call).await?)
    }
}

impl MessagingService {
    /// A mailbox on a store. `tasks` runs what must outlive a call (acknowledging, giving back);
    /// wait for it at shutdown. `waiters` is shared by all mailboxes of the process.
    #[must_use]
    pub fn new(
        queue: Arc<dyn QueueBackend>,
        rules: Arc<Rules>,
        waiters: Waiters,
        tasks: TaskTracker,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (watches, contacts) = (watch::Watches::default(), Contacts::default());
        Self { queue, rules, waiters, tasks, metrics, watches, limiter: None, contacts }
    }

    /// Asking this who takes whose messages; else everybody takes everybody's of its team.
    #[must_use]
    pub fn asking(self, contacts: Contacts) -> Self {
        Self { contacts, ..self }
    }

    /// The limits in force.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Whether the store can be relied on now.
    ///
    /// # Errors
    /// Why not.
    pub async fn ready(&self) -> Result<(), Unready> {
        self.queue.ready().await
    }

    /// Counts a refusal on its way out.
    fn noted<T>(&self, result: Result<T, MessagingError>) -> Result<T, MessagingError> {
        if let Err(error) = &result {
            self.note_refusal(error);
        }
        result
    }

    fn note_refusal(&self, error: &MessagingError) {
        if let Some(reason) = error.refusal() {
            self.metrics.refusal(reason);
        }
    }
}
