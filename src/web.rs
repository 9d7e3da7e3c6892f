//! HTTP towards others: one connection a request, bounded in time and in size. Redirects are answers like
//! any other: nobody is sent elsewhere.

use std::{fmt, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, StatusCode, Uri,
    body::{Frame, Incoming},
    header::{ACCEPT, CONNECTION, HOST},
    http::{request::Builder, uri::PathAndQuery},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use crate::tls::{self, TlsError};

/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// Nobody is there, or not as one should be.
    #[error("{0}")]
    NotThere(String),
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// There is one, and it is none that can be used.
    #[error("HTTP {0}")]
    Status(u16),
}

/// Sends a request to the server that `url` names, of which it asks path and query. `longest`: bytes of
/// the answer's body, beyond which there is none.
///
/// # Errors
/// [`NoAnswer`], but never for the status of an answer.
pub(crate) async fn send(
    url: &Uri,
    tls: Option<&TlsConnector>,
    request: Builder,
    body: Bytes,
    longest: usize,
    within: Duration,
) -> Result<(StatusCode, Bytes), NoAnswer> {
    let whole = async {
        let (status, mut answer) = open(url, tls, request, body, within).await?;
        let mut body = BytesMut::new();
        while let Some(piece) = answer.next().await? {
            if body.len() + piece.len() > longest {
                return Err(NoAnswer::NotThere(format!("an answer of more than {longest} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        Ok((status, body.freeze()))
    };
    tokio::time::timeout(CONNECT_WITHIN + within, whole)
        .await
        .map_err(|_| NoAnswer::Late(within))?
}

/// The same up to the head of the answer, which must come in time. The body may go on for as long as somebody
/// reads it.
///
/// # Errors
/// [`NoAnswer`], but never for the status of an answer.
pub(crate) async fn open(
    url: &Uri,
    tls: Option<&TlsConnector>,
    request: Builder,
    body: Bytes,
    within: Duration,
) -> Result<(StatusCode, Answer), NoAnswer> {
    let request = request
        .uri(url.path_and_query().map_or("/", PathAndQuery::as_str))
        .header(HOST, url.authority().map_or("", |authority| authority.as_str()))
        .header(CONNECTION, "close")
        .body(Full::new(body))
        .map_err(not_there)?;
    let socket = tokio::time::timeout(CONNECT_WITHIN, connect(url, tls)).await;
    let socket = socket.map_err(|_| NoAnswer::Late(CONNECT_WITHIN))??;
    tokio::time::timeout(within, exchange(socket, request))
        .await
        .map_err(|_| NoAnswer::Late(within))?
}

async fn connect(url: &Uri, tls: Option<&TlsConnector>) -> Result<Box<dyn Wire>, NoAnswer> {
    let host = bare(url.host().unwrap_or_default());
    let port = url.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
    let socket = TcpStream::connect((host, port)).await.map_err(not_there)?;
    match tls {
        None => Ok(Box::new(socket)),
        Some(tls) => {
            let name = ServerName::try_from(host.to_owned()).map_err(not_there)?;
            Ok(Box::new(tls.connect(name, socket).await.map_err(not_there)?))
        }
    }
}

/// A connection, with TLS or without.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// The body of an answer, piece by piece. Dropping it closes the connection.
pub(crate) struct Answer {
    body: Incoming,
    connection: Driving,
}

/// A connection must be driven for as long as its answer takes, and no longer. `None`: it has ended.
type Driving = Option<Pin<Box<dyn Future<Output = ()> + Send>>>;

impl Answer {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// The connection broke.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, NoAnswer> {
        loop {
            let frame = driven(&mut self.connection, self.body.frame()).await;
            match frame.transpose().map_err(not_there)?.map(Frame::into_data) {
                Some(Ok(piece)) => return Ok(Some(piece)),
                Some(Err(_trailers)) => {}
                None => return Ok(None),
            }
        }
    }
}

/// What `future` comes to, while the connection that it needs is driven.
async fn driven<T>(connection: &mut Driving, future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    if let Some(driving) = connection {
        tokio::select! {
            done = &mut future => return done,
            () = driving => *connection = None,
        }
    }
    future.await
}

async fn exchange(
    socket: Box<dyn Wire>,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Answer), NoAnswer> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
    let (mut sender, connection) = handshake.map_err(not_there)?;
    // Of what broke it the answer says more.
    let mut connection: Driving = Some(Box::pin(async { drop(connection.await) }));
    let response = driven(&mut connection, sender.send_request(request)).await;
    let response = response.map_err(not_there)?;
    Ok((response.status(), Answer { body: response.into_body(), connection }))
}

/// An error with what caused it, in one line.
fn not_there(error: impl std::error::Error) -> NoAnswer {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said = format!("{said}: {error}");
        cause = error.source();
    }
    NoAnswer::NotThere(said)
}

/// A host without the brackets of an address.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// A URL that nobody between reads or changes: `https://`, or `http://` that stays on this machine. It
/// names no user and no fragment.
#[derive(Clone, PartialEq, Eq)]
pub struct SafeUrl {
    text: String,
    uri: Uri,
}

/// A text is no such URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnsafeUrl {
    /// Not a URL of HTTP at all.
    #[error("must be a URL such as https://login.example.com")]
    Form,
    /// Without TLS.
    #[error("must begin with https:// (http:// is for loopback only)")]
    Plain,
    /// What does not belong there.
    #[error("must have no user, no fragment and no white space")]
    Extra,
}

impl SafeUrl {
    /// The URL of a text, which is kept as it is: who compares it, compares it by character.
    ///
    /// # Errors
    /// [`UnsafeUrl`].
    pub fn parse(text: &str) -> Result<Self, UnsafeUrl> {
        if text.contains(|c: char| c == '#' || c.is_whitespace()) {
            return Err(UnsafeUrl::Extra);
        }
        let uri = text.parse::<Uri>().map_err(|_| UnsafeUrl::Form)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(UnsafeUrl::Form);
        };
        if authority.as_str().contains('@') {
            return Err(UnsafeUrl::Extra);
        }
        match scheme {
            "https" => {}
            "http" if is_loopback(bare(authority.host())) => {}
            "http" => return Err(UnsafeUrl::Plain),
            _ => return Err(UnsafeUrl::Form),
        }
        Ok(Self { text: text.to_owned(), uri })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is spoken to by TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// Whether something follows a question mark.
    #[must_use]
    pub fn has_query(&self) -> bool {
        self.uri.query().is_some()
    }

    /// The path, without a slash at its end: nothing if there is none.
    #[must_use]
    pub fn path(&self) -> &str {
        self.uri.path().trim_end_matches('/')
    }

    /// Another path of the same server.
    #[must_use]
    pub fn at(&self, path: &str) -> String {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        format!("{scheme}://{authority}{path}")
    }
}

impl fmt::Debug for SafeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Reads documents.
#[derive(Clone)]
pub struct Reader {
    /// `None`: it was not asked for.
    tls: Option<TlsConnector>,
}

impl Reader {
    /// One that believes the system's authorities, if `tls` is needed.
    ///
    /// # Errors
    /// There are none.
    pub fn new(tls: bool) -> Result<Self, TlsError> {
        let connector = || Ok(TlsConnector::from(Arc::new(tls::client(None, None)?)));
        Ok(Self { tls: tls.then(connector).transpose()? })
    }

    /// The document at `url`: the body of an answer with status 200, of at most `longest` bytes.
    ///
    /// # Errors
    /// [`NoAnswer`].
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn read(
        &self,
        url: &SafeUrl,
        longest: usize,
        within: Duration,
    ) -> Result<Bytes, NoAnswer> {
        let tls = match (url.has_tls(), &self.tls) {
            (false, _) => None,
            (true, Some(tls)) => Some(tls),
            (true, None) => return Err(NoAnswer::NotThere("TLS is not set up".to_owned())),
        };
        let request = Request::builder().header(ACCEPT, "application/json");
        let (status, body) = send(&url.uri, tls, request, Bytes::new(), longest, within).await?;
        if status == StatusCode::OK { Ok(body) } else { Err(NoAnswer::Status(status.as_u16())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_safe_by_tls_or_because_it_stays_here() {
        for good in [
            "https://login.example.com",
            "https://login.example.com/",
            "https://login.example.com:8443/realms/agents",
            "https://login.example.com/keys?p=policy",
            "http://localhost:3000",
            "http://127.0.0.1:3000/oidc",
            "http://[::1]:3000",
        ] {
            assert_eq!(SafeUrl::parse(good).unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("http://login.example.com", UnsafeUrl::Plain),
            ("http://localhost.example.com", UnsafeUrl::Plain),
            ("http://10.0.0.1", UnsafeUrl::Plain),
            ("http://127.0.0.1@example.com", UnsafeUrl::Extra),
            ("https://user:secret@example.com", UnsafeUrl::Extra),
            ("https://example.com/#keys", UnsafeUrl::Extra),
            ("https://example.com/ keys", UnsafeUrl::Extra),
            ("ftp://example.com", UnsafeUrl::Form),
            ("login.example.com", UnsafeUrl::Form),
            ("/keys", UnsafeUrl::Form),
            ("https://", UnsafeUrl::Form),
            ("", UnsafeUrl::Form),
        ] {
            assert_eq!(SafeUrl::parse(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn a_url_leads_to_others_of_its_server() {
        let url = SafeUrl::parse("https://example.com:8443/mail/mcp/").unwrap();
        assert_eq!((url.path(), url.has_query()), ("/mail/mcp", false));
        assert_eq!(url.at("/.well-known/x"), "https://example.com:8443/.well-known/x");
        assert_eq!(SafeUrl::parse("https://example.com").unwrap().path(), "");
    }
}
