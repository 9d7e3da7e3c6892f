//! Watching an inbox: being told that there is something to take.
//!
//! What counts is a message that arrived, or one that was handed out and came back
//! ([`Arrivals::beyond`](crate::queue::Arrivals::beyond)); that others take messages does not. Told
//! once, nobody is told again of the same. What a listener is told may be stale by the time it looks
//! (then it finds nothing); what arrived is never kept from it.
//!
//! A wake-up of the store is only a hint to look. Some changes have none: the end of a lease, a reply
//! that returns from a dead wait. So the store says when to look again, and it is looked at now and
//! then anyway. All listeners of an inbox share one watch of the store and one look at each wake-up.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    CallContext, MessagingError, MessagingService, audit,
    waiters::{Held, Seat},
};
use crate::{
    model::{ClientId, Inbox},
    queue::{Browsed, QueueBackend, Topic, Wakeups},
    telemetry::Listening,
};

/// How often an inbox with mail is looked at without a wake-up: soon enough to find a lease of the
/// usual length while it runs, and so to be there at its end.
const WITH_MAIL: Duration = Duration::from_secs(5);
/// How often one without mail is.
const WITHOUT_MAIL: Duration = Duration::from_secs(30);
/// Arrivals within this time after one that was told are told together.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a store in trouble is left alone.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// Somebody who is told of arrivals in an inbox, until it is dropped.
pub struct InboxWatch {
    told: watch::Receiver<u64>,
    _place: Seat,
    _listening: Listening,
}

impl InboxWatch {
    /// Waits until there is something to take that was not there at the last time, or when the watch
    /// began. Never returns once the replica goes away.
    ///
    /// # Cancel safety
    /// An arrival is consumed only when this returns.
    pub async fn changed(&mut self) {
        if self.told.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl std::fmt::Debug for InboxWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InboxWatch").finish_non_exhaustive()
    }
}

/// The inboxes that listeners of a mailbox watch. A panic under the lock leaves the map whole: every change is one
/// call.
#[derive(Clone, Default)]
pub(super) struct Watches(Arc<Mutex<HashMap<Inbox, watch::Sender<u64>>>>);

impl Watches {
    /// Joins those who watch already.
    fn join(&self, inbox: &Inbox) -> Option<watch::Receiver<u64>> {
        self.0.lock().get(inbox).map(watch::Sender::subscribe)
    }

    /// The end to tell at, if nobody watches yet, and the one to listen at.
    fn open(&self, inbox: &Inbox) -> (Option<watch::Sender<u64>>, watch::Receiver<u64>) {
        match self.0.lock().entry(inbox.clone()) {
            Entry::Occupied(watched) => (None, watched.get().subscribe()),
            Entry::Vacant(free) => {
                let (tell, told) = watch::channel(0);
                free.insert(tell.clone());
                (Some(tell), told)
            }
        }
    }

    /// Ends the watch of an inbox that nobody listens to. `false`: somebody joined meanwhile.
    fn close(&self, inbox: &Inbox) -> bool {
        let mut all = self.0.lock();
        let over = all.get(inbox).is_none_or(watch::Sender::is_closed);
        if over {
            all.remove(inbox);
        }
        over
    }
}

impl MessagingService {
    /// Begins to watch an inbox: what arrives after this has returned is told. It does not count as a
    /// reader.
    ///
    /// # Errors
    /// [`MessagingError::ReplicaBusy`], [`MessagingError::CallerBusy`] or [`MessagingError::Queue`].
    pub async fn watch_inbox(
        &self,
        client: &ClientId,
        context: &CallContext,
    ) -> Result<InboxWatch, MessagingError> {
        self.noted(self.enter_watch(client, context).await)
    }

    async fn enter_watch(
        &self,
        client: &ClientId,
        context: &CallContext,
    ) -> Result<InboxWatch, MessagingError> {
        let inbox = context.own(client)?;
        let place = self.waiters.enter(Held::Listen, &context.principal)?;
        let listening = self.metrics.listening();
        let told = match self.watches.join(&inbox) {
            Some(told) => told,
            None => self.begin_watch(inbox.clone(), &context.stop).await?,
        };
        audit::own("watch", &inbox);
        Ok(InboxWatch { told, _place: place, _listening: listening })
    }

    async fn begin_watch(
        &self,
        inbox: Inbox,
        stop: &CancellationToken,
    ) -> Result<watch::Receiver<u64>, MessagingError> {
        // Watch before the first look: what lands between look and watch would be missed.
        let wakeups = self.queue.watch(Topic::News(inbox.clone())).await?;
        let seen = self.queue.browse(&inbox, 0, 0).await?;
        let (tell, told) = self.watches.open(&inbox);
        if let Some(tell) = tell {
            let (queue, watches) = (Arc::clone(&self.queue), self.watches.clone());
            let lookout = Lookout { queue, watches, inbox, wakeups, seen, tell };
            self.tasks.spawn(lookout.keep(stop.clone()));
        }
        Ok(told)
    }
}

/// Looks at one inbox for all who listen to it.
struct Lookout {
    queue: Arc<dyn QueueBackend>,
    watches: Watches,
    inbox: Inbox,
    wakeups: Wakeups,
    seen: Browsed,
    tell: watch::Sender<u64>,
}

impl Lookout {
    async fn keep(mut self, stop: CancellationToken) {
        if stop.run_until_cancelled(self.look_out()).await.is_none() {
            // The replica goes away: who listens is told nothing more.
            self.watches.0.lock().remove(&self.inbox);
        }
    }

    /// Looks until nobody listens any more.
    async fn look_out(&mut self) {
        loop {
            let usual = if self.seen.queued > 0 { WITH_MAIL } else { WITHOUT_MAIL };
            let due = self.seen.due.map_or(usual, |due| due.clamp(Duration::from_millis(1), usual));
            tokio::select! {
                () = self.tell.closed() => {
                    if self.watches.close(&self.inbox) {
                        return;
                    }
                }
                _woken = self.wakeups.next_within(due) => self.look().await,
            }
        }
    }

    async fn look(&mut self) {
        match self.queue.browse(&self.inbox, 0, 0).await {
            Ok(found) => {
                let arrived = found.arrivals.beyond(&self.seen.arrivals);
                self.seen = found;
                if arrived {
                    self.tell.send_modify(|times| *times += 1);
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Err(error) => {
                tracing::debug!(error.kind = error.label(), error = %error, "a look failed; it comes again");
                self.seen.due = Some(STORE_PAUSE);
            }
        }
    }
}
