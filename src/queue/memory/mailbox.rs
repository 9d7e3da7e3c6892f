//! One client's inbox: its queue and the lease on its head.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use super::{
    keys::Keys,
    ledger::{Ledger, RowKey},
    letter::{Handed, Letter},
    micros, until,
    waits::{Question, Wait},
};
use crate::{
    model::{Inbox, Message},
    queue::{Arrivals, Browsed, FetchRequest, LeaseId, Peek, Presence, SessionKey, Stamp, Waiting},
};

/// The latest waiting call of a session is remembered so long after its wait, for older calls that
/// still sleep.
const CALL_MEMORY: Duration = Duration::from_mins(10);

/// Everything that belongs to one client.
pub(super) struct Mailbox {
    pub inbox: Inbox,
    pub ledger: Ledger,
    pub keys: Keys,
    pub waiting_until_us: u64,
    pub seen_us: Option<u64>,
    pub(super) waits: Vec<Wait>,
    /// Questions of others that were handed to the owner and not answered in their waits.
    pub(super) questions: VecDeque<Question>,
    /// Of the queue and of parked replies.
    pub(super) bytes: u64,
    /// Oldest first; stamps strictly increase.
    letters: VecDeque<Box<Letter>>,
    /// Ends of life in the queue; may name letters that are gone.
    ends: BinaryHeap<Reverse<(u64, Stamp)>>,
    last: Stamp,
    /// The highest stamp ever handed out.
    handed: Stamp,
    lease: Option<Lease>,
    /// How many leases there were.
    leases: u64,
    /// How far the latest of them reached, and which they were.
    granted: VecDeque<(Stamp, u64)>,
    /// Expired after they were handed out, and may still be acknowledged.
    lapsed: Vec<Lapsed>,
    sessions: Vec<LatestCall>,
}

/// A hold on all letters up to a stamp.
struct Lease {
    id: LeaseId,
    until_us: u64,
    upto: Stamp,
}

/// A letter that expired after it was handed out.
pub(super) struct Lapsed {
    pub(super) sender: Inbox,
    pub(super) row: Option<RowKey>,
    stamp: Stamp,
    /// How many leases there had been by then: those reached it, and no later one does.
    leases: u64,
}

/// How many expired letters, and leases, are remembered for late acknowledgements.
const LAPSED: usize = 256;
const GRANTED: usize = 64;

/// The latest waiting call of one session.
struct LatestCall {
    session: SessionKey,
    call: LeaseId,
    /// It got messages: it waits no more.
    served: bool,
    until_us: u64,
}

/// Whose turn it is among the waiting calls of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Ours,
    /// An older call is to learn that it lost.
    TakenOver,
    Superseded,
}

/// What a reader finds.
pub(super) enum Head {
    Empty,
    Busy { until_us: u64 },
    Messages { messages: Vec<Message>, upto: Stamp, handed: Vec<Handed> },
}

impl Mailbox {
    pub(super) fn new(inbox: Inbox) -> Self {
        Self {
            inbox,
            ledger: Ledger::default(),
            keys: Keys::default(),
            waiting_until_us: 0,
            seen_us: None,
            waits: Vec::new(),
            questions: VecDeque::new(),
            bytes: 0,
            letters: VecDeque::new(),
            ends: BinaryHeap::new(),
            last: Stamp::default(),
            handed: Stamp::default(),
            lease: None,
            leases: 0,
            granted: VecDeque::new(),
            lapsed: Vec::new(),
            sessions: Vec::new(),
        }
    }

    /// Ends what is over: messages, keys, waits. Whether a reply went to the queue by that.
    pub(super) fn settle(&mut self, now_us: u64) -> bool {
        while let Some(&Reverse((expires_us, stamp))) = self.ends.peek()
            && expires_us <= now_us
        {
            self.ends.pop();
            if let Ok(at) = self.letters.binary_search_by_key(&stamp, |letter| letter.stamp)
                && let Some(letter) = self.letters.remove(at)
            {
                self.bytes -= letter.bytes();
                self.note_lapsed(&letter);
            }
        }
        self.keys.forget(now_us);
        self.sweep_waits(now_us)
    }

    fn note_lapsed(&mut self, letter: &Letter) {
        if letter.attempts == 0 {
            return;
        }
        if self.lapsed.len() == LAPSED {
            self.lapsed.remove(0);
        }
        let Letter { stamp, row, .. } = *letter;
        let (sender, leases) = (letter.sender.clone(), self.leases);
        self.lapsed.push(Lapsed { sender, row, stamp, leases });
    }

    /// Nothing of this client matters any more, and it was away for `life_us`.
    pub(super) fn is_dead(&self, now_us: u64, life_us: u64) -> bool {
        self.letters.is_empty()
            && self.waits.is_empty()
            && self.keys.is_empty()
            && self.ledger.is_empty()
            && self.waiting_until_us <= now_us
            && self.lease.as_ref().is_none_or(|lease| lease.until_us <= now_us)
            && self.sessions.iter().all(|latest| latest.until_us <= now_us)
            && self.seen_us.is_none_or(|seen_us| seen_us.saturating_add(life_us) <= now_us)
    }

    /// Messages in the queue. Exact after [`settle`](Self::settle).
    pub(super) fn queued(&self) -> u64 {
        self.letters.len() as u64
    }

    pub(super) fn oldest_end(&self) -> u64 {
        self.letters.front().map_or(0, |letter| letter.expires_us)
    }

    pub(super) fn next_stamp(&mut self, now_us: u64) -> Stamp {
        self.last = Stamp(now_us.max(self.last.0 + 1));
        self.last
    }

    /// Puts a letter at the end. Its stamp is the latest.
    pub(super) fn push(&mut self, letter: Box<Letter>) {
        if self.ends.len() > 2 * self.letters.len() + 64 {
            let letters = &self.letters;
            self.ends.retain(|Reverse((_, stamp))| {
                letters.binary_search_by_key(stamp, |letter| letter.stamp).is_ok()
            });
        }
        self.ends.push(Reverse((letter.expires_us, letter.stamp)));
        self.bytes += letter.bytes();
        self.letters.push_back(letter);
    }

    /// Puts the reply of a wait that is over at the end, unless its life is over too.
    pub(super) fn give_back(&mut self, mut reply: Box<Letter>, now_us: u64) -> bool {
        let alive = reply.expires_us > now_us;
        if alive {
            reply.stamp = self.next_stamp(now_us);
            self.push(reply);
        }
        alive
    }

    /// Letters that a lease up to `upto` holds.
    fn held(&self, upto: Stamp) -> usize {
        self.letters.partition_point(|letter| letter.stamp <= upto)
    }

    /// Notes a waiting call among those of its session.
    pub(super) fn turn_of(&mut self, waiting: &Waiting, now_us: u64) -> Turn {
        let Some(session) = waiting.session else { return Turn::Ours };
        let until_us = now_us.saturating_add(micros(waiting.remaining + CALL_MEMORY));
        self.sessions.retain(|latest| latest.until_us > now_us);
        match self.sessions.iter_mut().find(|latest| latest.session == session) {
            None => {
                let call = waiting.call;
                self.sessions.push(LatestCall { session, call, served: false, until_us });
                Turn::Ours
            }
            Some(latest) if latest.call == waiting.call => {
                latest.served = false; // if it was, its answer got lost: it waits again
                latest.until_us = latest.until_us.max(until_us);
                Turn::Ours
            }
            Some(latest) if waiting.first => {
                latest.call = waiting.call;
                latest.until_us = latest.until_us.max(until_us);
                if std::mem::take(&mut latest.served) { Turn::Ours } else { Turn::TakenOver }
            }
            Some(_) => Turn::Superseded,
        }
    }

    /// Notes that a call got messages: the next of its session takes over from nobody.
    pub(super) fn was_served(&mut self, call: LeaseId) {
        if let Some(latest) = self.sessions.iter_mut().find(|latest| latest.call == call) {
            latest.served = true;
        }
    }

    /// Leases the head of the queue to a reader.
    pub(super) fn take_head(&mut self, request: &FetchRequest, now_us: u64) -> Head {
        let mut again = false;
        let mut count = 0;
        if let Some(lease) = &self.lease {
            count = self.held(lease.upto);
            again = lease.id == request.lease && count > 0;
            if count > 0 && !again && lease.until_us > now_us {
                return Head::Busy { until_us: lease.until_us };
            }
        }
        if !again {
            count = self.prefix(request.max_messages, request.max_bytes);
        }
        let Some(newest) = count.checked_sub(1).and_then(|last| self.letters.get(last)) else {
            return Head::Empty;
        };
        let upto = newest.stamp;
        self.handed = self.handed.max(upto);
        let until_us = now_us.saturating_add(micros(request.lease_for));
        self.lease = Some(Lease { id: request.lease, until_us, upto });
        if !again {
            self.leases += 1;
            if self.granted.len() == GRANTED {
                self.granted.pop_front();
            }
            self.granted.push_back((upto, self.leases));
        }
        let (mut messages, mut handed) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for letter in self.letters.iter_mut().take(count) {
            // The same lease again repeats an answer that got lost on its way: not another attempt.
            letter.attempts += u32::from(!again);
            messages.push(letter.message(now_us));
            handed.push(letter.handed(letter.stamp));
        }
        Head::Messages { messages, upto, handed }
    }

    /// How many letters a fetch may take: always one, if there is one.
    fn prefix(&self, max_messages: usize, max_bytes: usize) -> usize {
        let mut bytes = 0_usize;
        let lens = self.letters.iter().map(|letter| letter.text_len()).take(max_messages.max(1));
        let fits = |len: &usize| {
            bytes = bytes.saturating_add(*len);
            bytes <= max_bytes
        };
        let count = lens.take_while(fits).count();
        count.max(usize::from(!self.letters.is_empty()))
    }

    /// What expired, and is acknowledged by who got it. Of the leases that reached so far it is taken for the last.
    pub(super) fn ack_lapsed(&mut self, upto: Stamp) -> Vec<Lapsed> {
        if self.lapsed.is_empty() {
            self.granted.retain(|(reached, _)| *reached > upto);
            return Vec::new();
        }
        let granted = self.granted.iter().rev().find(|(reached, _)| *reached == upto);
        let Some(&(_, lease)) = granted else { return Vec::new() };
        let got = |lapsed: &mut Lapsed| lapsed.stamp <= upto && lease <= lapsed.leases;
        self.lapsed.extract_if(.., got).collect()
    }

    /// Removes what was handed out up to `upto`.
    pub(super) fn ack(&mut self, upto: Stamp) -> VecDeque<Box<Letter>> {
        let upto = upto.min(self.handed);
        let removed: VecDeque<_> = self.letters.drain(..self.held(upto)).collect();
        self.bytes -= removed.iter().map(|letter| letter.bytes()).sum::<u64>();
        if self.lease.as_ref().is_some_and(|lease| lease.upto <= upto) {
            self.lease = None;
        }
        removed
    }

    pub(super) fn release(&mut self, id: LeaseId) -> bool {
        self.lease.take_if(|lease| lease.id == id).is_some()
    }

    pub(super) fn extend(&mut self, id: LeaseId, until_us: u64) -> bool {
        match &mut self.lease {
            Some(lease) if lease.id == id => {
                lease.until_us = until_us;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Until when a reader holds the message with this stamp, which has expired.
    pub(super) fn held_until(&self, stamp: Stamp, now_us: u64) -> Option<u64> {
        let lease = self.lease.as_ref()?;
        let lapsed = self.lapsed.iter().find(|lapsed| lapsed.stamp == stamp)?;
        let holds = stamp <= lease.upto && lapsed.leases == self.leases;
        (holds && lease.until_us > now_us).then_some(lease.until_us)
    }

    pub(super) fn presence(&self, now_us: u64) -> Presence {
        if self.waiting_until_us > now_us {
            return Presence::Waiting;
        }
        self.seen_us.map_or(Presence::Unknown, |seen_us| Presence::Seen(until(seen_us, now_us)))
    }

    /// Letters under a running lease, and its end.
    fn leased(&self, now_us: u64) -> (u64, Option<u64>) {
        let running = self.lease.as_ref().filter(|lease| lease.until_us > now_us);
        running.map_or((0, None), |lease| (self.held(lease.upto) as u64, Some(lease.until_us)))
    }

    pub(super) fn browse(&self, most: (usize, usize), now_us: u64) -> Browsed {
        let (max_messages, max_bytes) = most;
        let (leased, lease_ends) = self.leased(now_us);
        let head = self.letters.front().filter(|head| leased == 0 && head.stamp <= self.handed);
        let shown = if max_messages == 0 { 0 } else { self.prefix(max_messages, max_bytes) };
        let next = [lease_ends.filter(|_| leased > 0), self.next_sweep()];
        Browsed {
            messages: self.letters.iter().take(shown).map(|letter| letter.next(now_us)).collect(),
            queued: self.queued(),
            leased,
            arrivals: Arrivals {
                newest: self.letters.back().map_or(Stamp::default(), |newest| newest.stamp),
                returned: head.map(|head| (self.handed, head.attempts)),
            },
            due: next.into_iter().flatten().min().map(|at_us| until(now_us, at_us)),
        }
    }

    pub(super) fn peek(&self, now_us: u64) -> Peek {
        Peek {
            queued: self.queued(),
            leased: self.leased(now_us).0,
            oldest: self.letters.front().map(|letter| until(letter.accepted_us, now_us)),
            presence: self.presence(now_us),
        }
    }
}
