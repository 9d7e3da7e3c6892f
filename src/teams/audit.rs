//! What the audit log says about teams: who did what, to which client. No code and no key is in it.

use super::Actor;
use crate::model::{Grant, Tenant};

fn event(action: &'static str, by: &Actor, client: Option<&Grant>, result: &'static str) {
    tracing::info!(
        target: "audit",
        action,
        tenant = by.tenant.as_str(),
        client = by.grant().map_or("operator".to_owned(), Grant::expose),
        inbox = client.map(Grant::expose),
        result,
    );
}

/// Something was done.
pub(super) fn done(action: &'static str, by: &Actor, client: Option<&Grant>) {
    event(action, by, client, "ok");
}

/// Something was not allowed.
pub(super) fn refused(action: &'static str, by: &Actor, client: Option<&Grant>) {
    event(action, by, client, "refused");
}

/// Somebody joined, or tried to. Nothing was proved by who failed.
pub(super) fn joined(tenant: Option<&Tenant>, client: Option<&Grant>, result: &'static str) {
    tracing::info!(
        target: "audit",
        action = "join",
        tenant = tenant.map(Tenant::as_str),
        client = client.map(Grant::expose),
        result,
    );
}
