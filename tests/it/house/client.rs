//! An HTTP client of raw bytes.

use std::{net::SocketAddr, sync::Arc};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::ClientConfig};
use tokio_util::either::Either;

/// A request with the usual headers, `headers` (which may replace them) and a body.
pub(crate) fn post(headers: &str, body: &str) -> String {
    let mut head = String::from("POST /mcp HTTP/1.1\r\n");
    let lower = headers.to_ascii_lowercase();
    for usual in [
        "Host: localhost",
        "Content-Type: application/json",
        "Accept: application/json, text/event-stream",
    ] {
        let name = usual.split(':').next().unwrap().to_ascii_lowercase();
        if !lower.lines().any(|line| line.starts_with(&format!("{name}:"))) {
            head.push_str(usual);
            head.push_str("\r\n");
        }
    }
    format!("{head}{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

pub(crate) struct Client {
    pub socket: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    read: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// The messages of a stream, without comments.
    pub(crate) fn events(&self) -> Vec<Value> {
        let data = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap(), None).await
    }

    /// A client whose kernel takes little that it does not read.
    pub(crate) async fn connect_small(address: SocketAddr, tls: Option<Arc<ClientConfig>>) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(256 * 1024).unwrap();
        Self::over(socket.connect(address).await.unwrap(), tls).await
    }

    /// A client of TLS with a server at an address of this machine.
    pub(crate) async fn connect_tls(address: SocketAddr, tls: Arc<ClientConfig>) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap(), Some(tls)).await
    }

    async fn over(tcp: TcpStream, tls: Option<Arc<ClientConfig>>) -> Self {
        let socket = match tls {
            None => Either::Left(tcp),
            Some(tls) => {
                let name = tcp.peer_addr().unwrap().ip().into();
                let stream = TlsConnector::from(tls).connect(name, tcp).await.unwrap();
                Either::Right(Box::new(stream))
            }
        };
        Self { socket, read: Vec::new() }
    }

    /// The socket below.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match &self.socket {
            Either::Left(tcp) => tcp,
            Either::Right(stream) => stream.get_ref().0,
        }
    }

    pub(crate) async fn send(&mut self, request: &str) {
        self.socket.write_all(request.as_bytes()).await.unwrap();
        self.socket.flush().await.unwrap();
    }

    /// Sends as much of it as the server takes before it hangs up.
    pub(crate) async fn send_what_it_takes(&mut self, request: &str) {
        drop(self.socket.write_all(request.as_bytes()).await);
    }

    /// All that comes until the server hangs up.
    pub(crate) async fn all_that_comes(&mut self) -> String {
        while self.more().await {}
        self.so_far()
    }

    async fn more(&mut self) -> bool {
        self.socket.read_buf(&mut self.read).await.unwrap_or(0) > 0
    }

    /// Reads until `text` has come.
    pub(crate) async fn until(&mut self, text: &str) {
        while !self.read.windows(text.len()).any(|window| window == text.as_bytes()) {
            assert!(self.more().await, "ended before {text:?}: {:?}", self.so_far());
        }
    }

    pub(crate) fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }

    /// Reads one response.
    pub(crate) async fn reply(&mut self) -> Reply {
        self.until("\r\n\r\n").await;
        let end = self.read.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(self.read.drain(..end + 4).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut reply = Reply { status, head, body: String::new() };
        if reply.header("transfer-encoding") == Some("chunked") {
            loop {
                self.until("\r\n").await;
                let line = self.read.windows(2).position(|window| window == b"\r\n").unwrap();
                let size: Vec<u8> = self.read.drain(..line + 2).collect();
                let size = std::str::from_utf8(&size).unwrap().trim();
                let size = usize::from_str_radix(size, 16).unwrap();
                let chunk = self.exactly(size + 2).await;
                if size == 0 {
                    return reply;
                }
                reply.body.push_str(&chunk[..size]);
            }
        }
        let length = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
        reply.body = self.exactly(length).await;
        reply
    }

    async fn exactly(&mut self, bytes: usize) -> String {
        while self.read.len() < bytes {
            assert!(self.more().await, "ended within a body");
        }
        String::from_utf8(self.read.drain(..bytes).collect()).unwrap()
    }
}
