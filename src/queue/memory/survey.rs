//! Counting what lies in all inboxes.

use super::state::State;
use crate::{
    model::Survey,
    queue::{Peek, Presence, Topic},
};

impl State {
    pub(super) fn survey(&mut self, now_us: u64) -> Survey {
        let (mut all, mut senders) = (Survey::default(), Vec::new());
        for mailbox in self.mailboxes.values_mut() {
            if mailbox.settle(now_us) {
                self.wakes.push(Topic::Inbox(mailbox.inbox.clone()));
            }
            if mailbox.ledger.is_ripe(now_us) {
                senders.push(mailbox.inbox.clone());
            }
            let Peek { queued, oldest, presence, .. } = mailbox.peek(now_us);
            let active = matches!(presence, Presence::Seen(ago) if ago <= Survey::ACTIVE);
            let away = matches!(presence, Presence::Seen(ago) if ago > Survey::ACTIVE);
            let bytes = if queued > 0 { mailbox.bytes } else { 0 };
            all.add(&Survey {
                messages: queued,
                bytes,
                inboxes: u64::from(queued > 0),
                most_messages: queued,
                most_bytes: bytes,
                oldest: oldest.unwrap_or_default(),
                waiting: u64::from(presence == Presence::Waiting),
                active: u64::from(active),
                away: u64::from(away),
            });
        }
        // Expiries are found although their senders do not come back.
        for sender in senders {
            self.check_ledger(&sender, now_us);
        }
        all
    }
}
