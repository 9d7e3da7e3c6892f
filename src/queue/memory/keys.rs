//! The idempotency keys that an inbox has seen.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use super::ledger::RowKey;
use crate::{model::MessageId, queue::IdempotencyKey};

/// The message that a key was used for first.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    pub id: MessageId,
    pub digest: [u8; 16],
    pub row: Option<RowKey>,
    pub until_us: u64,
}

/// Keys in use. Each ends with the life of its message.
#[derive(Default)]
pub(super) struct Keys {
    marks: HashMap<[u8; 16], Mark>,
    ends: BinaryHeap<Reverse<(u64, [u8; 16])>>,
}

impl Keys {
    pub(super) fn get(&self, key: IdempotencyKey, now_us: u64) -> Option<Mark> {
        self.marks.get(key.as_bytes()).copied().filter(|mark| mark.until_us > now_us)
    }

    pub(super) fn insert(&mut self, key: IdempotencyKey, mark: Mark) {
        self.ends.push(Reverse((mark.until_us, *key.as_bytes())));
        self.marks.insert(*key.as_bytes(), mark);
    }

    pub(super) fn forget(&mut self, now_us: u64) {
        while let Some(&Reverse((until_us, key))) = self.ends.peek()
            && until_us <= now_us
        {
            self.ends.pop();
            if self.marks.get(&key).is_some_and(|mark| mark.until_us <= now_us) {
                self.marks.remove(&key);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }
}
