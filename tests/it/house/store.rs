//! A store that keeps messages of one kind and a diary.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use mcp_messaging::{
    model::{Inbox, Message, MessageId, MessageState, Survey, Tenant},
    queue::{
        Batch, Browsed, CallKey, ClientPage, ClientQuery, FetchRequest, Fetched, Hub, InboxStat,
        LeaseId, LedgerEntry, NewMessage, Notice, Outcome, Peek, Presence, Profile, QueueBackend,
        QueueError, Sent, SentStatus, Stamp, TaskId, TaskRecord, Topic, Unready, WaitState,
        Wakeups,
    },
    telemetry::Readiness,
};

/// What was done to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Did {
    Fetched,
    Acked,
    Released,
    Extended,
    Cancelled(CallKey),
}

#[derive(Default)]
pub(crate) struct Store {
    hub: Hub,
    diary: Mutex<Vec<Did>>,
    texts: Mutex<Vec<String>>,
    leased: Mutex<Option<LeaseId>>,
    cancelled: Mutex<Vec<CallKey>>,
    pub down: AtomicBool,
    /// A call of the tool `hang` is running.
    pub hangs: AtomicBool,
}

impl Store {
    pub(crate) fn put(&self, text: impl Into<String>) {
        self.texts.lock().unwrap().push(text.into());
        self.hub.wake("inbox");
    }

    /// Takes back what nobody fetched.
    pub(crate) fn clear(&self) {
        self.texts.lock().unwrap().clear();
    }

    /// As after a connection that was made anew: everybody is to look.
    pub(crate) fn wake_all(&self) {
        for topic in ["inbox", "reply", "call"] {
            self.hub.wake(topic);
        }
    }

    pub(crate) fn diary(&self) -> Vec<Did> {
        self.diary.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, did: Did) -> usize {
        self.diary().into_iter().filter(|entry| *entry == did).count()
    }

    /// How many calls wait for messages now.
    pub(crate) fn watchers(&self) -> usize {
        self.hub.watched().iter().filter(|topic| &***topic == "inbox").count()
    }

    fn note(&self, did: Did) {
        self.diary.lock().unwrap().push(did);
    }
}

#[async_trait]
impl QueueBackend for Store {
    async fn fetch(&self, inbox: &Inbox, request: &FetchRequest) -> Result<Fetched, QueueError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(QueueError::Timeout);
        }
        let mut leased = self.leased.lock().unwrap();
        let texts = self.texts.lock().unwrap();
        let free = leased.is_none_or(|lease| lease == request.lease);
        let outcome = if texts.is_empty() {
            Outcome::Empty
        } else if free {
            *leased = Some(request.lease);
            self.note(Did::Fetched);
            let message = |text: &String| Message {
                id: MessageId::new(),
                from: inbox.client().clone().into(),
                verified: false,
                in_reply_to: None,
                text: text.clone(),
                accepted_at_ms: 0,
                age: Duration::ZERO,
                redelivered: false,
                attempt: 1,
                asks: false,
                trace: None,
            };
            Outcome::Messages(Batch {
                messages: texts.iter().map(message).collect(),
                upto: Stamp(7),
            })
        } else {
            Outcome::Busy
        };
        Ok(Fetched { outcome, remaining: 0, due: None, notices_due: false })
    }

    async fn ack(&self, _inbox: &Inbox, _upto: Stamp) -> Result<u64, QueueError> {
        self.note(Did::Acked);
        *self.leased.lock().unwrap() = None;
        let removed = std::mem::take(&mut *self.texts.lock().unwrap()).len();
        Ok(removed as u64)
    }

    async fn release(&self, _inbox: &Inbox, lease: LeaseId) -> Result<bool, QueueError> {
        let mut leased = self.leased.lock().unwrap();
        let held = *leased == Some(lease);
        if held {
            self.note(Did::Released);
            *leased = None;
        }
        drop(leased);
        self.hub.wake("inbox");
        Ok(held)
    }

    async fn extend(&self, _: &Inbox, _: LeaseId, _: Duration) -> Result<bool, QueueError> {
        self.note(Did::Extended);
        Ok(true)
    }

    async fn watch(&self, topic: Topic) -> Result<Wakeups, QueueError> {
        Ok(self.hub.register(match topic {
            Topic::Inbox(_) | Topic::News(_) => "inbox",
            Topic::Reply(..) => "reply",
            Topic::Call(_) => "call",
        }))
    }

    async fn cancel_call(&self, call: &CallKey) -> Result<(), QueueError> {
        self.note(Did::Cancelled(*call));
        self.cancelled.lock().unwrap().push(*call);
        self.hub.wake("call");
        Ok(())
    }

    async fn call_cancelled(&self, call: &CallKey) -> Result<bool, QueueError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(QueueError::Timeout);
        }
        Ok(self.cancelled.lock().unwrap().contains(call))
    }

    async fn survey(&self, _lease: Duration) -> Result<Option<Survey>, QueueError> {
        Ok(None)
    }

    async fn ready(&self) -> Result<(), Unready> {
        if self.down.load(Ordering::SeqCst) {
            let cause = QueueError::Unavailable { detail: "secret cause".into() };
            return Err(Unready { reason: Readiness::Disconnected, cause });
        }
        Ok(())
    }

    async fn leave(&self, _: &Inbox) -> Result<(), QueueError> {
        Ok(())
    }

    async fn inboxes(&self, _: &Tenant, _: usize) -> Result<Vec<InboxStat>, QueueError> {
        let stat = |queued| InboxStat {
            client: "bob".parse().unwrap(),
            queued,
            presence: Presence::Unknown,
        };
        Ok(vec![stat(self.texts.lock().unwrap().len() as u64)])
    }

    async fn clients(&self, _: &Tenant, _: &ClientQuery) -> Result<ClientPage, QueueError> {
        Ok(ClientPage::default())
    }

    /// It had that one before.
    async fn send(&self, message: &NewMessage) -> Result<Sent, QueueError> {
        Ok(Sent {
            id: message.id,
            status: SentStatus::Duplicate(MessageState::Queued),
            recipient: Presence::Unknown,
            notices_due: false,
            unrecorded: false,
            unconfirmed: false,
        })
    }

    async fn wait_take(&self, _: &Inbox, _: MessageId) -> Result<WaitState, QueueError> {
        Err(QueueError::Timeout)
    }

    async fn wait_done(&self, _: &Inbox, _: MessageId) -> Result<(), QueueError> {
        Ok(())
    }

    async fn wait_close(&self, _: &Inbox, _: MessageId) -> Result<(), QueueError> {
        Ok(())
    }

    async fn task_open(
        &self,
        _: &Inbox,
        _: MessageId,
        _: Duration,
    ) -> Result<Option<TaskRecord>, QueueError> {
        Err(QueueError::Timeout)
    }

    async fn task(&self, _: &TaskId) -> Result<Option<TaskRecord>, QueueError> {
        Err(QueueError::Timeout)
    }

    async fn task_done(&self, _: &TaskRecord) -> Result<bool, QueueError> {
        Err(QueueError::Timeout)
    }

    async fn task_cancel(&self, _: &TaskRecord) -> Result<bool, QueueError> {
        Err(QueueError::Timeout)
    }

    async fn peek(&self, _: &Inbox) -> Result<Peek, QueueError> {
        Err(QueueError::Timeout)
    }

    async fn browse(&self, _: &Inbox, _: usize, _: usize) -> Result<Browsed, QueueError> {
        Err(QueueError::Timeout)
    }

    async fn ledger(&self, _: &Inbox) -> Result<Vec<LedgerEntry>, QueueError> {
        Ok(Vec::new())
    }

    async fn notices(&self, _: &Inbox) -> Result<Vec<Notice>, QueueError> {
        Ok(Vec::new())
    }

    async fn notices_told(&self, _: &Inbox, _: &[MessageId]) -> Result<(), QueueError> {
        Ok(())
    }

    async fn check_in(&self, _: &Inbox, _: &Profile, _: Duration) -> Result<(), QueueError> {
        Ok(())
    }
}
