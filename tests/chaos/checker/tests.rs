//! Histories made up to break each promise: a checker that cannot fail proves nothing.

use super::*;
use crate::history::Got;

/// A history under construction; times are given.
#[derive(Default)]
struct Story(History);

impl Story {
    fn call(mut self, text: &str, (invoked, completed): (u64, u64), outcome: Outcome) -> Self {
        let (from, inbox) = ("alice".to_owned(), "bob".to_owned());
        let text = text.to_owned();
        self.0.sends.push(Send { text, from, inbox, in_order: true, invoked, completed, outcome });
        self
    }

    fn sent(self, text: &str, times: (u64, u64)) -> Self {
        let id = format!("id of {text}");
        self.call(text, times, Outcome::Acknowledged(id))
    }

    fn got(self, texts: &[&str], times: (u64, u64)) -> Self {
        self.into("bob", texts, times)
    }

    /// A `+` before a text: marked as redelivered.
    fn into(mut self, inbox: &str, texts: &[&str], (invoked, completed): (u64, u64)) -> Self {
        let message = |text: &&str| Got {
            text: text.trim_start_matches('+').to_owned(),
            from: "alice".to_owned(),
            id: String::new(),
            accepted: String::new(),
            redelivered: text.starts_with('+'),
        };
        let messages = texts.iter().map(message).collect();
        self.0.batches.push(Batch { inbox: inbox.to_owned(), invoked, completed, messages });
        self
    }

    fn told(mut self, text: &str) -> Self {
        self.0.expired.push(format!("id of {text}"));
        self
    }

    fn verdict(&self) -> Verdict {
        check(&self.0)
    }
}

#[test]
fn what_was_accepted_and_came_out_once_is_fine() {
    let story = Story::default()
        .sent("one", (1, 2))
        .sent("two", (3, 4))
        .got(&["one"], (0, 5))
        .got(&["two"], (6, 7));
    let verdict = story.verdict();
    let fine = Verdict {
        attempts: 2,
        acknowledged: 2,
        received: 2,
        wake_ups: vec![4],
        ..Verdict::default()
    };
    assert_eq!(verdict, fine);
    assert_eq!(missing(&story.0), 0);
}

#[test]
fn what_was_accepted_and_never_came_out_is_lost() {
    let story = Story::default().sent("one", (1, 2)).sent("two", (3, 4)).got(&["two"], (5, 6));
    assert_eq!(missing(&story.0), 1);
    let verdict = story.verdict();
    assert_eq!((verdict.lost, verdict.received), (1, 1));
    assert_eq!(verdict.examples, ["lost: one in bob"]);
}

#[test]
fn what_its_sender_was_told_expired_is_not_lost() {
    let story = Story::default().sent("one", (1, 2)).told("one");
    assert_eq!(missing(&story.0), 0);
    let verdict = story.verdict();
    assert_eq!((verdict.lost, verdict.expired, verdict.unexpected), (0, 1, 0));
}

#[test]
fn what_was_received_and_reported_expired_is_unexpected() {
    let verdict = Story::default().sent("one", (1, 2)).got(&["one"], (3, 4)).told("one").verdict();
    assert_eq!((verdict.lost, verdict.unexpected), (0, 1));
}

#[test]
fn what_was_left_open_may_come_out_or_not() {
    let story = Story::default()
        .call("one", (1, 2), Outcome::Unknown)
        .call("two", (1, 2), Outcome::Unknown)
        .got(&["two"], (5, 6));
    let verdict = story.verdict();
    assert_eq!((verdict.attempts, verdict.acknowledged), (2, 0));
    assert_eq!((verdict.lost, verdict.unexpected, verdict.recovered), (0, 0, 1));
}

#[test]
fn what_was_refused_must_not_come_out() {
    let refused = |text| Story::default().call(text, (1, 2), Outcome::Refused);
    assert_eq!(refused("one").verdict().refused, 1);
    assert_eq!(refused("one").got(&["one"], (3, 4)).verdict().unexpected, 1);
    // Refused once, but another call was left open: either may be.
    let open = refused("one").call("one", (3, 4), Outcome::Unknown).got(&["one"], (5, 6)).verdict();
    assert_eq!((open.unexpected, open.recovered), (0, 1));
}

#[test]
fn what_nobody_sent_is_unexpected() {
    let verdict = Story::default().sent("one", (1, 2)).got(&["one", "onf"], (3, 4)).verdict();
    assert_eq!(verdict.unexpected, 1);
    let verdict = Story::default().sent("one", (1, 2)).into("carol", &["one"], (3, 4)).verdict();
    assert_eq!(verdict.unexpected, 1, "in a foreign inbox");
}

#[test]
fn a_copy_is_marked_or_not() {
    let once = || Story::default().sent("one", (1, 2)).got(&["one"], (3, 4));
    let marked = once().got(&["+one"], (5, 6)).verdict();
    assert_eq!((marked.flagged, marked.unflagged, marked.lost), (1, 0, 0));
    let unmarked = once().got(&["one"], (5, 6)).verdict();
    assert_eq!((unmarked.flagged, unmarked.unflagged), (0, 1));
    let both = once().got(&["one", "+one"], (5, 6)).verdict();
    assert_eq!((both.flagged, both.unflagged), (1, 1));
    // The unmarked one never reached its reader: the marked one is all there is.
    let first = Story::default().sent("one", (1, 2)).got(&["+one"], (3, 4)).verdict();
    assert_eq!((first.flagged, first.unflagged), (0, 0));
}

#[test]
fn a_repeated_call_is_one_attempt() {
    let story = Story::default()
        .call("one", (1, 2), Outcome::Unknown)
        .sent("one", (3, 4))
        .sent("one", (5, 6))
        .got(&["one"], (7, 8));
    let verdict = story.verdict();
    assert_eq!((verdict.attempts, verdict.acknowledged, verdict.received), (1, 1, 1));
    assert_eq!((verdict.recovered, verdict.unflagged), (0, 0));
}

#[test]
fn order_is_that_of_acceptance() {
    let both = || Story::default().sent("one", (1, 2)).sent("two", (3, 4));
    assert_eq!(both().got(&["two", "one"], (5, 6)).verdict().reordered, 1);
    assert_eq!(both().got(&["two"], (5, 6)).got(&["one"], (7, 8)).verdict().reordered, 1);
    // Two readers at once: nobody can tell which answer was first.
    assert_eq!(both().got(&["two"], (5, 8)).got(&["one"], (6, 7)).verdict().reordered, 0);
    // Sent at once: either may have been accepted first.
    let at_once = Story::default().sent("one", (1, 4)).sent("two", (2, 3));
    assert_eq!(at_once.got(&["two", "one"], (5, 6)).verdict().reordered, 0);
    // A copy that comes again after later ones was in its place the first time.
    let again = both().got(&["one"], (5, 6)).got(&["two"], (7, 8)).got(&["+one"], (9, 10));
    assert_eq!(again.verdict().reordered, 0);
}

#[test]
fn a_send_that_was_repeated_has_its_place_between_its_calls() {
    let story = Story::default()
        .call("one", (1, 2), Outcome::Unknown)
        .sent("two", (3, 4))
        .sent("one", (5, 6));
    // The first call may have come through or not: before and behind are both right.
    for order in [["one", "two"], ["two", "one"]] {
        let sends = story.0.sends.clone();
        let again = Story(History { sends, ..History::default() });
        assert_eq!(again.got(&order, (7, 8)).verdict().reordered, 0);
    }
}

#[test]
fn the_longest_time_without_an_acceptance_counts() {
    let mut story = Story::default()
        .sent("one", (0, 100))
        .call("two", (100, 800), Outcome::Unknown)
        .sent("three", (800, 900));
    story.0.load = (0, 1000);
    assert_eq!(story.verdict().unavailable, 800);
    story.0.load = (0, 5000);
    assert_eq!(story.verdict().unavailable, 4100);
}

#[test]
fn only_who_waited_before_the_send_was_woken() {
    let story = Story::default()
        .sent("one", (10, 12))
        .got(&["one"], (5, 15))
        .sent("two", (20, 22))
        .got(&["two"], (30, 31))
        .call("three", (40, 60), Outcome::Unknown)
        .sent("three", (61, 63))
        .got(&["three"], (32, 64));
    assert_eq!(story.verdict().wake_ups, [3, 5]);
    assert_eq!(percentile(&[1, 2, 3], 50), 2);
    assert_eq!(percentile(&[1, 2, 3], 100), 3);
    assert_eq!(percentile(&[], 99), 0);
}

#[test]
fn the_time_of_acceptance_never_goes_back() {
    let verdict = |times: [&str; 2]| {
        let story = Story::default().sent("one", (1, 2)).sent("two", (3, 4));
        let mut story = story.got(&["one", "two"], (5, 6));
        for (message, time) in story.0.batches[0].messages.iter_mut().zip(times) {
            message.accepted = format!("2026-01-01T00:00:{time}Z");
        }
        story.verdict().reordered
    };
    assert_eq!(verdict(["01.000", "01.000"]), 0);
    assert_eq!(verdict(["00.999", "01.000"]), 0);
    assert_eq!(verdict(["01.000", "00.999"]), 1);
}
