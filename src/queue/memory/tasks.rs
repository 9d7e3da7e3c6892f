//! The waits that are asked for by an id.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    time::Duration,
};

use super::{mailbox::Mailbox, micros, state::State};
use crate::{
    model::{Address, Inbox, MessageId},
    queue::{TaskId, TaskRecord, Topic},
};

/// Tasks that are known. Each ends by itself.
#[derive(Default)]
pub(super) struct Tasks {
    known: HashMap<TaskId, TaskRecord>,
    ends: BinaryHeap<Reverse<(u64, TaskId)>>,
}

impl Tasks {
    /// Notes that a wait is a task, for as long as it takes a reply and `hold_us` more.
    pub(super) fn open(
        &mut self,
        inbox: &Inbox,
        wait: MessageId,
        peer: &Inbox,
        (deadline_us, hold_us): (u64, u64),
        now_us: u64,
    ) -> TaskRecord {
        self.forget(now_us);
        let ends_us = deadline_us.max(now_us).saturating_add(hold_us);
        let task = TaskRecord {
            id: TaskId::in_shard(0),
            inbox: inbox.clone(),
            wait,
            peer: Address::of(peer, inbox.tenant()),
            created_ms: now_us / 1000,
            deadline_ms: deadline_us / 1000,
            ends_ms: ends_us / 1000,
            cancelled_ms: None,
            now_ms: now_us / 1000,
        };
        self.ends.push(Reverse((ends_us, task.id)));
        self.known.insert(task.id, task.clone());
        task
    }

    pub(super) fn find(&mut self, id: &TaskId, now_us: u64) -> Option<TaskRecord> {
        self.forget(now_us);
        let task = self.known.get(id)?;
        Some(TaskRecord { now_ms: now_us / 1000, ..task.clone() })
    }

    pub(super) fn cancel(&mut self, id: &TaskId, now_us: u64) {
        if let Some(task) = self.known.get_mut(id) {
            task.cancelled_ms = Some(now_us / 1000);
        }
    }

    fn forget(&mut self, now_us: u64) {
        while let Some(&Reverse((ends_us, id))) = self.ends.peek()
            && ends_us <= now_us
        {
            self.ends.pop();
            self.known.remove(&id);
        }
    }
}

impl State {
    pub(super) fn task_open(
        &mut self,
        inbox: &Inbox,
        wait: MessageId,
        hold: Duration,
        now_us: u64,
    ) -> Option<TaskRecord> {
        self.settle(inbox, now_us);
        let limit = self.limits.open_waits;
        let mailbox = self.get(inbox)?;
        let sweep = mailbox.next_sweep();
        let (peer, deadline_us) = mailbox.open_task(wait, hold, limit, now_us)?;
        if mailbox.next_sweep() < sweep {
            self.wakes.push(Topic::Inbox(inbox.clone())); // who sleeps would look too late
        }
        Some(self.tasks.open(inbox, wait, &peer, (deadline_us, micros(hold)), now_us))
    }

    pub(super) fn task(&mut self, id: &TaskId, now_us: u64) -> Option<TaskRecord> {
        self.tasks.find(id, now_us)
    }

    pub(super) fn task_done(&mut self, task: &TaskRecord) -> bool {
        let TaskRecord { inbox, wait, ends_ms, .. } = task;
        let reply = self.get(inbox).and_then(|mailbox| {
            let reply = mailbox.receive_task(*wait, ends_ms.saturating_mul(1000))?;
            Some((reply.sender.clone(), reply.row))
        });
        let Some((sender, row)) = reply else { return false };
        self.note_acknowledged(&sender, row);
        true
    }

    pub(super) fn task_cancel(&mut self, task: &TaskRecord, now_us: u64) -> bool {
        self.settle(&task.inbox, now_us);
        let untold = |mailbox: &mut Mailbox| mailbox.is_untold(task.wait, now_us);
        if !self.get(&task.inbox).is_some_and(untold) {
            return false;
        }
        self.tasks.cancel(&task.id, now_us);
        self.wait_close(&task.inbox, task.wait, now_us);
        true
    }
}
