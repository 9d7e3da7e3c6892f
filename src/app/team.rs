//! `mcp-messaging team`: what the operator does about teams. Admins do the same, and more, over HTTP.

use std::{io::Read as _, path::PathBuf, sync::Arc};

use clap::{Subcommand, ValueEnum};

use super::{StartError, auth::master_keys, commands, commands::say};
use crate::{
    config::{Backend, Config},
    model::{Grant, SystemClock, Tenant, rfc3339},
    queue::Role,
    teams::{Actor, Export, Insist, InviteSpec, TeamError, Teams},
};

/// What can be done about a team.
#[derive(Subcommand)]
pub enum TeamCommand {
    /// Makes a join code and prints it, once: whoever has it joins with `mcp-messaging join`.
    Invite {
        /// Into this team.
        #[arg(long, default_value = "default")]
        tenant: Tenant,
        /// As what.
        #[arg(long, value_enum, default_value_t = As::Member)]
        role: As,
        /// For this client id, or for some that begin with `alice.` (`alice.*`); any that is free if left out.
        #[arg(long)]
        client: Option<Grant>,
        /// The code is good for so many hours.
        #[arg(long, default_value_t = 72)]
        hours: u64,
        /// The key that it becomes is good for so many days.
        #[arg(long, default_value_t = 90)]
        days: u64,
    },
    /// Lists who belongs to a team.
    Members {
        /// Of this team.
        #[arg(long, default_value = "default")]
        tenant: Tenant,
    },
    /// Removes a member and takes its keys back. Servers know it within 10 seconds.
    Remove {
        /// From this team.
        #[arg(long, default_value = "default")]
        tenant: Tenant,
        /// Whom: what its keys were made for.
        #[arg(long)]
        client: Grant,
        /// Also if nobody else holds an admin's key.
        #[arg(long)]
        even_the_last_admin: bool,
    },
    /// Says with which other teams messages may be exchanged, if those say the same of this one.
    Link {
        /// Of this team.
        #[arg(long, default_value = "default")]
        tenant: Tenant,
        /// All of them, separated by commas; none if left out.
        #[arg(long, value_delimiter = ',')]
        teams: Vec<Tenant>,
    },
    /// Prints members, policies and linked teams as JSON. No key and no code is in it.
    Export {
        /// Of this team.
        #[arg(long, default_value = "default")]
        tenant: Tenant,
    },
    /// Enters what `export` printed. What it does not name stays as it is.
    Import {
        /// Into this team, in place of the one that the file names.
        #[arg(long)]
        tenant: Option<Tenant>,
        /// The file; standard input if left out.
        file: Option<PathBuf>,
    },
}

/// A role, on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum As {
    /// Reads and sends.
    Member,
    /// Also runs the team.
    Admin,
}

impl From<As> for Role {
    fn from(role: As) -> Self {
        match role {
            As::Member => Self::Member,
            As::Admin => Self::Admin,
        }
    }
}

/// Does what the command says.
///
/// # Errors
/// There is no Redis or no master key, Redis does not answer, or a rule of teams.
pub fn run(config: &Config, command: TeamCommand) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = match config.backend() {
            Backend::Memory => return Err(TeamError::NoStore.into()),
            Backend::Redis => Arc::new(commands::redis(config)?),
        };
        // Only inviting asks for them.
        let masters = if let TeamCommand::Invite { .. } = &command {
            Some(Arc::new(master_keys(config)?))
        } else {
            None
        };
        let teams = Teams::new(Some(Arc::clone(&store) as _), masters, Arc::new(SystemClock));
        commands::explained(&store, act(&teams, command).await).await
    })
}

async fn act(teams: &Teams, command: TeamCommand) -> Result<(), StartError> {
    match command {
        TeamCommand::Invite { tenant, role, client, hours, days } => {
            let spec = InviteSpec { role: role.into(), client, hours, days };
            let invited = teams.invite(&Actor::operator(tenant.clone()), &spec).await?;
            eprintln!(
                "Join code {id} for team {team}: good once, until {until}. It is not shown again. Who has it joins with\n\n  \
                 mcp-messaging join --url URL-OF-THE-MAILBOX --code CODE --client ID\n",
                id = invited.invitation.id,
                team = tenant.as_str(),
                until = rfc3339(invited.invitation.expires_at * 1000),
            );
            say(invited.code.expose());
        }
        TeamCommand::Members { tenant } => {
            say("role    since                     good keys  client");
            for member in teams.members(&Actor::operator(tenant)).await? {
                let since = member.since.map_or("-".to_owned(), |since| rfc3339(since * 1000));
                say(&format!(
                    "{:<6}  {since:<24}  {:<9}  {}",
                    member.role.as_str(),
                    member.keys,
                    member.client.expose()
                ));
            }
        }
        TeamCommand::Remove { tenant, client, even_the_last_admin } => {
            let insist = if even_the_last_admin { Insist::EvenTheLastAdmin } else { Insist::No };
            teams.remove(&Actor::operator(tenant), &client, insist).await?;
            say(&format!("{} is removed", client.expose()));
            eprintln!("Servers that hold its keys to be good know it within 10 seconds.");
        }
        TeamCommand::Link { tenant, teams: others } => {
            teams.set_teams(&Actor::operator(tenant), others).await?;
            say("noted; messages pass once the other teams list this one too");
        }
        TeamCommand::Export { tenant } => {
            let export = teams.export(&Actor::operator(tenant)).await?;
            let json = serde_json::to_string_pretty(&export);
            say(&json.map_err(|error| StartError::Import(error.to_string()))?);
        }
        TeamCommand::Import { tenant, file } => {
            let text = if let Some(path) = &file {
                std::fs::read_to_string(path)?
            } else {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text)?;
                text
            };
            let import: Export = serde_json::from_str(&text)
                .map_err(|error| StartError::Import(error.to_string()))?;
            let tenant = tenant.unwrap_or_else(|| import.team.clone());
            teams.import(&Actor::operator(tenant), &import).await?;
            say(&format!(
                "{} members, {} policies and {} linked teams are entered",
                import.members.len(),
                import.contacts.len(),
                import.teams.len()
            ));
        }
    }
    Ok(())
}
