//! Who checked in.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    model::{Inbox, Tenant},
    queue::{ClientQuery, DirectoryCursor, Profile},
};

/// The clients of all tenants.
#[derive(Default)]
pub(super) struct Directory {
    tenants: HashMap<Tenant, Roster>,
}

/// The clients of one tenant, by their check-in, which is unique.
#[derive(Default)]
struct Roster {
    by_check_in: BTreeMap<u64, Card>,
    check_ins: HashMap<Arc<str>, u64>,
    last: u64,
}

struct Card {
    inbox: Inbox,
    profile: Profile,
    /// What a query looks at, in lower case.
    text: String,
    until_us: u64,
}

/// A client that a query found.
pub(super) struct Found {
    pub inbox: Inbox,
    pub profile: Profile,
    pub at_us: u64,
}

/// A page of a query's answer.
pub(super) struct Page {
    pub found: Vec<Found>,
    pub next: Option<DirectoryCursor>,
}

impl Directory {
    pub(super) fn check_in(&mut self, inbox: &Inbox, profile: &Profile, now_us: u64, keep_us: u64) {
        let roster = self.tenants.entry(inbox.tenant().clone()).or_default();
        roster.forget(now_us);
        roster.last = now_us.max(roster.last + 1);
        let (name, at_us) = (Arc::<str>::from(inbox.name()), roster.last);
        if let Some(before) = roster.check_ins.insert(name, at_us) {
            roster.by_check_in.remove(&before);
        }
        let id = inbox.client().expose();
        let text = format!("{id}\n{}\n{}", profile.name, profile.capabilities).to_lowercase();
        let until_us = now_us.saturating_add(keep_us);
        let card = Card { inbox: inbox.clone(), profile: profile.clone(), text, until_us };
        roster.by_check_in.insert(at_us, card);
    }

    pub(super) fn page(&mut self, tenant: &Tenant, query: &ClientQuery, now_us: u64) -> Page {
        let mut page = Page { found: Vec::new(), next: None };
        let Some(roster) = self.tenants.get_mut(tenant) else { return page };
        roster.forget(now_us);
        let wanted = query.text.to_lowercase();
        let before = query.cursor.map_or(u64::MAX, |DirectoryCursor(at_us)| at_us);
        for (&at_us, card) in roster.by_check_in.range(..before).rev() {
            if card.until_us <= now_us || !card.text.contains(&wanted) {
                continue;
            }
            if page.found.len() >= query.limit.max(1) {
                page.next = page.found.last().map(|last: &Found| DirectoryCursor(last.at_us));
                break;
            }
            let (inbox, profile) = (card.inbox.clone(), card.profile.clone());
            page.found.push(Found { inbox, profile, at_us });
        }
        page
    }
}

impl Roster {
    /// Drops those at the end whose check-in is over.
    fn forget(&mut self, now_us: u64) {
        while let Some(oldest) = self.by_check_in.first_entry()
            && oldest.get().until_us <= now_us
        {
            let card = oldest.remove();
            self.check_ins.remove(card.inbox.name());
        }
    }
}
