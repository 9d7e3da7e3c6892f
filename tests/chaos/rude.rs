//! A reader that hangs up: in the middle of a wait, or of an answer.
//!
//! What the connection took for it counts as received. So it says that it goes (FIN) and reads on to the
//! end: a whole answer that was under way is one that it has.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{Outcome, agent};

/// A connection that was left ends within this.
const PATIENCE: Duration = Duration::from_secs(45);

/// Fetches, and hangs up after so long if there is no answer by then. The answer, if one came whole.
pub(crate) async fn fetch(
    replica: SocketAddr,
    arguments: &Value,
    stay: Duration,
) -> Outcome<Option<Value>> {
    let mut stream = TcpStream::connect(replica).await?;
    let body = agent::request("get_messages", arguments).to_string();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: {replica}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let mut said = Vec::new();
    let whole = timeout(stay, stream.read_to_end(&mut said)).await;
    if whole.is_err() {
        stream.shutdown().await?;
        // An end with an error is one too: what came before it is what there is.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut said)).await;
    }
    Ok(answer(&said))
}

/// The answer in what a connection said, if it is whole.
fn answer(said: &[u8]) -> Option<Value> {
    let text = String::from_utf8_lossy(said);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunked(body)? } else { body.to_owned() };
    agent::content(&body).ok()
}

/// The body in its chunks, if the last one came.
fn unchunked(mut chunks: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, rest) = chunks.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(rest.get(..size)?);
        chunks = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_is_one() {
        let json = r#"data: {"result":{"structuredContent":{"busy":false}}}"#;
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let (one, two) = json.split_at(20);
        let said =
            format!("{head}{:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n", one.len(), two.len());
        assert_eq!(answer(said.as_bytes()).unwrap()["busy"], false);
        for cut in 0..said.len() - "0\r\n\r\n".len() {
            assert_eq!(answer(&said.as_bytes()[..cut]), None, "{cut}");
        }
    }
}
