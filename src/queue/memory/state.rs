//! All mailboxes, and what happens between two of them.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::{
    keys::Mark,
    ledger::{Delivered, Row},
    letter::{Handed, Letter},
    mailbox::{Head, Mailbox, Turn},
    micros,
    tasks::Tasks,
    until,
    waits::WaitLook,
};
use crate::{
    model::{Inbox, MessageId, MessageState, Tenant},
    queue::{
        Batch, Browsed, FetchRequest, Fetched, IdempotencyKey, InboxStat, LeaseId, Limits,
        NewMessage, Outcome, Peek, Presence, QueueError, Sent, SentStatus, Stamp, Taken, Taking,
        Topic, WaitState,
    },
};

/// Mailboxes that every write looks at in passing.
const WHEEL_STEPS: usize = 2;

/// The mail of all clients.
pub(super) struct State {
    pub(super) limits: Limits,
    pub(super) mailboxes: HashMap<Arc<str>, Mailbox>,
    /// Every mailbox once, in the order of the next visit.
    wheel: VecDeque<Arc<str>>,
    pub(super) wakes: Vec<Topic>,
    /// Messages found to have expired unread, and not yet counted.
    pub(super) expired: u64,
    pub(super) tasks: Tasks,
}

impl State {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            mailboxes: HashMap::new(),
            wheel: VecDeque::new(),
            wakes: Vec::new(),
            expired: 0,
            tasks: Tasks::default(),
        }
    }

    /// Whom to wake, once.
    pub(super) fn take_wakes(&mut self) -> Vec<Topic> {
        std::mem::take(&mut self.wakes)
    }

    /// How many were found since the last time.
    pub(super) fn take_expired(&mut self) -> u64 {
        std::mem::take(&mut self.expired)
    }

    pub(super) fn get(&mut self, inbox: &Inbox) -> Option<&mut Mailbox> {
        self.mailboxes.get_mut(inbox.name())
    }

    fn open(&mut self, inbox: &Inbox) -> &mut Mailbox {
        if !self.mailboxes.contains_key(inbox.name()) {
            let name: Arc<str> = inbox.name().into();
            self.wheel.push_back(Arc::clone(&name));
            self.mailboxes.insert(name, Mailbox::new(inbox.clone()));
        }
        self.mailboxes.get_mut(inbox.name()).expect("it was there, or was put there just now")
    }

    /// Ends what is over in one inbox.
    pub(super) fn settle(&mut self, inbox: &Inbox, now_us: u64) {
        if self.get(inbox).is_some_and(|mailbox| mailbox.settle(now_us)) {
            self.wakes.push(Topic::Inbox(inbox.clone()));
        }
    }

    /// Looks at the next few mailboxes and drops the dead ones.
    fn turn_wheel(&mut self, now_us: u64) {
        let life_us = micros(self.limits.ledger_life);
        for _ in 0..WHEEL_STEPS {
            let Some(name) = self.wheel.pop_front() else { return };
            let Some(mailbox) = self.mailboxes.get_mut(&name) else { continue };
            if mailbox.settle(now_us) {
                self.wakes.push(Topic::Inbox(mailbox.inbox.clone()));
            }
            mailbox.ledger.forget(now_us, life_us);
            if mailbox.is_dead(now_us, life_us) {
                self.mailboxes.remove(&name);
            } else {
                self.wheel.push_back(name);
            }
        }
        if self.mailboxes.capacity() > 4 * self.mailboxes.len() + 1024 {
            self.mailboxes.shrink_to(2 * self.mailboxes.len());
            self.wheel.shrink_to(2 * self.mailboxes.len());
        }
    }

    /// A client showed up.
    pub(super) fn contact(&mut self, inbox: &Inbox, now_us: u64) {
        self.turn_wheel(now_us);
        self.settle(inbox, now_us);
        self.open(inbox).seen_us = Some(now_us);
    }

    pub(super) fn send(
        &mut self,
        message: &NewMessage,
        key: Option<(IdempotencyKey, [u8; 16])>,
        now_us: u64,
    ) -> Result<Sent, QueueError> {
        let NewMessage { id, sender, recipient, .. } = message;
        self.contact(sender, now_us);
        self.settle(recipient, now_us);
        let first = key.and_then(|(key, _)| self.get(recipient)?.keys.get(key, now_us));
        if let (Some(mark), Some((_, digest))) = (first, key) {
            return self.repeat(message, mark, digest, now_us);
        }
        let answers = self
            .get(recipient)
            .and_then(|mailbox| mailbox.answers(sender, message.in_reply_to, now_us));
        let mut late = None;
        if message.taken == Taking::Answers && answers.is_none() {
            let named = message.in_reply_to;
            let question = self.get(sender).and_then(|it| it.question_of(recipient, named, now_us));
            late = Some(question.ok_or(QueueError::NoAnswer)?);
        }
        if message.wait.is_some() {
            self.check_waits(sender, now_us)?;
        }
        if answers.is_none() {
            self.check_room(recipient, message.text.len(), now_us)?;
        }
        // Nothing is refused from here on.
        if let Some(question) = late {
            self.open(sender).answered_late(question);
        }
        let row = Row {
            id: *id,
            recipient: recipient.clone(),
            sent_us: now_us,
            expires_us: now_us.saturating_add(micros(message.ttl)),
            delivered: None,
            acknowledged: false,
            told: false,
        };
        let limit = usize::try_from(self.limits.ledger_entries).unwrap_or(usize::MAX);
        let row = self.open(sender).ledger.record(row, limit);
        if let Some(wait) = message.wait {
            let deadline_us = now_us.saturating_add(micros(wait));
            self.open(sender).open_wait(*id, recipient, deadline_us, false);
        }
        let mailbox = self.open(recipient);
        let presence = match answers {
            Some(_) => Presence::Waiting,
            None => mailbox.presence(now_us),
        };
        let stamp = mailbox.next_stamp(now_us);
        let letter = Letter::new(message, stamp, row, now_us);
        if let Some((key, digest)) = key {
            mailbox.keys.insert(key, Mark { id: *id, digest, row, until_us: letter.expires_us });
        }
        let (status, topic) = if let Some(wait) = answers {
            mailbox.park(wait, letter, now_us);
            self.open(sender).answered_late(wait);
            // Who sleeps knows nothing of it, and it will be theirs if nobody takes it.
            self.wakes.push(Topic::Inbox(recipient.clone()));
            (SentStatus::Replied, Topic::Reply(recipient.clone(), wait))
        } else {
            mailbox.push(letter);
            (SentStatus::Queued, Topic::Inbox(recipient.clone()))
        };
        self.wakes.push(topic);
        let (notices_due, _) = self.check_ledger(sender, now_us);
        Ok(Sent {
            id: *id,
            status,
            recipient: presence,
            notices_due,
            unrecorded: row.is_none(),
            unconfirmed: false,
        })
    }

    /// A send under a key that was used before.
    fn repeat(
        &mut self,
        message: &NewMessage,
        first: Mark,
        digest: [u8; 16],
        now_us: u64,
    ) -> Result<Sent, QueueError> {
        let NewMessage { sender, recipient, .. } = message;
        if first.digest != digest {
            return Err(QueueError::IdempotencyConflict { first: first.id });
        }
        if let Some(wait) = message.wait {
            if !self.open(sender).has_wait(first.id) {
                self.check_waits(sender, now_us)?;
            }
            let mailbox = self.open(sender);
            let row = first.row.and_then(|row| mailbox.ledger.get(row));
            let asked = row.is_some_and(|row| row.delivered.is_some());
            let deadline_us = now_us.saturating_add(micros(wait));
            mailbox.open_wait(first.id, recipient, deadline_us, asked);
        }
        let state = first.row.and_then(|row| {
            let row = self.mailboxes.get(sender.name())?.ledger.get(row)?;
            Some(self.state_of(row, now_us))
        });
        let (notices_due, _) = self.check_ledger(sender, now_us);
        Ok(Sent {
            id: first.id,
            status: SentStatus::Duplicate(state.unwrap_or(MessageState::Unknown)),
            recipient: self.presence(recipient, now_us),
            notices_due,
            unrecorded: first.row.is_none(),
            unconfirmed: false,
        })
    }

    fn check_waits(&mut self, sender: &Inbox, now_us: u64) -> Result<(), QueueError> {
        let open = self.open(sender).open_waits(now_us);
        if open >= self.limits.open_waits {
            return Err(QueueError::TooManyWaits { open });
        }
        Ok(())
    }

    fn check_room(&mut self, inbox: &Inbox, len: usize, now_us: u64) -> Result<(), QueueError> {
        let limits = self.limits;
        let Some(mailbox) = self.get(inbox) else { return Ok(()) };
        let (messages, bytes) = (mailbox.queued(), mailbox.bytes);
        let fits = bytes.saturating_add(Letter::bytes_of(len)) <= limits.inbox_bytes;
        if messages < limits.inbox_messages && fits {
            return Ok(());
        }
        let retry_after = until(now_us, mailbox.oldest_end());
        Err(QueueError::InboxFull { messages, bytes, retry_after })
    }

    pub(super) fn fetch(&mut self, inbox: &Inbox, request: &FetchRequest, now_us: u64) -> Fetched {
        self.contact(inbox, now_us);
        let (notices_due, next_notice) = self.check_ledger(inbox, now_us);
        let mailbox = self.open(inbox);
        let turn = request.waiting.as_ref().map_or(Turn::Ours, |w| mailbox.turn_of(w, now_us));
        let queued = mailbox.queued();
        let next_reply = mailbox.next_sweep();
        let due = |held: Option<u64>| {
            let next = [held, next_reply, next_notice].into_iter().flatten().min();
            next.map(|at_us| until(now_us, at_us))
        };
        let nothing = |outcome, due| Fetched { outcome, remaining: queued, due, notices_due };
        if turn == Turn::Superseded {
            return nothing(Outcome::Superseded, None);
        }
        let head = mailbox.take_head(request, now_us);
        mailbox.waiting_until_us = match (&head, &request.waiting) {
            (Head::Messages { .. }, _) => 0,
            (Head::Empty | Head::Busy { .. }, Some(waiting)) => {
                now_us.saturating_add(micros(waiting.remaining)).max(mailbox.waiting_until_us)
            }
            (Head::Empty | Head::Busy { .. }, None) => mailbox.waiting_until_us,
        };
        if let (Head::Messages { .. }, Some(waiting)) = (&head, &request.waiting) {
            mailbox.was_served(waiting.call);
        }
        if turn == Turn::TakenOver {
            self.wakes.push(Topic::Inbox(inbox.clone()));
        }
        match head {
            Head::Empty => nothing(Outcome::Empty, due(None)),
            Head::Busy { until_us } => nothing(Outcome::Busy, due(Some(until_us))),
            Head::Messages { messages, upto, handed } => {
                for handed in handed {
                    self.note_handed(inbox, &handed, Delivered::FromQueue(handed.stamp));
                }
                let remaining = queued - messages.len() as u64;
                let outcome = Outcome::Messages(Batch { messages, upto });
                Fetched { outcome, remaining, due: None, notices_due }
            }
        }
    }

    /// Tells the sender's ledger and the sender's wait that a letter was handed out.
    fn note_handed(&mut self, reader: &Inbox, handed: &Handed, how: Delivered) {
        if let (Some((question, ends_us)), Some(mailbox)) = (handed.question, self.get(reader)) {
            mailbox.was_asked(question, handed.sender.clone(), ends_us);
        }
        let Some(mailbox) = self.get(&handed.sender) else { return };
        if let Some((question, _)) = handed.question {
            mailbox.asked(question);
        }
        if let Some(row) = handed.row.and_then(|row| mailbox.ledger.get_mut(row)) {
            row.delivered = Some(how);
        }
    }

    pub(super) fn ack(&mut self, inbox: &Inbox, upto: Stamp) -> u64 {
        let Some(mailbox) = self.get(inbox) else { return 0 };
        let removed = mailbox.ack(upto);
        let lapsed = mailbox.ack_lapsed(upto);
        if mailbox.queued() > 0 {
            self.wakes.push(Topic::Inbox(inbox.clone()));
        }
        for letter in &removed {
            self.note_acknowledged(&letter.sender, letter.row);
        }
        for letter in &lapsed {
            self.note_acknowledged(&letter.sender, letter.row);
        }
        removed.len() as u64
    }

    pub(super) fn release(&mut self, inbox: &Inbox, lease: LeaseId) -> bool {
        let released = self.get(inbox).is_some_and(|mailbox| mailbox.release(lease));
        if released {
            self.wakes.push(Topic::Inbox(inbox.clone()));
        }
        released
    }

    pub(super) fn extend(&mut self, inbox: &Inbox, lease: LeaseId, until_us: u64) -> bool {
        self.get(inbox).is_some_and(|mailbox| mailbox.extend(lease, until_us))
    }

    pub(super) fn leave(&mut self, inbox: &Inbox) {
        if let Some(mailbox) = self.get(inbox) {
            mailbox.waiting_until_us = 0;
        }
    }

    pub(super) fn wait_take(&mut self, inbox: &Inbox, wait: MessageId, now_us: u64) -> WaitState {
        self.settle(inbox, now_us);
        let Some(mailbox) = self.get(inbox) else {
            return WaitState { taken: Taken::Gone, queued: 0 };
        };
        let queued = mailbox.queued();
        let reply = match mailbox.look(wait) {
            WaitLook::Gone => return WaitState { taken: Taken::Gone, queued },
            WaitLook::Open => return WaitState { taken: Taken::Open, queued },
            WaitLook::Answered(reply) => reply,
        };
        reply.attempts += 1;
        let (message, handed) = (reply.message(now_us), reply.handed(reply.stamp));
        self.note_handed(inbox, &handed, Delivered::AsReply);
        WaitState { taken: Taken::Reply(Box::new(message)), queued }
    }

    pub(super) fn wait_done(&mut self, inbox: &Inbox, wait: MessageId) {
        if let Some(reply) = self.get(inbox).and_then(|mailbox| mailbox.end_wait(wait)) {
            self.note_acknowledged(&reply.sender, reply.row);
        }
    }

    pub(super) fn wait_close(&mut self, inbox: &Inbox, wait: MessageId, now_us: u64) {
        self.settle(inbox, now_us);
        let Some(mailbox) = self.get(inbox) else { return };
        if let Some(reply) = mailbox.end_wait(wait)
            && mailbox.give_back(reply, now_us)
        {
            self.wakes.push(Topic::Inbox(inbox.clone()));
        }
    }

    fn presence(&self, inbox: &Inbox, now_us: u64) -> Presence {
        let mailbox = self.mailboxes.get(inbox.name());
        mailbox.map_or(Presence::Unknown, |mailbox| mailbox.presence(now_us))
    }

    pub(super) fn peek(&mut self, inbox: &Inbox, now_us: u64) -> Peek {
        self.settle(inbox, now_us);
        let nothing = Peek { queued: 0, leased: 0, oldest: None, presence: Presence::Unknown };
        self.get(inbox).map_or(nothing, |mailbox| mailbox.peek(now_us))
    }

    pub(super) fn browse(&mut self, inbox: &Inbox, most: (usize, usize), now_us: u64) -> Browsed {
        self.settle(inbox, now_us);
        self.get(inbox).map_or_else(Browsed::default, |mailbox| mailbox.browse(most, now_us))
    }

    pub(super) fn inboxes(&mut self, tenant: &Tenant, limit: usize, now_us: u64) -> Vec<InboxStat> {
        let ours = self.mailboxes.values_mut().filter(|mailbox| mailbox.inbox.tenant() == tenant);
        let stat = |mailbox: &mut Mailbox| {
            if mailbox.settle(now_us) {
                self.wakes.push(Topic::Inbox(mailbox.inbox.clone()));
            }
            let Peek { queued, presence, .. } = mailbox.peek(now_us);
            let client = mailbox.inbox.client().clone();
            (queued > 0 || presence == Presence::Waiting).then_some(InboxStat {
                client,
                queued,
                presence,
            })
        };
        ours.filter_map(stat).take(limit).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::queue::SessionKey;

    const DAY_US: u64 = 24 * 3600 * 1_000_000;

    fn state() -> State {
        State::new(Limits {
            inbox_messages: 1_000,
            inbox_bytes: 1 << 20,
            open_waits: 16,
            ledger_entries: 100,
            ledger_life: Duration::from_micros(DAY_US),
        })
    }

    fn inbox(client: &str) -> Inbox {
        Inbox::new(Tenant::default(), client.parse().unwrap())
    }

    fn message(sender: &str, recipient: &str) -> NewMessage {
        NewMessage {
            id: MessageId::new(),
            sender: inbox(sender),
            verified: false,
            recipient: inbox(recipient),
            text: "text".into(),
            in_reply_to: None,
            idempotency: None,
            ttl: Duration::from_mins(1),
            wait: Some(Duration::from_mins(1)),
            trace: None,
            taken: Taking::All,
        }
    }

    fn fetch(session: &str) -> FetchRequest {
        FetchRequest {
            lease: LeaseId::new(),
            lease_for: Duration::from_secs(10),
            max_messages: 10,
            max_bytes: 1_000,
            waiting: Some(crate::queue::Waiting {
                remaining: Duration::from_mins(1),
                session: Some(SessionKey::new(&crate::model::Principal::anyone(), session)),
                call: LeaseId::new(),
                first: true,
            }),
        }
    }

    #[test]
    fn clients_that_never_come_back_are_forgotten_by_the_traffic_of_the_others() {
        let mut state = state();
        for n in 0..500 {
            let key = IdempotencyKey::new(&inbox("sender"), "key");
            let message = message(&format!("sender-{n}"), &format!("recipient-{n}"));
            state.send(&message, Some((key, [0; 16])), 1).unwrap();
            state.fetch(&inbox(&format!("reader-{n}")), &fetch("s"), 1);
        }
        assert_eq!(state.mailboxes.len(), 1_500);
        // A minute, a dead wait and a day of remembering later.
        let later = DAY_US + 3_600 * 1_000_000;
        for n in 0..1_000 {
            state.fetch(&inbox("busy"), &fetch("s"), later + n);
        }
        assert_eq!(state.mailboxes.len(), 1);
        assert_eq!(state.wheel.len(), 1);
    }

    #[test]
    fn a_client_with_something_left_is_not_forgotten() {
        let mut state = state();
        let unread = NewMessage { ttl: Duration::from_hours(48), ..message("alice", "bob") };
        state.send(&unread, None, 1).unwrap();
        for n in 0..100 {
            state.fetch(&inbox("busy"), &fetch("s"), DAY_US + n);
        }
        assert_eq!(state.peek(&inbox("bob"), DAY_US).queued, 1);
        assert_eq!(state.ledger(&inbox("alice"), DAY_US).len(), 1);
    }
}
