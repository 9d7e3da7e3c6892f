//! What metrics say of the store as a whole, and of whether this replica is ready.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    model::Clock,
    queue::QueueBackend,
    telemetry::{Metrics, Readiness},
};

/// How often a replica looks whether it is ready, asked or not.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Whoever samples is given up after missing so many samples.
const MISSED: u32 = 3;

/// Counts what lies in the store every so often, if no other process does. Never returns.
pub async fn keep_sampled(
    queue: Arc<dyn QueueBackend>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    every: Duration,
) {
    loop {
        match queue.survey(every * MISSED).await {
            Ok(found) => {
                let at = Duration::from_micros(clock.now_us()).as_secs_f64();
                metrics.surveyed(found.as_ref().map(|survey| (survey, at)));
            }
            Err(error) => {
                // It may be another's turn by now, so nothing is said that may be stale.
                metrics.surveyed(None);
                tracing::debug!(error.kind = error.label(), error = %error, "counting the inboxes failed");
            }
        }
        tokio::time::sleep(every).await;
    }
}

/// Looks whether this replica is ready until `stop`, so that metrics say it although nobody asks.
pub async fn keep_watching_readiness(
    queue: Arc<dyn QueueBackend>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let look = async {
        loop {
            metrics.ready(
                queue.ready().await.map_or_else(|unready| unready.reason, |()| Readiness::Ok),
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let _never: Option<()> = stop.run_until_cancelled(look).await;
    metrics.ready(Readiness::Stopping);
}
