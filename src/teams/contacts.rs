//! Who may write to whom, as this process knows it.

use std::{sync::Arc, time::Duration};

use crate::{
    auth::Known,
    model::{Inbox, Tenant},
    queue::{Team, TeamStore},
};

/// Who may write to whom. It looks at the store once in a few seconds for each team, never for a message. Cheap
/// to clone; the default is a server without teams, where everybody may write to everybody.
#[derive(Clone, Default)]
pub struct Contacts(Option<Kept>);

#[derive(Clone)]
struct Kept {
    store: Arc<dyn TeamStore>,
    known: Known<Team>,
    /// How long what is known serves when the store does not answer.
    stale: Duration,
}

/// Whether somebody's messages are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Taken,
    /// The recipient does not take them, but for answers to what it asked itself.
    NotTaken,
    /// The two teams have not both listed each other; answers to what was asked while they had are taken.
    NotLinked,
}

/// What holds for a team cannot be found out now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown;

impl Contacts {
    /// As the store says. When it does not answer, what it said last serves for `stale`, and then nobody may write.
    #[must_use]
    pub fn kept_by(store: Arc<dyn TeamStore>, known: Known<Team>, stale: Duration) -> Self {
        Self(Some(Kept { store, known, stale }))
    }

    /// Whether the owner of one inbox takes messages of the owner of another.
    ///
    /// # Errors
    /// [`Unknown`]: then nothing must be sent.
    pub async fn verdict(&self, sender: &Inbox, recipient: &Inbox) -> Result<Verdict, Unknown> {
        let across = sender.tenant() != recipient.tenant();
        let Some(kept) = &self.0 else {
            return Ok(if across { Verdict::NotLinked } else { Verdict::Taken });
        };
        // The sender's own team first: whoever it does not list is not even looked up.
        if across && !kept.team(sender.tenant()).await?.teams.contains(recipient.tenant()) {
            return Ok(Verdict::NotLinked);
        }
        let team = kept.team(recipient.tenant()).await?;
        if across && !team.teams.contains(sender.tenant()) {
            return Ok(Verdict::NotLinked);
        }
        Ok(if team.takes(recipient, sender) { Verdict::Taken } else { Verdict::NotTaken })
    }
}

impl Kept {
    async fn team(&self, tenant: &Tenant) -> Result<Arc<Team>, Unknown> {
        let look = || async { Ok(self.store.team(tenant).await?.team) };
        self.known.of(tenant, self.stale, look).await.ok_or(Unknown)
    }
}
