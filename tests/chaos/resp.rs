//! The Redis protocol: commands to a server, and the frames that a proxy tells apart.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::Outcome;

/// A server that does not answer a command within this is taken for dead.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Nil,
    Integer(i64),
    Text(Vec<u8>),
    Error(String),
    List(Vec<Value>),
    Push(Vec<Value>),
}

impl Value {
    /// What it says in UTF-8, or nothing.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(self.bytes()).unwrap_or_default()
    }

    /// What it says; a key need not be UTF-8.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text,
            Self::Error(text) => text.as_bytes(),
            Self::Nil | Self::Integer(_) | Self::List(_) | Self::Push(_) => &[],
        }
    }

    pub(crate) fn list(&self) -> &[Self] {
        match self {
            Self::List(values) | Self::Push(values) => values,
            Self::Nil | Self::Integer(_) | Self::Text(_) | Self::Error(_) => &[],
        }
    }
}

/// The first frame of `bytes` and its length; `None` while it is incomplete. What is no frame is an
/// error as long as `bytes`.
pub(crate) fn parse(bytes: &[u8]) -> Option<(Value, usize)> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let line = String::from_utf8_lossy(bytes.get(1..end).unwrap_or_default());
    let head = end + 2;
    let count = || usize::try_from(line.parse::<i64>().ok()?).ok();
    Some(match bytes[0] {
        b'+' | b',' | b'#' | b'(' => (Value::Text(line.into_owned().into()), head),
        b'-' => (Value::Error(line.into_owned()), head),
        b':' => (Value::Integer(line.parse().unwrap_or_default()), head),
        b'_' => (Value::Nil, head),
        b'$' | b'=' | b'!' => match count() {
            None => (Value::Nil, head),
            Some(len) => {
                let text = bytes.get(head..head + len)?;
                bytes.get(head + len..head + len + 2)?;
                (Value::Text(text.to_owned()), head + len + 2)
            }
        },
        kind @ (b'*' | b'~' | b'>' | b'%') => match count() {
            None => (Value::Nil, head),
            Some(count) => {
                let (mut values, mut at) = (Vec::new(), head);
                for _ in 0..if kind == b'%' { count * 2 } else { count } {
                    let (value, len) = parse(&bytes[at..])?;
                    values.push(value);
                    at += len;
                }
                (if kind == b'>' { Value::Push(values) } else { Value::List(values) }, at)
            }
        },
        _ => (Value::Error("not the Redis protocol".to_owned()), bytes.len()),
    })
}

/// Says a command to the server on this port of 127.0.0.1, on a connection of its own.
pub(crate) async fn ask(port: u16, words: &[impl AsRef<[u8]>]) -> Outcome<Value> {
    let asked = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            let word = word.as_ref();
            request.extend(format!("${}\r\n", word.len()).as_bytes());
            request.extend(word);
            request.extend(b"\r\n");
        }
        stream.write_all(&request).await?;
        let mut answer = Vec::new();
        loop {
            if let Some((value, _)) = parse(&answer) {
                return Ok(value);
            }
            if stream.read_buf(&mut answer).await? == 0 {
                return Err("the connection ended without an answer".into());
            }
        }
    };
    timeout(PATIENCE, asked).await.map_err(|_| format!("no answer from port {port}"))?
}

/// [`ask`], where an error of the server is one of the caller too.
pub(crate) async fn tell(port: u16, words: &[impl AsRef<[u8]>]) -> Outcome<Value> {
    let answer = ask(port, words).await?;
    if let Value::Error(why) = answer {
        let command = words.first().map_or(&[][..], AsRef::as_ref);
        return Err(format!("{}: {why}", String::from_utf8_lossy(command)).into());
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_told_apart_however_they_are_cut() {
        let push = b">3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$3\r\nqab\r\n";
        let text = |text: &str| Value::Text(text.into());
        let expected = Value::Push(vec![text("message"), text("ch"), text("qab")]);
        for cut in 0..push.len() {
            assert_eq!(parse(&push[..cut]), None, "{cut}");
        }
        assert_eq!(parse(push), Some((expected, push.len())));
        let two = b"*2\r\n:7\r\n$-1\r\n+OK\r\n";
        assert_eq!(parse(two), Some((Value::List(vec![Value::Integer(7), Value::Nil]), 13)));
        assert_eq!(parse(&two[13..]), Some((text("OK"), 5)));
        assert_eq!(parse(b"-ERR no\r\n"), Some((Value::Error("ERR no".to_owned()), 9)));
        assert_eq!(
            parse(b"%1\r\n+a\r\n_\r\n"),
            Some((Value::List(vec![text("a"), Value::Nil]), 11))
        );
    }
}
