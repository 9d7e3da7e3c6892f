//! A client of the mailbox: one connection a request, so that a balancer has its say each time.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::{
    Method, Request, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue},
    http::{
        request::Builder,
        uri::{PathAndQuery, Scheme},
    },
};
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;

use crate::{
    tls::{self, TlsError},
    web::{self, NoAnswer},
};

/// Longest answer that is read.
const LONGEST: usize = 4 << 20;
/// How long an answer may take beyond what was asked to be waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// An address that is none of a mailbox.
#[derive(Debug, thiserror::Error)]
pub enum InvalidEndpoint {
    /// Not a URL of HTTP. It is not shown: whoever writes a password into one mistypes too.
    #[error("the URL is not one such as http://localhost:8123/mcp")]
    Url,
    /// One that names a user.
    #[error(
        "the URL has a user or a password in it: a credential is given by --key or MCP_MESSAGING_KEY"
    )]
    User,
    /// What no HTTP header can hold.
    #[error("the key has characters that no HTTP header can hold")]
    Key,
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A stream that says nothing for so long is broken: the mailbox says every 15 s that it is alive.
const SILENCE: Duration = Duration::from_secs(50);

/// Where a mailbox is, and as whom to come.
#[derive(Clone)]
pub struct Endpoint {
    url: Uri,
    tls: Option<TlsConnector>,
    key: Option<HeaderValue>,
}

/// Why there is no answer of the mailbox.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
    #[error("HTTP {status}: {said}")]
    Status { status: StatusCode, said: String },
    #[error("not an answer of MCP: {0}")]
    NotMcp(String),
    #[error("{0}")]
    Refused(String),
}

impl Endpoint {
    /// The mailbox at `url`, of which the path may be left out. With `key`, requests bear it; with
    /// `authority`, its certificate is believed if those of that file are (else, the system's).
    ///
    /// # Errors
    /// [`InvalidEndpoint`] says which of them is not usable.
    pub fn new(
        url: &str,
        key: Option<&str>,
        authority: Option<&Path>,
    ) -> Result<Self, InvalidEndpoint> {
        let wrong = || InvalidEndpoint::Url;
        let mut parts = url.parse::<Uri>().map_err(|_| wrong())?.into_parts();
        let tls = match parts.scheme.as_ref() {
            Some(scheme) if *scheme == Scheme::HTTP => None,
            Some(scheme) if *scheme == Scheme::HTTPS => {
                Some(TlsConnector::from(Arc::new(tls::client(authority, None)?)))
            }
            Some(_) | None => return Err(wrong()),
        };
        if parts.path_and_query.as_ref().is_none_or(|path| path == "/") {
            parts.path_and_query = Some(PathAndQuery::from_static("/mcp"));
        }
        let url = Uri::from_parts(parts).map_err(|_| wrong())?;
        if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(InvalidEndpoint::User);
        }
        let key = key.map(|key| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.trim()))
                .map_err(|_| InvalidEndpoint::Key)?;
            value.set_sensitive(true);
            Ok::<_, InvalidEndpoint>(value)
        });
        Ok(Self { url, tls, key: key.transpose()? })
    }

    /// The address, as it is asked.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.to_string()
    }

    pub(super) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Another path of the same server.
    pub(super) fn beside(&self, path: &'static str) -> Self {
        let mut parts = self.url.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::from_static(path));
        let url = Uri::from_parts(parts).unwrap_or_else(|_| self.url.clone());
        Self { url, ..self.clone() }
    }

    /// Status and body of a GET.
    pub(super) async fn get(&self) -> Result<(StatusCode, String), Failure> {
        let request = Request::builder().method(Method::GET);
        self.send(request, Bytes::new(), ANSWER_WITHIN).await
    }

    /// Status and body of a POST of JSON.
    pub(super) async fn post_json(&self, body: &Value) -> Result<(StatusCode, String), Failure> {
        let request =
            Request::builder().method(Method::POST).header(CONTENT_TYPE, "application/json");
        self.send(request, Bytes::from(body.to_string()), ANSWER_WITHIN).await
    }

    /// The result of a request, which may wait for so long.
    pub(super) async fn ask(
        &self,
        method: &str,
        params: Value,
        waits: Duration,
    ) -> Result<Value, Failure> {
        let request = Request::builder()
            .method(Method::POST)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, text/event-stream");
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let body = Bytes::from(body.to_string());
        let (status, text) = self.send(request, body, waits + ANSWER_WITHIN).await?;
        // A stream has its answer in its last message; before that it only says that it is alive.
        let message =
            text.lines().rev().find_map(|line| line.strip_prefix("data: ")).unwrap_or(&text);
        let answer: Result<Value, _> = serde_json::from_str(message);
        match answer {
            Ok(Value::Object(mut answer)) if answer.contains_key("result") => {
                Ok(answer.remove("result").unwrap_or_default())
            }
            Ok(answer) if status.is_success() && answer["error"]["message"].is_string() => {
                Err(Failure::Refused(answer["error"]["message"].to_string()))
            }
            Ok(answer) if answer["error"]["message"].is_string() => {
                let said = answer["error"]["message"].as_str().unwrap_or_default().to_owned();
                Err(Failure::Status { status, said })
            }
            Ok(_) | Err(_) if status.is_success() => Err(Failure::NotMcp(beginning(&text))),
            Ok(_) | Err(_) => Err(Failure::Status { status, said: beginning(&text) }),
        }
    }

    /// The structured answer of a tool.
    pub(super) async fn call(
        &self,
        tool: &str,
        arguments: Value,
        waits: Duration,
    ) -> Result<Value, Failure> {
        Ok(self.call_tool(tool, arguments, waits).await?["structuredContent"].take())
    }

    /// The whole result of a tool that did not fail.
    pub(super) async fn call_tool(
        &self,
        tool: &str,
        arguments: Value,
        waits: Duration,
    ) -> Result<Value, Failure> {
        let params = json!({ "name": tool, "arguments": arguments });
        let result = self.ask("tools/call", params, waits).await?;
        if result["isError"] == true {
            let why = result["content"][0]["text"].as_str().unwrap_or("no reason was given");
            return Err(Failure::Refused(why.to_owned()));
        }
        Ok(result)
    }

    /// Listens to a resource: what changes after this has returned is told.
    pub(super) async fn listen(&self, uri: &str) -> Result<Listening, Failure> {
        const METHOD: &str = "subscriptions/listen";
        const REVISION: &str = "2026-07-28";
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": METHOD, "params": {
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": REVISION,
                "io.modelcontextprotocol/clientCapabilities": {},
            },
            "notifications": { "resourceSubscriptions": [uri] },
        } });
        let request = self.authorized(
            Request::builder()
                .method(Method::POST)
                .header(CONTENT_TYPE, "application/json")
                .header(ACCEPT, "application/json, text/event-stream")
                .header("mcp-protocol-version", REVISION)
                .header("mcp-method", METHOD),
        );
        let body = Bytes::from(body.to_string());
        let opened = web::open(&self.url, self.tls.as_ref(), request, body, ANSWER_WITHIN);
        let (status, answer) = opened.await?;
        let mut listening = Listening { answer, read: Vec::new() };
        let first = listening.next().await?;
        if first["method"] == "notifications/subscriptions/acknowledged"
            && first["params"]["notifications"]["resourceSubscriptions"] == json!([uri])
        {
            return Ok(listening);
        }
        Err(match first["error"]["message"].as_str() {
            Some(why) => Failure::Status { status, said: why.to_owned() },
            None => Failure::NotMcp(beginning(&first.to_string())),
        })
    }

    async fn send(
        &self,
        request: Builder,
        body: Bytes,
        within: Duration,
    ) -> Result<(StatusCode, String), Failure> {
        let request = self.authorized(request);
        let sent = web::send(&self.url, self.tls.as_ref(), request, body, LONGEST, within);
        let (status, body) = sent.await?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    fn authorized(&self, request: Builder) -> Builder {
        match &self.key {
            Some(key) => request.header(AUTHORIZATION, key),
            None => request,
        }
    }
}

/// A subscription. Dropping it ends it.
pub(super) struct Listening {
    answer: web::Answer,
    read: Vec<u8>,
}

impl Listening {
    /// The next message.
    ///
    /// # Errors
    /// The stream ended, or nothing came for so long that its server must be gone: it says every now and then that it is alive.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn next(&mut self) -> Result<Value, Failure> {
        loop {
            if let Some(end) = self.read.windows(2).position(|ends| ends == b"\n\n") {
                let event: Vec<u8> = self.read.drain(..end + 2).collect();
                let event = String::from_utf8_lossy(&event);
                let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) else {
                    continue; // a sign of life
                };
                return serde_json::from_str(data).map_err(|_| Failure::NotMcp(beginning(data)));
            }
            let piece = tokio::time::timeout(SILENCE, self.answer.next()).await;
            let Some(piece) = piece.map_err(|_| NoAnswer::Late(SILENCE))?? else {
                let rest = std::mem::take(&mut self.read);
                return serde_json::from_slice(&rest)
                    .map_err(|_| Failure::NotMcp("the stream has ended".to_owned()));
            };
            if self.read.len() + piece.len() > LONGEST {
                return Err(Failure::NotMcp("an endless event".to_owned()));
            }
            self.read.extend_from_slice(&piece);
        }
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("url", &self.url).finish_non_exhaustive()
    }
}

fn beginning(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_path_is_that_of_the_endpoint() {
        let url = |given| Endpoint::new(given, None, None).map(|endpoint| endpoint.url());
        assert_eq!(url("http://localhost:8123").unwrap(), "http://localhost:8123/mcp");
        assert_eq!(url("http://localhost:8123/").unwrap(), "http://localhost:8123/mcp");
        assert_eq!(url("http://h/team/mcp").unwrap(), "http://h/team/mcp");
        for wrong in ["localhost:8123", "redis://h", "/mcp", "", "http://"] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_names_no_user_and_none_is_shown() {
        for wrong in
            ["http://u:hunter2@h", "http://hunter2@h/mcp", "http://u:hunter2 @h", "hunter2"]
        {
            let said = Endpoint::new(wrong, None, None).unwrap_err();
            assert!(!format!("{said} {said:?}").contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn a_key_does_not_show() {
        let endpoint = Endpoint::new("http://h", Some("hunter2"), None).unwrap();
        assert!(!format!("{endpoint:?} {:?}", endpoint.key).contains("hunter2"));
        assert!(Endpoint::new("http://h", Some("a\nb"), None).is_err());
    }
}
