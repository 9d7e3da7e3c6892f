//! Counting what lies in all inboxes, at a pace that nobody else feels, and listing those of one tenant.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::try_join_all;
use rand::seq::IndexedRandom;
use tokio::time::Instant;

use super::{RedisQueue, count, functions::Operation, keys, millis, reply, reply::Answer, text};
use crate::{
    model::{Inbox, Survey, Tenant},
    queue::{InboxStat, QueueError},
};

/// Inboxes of one call: Redis is held up for less than a millisecond.
const CALL: u64 = 64;
/// Buckets that are asked at once.
const AT_ONCE: usize = 16;
/// A round of calls is followed by a pause of so many times its own length, so that a survey takes at
/// most a tenth of Redis' time, however much there is to count.
const PAUSES: u32 = 9;
/// Senders of one survey whose ledgers are looked up because they have not come to do so.
const LOOK_UPS: usize = 32;

/// Inboxes of one call of a list.
const LISTED: u64 = 256;

/// What a call counted.
struct Counted {
    part: Survey,
    overdue: Vec<Inbox>,
    /// The bucket goes on here.
    next: Option<(u8, u64)>,
}

/// Works, and rests after it.
async fn paced<T>(work: impl Future<Output = Result<T, QueueError>>) -> Result<T, QueueError> {
    let started = Instant::now();
    let done = work.await?;
    tokio::time::sleep((started.elapsed() * PAUSES).min(Duration::from_secs(1))).await;
    Ok(done)
}

impl RedisQueue {
    pub(super) async fn survey_all(&self, lease: Duration) -> Result<Option<Survey>, QueueError> {
        let (mut all, mut overdue) = (Survey::default(), Vec::new());
        let mut todo: Vec<(u8, u64)> = (0..=u8::MAX).map(|bucket| (bucket, 0)).collect();
        let mut held_until = Instant::now();
        while !todo.is_empty() {
            if held_until <= Instant::now() {
                if !self.hold_survey(lease).await? {
                    return Ok(None);
                }
                held_until = Instant::now() + lease / 3;
            }
            let round = todo.split_off(todo.len().saturating_sub(AT_ONCE));
            let calls = round.into_iter().map(|(bucket, offset)| self.survey_some(bucket, offset));
            for counted in paced(try_join_all(calls)).await? {
                all.add(&counted.part);
                overdue.extend(counted.overdue);
                todo.extend(counted.next);
            }
        }
        // What they sent has expired, or was acknowledged: whoever counts finds out in their place, so that
        // an expiry is seen although its sender does not come back. All of them have their turn by chance.
        let chosen: Vec<_> = overdue.choose_multiple(&mut rand::rng(), LOOK_UPS).collect();
        for sender in chosen {
            paced(self.look_up(sender)).await?;
        }
        Ok(Some(all))
    }

    async fn hold_survey(&self, lease: Duration) -> Result<bool, QueueError> {
        let (key, slot) = keys::surveyor();
        let args = vec![text(&self.store.name), millis(lease)];
        let held = self.link.call(Operation::Hold, slot, vec![text(&key)], args).await?;
        Ok(reply::integer(&held)? == 1)
    }

    /// The inboxes of a tenant that hold something, or where somebody waits.
    pub(super) async fn inboxes_of(
        &self,
        tenant: &Tenant,
        limit: usize,
    ) -> Result<Vec<InboxStat>, QueueError> {
        let begins = text(&format!("{}/", tenant.as_str()));
        let mut todo: Vec<(u8, u64)> = (0..=u8::MAX).map(|bucket| (bucket, 0)).collect();
        let mut found = BTreeMap::new(); // one that gets mail meanwhile moves to the end of its bucket
        while !todo.is_empty() && found.len() < limit {
            let round = todo.split_off(todo.len().saturating_sub(AT_ONCE));
            let calls = round.iter().map(|(bucket, offset)| {
                let args = vec![begins.clone(), count(*offset), count(LISTED)];
                let keys = vec![text(&keys::index(*bucket))];
                self.call(Operation::Inboxes, *bucket, keys, args)
            });
            let answers = try_join_all(calls).await?;
            for ((bucket, _), value) in round.into_iter().zip(answers) {
                let mut answer = Answer::new(value)?;
                if let Ok(offset) = u64::try_from(answer.integer()?) {
                    todo.push((bucket, offset));
                }
                while answer.more() {
                    let name = answer.bytes()?;
                    let (queued, presence) = (answer.count()?, answer.presence()?);
                    let inbox = name.as_str().and_then(|name| Inbox::from_name(&name));
                    let inbox = inbox.ok_or_else(|| reply::contract("an inbox without a name"))?;
                    found.insert(inbox.client().clone(), (queued, presence));
                }
            }
        }
        let stats = found.into_iter().take(limit);
        Ok(stats
            .map(|(client, (queued, presence))| InboxStat { client, queued, presence })
            .collect())
    }

    /// Counts some inboxes of a bucket.
    async fn survey_some(&self, bucket: u8, offset: u64) -> Result<Counted, QueueError> {
        let args = vec![count(offset), count(CALL), millis(Survey::ACTIVE)];
        let keys = vec![text(&keys::index(bucket))];
        let mut answer = Answer::new(self.call(Operation::Survey, bucket, keys, args).await?)?;
        let next = u64::try_from(answer.integer()?).ok().map(|offset| (bucket, offset));
        let part = Survey {
            messages: answer.count()?,
            bytes: answer.count()?,
            inboxes: answer.count()?,
            most_messages: answer.count()?,
            most_bytes: answer.count()?,
            oldest: answer.millis()?.unwrap_or_default(),
            waiting: answer.count()?,
            active: answer.count()?,
            away: answer.count()?,
        };
        let overdue = answer.rest().filter_map(|name| Inbox::from_name(&name.as_str()?)).collect();
        Ok(Counted { part, overdue, next })
    }
}
