//! Receiving: looks like a pop, is a lease.

use std::{sync::Arc, time::Duration};

use futures_util::future::try_join;
use tokio::time::{Instant, timeout_at};

use super::{
    CallContext, Delivery, MessagingError, MessagingService, Notice, audit,
    delivery::{Claim, Settler},
    receipt::Receipt,
    waiters::{Held, Place},
    waiting::{Ended, LAST_LOOK, STORE_PAUSE},
};
use crate::{
    model::{ClientId, Inbox, Message},
    queue::{Batch, FetchRequest, Fetched, LeaseId, Outcome, QueueError, Topic, Waiting},
    telemetry::{MessageEvent, Returned, link_to},
};

/// How long a call that does not wait gives another reader's lease to end.
const PATIENCE: Duration = Duration::from_millis(250);

/// The first look of a call that waits is given at least so long, however short the wait: as any call is.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// One fetch.
#[derive(Debug, Clone)]
pub struct ReceiveRequest {
    /// Whose inbox.
    pub client: ClientId,
    /// Wait so long for the first message.
    pub wait: Duration,
    /// At most so many messages; the default if `None`.
    pub max_messages: Option<usize>,
    /// What acknowledges them.
    pub acknowledge: Acknowledge,
    /// From an earlier fetch: acknowledges what that fetch handed out.
    pub receipt: Option<String>,
}

/// What acknowledges messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acknowledge {
    /// The response was written to the connection.
    #[default]
    Auto,
    /// The next call passes the receipt.
    Manual,
}

/// What a fetch answers.
#[derive(Debug)]
pub struct Received {
    /// Why it answers now.
    pub why: ReceivedWhy,
    /// Oldest first.
    pub messages: Vec<Message>,
    /// Messages that stay in the inbox.
    pub remaining: u64,
    /// In manual mode, for the messages of this answer.
    pub receipt: Option<String>,
    /// Messages of this client that expired unread, and pauses of which it does not know.
    pub notices: Vec<Notice>,
    /// How many messages the receipt that was passed acknowledged.
    pub acknowledged: u64,
    /// To be settled by whoever writes the response.
    pub delivery: Option<Delivery>,
}

/// Why a fetch answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceivedWhy {
    /// There are messages, or notices.
    Mail,
    /// The inbox is empty, to the end of the wait if there was one.
    Empty,
    /// Another reader holds the head of the inbox for so long.
    Busy {
        /// Until its lease ends by itself.
        due: Duration,
    },
    /// A later waiting call of the same session took over.
    Superseded,
    /// The call was cancelled by its client: there is nobody to answer.
    Cancelled,
    /// The replica goes away: ask again.
    AskAgain,
    /// The caller's credential does not hold any more: ask again with another one.
    Unwelcome,
}

/// Gives a lease back if the call ends while its fetch may be under way: the command goes after the
/// fetch on the same connection.
struct InFlight {
    settler: Settler,
    inbox: Inbox,
    lease: LeaseId,
    life: Duration,
    waits: bool,
    armed: bool,
    why: Returned,
}

impl InFlight {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let (inbox, lease, life) = (self.inbox.clone(), self.lease, self.life);
        let claims = vec![Claim::Lease { inbox, lease, life, upto: None }];
        self.settler.clone().give_back(claims, self.why);
        if self.waits {
            let (queue, inbox) = (Arc::clone(&self.settler.queue), self.inbox.clone());
            self.settler.tasks.spawn(async move {
                if let Err(error) = queue.leave(&inbox).await {
                    tracing::warn!(error.kind = error.label(), error = %error, "leaving an inbox failed");
                }
            });
        }
    }
}

/// What a look came to.
enum Looked {
    Answer(Received),
    /// What would be the answer if the call did not wait, and when to look again although nothing wakes it.
    Nothing {
        guard: InFlight,
        received: Received,
        due: Option<Duration>,
    },
}

impl MessagingService {
    /// Hands out the oldest messages of an inbox, waiting for the first one if asked to.
    ///
    /// # Errors
    /// A broken rule, or [`MessagingError::Queue`].
    ///
    /// # Cancel safety
    /// Dropping the future loses no message: what was handed out is given back.
    pub async fn receive(
        &self,
        request: &ReceiveRequest,
        context: &CallContext,
    ) -> Result<Received, MessagingError> {
        self.noted(self.acknowledge_and_take(request, context).await)
    }

    async fn acknowledge_and_take(
        &self,
        request: &ReceiveRequest,
        context: &CallContext,
    ) -> Result<Received, MessagingError> {
        self.check_wait("wait_seconds", request.wait)?;
        let inbox = context.own(&request.client)?;
        let running = self.waiters.run(&context.stop).await?;
        let acknowledged = match &request.receipt {
            Some(text) => {
                let receipt = Receipt::decode(text, &inbox)?;
                let removed = self.queue.ack(&inbox, receipt.upto).await?;
                self.metrics.messages(MessageEvent::Acknowledged, removed);
                removed
            }
            None => 0,
        };
        let mut received = self.take(request, &inbox, running, context).await?;
        received.acknowledged = acknowledged;
        Ok(received)
    }

    async fn take(
        &self,
        request: &ReceiveRequest,
        inbox: &Inbox,
        running: Place,
        context: &CallContext,
    ) -> Result<Received, MessagingError> {
        let mut running = Some(running);
        let waits = !request.wait.is_zero();
        let deadline = Instant::now() + request.wait;
        let patience = deadline.max(Instant::now() + PATIENCE);
        let _place =
            if waits { Some(self.waiters.enter(Held::Wait, &context.principal)?) } else { None };
        // Watch before the first look: a message that lands between look and watch would be missed.
        let mut wakeups =
            if waits { Some(self.queue.watch(Topic::Inbox(inbox.clone())).await?) } else { None };
        let mut cancelled = match (&context.call, waits) {
            (Some(call), true) => Some(self.queue.watch(Topic::Call(*call)).await?),
            _ => None,
        };
        let mut waiting = Waiting {
            remaining: request.wait,
            session: context.session,
            call: LeaseId::new(),
            first: true,
        };
        loop {
            waiting.remaining = deadline.saturating_duration_since(Instant::now());
            waiting.first = running.is_some();
            let waiting_now = waits.then_some((&waiting, deadline));
            let look = async {
                let looked = self.look(request, inbox, waiting_now, context).await;
                drop(running.take()); // by now it has its answer, or it waits
                looked
            };
            // Boxed, and nothing of it kept: thousands of calls sleep below.
            let (guard, mut received, due) = match Box::pin(look).await? {
                None => continue,
                Some(Looked::Answer(received)) => {
                    if let (false, Some(newest)) = (waiting.first, received.messages.last())
                        && !newest.redelivered
                    {
                        self.metrics.wakeup(newest.age);
                    }
                    return Ok(received);
                }
                Some(Looked::Nothing { guard, received, due }) => (guard, received, due),
            };
            let busy = matches!(received.why, ReceivedWhy::Busy { .. });
            let end = if busy { patience } else { deadline };
            if Instant::now() >= end {
                guard.disarm();
                return Ok(received);
            }
            let Some(watching) = &mut wakeups else {
                // Only a lease held by somebody else makes a call wait that did not ask for it.
                guard.disarm();
                wakeups = Some(self.queue.watch(Topic::Inbox(inbox.clone())).await?);
                continue;
            };
            let look_again = due.map_or(end, |due| end.min(Instant::now() + due));
            match self.sleep(watching, cancelled.as_mut(), look_again, context).await? {
                None => guard.disarm(),
                Some(ended) => {
                    received.why = match ended {
                        Ended::Cancelled => ReceivedWhy::Cancelled,
                        Ended::AskAgain => ReceivedWhy::AskAgain,
                        Ended::Unwelcome => ReceivedWhy::Unwelcome,
                    };
                    return Ok(received);
                }
            }
        }
    }

    /// Looks once. `None`: the store is in trouble and the call can wait for it.
    async fn look(
        &self,
        request: &ReceiveRequest,
        inbox: &Inbox,
        waiting: Option<(&Waiting, Instant)>,
        context: &CallContext,
    ) -> Result<Option<Looked>, MessagingError> {
        let Some((guard, fetched, given_up)) = self.fetch(request, inbox, waiting, context).await?
        else {
            return Ok(None);
        };
        let Fetched { outcome, due, remaining, notices_due } = fetched;
        let mut received = Received {
            why: ReceivedWhy::Empty,
            messages: Vec::new(),
            remaining,
            receipt: None,
            notices: Vec::new(),
            acknowledged: 0,
            delivery: None,
        };
        if given_up {
            received.why = ReceivedWhy::Cancelled; // the guard gives back what was taken
            return Ok(Some(Looked::Answer(received)));
        }
        if notices_due {
            (received.notices, received.delivery) = self.notices(inbox).await;
        }
        match outcome {
            Outcome::Messages(batch) => {
                received = self.hand_out(request, inbox, guard, batch, received);
            }
            Outcome::Superseded => {
                guard.disarm();
                received.why = ReceivedWhy::Superseded;
            }
            Outcome::Empty if !received.notices.is_empty() => received.why = ReceivedWhy::Mail,
            Outcome::Empty => return Ok(Some(Looked::Nothing { guard, received, due })),
            Outcome::Busy => {
                received.why = ReceivedWhy::Busy { due: due.unwrap_or_default() };
                return Ok(Some(Looked::Nothing { guard, received, due }));
            }
        }
        Ok(Some(Looked::Answer(received)))
    }

    /// Fetches once, and asks whether a waiting call was given up meanwhile. `None`: the store is in
    /// trouble and the call can wait for it. A look ends with the wait, with an error that says the store could
    /// not be asked: not with "empty".
    async fn fetch(
        &self,
        request: &ReceiveRequest,
        inbox: &Inbox,
        waiting: Option<(&Waiting, Instant)>,
        context: &CallContext,
    ) -> Result<Option<(InFlight, Fetched, bool)>, MessagingError> {
        let life = match request.acknowledge {
            Acknowledge::Auto => self.rules.lease,
            Acknowledge::Manual => self.rules.manual_lease,
        };
        let mut guard = InFlight {
            settler: self.settler(),
            inbox: inbox.clone(),
            lease: LeaseId::new(),
            life,
            waits: waiting.is_some(),
            armed: true,
            why: Returned::GivenUp,
        };
        let fetch = FetchRequest {
            lease: guard.lease,
            lease_for: life,
            max_messages: request.max_messages.unwrap_or(self.rules.fetch_messages).max(1),
            max_bytes: self.rules.fetch_bytes,
            waiting: waiting.map(|(waiting, _)| waiting.clone()),
        };
        let given_up =
            async { if waiting.is_some() { self.was_cancelled(context).await } else { Ok(false) } };
        let both = try_join(self.queue.fetch(inbox, &fetch), given_up);
        let looked = match waiting {
            Some((waiting, deadline)) => {
                let least = if waiting.first { FIRST_LOOK } else { LAST_LOOK };
                let end = deadline.max(Instant::now() + least);
                timeout_at(end, both).await.unwrap_or(Err(QueueError::Timeout))
            }
            None => both.await,
        };
        let patient = || {
            let left = |(_, deadline): (_, Instant)| Instant::now() + STORE_PAUSE < deadline;
            waiting.is_some_and(left)
        };
        match looked {
            Ok((fetched, given_up)) => Ok(Some((guard, fetched, given_up))),
            // A wait outlives trouble of the store: whoever waits has nothing to lose by it.
            Err(error) if error.is_passing() && patient() => {
                guard.why = Returned::StoreFailed;
                drop(guard);
                let pause = tokio::time::sleep(STORE_PAUSE);
                let slept = context.stop.run_until_cancelled(pause).await;
                slept.map(|()| None).ok_or_else(|| error.into())
            }
            Err(error) => {
                guard.why = Returned::StoreFailed;
                Err(error.into())
            }
        }
    }

    fn hand_out(
        &self,
        request: &ReceiveRequest,
        inbox: &Inbox,
        guard: InFlight,
        batch: Batch,
        mut received: Received,
    ) -> Received {
        let Batch { messages, upto } = batch;
        let upto_on_flush = match request.acknowledge {
            Acknowledge::Auto => Some(upto),
            Acknowledge::Manual => {
                received.receipt = Some(Receipt::new(inbox, upto).encode());
                None
            }
        };
        let claim = Claim::Lease {
            inbox: inbox.clone(),
            lease: guard.lease,
            life: guard.life,
            upto: upto_on_flush,
        };
        guard.disarm();
        self.note_delivered(inbox, &messages);
        let delivery = self.settler().deliver(vec![claim]);
        received.delivery = delivery.map(|delivery| delivery.and(received.delivery.take()));
        received.why = ReceivedWhy::Mail;
        received.messages = messages;
        received
    }

    pub(super) fn note_delivered(&self, inbox: &Inbox, messages: &[Message]) {
        audit::taken(inbox, messages);
        let again = messages.iter().filter(|message| message.redelivered).count() as u64;
        self.metrics.messages(MessageEvent::Delivered, messages.len() as u64);
        self.metrics.messages(MessageEvent::Redelivered, again);
        for message in messages {
            self.metrics.delivery_latency(message.age);
            if let Some(sent) = message.trace {
                link_to(sent);
            }
        }
    }
}
