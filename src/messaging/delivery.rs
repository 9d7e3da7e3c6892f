//! The handle that says whether a response was received.

use std::{sync::Arc, time::Duration};

use tokio_util::task::TaskTracker;

use super::Limiter;
use crate::{
    model::{Inbox, MessageId},
    queue::{LeaseId, LimitStore, Notice, Pause, QueueBackend, Stamp, TaskRecord},
    telemetry::{MessageEvent, Metrics, Returned},
};

/// What a response carries out of the mailbox. Say [`flushed`](Self::flushed) when its last byte was
/// written; dropping it unsettled gives everything back at once.
///
/// Whoever holds it says [`keep_alive`](Self::keep_alive) meanwhile, so neither a slow write nor a later
/// call of its batch loses the lease.
#[must_use = "dropping it gives the messages back"]
pub struct Delivery {
    claims: Vec<Claim>,
    settler: Settler,
}

/// What settling needs.
#[derive(Clone)]
pub(super) struct Settler {
    pub queue: Arc<dyn QueueBackend>,
    pub limits: Option<Arc<dyn LimitStore>>,
    pub tasks: TaskTracker,
    pub metrics: Arc<Metrics>,
}

/// One thing that was handed out.
#[derive(Debug, Clone)]
pub(super) enum Claim {
    /// A batch. `upto`: acknowledged by the flush; `None`: by a receipt, later.
    Lease { inbox: Inbox, lease: LeaseId, life: Duration, upto: Option<Stamp> },
    /// The reply to a wait. `keep`: a failed write leaves it parked, for the call's repetition.
    Reply { inbox: Inbox, wait: MessageId, keep: bool },
    /// The handle of a task. `keep`: a failed write leaves its wait open, for the call's repetition.
    Task { inbox: Inbox, wait: MessageId, keep: bool },
    /// The reply of a task, to who asked for it. It stays there, however the write ends.
    Fetched { task: Box<TaskRecord> },
    /// Notices that were told.
    Notices { sender: Inbox, ids: Vec<MessageId> },
    /// Pauses that were told.
    Pauses { client: Inbox, told: Vec<Pause> },
}

impl Claim {
    /// That `sender` is told of `notices`, if there are any.
    pub(super) fn told(sender: &Inbox, notices: &[Notice]) -> Option<Self> {
        let ids: Vec<_> = notices.iter().map(|notice| notice.id).collect();
        (!ids.is_empty()).then(|| Self::Notices { sender: sender.clone(), ids })
    }

    /// That `client` is told of pauses, if there are any.
    pub(super) fn paused(client: &Inbox, pauses: &[Pause]) -> Option<Self> {
        let told = pauses.to_vec();
        (!told.is_empty()).then(|| Self::Pauses { client: client.clone(), told })
    }
}

impl Settler {
    /// Hands out `claims`, keeping their leases alive until they are settled.
    pub(super) fn deliver(&self, claims: Vec<Claim>) -> Option<Delivery> {
        if claims.is_empty() {
            return None;
        }
        Some(Delivery { claims, settler: self.clone() })
    }

    fn accept(self, claims: Vec<Claim>) {
        let tasks = self.tasks.clone();
        tasks.spawn(async move {
            for claim in claims {
                let done = match &claim {
                    Claim::Lease { inbox, upto: Some(upto), .. } => {
                        self.queue.ack(inbox, *upto).await.map(|removed| {
                            self.metrics.messages(MessageEvent::Acknowledged, removed);
                        })
                    }
                    Claim::Lease { upto: None, .. } | Claim::Task { .. } => Ok(()),
                    Claim::Fetched { task } => self.queue.task_done(task).await.map(|first| {
                        self.metrics.messages(MessageEvent::Acknowledged, u64::from(first));
                    }),
                    Claim::Reply { inbox, wait, .. } => {
                        self.queue.wait_done(inbox, *wait).await.map(|()| {
                            self.metrics.messages(MessageEvent::Acknowledged, 1);
                        })
                    }
                    Claim::Notices { sender, ids } => {
                        self.queue.notices_told(sender, ids).await.map(|()| {
                            self.metrics.messages(MessageEvent::Expired, ids.len() as u64);
                        })
                    }
                    Claim::Pauses { client, told } => match &self.limits {
                        Some(limits) => limits.pauses_told(client, told).await,
                        None => Ok(()),
                    },
                };
                if let Err(error) = done {
                    // Nothing is lost: what was not acknowledged comes again, marked.
                    tracing::warn!(error.kind = error.label(), error = %error, "acknowledgement failed");
                }
            }
        });
    }

    pub(super) fn give_back(self, claims: Vec<Claim>, why: Returned) {
        let tasks = self.tasks.clone();
        tasks.spawn(async move {
            for claim in claims {
                let done = match &claim {
                    Claim::Lease { inbox, lease, .. } => {
                        let released = self.queue.release(inbox, *lease).await;
                        released.map(|held| {
                            if held {
                                self.metrics.returned(why);
                            }
                        })
                    }
                    Claim::Reply { keep: true, .. }
                    | Claim::Task { keep: true, .. }
                    | Claim::Fetched { .. }
                    | Claim::Notices { .. }
                    | Claim::Pauses { .. } => Ok(()),
                    Claim::Reply { inbox, wait, keep: false }
                    | Claim::Task { inbox, wait, keep: false } => {
                        self.queue.wait_close(inbox, *wait).await
                    }
                };
                if let Err(error) = done {
                    // Nothing is lost: the lease or the wait runs out by itself.
                    tracing::warn!(error.kind = error.label(), error = %error, "giving back failed");
                }
            }
        });
    }
}

impl Delivery {
    /// One handle for what two parts of a response carry.
    pub fn and(mut self, other: Option<Self>) -> Self {
        if let Some(mut other) = other {
            self.claims.append(&mut other.claims);
        }
        self
    }

    /// The last byte of the response was written: what it carried counts as received.
    pub fn flushed(mut self) {
        let claims = std::mem::take(&mut self.claims);
        self.settler.clone().accept(claims);
    }

    /// How often [`keep_alive`](Self::keep_alive) must be said while the response is being written.
    #[must_use]
    pub fn keep_alive_every(&self) -> Duration {
        let lives = self.claims.iter().filter_map(|claim| match claim {
            Claim::Lease { life, .. } => Some(*life / 2),
            Claim::Reply { .. }
            | Claim::Task { .. }
            | Claim::Fetched { .. }
            | Claim::Notices { .. }
            | Claim::Pauses { .. } => None,
        });
        lives.min().unwrap_or(Duration::from_hours(1))
    }

    /// The response is still being written: prolongs the leases.
    pub fn keep_alive(&self) {
        for claim in &self.claims {
            if let Claim::Lease { inbox, lease, life, .. } = claim {
                let (queue, inbox, lease, life) =
                    (Arc::clone(&self.settler.queue), inbox.clone(), *lease, *life);
                self.settler.tasks.spawn(async move {
                    if let Err(error) = queue.extend(&inbox, lease, life).await {
                        tracing::warn!(error.kind = error.label(), error = %error, "prolonging a lease failed");
                    }
                });
            }
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let claims = std::mem::take(&mut self.claims);
        if !claims.is_empty() {
            self.settler.clone().give_back(claims, Returned::Unwritten);
        }
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery").field("claims", &self.claims.len()).finish_non_exhaustive()
    }
}

impl super::MessagingService {
    pub(super) fn settler(&self) -> Settler {
        Settler {
            queue: Arc::clone(&self.queue),
            limits: self.limiter.as_ref().map(Limiter::store),
            tasks: self.tasks.clone(),
            metrics: Arc::clone(&self.metrics),
        }
    }
}
