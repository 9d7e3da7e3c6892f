//! Probes and metrics. `/livez` never looks at the store, or trouble there would restart every
//! replica.

use std::convert::Infallible;

use actix_web::{HttpResponse, web::Data};

use super::state::HttpState;
use crate::messaging::MessagingError;

pub(super) async fn livez() -> Result<HttpResponse, Infallible> {
    Ok(HttpResponse::Ok().body("ok"))
}

pub(super) async fn readyz(state: Data<HttpState>) -> Result<HttpResponse, Infallible> {
    if state.stop.is_cancelled() {
        return Ok(HttpResponse::ServiceUnavailable().body("shutting down"));
    }
    Ok(match state.messaging.ready().await {
        Ok(()) => HttpResponse::Ok().body("ok"),
        Err(MessagingError::Queue(cause)) => HttpResponse::ServiceUnavailable().body(cause.label()),
        Err(_) => HttpResponse::ServiceUnavailable().body("not ready"),
    })
}

pub(super) async fn metrics(state: Data<HttpState>) -> Result<HttpResponse, Infallible> {
    Ok(HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(state.metrics.render()))
}
