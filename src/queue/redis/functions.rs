//! The operations as Redis runs them: a library of functions, or scripts where there are none.
//!
//! The source is compiled in, so the binary and its functions cannot drift apart. A newer revision
//! that another replica loaded stays: in a rolling upgrade two versions never overwrite each other.

use std::sync::OnceLock;

/// The library, contract 1.
const SOURCE: &str = include_str!("../../../migrations/functions/mb1.lua");

/// The revision of [`SOURCE`]; a test holds it to the file.
pub(super) const REVISION: i64 = 16;

/// One function of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Send,
    Fetch,
    Ack,
    Release,
    Extend,
    Unfetch,
    Leave,
    WaitOpen,
    WaitTake,
    WaitUntake,
    WaitDone,
    WaitClose,
    TaskOpen,
    TaskFind,
    TaskDone,
    TaskCancel,
    Contact,
    Peek,
    Browse,
    Probe,
    Fates,
    LedgerAdd,
    LedgerList,
    LedgerSettle,
    CheckIn,
    Clients,
    Cancel,
    Cancelled,
    Hold,
    Survey,
    Inboxes,
    Permits,
    Pause,
    PauseLift,
    PauseNote,
    Pauses,
    PausesTold,
    TeamReplace,
    Revision,
}

impl Operation {
    /// All of them, in the order of their declaration.
    pub(super) const ALL: [Self; 39] = [
        Self::Send,
        Self::Fetch,
        Self::Ack,
        Self::Release,
        Self::Extend,
        Self::Unfetch,
        Self::Leave,
        Self::WaitOpen,
        Self::WaitTake,
        Self::WaitUntake,
        Self::WaitDone,
        Self::WaitClose,
        Self::TaskOpen,
        Self::TaskFind,
        Self::TaskDone,
        Self::TaskCancel,
        Self::Contact,
        Self::Peek,
        Self::Browse,
        Self::Probe,
        Self::Fates,
        Self::LedgerAdd,
        Self::LedgerList,
        Self::LedgerSettle,
        Self::CheckIn,
        Self::Clients,
        Self::Cancel,
        Self::Cancelled,
        Self::Hold,
        Self::Survey,
        Self::Inboxes,
        Self::Permits,
        Self::Pause,
        Self::PauseLift,
        Self::PauseNote,
        Self::Pauses,
        Self::PausesTold,
        Self::TeamReplace,
        Self::Revision,
    ];

    /// Its name in Redis, which is also its label in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Send => "mb1_send",
            Self::Fetch => "mb1_fetch",
            Self::Ack => "mb1_ack",
            Self::Release => "mb1_release",
            Self::Extend => "mb1_extend",
            Self::Unfetch => "mb1_unfetch",
            Self::Leave => "mb1_leave",
            Self::WaitOpen => "mb1_wait_open",
            Self::WaitTake => "mb1_wait_take",
            Self::WaitUntake => "mb1_wait_untake",
            Self::WaitDone => "mb1_wait_done",
            Self::WaitClose => "mb1_wait_close",
            Self::TaskOpen => "mb1_task_open",
            Self::TaskFind => "mb1_task_find",
            Self::TaskDone => "mb1_task_done",
            Self::TaskCancel => "mb1_task_cancel",
            Self::Contact => "mb1_contact",
            Self::Peek => "mb1_peek",
            Self::Browse => "mb1_browse",
            Self::Probe => "mb1_probe",
            Self::Fates => "mb1_fates",
            Self::LedgerAdd => "mb1_ledger_add",
            Self::LedgerList => "mb1_ledger_list",
            Self::LedgerSettle => "mb1_ledger_settle",
            Self::CheckIn => "mb1_check_in",
            Self::Clients => "mb1_clients",
            Self::Cancel => "mb1_cancel",
            Self::Cancelled => "mb1_cancelled",
            Self::Hold => "mb1_hold",
            Self::Survey => "mb1_survey",
            Self::Inboxes => "mb1_inboxes",
            Self::Permits => "mb1_permits",
            Self::Pause => "mb1_pause",
            Self::PauseLift => "mb1_pause_lift",
            Self::PauseNote => "mb1_pause_note",
            Self::Pauses => "mb1_pauses",
            Self::PausesTold => "mb1_pauses_told",
            Self::TeamReplace => "mb1_team_replace",
            Self::Revision => "mb1_revision",
        }
    }
}

/// The library for `FUNCTION LOAD`.
pub(super) fn library() -> &'static str {
    SOURCE
}

/// One operation as a script.
pub(super) struct Script {
    pub(super) source: String,
    pub(super) sha: String,
}

/// The script of an operation: the same source without what only a library has.
pub(super) fn script(operation: Operation) -> &'static Script {
    static SCRIPTS: OnceLock<Vec<Script>> = OnceLock::new();
    let scripts = SCRIPTS.get_or_init(|| Operation::ALL.map(make_script).into());
    &scripts[operation as usize]
}

fn make_script(operation: Operation) -> Script {
    // `#!lua` does not parse before Redis 7, and nothing is registered.
    let body = SOURCE.split_once('\n').map_or(SOURCE, |(_shebang, rest)| rest);
    let body = body.split("local function register(").next().unwrap_or(body);
    let entry = operation.name().trim_start_matches("mb1_");
    let source = format!("{body}\nbegin()\nreturn {entry}(KEYS, ARGV)\n");
    let sha = fred::util::sha1_hash(&source);
    Script { source, sha }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_in_the_source_is_the_one_we_ask_for() {
        assert!(SOURCE.contains(&format!("local REVISION = {REVISION}\n")));
        assert!(SOURCE.lines().nth(1).unwrap().ends_with(&format!("rev: {REVISION}")));
    }

    #[test]
    fn every_operation_is_registered_and_every_registration_is_an_operation() {
        let registered: Vec<_> = SOURCE
            .lines()
            .filter_map(|line| line.strip_prefix("register('")?.split('\'').next())
            .map(|name| format!("mb1_{name}"))
            .collect();
        // And the three that carry others.
        assert_eq!(registered.len(), Operation::ALL.len() + 3);
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, index, "scripts are found by position");
            assert!(registered.iter().any(|name| name == operation.name()), "{operation:?}");
        }
    }
}
