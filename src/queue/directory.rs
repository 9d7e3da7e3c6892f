//! Who is there, as the port says it.

use super::Presence;
use crate::model::ClientId;

/// How a client presents itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profile {
    /// Its name for people.
    pub name: String,
    /// What it can do, in its own words.
    pub capabilities: String,
}

/// Which part of the directory.
#[derive(Debug, Clone, Default)]
pub struct ClientQuery {
    /// Part of an id, a name or capabilities, whatever the case. Empty: all.
    pub text: String,
    /// From the page before.
    pub cursor: Option<DirectoryCursor>,
    /// At most so many.
    pub limit: usize,
}

/// Where the next page begins. A client that checks in meanwhile moves to the front, so that later
/// pages may not show it; every other one appears once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryCursor(pub u64);

/// A page of the directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientPage {
    /// Latest check-in first.
    pub clients: Vec<ClientEntry>,
    /// Where the next page begins, if there is one.
    pub next: Option<DirectoryCursor>,
}

/// One client of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientEntry {
    /// Who.
    pub client: ClientId,
    /// How it presents itself.
    pub profile: Profile,
    /// Whether it waits, or when it was last seen.
    pub presence: Presence,
    /// Messages in its inbox.
    pub queued: u64,
}
