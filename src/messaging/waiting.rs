//! Sleeping until there is something to look at, or the call is over.

use std::time::Duration;

use tokio::time::Instant;

use super::{CallContext, MessagingError, MessagingService};
use crate::queue::Wakeups;

/// What ended a call before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Its client gave it up.
    Cancelled,
    /// The replica goes away.
    AskAgain,
}

impl MessagingService {
    /// Sleeps to `until` or to a wake-up: `None`, look again. `Some`: the call is over.
    pub(super) async fn sleep(
        &self,
        wakeups: &mut Wakeups,
        cancelled: Option<&mut Wakeups>,
        until: Instant,
        context: &CallContext,
    ) -> Result<Option<Ended>, MessagingError> {
        let cancel = async {
            match cancelled {
                Some(wakeups) => wakeups.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = context.stop.cancelled() => return Ok(Some(Ended::AskAgain)),
            () = cancel => {}
            () = wakeups.next() => return Ok(None),
            () = tokio::time::sleep_until(until) => return Ok(None),
        }
        Ok(self.was_cancelled(context, true).await?.then_some(Ended::Cancelled))
    }

    /// Whether the client gave the call up. Asked before what was taken is handed out, because the
    /// wake-up that says so may be lost.
    pub(super) async fn was_cancelled(
        &self,
        context: &CallContext,
        waits: bool,
    ) -> Result<bool, MessagingError> {
        match &context.call {
            Some(call) if waits => Ok(self.queue.call_cancelled(call).await?),
            _ => Ok(false),
        }
    }

    /// Refuses a wait over the limit; `name` is the argument that asked for it.
    pub(super) fn check_wait(
        &self,
        name: &'static str,
        wait: Duration,
    ) -> Result<(), MessagingError> {
        if wait > self.rules.max_wait {
            return Err(MessagingError::WaitOutOfRange {
                name,
                max: self.rules.max_wait.as_secs(),
            });
        }
        Ok(())
    }
}
