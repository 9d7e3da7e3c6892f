//! `GET /.well-known/oauth-protected-resource`: where clients learn who gives access (RFC 9728). It is
//! there in mode `oauth` only: where it is not, clients know that there is nothing to log in to.

use std::convert::Infallible;

use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, http::StatusCode, web::Data};

use super::{origin, state::HttpState};

/// The beginning of its paths.
pub(super) const PREFIX: &str = "/.well-known/oauth-protected-resource";

pub(super) async fn get(
    request: HttpRequest,
    state: Data<HttpState>,
) -> Result<HttpResponse, Infallible> {
    if let Err((reason, why)) = origin::check_host(request.headers(), &state.config) {
        state.metrics.refusal(reason);
        return Ok(HttpResponse::Forbidden().body(why));
    }
    let described = state.auth.resource().filter(|it| it.is_described_at(request.path()));
    Ok(match described {
        Some(resource) => with_cors(StatusCode::OK)
            .insert_header(("cache-control", "public, max-age=600"))
            .json(resource.metadata()),
        None => HttpResponse::NotFound().body("not found: there is nothing to log in to here"),
    })
}

pub(super) async fn options() -> Result<HttpResponse, Infallible> {
    Ok(with_cors(StatusCode::NO_CONTENT).finish())
}

/// Every page may read it, as clients in browsers do before they log in: it is the same for everybody and
/// says nothing that its reader could not find out. No credential is taken for it.
fn with_cors(status: StatusCode) -> HttpResponseBuilder {
    let mut builder = HttpResponse::build(status);
    builder
        .insert_header(("access-control-allow-origin", "*"))
        .insert_header(("access-control-allow-methods", "GET, OPTIONS"))
        .insert_header(("access-control-allow-headers", "*"));
    builder
}
