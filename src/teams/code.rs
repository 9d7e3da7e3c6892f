//! Join codes: `mbj_<team>.<secret>`.

use std::fmt::Write as _;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::model::Tenant;

/// What every code begins with, for people and for programs that look for leaked ones.
const PREFIX: &str = "mbj_";
/// Bytes of chance in a code: 192 bits cannot be guessed.
const SECRET: usize = 24;

/// What lets somebody join a team, once.
pub struct JoinCode {
    tenant: Tenant,
    text: SecretString,
}

impl JoinCode {
    /// A fresh one.
    #[must_use]
    pub fn new(tenant: &Tenant) -> Self {
        let secret: [u8; SECRET] = rand::random();
        let text = format!("{PREFIX}{}.{}", tenant.as_str(), URL_SAFE_NO_PAD.encode(secret));
        Self { tenant: tenant.clone(), text: text.into() }
    }

    /// The code in a text, which need not be one that was made. `None`: it cannot be.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        let (tenant, secret) = text.strip_prefix(PREFIX)?.rsplit_once('.')?;
        let secret = URL_SAFE_NO_PAD.decode(secret).ok()?;
        let tenant = tenant.parse().ok()?;
        (secret.len() == SECRET).then(|| Self { tenant, text: text.into() })
    }

    /// Which team it would let in to.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The code, for whom it was made.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    /// What is kept of it. As nobody can try 2^192 codes, it needs neither salt nor a slow hash.
    #[must_use]
    pub fn digest(&self) -> String {
        Sha256::digest(self.expose()).iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_can_be_read_and_no_two_are_the_same() {
        let tenant: Tenant = "acme.eu_1".parse().unwrap();
        let (one, other) = (JoinCode::new(&tenant), JoinCode::new(&tenant));
        let read = JoinCode::read(&format!(" {}\n", one.expose())).unwrap();
        assert_eq!((read.tenant(), read.digest()), (&tenant, one.digest()));
        assert_eq!(one.digest().len(), 64);
        assert_ne!(one.digest(), other.digest());
        assert!(!one.digest().contains(one.expose().rsplit('.').next().unwrap()));
        for bad in
            ["", "mbj_", "mbj_acme", "mbj_acme.", "mbj_acme.c2hvcnQ", "mbk_acme.x", "mbj_a b.x"]
        {
            assert!(JoinCode::read(bad).is_none(), "{bad}");
        }
        let longer = format!("{}AAAA", one.expose());
        assert!(JoinCode::read(&longer).is_none());
    }
}
