//! The open waits of one client: questions whose sender waits for the answer.

use std::time::Duration;

use super::{letter::Letter, mailbox::Mailbox, micros};
use crate::model::{Inbox, MessageId};

/// A wait whose replica died ends so long after its deadline.
const GRACE: Duration = Duration::from_secs(10);

/// One question that waits for its answer.
pub(super) struct Wait {
    /// The question.
    pub id: MessageId,
    /// Who was asked.
    peer: Inbox,
    deadline_us: u64,
    /// It ends then, whatever it has come to.
    ends_us: u64,
    /// It is a task's: what nobody acknowledges is held so long.
    hold: Option<Duration>,
    /// Its answer was acknowledged, and is kept for who asks again.
    received: bool,
    /// The question was handed to the peer, so what it sends next may be the answer.
    asked: bool,
    /// The answer.
    parked: Option<Box<Letter>>,
}

/// Most questions of others that are remembered.
const QUESTIONS: usize = 128;

/// A question of somebody else, handed to the owner of a mailbox.
pub(super) struct Question {
    id: MessageId,
    asker: Inbox,
    ends_us: u64,
}

impl Wait {
    /// Its answer's life ended before anybody took it.
    fn lapsed(&self, now_us: u64) -> bool {
        self.parked.as_ref().is_some_and(|reply| reply.attempts == 0 && reply.expires_us <= now_us)
    }
}

/// Until when a task holds a reply that nobody has read: the inbox must have some of its life too.
fn held_until(hold: Duration, reply: &Letter, now_us: u64) -> u64 {
    now_us.saturating_add(micros(hold).min(reply.expires_us.saturating_sub(now_us) / 2))
}

/// Where a wait stands.
pub(super) enum WaitLook<'a> {
    Gone,
    Open,
    Answered(&'a mut Letter),
}

impl Mailbox {
    /// How many waits are open now.
    pub(super) fn open_waits(&self, now_us: u64) -> u64 {
        let open = |wait: &&Wait| wait.deadline_us > now_us && !wait.received;
        self.waits.iter().filter(open).count() as u64
    }

    /// How many waits are those of tasks.
    fn tasks(&self) -> u64 {
        self.waits.iter().filter(|wait| wait.hold.is_some()).count() as u64
    }

    /// Makes a wait a task's, if there are fewer than `limit`: whom it asks, and its deadline.
    pub(super) fn open_task(
        &mut self,
        id: MessageId,
        hold: Duration,
        limit: u64,
        now_us: u64,
    ) -> Option<(Inbox, u64)> {
        let tasks = self.tasks();
        let wait = self.waits.iter_mut().find(|wait| wait.id == id)?;
        if wait.hold.is_none() && tasks >= limit {
            return None;
        }
        wait.hold = wait.hold.max(Some(hold));
        if let (Some(reply), false) = (&wait.parked, wait.received) {
            wait.ends_us = held_until(hold, reply, now_us);
        }
        Some((wait.peer.clone(), wait.deadline_us))
    }

    /// The answer of a task that was handed out is acknowledged, and stays until `ends_us`.
    pub(super) fn receive_task(&mut self, id: MessageId, ends_us: u64) -> Option<&Letter> {
        let wait = self.waits.iter_mut().find(|wait| wait.id == id && !wait.received)?;
        let reply = wait.parked.as_deref().filter(|reply| reply.attempts > 0)?;
        wait.received = true;
        wait.ends_us = wait.ends_us.max(ends_us);
        self.bytes -= reply.bytes();
        Some(reply)
    }

    /// Whether a wait is still open, or has an answer that nobody was handed.
    pub(super) fn is_untold(&self, id: MessageId, now_us: u64) -> bool {
        self.waits.iter().any(|wait| {
            wait.id == id
                && match &wait.parked {
                    None => wait.deadline_us > now_us,
                    Some(reply) => reply.attempts == 0,
                }
        })
    }

    pub(super) fn has_wait(&self, id: MessageId) -> bool {
        self.waits.iter().any(|wait| wait.id == id)
    }

    /// Opens a wait, or extends it. An answered one keeps its answer.
    pub(super) fn open_wait(&mut self, id: MessageId, peer: &Inbox, deadline_us: u64, asked: bool) {
        let ends_us = deadline_us.saturating_add(micros(GRACE));
        if let Some(wait) = self.waits.iter_mut().find(|wait| wait.id == id) {
            wait.deadline_us = wait.deadline_us.max(deadline_us);
            wait.ends_us = wait.ends_us.max(ends_us);
        } else {
            let (peer, hold, received, parked) = (peer.clone(), None, false, None);
            self.waits.push(Wait { id, peer, deadline_us, ends_us, hold, received, asked, parked });
        }
    }

    /// The open wait that a message from `sender` answers.
    pub(super) fn answers(
        &self,
        sender: &Inbox,
        in_reply_to: Option<MessageId>,
        now_us: u64,
    ) -> Option<MessageId> {
        let open = |wait: &&Wait| {
            wait.parked.is_none() && wait.deadline_us > now_us && wait.peer == *sender
        };
        let mut open_on_sender = self.waits.iter().filter(open);
        let found = match in_reply_to {
            Some(id) => open_on_sender.find(|wait| wait.id == id),
            None => open_on_sender.find(|wait| wait.asked),
        };
        found.map(|wait| wait.id)
    }

    /// A question was handed to the owner.
    pub(super) fn was_asked(&mut self, id: MessageId, asker: Inbox, ends_us: u64) {
        if self.questions.iter().any(|question| question.id == id) {
            return;
        }
        if self.questions.len() == QUESTIONS {
            self.questions.pop_front();
        }
        self.questions.push_back(Question { id, asker, ends_us });
    }

    /// The oldest question of `asker` that lives and was not answered yet; the one that is named, if one is.
    pub(super) fn question_of(
        &mut self,
        asker: &Inbox,
        named: Option<MessageId>,
        now_us: u64,
    ) -> Option<MessageId> {
        self.questions.retain(|question| question.ends_us > now_us);
        let is_it = |question: &&Question| {
            question.asker == *asker && named.is_none_or(|named| named == question.id)
        };
        self.questions.iter().find(is_it).map(|question| question.id)
    }

    /// A question was answered.
    pub(super) fn answered_late(&mut self, id: MessageId) {
        self.questions.retain(|question| question.id != id);
    }

    pub(super) fn park(&mut self, id: MessageId, reply: Box<Letter>, now_us: u64) {
        let bytes = reply.bytes();
        if let Some(wait) = self.waits.iter_mut().find(|wait| wait.id == id) {
            self.bytes += bytes;
            if let Some(hold) = wait.hold {
                wait.ends_us = held_until(hold, &reply, now_us);
            }
            wait.parked = Some(reply);
        }
    }

    /// The question was handed to the peer.
    pub(super) fn asked(&mut self, id: MessageId) {
        if let Some(wait) = self.waits.iter_mut().find(|wait| wait.id == id) {
            wait.asked = true;
        }
    }

    pub(super) fn look(&mut self, id: MessageId) -> WaitLook<'_> {
        match self.waits.iter_mut().find(|wait| wait.id == id) {
            None => WaitLook::Gone,
            Some(wait) => match wait.parked.as_deref_mut() {
                None => WaitLook::Open,
                Some(reply) => WaitLook::Answered(reply),
            },
        }
    }

    /// Until when a reply that was handed out is held by its wait.
    pub(super) fn reply_held_until(&self, id: MessageId) -> Option<u64> {
        let taken = |wait: &&Wait| {
            wait.parked.as_ref().is_some_and(|reply| reply.id == id && reply.attempts > 0)
        };
        self.waits.iter().find(taken).map(|wait| wait.ends_us)
    }

    /// Takes a wait out, with its answer unless that was received.
    pub(super) fn end_wait(&mut self, id: MessageId) -> Option<Box<Letter>> {
        let at = self.waits.iter().position(|wait| wait.id == id)?;
        let Wait { parked, received: false, .. } = self.waits.remove(at) else { return None };
        let reply = parked?;
        self.bytes -= reply.bytes();
        Some(reply)
    }

    /// When the first answer of a dead wait goes to the inbox.
    pub(super) fn next_sweep(&self) -> Option<u64> {
        let returns = |wait: &&Wait| wait.parked.is_some() && !wait.received;
        self.waits.iter().filter(returns).map(|wait| wait.ends_us).min()
    }

    /// Ends the waits whose time is over. Whether an answer went to the queue by that.
    pub(super) fn sweep_waits(&mut self, now_us: u64) -> bool {
        let over = |wait: &&Wait| wait.ends_us <= now_us || wait.lapsed(now_us);
        let dead: Vec<_> = self.waits.iter().filter(over).map(|wait| wait.id).collect();
        let mut returned = false;
        for id in dead {
            if let Some(reply) = self.end_wait(id) {
                returned |= self.give_back(reply, now_us);
            }
        }
        returned
    }
}
