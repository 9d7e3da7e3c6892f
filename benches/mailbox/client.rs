//! The smallest HTTP client that tells the truth about latency: one socket, one request at a time,
//! bodies by length, in chunks, and as a stream of events.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::Outcome;

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_mins(1);

/// A keep-alive connection.
pub(crate) struct Connection {
    socket: TcpStream,
    unread: Vec<u8>,
}

/// An answer.
pub(crate) struct Reply {
    pub body: Vec<u8>,
    /// When the JSON in it was complete. A stream may end later.
    pub at: Instant,
}

impl Reply {
    /// The JSON, out of its event if it came in one.
    pub(crate) fn json(&self) -> Outcome<Value> {
        let text = std::str::from_utf8(&self.body)?;
        let event = text.lines().rev().find_map(|line| line.strip_prefix("data: "));
        Ok(serde_json::from_str(event.unwrap_or(text))?)
    }

    pub(crate) fn has(&self, part: &str) -> bool {
        self.body.windows(part.len()).any(|window| window == part.as_bytes())
    }

    /// The texts and ids of the messages in it.
    pub(crate) fn messages(&self) -> Outcome<Vec<(String, String)>> {
        let answer = self.json()?;
        let messages = &answer["result"]["structuredContent"]["messages"];
        let messages = messages.as_array().ok_or_else(|| format!("no messages in {answer}"))?;
        let field = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
        Ok(messages.iter().map(|one| (field(one, "text"), field(one, "message_id"))).collect())
    }
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Outcome<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, unread: Vec::new() })
    }

    pub(crate) async fn call(&mut self, request: &[u8]) -> Outcome<Reply> {
        self.send(request).await?;
        self.reply().await
    }

    pub(crate) async fn send(&mut self, request: &[u8]) -> Outcome<()> {
        Ok(self.socket.write_all(request).await?)
    }

    pub(crate) async fn reply(&mut self) -> Outcome<Reply> {
        timeout(PATIENCE, self.read()).await?
    }

    async fn read(&mut self) -> Outcome<Reply> {
        let head = loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                let rest = self.unread.split_off(end + 4);
                break String::from_utf8(std::mem::replace(&mut self.unread, rest))?;
            }
            self.more().await?;
        };
        let status = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let header = |name: &str| {
            head.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let reply = if let Some(length) = header("content-length") {
            let length: usize = length.parse()?;
            while self.unread.len() < length {
                self.more().await?;
            }
            Reply { body: self.unread.drain(..length).collect(), at: Instant::now() }
        } else {
            self.chunks().await?
        };
        if status != "200" {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&reply.body)).into());
        }
        Ok(reply)
    }

    async fn chunks(&mut self) -> Outcome<Reply> {
        let (mut body, mut at) = (Vec::new(), None);
        loop {
            let Some(end) = find(&self.unread, b"\r\n") else {
                self.more().await?;
                continue;
            };
            let size = std::str::from_utf8(&self.unread[..end])?;
            let size = usize::from_str_radix(size.trim(), 16)?;
            let whole = end + 2 + size + 2;
            while self.unread.len() < whole {
                self.more().await?;
            }
            body.extend_from_slice(&self.unread[end + 2..end + 2 + size]);
            self.unread.drain(..whole);
            if size == 0 {
                return Ok(Reply { body, at: at.unwrap_or_else(Instant::now) });
            }
            if at.is_none() && body.ends_with(b"\n\n") && find(&body, b"\ndata: ").is_some() {
                at = Some(Instant::now());
            }
        }
    }

    async fn more(&mut self) -> Outcome<()> {
        if self.socket.read_buf(&mut self.unread).await? == 0 {
            return Err("the server closed the connection".into());
        }
        Ok(())
    }
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// The request, from the holder of a key.
pub(crate) fn with_key(request: &[u8], key: &str) -> Vec<u8> {
    let line = find(request, b"\r\n").map_or(0, |end| end + 2);
    let (line, rest) = request.split_at(line);
    [line, format!("Authorization: Bearer {key}\r\n").as_bytes(), rest].concat()
}

/// How requests are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// 2025-11-25, in a session: what clients speak.
    Legacy,
    /// 2026-07-28.
    Modern,
}

impl Dialect {
    pub(crate) fn request(self, method: &str, mut params: Value) -> Vec<u8> {
        let headers = match self {
            Self::Legacy => "MCP-Protocol-Version: 2025-11-25\r\n\
                 Mcp-Session-Id: 0199c3a27d1e7c3b9f102b1d6a4e8f55\r\n"
                .to_owned(),
            Self::Modern => {
                let name = params["name"].as_str().map(|name| format!("Mcp-Name: {name}\r\n"));
                params["_meta"] = json!({
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientCapabilities": {},
                });
                let name = name.unwrap_or_default();
                format!("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: {method}\r\n{name}")
            }
        };
        let message = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
        let body = message.to_string();
        format!(
            "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\n{headers}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }

    pub(crate) fn tool(self, name: &str, arguments: &Value) -> Vec<u8> {
        self.request("tools/call", json!({ "name": name, "arguments": arguments }))
    }

    pub(crate) fn send(self, from: &str, to: &str, text: &str) -> Vec<u8> {
        let arguments = json!({ "sender_id": from, "recipient_id": to, "message": text });
        self.tool("send_message", &arguments)
    }

    pub(crate) fn get(self, client: &str) -> Vec<u8> {
        self.tool("get_messages", &json!({ "client_id": client }))
    }

    pub(crate) fn get_one(self, client: &str) -> Vec<u8> {
        self.tool("get_messages", &json!({ "client_id": client, "max_messages": 1 }))
    }

    pub(crate) fn wait(self, client: &str, seconds: u64) -> Vec<u8> {
        self.tool("get_messages", &json!({ "client_id": client, "wait_seconds": seconds }))
    }
}

/// A text of 200 bytes with a number in it.
pub(crate) fn text(number: u64) -> String {
    format!("{number:020} {}", "lorem ipsum dolor sit amet consectetur ".repeat(5))
        .split_at(200)
        .0
        .to_owned()
}
