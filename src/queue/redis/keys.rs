//! Every name in Redis. `migrations/KEYSPACE.md` says what stands under each.

use std::{array, sync::LazyLock};

use fred::{bytes::Bytes, types::Value};

use crate::{
    model::{Inbox, MessageId, Tenant},
    queue::{CallKey, TaskId, Topic},
};

/// Inboxes are spread over this many buckets. Fixed for the life of contract 1: a bucket is the hash
/// tag of all its keys and the name of its wake channel.
pub(super) const BUCKETS: u16 = 256;

/// The bucket of a name.
pub(super) fn bucket_of(name: &[u8]) -> u8 {
    // Below 256 by the mask, which for a power of two is the remainder.
    (crc16::State::<crc16::XMODEM>::calculate(name) & (BUCKETS - 1)).to_be_bytes()[1]
}

/// What all names of a bucket begin with, and its slot: every call needs both.
static OF_BUCKET: LazyLock<[(Box<str>, u16); BUCKETS as usize]> = LazyLock::new(|| {
    array::from_fn(|bucket| (format!("mb1:{{b{bucket}}}:").into(), slot_of(&format!("b{bucket}"))))
});

fn begin(bucket: u8) -> &'static str {
    &OF_BUCKET[usize::from(bucket)].0
}

/// The wake channel of a bucket.
pub(super) fn channel(bucket: u8) -> String {
    format!("{}ch", begin(bucket))
}

/// The index of a bucket's inboxes.
pub(super) fn index(bucket: u8) -> String {
    format!("{}i", begin(bucket))
}

/// The key that says which process counts what lies in the store, and its slot.
pub(super) fn surveyor() -> (String, u16) {
    ("mb1:{survey}:h".to_owned(), slot_of("survey"))
}

/// The lock of who loads the functions, and its slot.
pub(super) fn loading() -> (String, u16) {
    ("mb1:{load}:l".to_owned(), slot_of("load"))
}

/// The hash slot of a bucket in a Redis Cluster.
pub(super) fn slot(bucket: u8) -> u16 {
    OF_BUCKET[usize::from(bucket)].1
}

/// The hash slot of a tag.
fn slot_of(tag: &str) -> u16 {
    crc16::State::<crc16::XMODEM>::calculate(tag.as_bytes()) % 16384
}

/// The last letters of the keys of an inbox, in the order in which they stand in [`InboxKeys`].
const PARTS: &[u8; 6] = b"qmwrxl";

/// The keys of one inbox, in one buffer: each is a slice of it, which costs no allocation, and
/// neither do the copies that the client library makes of it.
pub(super) struct InboxKeys {
    /// Its bucket.
    pub(super) bucket: u8,
    buffer: Bytes,
    /// How long each key is.
    len: usize,
}

impl InboxKeys {
    pub(super) fn new(inbox: &Inbox) -> Self {
        let name = inbox.name().as_bytes();
        let bucket = bucket_of(name);
        let begin = begin(bucket).as_bytes();
        let len = begin.len() + name.len() + 2;
        let mut buffer = Vec::with_capacity(len * PARTS.len());
        for part in PARTS {
            buffer.extend_from_slice(begin);
            buffer.extend_from_slice(name);
            buffer.extend_from_slice(&[b':', *part]);
        }
        Self { bucket, buffer: buffer.into(), len }
    }

    fn key(&self, position: usize) -> Value {
        Value::Bytes(self.buffer.slice(position * self.len..(position + 1) * self.len))
    }

    /// List: header, body, header, body ...
    pub(super) fn queue(&self) -> Value {
        self.key(0)
    }
    /// Hash: counters, lease, presence.
    pub(super) fn meta(&self) -> Value {
        self.key(1)
    }
    /// Hash: open waits and questions handed out.
    pub(super) fn waits(&self) -> Value {
        self.key(2)
    }
    /// Hash: parked replies.
    pub(super) fn replies(&self) -> Value {
        self.key(3)
    }
    /// List: exceptions to the acknowledged stamp.
    pub(super) fn exceptions(&self) -> Value {
        self.key(4)
    }
    /// List: the ledger of what its owner sent.
    pub(super) fn ledger(&self) -> Value {
        self.key(5)
    }
    /// String: an idempotency marker.
    pub(super) fn marker(&self, key: &[u8; 16]) -> Value {
        let prefix = &self.buffer[..self.len - 1];
        Value::Bytes([prefix, b"d:", key].concat().into())
    }

    /// Hash: of which pauses its owner is to be told.
    pub(super) fn pauses(&self) -> Value {
        let prefix = &self.buffer[..self.len - 1];
        Value::Bytes([prefix, b"p"].concat().into())
    }

    /// `q m w r x`, the order in which the functions take them.
    pub(super) fn all(&self) -> Vec<Value> {
        vec![self.queue(), self.meta(), self.waits(), self.replies(), self.exceptions()]
    }
}

/// The directory of a tenant: by whom (sorted set), what (hash), and their slot.
pub(super) fn directory(tenant: &Tenant) -> (Vec<Value>, u16) {
    let tag = format!("t:{}", tenant.as_str());
    let key = |part: &str| Value::String(format!("mb1:{{{tag}}}:{part}").into());
    (vec![key("z"), key("p")], slot_of(&tag))
}

/// The pairs of a tenant that are paused (hash), and its slot.
pub(super) fn paused_pairs(tenant: &Tenant) -> (Value, u16) {
    let tag = format!("t:{}", tenant.as_str());
    (Value::String(format!("mb1:{{{tag}}}:pauses").into()), slot_of(&tag))
}

/// The key of what is left of a rate, and its bucket.
pub(super) fn permits(of: &crate::queue::Bucket) -> (Value, u8) {
    let bucket = bucket_of(of.name().as_bytes());
    (Value::String(format!("{}g:{}", begin(bucket), of.name()).into()), bucket)
}

/// A hash of what is known of a tenant, and its slot. `k`: keys that are refused; `i`: keys that were issued; `t`:
/// the team.
pub(super) fn credentials(tenant: &Tenant, part: &str) -> (Value, u16) {
    let tag = format!("k:{}", tenant.as_str());
    (Value::String(format!("mb1:{{{tag}}}:{part}").into()), slot_of(&tag))
}

/// The key that marks a call as cancelled, and its bucket.
pub(super) fn cancelled(call: &CallKey) -> (Value, u8) {
    let bucket = bucket_of(call.as_bytes());
    (Value::String(format!("{}c:{}", begin(bucket), hex(call.as_bytes())).into()), bucket)
}

/// A fresh id of a task of this inbox: its first byte is the bucket, so that it is found by its id alone.
pub(super) fn new_task(inbox: &Inbox) -> TaskId {
    TaskId::in_shard(bucket_of(inbox.name().as_bytes()))
}

/// The key of a task, and its bucket.
pub(super) fn task(id: &TaskId) -> (Value, u8) {
    let (bucket, secret) = id.parts();
    (Value::String(format!("{}t:{}", begin(bucket), hex(secret)).into()), bucket)
}

/// The name of a topic inside a replica, and the bucket whose channel carries its wake-ups.
pub(super) fn topic(topic: &Topic) -> (String, u8) {
    match topic {
        Topic::Inbox(inbox) | Topic::News(inbox) => {
            (format!("q{}", inbox.name()), bucket_of(inbox.name().as_bytes()))
        }
        Topic::Reply(inbox, wait) => {
            (reply_topic(wait, inbox.name()), bucket_of(inbox.name().as_bytes()))
        }
        Topic::Call(call) => (call_topic(call), bucket_of(call.as_bytes())),
    }
}

/// Letters of a wait in the name of its topic.
const WAIT_LEN: usize = 36;

fn reply_topic(wait: &MessageId, inbox: &str) -> String {
    format!("r{wait}{inbox}")
}

/// The topic of a call, which is also its wake-up's payload.
pub(super) fn call_topic(call: &CallKey) -> String {
    format!("c{}", hex(call.as_bytes()))
}

/// The topic that a wake-up on a bucket's channel is for; `None` for what is not ours.
pub(super) fn woken(payload: &[u8]) -> Option<String> {
    let (kind, rest) = payload.split_first()?;
    match kind {
        b'q' | b'c' | b'p' => std::str::from_utf8(payload).ok().map(str::to_owned),
        b'r' => {
            let (wait, inbox) = rest.split_first_chunk::<16>()?;
            Some(reply_topic(&MessageId::from_bytes(*wait), std::str::from_utf8(inbox).ok()?))
        }
        _ => None,
    }
}

/// The topic of the inbox that a reply's topic is of.
pub(super) fn inbox_of_reply(topic: &str) -> Option<String> {
    let rest = topic.strip_prefix('r')?;
    Some(format!("q{}", rest.get(WAIT_LEN..)?))
}

/// What a topic watches, for the safety poll: the inbox and, for a reply, the wait.
pub(super) fn watched(topic: &str) -> Option<(Inbox, Option<MessageId>)> {
    let rest = topic.get(1..)?;
    match topic.as_bytes().first()? {
        b'q' => Some((Inbox::from_name(rest)?, None)),
        b'r' => {
            let wait = rest.get(..WAIT_LEN)?.parse().ok()?;
            Some((Inbox::from_name(rest.get(WAIT_LEN..)?)?, Some(wait)))
        }
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a String does not fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox(id: &str) -> Inbox {
        Inbox::new(Tenant::default(), id.parse().unwrap())
    }

    #[test]
    fn keys_are_what_the_keyspace_document_says() {
        let keys = InboxKeys::new(&inbox("alice"));
        let bucket = keys.bucket;
        assert_eq!(bucket, bucket_of(b"default/alice"));
        assert_eq!(keys.queue().as_str().unwrap(), format!("mb1:{{b{bucket}}}:default/alice:q"));
        assert_eq!(channel(bucket), format!("mb1:{{b{bucket}}}:ch"));
        // The functions find the channel in a key.
        assert!(keys.queue().as_str().unwrap().starts_with(channel(bucket).trim_end_matches("ch")));
        let marker = keys.marker(b"0123456789abcdef");
        assert_eq!(
            marker.as_str().unwrap(),
            format!("mb1:{{b{bucket}}}:default/alice:d:0123456789abcdef")
        );
    }

    #[test]
    fn a_task_stands_in_the_slot_of_its_inbox() {
        let alice = inbox("alice");
        let (key, bucket) = task(&new_task(&alice));
        assert_eq!(bucket, InboxKeys::new(&alice).bucket);
        let key = key.as_str().unwrap();
        assert!(key.starts_with(&format!("mb1:{{b{bucket}}}:t:")) && !key.contains("alice"));
    }

    #[test]
    fn the_bucket_of_a_name_never_changes() {
        // Pinned: a change would strand every inbox of a running deployment.
        assert_eq!(bucket_of(b"default/alice"), 0x04);
        assert_eq!(bucket_of(b"default/bob"), 0xaf);
    }

    #[test]
    fn a_topic_is_what_its_wake_up_names() {
        let (alice, wait) = (inbox("alice"), MessageId::new());
        let (name, _) = topic(&Topic::Inbox(alice.clone()));
        assert_eq!(woken(b"qdefault/alice"), Some(name.clone()));
        assert_eq!(watched(&name), Some((alice.clone(), None)));
        let (name, _) = topic(&Topic::Reply(alice.clone(), wait));
        let payload = [b"r", &wait.as_bytes()[..], b"default/alice"].concat();
        assert_eq!(woken(&payload), Some(name.clone()));
        assert_eq!(watched(&name), Some((alice, Some(wait))));
        assert_eq!(inbox_of_reply(&name).as_deref(), Some("qdefault/alice"));
        assert_eq!(inbox_of_reply("qdefault/rita"), None);
        assert_eq!(woken(b""), None);
        assert_eq!(woken(b"rshort"), None);
    }
}
