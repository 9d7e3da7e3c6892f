//! What became of messages, as their sender is told it. It is derived: from the row of the sender's ledger, and from
//! what the recipient's mailbox says of its stamp.

use super::{
    ledger::{Delivered, Row, RowKey},
    micros,
    state::State,
};
use crate::{
    model::{Address, Inbox, MessageId, MessageState},
    queue::{LedgerEntry, Notice},
};

/// What a row of a ledger says now.
enum Verdict {
    Is(MessageState),
    /// Its life is over, but a reader holds it and may acknowledge it.
    HeldUntil(u64),
}

impl State {
    pub(super) fn note_acknowledged(&mut self, sender: &Inbox, row: Option<RowKey>) {
        let Some(mailbox) = self.get(sender) else { return };
        if let Some(key) = row
            && let Some(row) = mailbox.ledger.get_mut(key)
        {
            row.acknowledged = true;
            mailbox.ledger.not_expired(key);
        }
    }

    /// What became of a message, from its row and from what its recipient did since.
    fn verdict(&self, row: &Row, now_us: u64) -> Verdict {
        if row.acknowledged {
            return Verdict::Is(MessageState::Acknowledged);
        }
        if row.expires_us > now_us {
            return Verdict::Is(match row.delivered {
                Some(_) => MessageState::Delivered,
                None => MessageState::Queued,
            });
        }
        let expired = Verdict::Is(MessageState::Expired);
        let Some(mailbox) = self.mailboxes.get(row.recipient.name()) else { return expired };
        match row.delivered {
            Some(Delivered::FromQueue(stamp)) => {
                mailbox.held_until(stamp, now_us).map_or(expired, Verdict::HeldUntil)
            }
            Some(Delivered::AsReply) => {
                mailbox.reply_held_until(row.id).map_or(expired, Verdict::HeldUntil)
            }
            None => expired,
        }
    }

    pub(super) fn state_of(&self, row: &Row, now_us: u64) -> MessageState {
        match self.verdict(row, now_us) {
            Verdict::Is(state) => state,
            Verdict::HeldUntil(_) => MessageState::Delivered,
        }
    }

    /// Finds messages of a sender that have expired. Whether it is to be told of any, and when to
    /// look again.
    pub(super) fn check_ledger(&mut self, sender: &Inbox, now_us: u64) -> (bool, Option<u64>) {
        let Some(mailbox) = self.get(sender) else { return (false, None) };
        let ripe = mailbox.ledger.ripe(now_us);
        for key in ripe {
            self.check_row(sender, key, now_us);
        }
        let Some(mailbox) = self.get(sender) else { return (false, None) };
        (mailbox.ledger.has_untold(), mailbox.ledger.next_check())
    }

    fn check_row(&mut self, sender: &Inbox, key: RowKey, now_us: u64) {
        let row = self.mailboxes.get(sender.name()).and_then(|mailbox| mailbox.ledger.get(key));
        let Some(verdict) = row.map(|row| self.verdict(row, now_us)) else { return };
        let Some(mailbox) = self.get(sender) else { return };
        match verdict {
            Verdict::Is(MessageState::Expired) => {
                self.expired += u64::from(mailbox.ledger.expired(key));
            }
            Verdict::Is(MessageState::Acknowledged) => {
                if let Some(row) = mailbox.ledger.get_mut(key) {
                    row.acknowledged = true;
                }
                mailbox.ledger.not_expired(key);
            }
            Verdict::Is(MessageState::Queued | MessageState::Delivered | MessageState::Unknown) => {
            }
            Verdict::HeldUntil(at_us) => mailbox.ledger.check_at(at_us, key),
        }
    }

    pub(super) fn ledger(&mut self, sender: &Inbox, now_us: u64) -> Vec<LedgerEntry> {
        let life_us = micros(self.limits.ledger_life);
        let Some(mailbox) = self.mailboxes.get(sender.name()) else { return Vec::new() };
        let entry = |(_, row): (RowKey, &Row)| LedgerEntry {
            id: row.id,
            recipient: Address::of(&row.recipient, sender.tenant()),
            sent_at_ms: row.sent_us / 1000,
            state: self.state_of(row, now_us),
        };
        let remembered =
            |(_, row): &(RowKey, &Row)| row.expires_us.saturating_add(life_us) > now_us;
        mailbox.ledger.rows().filter(remembered).map(entry).collect()
    }

    pub(super) fn notices(&mut self, sender: &Inbox, now_us: u64) -> Vec<Notice> {
        self.check_ledger(sender, now_us);
        let untold = self.get(sender).map(|mailbox| mailbox.ledger.untold()).unwrap_or_default();
        for &key in &untold {
            // It may have been acknowledged since.
            self.check_row(sender, key, now_us);
        }
        let life_us = micros(self.limits.ledger_life);
        let Some(mailbox) = self.get(sender) else { return Vec::new() };
        mailbox.ledger.forget(now_us, life_us);
        let untold = mailbox.ledger.untold();
        untold.into_iter().filter_map(|key| Some(mailbox.ledger.get(key)?.notice(sender))).collect()
    }

    pub(super) fn notices_told(&mut self, sender: &Inbox, ids: &[MessageId]) {
        if let Some(mailbox) = self.get(sender) {
            mailbox.ledger.told(ids);
        }
    }
}
