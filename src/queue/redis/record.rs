//! Messages as they stand in Redis: a header that the functions read, and the text, which may be sealed.
//!
//! The layout is contract 1 and shared with `migrations/functions/mb1.lua`: version u8, flags u8, text
//! bytes u32, expires ms f64, stamp us f64, id 16, then the tail: sender length u8, sender, in-reply-to
//! 16 if flagged, trace 25 if flagged. Big endian.

use std::time::Duration;

use fred::bytes::Bytes;

use super::seal::{Place, Seal};
use crate::{
    model::{Address, Inbox, Message, MessageId, TraceParent},
    queue::{NewMessage, QueueError, Stamp},
};

pub(super) const COPY: u8 = 1;
const ASKS: u8 = 2;
const REPLIES: u8 = 4;
const TRACED: u8 = 8;
const VERIFIED: u8 = 16;
const FIXED: usize = 38;

/// Flags and tail of a new message's header.
pub(super) fn encode(message: &NewMessage) -> (u8, Bytes) {
    let sender = message.sender.name().as_bytes();
    let mut tail = Vec::with_capacity(1 + sender.len() + 16 + TraceParent::LEN);
    // A tenant and a client id are at most 64 + 1 + 128 bytes.
    tail.push(u8::try_from(sender.len()).unwrap_or(u8::MAX));
    tail.extend_from_slice(sender);
    let mut flags = 0;
    if message.wait.is_some() {
        flags |= ASKS;
    }
    if message.verified {
        flags |= VERIFIED;
    }
    if let Some(id) = &message.in_reply_to {
        flags |= REPLIES;
        tail.extend_from_slice(id.as_bytes());
    }
    if let Some(trace) = &message.trace {
        flags |= TRACED;
        tail.extend_from_slice(&trace.to_bytes());
    }
    (flags, tail.into())
}

/// What the store said beside the record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handed {
    /// The store's clock, ms.
    pub(super) now_ms: u64,
    /// Handed out before up to this stamp.
    pub(super) seen_us: u64,
    /// How often the head was handed out.
    pub(super) attempt: u32,
}

/// The message in a record of `inbox`, and its stamp.
///
/// # Errors
/// [`QueueError::Unreadable`] if the rest of the record is whole.
pub(super) fn decode(
    header: &[u8],
    stored: &[u8],
    handed: Handed,
    (inbox, seal): (&Inbox, &Seal),
) -> Result<(Message, Stamp), QueueError> {
    let broken = |what: &str| QueueError::Contract { detail: format!("message record: {what}") };
    if header.first() != Some(&1) {
        return Err(broken("unknown version"));
    }
    let mut reader = Reader(header.get(1..).unwrap_or_default());
    let fixed = (|| {
        let flags = reader.take::<1>()?[0];
        reader.take::<4>()?;
        let expires = f64::from_be_bytes(reader.take()?);
        let stamp = f64::from_be_bytes(reader.take()?);
        let id = MessageId::from_bytes(reader.take()?);
        Some((flags, expires, stamp, id))
    })();
    let (flags, _expires, stamp, id) = fixed.ok_or_else(|| broken("short header"))?;
    debug_assert!(header.len() >= FIXED);
    let whole_tail = reader.0;
    let tail = (|| {
        let len = reader.take::<1>()?[0];
        let sender = std::str::from_utf8(reader.bytes(usize::from(len))?).ok()?;
        let from = Inbox::from_name(sender)?;
        let in_reply_to = match flags & REPLIES {
            0 => None,
            _ => Some(MessageId::from_bytes(reader.take()?)),
        };
        let trace = match flags & TRACED {
            0 => None,
            _ => TraceParent::from_bytes(reader.take()?),
        };
        Some((from, in_reply_to, trace))
    })();
    let (from, in_reply_to, trace) = tail.ok_or_else(|| broken("broken tail"))?;
    let place = Place { inbox, id: id.as_bytes(), flags, tail: whole_tail };
    let text = seal.opened(stored, place).map_err(|why| QueueError::Unreadable { id, why })?;
    let stamp_us = whole(stamp);
    let again = stamp_us <= handed.seen_us;
    let copy = flags & COPY != 0;
    let accepted_at_ms = stamp_us / 1000;
    let message = Message {
        id,
        from: Address::of(&from, inbox.tenant()),
        verified: flags & VERIFIED != 0,
        in_reply_to,
        text,
        accepted_at_ms,
        age: Duration::from_millis(handed.now_ms.saturating_sub(accepted_at_ms)),
        redelivered: again || copy,
        attempt: u32::from(copy) + if again { handed.attempt } else { 1 },
        asks: flags & ASKS != 0,
        trace,
    };
    Ok((message, Stamp(stamp_us)))
}

/// A stamp or time that Lua wrote as a double: a whole number below 2^53.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "whole and in range by contract; a cast saturates for anything else"
)]
pub(super) fn whole(double: f64) -> u64 {
    double as u64
}

/// Takes bytes from the front.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Tenant;

    fn message() -> NewMessage {
        let inbox = |id: &str| Inbox::new(Tenant::default(), id.parse().unwrap());
        NewMessage {
            id: MessageId::new(),
            sender: inbox("alice"),
            verified: true,
            recipient: inbox("bob"),
            text: "hello".to_owned(),
            in_reply_to: Some(MessageId::new()),
            idempotency: None,
            ttl: Duration::from_mins(5),
            wait: Some(Duration::from_secs(1)),
            trace: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().ok(),
            taken: crate::queue::Taking::All,
        }
    }

    fn header(message: &NewMessage, stamp: f64) -> Vec<u8> {
        let (flags, tail) = encode(message);
        let mut header = vec![1, flags];
        header.extend_from_slice(&5_u32.to_be_bytes());
        header.extend_from_slice(&9e12_f64.to_be_bytes());
        header.extend_from_slice(&stamp.to_be_bytes());
        header.extend_from_slice(message.id.as_bytes());
        header.extend_from_slice(&tail);
        header
    }

    #[test]
    fn a_record_gives_back_what_was_sent() {
        let sent = message();
        let handed = Handed { now_ms: 2_500, seen_us: 0, attempt: 1 };
        let read = |sent: &NewMessage| {
            let plain = (&sent.recipient, &Seal::default());
            decode(&header(sent, 1_000_000.0), b"hello", handed, plain).unwrap()
        };
        let (got, stamp) = read(&sent);
        assert_eq!((&*got.text, stamp), ("hello", Stamp(1_000_000)));
        assert_eq!(got.id, sent.id);
        assert_eq!(got.from.expose(), "alice");
        let other: Tenant = "other".parse().unwrap();
        let abroad = Inbox::new(other, "bob".parse().unwrap());
        let abroad = (&abroad, &Seal::default());
        let (seen, _) = decode(&header(&sent, 1_000_000.0), b"hello", handed, abroad).unwrap();
        assert_eq!(seen.from.expose(), "default/alice", "to a reader of another team");
        assert_eq!(got.in_reply_to, sent.in_reply_to);
        assert_eq!(got.trace, sent.trace);
        assert_eq!(got.age, Duration::from_millis(1_500));
        assert!(got.asks && got.verified && !got.redelivered);
        let claimed = NewMessage { verified: false, ..sent };
        assert!(!read(&claimed).0.verified);
    }

    #[test]
    fn a_record_cut_anywhere_is_an_error_and_not_a_panic() {
        let whole = header(&message(), 1.0);
        let handed = Handed { now_ms: 0, seen_us: 0, attempt: 1 };
        for len in 0..whole.len() {
            let cut =
                decode(&whole[..len], b"hello", handed, (&message().recipient, &Seal::default()));
            assert!(cut.is_err(), "{len}");
        }
    }
}
