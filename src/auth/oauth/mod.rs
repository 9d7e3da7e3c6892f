//! Mode `oauth`: the server as an OAuth 2.1 resource server, as MCP defines one.
//!
//! An access token is a JWT that the authorization server signed for this very server (RFC 9068, 8707). It
//! is checked here, without a question to anybody; the keys that it takes are looked up beside the requests
//! ([`SigningKeys`]). Signatures are checked by `ring`, which rustls brings already.
//!
//! Not here: logins, consent, registration of clients, refresh tokens. Those are the authorization server's.

mod keys;
mod provider;
mod resource;
mod signing;
mod token;

use std::sync::Arc;

pub use self::{
    keys::{Algorithm, InvalidKeySet, KeySet, UnknownAlgorithm},
    provider::Provider,
    resource::Resource,
    signing::{KeySource, SigningKeys},
    token::{BadToken, Names, TokenRules},
};
use self::{
    signing::NoKey,
    token::{Parts, Unfit},
};
use super::Denied;
use crate::model::{Clock, Principal};

/// What mode `oauth` needs to know.
#[derive(Clone)]
pub struct TokenCheck {
    /// What tokens are asked for.
    pub rules: Arc<TokenRules>,
    /// The keys that they are signed with.
    pub keys: SigningKeys,
    /// What clients are told of this server.
    pub resource: Arc<Resource>,
    /// When tokens expire is told by this one.
    pub clock: Arc<dyn Clock>,
}

/// When a token ends.
#[derive(Debug)]
pub(super) struct Ends {
    /// Seconds since the Unix epoch.
    until: f64,
    /// The key that signed it, without which it is worth nothing.
    key: String,
}

impl TokenCheck {
    pub(super) async fn admit(&self, token: &str) -> Result<(Principal, Ends), Denied> {
        let parts = Parts::of(token, &self.rules).map_err(Denied::Token)?;
        let keys = self.keys.with(&parts.key).await?;
        keys.check(&parts.key, parts.algorithm, parts.signed, &parts.signature)
            .map_err(|bad| Denied::Token(bad.into()))?;
        // From here on it is what the authorization server says.
        let proof = parts.proof(&self.rules, self.now())?;
        let principal = Principal::proved(proof.tenant, proof.grant, proof.scopes);
        Ok((principal, Ends { until: proof.until, key: parts.key }))
    }

    pub(super) fn still_good(&self, ends: &Ends) -> Result<(), Denied> {
        if self.now() >= ends.until {
            return Err(Denied::TokenExpired);
        }
        Ok(self.keys.still(&ends.key)?)
    }

    /// Seconds since the Unix epoch.
    #[expect(clippy::cast_precision_loss, reason = "microseconds of some centuries are exact")]
    fn now(&self) -> f64 {
        self.clock.now_us() as f64 / 1e6
    }
}

impl From<NoKey> for Denied {
    fn from(none: NoKey) -> Self {
        match none {
            NoKey::Unknown => Self::Token(BadToken::UnknownKey),
            NoKey::Unavailable => Self::NoSigningKeys,
        }
    }
}

impl From<Unfit> for Denied {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Bad(bad) => Self::Token(bad),
            Unfit::Expired => Self::TokenExpired,
            Unfit::Unscoped => Self::Unscoped,
            Unfit::Client { dotted, instead } => Self::NoClient { dotted, instead },
            Unfit::Tenant => Self::NoTenant,
        }
    }
}

/// Why a token is none, for its holder. What a guess could learn from is one text; the rest is said only of
/// tokens that the authorization server did sign.
pub(super) fn told(bad: BadToken) -> &'static str {
    match bad {
        BadToken::Malformed | BadToken::Algorithm | BadToken::UnknownKey | BadToken::Signature => {
            "this is not an access token of this server's authorization server: get one there, with the resource that \
             the document at resource_metadata (in WWW-Authenticate) names"
        }
        BadToken::Type => {
            "this is not an access token: an ID token or one that is bound to a key (cnf) is not taken, and its typ \
             must be at+jwt or JWT"
        }
        BadToken::Issuer | BadToken::Audience => {
            "this access token is for another server: ask the authorization server for one with the resource that the \
             document at resource_metadata (in WWW-Authenticate) names"
        }
        BadToken::NotYetValid => "this access token is not valid yet: the clocks may differ",
        BadToken::Claim => {
            "this access token lacks one of the claims iss, aud and exp, or has one of another form than RFC 7519 says"
        }
    }
}

/// Why a good token lets nobody in, for whoever can choose another claim.
pub(super) fn nobody(dotted: bool, instead: Names) -> String {
    let why = if dotted {
        "has a dot, and could be one of another client's windows"
    } else {
        "is missing or is not 1-128 characters of A-Z a-z 0-9 . _ - @ +"
    };
    let way = match &*instead.told() {
        "" => "set oauth.client_claim to one that its users cannot change".to_owned(),
        names => format!(
            "set oauth.client_claim to one that its users cannot change; in this token these would do: {names}"
        ),
    };
    let other = if dotted { ", or oauth.windows to false" } else { "" };
    format!(
        "the claim of this access token that names the client {why}; whoever runs the server can {way}{other}"
    )
}

impl BadToken {
    /// Label for logs: a closed set.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Algorithm => "wrong_algorithm",
            Self::UnknownKey => "unknown_signing_key",
            Self::Signature => "wrong_signature",
            Self::Type => "wrong_type",
            Self::Issuer => "wrong_issuer",
            Self::Audience => "wrong_audience",
            Self::NotYetValid => "not_yet_valid",
            Self::Claim => "wrong_claim",
        }
    }
}
