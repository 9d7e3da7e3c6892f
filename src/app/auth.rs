//! How callers are let in, as configured.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::{StartError, settings};
use crate::{
    auth::{Authenticator, KeyCheck, Known, MasterKeys, Revoked},
    config::{Config, ConfigError},
    model::SystemClock,
    queue::{CredentialStore, KeyId, Revocations, Team, TeamStore},
    teams::{Contacts, Teams},
};

/// What all workers share.
pub(super) struct Auth {
    /// `None`: mode `none`.
    masters: Option<Arc<MasterKeys>>,
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
        Ok(Self { masters, revoked, known, teams, stale })
    }

    /// For one worker, with its way to the store.
    pub(super) fn authenticator(&self, store: Option<Arc<dyn CredentialStore>>) -> Authenticator {
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
