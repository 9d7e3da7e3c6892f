//! State that a client carries between rounds and cannot change: it gets a ticket, the state stays here.
//! A server of many replicas would sign the state in place of keeping it.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
};

use uuid::Uuid;

/// Rounds that may be open at once; beyond it, all of them begin anew.
const OPEN: usize = 1000;

static KEPT: LazyLock<Mutex<HashMap<String, String>>> = LazyLock::new(Mutex::default);

/// Keeps a state: its ticket.
pub(crate) fn keep(state: &str) -> String {
    let ticket = Uuid::now_v7().to_string();
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() >= OPEN {
        kept.clear();
    }
    kept.insert(ticket.clone(), state.to_owned());
    ticket
}

/// The state of a ticket. `None`: there is no such ticket.
pub(crate) fn state_of(ticket: &str) -> Option<String> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).get(ticket).cloned()
}
