//! What answers say to the model. Short, and always what to do next.

use std::{borrow::Cow, fmt::Write, time::Duration};

use super::envelope::Envelope;
use crate::{
    messaging::Notice,
    model::{Message, MessageState, rfc3339},
    queue::{self, Pause, Presence},
};

/// How long, for reading.
pub(super) fn lasting(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => format!("{} min", s / 60),
        s @ 3600..172_800 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

/// How long ago, for reading.
pub(super) fn ago(age: Duration) -> String {
    match age.as_secs() {
        0 => "just now".to_owned(),
        1.. => format!("{} ago", lasting(age)),
    }
}

/// `1 message`, `2 messages`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// What is known of a client, as the end of a sentence about it.
pub(super) fn presence(presence: Presence) -> Cow<'static, str> {
    match presence {
        Presence::Waiting => "waiting for mail now".into(),
        Presence::Seen(age) => format!("last seen {}", ago(age)).into(),
        Presence::Unknown => {
            "never seen here, so check the id (list_clients knows who checked in)".into()
        }
    }
}

/// Messages in their envelopes, after the sentence that says what they are.
pub(crate) fn messages(out: &mut String, messages: &[Message]) {
    if messages.is_empty() {
        return;
    }
    out.reserve(messages.iter().map(|message| message.text.len() + 300).sum());
    let envelope = Envelope::new();
    let verified = messages.iter().filter(|message| message.verified).count();
    out.push_str(&envelope.sentence(match verified {
        0 => " Sender names are unverified.",
        some if some < messages.len() => " Sender names are unverified unless it says so.",
        _all => "",
    }));
    for message in messages {
        envelope.wrap(out, &header(message), &message.text);
    }
}

/// What the server knows of a message.
fn header(message: &Message) -> String {
    let mut header = format!(
        "from {}{}, {}; message_id {}",
        message.from.expose(),
        if message.verified { " (verified)" } else { "" },
        ago(message.age),
        message.id
    );
    if let Some(question) = message.in_reply_to {
        let _ = write!(header, "; in_reply_to {question}");
    }
    if message.redelivered {
        let _ =
            write!(header, "; redelivered (attempt {}): skip it if you had it", message.attempt);
    }
    if message.asks {
        let _ = write!(
            header,
            "; asks for a reply, to answer: send_message with in_reply_to={}",
            message.id
        );
    }
    header
}

/// What the caller must be told: which of its messages nobody read, and to whom it may not send.
pub(super) fn notices(out: &mut String, notices: &[Notice]) {
    for notice in notices {
        let _ = match notice {
            Notice::Expired(queue::Notice { id, recipient, sent_at_ms }) => writeln!(
                out,
                "Not delivered: your message {id} to {}, sent {}, expired unread. \
                 Send it again if it still matters.",
                recipient.expose(),
                rfc3339(*sent_at_ms)
            ),
            Notice::Paused(Pause { peer, until_ms }) => writeln!(
                out,
                "From this server: you and {} sent each other so much that it looks like a loop. Messages between \
                 you are paused until {} and refused till then. Tell your user: whoever runs the server ends a \
                 pause with `mcp-messaging pairs lift`.",
                peer.expose(),
                rfc3339(*until_ms)
            ),
        };
    }
}

/// What became of a message.
pub(super) fn state(state: MessageState) -> &'static str {
    match state {
        MessageState::Queued => "queued, not read yet",
        MessageState::Delivered => "delivered, its receipt not confirmed yet",
        MessageState::Acknowledged => "received",
        MessageState::Expired => "expired unread",
        MessageState::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::MessageId,
        tools::{
            envelope::tests::{NASTY, opened},
            samples,
        },
    };

    #[test]
    fn ages_are_short() {
        for (seconds, text) in [
            (0, "just now"),
            (12, "12 s ago"),
            (60, "1 min ago"),
            (3599, "59 min ago"),
            (7200, "2 h ago"),
            (200_000, "2 d ago"),
        ] {
            assert_eq!(ago(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn the_server_says_who_and_the_body_stays_inside() {
        let mut sent: Vec<_> = NASTY.iter().map(|body| samples::message("bob", body)).collect();
        sent[0].asks = true;
        sent[1].redelivered = true;
        sent[1].attempt = 2;
        sent[2].in_reply_to = Some(MessageId::new());
        let mut out = String::new();
        messages(&mut out, &sent);
        let found = opened(&out);
        assert_eq!(found.len(), sent.len());
        for ((header, body), message) in found.iter().zip(&sent) {
            assert_eq!(*body, message.text);
            let start = format!("from bob, 12 s ago; message_id {}", message.id);
            assert!(header.starts_with(&start), "{header}");
        }
        let answer =
            format!("asks for a reply, to answer: send_message with in_reply_to={}", sent[0].id);
        assert!(found[0].0.ends_with(&answer));
        assert!(found[1].0.ends_with("; redelivered (attempt 2): skip it if you had it"));
        assert!(found[2].0.contains("; in_reply_to "));
    }

    #[test]
    fn an_envelope_costs_few_tokens() {
        // Markers and ids are random, and so is what each costs: the mean of many is not.
        const ROUNDS: usize = 50;
        let tokens = tiktoken_rs::o200k_base().unwrap();
        let cost = |count: usize| {
            let rounds = (0..ROUNDS).map(|_| {
                let sent: Vec<_> = (0..count).map(|_| samples::message("bob", "ok")).collect();
                let mut out = String::new();
                messages(&mut out, &sent);
                tokens.encode_ordinary(&out).len()
            });
            rounds.sum::<usize>() / ROUNDS
        };
        let (one, two) = (cost(1), cost(2));
        assert!(one <= 125, "{one} tokens for one message");
        assert!(two - one <= 95, "{} tokens for a further one", two - one);
    }
}
