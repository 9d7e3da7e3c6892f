//! What a sender's recent messages came to.
//!
//! A row says whether its message was handed out and acknowledged. That it expired is never written:
//! it follows from the time, so nobody has to come by to write it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use crate::{
    model::{Address, Inbox, MessageId},
    queue::{Notice, Stamp},
};

/// A row of one sender's ledger; counts up, so rows are in the order of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RowKey(u64);

/// One message.
pub(super) struct Row {
    pub id: MessageId,
    pub recipient: Inbox,
    pub sent_us: u64,
    pub expires_us: u64,
    pub delivered: Option<Delivered>,
    pub acknowledged: bool,
    pub told: bool,
}

/// How a message was handed out last.
#[derive(Debug, Clone, Copy)]
pub(super) enum Delivered {
    /// By a fetch, under this stamp.
    FromQueue(Stamp),
    /// As the reply to a wait.
    AsReply,
}

impl Row {
    /// What `sender`, whose row it is, is told.
    pub(super) fn notice(&self, sender: &Inbox) -> Notice {
        Notice {
            id: self.id,
            recipient: Address::of(&self.recipient, sender.tenant()),
            sent_at_ms: self.sent_us / 1000,
        }
    }

    fn settled(&self) -> bool {
        self.acknowledged || self.told
    }
}

/// One sender's ledger.
#[derive(Default)]
pub(super) struct Ledger {
    rows: BTreeMap<RowKey, Row>,
    next: u64,
    /// When to see whether a row's message has expired.
    checks: BinaryHeap<Reverse<(u64, RowKey)>>,
    /// Expired, and its sender does not know.
    untold: BTreeSet<RowKey>,
    /// Look for rows to drop when there are so many.
    trim_at: usize,
}

impl Ledger {
    /// Writes a row. `None`: there are four times `limit` rows whose sender may still have to hear
    /// of them, so this message has none rather than one of those being lost.
    pub(super) fn record(&mut self, row: Row, limit: usize) -> Option<RowKey> {
        if self.rows.len() >= self.trim_at.max(limit) {
            self.trim(limit);
            if self.rows.len() >= limit.saturating_mul(4) {
                return None;
            }
        }
        let key = RowKey(self.next);
        self.next += 1;
        self.check_at(row.expires_us, key);
        self.rows.insert(key, row);
        Some(key)
    }

    /// Makes room for one by dropping the oldest rows that nobody has to hear of.
    fn trim(&mut self, limit: usize) {
        let spare = (self.rows.len() + 1).saturating_sub(limit);
        let settled: Vec<_> = self
            .rows
            .iter()
            .filter_map(|(key, row)| row.settled().then_some(*key))
            .take(spare)
            .collect();
        for key in settled {
            self.drop_row(key);
        }
        // If too few were settled, don't look again for every further message.
        self.trim_at = if self.rows.len() < limit {
            limit
        } else {
            (self.rows.len() + limit / 8 + 1).min(limit.saturating_mul(4))
        };
    }

    fn drop_row(&mut self, key: RowKey) {
        self.rows.remove(&key);
        self.untold.remove(&key);
    }

    pub(super) fn get(&self, key: RowKey) -> Option<&Row> {
        self.rows.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: RowKey) -> Option<&mut Row> {
        self.rows.get_mut(&key)
    }

    /// Oldest first.
    pub(super) fn rows(&self) -> impl Iterator<Item = (RowKey, &Row)> {
        self.rows.iter().map(|(key, row)| (*key, row))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Drops rows whose message ended `life_us` ago.
    pub(super) fn forget(&mut self, now_us: u64, life_us: u64) {
        while let Some((&key, row)) = self.rows.first_key_value()
            && row.expires_us.saturating_add(life_us) <= now_us
        {
            self.drop_row(key);
        }
    }

    pub(super) fn check_at(&mut self, at_us: u64, key: RowKey) {
        if self.checks.len() > 2 * self.rows.len() + 64 {
            let rows = &self.rows;
            self.checks
                .retain(|Reverse((_, key))| rows.get(key).is_some_and(|row| !row.acknowledged));
        }
        self.checks.push(Reverse((at_us, key)));
    }

    /// Whether a row is to be checked now.
    pub(super) fn is_ripe(&self, now_us: u64) -> bool {
        self.checks.peek().is_some_and(|&Reverse((at_us, _))| at_us <= now_us)
    }

    /// Takes the rows that are to be checked now.
    pub(super) fn ripe(&mut self, now_us: u64) -> Vec<RowKey> {
        let mut ripe = Vec::new();
        while let Some(&Reverse((at_us, key))) = self.checks.peek()
            && at_us <= now_us
        {
            self.checks.pop();
            if self.open(key) {
                ripe.push(key);
            }
        }
        ripe
    }

    /// When the next row is to be checked.
    pub(super) fn next_check(&mut self) -> Option<u64> {
        while let Some(&Reverse((at_us, key))) = self.checks.peek() {
            if self.open(key) {
                return Some(at_us);
            }
            self.checks.pop();
        }
        None
    }

    fn open(&self, key: RowKey) -> bool {
        self.rows.get(&key).is_some_and(|row| !row.settled())
    }

    /// Whether that was not known.
    pub(super) fn expired(&mut self, key: RowKey) -> bool {
        self.untold.insert(key)
    }

    /// A message counted as expired was acknowledged after all.
    pub(super) fn not_expired(&mut self, key: RowKey) {
        self.untold.remove(&key);
    }

    pub(super) fn untold(&self) -> Vec<RowKey> {
        self.untold.iter().copied().collect()
    }

    pub(super) fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    pub(super) fn told(&mut self, ids: &[MessageId]) {
        let told: Vec<_> = self
            .untold
            .iter()
            .filter(|key| self.rows.get(key).is_some_and(|row| ids.contains(&row.id)))
            .copied()
            .collect();
        for key in told {
            self.untold.remove(&key);
            if let Some(row) = self.rows.get_mut(&key) {
                row.told = true;
            }
        }
    }
}
