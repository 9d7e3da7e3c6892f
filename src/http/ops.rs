//! Probes and metrics. `/livez` never looks at the store, or trouble there would restart every
//! replica.

use std::convert::Infallible;

use actix_web::{HttpResponse, web::Data};

use super::state::HttpState;
use crate::telemetry::Readiness;

pub(super) async fn livez() -> Result<HttpResponse, Infallible> {
    Ok(HttpResponse::Ok().body("ok"))
}

/// `ok`, or the reason that metrics have too, and what to do about it. The cause itself may name what is
/// nobody else's business, and is in the log.
pub(super) async fn readyz(state: Data<HttpState>) -> Result<HttpResponse, Infallible> {
    let now = if state.leaving.is_cancelled() {
        Readiness::Stopping
    } else {
        state.messaging.ready().await.map_or_else(|unready| unready.reason, |()| Readiness::Ok)
    };
    state.metrics.ready(now);
    if now == Readiness::Ok {
        return Ok(HttpResponse::Ok().body("ok"));
    }
    let why = format!("{}: {}", now.label(), now.remedy());
    Ok(HttpResponse::ServiceUnavailable().body(why))
}

pub(super) async fn metrics(state: Data<HttpState>) -> Result<HttpResponse, Infallible> {
    Ok(HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(state.metrics.render()))
}
