//! The API of teams: `/api/join`, `/api/contacts`, `/api/admin/...`. `docs/teams.md` has all of it.
//!
//! Ids, keys and codes are in bodies, never in a URL: those end up in logs of others.

use std::{collections::BTreeSet, convert::Infallible, rc::Rc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        Method, StatusCode,
        header::{ALLOW, CACHE_CONTROL, HeaderValue},
    },
    web::{self, Bytes, Data, Payload, ServiceConfig},
};
use secrecy::ExposeSecret;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    credentials,
    io::Connection,
    mcp_endpoint::{self, Refusal, Shares},
    origin,
    problem::Problem,
    state::HttpState,
};
use crate::{
    model::{Grant, Peers, Scope, Scopes, Tenant, rfc3339_seconds as utc},
    queue::{ContactPolicy, Invitation, KeyId, Policy, Role},
    teams::{Actor, Insist, InviteSpec, KeySpec, ListedKey, ListedMember, Made, TeamError},
    telemetry::Refusal as Reason,
};

/// Longest body, bytes.
const BODY: usize = 64 * 1024;

/// What is served, and by which methods.
const PATHS: &[(&str, &str)] = &[
    ("/api/join", "POST"),
    ("/api/contacts", "GET, POST"),
    ("/api/admin/keys", "GET, POST"),
    ("/api/admin/keys/rotate", "POST"),
    ("/api/admin/keys/revoke", "POST"),
    ("/api/admin/invitations", "GET, POST"),
    ("/api/admin/invitations/withdraw", "POST"),
    ("/api/admin/members", "GET"),
    ("/api/admin/members/remove", "POST"),
    ("/api/admin/contacts", "GET, POST"),
    ("/api/admin/teams", "POST"),
];

pub(super) fn register(app: &mut ServiceConfig) {
    for (path, _) in PATHS {
        app.service(web::resource(*path).route(web::route().to(serve)));
    }
}

async fn serve(
    request: HttpRequest,
    payload: Payload,
    state: Data<HttpState>,
) -> Result<HttpResponse, Infallible> {
    // A key that was made is written before the replica ends.
    let _serving = request.conn_data::<Rc<Connection>>().map(Connection::serve);
    Ok(match handle(&request, payload, &state).await {
        Ok((status, answer)) => {
            HttpResponse::build(status).insert_header((CACHE_CONTROL, "no-store")).json(answer)
        }
        Err(problem) => problem.respond(&state.metrics),
    })
}

type Answer = Result<(StatusCode, Value), Problem>;

async fn handle(request: &HttpRequest, payload: Payload, state: &HttpState) -> Answer {
    origin::check(request.headers(), &state.config)
        .map_err(|(reason, why)| Problem::new(StatusCode::FORBIDDEN, why).because(reason))?;
    credentials::check_url(request.uri())?;
    let (path, method) = (request.path(), request.method());
    let allowed = PATHS.iter().find(|(known, _)| *known == path).map_or("", |(_, allowed)| allowed);
    if !allowed.split(", ").any(|allowed| allowed == method.as_str()) {
        let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("use {allowed}"));
        return Err(problem
            .because(Reason::HttpMethod)
            .with(ALLOW, HeaderValue::from_static(allowed)));
    }
    if path == "/api/join" {
        let (body, _share) = read(request, payload, state).await?;
        return join(request, state, &body).await;
    }
    let admitted = credentials::admit(request, state).await?;
    let admin = path.strip_prefix("/api/admin/");
    if admin.is_some() {
        credentials::check_scope(&state.auth, &admitted, Scope::Admin)?;
    }
    let by = Actor::holder(&admitted.principal).ok_or(TeamError::NoTeams)?;
    if *method == Method::GET {
        return match admin {
            None => own_contacts(state, &by).await,
            Some(what) => list(state, &by, what).await,
        };
    }
    let (body, _share) = read(request, payload, state).await?;
    match admin {
        None => set_own_contacts(state, &by, &body).await,
        Some(what) => change(state, &by, what, &body).await,
    }
}

/// The body, which is JSON, and its share of what the process may hold.
async fn read(
    request: &HttpRequest,
    payload: Payload,
    state: &HttpState,
) -> Result<(Bytes, Shares), Refusal> {
    let (headers, connection) = (request.headers(), mcp_endpoint::connection(request)?);
    mcp_endpoint::check_content_type(headers)?;
    mcp_endpoint::read(headers, &connection, payload, BODY, &state.config).await
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, format!("the body is not what is asked for: {error}"))
            .because(Reason::BadArgument)
    })
}

#[expect(clippy::unnecessary_wraps, reason = "the end of what may fail")]
fn done(answer: Value) -> Answer {
    Ok((StatusCode::OK, answer))
}

#[expect(clippy::unnecessary_wraps, reason = "the end of what may fail")]
fn made(answer: Value) -> Answer {
    Ok((StatusCode::CREATED, answer))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Join {
    code: String,
    client: Option<Grant>,
}

async fn join(request: &HttpRequest, state: &HttpState, body: &[u8]) -> Answer {
    let Join { code, client } = parse(body)?;
    // A code is a credential too: whoever sends many bad ones is slowed.
    let attempt = credentials::attempt_with_code(request, state, &code).await?;
    let joined = state.teams.join(&code, client.as_ref()).await;
    if let Some(attempt) = attempt {
        match &joined {
            Ok(_) => attempt.good(),
            Err(TeamError::BadCode) => attempt.bad(),
            Err(_) => attempt.undecided(),
        }
    }
    let joined = joined?;
    let mut answer = key(&joined);
    answer["role"] = Role::of(joined.key.scopes).as_str().into();
    made(answer)
}

/// A key that was made, the one time that it is shown.
fn key(Made { key, sealed }: &Made) -> Value {
    json!({
        "id": key.id.to_string(),
        "key": sealed.expose_secret(),
        "team": key.tenant,
        "client": key.grant,
        "scopes": names(key.scopes),
        "generation": key.generation,
        "expires_at": key.expires_at.map(utc),
    })
}

fn names(scopes: Scopes) -> Vec<&'static str> {
    scopes.iter().map(Scope::as_str).collect()
}

async fn own_contacts(state: &HttpState, by: &Actor) -> Answer {
    let policies = state.teams.own_contacts(by).await?;
    done(json!({ "contacts": policies.iter().map(contact).collect::<Vec<_>>() }))
}

fn contact((client, policy): &(Grant, ContactPolicy)) -> Value {
    let ContactPolicy { policy, allow, block } = policy;
    json!({ "client": client, "policy": policy, "allow": allow, "block": block })
}

/// A policy; what is not given is as if nothing had been said ever.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetContacts {
    client: Option<Grant>,
    #[serde(default)]
    policy: Policy,
    #[serde(default)]
    allow: Vec<Peers>,
    #[serde(default)]
    block: Vec<Peers>,
}

impl SetContacts {
    fn split(self) -> (Option<Grant>, ContactPolicy) {
        let Self { client, policy, allow, block } = self;
        (client, ContactPolicy { policy, allow, block })
    }
}

async fn set_own_contacts(state: &HttpState, by: &Actor, body: &[u8]) -> Answer {
    let (client, policy) = parse::<SetContacts>(body)?.split();
    let client = state.teams.set_own_contacts(by, client, policy.clone()).await?;
    done(contact(&(client, policy)))
}

async fn list(state: &HttpState, by: &Actor, what: &str) -> Answer {
    let teams = &state.teams;
    done(match what {
        "keys" => json!({ "keys": teams.keys(by).await?.iter().map(listed).collect::<Vec<_>>() }),
        "invitations" => {
            let open = teams.invitations(by).await?;
            json!({ "invitations": open.iter().map(invitation).collect::<Vec<_>>() })
        }
        "members" => {
            json!({ "members": teams.members(by).await?.iter().map(member).collect::<Vec<_>>() })
        }
        // The only other one that is listed.
        _ => {
            let team = teams.policies(by).await?;
            let contacts: Vec<_> = team.contacts.into_iter().collect();
            json!({
                "contacts": contacts.iter().map(contact).collect::<Vec<_>>(),
                "teams": team.teams,
            })
        }
    })
}

fn listed(ListedKey { key, state, ends_ms }: &ListedKey) -> Value {
    json!({
        "id": key.id.to_string(),
        "client": key.grant,
        "scopes": names(key.scopes),
        "generation": key.generation,
        "master_key": key.master,
        "issued_at": utc(key.issued_at),
        "expires_at": key.expires_at.map(utc),
        "state": state,
        "ends_at": ends_ms.map(|ms| utc(ms / 1000)),
    })
}

fn invitation(open: &Invitation) -> Value {
    json!({
        "id": open.id,
        "role": open.role,
        "client": open.client,
        "days": open.days,
        "made_by": open.by.as_ref().map_or("operator".to_owned(), Grant::expose),
        "made_at": utc(open.made_at),
        "expires_at": utc(open.expires_at),
    })
}

fn member(ListedMember { client, role, since, keys }: &ListedMember) -> Value {
    json!({ "client": client, "role": role, "since": since.map(utc), "good_keys": keys })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MakeKey {
    client: Grant,
    #[serde(default)]
    scopes: Vec<String>,
    days: Option<u64>,
    grace_hours: Option<u64>,
}

impl MakeKey {
    fn spec(&self) -> Result<KeySpec, Problem> {
        let scopes = match self.scopes.join(" ") {
            none if none.is_empty() => Role::Member.scopes(),
            some => some.parse().map_err(|problem| {
                Problem::new(StatusCode::BAD_REQUEST, format!("scopes {problem}"))
                    .because(Reason::BadArgument)
            })?,
        };
        Ok(KeySpec { client: self.client.clone(), scopes, days: self.days.unwrap_or(90) })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    client: Option<Grant>,
    key: Option<String>,
    #[serde(default)]
    even_the_last_admin: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Invite {
    role: Option<Role>,
    client: Option<Grant>,
    hours: Option<u64>,
    days: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Withdraw {
    id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Remove {
    client: Grant,
    #[serde(default)]
    even_the_last_admin: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetTeams {
    teams: BTreeSet<Tenant>,
}

fn insist(said: bool) -> Insist {
    if said { Insist::EvenTheLastAdmin } else { Insist::No }
}

/// What an admin changes.
async fn change(state: &HttpState, by: &Actor, what: &str, body: &[u8]) -> Answer {
    let teams = &state.teams;
    match what {
        "keys" => {
            let ask: MakeKey = parse(body)?;
            if ask.grace_hours.is_some() {
                let why = "grace_hours is for /api/admin/keys/rotate";
                return Err(Problem::new(StatusCode::BAD_REQUEST, why).because(Reason::BadArgument));
            }
            made(key(&teams.issue(by, &ask.spec()?).await?))
        }
        "keys/rotate" => {
            let ask: MakeKey = parse(body)?;
            let hours = ask.grace_hours.unwrap_or(24);
            let grace = Duration::from_secs(hours.saturating_mul(3600));
            made(key(&teams.rotate(by, &ask.spec()?, grace).await?))
        }
        "keys/revoke" => revoke(state, by, body).await,
        "invitations" => {
            let Invite { role, client, hours, days } = parse(body)?;
            let role = role.unwrap_or(Role::Member);
            let (hours, days) = (hours.unwrap_or(72), days.unwrap_or(90));
            let invited = teams.invite(by, &InviteSpec { role, client, hours, days }).await?;
            let mut answer = invitation(&invited.invitation);
            answer["code"] = invited.code.expose().into();
            made(answer)
        }
        "invitations/withdraw" => {
            let Withdraw { id } = parse(body)?;
            teams.withdraw(by, &id).await?;
            done(json!({ "withdrawn": id }))
        }
        "members/remove" => {
            let Remove { client, even_the_last_admin } = parse(body)?;
            teams.remove(by, &client, insist(even_the_last_admin)).await?;
            done(json!({ "removed": client, "keys_end_within_seconds": 10 }))
        }
        "contacts" => {
            let (client, policy) = parse::<SetContacts>(body)?.split();
            let client = client.ok_or(TeamError::Value("client", "given: whose policy is it?"))?;
            let client = teams.set_contacts(by, client, policy.clone()).await?;
            done(contact(&(client, policy)))
        }
        // The only other one that is changed.
        _ => {
            let SetTeams { teams: listed } = parse(body)?;
            teams.set_teams(by, listed.clone()).await?;
            done(json!({ "teams": listed }))
        }
    }
}

async fn revoke(state: &HttpState, by: &Actor, body: &[u8]) -> Answer {
    let Revoke { client, key, even_the_last_admin } = parse(body)?;
    let insist = insist(even_the_last_admin);
    match (client, key.map(|id| id.parse::<KeyId>())) {
        (Some(client), None) => {
            state.teams.revoke_client(by, &client, insist).await?;
            done(json!({ "revoked_client": client, "keys_end_within_seconds": 10 }))
        }
        (None, Some(Ok(id))) => {
            state.teams.revoke_key(by, id, insist).await?;
            done(json!({ "revoked_key": id.to_string(), "keys_end_within_seconds": 10 }))
        }
        (None, Some(Err(problem))) => {
            let why = format!("key {problem}");
            Err(Problem::new(StatusCode::BAD_REQUEST, why).because(Reason::BadArgument))
        }
        (None, None) | (Some(_), Some(_)) => {
            let why = "give client or key, one of them";
            Err(Problem::new(StatusCode::BAD_REQUEST, why).because(Reason::BadArgument))
        }
    }
}
