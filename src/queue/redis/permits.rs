//! Limits that replicas share. A bucket is one small hash in a slot of its own name, so that a Cluster spreads
//! them, and ends by itself as soon as it is full again.

use std::time::Duration;

use async_trait::async_trait;
use fred::types::Value;

use super::{
    RedisQueue, count,
    functions::Operation,
    keys::{self, InboxKeys},
    millis,
    reply::{self, Answer, contract},
    text,
};
use crate::{
    model::{ClientId, Inbox, Rate, Tenant},
    queue::{Bucket, LimitStore, Pair, Pause, Permits, QueueError},
};

/// The store's time and what a hash of pauses holds: who, and until when, in milliseconds.
fn read(value: Value) -> Result<(u64, Vec<(String, u64)>), QueueError> {
    let broken = || contract("a hash of pauses is broken");
    let mut answer = Answer::new(value)?;
    let now_ms = answer.count()?;
    let (mut rest, mut found) = (answer.rest(), Vec::new());
    while let Some(who) = rest.next() {
        let until_ms = rest.next().and_then(|value| value.as_u64()).ok_or_else(broken)?;
        found.push((who.as_string().ok_or_else(broken)?, until_ms));
    }
    Ok((now_ms, found))
}

#[async_trait]
impl LimitStore for RedisQueue {
    async fn permits(
        &self,
        bucket: &Bucket,
        rate: Rate,
        need: u32,
        want: u32,
    ) -> Result<Permits, QueueError> {
        let (key, slot) = keys::permits(bucket);
        let args = vec![
            count(rate.step_us()),
            count(rate.burst().into()),
            count(need.into()),
            count(want.max(need).into()),
        ];
        let value = self.call(Operation::Permits, slot, vec![key], args).await?;
        let mut answer = Answer::new(value)?;
        let (granted, later, paused) = (answer.count()?, answer.count()?, answer.count()?);
        Ok(match u32::try_from(granted).unwrap_or(u32::MAX) {
            0 if paused > 0 => Permits::Paused(Duration::from_millis(paused)),
            0 => Permits::Later(Duration::from_millis(later)),
            granted => Permits::Granted(granted),
        })
    }

    async fn pause(
        &self,
        pair: &Pair,
        time: Duration,
        told: &ClientId,
    ) -> Result<(Duration, bool), QueueError> {
        let (one, other) = pair.clients();
        let peer = if one == told { other } else { one };
        let (key, slot) = keys::permits(&Bucket::pair(pair));
        // Who dies in between leaves a notice of a pause that the next message begins.
        let inbox = InboxKeys::new(&Inbox::new(pair.tenant().clone(), told.clone()));
        let names = vec![inbox.pauses(), inbox.meta()];
        let args = vec![text(peer.expose()), millis(time), self.keep()];
        self.call(Operation::PauseNote, inbox.bucket, names, args).await?;
        let (index, tag) = keys::paused_pairs(pair.tenant());
        let args = vec![text(&pair.name()), millis(time), self.keep()];
        self.link.call(Operation::PauseNote, tag, vec![index], args).await?;
        let value = self.call(Operation::Pause, slot, vec![key], vec![millis(time)]).await?;
        let mut answer = Answer::new(value)?;
        Ok((Duration::from_millis(answer.count()?), answer.integer()? == 1))
    }

    async fn lift(&self, pair: &Pair) -> Result<bool, QueueError> {
        let (key, slot) = keys::permits(&Bucket::pair(pair));
        let lifted = self.call(Operation::PauseLift, slot, vec![key], Vec::new()).await?;
        let (index, tag) = keys::paused_pairs(pair.tenant());
        let args = vec![text(&pair.name()), text("")];
        self.link.call(Operation::PausesTold, tag, vec![index], args).await?;
        let (one, other) = pair.clients();
        for (client, peer) in [(one, other), (other, one)] {
            let inbox = InboxKeys::new(&Inbox::new(pair.tenant().clone(), client.clone()));
            let names = vec![inbox.pauses(), inbox.meta()];
            let args = vec![text(peer.expose()), text("")];
            self.call(Operation::PausesTold, inbox.bucket, names, args).await?;
        }
        Ok(reply::integer(&lifted)? == 1)
    }

    async fn paused_pairs(&self, tenant: &Tenant) -> Result<Vec<(Pair, Duration)>, QueueError> {
        let (index, tag) = keys::paused_pairs(tenant);
        let value = self.link.call(Operation::Pauses, tag, vec![index], Vec::new()).await?;
        let (now_ms, found) = read(value)?;
        let running = found.into_iter().filter(|(_, until_ms)| *until_ms > now_ms);
        let pairs = running.map(|(name, until_ms)| {
            let pair = Pair::from_name(tenant, &name).ok_or_else(|| contract("no pair"))?;
            Ok((pair, Duration::from_millis(until_ms - now_ms)))
        });
        pairs.collect()
    }

    async fn pauses(&self, client: &Inbox) -> Result<Vec<Pause>, QueueError> {
        let keys = InboxKeys::new(client);
        let names = vec![keys.pauses()];
        let value = self.call(Operation::Pauses, keys.bucket, names, Vec::new()).await?;
        let (_now_ms, found) = read(value)?;
        let pauses = found.into_iter().map(|(peer, until_ms)| {
            let peer = peer.parse().map_err(|_| contract("a pause names nobody"))?;
            Ok(Pause { peer, until_ms })
        });
        pauses.collect()
    }

    async fn pauses_told(&self, client: &Inbox, told: &[Pause]) -> Result<(), QueueError> {
        let keys = InboxKeys::new(client);
        let args = told.iter().flat_map(|Pause { peer, until_ms }| {
            [text(peer.expose()), text(&until_ms.to_string())]
        });
        let names = vec![keys.pauses(), keys.meta()];
        self.call(Operation::PausesTold, keys.bucket, names, args.collect()).await?;
        Ok(())
    }
}
