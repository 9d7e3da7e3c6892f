//! What lies in all inboxes at once.

use std::time::Duration;

/// A count over all inboxes of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Survey {
    /// Live messages in inboxes. Replies that are parked for a wait do not count.
    pub messages: u64,
    /// Bytes in inboxes, headers included, and what expired and was not dropped yet.
    pub bytes: u64,
    /// Inboxes that hold messages.
    pub inboxes: u64,
    /// Messages of the fullest inbox.
    pub most_messages: u64,
    /// Bytes of the heaviest inbox.
    pub most_bytes: u64,
    /// Age of the oldest message.
    pub oldest: Duration,
    /// Clients that wait for mail now.
    pub waiting: u64,
    /// Clients that were seen within [`Survey::ACTIVE`] and do not wait.
    pub active: u64,
    /// Clients that were seen before that, as long as the store remembers them.
    pub away: u64,
}

impl Survey {
    /// Who was seen within this time counts as active.
    pub const ACTIVE: Duration = Duration::from_mins(5);

    /// Counts what another part of the store holds.
    pub fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.inboxes += other.inboxes;
        self.most_messages = self.most_messages.max(other.most_messages);
        self.most_bytes = self.most_bytes.max(other.most_bytes);
        self.oldest = self.oldest.max(other.oldest);
        self.waiting += other.waiting;
        self.active += other.active;
        self.away += other.away;
    }
}
