//! The sender's side: what became of what it sent, and what it must be told.
//!
//! A ledger holds what was accepted. What became of a message is not marked there while it is being
//! delivered; it is derived from the recipient's inbox, which keeps the stamp up to which it was
//! acknowledged and the exceptions. So no mark can be lost: neither a false notice nor a missing one.

use std::collections::HashMap;

use fred::types::Value;

use super::{
    RedisQueue, bytes,
    functions::Operation,
    keys::InboxKeys,
    record::{Reader, whole},
    reply::{Answer, contract},
};
use crate::{
    model::{Address, Inbox, MessageId, MessageState},
    queue::{LedgerEntry, Notice, QueueError},
};

/// Messages whose fate is asked in one call: Redis serves nobody else meanwhile.
const FATES: usize = 256;

/// States as the ledger stores them.
const OPEN: u8 = 0;
const ACKNOWLEDGED: u8 = 1;
const EXPIRED_UNTOLD: u8 = 2;
const EXPIRED_TOLD: u8 = 3;
const UNKNOWN: u8 = 4;

/// The state that a function's letter stands for.
pub(super) fn state(letter: Option<&u8>) -> MessageState {
    match letter {
        Some(b'q') => MessageState::Queued,
        Some(b'd') => MessageState::Delivered,
        Some(b'a') => MessageState::Acknowledged,
        Some(b'e') => MessageState::Expired,
        _ => MessageState::Unknown,
    }
}

/// What a function says of the entry that it wrote: is something to be looked up, and is the ledger so
/// full of open entries that it could not be written?
pub(super) fn written(look_up: i64) -> (bool, bool) {
    (look_up == 1 || look_up == 3, look_up >= 2)
}

/// One entry as stored.
struct Entry {
    id: MessageId,
    /// Stamp, expiry, parked: what the fate of a message is asked by.
    question: [u8; 17],
    sent_at_ms: u64,
    expires_ms: u64,
    stored: u8,
    recipient: Inbox,
}

fn parse(raw: &[u8]) -> Option<Entry> {
    let mut reader = Reader(raw);
    let times: [u8; 16] = reader.take()?;
    let id = MessageId::from_bytes(reader.take()?);
    let [stored, parked] = reader.take()?;
    let recipient = Inbox::from_name(std::str::from_utf8(reader.0).ok()?)?;
    let mut question = [0; 17];
    question[..16].copy_from_slice(&times);
    question[16] = parked;
    let (stamp, expires) = times.split_at(8);
    let stamp = whole(f64::from_be_bytes(stamp.try_into().ok()?));
    let expires_ms = whole(f64::from_be_bytes(expires.try_into().ok()?));
    Some(Entry { id, question, sent_at_ms: stamp / 1000, expires_ms, stored, recipient })
}

impl RedisQueue {
    /// The store's time and the entries: all, or those to look up and to tell.
    async fn read_ledger(
        &self,
        sender: &Inbox,
        all: bool,
    ) -> Result<(u64, Vec<Entry>), QueueError> {
        let keys = InboxKeys::new(sender);
        let args =
            vec![Value::Integer(i64::from(all)), super::count(self.store.limits.ledger_entries)];
        let value =
            self.call(Operation::LedgerList, keys.bucket, vec![keys.ledger()], args).await?;
        let mut answer = Answer::new(value)?;
        let now = answer.count()?;
        let entries = answer.rest().map(|raw| {
            raw.as_bytes().and_then(parse).ok_or_else(|| contract("a ledger entry is broken"))
        });
        Ok((now, entries.collect::<Result<_, _>>()?))
    }

    /// Asks the recipients' inboxes what became of the open entries.
    async fn fates(
        &self,
        entries: &[Entry],
    ) -> Result<HashMap<MessageId, MessageState>, QueueError> {
        let mut by_recipient: HashMap<&Inbox, Vec<&Entry>> = HashMap::new();
        for entry in entries.iter().filter(|entry| entry.stored == OPEN) {
            by_recipient.entry(&entry.recipient).or_default().push(entry);
        }
        let asks = by_recipient.into_iter().map(|(recipient, entries)| async move {
            let keys = InboxKeys::new(recipient);
            let mut states = Vec::with_capacity(entries.len());
            for entries in entries.chunks(FATES) {
                let questions: Vec<u8> = entries.iter().flat_map(|entry| entry.question).collect();
                let args = vec![self.keep(), Value::Bytes(questions.into())];
                let letters = self.call(Operation::Fates, keys.bucket, keys.all(), args).await?;
                let letters =
                    letters.as_bytes().ok_or_else(|| contract("fates answered no text"))?;
                let each = entries.iter().enumerate();
                states.extend(each.map(|(i, entry)| (entry.id, state(letters.get(i)))));
            }
            Ok::<_, QueueError>(states)
        });
        let answers = futures_util::future::try_join_all(asks.collect::<Vec<_>>()).await?;
        Ok(answers.into_iter().flatten().collect())
    }

    async fn settle(
        &self,
        sender: &Inbox,
        settled: impl Iterator<Item = (MessageId, u8)>,
    ) -> Result<(), QueueError> {
        let keys = InboxKeys::new(sender);
        let mut args = vec![self.keep(), super::count(self.store.limits.ledger_entries)];
        for (id, state) in settled {
            args.push(bytes(id.as_bytes()));
            args.push(Value::Integer(i64::from(state)));
        }
        let names = vec![keys.meta(), keys.ledger()];
        self.call(Operation::LedgerSettle, keys.bucket, names, args).await?;
        Ok(())
    }

    pub(super) async fn ledger_entries(
        &self,
        sender: &Inbox,
    ) -> Result<Vec<LedgerEntry>, QueueError> {
        let (_now, mut entries) = self.read_ledger(sender, true).await?;
        if entries.len() as u64 > self.store.limits.ledger_entries {
            self.look_up(sender).await?; // drops what is settled
            (_, entries) = self.read_ledger(sender, true).await?;
        }
        let fates = self.fates(&entries).await?;
        let entries = entries.into_iter().map(|entry| {
            let state = match entry.stored {
                OPEN => fates.get(&entry.id).copied().unwrap_or(MessageState::Unknown),
                ACKNOWLEDGED => MessageState::Acknowledged,
                EXPIRED_UNTOLD | EXPIRED_TOLD => MessageState::Expired,
                _ => MessageState::Unknown,
            };
            let recipient = Address::of(&entry.recipient, sender.tenant());
            LedgerEntry { id: entry.id, recipient, sent_at_ms: entry.sent_at_ms, state }
        });
        Ok(entries.collect())
    }

    pub(super) async fn look_up(&self, sender: &Inbox) -> Result<Vec<Notice>, QueueError> {
        let (now, entries) = self.read_ledger(sender, false).await?;
        let fates = self.fates(&entries).await?;
        let stored = |entry: &Entry| match fates.get(&entry.id) {
            None => entry.stored,
            Some(MessageState::Acknowledged) => ACKNOWLEDGED,
            Some(MessageState::Expired) if entry.expires_ms <= now => EXPIRED_UNTOLD,
            Some(MessageState::Unknown) if entry.expires_ms <= now => UNKNOWN,
            Some(_) => OPEN,
        };
        self.settle(sender, entries.iter().map(|entry| (entry.id, stored(entry)))).await?;
        let newly = |entry: &&Entry| entry.stored == OPEN && stored(entry) == EXPIRED_UNTOLD;
        self.store.metrics.found_expired(entries.iter().filter(newly).count() as u64);
        let untold = entries.iter().filter(|entry| stored(entry) == EXPIRED_UNTOLD);
        let notices: Vec<_> = untold
            .map(|entry| Notice {
                id: entry.id,
                recipient: Address::of(&entry.recipient, sender.tenant()),
                sent_at_ms: entry.sent_at_ms,
            })
            .collect();
        Ok(notices)
    }

    pub(super) async fn settle_told(
        &self,
        sender: &Inbox,
        ids: &[MessageId],
    ) -> Result<(), QueueError> {
        self.settle(sender, ids.iter().map(|id| (*id, EXPIRED_TOLD))).await
    }
}
