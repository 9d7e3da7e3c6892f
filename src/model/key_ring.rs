//! Secrets with names, several in force at once: what master keys, and the keys of the store, are given as.
//!
//! The name tells which one made something, so that an old one can go once nothing of it is left.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretSlice, SecretString};

/// Least bytes of a secret.
const LEAST: usize = 32;
/// Longest name of one.
const LONGEST_NAME: usize = 16;

/// The name of a key: 1-16 letters and digits. Not a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyName {
    text: [u8; LONGEST_NAME],
    len: u8,
}

impl KeyName {
    /// The name that these bytes are.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let good = !bytes.is_empty() && bytes.iter().all(u8::is_ascii_alphanumeric);
        let mut text = [0; LONGEST_NAME];
        text.get_mut(..bytes.len()).filter(|_| good)?.copy_from_slice(bytes);
        Some(Self { text, len: u8::try_from(bytes.len()).ok()? })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Letters and digits by construction.
        std::str::from_utf8(&self.text[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One key: its name, which stands in everything that it makes, and its secret.
#[derive(Debug)]
pub struct NamedKey {
    name: KeyName,
    secret: SecretSlice<u8>,
}

/// All that are in force, never none: the first makes what is new, and what any of them made is good.
#[derive(Debug)]
pub struct KeyRing(Vec<NamedKey>);

/// Why a text holds no keys. It is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeyRing {
    /// None at all.
    #[error("holds no key")]
    None,
    /// One of them is not `NAME:SECRET`.
    #[error(
        "must hold keys as NAME:SECRET, a name of 1-16 letters and digits and at least 32 bytes in unpadded \
         base64url; the {0}. is none"
    )]
    Form(usize),
    /// Two of one name.
    #[error("holds two keys of one name: the {0}. has the name of an earlier one")]
    Twice(usize),
}

impl NamedKey {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// Its secret bytes: at least 32. Never log them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.secret.expose_secret()
    }

    /// A random one, as it stands in a file. Its name begins with this letter.
    #[must_use]
    pub fn generate(letter: char) -> SecretString {
        let name: u32 = rand::random();
        let secret: [u8; LEAST] = rand::random();
        format!("{letter}{name:08x}:{}", URL_SAFE_NO_PAD.encode(secret)).into()
    }

    fn read(text: &str) -> Option<Self> {
        let (name, secret) = text.split_once(':')?;
        let name = KeyName::new(name.as_bytes())?;
        let secret = URL_SAFE_NO_PAD.decode(secret).ok()?;
        (secret.len() >= LEAST).then(|| Self { name, secret: secret.into() })
    }
}

impl KeyRing {
    /// The one that makes what is new.
    #[must_use]
    pub fn current(&self) -> &NamedKey {
        &self.0[0]
    }

    /// All of them, the current one first.
    pub fn iter(&self) -> impl Iterator<Item = &NamedKey> {
        self.0.iter()
    }

    /// The one of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&NamedKey> {
        self.0.iter().find(|key| key.name.as_str() == name)
    }
}

/// One a line, or separated by commas; lines that begin with `#` are comments.
impl FromStr for KeyRing {
    type Err = InvalidKeyRing;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let words = lines.flat_map(|line| line.split(',')).map(str::trim);
        let mut keys: Vec<NamedKey> = Vec::new();
        for (index, word) in words.filter(|word| !word.is_empty()).enumerate() {
            let key = NamedKey::read(word).ok_or(InvalidKeyRing::Form(index + 1))?;
            if keys.iter().any(|known| known.name == key.name) {
                return Err(InvalidKeyRing::Twice(index + 1));
            }
            keys.push(key);
        }
        if keys.is_empty() { Err(InvalidKeyRing::None) } else { Ok(Self(keys)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_generated_can_be_read_and_is_different_each_time() {
        let (one, other) = (NamedKey::generate('k'), NamedKey::generate('k'));
        assert_ne!(one.expose_secret(), other.expose_secret());
        let text = format!("{}\n\n# an older one\n{},", one.expose_secret(), other.expose_secret());
        let keys: KeyRing = text.parse().unwrap();
        assert!(one.expose_secret().starts_with(&format!("{}:", keys.current().name())));
        let name = other.expose_secret().split(':').next().unwrap();
        assert_eq!(keys.get(name).unwrap().expose().len(), 32);
        assert!(keys.get("").is_none());
    }

    #[test]
    fn a_name_is_what_it_was_made_of() {
        for good in ["a", "Key2026", "abcdefghijklmnop"] {
            let name = KeyName::new(good.as_bytes()).unwrap();
            assert_eq!(
                (name.as_str(), format!("{name} {name:?}")),
                (good, format!("{good} {good}"))
            );
        }
        for bad in [&b""[..], b"a b", b"a\n", b"\xff", b"abcdefghijklmnopq"] {
            assert_eq!(KeyName::new(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_none_is_refused_and_not_repeated() {
        let good = NamedKey::generate('k');
        let good = good.expose_secret();
        for (text, why) in [
            ("", InvalidKeyRing::None),
            (" ,\n# m1:AAAA\n", InvalidKeyRing::None),
            ("hunter2", InvalidKeyRing::Form(1)),
            ("m1:c2hvcnQ", InvalidKeyRing::Form(1)),
            (&format!(":{}", "A".repeat(43)), InvalidKeyRing::Form(1)),
            (&format!("a/b:{}", "A".repeat(43)), InvalidKeyRing::Form(1)),
            (&format!("{}:{}", "a".repeat(17), "A".repeat(43)), InvalidKeyRing::Form(1)),
            (&format!("{good},hunter2"), InvalidKeyRing::Form(2)),
            (&format!("{good},{good}"), InvalidKeyRing::Twice(2)),
        ] {
            let refused = text.parse::<KeyRing>().unwrap_err();
            assert_eq!(refused, why, "{text}");
            assert!(!refused.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = NamedKey::generate('k');
        let keys: KeyRing = text.expose_secret().parse().unwrap();
        let secret = text.expose_secret().split(':').nth(1).unwrap();
        let shown = format!("{keys:?} {text:?}");
        assert!(
            !shown.contains(secret) && !shown.contains(&format!("{:?}", keys.current().expose()))
        );
    }
}
