//! `GET /api/sessions`: who is there and what waits for them, in the shape that the Python original
//! has, for its dashboards.

use std::{collections::HashMap, convert::Infallible, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    http::{
        StatusCode,
        header::{
            ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
            ACCESS_CONTROL_ALLOW_ORIGIN, ORIGIN, VARY,
        },
    },
    web::Data,
};
use serde_json::{Value, json};

use super::{credentials, mcp_endpoint, origin, state::HttpState};
use crate::{
    auth::Admitted,
    messaging::{CallContext, MessagingError},
    model::{ClientId, Clock, Principal, Scope, SystemClock, rfc3339_seconds},
    queue::{ClientEntry, ClientQuery, InboxStat, Presence},
};

/// Clients of one page of the directory.
const PAGE: usize = 500;
/// Most pages: the list is for people.
const PAGES: usize = 10;

pub(super) async fn options(
    request: HttpRequest,
    state: Data<HttpState>,
) -> Result<HttpResponse, Infallible> {
    Ok(match refused(&request, &state) {
        Some(refusal) => refusal,
        None => with_cors(StatusCode::NO_CONTENT, &request).finish(),
    })
}

/// Answers who may not ask: where nothing is proved, the ids in the list are secrets, so no page of
/// somebody else's may read it in a browser.
fn refused(request: &HttpRequest, state: &HttpState) -> Option<HttpResponse> {
    let (reason, why) = origin::check(request.headers(), &state.config).err()?;
    state.metrics.refusal(reason);
    Some(HttpResponse::Forbidden().body(why))
}

pub(super) async fn get(
    request: HttpRequest,
    state: Data<HttpState>,
) -> Result<HttpResponse, Infallible> {
    if let Some(refusal) = refused(&request, &state) {
        return Ok(refusal);
    }
    let admitted = match admitted(&request, &state).await {
        Ok(admitted) => admitted,
        Err(refusal) => return Ok(refusal.respond(&state.metrics)),
    };
    Ok(match list(&state, admitted.principal).await {
        Ok(list) => with_cors(StatusCode::OK, &request).json(list),
        Err(error) => {
            tracing::warn!(error = %error, "listing the sessions failed");
            let answer = json!({ "error": "the message store does not answer; try again" });
            with_cors(StatusCode::SERVICE_UNAVAILABLE, &request).json(answer)
        }
    })
}

/// What lets a page of an allowed origin, and of no other, read the answer.
fn with_cors(status: StatusCode, request: &HttpRequest) -> HttpResponseBuilder {
    let mut builder = HttpResponse::build(status);
    builder.insert_header((VARY, "origin"));
    if let Some(origin) = request.headers().get(ORIGIN) {
        builder
            .insert_header((ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()))
            .insert_header((ACCESS_CONTROL_ALLOW_METHODS, "GET, OPTIONS"))
            // The star does not stand for this one.
            .insert_header((ACCESS_CONTROL_ALLOW_HEADERS, "*, authorization"));
    }
    builder
}

/// Whoever may see all inboxes of its team from outside.
async fn admitted(
    request: &HttpRequest,
    state: &HttpState,
) -> Result<Admitted, mcp_endpoint::Refusal> {
    credentials::check_url(request.uri())?;
    let admitted = credentials::admit(request, state).await?;
    credentials::check_scope(&state.auth, &admitted, Scope::Admin)?;
    Ok(admitted)
}

async fn list(state: &HttpState, principal: Principal) -> Result<Value, MessagingError> {
    let context = CallContext { principal, ..CallContext::default() };
    let inboxes = state.messaging.inboxes(&context).await?;
    let mut clients = Vec::new();
    let mut query = ClientQuery { text: String::new(), cursor: None, limit: PAGE };
    for _ in 0..PAGES {
        let page = state.messaging.clients(&query, &context).await?;
        clients.extend(page.clients);
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => break,
        }
    }
    Ok(render(clients, inboxes, SystemClock.now_us()))
}

fn render(clients: Vec<ClientEntry>, inboxes: Vec<InboxStat>, now_us: u64) -> Value {
    let waiting = |presence: &Presence| *presence == Presence::Waiting;
    let (total_queues, total_messages) =
        (inboxes.len(), inboxes.iter().map(|inbox| inbox.queued).sum::<u64>());
    let active_waiters = inboxes.iter().filter(|inbox| waiting(&inbox.presence)).count();
    let mut untracked: HashMap<ClientId, InboxStat> =
        inboxes.into_iter().map(|inbox| (inbox.client.clone(), inbox)).collect();
    let mut rows = Vec::with_capacity(clients.len() + untracked.len());
    for entry in clients {
        untracked.remove(&entry.client);
        rows.push(json!({
            "client_id": entry.client.expose(),
            "name": entry.profile.name,
            "description": entry.profile.capabilities,
            "clientType": "agent by IDE",
            "last_seen": last_seen(entry.presence, now_us),
            "messages_in_queue": entry.queued,
        }));
    }
    let mut untracked: Vec<_> = untracked.into_values().collect();
    untracked.sort_by(|one, other| one.client.cmp(&other.client));
    for inbox in untracked {
        rows.push(json!({
            "client_id": inbox.client.expose(),
            "name": inbox.client.expose(),
            "description": "",
            "clientType": "untracked client",
            "last_seen": last_seen(inbox.presence, now_us),
            "messages_in_queue": inbox.queued,
        }));
    }
    json!({
        "messagingClients": rows,
        "queueStats": {
            "total_queues": total_queues,
            "total_messages": total_messages,
            "active_waiters": active_waiters,
        },
        "total_messages": total_messages,
    })
}

fn last_seen(presence: Presence, now_us: u64) -> Option<String> {
    let ago = match presence {
        Presence::Waiting => Duration::ZERO,
        Presence::Seen(ago) => ago,
        Presence::Unknown => return None,
    };
    Some(rfc3339_seconds((now_us / 1_000_000).saturating_sub(ago.as_secs())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Profile;

    #[test]
    fn clients_that_checked_in_come_first_and_queues_without_one_are_untracked() {
        let client = |id: &str| id.parse::<ClientId>().unwrap();
        let alice = ClientEntry {
            client: client("alice"),
            profile: Profile { name: "Alice".into(), capabilities: "reviews".into() },
            presence: Presence::Seen(Duration::from_mins(1)),
            queued: 2,
        };
        let stat = |id, queued, presence| InboxStat { client: client(id), queued, presence };
        let inboxes = vec![
            stat("alice", 2, Presence::Seen(Duration::from_mins(1))),
            stat("bob", 1, Presence::Waiting),
        ];
        let row = |id, name, text, kind, seen, queued| {
            json!({
                "client_id": id, "name": name, "description": text, "clientType": kind,
                "last_seen": seen, "messages_in_queue": queued,
            })
        };
        let expected = json!({
            "messagingClients": [
                row("alice", "Alice", "reviews", "agent by IDE", "1970-01-01T00:00:40Z", 2),
                row("bob", "bob", "", "untracked client", "1970-01-01T00:01:40Z", 1),
            ],
            "queueStats": { "total_queues": 2, "total_messages": 3, "active_waiters": 1 },
            "total_messages": 3,
        });
        assert_eq!(render(vec![alice], inboxes, 100_000_000), expected);
    }
}
