//! `POST /mcp`: media types, sizes, and the choice between one answer and a stream.

use std::{convert::Infallible, future::poll_fn, pin::Pin, rc::Rc, task::Poll};

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    body::MessageBody,
    http::{
        StatusCode,
        header::{
            ACCEPT, ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
            RETRY_AFTER, WWW_AUTHENTICATE,
        },
    },
    web::{Data, Payload},
};
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt as _, Stream as _};
use serde_json::json;
use tokio::time::timeout;

use super::{
    burden::Share,
    credentials::{self, Vigil},
    io::Connection,
    origin,
    settle::{LastChunk, Settling},
    sse,
    state::{HttpConfig, HttpState},
};
use crate::{
    mcp::{Answer, Field, Finished, Frame, Headers, Incoming, Lookup, Operation},
    model::Principal,
    telemetry::{Metrics, Refusal as Reason},
};

static PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
static METHOD: HeaderName = HeaderName::from_static("mcp-method");
static NAME: HeaderName = HeaderName::from_static("mcp-name");
static SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Bodies up to this size burden nobody, bytes.
const SMALL: usize = 16 * 1024;
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A request that HTTP refuses before the protocol sees it.
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) text: String,
    pub(super) reason: Option<Reason>,
    /// What says more.
    pub(super) header: Option<(HeaderName, HeaderValue)>,
}

fn refusal(status: StatusCode, text: impl Into<String>) -> Refusal {
    let reason = match status {
        StatusCode::METHOD_NOT_ALLOWED => Some(Reason::HttpMethod),
        StatusCode::NOT_ACCEPTABLE => Some(Reason::NotAcceptable),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Some(Reason::ContentType),
        StatusCode::PAYLOAD_TOO_LARGE => Some(Reason::BodyTooLarge),
        StatusCode::BAD_REQUEST | StatusCode::REQUEST_TIMEOUT => Some(Reason::BodyIncomplete),
        StatusCode::SERVICE_UNAVAILABLE => Some(Reason::Memory),
        _ => None,
    };
    Refusal { status, text: text.into(), reason, header: None }
}

impl Refusal {
    pub(super) fn respond(self, metrics: &Metrics) -> HttpResponse {
        if let Some(reason) = self.reason {
            metrics.refusal(reason);
        }
        tracing::info!(
            http.status = self.status.as_u16(),
            reason = self.reason.map(Reason::label),
            "request refused"
        );
        let code = if self.status.is_server_error() { -32603 } else { -32600 };
        let error = json!({ "code": code, "message": self.text });
        let body = json!({ "jsonrpc": "2.0", "error": error }).to_string();
        let mut builder = answer(self.status);
        if let Some(header) = self.header {
            builder.insert_header(header);
        }
        builder.body(body)
    }
}

pub(super) async fn method_not_allowed(state: Data<HttpState>) -> Result<HttpResponse, Infallible> {
    let text = "only POST is served here: there is no stream to GET and no session to DELETE";
    let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, text).respond(&state.metrics);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    Ok(response)
}

pub(super) async fn post(
    request: HttpRequest,
    payload: Payload,
    state: Data<HttpState>,
) -> Result<HttpResponse, Infallible> {
    Ok(match handle(&request, payload, &state).await {
        Ok(response) => response,
        Err(refusal) => refusal.respond(&state.metrics),
    })
}

async fn handle(
    request: &HttpRequest,
    payload: Payload,
    state: &HttpState,
) -> Result<HttpResponse, Refusal> {
    let (headers, connection) = (request.headers(), connection(request)?);
    let serving = connection.serve();
    origin::check(headers, &state.config).map_err(|(reason, text)| Refusal {
        status: StatusCode::FORBIDDEN,
        text,
        reason: Some(reason),
        header: None,
    })?;
    credentials::check_url(request.uri())?;
    let admitted = credentials::admit(request, state).await?;
    check_content_type(headers)?;
    let accepted = Accepted::read(headers)?;
    let limit = state.config.body_limit;
    let (body, share) = read(headers, &connection, payload, limit, &state.config).await?;
    let incoming = {
        let others = |name: &str| Field::read(headers.get_all(name).map(HeaderValue::as_bytes));
        let read = protocol_headers(headers, &admitted.principal, &others);
        state.mcp.receive(&read, &body)
    };
    // actix makes a box for this future at each request: what follows has one of its own, to keep it small.
    let finished = match incoming {
        Incoming::Answer(ready) => {
            let lacking = ready.lacking.and_then(|lacking| {
                credentials::insufficient(&state.auth, &admitted.principal, lacking)
            });
            return Ok(written(request, ready, lacking));
        }
        Incoming::Accepted => return Ok(accepted_response()),
        Incoming::Cancel(call) => {
            state.mcp.cancel(&call).await;
            return Ok(accepted_response());
        }
        Incoming::Reply(reply) => {
            state.mcp.replied(reply).await;
            return Ok(accepted_response());
        }
        Incoming::Call(mut call) => {
            drop(body);
            let vigil = if call.may_wait() {
                Vigil::keep(&state.auth, &admitted, || call.ends_early())
            } else {
                None
            };
            if accepted == Accepted::Stream && call.may_wait() {
                let held = (serving, share);
                match sse::begin(call, state.config.keep_alive, connection, held, vigil).await {
                    Ok(stream) => return Ok(stream_of(stream)),
                    Err(finished) => return finish(request, finished),
                }
            }
            Box::pin(call.run(Frame::default())).await
        }
        Incoming::Listen(mut listen) => {
            drop(body);
            if accepted != Accepted::Stream {
                let why = "a subscription is a stream; Accept must have text/event-stream";
                return Err(refusal(StatusCode::NOT_ACCEPTABLE, why));
            }
            let vigil = Vigil::keep(&state.auth, &admitted, || listen.ends_early());
            match Box::pin(listen.begin()).await {
                Ok((subscription, operation)) => {
                    log_when_written(request, Some(operation));
                    return Ok(stream_of(sse::Feed::new(
                        subscription,
                        state.config.keep_alive,
                        serving,
                        vigil,
                    )));
                }
                Err(finished) => finished,
            }
        }
        Incoming::Batch(mut batch) => {
            drop(body);
            let _vigil = if batch.may_wait() {
                Vigil::keep(&state.auth, &admitted, || batch.ends_early())
            } else {
                None
            };
            Box::pin(batch.run()).await
        }
    };
    finish(request, finished)
}

fn answer(status: StatusCode) -> HttpResponseBuilder {
    let mut builder = HttpResponse::build(status);
    builder.insert_header((CONTENT_TYPE, JSON));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        builder.insert_header((RETRY_AFTER, "1"));
    }
    builder
}

fn stream_of(body: impl MessageBody + 'static) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header(("x-accel-buffering", "no"))
        .body(body)
}

/// The log line of a request must not delay its answer.
fn log_when_written(request: &HttpRequest, operation: Option<Operation>) {
    if let Some(connection) = request.conn_data::<Rc<Connection>>() {
        connection.drop_when_written(operation);
    }
}

fn accepted_response() -> HttpResponse {
    HttpResponse::Accepted().finish()
}

fn written(request: &HttpRequest, ready: Answer, lacking: Option<HeaderValue>) -> HttpResponse {
    log_when_written(request, Some(ready.operation));
    let mut builder = answer(status(ready.status));
    if let Some(session) = ready.session {
        builder.insert_header((SESSION.clone(), session));
    }
    if let Some(challenge) = lacking {
        builder.insert_header((WWW_AUTHENTICATE, challenge));
    }
    builder.body(ready.body)
}

fn finish(request: &HttpRequest, finished: Finished) -> Result<HttpResponse, Refusal> {
    let Finished { status: code, body, delivery, operation } = finished;
    log_when_written(request, operation);
    if body.is_empty() {
        return Ok(accepted_response());
    }
    let mut builder = answer(status(code));
    Ok(match delivery {
        None => builder.body(body),
        Some(delivery) => {
            let chunk = LastChunk::new(body, delivery, connection(request)?);
            builder.body(Settling::new(chunk))
        }
    })
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The connection under the request. It is there unless the request did not come over [`super::serve`];
/// then nobody could say what was written, and messages are better given back.
pub(super) fn connection(request: &HttpRequest) -> Result<Rc<Connection>, Refusal> {
    let none = || refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal error");
    request.conn_data::<Rc<Connection>>().map(Rc::clone).ok_or_else(none)
}

fn protocol_headers<'a>(
    headers: &'a HeaderMap,
    principal: &'a Principal,
    others: Lookup<'a>,
) -> Headers<'a> {
    let field = |name: &HeaderName| Field::read(headers.get_all(name).map(HeaderValue::as_bytes));
    Headers {
        protocol_version: field(&PROTOCOL_VERSION),
        method: field(&METHOD),
        name: field(&NAME),
        session: field(&SESSION),
        traceparent: field(&TRACEPARENT),
        principal: Some(principal),
        others: Some(others),
    }
}

pub(super) fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let value = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if essence.eq_ignore_ascii_case(b"application/json") {
        return Ok(());
    }
    let why = "Content-Type must be application/json";
    Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, why))
}

/// What the client can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accepted {
    Json,
    /// And streams.
    Stream,
}

impl Accepted {
    fn read(headers: &HeaderMap) -> Result<Self, Refusal> {
        let (mut any, mut json, mut stream) = (false, false, false);
        for value in headers.get_all(ACCEPT) {
            for range in value.as_bytes().split(|byte| *byte == b',') {
                any = true;
                let essence = range.split(|byte| *byte == b';').next().unwrap_or_default();
                let essence = essence.trim_ascii();
                stream |= essence.eq_ignore_ascii_case(b"text/event-stream");
                json |= essence == b"*/*"
                    || essence.eq_ignore_ascii_case(b"application/json")
                    || essence.eq_ignore_ascii_case(b"application/*");
            }
        }
        if any && !json {
            let why =
                "Accept must have application/json, and text/event-stream for calls that wait";
            return Err(refusal(StatusCode::NOT_ACCEPTABLE, why));
        }
        Ok(if stream { Self::Stream } else { Self::Json })
    }
}

/// The body, of at most `limit` bytes, and its share of what the process may hold.
pub(super) async fn read(
    headers: &HeaderMap,
    connection: &Connection,
    mut payload: Payload,
    limit: usize,
    config: &HttpConfig,
) -> Result<(Bytes, Shares), Refusal> {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > limit) {
        return Err(too_large(limit));
    }
    // What is announced is held from the beginning, the rest as it comes. Small ones are not counted: the
    // number of connections bounds them, and slow uploads of others keep nobody from sending a letter.
    let mut shares = Shares::default();
    let (announced, mut counted) = (length.unwrap_or_default(), length.is_some());
    if announced > SMALL {
        shares.hold(connection, announced)?;
    }
    let mut body = Partial::None;
    let mut collect = poll_fn(|cx| {
        loop {
            match Pin::new(&mut payload).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Err(_))) => {
                    let why = "the body ended before its time";
                    return Poll::Ready(Err(refusal(StatusCode::BAD_REQUEST, why)));
                }
                Poll::Ready(Some(Ok(chunk))) => {
                    if body.len() + chunk.len() > limit {
                        return Poll::Ready(Err(too_large(limit)));
                    }
                    if !counted && body.len() + chunk.len() > SMALL {
                        // It does not say how long it will be.
                        shares.hold(connection, limit)?;
                        counted = true;
                    }
                    body.push(chunk);
                }
            }
        }
    });
    // Most bodies came with their head: no timer for them.
    let at_once = poll_fn(|cx| Poll::Ready(collect.poll_unpin(cx))).await;
    match at_once {
        Poll::Ready(done) => done?,
        Poll::Pending => {
            let Ok(done) = Box::pin(timeout(config.client_request_timeout, collect)).await else {
                let why = "the body took too long to arrive";
                return Err(refusal(StatusCode::REQUEST_TIMEOUT, why));
            };
            done?;
        }
    }
    Ok((body.whole(), shares))
}

/// What a request holds.
#[derive(Default)]
pub(super) struct Shares(Vec<Share>);

impl Shares {
    fn hold(&mut self, connection: &Connection, bytes: usize) -> Result<(), Refusal> {
        if bytes > 0 {
            let share = connection.hold(bytes).ok_or_else(|| {
                let why = "this server holds as many requests as it may; nothing was done. Try again in a second";
                refusal(StatusCode::SERVICE_UNAVAILABLE, why)
            })?;
            self.0.push(share);
        }
        Ok(())
    }
}

fn too_large(limit: usize) -> Refusal {
    let why = format!("the body is over the limit of {limit} bytes; send less at once");
    refusal(StatusCode::PAYLOAD_TOO_LARGE, why)
}

/// A body that has arrived so far. One chunk is not copied.
enum Partial {
    None,
    One(Bytes),
    Many(BytesMut),
}

impl Partial {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(bytes) => bytes.len(),
            Self::Many(bytes) => bytes.len(),
        }
    }

    fn push(&mut self, chunk: Bytes) {
        *self = match std::mem::replace(self, Self::None) {
            Self::None => Self::One(chunk),
            Self::One(first) => {
                let mut all = BytesMut::with_capacity(2 * (first.len() + chunk.len()));
                all.extend_from_slice(&first);
                all.extend_from_slice(&chunk);
                Self::Many(all)
            }
            Self::Many(mut all) => {
                all.extend_from_slice(&chunk);
                Self::Many(all)
            }
        };
    }

    fn whole(self) -> Bytes {
        match self {
            Self::None => Bytes::new(),
            Self::One(bytes) => bytes,
            Self::Many(bytes) => bytes.freeze(),
        }
    }
}
