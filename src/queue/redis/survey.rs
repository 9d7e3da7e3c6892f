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

/// Inboxes of one call: Redis is held up for less than a millisecond. Calls go one by one, because Redis serves nobody
/// else between those that came together.
const CALL: u32 = 64;
/// A call is followed by a pause of so many times its own length, so that a survey takes at most a twentieth of
/// Redis' time, however much there is to count.
const PAUSES: u32 = 19;
/// The longest pause after a call that counted all it may; one that counted less pauses less. What took longer
/// was none of Redis' time but the way to it.
const PAUSE: Duration = Duration::from_millis(30);
/// The longest one after a ledger was looked up.
const LONG_PAUSE: Duration = Duration::from_secs(1);
/// Senders of one survey whose ledgers are looked up because they have not come to do so.
const LOOK_UPS: usize = 32;

/// Inboxes of one call of a list, and buckets that are asked at once for it.
const LISTED: u64 = 256;
const AT_ONCE: usize = 16;

/// What a call counted.
struct Counted {
    part: Survey,
    overdue: Vec<Inbox>,
    /// The bucket goes on here.
    next: Option<(u8, u64)>,
}

impl Counted {
    /// How long Redis is to be left alone after it.
    fn pause(&self) -> Duration {
        let Survey { inboxes, waiting, active, away, .. } = self.part;
        let looked_at = u32::try_from(inboxes.max(waiting + active + away)).unwrap_or(CALL);
        let looked_at = if self.next.is_some() { CALL } else { looked_at.min(CALL) };
        PAUSE * looked_at / CALL
    }
}

async fn rest_after(began: Instant, most: Duration) {
    tokio::time::sleep((began.elapsed() * PAUSES).min(most)).await;
}

impl RedisQueue {
    pub(super) async fn survey_all(&self, lease: Duration) -> Result<Option<Survey>, QueueError> {
        let (mut all, mut overdue) = (Survey::default(), Vec::new());
        let mut todo: Vec<(u8, u64)> = (0..=u8::MAX).map(|bucket| (bucket, 0)).collect();
        let mut held_until = Instant::now();
        while let Some((bucket, offset)) = todo.pop() {
            if held_until <= Instant::now() {
                if !self.hold_survey(lease).await? {
                    return Ok(None);
                }
                held_until = Instant::now() + lease / 3;
            }
            let began = Instant::now();
            let counted = self.survey_some(bucket, offset).await?;
            rest_after(began, counted.pause()).await;
            all.add(&counted.part);
            overdue.extend(counted.overdue);
            todo.extend(counted.next);
        }
        // What they sent has expired, or was acknowledged: whoever counts finds out in their place, so that
        // an expiry is seen although its sender does not come back. All of them have their turn by chance.
        let chosen: Vec<_> = overdue.choose_multiple(&mut rand::rng(), LOOK_UPS).collect();
        for sender in chosen {
            let began = Instant::now();
            self.look_up(sender).await?;
            rest_after(began, LONG_PAUSE).await;
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
        let args = vec![count(offset), count(u64::from(CALL)), millis(Survey::ACTIVE)];
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
