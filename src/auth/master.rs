//! Master keys: what the keys of clients are made and checked with.

use std::str::FromStr;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretSlice, SecretString};

/// Least secret bytes of a master key.
const LEAST: usize = 32;
/// Longest name of one.
const LONGEST_NAME: usize = 16;

/// One master key: its name, which stands in every key that it makes, and its secret.
#[derive(Debug)]
pub struct MasterKey {
    name: String,
    secret: SecretSlice<u8>,
}

/// All that are in force: new keys are made with the first, and those of all others are still good.
#[derive(Debug)]
pub struct MasterKeys(Vec<MasterKey>);

/// Why a text holds no master keys. It is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMasterKeys {
    /// None at all.
    #[error("holds no master key; `mcp-messaging keys master` makes one")]
    None,
    /// One of them is not `NAME:SECRET`.
    #[error(
        "must hold master keys as `mcp-messaging keys master` makes them: NAME:SECRET, a name of 1-16 letters and \
         digits and at least 32 bytes in unpadded base64url; the {0}. is none"
    )]
    Form(usize),
    /// Two of one name.
    #[error("holds two master keys of one name: the {0}. has the name of an earlier one")]
    Twice(usize),
}

impl MasterKey {
    /// Its name. Not a secret.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn secret(&self) -> &[u8] {
        self.secret.expose_secret()
    }

    /// A random one, as it stands in a file.
    #[must_use]
    pub fn generate() -> SecretString {
        let name: u32 = rand::random();
        let secret: [u8; LEAST] = rand::random();
        format!("m{name:08x}:{}", URL_SAFE_NO_PAD.encode(secret)).into()
    }

    fn read(text: &str) -> Option<Self> {
        let (name, secret) = text.split_once(':')?;
        let named = !name.is_empty()
            && name.len() <= LONGEST_NAME
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let secret = URL_SAFE_NO_PAD.decode(secret).ok()?;
        (named && secret.len() >= LEAST)
            .then(|| Self { name: name.to_owned(), secret: secret.into() })
    }
}

impl MasterKeys {
    /// The one that new keys are made with.
    #[must_use]
    pub fn current(&self) -> &MasterKey {
        &self.0[0]
    }

    /// The one of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&MasterKey> {
        self.0.iter().find(|key| key.name == name)
    }
}

/// One a line, or separated by commas; lines that begin with `#` are comments.
impl FromStr for MasterKeys {
    type Err = InvalidMasterKeys;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let words = lines.flat_map(|line| line.split(',')).map(str::trim);
        let mut keys: Vec<MasterKey> = Vec::new();
        for (index, word) in words.filter(|word| !word.is_empty()).enumerate() {
            let key = MasterKey::read(word).ok_or(InvalidMasterKeys::Form(index + 1))?;
            if keys.iter().any(|known| known.name == key.name) {
                return Err(InvalidMasterKeys::Twice(index + 1));
            }
            keys.push(key);
        }
        if keys.is_empty() { Err(InvalidMasterKeys::None) } else { Ok(Self(keys)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_generated_can_be_read_and_is_different_each_time() {
        let (one, other) = (MasterKey::generate(), MasterKey::generate());
        assert_ne!(one.expose_secret(), other.expose_secret());
        let text = format!("{}\n\n# an older one\n{},", one.expose_secret(), other.expose_secret());
        let keys: MasterKeys = text.parse().unwrap();
        assert!(one.expose_secret().starts_with(&format!("{}:", keys.current().name())));
        let name = other.expose_secret().split(':').next().unwrap();
        assert_eq!(keys.get(name).unwrap().secret().len(), 32);
        assert!(keys.get("").is_none());
    }

    #[test]
    fn what_is_none_is_refused_and_not_repeated() {
        let good = MasterKey::generate();
        let good = good.expose_secret();
        for (text, why) in [
            ("", InvalidMasterKeys::None),
            (" ,\n# m1:AAAA\n", InvalidMasterKeys::None),
            ("hunter2", InvalidMasterKeys::Form(1)),
            ("m1:c2hvcnQ", InvalidMasterKeys::Form(1)),
            (&format!(":{}", "A".repeat(43)), InvalidMasterKeys::Form(1)),
            (&format!("a/b:{}", "A".repeat(43)), InvalidMasterKeys::Form(1)),
            (&format!("{}:{}", "a".repeat(17), "A".repeat(43)), InvalidMasterKeys::Form(1)),
            (&format!("{good},hunter2"), InvalidMasterKeys::Form(2)),
            (&format!("{good},{good}"), InvalidMasterKeys::Twice(2)),
        ] {
            let refused = text.parse::<MasterKeys>().unwrap_err();
            assert_eq!(refused, why, "{text}");
            assert!(!refused.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = MasterKey::generate();
        let keys: MasterKeys = text.expose_secret().parse().unwrap();
        let secret = text.expose_secret().split(':').nth(1).unwrap();
        let shown = format!("{keys:?} {text:?}");
        assert!(
            !shown.contains(secret) && !shown.contains(&format!("{:?}", keys.current().secret()))
        );
    }
}
