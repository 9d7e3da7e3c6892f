//! A question that waits for its answer.

use std::time::Duration;

use futures_util::future::{join, try_join};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    CallContext, Delivery, MessagingError, MessagingService, Notice,
    delivery::{Claim, Settler},
    waiters::Held,
    waiting::{Ended, LAST_LOOK, STORE_PAUSE, stopped},
};
use crate::{
    model::{Address, ClientId, Inbox, Message, MessageId},
    queue::{
        IdempotencyKey, NewMessage, QueueError, Sent, SentStatus, Taken, Taking, TaskRecord, Topic,
        Unreadable, Wakeups,
    },
    telemetry::trace_of,
};

/// One question.
#[derive(Debug, Clone)]
pub struct AskRequest {
    /// Who asks.
    pub sender: ClientId,
    /// Whom.
    pub recipient: Address,
    /// The question.
    pub text: String,
    /// Wait so long; the default if `None`.
    pub wait: Option<Duration>,
    /// The message that it answers.
    pub in_reply_to: Option<MessageId>,
    /// Ask it once per key: a repetition takes up the same wait.
    pub idempotency_key: Option<String>,
}

/// What a question answers.
#[derive(Debug)]
pub struct Asked {
    /// The question, as accepted.
    pub sent: Sent,
    /// What came of the wait.
    pub reply: Reply,
    /// Other mail in the asker's inbox, which stays there.
    pub other_messages: u64,
    /// Earlier messages of the asker that expired unread, and pauses of which it does not know.
    pub notices: Vec<Notice>,
    /// To be settled by whoever writes the response.
    pub delivery: Option<Delivery>,
}

/// What came of a wait.
#[derive(Debug)]
pub enum Reply {
    /// The answer.
    Message(Box<Message>),
    /// None yet: it will be in the inbox.
    Pending,
    /// It came, and this replica cannot read it: it is in the inbox, or with the wait of a repetition.
    Unreadable(Unreadable),
    /// The call was cancelled by its client: there is nobody to answer.
    Cancelled,
    /// The replica goes away: no answer yet, it will be in the inbox.
    AskAgain,
    /// The caller's credential does not hold any more: an answer will be in the inbox.
    Unwelcome,
    /// The store does not answer now. The question is accepted all the same: an answer will be in the inbox.
    StoreAway,
    /// The client asks for it later ([`MessagingService::task`]), from any replica.
    Task(Box<TaskRecord>),
}

/// Closes the wait when the call ends without its reply, so that the reply goes to the inbox.
struct OpenWait {
    settler: Settler,
    inbox: Inbox,
    wait: MessageId,
    /// A repetition with the same key may come: leave the wait to its deadline.
    keep: bool,
    armed: bool,
}

impl OpenWait {
    fn claim(&self) -> Claim {
        Claim::Reply { inbox: self.inbox.clone(), wait: self.wait, keep: self.keep }
    }
}

impl Drop for OpenWait {
    fn drop(&mut self) {
        if self.armed {
            drop(self.settler.deliver(vec![self.claim()]));
        }
    }
}

/// Trouble of the store that passes is no failure of a question that was accepted: `None`.
fn outlived<T>(result: Result<T, MessagingError>) -> Result<Option<T>, MessagingError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MessagingError::Queue(cause)) if cause.is_passing() => {
            tracing::warn!(error.kind = cause.label(), error = %cause, "a question waits without its store");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl MessagingService {
    /// Sends a question and waits for its answer, or answers with a task where the client takes one. It
    /// waits all the same where the question has its answer already, and where the client has as many
    /// tasks as waits may be open.
    ///
    /// # Errors
    /// A broken rule, or [`MessagingError::Queue`].
    ///
    /// # Cancel safety
    /// Dropping the future loses neither the question nor its answer: the answer goes to the inbox.
    pub async fn ask(
        &self,
        request: AskRequest,
        context: &CallContext,
    ) -> Result<Asked, MessagingError> {
        self.noted(self.ask_and_wait(request, context).await)
    }

    async fn ask_and_wait(
        &self,
        request: AskRequest,
        context: &CallContext,
    ) -> Result<Asked, MessagingError> {
        let wait = request.wait.unwrap_or(self.rules.default_wait);
        self.check_wait("timeout", wait)?;
        let deadline = Instant::now() + wait;
        let inbox = context.own(&request.sender)?;
        let keyed = request.idempotency_key.is_some();
        let mut message = NewMessage {
            id: MessageId::new(),
            sender: inbox.clone(),
            verified: context.principal.grant().is_some(),
            recipient: context.peer(&request.recipient),
            text: request.text,
            in_reply_to: request.in_reply_to,
            idempotency: request.idempotency_key.map(|text| IdempotencyKey::new(&inbox, &text)),
            ttl: self.life(None)?.max(wait.min(self.rules.ttl_range.1)),
            wait: (!wait.is_zero()).then_some(wait),
            trace: trace_of(context.trace),
            taken: Taking::All,
        };
        self.allow(&inbox, 1, context).await?;
        let running = self.waiters.run(&context.stop).await?;
        let _place = self.waiters.enter(Held::Wait, &context.principal)?;
        // Watch before asking: the answer may come at once.
        let mut wakeups = self.queue.watch(Topic::Reply(inbox.clone(), message.id)).await?;
        let cancelled = match &context.call {
            Some(call) => Some(self.queue.watch(Topic::Call(*call)).await?),
            None => None,
        };
        let mut open = OpenWait {
            settler: self.settler(),
            inbox: inbox.clone(),
            wait: message.id,
            keep: keyed,
            armed: message.wait.is_some(),
        };
        // It may have been given up before it listened.
        let (accepted, given_up) =
            join(self.accept(&mut message), self.was_cancelled(context)).await;
        let sent = match accepted {
            Ok(sent) => sent,
            Err(error) => {
                // Refused without a trace, or unknown: then the guard closes what may be open.
                open.armed = open.armed && matches!(error, MessagingError::Queue(_));
                return Err(error);
            }
        };
        drop(running);
        message.text = String::new(); // not to be held by everybody who waits
        let look = matches!(sent.status, SentStatus::Duplicate(_));
        if sent.id != message.id {
            open.wait = sent.id;
            wakeups = self.queue.watch(Topic::Reply(inbox.clone(), sent.id)).await?;
        }
        let mut asked = Asked {
            sent,
            reply: Reply::Pending,
            other_messages: 0,
            notices: Vec::new(),
            delivery: None,
        };
        // A failure to find out is no cancellation: every look asks again.
        let mut ended = matches!(given_up, Ok(true)).then_some(Ended::Cancelled);
        // A handle says that the task is kept, which nobody knows of a question that is not confirmed.
        if context.takes_tasks && open.armed && ended.is_none() && !asked.sent.unconfirmed {
            // Where the store cannot say whether it is one, it waits all the same.
            outlived(self.become_task(&mut open, &mut asked, look, context).await)?;
        }
        let watches = (wakeups, cancelled);
        let wait = (look, ended, deadline);
        let mut away;
        (ended, away) = self.await_reply((&mut open, &mut asked), watches, wait, context).await?;
        if open.armed && !keyed && !away {
            // Closed before the answer says "pending", so that the reply is where it says.
            let closed = timeout(LAST_LOOK, self.queue.wait_close(&inbox, open.wait)).await;
            let closed = closed.unwrap_or(Err(QueueError::Timeout)).map_err(Into::into);
            away = outlived(closed)?.is_none();
            open.armed = away;
        }
        if let Reply::Pending = asked.reply {
            asked.reply = match ended {
                Some(Ended::Cancelled) => Reply::Cancelled,
                Some(Ended::AskAgain) => Reply::AskAgain,
                Some(Ended::Unwelcome) => Reply::Unwelcome,
                None if away => Reply::StoreAway,
                None => Reply::Pending,
            };
        }
        // A handle has no room for notices, who is not welcome hears none, and without a store nobody knows
        // any: they stay due.
        let tells = !matches!(asked.reply, Reply::Task(_) | Reply::Unwelcome | Reply::StoreAway);
        if asked.sent.notices_due && tells {
            let (notices, told) = self.notices(&inbox).await;
            asked.notices = notices;
            asked.delivery = match asked.delivery.take() {
                Some(delivery) => Some(delivery.and(told)),
                None => told,
            };
        }
        Ok(asked)
    }

    /// Waits for the reply, to the deadline or to what ends the call before it. Also: whether the store was away
    /// in the end.
    async fn await_reply(
        &self,
        (open, asked): (&mut OpenWait, &mut Asked),
        (mut wakeups, mut cancelled): (Wakeups, Option<Wakeups>),
        (mut look, mut ended, deadline): (bool, Option<Ended>, Instant),
        context: &CallContext,
    ) -> Result<(Option<Ended>, bool), MessagingError> {
        while open.armed {
            let over = ended.is_some() || Instant::now() >= deadline;
            // Who is not welcome any more is handed nothing: a reply goes to the inbox.
            if (look || over) && ended != Some(Ended::Unwelcome) {
                let took = self.take_reply(open, asked, context, &mut ended);
                let end = deadline.max(Instant::now() + LAST_LOOK);
                let took = timeout_at(end, took).await.unwrap_or(Err(QueueError::Timeout.into()));
                match outlived(took)? {
                    Some(true) => break,
                    Some(false) => {}
                    None if over => return Ok((ended, true)),
                    None => {
                        let pause = deadline.min(Instant::now() + STORE_PAUSE);
                        let pause = tokio::time::sleep_until(pause);
                        if context.stop.run_until_cancelled(pause).await.is_none() {
                            return Ok((stopped(context), true));
                        }
                        continue;
                    }
                }
            }
            if over {
                break;
            }
            look = true;
            let slept = self.sleep(&mut wakeups, cancelled.as_mut(), deadline, context).await;
            ended = slept?;
        }
        Ok((ended, false))
    }

    /// Makes the wait a task, unless it has its reply or may not be one.
    async fn become_task(
        &self,
        open: &mut OpenWait,
        asked: &mut Asked,
        look: bool,
        context: &CallContext,
    ) -> Result<(), MessagingError> {
        let hold = self.rules.task_hold;
        if hold.is_zero() || (look && self.take_reply(open, asked, context, &mut None).await?) {
            return Ok(());
        }
        if let Some(task) = self.queue.task_open(&open.inbox, open.wait, hold).await? {
            let (inbox, wait, keep) = (open.inbox.clone(), open.wait, open.keep);
            asked.delivery = self.settler().deliver(vec![Claim::Task { inbox, wait, keep }]);
            asked.reply = Reply::Task(Box::new(task));
            open.armed = false;
        }
        Ok(())
    }

    /// Looks for the reply. `true`: the wait has come to its end.
    async fn take_reply(
        &self,
        open: &mut OpenWait,
        asked: &mut Asked,
        context: &CallContext,
        ended: &mut Option<Ended>,
    ) -> Result<bool, MessagingError> {
        let take = self.queue.wait_take(&open.inbox, open.wait);
        let (state, given_up) = match try_join(take, self.was_cancelled(context)).await {
            // The wait stays armed: its reply goes to the inbox, unless a repetition of the call takes it up.
            Err(QueueError::Unreadable { why, .. }) => {
                asked.reply = Reply::Unreadable(why);
                return Ok(true);
            }
            found => found?,
        };
        if given_up {
            *ended = Some(Ended::Cancelled);
        }
        asked.other_messages = state.queued;
        match state.taken {
            Taken::Open => return Ok(given_up),
            Taken::Gone => open.armed = false,
            Taken::Reply(_) if *ended == Some(Ended::Cancelled) => {}
            Taken::Reply(reply) => {
                self.note_delivered(&open.inbox, std::slice::from_ref(&reply));
                asked.delivery = self.settler().deliver(vec![open.claim()]);
                open.armed = false;
                asked.reply = Reply::Message(reply);
            }
        }
        Ok(true)
    }
}
