//! Sleeping until there is something to look at, or the call is over.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{CallContext, MessagingError, MessagingService};
use crate::queue::{QueueError, Wakeups};

/// How long a waiting call leaves a store in trouble alone.
pub(super) const STORE_PAUSE: Duration = Duration::from_millis(500);

/// A look that begins late in a wait is given so long beyond the end of the wait: enough for a slow network,
/// and as long as a connection may keep silent.
pub(super) const LAST_LOOK: Duration = Duration::from_millis(1500);

/// What ended a call before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Its client gave it up.
    Cancelled,
    /// The replica goes away.
    AskAgain,
    /// The caller's credential does not hold any more.
    Unwelcome,
}

/// What stopped a call from outside, if something did.
pub(super) fn stopped(context: &CallContext) -> Option<Ended> {
    let unwelcome = context.unwelcome.as_ref().is_some_and(CancellationToken::is_cancelled);
    let ended = if unwelcome { Ended::Unwelcome } else { Ended::AskAgain };
    context.stop.is_cancelled().then_some(ended)
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
            () = context.stop.cancelled() => return Ok(stopped(context)),
            () = cancel => {}
            () = wakeups.next() => return Ok(None),
            () = tokio::time::sleep_until(until) => return Ok(None),
        }
        match self.was_cancelled(context).await {
            Ok(cancelled) => Ok(cancelled.then_some(Ended::Cancelled)),
            // Whoever looks again asks again.
            Err(error) if error.is_passing() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the client gave the call up. Asked along with everything that a waiting call takes,
    /// because the wake-up that says so may be lost, or have come before the call listened.
    pub(super) async fn was_cancelled(&self, context: &CallContext) -> Result<bool, QueueError> {
        match &context.call {
            Some(call) => self.queue.call_cancelled(call).await,
            None => Ok(false),
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
