//! How the API of teams says no: problem details (RFC 9457).

use actix_web::{
    HttpResponse,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER},
    },
};
use serde_json::json;

use super::mcp_endpoint::Refusal;
use crate::{
    queue::QueueError,
    teams::TeamError,
    telemetry::{Metrics, Refusal as Reason},
};

/// Why a request was not served.
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    reason: Option<Reason>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), reason: None, headers: Vec::new() }
    }

    pub(super) fn because(self, reason: Reason) -> Self {
        Self { reason: Some(reason), ..self }
    }

    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(super) fn respond(self, metrics: &Metrics) -> HttpResponse {
        if let Some(reason) = self.reason {
            metrics.refusal(reason);
        }
        let mut builder = HttpResponse::build(self.status);
        builder.insert_header((CONTENT_TYPE, "application/problem+json"));
        builder.insert_header((CACHE_CONTROL, "no-store"));
        for header in self.headers {
            builder.insert_header(header);
        }
        let body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        builder.body(body.to_string())
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let Refusal { status, text, reason, header } = refusal;
        Self { status, detail: text, reason, headers: header.into_iter().collect() }
    }
}

impl From<TeamError> for Problem {
    fn from(error: TeamError) -> Self {
        let detail = error.to_string();
        let rule = |status| Self::new(status, &*detail).because(Reason::TeamRule);
        match error {
            TeamError::NoTeams | TeamError::NoStore | TeamError::NoMasterKey => {
                Self::new(StatusCode::NOT_IMPLEMENTED, detail)
            }
            TeamError::NotYours | TeamError::Beyond(_) => rule(StatusCode::FORBIDDEN),
            TeamError::BadCode => {
                Self::new(StatusCode::FORBIDDEN, detail).because(Reason::JoinCode)
            }
            TeamError::OtherClient | TeamError::Taken | TeamError::LastAdmin => {
                rule(StatusCode::CONFLICT)
            }
            TeamError::NoClient | TeamError::Value(..) => {
                Self::new(StatusCode::BAD_REQUEST, detail).because(Reason::BadArgument)
            }
            TeamError::Unknown(_) => rule(StatusCode::NOT_FOUND),
            TeamError::TooMuch { .. } => rule(StatusCode::UNPROCESSABLE_ENTITY),
            TeamError::Busy => {
                let soon = HeaderValue::from_static("1");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, detail).with(RETRY_AFTER, soon)
            }
            TeamError::Store(cause) => {
                // Here its cause leaves the program.
                tracing::error!(error.kind = cause.label(), error = %cause, "a change of a team failed");
                let status = match cause {
                    QueueError::Unavailable { .. } | QueueError::Timeout => {
                        StatusCode::SERVICE_UNAVAILABLE
                    }
                    QueueError::InboxFull { .. }
                    | QueueError::TooManyWaits { .. }
                    | QueueError::IdempotencyConflict { .. }
                    | QueueError::Unreadable { .. }
                    | QueueError::NoAnswer
                    | QueueError::Contract { .. } => StatusCode::INTERNAL_SERVER_ERROR,
                };
                Self::new(status, detail).with(RETRY_AFTER, HeaderValue::from_static("2"))
            }
        }
    }
}
