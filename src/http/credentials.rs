//! Credentials on HTTP: what is asked of a request, how it is refused (RFC 6750), and the end of those
//! that end while a call waits.

use std::time::Duration;

use actix_web::{
    HttpRequest,
    http::{
        StatusCode, Uri,
        header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    web::Data,
};

use super::{
    guard::{Attempt, Guard, TooMany},
    mcp_endpoint::Refusal,
    state::HttpState,
};
use crate::{
    auth::{self, Admitted, Authenticator, Denied, Resource},
    model::{Grant, Principal, Scope, Scopes},
    telemetry::Refusal as Reason,
};

/// How often a call that waits is asked whether its caller is welcome still.
const ASK_EVERY: Duration = Duration::from_secs(4);

/// Refuses a credential in the URL, also beside one in the header: logs and histories have it by now.
pub(super) fn check_url(uri: &Uri) -> Result<(), Refusal> {
    if !uri.query().is_some_and(auth::is_in_query) {
        return Ok(());
    }
    Err(Refusal {
        status: StatusCode::BAD_REQUEST,
        text: "a credential stands in the URL, which proxies and logs keep: send it in the header Authorization: Bearer ..., \
               and use this one no more"
            .to_owned(),
        reason: Some(Reason::KeyInUrl),
        header: Some((
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer error=\"invalid_request\""),
        )),
    })
}

/// Lets a request in, before anything else of it is looked at.
pub(super) async fn admit(request: &HttpRequest, state: &HttpState) -> Result<Admitted, Refusal> {
    let attempt = attempt(request, state).await?;
    let values = request.headers().get_all(state.auth.header()).map(HeaderValue::as_bytes);
    let peer = request.peer_addr().map(|peer| peer.ip());
    let admitted = state.auth.admit(peer, values).await;
    if let Some(attempt) = attempt {
        match &admitted {
            Ok(_) => attempt.good(),
            Err(denied) if denied.may_be_a_guess() => attempt.bad(),
            Err(_) => attempt.undecided(),
        }
    }
    admitted.map_err(|denied| refused(denied, &state.auth))
}

/// Asks whether a credential of this request may be looked at, or too many from its address were bad. `None`:
/// nobody counts that.
pub(super) async fn attempt<'a>(
    request: &'a HttpRequest,
    state: &HttpState,
) -> Result<Option<Attempt<'a>>, Refusal> {
    match request.app_data::<Data<Guard>>() {
        Some(guard) if state.auth.may_be_guessed() => {
            guard.attempt(request, &state.stop).await.map_err(too_many)
        }
        Some(_) | None => Ok(None),
    }
}

/// The same for a join code, which stands in the body.
pub(super) async fn attempt_with_code<'a>(
    request: &'a HttpRequest,
    state: &HttpState,
    code: &str,
) -> Result<Option<Attempt<'a>>, Refusal> {
    match request.app_data::<Data<Guard>>() {
        Some(guard) => guard.attempt_with(code, request, &state.stop).await.map_err(too_many),
        None => Ok(None),
    }
}

/// A credential was not looked at.
fn too_many(TooMany { retry_after }: TooMany) -> Refusal {
    let seconds = retry_after.as_secs() + 1;
    tracing::info!(target: "audit", action = "authenticate", result = Reason::TooManyFailures.label());
    Refusal {
        status: StatusCode::TOO_MANY_REQUESTS,
        text: format!(
            "too many bad credentials came from your address, so this one was not looked at; try again in {seconds} s"
        ),
        reason: Some(Reason::TooManyFailures),
        header: Some((RETRY_AFTER, HeaderValue::from(seconds))),
    }
}

fn refused(denied: Denied, auth: &Authenticator) -> Refusal {
    let why = denied.label();
    tracing::info!(target: "audit", action = "authenticate", result = why);
    tracing::debug!(why, "a credential was refused");
    let (status, reason, said) = match denied {
        Denied::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, Reason::KeyUnchecked, None),
        Denied::NoSigningKeys => (StatusCode::SERVICE_UNAVAILABLE, Reason::TokenUnchecked, None),
        Denied::Missing => (StatusCode::UNAUTHORIZED, Reason::KeyMissing, None),
        Denied::NoToken => (StatusCode::UNAUTHORIZED, Reason::TokenMissing, None),
        Denied::Invalid(_) => (StatusCode::UNAUTHORIZED, Reason::KeyInvalid, INVALID),
        Denied::Expired => (StatusCode::UNAUTHORIZED, Reason::KeyExpired, INVALID),
        Denied::Revoked => (StatusCode::UNAUTHORIZED, Reason::KeyRevoked, INVALID),
        Denied::Token(_) => (StatusCode::UNAUTHORIZED, Reason::TokenInvalid, INVALID),
        Denied::TokenExpired => (StatusCode::UNAUTHORIZED, Reason::TokenExpired, INVALID),
        // A 401 must name a scheme of HTTP by which to do better, and there is none: clients would look for a login.
        Denied::Unnamed => (StatusCode::FORBIDDEN, Reason::NameMissing, None),
        Denied::NotTheProxy => (StatusCode::FORBIDDEN, Reason::NameForged, None),
        Denied::BadName => (StatusCode::FORBIDDEN, Reason::NameInvalid, None),
        Denied::Unscoped => (StatusCode::FORBIDDEN, Reason::Scope, INSUFFICIENT),
        // Another token of the same person would be no better: nobody is sent to get one.
        Denied::NoClient { .. } | Denied::NoTenant => {
            (StatusCode::FORBIDDEN, Reason::TokenOfNobody, None)
        }
    };
    let header = match status {
        StatusCode::SERVICE_UNAVAILABLE => Some((RETRY_AFTER, HeaderValue::from_static("2"))),
        StatusCode::FORBIDDEN if said.is_none() => None,
        _ => challenge(auth, said, Resource::usual_scopes()).map(|said| (WWW_AUTHENTICATE, said)),
    };
    Refusal { status, text: denied.to_string(), reason: Some(reason), header }
}

const INVALID: Option<&str> = Some("invalid_token");
const INSUFFICIENT: Option<&str> = Some("insufficient_scope");

/// `WWW-Authenticate` (RFC 6750, section 3; RFC 9728, section 5.1). Clients of mode `oauth` are told where
/// they learn of the authorization server, and which `scopes` to ask it for. Those of mode `proxy` have nothing to ask for.
fn challenge(auth: &Authenticator, error: Option<&str>, scopes: Scopes) -> Option<HeaderValue> {
    if let Authenticator::Named(_) = auth {
        return None;
    }
    let mut said = Vec::new();
    said.extend(error.map(|error| format!("error=\"{error}\"")));
    if auth.resource().is_some() || error == INSUFFICIENT {
        said.push(format!("scope=\"{scopes}\""));
    }
    let metadata = auth.resource().map(Resource::metadata_url);
    said.extend(metadata.map(|url| format!("resource_metadata=\"{url}\"")));
    let value = format!("Bearer {}", said.join(", "));
    // Scopes and URLs are plain text.
    Some(HeaderValue::from_str(value.trim_end()).unwrap_or(HeaderValue::from_static("Bearer")))
}

/// What tells a caller that its credential does not allow what it asked for.
pub(super) fn insufficient(
    auth: &Authenticator,
    principal: &Principal,
    lacking: Scopes,
) -> Option<HeaderValue> {
    tracing::info!(
        target: "audit",
        action = "scope_rejected",
        tenant = principal.tenant().as_str(),
        client = principal.grant().map(Grant::expose),
        scope = %lacking,
        result = "refused",
    );
    // A token is replaced by the next one, which must not allow less: clients before 2026-07-28 ask for
    // what is said here and no more.
    let scopes = if auth.resource().is_some() { lacking.and(principal.scopes()) } else { lacking };
    challenge(auth, INSUFFICIENT, scopes)
}

/// Refuses who may not do this.
pub(super) fn check_scope(
    auth: &Authenticator,
    admitted: &Admitted,
    scope: Scope,
) -> Result<(), Refusal> {
    match admitted.principal.lacks(&[scope]) {
        None => Ok(()),
        Some(lacking) => {
            let text =
                format!("your credential lacks the scope {lacking}: ask for one that has it");
            let header = insufficient(auth, &admitted.principal, lacking);
            Err(Refusal {
                status: StatusCode::FORBIDDEN,
                text,
                reason: Some(Reason::Scope),
                header: header.map(|said| (WWW_AUTHENTICATE, said)),
            })
        }
    }
}

/// Ends a call that waits when its caller's credential ends. Dropping it ends the watch, not the call.
pub(super) struct Vigil(tokio::task::AbortHandle);

impl Vigil {
    /// Does what `ends` gives, once `admitted` is no longer welcome. `None`: that cannot happen.
    pub(super) fn keep<End: FnOnce() + 'static>(
        auth: &Authenticator,
        admitted: &Admitted,
        ends: impl FnOnce() -> End,
    ) -> Option<Self> {
        if !admitted.may_end() {
            return None;
        }
        let (auth, admitted, end) = (auth.clone(), admitted.clone(), ends());
        let watch = actix_web::rt::spawn(async move {
            loop {
                tokio::time::sleep(ASK_EVERY).await;
                match auth.still_admits(&admitted).await {
                    // While that cannot be found out, the store has nothing to hand out either.
                    Ok(()) => {}
                    Err(denied) if denied.may_pass() => {}
                    Err(_ended) => return end(),
                }
            }
        });
        Some(Self(watch.abort_handle()))
    }
}

impl Drop for Vigil {
    fn drop(&mut self) {
        self.0.abort();
    }
}
