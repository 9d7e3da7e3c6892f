//! Sending without waiting for an answer.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::{CallContext, Delivery, MessagingError, MessagingService, Notice, audit};
use crate::{
    model::{Address, ClientId, MessageId},
    queue::{IdempotencyKey, NewMessage, Sent, SentStatus, Taking},
    teams::Verdict,
    telemetry::{MessageEvent, SendOutcome, trace_of},
};

/// One send to one or more recipients.
#[derive(Debug, Clone)]
pub struct SendRequest {
    /// Who sends.
    pub sender: ClientId,
    /// To whom, and what.
    pub parcels: Vec<Parcel>,
    /// The message that it answers.
    pub in_reply_to: Option<MessageId>,
    /// Accept it once per key and recipient.
    pub idempotency_key: Option<String>,
    /// How long it lives; the default if `None`.
    pub ttl: Option<Duration>,
}

/// What goes to one recipient.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// To whom.
    pub recipient: Address,
    /// The text.
    pub text: String,
}

/// What became of one parcel.
#[derive(Debug, Clone)]
pub struct SendResult {
    /// Whom it was for.
    pub recipient: Address,
    /// Accepted, or refused and why.
    pub outcome: Result<Sent, Refusal>,
}

/// What a send answers.
#[derive(Debug)]
pub struct Posted {
    /// In the order of the parcels.
    pub results: Vec<SendResult>,
    /// Earlier messages of the sender that expired unread, and pauses of which it does not know.
    pub notices: Vec<Notice>,
    /// To be settled by whoever writes the response.
    pub delivery: Option<Delivery>,
}

/// Why one parcel of a send was not accepted.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The id that it would have had: after a store failure it may exist.
    pub id: MessageId,
    /// Why.
    pub error: MessagingError,
}

impl MessagingService {
    /// Sends to every recipient, each independently of the others, and answers in their order.
    ///
    /// # Errors
    /// What is wrong with the request as a whole; what concerns one recipient is in its result.
    pub async fn send(
        &self,
        request: SendRequest,
        context: &CallContext,
    ) -> Result<Posted, MessagingError> {
        let posted = self.noted(self.post(request, context).await)?;
        for refused in posted.results.iter().filter_map(|result| result.outcome.as_ref().err()) {
            self.note_refusal(&refused.error);
        }
        Ok(posted)
    }

    async fn post(
        &self,
        request: SendRequest,
        context: &CallContext,
    ) -> Result<Posted, MessagingError> {
        if request.parcels.is_empty() {
            return Err(MessagingError::NoRecipient);
        }
        if request.parcels.len() > self.rules.recipients {
            return Err(MessagingError::TooManyRecipients {
                count: request.parcels.len(),
                limit: self.rules.recipients,
            });
        }
        let ttl = self.life(request.ttl)?;
        let sender = context.own(&request.sender)?;
        self.allow(&sender, request.parcels.len(), context).await?;
        let _place = self.waiters.run(&context.stop).await?;
        let key = request.idempotency_key.map(|text| IdempotencyKey::new(&sender, &text));
        let verified = context.principal.grant().is_some();
        let sends = request.parcels.into_iter().map(|parcel| {
            let mut message = NewMessage {
                id: MessageId::new(),
                sender: sender.clone(),
                verified,
                recipient: context.peer(&parcel.recipient),
                text: parcel.text,
                in_reply_to: request.in_reply_to,
                idempotency: key,
                ttl,
                wait: None,
                trace: trace_of(context.trace),
                taken: Taking::All,
            };
            async move {
                let outcome = self.accept(&mut message).await;
                let outcome = outcome.map_err(|error| Refusal { id: message.id, error });
                SendResult { recipient: parcel.recipient, outcome }
            }
        });
        let mut results = Vec::with_capacity(sends.len());
        if sends.len() == 1 {
            // Nearly every send: it needs no turns.
            for only in sends {
                results.push(only.await);
            }
        } else {
            results = join_all(sends).await;
        }
        let due = |result: &SendResult| result.outcome.as_ref().is_ok_and(|sent| sent.notices_due);
        let (notices, delivery) =
            if results.iter().any(due) { self.notices(&sender).await } else { (Vec::new(), None) };
        Ok(Posted { results, notices, delivery })
    }

    /// Checks one message and gives it to the store.
    pub(super) async fn accept(&self, message: &mut NewMessage) -> Result<Sent, MessagingError> {
        let accepted = match self.check_text(&message.text) {
            Ok(()) => self.store_if_taken(message).await,
            Err(error) => Err(error),
        };
        audit::sent(message, &accepted);
        match &accepted {
            Ok(sent) => {
                if sent.unconfirmed {
                    self.metrics.unconfirmed_send();
                }
                if !matches!(sent.status, SentStatus::Duplicate(_)) {
                    self.metrics.messages(MessageEvent::Accepted, 1);
                }
            }
            Err(MessagingError::Queue(_)) => self.metrics.messages(MessageEvent::Failed, 1),
            Err(_) => self.metrics.messages(MessageEvent::Refused, 1),
        }
        accepted
    }

    /// Who takes nothing of a sender takes the answer to a question of its own, or its wait would hang. Which
    /// questions are open, the store knows: so it decides that in the same step.
    async fn store_if_taken(&self, message: &mut NewMessage) -> Result<Sent, MessagingError> {
        let verdict = self.contacts.verdict(&message.sender, &message.recipient).await;
        let verdict = verdict.map_err(|_unknown| MessagingError::ContactsUnknown)?;
        if verdict == Verdict::Taken {
            self.check_pair(message).await?;
        } else {
            message.taken = Taking::Answers;
        }
        match self.store(message).await {
            Err(MessagingError::NotTaken) if verdict == Verdict::NotLinked => {
                Err(MessagingError::NotLinked)
            }
            stored => stored,
        }
    }

    async fn store(&self, message: &NewMessage) -> Result<Sent, MessagingError> {
        let started = Instant::now();
        let stored = self.queue.send(message).await.map_err(MessagingError::from);
        let outcome = match &stored {
            Ok(_) => SendOutcome::Accepted,
            Err(MessagingError::Queue(_)) => SendOutcome::Failed,
            Err(_) => SendOutcome::Refused,
        };
        self.metrics.send(outcome, started.elapsed());
        stored
    }

    fn check_text(&self, text: &str) -> Result<(), MessagingError> {
        if text.is_empty() {
            return Err(MessagingError::EmptyMessage);
        }
        if text.len() > self.rules.message_bytes {
            return Err(MessagingError::MessageTooLarge {
                bytes: text.len(),
                limit: self.rules.message_bytes,
            });
        }
        Ok(())
    }

    pub(super) fn life(&self, asked: Option<Duration>) -> Result<Duration, MessagingError> {
        let (min, max) = self.rules.ttl_range;
        let ttl = asked.unwrap_or(self.rules.ttl);
        if ttl < min || ttl > max {
            return Err(MessagingError::TtlOutOfRange { min: min.as_secs(), max: max.as_secs() });
        }
        Ok(ttl)
    }
}
