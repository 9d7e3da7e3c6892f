//! How callers are let in, as configured.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio_util::task::TaskTracker;

use super::{StartError, settings};
use crate::{
    auth::{
        Authenticator, ClientName, KeyCheck, Known, MasterKeys, Provider, ProxyRules, Resource,
        Revoked, SigningKeys, TokenCheck, TokenRules,
    },
    config::{Config, ConfigError},
    model::{Network, SystemClock},
    queue::{CredentialStore, KeyId, Revocations, Team, TeamStore},
    teams::{Contacts, Teams},
    web::{Reader, SafeUrl},
};

/// What all workers share.
pub(super) struct Auth {
    /// `None`: not mode `key`.
    masters: Option<Arc<MasterKeys>>,
    /// `None`: not mode `oauth`.
    tokens: Option<TokenCheck>,
    /// `None`: not mode `proxy`.
    proxy: Option<Arc<ProxyRules>>,
    revoked: HashSet<KeyId>,
    known: Known<Revocations>,
    /// What is known of teams. `None`: nobody proves which one it is of.
    teams: Option<Known<Team>>,
    stale: Duration,
}

impl Auth {
    pub(super) fn read(config: &Config) -> Result<Self, StartError> {
        let masters = match config.auth.mode.as_str() {
            "key" => Some(Arc::new(master_keys(config)?)),
            _ => None,
        };
        let tokens = (config.auth.mode == "oauth").then(|| tokens(config)).transpose()?;
        let proxy = (config.auth.mode == "proxy").then(|| proxy(config)).transpose()?;
        let revoked = config.auth.revoked_keys.iter().map(|id| {
            id.parse::<KeyId>().map_err(|problem| ConfigError::Rule {
                key: "auth.revoked_keys",
                problem: format!("{id:?} {problem}"),
            })
        });
        let revoked = revoked.collect::<Result<_, _>>()?;
        let stale = Duration::from_secs(config.auth.stale_seconds);
        let known = Known::default();
        let teams = match config.auth.mode.as_str() {
            "" | "none" => None,
            _ => Some(Known::default()),
        };
        Ok(Self { masters, tokens, proxy: proxy.map(Arc::new), revoked, known, teams, stale })
    }

    /// Keeps up to date what is looked up elsewhere, while `background` runs.
    pub(super) fn attend(&self, background: &TaskTracker) {
        if let Some(check) = &self.tokens {
            background.spawn(check.keys.clone().keep());
        }
    }

    /// For one worker, with its way to the store.
    pub(super) fn authenticator(&self, store: Option<Arc<dyn CredentialStore>>) -> Authenticator {
        if let Some(check) = &self.tokens {
            return Authenticator::Tokens(check.clone());
        }
        if let Some(rules) = &self.proxy {
            return Authenticator::Named(Arc::clone(rules));
        }
        let Some(masters) = &self.masters else { return Authenticator::open() };
        let revoked = match store {
            Some(store) => {
                Revoked::kept_by(store, self.revoked.clone(), self.known.clone(), self.stale)
            }
            None => Revoked::only(self.revoked.clone()),
        };
        Authenticator::Keys(KeyCheck {
            masters: Arc::clone(masters),
            revoked,
            clock: Arc::new(SystemClock),
        })
    }
}

/// Which proxies are believed.
fn proxy(config: &Config) -> Result<ProxyRules, ConfigError> {
    let own = &config.proxy;
    let trusted = settings::networks("proxy.trusted", &own.trusted)?;
    if !own.trust_anybody && trusted.iter().any(Network::is_vast) {
        return Err(ConfigError::Rule {
            key: "proxy.trusted",
            problem: "has a network of which nobody knows who is in it (more than a /8, of IPv6 more than a /16), and \
                      whoever is can be anybody: name the proxies, or say proxy.trust_anybody = true"
                .to_owned(),
        });
    }
    let admins = own.admins.iter().map(|name| {
        name.parse::<ClientName>().map_err(|problem| ConfigError::Rule {
            key: "proxy.admins",
            problem: format!("{name:?} {problem}"),
        })
    });
    Ok(ProxyRules {
        trusted,
        header: own.header.clone(),
        admins: admins.collect::<Result<_, _>>()?,
    })
}

/// What tokens are asked for, and where their keys are.
fn tokens(config: &Config) -> Result<TokenCheck, StartError> {
    let oauth = &config.oauth;
    let rule = |key, problem: String| ConfigError::Rule { key, problem };
    let url = |key, text: &str| SafeUrl::parse(text).map_err(|error| rule(key, error.to_string()));
    let plain = |key, text: &str| {
        let url = url(key, text)?;
        let queried = || rule(key, "must have no query".to_owned());
        if url.has_query() { Err(queried()) } else { Ok(url) }
    };
    let issuer = plain("oauth.issuer", &oauth.issuer)?;
    let resource = plain("oauth.resource", &oauth.resource)?;
    let keys = (!oauth.jwks_url.is_empty()).then(|| url("oauth.jwks_url", &oauth.jwks_url));
    let keys = keys.transpose()?;
    let algorithms = oauth.algorithms.iter().map(|name| {
        name.parse().map_err(|error| rule("oauth.algorithms", format!("{name:?} {error}")))
    });
    let tls = issuer.has_tls() || keys.as_ref().is_some_and(SafeUrl::has_tls);
    let reader = Reader::new(tls).map_err(|cause| StartError::Tls { keys: "oauth", cause })?;
    let rules = TokenRules {
        issuer: oauth.issuer.clone(),
        audience: Some(&oauth.audience)
            .filter(|it| !it.is_empty())
            .unwrap_or(&oauth.resource)
            .clone(),
        algorithms: algorithms.collect::<Result<_, _>>()?,
        client_claim: oauth.client_claim.clone(),
        tenant_claim: Some(oauth.tenant_claim.clone()).filter(|claim| !claim.is_empty()),
        windows: oauth.windows,
        leeway: Duration::from_secs(oauth.leeway_seconds),
    };
    Ok(TokenCheck {
        rules: Arc::new(rules),
        keys: SigningKeys::new(Box::new(Provider::new(issuer.clone(), keys, reader))),
        resource: Arc::new(Resource::new(resource, issuer)),
        clock: Arc::new(SystemClock),
    })
}

impl Auth {
    /// What one worker can do about teams: nothing in mode `none`.
    pub(super) fn teams(&self, store: Option<Arc<dyn TeamStore>>) -> Teams {
        Teams::new(store, self.masters.clone(), Arc::new(SystemClock))
    }

    /// Who takes whose messages, for one worker: everybody's of its team where nobody proves anything, or where no
    /// store keeps teams.
    pub(super) fn contacts(&self, store: Option<Arc<dyn TeamStore>>) -> Contacts {
        match (store, &self.teams) {
            (Some(store), Some(known)) => Contacts::kept_by(store, known.clone(), self.stale),
            (None, _) | (_, None) => Contacts::default(),
        }
    }
}

/// The master keys of the configuration or of the file that it names.
pub(super) fn master_keys(config: &Config) -> Result<MasterKeys, ConfigError> {
    let auth = &config.auth;
    settings::key_ring(
        ["auth.master_keys", "auth.master_keys_file"],
        (&auth.master_keys, &auth.master_keys_file),
        "master",
    )
}
