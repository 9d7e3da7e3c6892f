//! Teams as files, to keep or to move: who belongs to one and who may write to whom. No key and no code is in it,
//! so whoever is imported needs a key.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Actor, TeamError, Teams, audit};
use crate::{
    model::{Grant, Tenant},
    queue::{ContactPolicy, Member},
};

/// The layout of the file.
const VERSION: u32 = 1;

/// A team as it stands in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// The layout: 1.
    pub version: u32,
    /// Whose it was.
    pub team: Tenant,
    /// Who belongs to it.
    #[serde(default)]
    pub members: BTreeMap<Grant, Member>,
    /// Whose messages they take.
    #[serde(default)]
    pub contacts: BTreeMap<Grant, ContactPolicy>,
    /// Which other teams it listed.
    #[serde(default)]
    pub teams: BTreeSet<Tenant>,
}

impl Teams {
    /// What can be moved of a team. Who merely holds a key that was recorded is a member in it too.
    ///
    /// # Errors
    /// [`TeamError`].
    pub async fn export(&self, by: &Actor) -> Result<Export, TeamError> {
        let team = self.team(&by.tenant).await?;
        let since = self.now_ms() / 1000;
        let members = self.members(by).await?.into_iter().map(|member| {
            let entered = Member { role: member.role, since: member.since.unwrap_or(since) };
            (member.client, entered)
        });
        Ok(Export {
            version: VERSION,
            team: by.tenant.clone(),
            members: members.collect(),
            contacts: team.contacts,
            teams: team.teams,
        })
    }

    /// Enters what a file says into the team of `by`, whatever the file calls it. What it does not name stays as
    /// it is, and a second time changes nothing.
    ///
    /// # Errors
    /// [`TeamError::Value`] for a version that is not known, and others.
    pub async fn import(&self, by: &Actor, file: &Export) -> Result<(), TeamError> {
        if file.version != VERSION {
            return Err(TeamError::Value("version", "1"));
        }
        self.change(&by.tenant, async |team| {
            team.members
                .extend(file.members.iter().map(|(client, member)| (client.clone(), *member)));
            team.contacts.extend(file.contacts.clone());
            team.teams.extend(file.teams.iter().filter(|other| **other != by.tenant).cloned());
            Ok(())
        })
        .await?;
        audit::done("import", by, None);
        Ok(())
    }
}
