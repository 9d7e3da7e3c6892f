//! A client that costs the machine little: one connection, one call at a time.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::{Outcome, agent::request};

/// No answer takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection.
pub(crate) struct Connection(BufReader<TcpStream>);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub retry_after: bool,
    pub body: String,
    pub took: Duration,
}

impl Answer {
    /// The result of a tool, if it is one.
    pub(crate) fn result(&self) -> Value {
        let answer: Value = serde_json::from_str(&self.body).unwrap_or_default();
        answer["result"].clone()
    }

    /// Refused because there is too much to do, with a word on when to come back.
    pub(crate) fn told_to_come_back(&self) -> bool {
        let result = self.result();
        let text = result["content"][0]["text"].as_str().unwrap_or_default();
        match self.status {
            200 => result["isError"] == true && text.contains("nothing was done. Try again in"),
            503 => self.retry_after && self.body.contains("nothing was done. Try again in"),
            _ => false,
        }
    }
}

impl Connection {
    pub(crate) async fn open(to: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Writes as it is.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Outcome<()> {
        Ok(self.0.get_mut().write_all(bytes).await?)
    }

    /// A call of a tool, and its answer.
    pub(crate) async fn call(&mut self, tool: &str, arguments: &Value) -> Outcome<Answer> {
        let body = request(tool, arguments).to_string();
        let began = Instant::now();
        self.write(format!("{}{body}", head(body.len())).as_bytes()).await?;
        self.answer(began).await
    }

    /// The next answer on this connection, with a length.
    pub(crate) async fn answer(&mut self, began: Instant) -> Outcome<Answer> {
        timeout(PATIENCE, self.read(began)).await.map_err(|_| "no answer in a minute")?
    }

    async fn read(&mut self, began: Instant) -> Outcome<Answer> {
        let (mut line, mut status, mut length, mut retry_after) = (String::new(), 0, 0, false);
        loop {
            line.clear();
            if self.0.read_line(&mut line).await? == 0 {
                return Err("the connection ended before an answer".into());
            }
            let text = line.trim_end().to_ascii_lowercase();
            if let Some(rest) = text.strip_prefix("http/1.1 ") {
                status = rest.get(..3).unwrap_or_default().parse()?;
            } else if let Some(rest) = text.strip_prefix("content-length: ") {
                length = rest.parse()?;
            } else if text.starts_with("retry-after: ") {
                retry_after = true;
            } else if text.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await?;
        let body = String::from_utf8(body)?;
        Ok(Answer { status, retry_after, body, took: began.elapsed() })
    }

    /// Whether the server has ended the connection, at the latest after `patience`.
    pub(crate) async fn ended(&mut self, patience: Duration) -> bool {
        let mut rest = Vec::new();
        matches!(timeout(patience, self.0.read_to_end(&mut rest)).await, Ok(Ok(_) | Err(_)))
    }
}

/// The head of a request whose body has so many bytes.
pub(crate) fn head(length: usize) -> String {
    format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\naccept: application/json\r\n\
         content-length: {length}\r\n\r\n"
    )
}

/// The arguments of a send.
pub(crate) fn letter(from: &str, to: &str, text: &str) -> Value {
    json!({"sender_id": from, "recipient_id": to, "message": text})
}

/// The arguments of a fetch that does not wait.
pub(crate) fn fetch(client: &str) -> Value {
    json!({"client_id": client})
}
