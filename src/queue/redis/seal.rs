//! Texts as they lie in Redis when they are sealed: encrypted, and bound to the message that they belong to.
//!
//! AES-256-GCM-SIV (RFC 8452) with random nonces. Many replicas that know nothing of each other draw them,
//! and nobody counts the messages of a key: with plain GCM two equal nonces would give its authentication
//! away, and 2^32 messages would be the limit of a key. With SIV an equal nonce shows only that two messages
//! are equal, and they never are: each has its own id in what is authenticated.
//!
//! A sealed text: `0xff` (no UTF-8 text has that byte), format u8 = 1, length u8 and name of the key, nonce 12,
//! ciphertext, tag 16. Authenticated with it: the format, the recipient's inbox, the id, the flags that the
//! sender set, and the tail of the header (the sender, what it answers, its trace). So who writes in Redis
//! cannot move a text to another inbox, message or sender, nor make its sender a proved one.
//!
//! Not here: what is not a text. Names, times, sizes and the order stay readable and can be changed.

use std::{iter, sync::Arc};

use aes_gcm_siv::{
    Aes256GcmSiv, KeyInit,
    aead::{Aead, Payload},
};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::record::{COPY, Reader};
use crate::{
    model::{Inbox, KeyName, KeyRing, NamedKey},
    queue::{NewMessage, Unreadable},
};

const SEALED: u8 = 0xff;
const FORMAT: u8 = 1;
const NONCE: usize = 12;
const TAG: usize = 16;

/// What is done with texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealing {
    /// They are stored as they are; sealed ones are opened. The first step on the way in, and the last out.
    Open,
    /// They are sealed; plain ones that lie there are read.
    Seal,
    /// They are sealed; a plain one is nobody's word, and not read.
    Require,
}

/// How texts are sealed and opened. By default they are neither. Cheap to clone; the keys are wiped with the
/// last one.
#[derive(Clone, Default)]
pub struct Seal(Option<Arc<Keys>>);

struct Keys {
    ring: Vec<Key>,
    sealing: Sealing,
}

struct Key {
    name: KeyName,
    cipher: Aes256GcmSiv,
    digest: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Seal {
    /// Without keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sealing = self.0.as_ref().map(|keys| keys.sealing);
        f.debug_struct("Seal").field("sealing", &sealing).finish_non_exhaustive()
    }
}

/// A key for one purpose: HKDF-Expand (RFC 5869) of a uniformly random secret, one block.
fn derived(key: &NamedKey, purpose: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut block = mac(key.expose());
    block.update(purpose);
    block.update(&[1]);
    Zeroizing::new(block.finalize().into_bytes().into())
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    let Ok(mac) = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key) else {
        unreachable!("HMAC takes keys of every length")
    };
    mac
}

impl Key {
    fn new(key: &NamedKey) -> Self {
        Self {
            name: *key.name(),
            cipher: Aes256GcmSiv::new((&*derived(key, b"mcp-messaging text 1")).into()),
            digest: derived(key, b"mcp-messaging digest 1"),
        }
    }

    fn digest(&self, message: &NewMessage) -> [u8; 16] {
        let mut mac = mac(&*self.digest);
        for part in message.content() {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        digest
    }
}

/// The message that a text belongs to: what is authenticated beside it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// Whose inbox it is in, or for whose wait it is parked.
    pub(super) inbox: &'a Inbox,
    /// Its id.
    pub(super) id: &'a [u8; 16],
    /// The flags of its header.
    pub(super) flags: u8,
    /// The tail of its header.
    pub(super) tail: &'a [u8],
}

impl Place<'_> {
    /// Every part but the last has a fixed length or says its own. The store itself sets the flag of a copy.
    fn bytes(&self) -> Vec<u8> {
        let inbox = self.inbox.name().as_bytes();
        let mut bytes = Vec::with_capacity(32 + inbox.len() + self.tail.len());
        bytes.push(FORMAT);
        bytes.extend_from_slice(&(inbox.len() as u64).to_be_bytes());
        bytes.extend_from_slice(inbox);
        bytes.extend_from_slice(self.id);
        bytes.push(self.flags & !COPY);
        bytes.extend_from_slice(self.tail);
        bytes
    }
}

impl Seal {
    /// With these keys: the first one seals, all of them open.
    #[must_use]
    pub fn new(keys: &KeyRing, sealing: Sealing) -> Self {
        let ring = keys.iter().map(Key::new).collect();
        Self(Some(Arc::new(Keys { ring, sealing })))
    }

    /// The key that new texts are sealed with, if they are.
    fn current(&self) -> Option<&Key> {
        let keys = self.0.as_ref()?;
        match keys.sealing {
            Sealing::Open => None,
            Sealing::Seal | Sealing::Require => keys.ring.first(),
        }
    }

    /// A text as it is to be stored.
    pub(super) fn sealed(&self, text: &str, place: Place) -> Vec<u8> {
        let Some(key) = self.current() else { return text.as_bytes().to_vec() };
        let name = key.name.as_str().as_bytes();
        let nonce: [u8; NONCE] = rand::random();
        let payload = Payload { msg: text.as_bytes(), aad: &place.bytes() };
        let Ok(ciphertext) = key.cipher.encrypt(&nonce.into(), payload) else {
            unreachable!("only a text of 64 GB cannot be encrypted")
        };
        let mut sealed = Vec::with_capacity(3 + name.len() + NONCE + ciphertext.len());
        // A name is at most 16 bytes.
        sealed.extend_from_slice(&[SEALED, FORMAT, u8::try_from(name.len()).unwrap_or(u8::MAX)]);
        sealed.extend_from_slice(name);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&ciphertext);
        sealed
    }

    /// The text that was stored.
    pub(super) fn opened(&self, stored: &[u8], place: Place) -> Result<String, Unreadable> {
        if stored.first() != Some(&SEALED) {
            return match &self.0 {
                Some(keys) if keys.sealing == Sealing::Require => Err(Unreadable::Plain),
                Some(_) | None => {
                    let text = std::str::from_utf8(stored).map_err(|_| Unreadable::Broken)?;
                    Ok(text.to_owned())
                }
            };
        }
        let mut reader = Reader(&stored[1..]);
        let parts = (|| {
            let [FORMAT, len] = reader.take::<2>()? else { return None };
            let name = KeyName::new(reader.bytes(usize::from(len))?)?;
            let nonce = reader.take::<NONCE>()?;
            (reader.0.len() >= TAG).then_some((name, nonce))
        })();
        let (name, nonce) = parts.ok_or(Unreadable::Broken)?;
        let keys = self.0.as_ref().map_or(&[][..], |keys| &keys.ring);
        let key = keys.iter().find(|key| key.name == name).ok_or(Unreadable::NoKey(name))?;
        let payload = Payload { msg: reader.0, aad: &place.bytes() };
        let opened = key.cipher.decrypt(&nonce.into(), payload);
        // What opens was a text when it was sealed.
        opened.ok().and_then(|text| String::from_utf8(text).ok()).ok_or(Unreadable::Changed(name))
    }

    /// What stands for a message's content under an idempotency key: first what is stored, then what replicas
    /// with another first key, or without one, may have stored. A plain digest of a short text can be guessed,
    /// so it is keyed where texts are sealed.
    pub(super) fn digests(&self, message: &NewMessage) -> impl Iterator<Item = [u8; 16]> {
        let (ring, sealing) =
            self.0.as_ref().map_or((&[][..], Sealing::Open), |keys| (&keys.ring, keys.sealing));
        let plain = move |when| (sealing == when).then(|| message.content_digest());
        let keyed = ring.iter().map(|key| key.digest(message));
        iter::once_with(move || plain(Sealing::Open))
            .flatten()
            .chain(keyed)
            .chain(iter::once_with(move || plain(Sealing::Seal)).flatten())
    }
}
