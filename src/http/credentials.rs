//! Credentials on HTTP: what is asked of a request, how it is refused (RFC 6750), and the end of those
//! that end while a call waits.

use std::time::Duration;

use actix_web::{
    HttpRequest,
    http::{
        StatusCode, Uri,
        header::{AUTHORIZATION, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    web::Data,
};
use tokio_util::sync::CancellationToken;

use super::{
    guard::{Attempt, Guard, TooMany},
    mcp_endpoint::Refusal,
    state::HttpState,
};
use crate::{
    auth::{self, Admitted, Authenticator, Denied},
    model::{Grant, Principal, Scope},
    telemetry::Refusal as Reason,
};

/// How often a call that waits is asked whether its caller is welcome still.
const ASK_EVERY: Duration = Duration::from_secs(4);

/// Refuses a key in the URL, also beside one in the header: logs and histories have it by now.
pub(super) fn check_url(uri: &Uri) -> Result<(), Refusal> {
    if !uri.query().is_some_and(auth::is_key_in_query) {
        return Ok(());
    }
    Err(Refusal {
        status: StatusCode::BAD_REQUEST,
        text: "a key stands in the URL, which proxies and logs keep: send it in the header Authorization: Bearer \
               mbk_..., and have this one taken back"
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
    let values = request.headers().get_all(AUTHORIZATION).map(HeaderValue::as_bytes);
    let admitted = state.auth.admit(values).await;
    if let Some(attempt) = attempt {
        match &admitted {
            Ok(_) => attempt.good(),
            Err(Denied::Missing | Denied::Unavailable) => attempt.undecided(),
            Err(Denied::Invalid(_) | Denied::Expired | Denied::Revoked) => attempt.bad(),
        }
    }
    admitted.map_err(refused)
}

/// Asks whether a credential of this request may be looked at, or too many from its address were bad. `None`:
/// nobody counts that.
pub(super) async fn attempt<'a>(
    request: &'a HttpRequest,
    state: &HttpState,
) -> Result<Option<Attempt<'a>>, Refusal> {
    match request.app_data::<Data<Guard>>() {
        Some(guard) if state.auth.checks() => {
            guard.attempt(request, &state.stop).await.map_err(too_many)
        }
        Some(_) | None => Ok(None),
    }
}

/// A credential was not looked at.
fn too_many(TooMany { retry_after }: TooMany) -> Refusal {
    let seconds = retry_after.as_secs() + 1;
    tracing::info!(target: "audit", action = "authenticate", result = Reason::TooManyFailures.label());
    Refusal {
        status: StatusCode::TOO_MANY_REQUESTS,
        text: format!(
            "too many keys that are not good came from your address, so this one was not looked at; try again in {seconds} s"
        ),
        reason: Some(Reason::TooManyFailures),
        header: Some((RETRY_AFTER, HeaderValue::from(seconds))),
    }
}

fn refused(denied: Denied) -> Refusal {
    tracing::info!(target: "audit", action = "authenticate", result = denied.label());
    let (status, header) = match denied {
        Denied::Unavailable => {
            let soon = (RETRY_AFTER, HeaderValue::from_static("2"));
            (StatusCode::SERVICE_UNAVAILABLE, soon)
        }
        Denied::Missing => challenge("Bearer"),
        Denied::Invalid(_) | Denied::Expired | Denied::Revoked => {
            challenge("Bearer error=\"invalid_token\"")
        }
    };
    let reason = match denied {
        Denied::Missing => Reason::KeyMissing,
        Denied::Invalid(_) => Reason::KeyInvalid,
        Denied::Expired => Reason::KeyExpired,
        Denied::Revoked => Reason::KeyRevoked,
        Denied::Unavailable => Reason::KeyUnchecked,
    };
    Refusal { status, text: denied.to_string(), reason: Some(reason), header: Some(header) }
}

fn challenge(value: &'static str) -> (StatusCode, (HeaderName, HeaderValue)) {
    (StatusCode::UNAUTHORIZED, (WWW_AUTHENTICATE, HeaderValue::from_static(value)))
}

/// What tells a caller that its credential does not allow what it asked for.
pub(super) fn insufficient(principal: &Principal, scope: &'static str) -> HeaderValue {
    tracing::info!(
        target: "audit",
        action = "scope_rejected",
        tenant = principal.tenant().as_str(),
        client = principal.grant().map(Grant::expose),
        scope,
        result = "refused",
    );
    let value = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
    // Names of scopes are plain text.
    HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static("Bearer"))
}

/// Refuses who may not do this.
pub(super) fn check_scope(admitted: &Admitted, scope: Scope) -> Result<(), Refusal> {
    match admitted.principal.lacks(&[scope]) {
        None => Ok(()),
        Some(scope) => {
            let text =
                format!("your key lacks the scope {}: ask for one that has it", scope.as_str());
            let header =
                Some((WWW_AUTHENTICATE, insufficient(&admitted.principal, scope.as_str())));
            Err(Refusal {
                status: StatusCode::FORBIDDEN,
                text,
                reason: Some(Reason::Scope),
                header,
            })
        }
    }
}

/// Ends a call that waits when its caller's credential ends. Dropping it ends the watch, not the call.
pub(super) struct Vigil(tokio::task::AbortHandle);

impl Vigil {
    /// Cancels `call` once `admitted` is no longer welcome. `None`: that cannot happen.
    pub(super) fn keep(
        auth: &Authenticator,
        admitted: &Admitted,
        call: impl FnOnce() -> CancellationToken,
    ) -> Option<Self> {
        if !admitted.may_end() {
            return None;
        }
        let (auth, admitted, call) = (auth.clone(), admitted.clone(), call());
        let watch = actix_web::rt::spawn(async move {
            loop {
                tokio::time::sleep(ASK_EVERY).await;
                match auth.still_admits(&admitted).await {
                    // While that cannot be found out, the store has nothing to hand out either.
                    Ok(()) | Err(Denied::Unavailable) => {}
                    Err(
                        Denied::Missing | Denied::Invalid(_) | Denied::Expired | Denied::Revoked,
                    ) => {
                        return call.cancel();
                    }
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
