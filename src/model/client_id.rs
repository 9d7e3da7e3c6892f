//! The id of a client. Without authentication it is a credential, so it never appears in logs.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize, Serializer};

/// 1-128 characters of `A-Z a-z 0-9 . _ - @ +`, so that no Redis key, hash tag, channel, header or
/// markdown can be broken by one.
///
/// `Debug` shows the length only. There is no `Display`: whoever needs the text says
/// [`expose`](Self::expose).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct ClientId(Arc<str>);

/// Why a text is not a client id. The text itself is not repeated: it may be somebody's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidClientId {
    /// Nothing but white space.
    #[error("must not be blank; use 1-128 characters of A-Z a-z 0-9 . _ - @ +")]
    Blank,
    /// Over 128 characters.
    #[error("is {0} characters long; use 1-128 characters of A-Z a-z 0-9 . _ - @ +")]
    TooLong(usize),
    /// A character outside the set.
    #[error("contains {0:?}; use 1-128 characters of A-Z a-z 0-9 . _ - @ +")]
    Forbidden(char),
}

impl ClientId {
    /// Longest id, in characters (all of them ASCII).
    pub const MAX_LEN: usize = 128;

    /// The id itself, for the store and for the client that owns it. Never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClientId {
    type Err = InvalidClientId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            return Err(InvalidClientId::Blank);
        }
        let allowed =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | '+');
        if let Some(bad) = text.chars().find(|&c| !allowed(c)) {
            return Err(InvalidClientId::Forbidden(bad));
        }
        if text.len() > Self::MAX_LEN {
            return Err(InvalidClientId::TooLong(text.len()));
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for ClientId {
    type Error = InvalidClientId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl Serialize for ClientId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientId({} characters)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_would_break_a_key_or_a_hash_tag_are_refused() {
        for bad in ["", "  ", "a b", "a{b}", "a:b", "a/b", "a\nb", "ä", "a*", &"x".repeat(129)] {
            assert!(bad.parse::<ClientId>().is_err(), "{bad:?}");
        }
        for good in ["a", "backend-team@host_1.x+y", &"x".repeat(128)] {
            assert!(good.parse::<ClientId>().is_ok(), "{good:?}");
        }
    }

    #[test]
    fn debug_does_not_show_the_id() {
        let id: ClientId = "secret-window".parse().unwrap();
        assert!(!format!("{id:?}").contains("secret"));
    }
}
