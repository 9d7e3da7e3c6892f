//! What goes in must come out: the total-queue check of Jepsen, with what this mailbox promises beside it.
//!
//! It knows nothing of the server, of faults or of time outs: a history in, a verdict out. Only calls
//! count that a client itself can vouch for.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::history::{Batch, History, Micros, Outcome, Send};

/// What a history amounts to. Messages are told apart by their text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Messages that somebody tried to send.
    pub attempts: u64,
    /// Of those, accepted by the word of the server.
    pub acknowledged: u64,
    /// Of those, refused by the word of the server.
    pub refused: u64,
    /// Attempts that came out.
    pub received: u64,
    /// Came out although no call was ever acknowledged: allowed.
    pub recovered: u64,
    /// Acknowledged, and their sender was told that they expired unread.
    pub expired: u64,
    /// Acknowledged; never came out, and nobody was told.
    pub lost: u64,
    /// Never sent, refused, changed, in a foreign inbox, or both received and reported expired.
    pub unexpected: u64,
    /// Copies that said so.
    pub flagged: u64,
    /// Copies that did not.
    pub unflagged: u64,
    /// Received after one that was sent later, or accepted before the one in front of it by the server's word.
    pub reordered: u64,
    /// Answers that ended another question's wait.
    pub wrong_answers: u64,
    /// Calls that the server answered with an error of its own.
    pub errors: u64,
    /// Longest time under load without a single acceptance.
    pub unavailable: Micros,
    /// From the sender's call to the answer in the hands of one who waited already. Sorted.
    pub wake_ups: Vec<Micros>,
    /// Some of what was lost, unexpected or copied, to look for in the logs.
    pub examples: Vec<String>,
}

/// Judges a history.
pub(crate) fn check(history: &History) -> Verdict {
    let sent = Attempt::all(&history.sends);
    let received = received(&history.batches);
    let told: HashSet<&str> = history.expired.iter().map(String::as_str).collect();
    let mut verdict = Verdict {
        attempts: sent.len() as u64,
        reordered: reordered(&sent, &history.batches) + back_in_time(&history.batches),
        wrong_answers: history.wrong_answers,
        errors: history.errors,
        unavailable: unavailable(history),
        wake_ups: wake_ups(&sent, &history.batches),
        ..Verdict::default()
    };
    for (text, attempt) in &sent {
        let came = received.contains_key(text);
        let expired = attempt.ids.iter().any(|id| told.contains(id));
        verdict.received += u64::from(came);
        verdict.refused += u64::from(attempt.refused());
        verdict.recovered += u64::from(came && attempt.ids.is_empty());
        verdict.acknowledged += u64::from(!attempt.ids.is_empty());
        verdict.expired += u64::from(expired);
        if !attempt.ids.is_empty() && !came && !expired {
            verdict.lost += 1;
            verdict.example("lost", text, attempt.inbox);
        }
        if came && (attempt.refused() || expired) {
            verdict.unexpected += 1;
            verdict.example("unexpected", text, attempt.inbox);
        }
    }
    for (text, copies) in &received {
        let known = sent.get(text);
        let foreign = copies.iter().filter(|copy| {
            known.is_none_or(|attempt| attempt.inbox != copy.inbox || attempt.from != copy.from)
        });
        let foreign = foreign.count() as u64;
        if foreign > 0 {
            verdict.unexpected += foreign;
            verdict.example("unexpected", text, copies[0].inbox);
        }
        // Of two copies on their way to two readers, either may come first: one in all is unmarked.
        let unmarked = copies.iter().filter(|copy| !copy.redelivered).count() as u64;
        let unflagged = unmarked.saturating_sub(1);
        verdict.unflagged += unflagged;
        verdict.flagged += copies.len() as u64 - 1 - unflagged;
        if unflagged > 0 {
            verdict.example("copied unmarked", text, copies[0].inbox);
        }
    }
    verdict
}

/// Acknowledged messages that have neither come out nor expired with a notice: what a drain waits for.
pub(crate) fn missing(history: &History) -> usize {
    let came: HashSet<&str> =
        history.batches.iter().flat_map(|b| &b.messages).map(|m| m.text.as_str()).collect();
    let told: HashSet<&str> = history.expired.iter().map(String::as_str).collect();
    let sent = Attempt::all(&history.sends);
    let open = sent.iter().filter(|(text, attempt)| {
        !attempt.ids.is_empty()
            && !came.contains(*text)
            && !attempt.ids.iter().any(|id| told.contains(id))
    });
    open.count()
}

impl Verdict {
    fn example(&mut self, what: &str, text: &str, inbox: &str) {
        const ENOUGH: usize = 12;
        if self.examples.len() < ENOUGH {
            let text: String = text.chars().take(40).collect();
            self.examples.push(format!("{what}: {text} in {inbox}"));
        }
    }
}

/// All calls that sent one text.
struct Attempt<'a> {
    from: &'a str,
    inbox: &'a str,
    in_order: bool,
    /// Ids under which it was acknowledged.
    ids: Vec<&'a str>,
    /// When it was certainly not accepted yet, and when it certainly was.
    window: (Micros, Micros),
    /// The call that was acknowledged first began then.
    invoked: Micros,
    calls: usize,
    refusals: usize,
}

impl<'a> Attempt<'a> {
    fn all(sends: &'a [Send]) -> BTreeMap<&'a str, Self> {
        let mut all: BTreeMap<&str, Self> = BTreeMap::new();
        for send in sends {
            let attempt = all.entry(&send.text).or_insert(Self {
                from: &send.from,
                inbox: &send.inbox,
                in_order: send.in_order,
                ids: Vec::new(),
                window: (Micros::MAX, Micros::MAX),
                invoked: 0,
                calls: 0,
                refusals: 0,
            });
            attempt.calls += 1;
            attempt.window.0 = attempt.window.0.min(send.invoked);
            match &send.outcome {
                Outcome::Acknowledged(id) => {
                    attempt.ids.push(id);
                    if send.completed < attempt.window.1 {
                        attempt.window.1 = send.completed;
                        attempt.invoked = send.invoked;
                    }
                }
                Outcome::Refused => attempt.refusals += 1,
                Outcome::Unknown => {}
            }
        }
        all
    }

    /// Every call was refused: it must never come out.
    fn refused(&self) -> bool {
        self.refusals == self.calls
    }
}

struct Copy<'a> {
    inbox: &'a str,
    from: &'a str,
    redelivered: bool,
}

fn received(batches: &[Batch]) -> HashMap<&str, Vec<Copy<'_>>> {
    let mut all: HashMap<&str, Vec<Copy<'_>>> = HashMap::new();
    for batch in batches {
        for got in &batch.messages {
            let copy = Copy { inbox: &batch.inbox, from: &got.from, redelivered: got.redelivered };
            all.entry(&got.text).or_default().push(copy);
        }
    }
    all
}

/// Messages that came for the first time after one that was sent when they were accepted already. Of two
/// answers that were under way at once, none came first.
fn reordered(sent: &BTreeMap<&str, Attempt<'_>>, batches: &[Batch]) -> u64 {
    let mut inboxes: BTreeMap<&str, Vec<&Batch>> = BTreeMap::new();
    for batch in batches {
        inboxes.entry(&batch.inbox).or_default().push(batch);
    }
    let mut count = 0;
    for batches in inboxes.values() {
        let (mut begun, mut ended) = (batches.clone(), batches.clone());
        begun.sort_by_key(|batch| batch.invoked);
        ended.sort_by_key(|batch| batch.completed);
        let first: HashMap<&str, Micros> = ended
            .iter()
            .rev()
            .flat_map(|b| b.messages.iter().map(|m| (&*m.text, b.completed)))
            .collect();
        // The latest beginning of a send whose message came before the batch at hand.
        let (mut ended, mut latest) = (ended.iter().peekable(), 0);
        let window = |text: &str| sent.get(text).filter(|one| one.in_order).map(|one| one.window);
        for batch in begun {
            while let Some(earlier) = ended.next_if(|one| one.completed < batch.invoked) {
                let texts = earlier.messages.iter().filter_map(|got| window(&got.text));
                latest = texts.map(|(invoked, _)| invoked).fold(latest, Micros::max);
            }
            let mut here = latest;
            for got in &batch.messages {
                let Some((invoked, accepted)) = window(&got.text) else { continue };
                if first[&*got.text] == batch.completed && accepted < here {
                    count += 1;
                }
                here = here.max(invoked);
            }
        }
    }
    count
}

/// Messages that the server says it accepted before the one in front of them.
fn back_in_time(batches: &[Batch]) -> u64 {
    let steps = batches.iter().flat_map(|batch| batch.messages.windows(2));
    steps.filter(|pair| pair[0].accepted > pair[1].accepted).count() as u64
}

fn unavailable(history: &History) -> Micros {
    let (from, to) = history.load;
    let acknowledged = |send: &&Send| matches!(send.outcome, Outcome::Acknowledged(_));
    let mut times: Vec<Micros> = history
        .sends
        .iter()
        .filter(acknowledged)
        .map(|send| send.completed.clamp(from, to))
        .collect();
    times.extend([from, to]);
    times.sort_unstable();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

fn wake_ups(sent: &BTreeMap<&str, Attempt<'_>>, batches: &[Batch]) -> Vec<Micros> {
    let mut all = Vec::new();
    for batch in batches {
        // The first one woke; those behind it came along.
        let Some(got) = batch.messages.first().filter(|got| !got.redelivered) else { continue };
        let Some(attempt) = sent.get(&*got.text) else { continue };
        if !attempt.ids.is_empty() && batch.invoked < attempt.window.0 {
            all.push(batch.completed.saturating_sub(attempt.invoked));
        }
    }
    all.sort_unstable();
    all
}

/// The percentile of sorted numbers.
pub(crate) fn percentile(sorted: &[Micros], percent: usize) -> Micros {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent / 100).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests;
