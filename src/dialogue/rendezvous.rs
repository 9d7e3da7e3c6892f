//! Where the answer of a client meets whoever asked. It arrives by another POST than the one that asked.

use std::collections::HashMap;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::oneshot;

use super::AskError;

/// One request of ours, within the session of its client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestKey {
    /// The client's session.
    pub session: String,
    /// The id that we gave the request.
    pub id: String,
}

/// What a client answered: its result, or why not.
pub type Answer = Result<Value, AskError>;

/// Brings answers to those who asked. A server of many replicas needs one that reaches all of them.
#[async_trait]
pub trait Rendezvous: Send + Sync {
    /// Begins to wait: an answer that comes after this has returned is received. Dropping the receiver ends
    /// it.
    ///
    /// # Errors
    /// [`AskError::NoWay`]: nothing can be received now.
    async fn expect(&self, request: RequestKey) -> Result<oneshot::Receiver<Answer>, AskError>;

    /// An answer came. One that nobody waits for is forgotten.
    async fn answer(&self, request: RequestKey, answer: Answer);
}

/// The rendezvous of one process.
#[derive(Debug, Default)]
pub struct LocalRendezvous {
    open: Mutex<HashMap<RequestKey, oneshot::Sender<Answer>>>,
}

#[async_trait]
impl Rendezvous for LocalRendezvous {
    async fn expect(&self, request: RequestKey) -> Result<oneshot::Receiver<Answer>, AskError> {
        let (sender, receiver) = oneshot::channel();
        let mut open = self.open.lock();
        // Those who gave up leave their place behind.
        open.retain(|_, sender| !sender.is_closed());
        open.insert(request, sender);
        Ok(receiver)
    }

    async fn answer(&self, request: RequestKey, answer: Answer) {
        let sender = self.open.lock().remove(&request);
        if let Some(sender) = sender
            && sender.send(answer).is_err()
        {
            tracing::debug!("an answer came after its request had been given up");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(session: &str, id: &str) -> RequestKey {
        RequestKey { session: session.into(), id: id.into() }
    }

    #[tokio::test]
    async fn an_answer_reaches_who_asked_in_that_session_only() {
        let local = LocalRendezvous::default();
        let mut asked = local.expect(key("s", "1")).await.unwrap();
        local.answer(key("other", "1"), Ok(Value::Null)).await;
        local.answer(key("s", "2"), Ok(Value::Null)).await;
        assert!(asked.try_recv().is_err());
        local.answer(key("s", "1"), Ok(Value::Bool(true))).await;
        assert_eq!(asked.await.unwrap(), Ok(Value::Bool(true)));
    }

    #[tokio::test]
    async fn who_gave_up_leaves_no_place_behind() {
        let local = LocalRendezvous::default();
        drop(local.expect(key("s", "1")).await.unwrap());
        let kept = local.expect(key("s", "2")).await.unwrap();
        assert_eq!(local.open.lock().len(), 1);
        drop(kept);
    }
}
