//! Values for the tests of the tools.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::{Map, Value};
use tokio_util::task::TaskTracker;

use super::{ToolOutcome, ToolRegistry, registry};
use crate::{
    messaging::{self, MessagingService, Refusal, Rules, SendResult, Waiters},
    model::{ClientId, Inbox, Message, MessageId, Survey, Tenant},
    queue::{
        Browsed, CallKey, ClientPage, ClientQuery, FetchRequest, Fetched, InboxStat, LeaseId,
        LedgerEntry, NewMessage, Notice, Peek, Presence, Profile, QueueBackend, QueueError, Sent,
        SentStatus, Stamp, TaskId, TaskRecord, Topic, Unready, WaitState, Wakeups,
    },
    telemetry::{Metrics, Readiness},
};

pub(super) fn id(text: &str) -> ClientId {
    text.parse().unwrap()
}

pub(super) fn message(from: &str, text: &str) -> Message {
    Message {
        id: MessageId::new(),
        from: id(from).into(),
        verified: false,
        in_reply_to: None,
        text: text.to_owned(),
        accepted_at_ms: 1_767_225_599_001,
        age: Duration::from_secs(12),
        redelivered: false,
        attempt: 1,
        asks: false,
        trace: None,
    }
}

pub(super) fn notice(recipient: &str) -> messaging::Notice {
    let (id, recipient) = (MessageId::new(), id(recipient).into());
    messaging::Notice::Expired(Notice { id, recipient, sent_at_ms: 1_767_225_599_001 })
}

pub(super) fn sent(status: SentStatus, recipient: Presence) -> Sent {
    Sent {
        id: MessageId::new(),
        status,
        recipient,
        notices_due: false,
        unrecorded: false,
        unconfirmed: false,
    }
}

pub(super) fn result(recipient: &str, outcome: Result<Sent, Refusal>) -> SendResult {
    SendResult { recipient: id(recipient).into(), outcome }
}

pub(super) fn rules() -> Rules {
    Rules {
        proved_callers: false,
        message_bytes: 262_144,
        recipients: 100,
        ttl: Duration::from_mins(5),
        ttl_range: (Duration::from_secs(1), Duration::from_hours(24)),
        max_wait: Duration::from_mins(5),
        default_wait: Duration::from_secs(55),
        lease: Duration::from_secs(10),
        manual_lease: Duration::from_mins(1),
        task_hold: Duration::from_secs(60),
        fetch_messages: 50,
        fetch_bytes: 262_144,
        presence: Duration::from_mins(2),
        listed_inboxes: 1000,
    }
}

/// The structured part of an answer.
pub(super) fn structured(outcome: &ToolOutcome) -> Value {
    serde_json::from_str(outcome.structured.as_ref().expect("an answer").get()).unwrap()
}

/// Holds the answer of a tool against its `outputSchema`.
pub(super) fn assert_fits(tool: &str, outcome: &ToolOutcome) {
    let registry = tools();
    let schema = registry.get(tool).expect("a tool").definition()["outputSchema"].clone();
    let answer = structured(outcome);
    if let Err(error) = jsonschema::draft202012::validate(&schema, &answer) {
        panic!("{tool}: {error} in {answer}");
    }
    // Every field of an answer is one that the schema names.
    let named = schema["properties"].as_object().unwrap();
    let unnamed = |answer: &Map<String, Value>| -> Vec<String> {
        answer.keys().filter(|key| !named.contains_key(*key)).cloned().collect()
    };
    assert_eq!(unnamed(answer.as_object().unwrap()), Vec::<String>::new(), "{tool}");
}

/// The tools on a store that does not answer.
pub(super) fn tools() -> ToolRegistry {
    let metrics = Arc::new(Metrics::new().unwrap());
    let tasks = TaskTracker::new();
    let rules = Arc::new(rules());
    registry(MessagingService::new(Arc::new(Down), rules, Waiters::new(10), tasks, metrics))
}

/// A store that does not answer.
struct Down;

fn down<T>() -> Result<T, QueueError> {
    Err(QueueError::Unavailable { detail: "connection refused".to_owned() })
}

#[async_trait]
impl QueueBackend for Down {
    async fn send(&self, _: &NewMessage) -> Result<Sent, QueueError> {
        down()
    }
    async fn fetch(&self, _: &Inbox, _: &FetchRequest) -> Result<Fetched, QueueError> {
        down()
    }
    async fn ack(&self, _: &Inbox, _: Stamp) -> Result<u64, QueueError> {
        down()
    }
    async fn release(&self, _: &Inbox, _: LeaseId) -> Result<bool, QueueError> {
        down()
    }
    async fn extend(&self, _: &Inbox, _: LeaseId, _: Duration) -> Result<bool, QueueError> {
        down()
    }
    async fn leave(&self, _: &Inbox) -> Result<(), QueueError> {
        down()
    }
    async fn wait_take(&self, _: &Inbox, _: MessageId) -> Result<WaitState, QueueError> {
        down()
    }
    async fn wait_done(&self, _: &Inbox, _: MessageId) -> Result<(), QueueError> {
        down()
    }
    async fn wait_close(&self, _: &Inbox, _: MessageId) -> Result<(), QueueError> {
        down()
    }
    async fn task_open(
        &self,
        _: &Inbox,
        _: MessageId,
        _: Duration,
    ) -> Result<Option<TaskRecord>, QueueError> {
        down()
    }
    async fn task(&self, _: &TaskId) -> Result<Option<TaskRecord>, QueueError> {
        down()
    }
    async fn task_done(&self, _: &TaskRecord) -> Result<bool, QueueError> {
        down()
    }
    async fn task_cancel(&self, _: &TaskRecord) -> Result<bool, QueueError> {
        down()
    }
    async fn peek(&self, _: &Inbox) -> Result<Peek, QueueError> {
        down()
    }
    async fn browse(&self, _: &Inbox, _: usize, _: usize) -> Result<Browsed, QueueError> {
        down()
    }
    async fn ledger(&self, _: &Inbox) -> Result<Vec<LedgerEntry>, QueueError> {
        down()
    }
    async fn notices(&self, _: &Inbox) -> Result<Vec<Notice>, QueueError> {
        down()
    }
    async fn notices_told(&self, _: &Inbox, _: &[MessageId]) -> Result<(), QueueError> {
        down()
    }
    async fn check_in(&self, _: &Inbox, _: &Profile, _: Duration) -> Result<(), QueueError> {
        down()
    }
    async fn clients(&self, _: &Tenant, _: &ClientQuery) -> Result<ClientPage, QueueError> {
        down()
    }
    async fn inboxes(&self, _: &Tenant, _: usize) -> Result<Vec<InboxStat>, QueueError> {
        down()
    }
    async fn watch(&self, _: Topic) -> Result<Wakeups, QueueError> {
        down()
    }
    async fn cancel_call(&self, _: &CallKey) -> Result<(), QueueError> {
        down()
    }
    async fn call_cancelled(&self, _: &CallKey) -> Result<bool, QueueError> {
        down()
    }
    async fn survey(&self, _: Duration) -> Result<Option<Survey>, QueueError> {
        down()
    }
    async fn ready(&self) -> Result<(), Unready> {
        down().map_err(|cause| Unready { reason: Readiness::Disconnected, cause })
    }
}
