//! The keys of clients.
//!
//! `mbk_<content>.<mac>`, both in unpadded base64url. The content is
//! `1/<master key>/<tenant>/<client or client.*>/<scopes>/<generation>/<expires>/<id>`, and the MAC is
//! HMAC-SHA256 under the master key over everything before the dot, as it was written. So a key is
//! checked without a look at any store, and nothing in it can be changed.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::SecretString;
use sha2::Sha256;

use super::{MasterKey, MasterKeys};
use crate::{
    model::{Grant, Scope, Scopes, Tenant},
    queue::KeyId,
};

/// What every key begins with, for people and for programs that look for leaked ones.
const PREFIX: &str = "mbk_";
/// The layout of the content.
const VERSION: &str = "1";
/// Longest key that is looked at.
const LONGEST: usize = 1024;

/// What a key proves.
#[derive(Clone)]
pub struct ApiKey {
    /// Its name.
    pub id: KeyId,
    /// Whose team.
    pub tenant: Tenant,
    /// Which clients.
    pub grant: Grant,
    /// What they may.
    pub scopes: Scopes,
    /// Rotation and revocation count these up.
    pub generation: u32,
    /// Seconds since the Unix epoch; `None`: never.
    pub expires_at: Option<u64>,
}

/// Why a text is not a key. Nothing of this reaches who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadKey {
    /// Not of the form of one.
    Malformed,
    /// Made with a master key that is not in force.
    UnknownMaster,
    /// Not made with the master key that it names, or changed.
    WrongMac,
}

impl ApiKey {
    /// A key with a fresh id.
    #[must_use]
    pub fn new(
        tenant: Tenant,
        grant: Grant,
        scopes: Scopes,
        generation: u32,
        expires_at: Option<u64>,
    ) -> Self {
        Self { id: KeyId::random(), tenant, grant, scopes, generation, expires_at }
    }

    /// The key as its holder sends it.
    #[must_use]
    pub fn seal(&self, master: &MasterKey) -> SecretString {
        let content = format!(
            "{VERSION}/{}/{}/{}/{}/{}/{}/{}",
            master.name(),
            self.tenant.as_str(),
            self.grant.expose(),
            letters(self.scopes),
            self.generation,
            self.expires_at.unwrap_or_default(),
            self.id,
        );
        let signed = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(content));
        let mac = mac(master, &signed).finalize().into_bytes();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac)).into()
    }

    /// What a key proves, if it was made with one of `masters`. It may have expired or been revoked.
    ///
    /// # Errors
    /// [`BadKey`].
    pub fn open(text: &str, masters: &MasterKeys) -> Result<Self, BadKey> {
        if text.len() > LONGEST {
            return Err(BadKey::Malformed);
        }
        let (signed, given) = text.split_once('.').ok_or(BadKey::Malformed)?;
        let content = signed.strip_prefix(PREFIX).ok_or(BadKey::Malformed)?;
        let decode = |text| URL_SAFE_NO_PAD.decode(text).map_err(|_| BadKey::Malformed);
        let (content, given) = (decode(content)?, decode(given)?);
        let content = std::str::from_utf8(&content).map_err(|_| BadKey::Malformed)?;
        let mut parts = content.split('/');
        let (Some(VERSION), Some(master)) = (parts.next(), parts.next()) else {
            return Err(BadKey::Malformed);
        };
        let master = masters.get(master).ok_or(BadKey::UnknownMaster)?;
        // In constant time.
        mac(master, signed).verify_slice(&given).map_err(|_| BadKey::WrongMac)?;
        Self::read(parts).ok_or(BadKey::Malformed)
    }

    /// The parts after the name of the master key.
    fn read<'a>(mut parts: impl Iterator<Item = &'a str>) -> Option<Self> {
        let tenant = parts.next()?.parse().ok()?;
        let grant = parts.next()?.parse().ok()?;
        let scopes = scopes(parts.next()?)?;
        let generation = parts.next()?.parse().ok()?;
        let expires_at = Some(parts.next()?.parse().ok()?).filter(|seconds| *seconds > 0);
        let id = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(Self { id, tenant, grant, scopes, generation, expires_at })
    }
}

impl fmt::Debug for ApiKey {
    /// Its id only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Whether the query of a URL has a key, or the parameter in which RFC 6750 once allowed one.
#[must_use]
pub fn is_in_query(query: &str) -> bool {
    query.split('&').any(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or(("", parameter));
        value.starts_with(PREFIX) || name.eq_ignore_ascii_case("access_token")
    })
}

fn mac(master: &MasterKey, signed: &str) -> Hmac<Sha256> {
    let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(master.expose());
    let Ok(mut mac) = mac else { unreachable!("HMAC takes keys of every length") };
    mac.update(signed.as_bytes());
    mac
}

/// A letter for each scope.
fn letter(scope: Scope) -> char {
    match scope {
        Scope::Read => 'r',
        Scope::Send => 's',
        Scope::Admin => 'a',
    }
}

fn letters(scopes: Scopes) -> String {
    scopes.iter().map(letter).collect()
}

fn scopes(letters: &str) -> Option<Scopes> {
    let scope = |found| Scope::ALL.into_iter().find(|scope| letter(*scope) == found);
    letters.chars().map(scope).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    fn masters() -> MasterKeys {
        MasterKey::generate('m').expose_secret().parse().unwrap()
    }

    fn key(grant: &str) -> ApiKey {
        let scopes = "read,admin".parse().unwrap();
        ApiKey::new(
            "acme-2".parse().unwrap(),
            grant.parse().unwrap(),
            scopes,
            7,
            Some(1_900_000_000),
        )
    }

    #[test]
    fn what_a_key_proves_is_what_it_was_made_for() {
        let masters = masters();
        for grant in ["alice", "a.b@c+d_e-1", "alice.*"] {
            let key = key(grant);
            let sealed = key.seal(masters.current());
            let sealed = sealed.expose_secret();
            assert!(sealed.starts_with("mbk_") && !sealed.contains(['/', '+', '=', ' ']));
            let opened = ApiKey::open(sealed, &masters).unwrap();
            assert_eq!((opened.id, opened.grant.expose().as_str()), (key.id, grant));
            assert_eq!((opened.tenant, opened.scopes), (key.tenant, key.scopes));
            assert_eq!((opened.generation, opened.expires_at), (7, Some(1_900_000_000)));
        }
        let eternal = ApiKey { expires_at: None, ..key("alice") };
        let sealed = eternal.seal(masters.current());
        assert_eq!(ApiKey::open(sealed.expose_secret(), &masters).unwrap().expires_at, None);
    }

    #[test]
    fn a_key_in_which_one_character_differs_is_none() {
        let masters = masters();
        let sealed = key("alice").seal(masters.current());
        let sealed = sealed.expose_secret();
        for at in 0..sealed.len() {
            let other = if sealed.as_bytes()[at] == b'A' { "B" } else { "A" };
            let mut changed = sealed.to_owned();
            changed.replace_range(at..=at, other);
            assert!(ApiKey::open(&changed, &masters).is_err(), "{at}: {changed}");
        }
        for cut in 0..sealed.len() {
            assert!(ApiKey::open(&sealed[..cut], &masters).is_err(), "{cut}");
        }
        for more in ["A", ".", ".A", "=", " "] {
            assert!(ApiKey::open(&format!("{sealed}{more}"), &masters).is_err(), "{more:?}");
        }
    }

    #[test]
    fn a_mac_of_other_content_or_of_another_master_key_is_wrong() {
        let masters = masters();
        let sealed = [key("alice"), key("bob")].map(|key| key.seal(masters.current()));
        let [alice, bob] =
            sealed.each_ref().map(|sealed| sealed.expose_secret().split_once('.').unwrap());
        let swapped = format!("{}.{}", alice.0, bob.1);
        assert_eq!(ApiKey::open(&swapped, &masters).unwrap_err(), BadKey::WrongMac);
        let short = format!("{}.{}", alice.0, &alice.1[..40]);
        assert_eq!(ApiKey::open(&short, &masters).unwrap_err(), BadKey::WrongMac);
        let stranger: MasterKeys =
            format!("{}:{}", masters.current().name(), "A".repeat(43)).parse().unwrap();
        let forged = key("alice").seal(stranger.current());
        assert_eq!(ApiKey::open(forged.expose_secret(), &masters).unwrap_err(), BadKey::WrongMac);
        let other: MasterKeys = format!("other:{}", "A".repeat(43)).parse().unwrap();
        let foreign = key("alice").seal(other.current());
        assert_eq!(
            ApiKey::open(foreign.expose_secret(), &masters).unwrap_err(),
            BadKey::UnknownMaster
        );
    }

    #[test]
    fn debug_shows_its_id_only() {
        let key = key("secret-window");
        let shown = format!("{key:?}");
        assert!(!shown.contains("secret") && !shown.contains("acme"), "{shown}");
    }

    proptest! {
        #[test]
        fn any_text_is_refused_without_a_panic(text in ".{0,200}", token in "mbk_[A-Za-z0-9_-]{0,80}\\.[A-Za-z0-9_-]{0,50}") {
            let masters = masters();
            prop_assert!(ApiKey::open(&text, &masters).is_err());
            prop_assert!(ApiKey::open(&token, &masters).is_err());
        }
    }
}
