//! Who calls: from the headers of a request to a [`Principal`].
//!
//! [`Authenticator`] is the one place that decides it. Mode `none` proves nothing and lets everybody in;
//! mode `key` reads keys that carry what they prove under a MAC ([`ApiKey`]), so that nothing has to be
//! looked up but what was revoked ([`Revoked`]); mode `oauth` reads tokens that an authorization server
//! signed ([`TokenCheck`]); mode `proxy` takes the word of a proxy that asks for certificates
//! ([`ProxyRules`]). A further mode is a further variant.
//!
//! Not here: what a principal may do. The protocol refuses what its scopes do not allow, and the mailbox
//! opens no inbox that is not its own.

mod key;
mod known;
mod oauth;
mod proxy;
mod revoked;

use std::{net::IpAddr, sync::Arc};

pub use key::{ApiKey, BadKey, is_in_query};
pub use known::Known;
pub use oauth::{
    Algorithm, BadToken, InvalidKeySet, KeySet, KeySource, Names, Provider, Resource, SigningKeys,
    TokenCheck, TokenRules, UnknownAlgorithm,
};
pub use proxy::{ClientName, InvalidName, ProxyRules};
pub use revoked::Revoked;

/// All master keys that are in force.
pub use crate::model::KeyRing as MasterKeys;
/// One master key: what keys of clients are made with.
pub use crate::model::NamedKey as MasterKey;

use crate::model::{Clock, Principal};

/// How requests are let in. Cheap to clone.
#[derive(Clone)]
pub enum Authenticator {
    /// Mode `none`: nobody has to prove anything.
    Open(Principal),
    /// Mode `key`.
    Keys(KeyCheck),
    /// Mode `oauth`.
    Tokens(TokenCheck),
    /// Mode `proxy`.
    Named(Arc<ProxyRules>),
}

/// What mode `key` needs to know.
#[derive(Clone)]
pub struct KeyCheck {
    /// The keys that keys are made with.
    pub masters: Arc<MasterKeys>,
    /// What is refused all the same.
    pub revoked: Revoked,
    /// When keys expire is told by this one.
    pub clock: Arc<dyn Clock>,
}

/// Who was let in, and by what.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// Who it is.
    pub principal: Principal,
    by: By,
}

/// By what somebody was let in.
#[derive(Debug, Clone)]
enum By {
    /// Nothing.
    Nothing,
    /// The word of a proxy, which it does not take back.
    Name,
    Key(Arc<ApiKey>),
    Token(Arc<oauth::Ends>),
}

/// Why a request was not let in. The texts are the same for everything that only a guess is told by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No credential.
    #[error(
        "this server serves holders of a key only: send the header Authorization: Bearer mbk_... (whoever runs \
         the server makes keys with `mcp-messaging keys issue`)"
    )]
    Missing,
    /// A credential that is none. For the caller all kinds of it look the same.
    #[error(
        "this is not a key of this server: send one that whoever runs it made with `mcp-messaging keys issue` as \
         Authorization: Bearer mbk_..."
    )]
    Invalid(BadKey),
    /// It was one until its time was over.
    #[error("this key has expired: ask whoever runs the server for a new one")]
    Expired,
    /// It was one until it was taken back.
    #[error("this key was revoked: ask whoever runs the server for a new one")]
    Revoked,
    /// Whether it was revoked cannot be found out now.
    #[error("whether this key is still good cannot be checked now; try again in a few seconds")]
    Unavailable,
    /// No access token.
    #[error(
        "this server serves holders of an access token only: send the header Authorization: Bearer ... with one of its \
         authorization server, which the document at resource_metadata (in WWW-Authenticate) names"
    )]
    NoToken,
    /// An access token that is none for this server.
    #[error("{}", oauth::told(*.0))]
    Token(BadToken),
    /// It was one until its time was over.
    #[error("this access token has expired: get a new one from the authorization server")]
    TokenExpired,
    /// A good token without any scope of this server.
    #[error(
        "this access token has no scope of this server: ask the authorization server for mailbox:read and mailbox:send"
    )]
    Unscoped,
    /// A good token that names nobody here.
    #[error("{}", oauth::nobody(*.dotted, *.instead))]
    NoClient {
        /// It would be below another id.
        dotted: bool,
        /// The claims that would do.
        instead: Names,
    },
    /// A good token of no tenant.
    #[error(
        "this access token is of no team: its claim that names one (oauth.tenant_claim) is missing or is not 1-64 \
         characters of A-Z a-z 0-9 . _ -; ask whoever runs the server"
    )]
    NoTenant,
    /// The keys of the authorization server cannot be had.
    #[error(
        "access tokens cannot be checked now: the keys of the authorization server cannot be had; try again in a few \
         seconds"
    )]
    NoSigningKeys,
    /// Nobody was named.
    #[error(
        "this server serves those whom its proxy names: come through the proxy, with your certificate"
    )]
    Unnamed,
    /// Somebody was named by who is no proxy of this server.
    #[error(
        "a client was named by an address that is no proxy of this server (proxy.trusted), so it is not believed: \
         come through the proxy, with your certificate"
    )]
    NotTheProxy,
    /// The proxy named several, or what is no name.
    #[error(
        "the proxy of this server named no client: it is to send one header with one name, such as alice, acme/alice \
         or acme/alice.*; tell whoever runs it"
    )]
    BadName,
}

impl Denied {
    /// Whether it was tried and is none. What the authorization server did sign is no guess, whatever it is
    /// good for: a token that has just expired is on its way to be renewed.
    #[must_use]
    pub fn may_be_a_guess(self) -> bool {
        match self {
            Self::Invalid(_) | Self::Expired | Self::Revoked | Self::Token(_) => true,
            Self::Missing
            | Self::Unavailable
            | Self::NoToken
            | Self::TokenExpired
            | Self::Unscoped
            | Self::NoClient { .. }
            | Self::NoTenant
            | Self::NoSigningKeys
            | Self::Unnamed
            | Self::NotTheProxy
            | Self::BadName => false,
        }
    }

    /// Whether the same credential may be good in a moment: what it takes to check it is not there.
    #[must_use]
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Unavailable | Self::NoSigningKeys)
    }

    /// Label for logs and metrics: a closed set.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Missing | Self::NoToken | Self::Unnamed => "missing",
            Self::Invalid(BadKey::Malformed) | Self::BadName => "malformed",
            Self::Invalid(BadKey::UnknownMaster) => "unknown_master_key",
            Self::Invalid(BadKey::WrongMac) => "wrong_mac",
            Self::Expired | Self::TokenExpired => "expired",
            Self::Revoked => "revoked",
            Self::Unavailable | Self::NoSigningKeys => "unavailable",
            Self::Token(bad) => bad.label(),
            Self::Unscoped => "no_scope",
            Self::NoClient { .. } => "no_client",
            Self::NoTenant => "no_tenant",
            Self::NotTheProxy => "not_the_proxy",
        }
    }
}

impl Authenticator {
    /// Mode `none`.
    #[must_use]
    pub fn open() -> Self {
        Self::Open(Principal::anyone())
    }

    /// Whether it asks for credentials that somebody could guess.
    #[must_use]
    pub fn may_be_guessed(&self) -> bool {
        match self {
            Self::Open(_) | Self::Named(_) => false,
            Self::Keys(_) | Self::Tokens(_) => true,
        }
    }

    /// The header by which requests are let in.
    #[must_use]
    pub fn header(&self) -> &str {
        match self {
            Self::Open(_) | Self::Keys(_) | Self::Tokens(_) => "authorization",
            Self::Named(rules) => &rules.header,
        }
    }

    /// Lets a request in by the values of its [`header`](Self::header), of which there may be one, and by the other end
    /// of its connection.
    ///
    /// # Errors
    /// [`Denied`].
    ///
    /// # Cancel safety
    /// Dropping the future lets nobody in, and changes nothing.
    pub async fn admit<'a>(
        &self,
        peer: Option<IpAddr>,
        mut values: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Admitted, Denied> {
        let mut credential = |missing, malformed| match (values.next(), values.next()) {
            (None, _) => Err(missing),
            (Some(value), None) => bearer(value).ok_or(malformed),
            (Some(_), Some(_)) => Err(malformed),
        };
        match self {
            Self::Open(principal) => Ok(Admitted { principal: principal.clone(), by: By::Nothing }),
            Self::Named(rules) => {
                Ok(Admitted { principal: rules.admit(peer, values)?, by: By::Name })
            }
            Self::Keys(check) => {
                let malformed = Denied::Invalid(BadKey::Malformed);
                check.admit(credential(Denied::Missing, malformed)?).await
            }
            Self::Tokens(check) => {
                let malformed = Denied::Token(BadToken::Malformed);
                let credential = credential(Denied::NoToken, malformed)?;
                let (principal, ends) = check.admit(credential).await?;
                Ok(Admitted { principal, by: By::Token(Arc::new(ends)) })
            }
        }
    }

    /// Whether who was let in is welcome still.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn still_admits(&self, admitted: &Admitted) -> Result<(), Denied> {
        match (self, &admitted.by) {
            (Self::Keys(check), By::Key(key)) => check.still_good(key).await,
            (Self::Tokens(check), By::Token(ends)) => check.still_good(ends),
            (Self::Open(_) | Self::Keys(_) | Self::Tokens(_) | Self::Named(_), _) => Ok(()),
        }
    }

    /// What clients of mode `oauth` are told of this server.
    #[must_use]
    pub fn resource(&self) -> Option<&Resource> {
        match self {
            Self::Tokens(check) => Some(&check.resource),
            Self::Open(_) | Self::Keys(_) | Self::Named(_) => None,
        }
    }
}

impl Admitted {
    /// By a credential, which may end before the call does.
    #[must_use]
    pub fn may_end(&self) -> bool {
        match self.by {
            By::Nothing | By::Name => false,
            By::Key(_) | By::Token(_) => true,
        }
    }
}

impl KeyCheck {
    async fn admit(&self, key: &str) -> Result<Admitted, Denied> {
        let key = ApiKey::open(key, &self.masters).map_err(Denied::Invalid)?;
        self.still_good(&key).await?;
        let principal = Principal::proved(key.tenant.clone(), key.grant.clone(), key.scopes);
        Ok(Admitted { principal, by: By::Key(Arc::new(key)) })
    }

    async fn still_good(&self, key: &ApiKey) -> Result<(), Denied> {
        let now_ms = self.clock.now_us() / 1000;
        if key.expires_at.is_some_and(|expires_at| expires_at.saturating_mul(1000) <= now_ms) {
            return Err(Denied::Expired);
        }
        if self.revoked.refuses(key, now_ms).await? { Err(Denied::Revoked) } else { Ok(()) }
    }
}

/// The token of `Bearer <token>`.
fn bearer(value: &[u8]) -> Option<&str> {
    let (scheme, token) = std::str::from_utf8(value).ok()?.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ManualClock;

    const MASTER: &str = "m1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

    fn check(masters: &str, revoked: Revoked, clock: &ManualClock) -> Authenticator {
        let masters = Arc::new(masters.parse().unwrap());
        Authenticator::Keys(KeyCheck { masters, revoked, clock: Arc::new(clock.clone()) })
    }

    fn key(masters: &str, expires_at: Option<u64>) -> (String, ApiKey) {
        let masters: MasterKeys = masters.parse().unwrap();
        let key = ApiKey::new(
            "acme".parse().unwrap(),
            "alice".parse().unwrap(),
            "read".parse().unwrap(),
            1,
            expires_at,
        );
        let sealed = key.seal(masters.current());
        (secrecy::ExposeSecret::expose_secret(&sealed).to_owned(), key)
    }

    async fn admit(auth: &Authenticator, values: &[&str]) -> Result<Principal, &'static str> {
        let admitted = auth.admit(None, values.iter().map(|value| value.as_bytes())).await;
        admitted.map(|admitted| admitted.principal).map_err(Denied::label)
    }

    #[tokio::test]
    async fn a_key_is_the_one_credential_and_says_who_one_is() {
        let clock = ManualClock::new(1_000_000_000);
        let auth = check(MASTER, Revoked::never(), &clock);
        let (good, _) = key(MASTER, Some(1_001));
        let (foreign, _) = key("m1:IAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", None);
        let (unknown, _) = key("m2:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", None);
        for scheme in ["Bearer ", "bearer ", "BEARER  "] {
            let principal = admit(&auth, &[&format!("{scheme}{good}")]).await.unwrap();
            assert_eq!(principal.name(), "acme/alice");
        }
        let bearer = |token: &str| format!("Bearer {token}");
        assert_eq!(admit(&auth, &[]).await.unwrap_err(), "missing");
        assert_eq!(admit(&auth, &[&bearer(&good), &bearer(&good)]).await.unwrap_err(), "malformed");
        assert_eq!(admit(&auth, &[&good]).await.unwrap_err(), "malformed");
        assert_eq!(admit(&auth, &["Basic YWxpY2U6eA=="]).await.unwrap_err(), "malformed");
        assert_eq!(admit(&auth, &["Bearer"]).await.unwrap_err(), "malformed");
        assert_eq!(admit(&auth, &[&bearer(&foreign)]).await.unwrap_err(), "wrong_mac");
        assert_eq!(admit(&auth, &[&bearer(&unknown)]).await.unwrap_err(), "unknown_master_key");
        clock.advance(std::time::Duration::from_secs(1));
        assert_eq!(admit(&auth, &[&bearer(&good)]).await.unwrap_err(), "expired");
    }

    #[tokio::test]
    async fn keys_of_two_masters_are_good_at_once_and_a_single_key_can_be_refused() {
        let clock = ManualClock::new(1_000_000_000);
        let old = "m0:ICECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
        let both = format!("{MASTER}\n# until summer\n{old}");
        let ((one, _), (other, other_key)) = (key(MASTER, None), key(old, None));
        let revoked = Revoked::only([other_key.id].into());
        let auth = check(&both, Revoked::never(), &clock);
        for sealed in [&one, &other] {
            assert!(admit(&auth, &[&format!("Bearer {sealed}")]).await.is_ok());
        }
        let auth = check(&both, revoked, &clock);
        assert!(admit(&auth, &[&format!("Bearer {one}")]).await.is_ok());
        assert_eq!(admit(&auth, &[&format!("Bearer {other}")]).await.unwrap_err(), "revoked");
    }

    #[test]
    fn a_guess_is_told_nothing_about_what_was_wrong_with_it() {
        let kinds = [BadKey::Malformed, BadKey::UnknownMaster, BadKey::WrongMac];
        let texts: Vec<_> = kinds.map(|kind| Denied::Invalid(kind).to_string()).into();
        assert!(texts.iter().all(|text| *text == texts[0]));
    }
}
