//! Limits of one process. What is over is dropped when there is twice as much as was left the last time.

use std::{collections::HashMap, time::Duration};

use super::{micros, until};
use crate::{
    model::{ClientId, Inbox, Rate, Tenant},
    queue::{Bucket, Pair, Pause, Permits},
};

/// So many entries are not worth a look.
const FEW: usize = 1024;

/// Buckets, pauses, and who is to be told of them.
#[derive(Default)]
pub(super) struct Limiter {
    buckets: Crowd<Bucket, State>,
    /// By tenant and pair: the end of its pause.
    pauses: Crowd<Pair, u64>,
    /// By client: the end of each pause and until when it is remembered, by who the other one is.
    untold: Crowd<Inbox, HashMap<ClientId, (u64, u64)>>,
}

#[derive(Default, Clone, Copy)]
struct State {
    /// As [`Rate::take`] has it.
    until_us: u64,
    paused_until_us: u64,
}

/// A map whose dead entries go in passing.
struct Crowd<K, V> {
    map: HashMap<K, V>,
    left: usize,
}

impl<K, V> Default for Crowd<K, V> {
    fn default() -> Self {
        Self { map: HashMap::new(), left: 0 }
    }
}

impl<K: Eq + std::hash::Hash, V> Crowd<K, V> {
    fn forget(&mut self, alive: impl Fn(&V) -> bool) {
        if self.map.len() > 2 * self.left + FEW {
            self.map.retain(|_, value| alive(value));
            self.left = self.map.len();
        }
    }
}

impl Limiter {
    pub(super) fn permits(
        &mut self,
        bucket: &Bucket,
        rate: Rate,
        (need, want): (u32, u32),
        now_us: u64,
    ) -> Permits {
        self.buckets.forget(|state| state.until_us.max(state.paused_until_us) > now_us);
        let state = self.buckets.map.entry(bucket.clone()).or_default();
        if state.paused_until_us > now_us {
            return Permits::Paused(until(now_us, state.paused_until_us));
        }
        match rate.take(&mut state.until_us, now_us, need, want) {
            Ok(granted) => Permits::Granted(granted),
            Err(later) => Permits::Later(later),
        }
    }

    pub(super) fn pause(
        &mut self,
        pair: &Pair,
        (time, keep): (Duration, Duration),
        told: &ClientId,
        now_us: u64,
    ) -> (Duration, bool) {
        let state = self.buckets.map.entry(Bucket::pair(pair)).or_default();
        if state.paused_until_us > now_us {
            return (until(now_us, state.paused_until_us), false);
        }
        let ends_us = now_us.saturating_add(micros(time));
        *state = State { until_us: 0, paused_until_us: ends_us };
        self.pauses.forget(|ends_us| *ends_us > now_us);
        self.pauses.map.insert(pair.clone(), ends_us);
        let remembered = |told: &HashMap<_, (u64, u64)>| told.values().any(|told| told.1 > now_us);
        self.untold.forget(remembered);
        let peer = if pair.clients().0 == told { pair.clients().1 } else { pair.clients().0 };
        let inbox = Inbox::new(pair.tenant().clone(), told.clone());
        let forgotten_us = ends_us.saturating_add(micros(keep));
        let untold = self.untold.map.entry(inbox).or_default();
        untold.insert(peer.clone(), (ends_us, forgotten_us));
        (time, true)
    }

    pub(super) fn lift(&mut self, pair: &Pair, now_us: u64) -> bool {
        self.buckets.map.remove(&Bucket::pair(pair));
        let (one, other) = pair.clients();
        for (client, peer) in [(one, other), (other, one)] {
            let inbox = Inbox::new(pair.tenant().clone(), client.clone());
            if let Some(untold) = self.untold.map.get_mut(&inbox) {
                untold.remove(peer);
            }
        }
        self.pauses.map.remove(pair).is_some_and(|ends_us| ends_us > now_us)
    }

    pub(super) fn paused_pairs(&self, tenant: &Tenant, now_us: u64) -> Vec<(Pair, Duration)> {
        let pairs = self.pauses.map.iter();
        let running = pairs.filter(|(pair, ends_us)| pair.tenant() == tenant && **ends_us > now_us);
        running.map(|(pair, ends_us)| (pair.clone(), until(now_us, *ends_us))).collect()
    }

    pub(super) fn pauses(&self, client: &Inbox, now_us: u64) -> Vec<Pause> {
        let untold = self.untold.map.get(client).into_iter().flatten();
        let live = untold.filter(|(_peer, (_ends_us, forgotten_us))| *forgotten_us > now_us);
        live.map(|(peer, (ends_us, _))| Pause { peer: peer.clone(), until_ms: ends_us / 1000 })
            .collect()
    }

    pub(super) fn told(&mut self, client: &Inbox, told: &[Pause]) {
        let Some(untold) = self.untold.map.get_mut(client) else { return };
        for Pause { peer, until_ms } in told {
            // One that began since is another one.
            if untold.get(peer).is_some_and(|(ends_us, _)| ends_us / 1000 == *until_ms) {
                untold.remove(peer);
            }
        }
        if untold.is_empty() {
            self.untold.map.remove(client);
        }
    }
}
