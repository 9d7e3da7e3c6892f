//! A redis-server of one's own.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::Clock;

/// What survives a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// Nothing.
    None,
    /// Everything that was answered.
    AppendOnly,
}

/// A private server on a free port of 127.0.0.1, which ends with this value.
pub(crate) struct RedisServer {
    port: u16,
    port_word: String,
    persistence: Persistence,
    arguments: Vec<String>,
    clock: Option<Clock>,
    dir: TempDir,
    process: Option<Child>,
}

/// The server: `REDIS_SERVER` names another one, such as that of Valkey.
fn program() -> std::ffi::OsString {
    std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

/// An answer in the Redis protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A status or a string.
    Text(String),
    /// An error, with its code.
    Error(String),
    /// A number.
    Integer(i64),
    /// Several answers.
    Array(Vec<Reply>),
    /// Nothing.
    Nil,
}

impl RedisServer {
    /// A server that answers.
    pub(crate) fn start(persistence: Persistence) -> Self {
        Self::start_with(persistence, &[])
    }

    /// A server with a clock of its own.
    pub(crate) fn start_with_clock() -> Self {
        let mut server = Self::start(Persistence::None);
        server.clock = Some(Clock::right(server.dir.path(), "redis").unwrap());
        server.restart();
        server
    }

    /// Its clock is so many seconds ahead of the machine's from now on, or behind.
    pub(crate) fn set_clock(&self, seconds: i64) {
        self.clock.as_ref().expect("a clock of its own").set(seconds).unwrap();
    }

    /// A server with more arguments.
    pub(crate) fn start_with(persistence: Persistence, arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
        // Somebody else may take the port between our look and the server's: then try another.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let dir = tempfile::tempdir().unwrap();
            let arguments = arguments.clone();
            let port_word = port.to_string();
            let (clock, process) = (None, None);
            let mut server = Self { port, port_word, persistence, arguments, clock, dir, process };
            if server.run() {
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    /// Starts the process. `false`: it ended at once.
    fn run(&mut self) -> bool {
        let append = match self.persistence {
            Persistence::None => "no",
            Persistence::AppendOnly => "yes",
        };
        let spawned = Command::new(program())
            .args(["--port", &self.port_word, "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", append, "--appendfsync", "always", "--dir"])
            .arg(self.dir.path())
            .args(&self.arguments)
            .envs(self.clock.iter().flat_map(Clock::variables))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = spawned.unwrap_or_else(|error| {
            panic!("redis-server 7.0 or later is needed (apt-get install redis-server): {error}")
        });
        let process = self.process.insert(process);
        let patience = Instant::now() + Duration::from_secs(10);
        while Instant::now() < patience {
            if process.try_wait().unwrap().is_some() {
                return false;
            }
            let answer = Talk::to(self.port).and_then(|mut talk| talk.ask(&["PING"]));
            if answer.is_ok_and(|reply| reply == Reply::Text("PONG".into())) {
                return true;
            }
            sleep(Duration::from_millis(5));
        }
        panic!("redis-server does not answer");
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port, as a word of a command.
    pub(crate) fn port(&self) -> &str {
        &self.port_word
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself.
            drop(process.kill());
            process.wait().unwrap();
        }
    }

    /// Stops it in the middle of whatever it does, or lets it go on.
    pub(crate) fn hang(&self, hangs: bool) {
        let pid = self.process.as_ref().expect("a running server").id().to_string();
        let signal = if hangs { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Starts it again, on the same port, with what persistence kept.
    pub(crate) fn restart(&mut self) {
        self.kill();
        assert!(self.run(), "redis-server starts again");
    }

    /// What it wrote to its files.
    pub(crate) fn files(&self) -> Vec<u8> {
        let mut folders = vec![self.dir.path().to_owned()];
        let mut bytes = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    bytes.extend(std::fs::read(path).unwrap());
                }
            }
        }
        bytes
    }

    /// Says a command, on a connection of its own.
    pub(crate) fn command(&self, words: &[&str]) -> Reply {
        self.talk().command(words)
    }

    /// A connection for many commands.
    pub(crate) fn talk(&self) -> Talk {
        Talk::to(self.port).expect("a connection to redis-server")
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A connection.
pub(crate) struct Talk(BufReader<TcpStream>);

impl Talk {
    fn to(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    fn ask(&mut self, words: &[&str]) -> std::io::Result<Reply> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            write!(request, "${}\r\n{word}\r\n", word.len()).unwrap();
        }
        self.0.get_mut().write_all(request.as_bytes())?;
        read(&mut self.0)
    }

    /// Says a command.
    pub(crate) fn command(&mut self, words: &[&str]) -> Reply {
        self.ask(words).expect("an answer from redis-server")
    }
}

fn read(stream: &mut impl BufRead) -> std::io::Result<Reply> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let line = line.trim_end();
    let broken = || std::io::Error::other(format!("not the Redis protocol: {line:?}"));
    let number = || line.get(1..).and_then(|text| text.parse::<i64>().ok()).ok_or_else(broken);
    Ok(match line.chars().next() {
        Some('+') => Reply::Text(line[1..].to_owned()),
        Some('-') => Reply::Error(line[1..].to_owned()),
        Some(':') => Reply::Integer(number()?),
        Some('$') => match usize::try_from(number()?) {
            Err(_) => Reply::Nil,
            Ok(len) => {
                let mut bytes = vec![0; len + 2];
                stream.read_exact(&mut bytes)?;
                bytes.truncate(len);
                Reply::Text(String::from_utf8_lossy(&bytes).into_owned())
            }
        },
        Some('*') => match usize::try_from(number()?) {
            Err(_) => Reply::Nil,
            Ok(len) => Reply::Array((0..len).map(|_| read(stream)).collect::<Result<_, _>>()?),
        },
        Some(_) | None => return Err(broken()),
    })
}

#[test]
fn a_private_server_keeps_over_a_crash_what_it_was_told_to_keep() {
    let mut kept = RedisServer::start(Persistence::AppendOnly);
    let mut lost = RedisServer::start(Persistence::None);
    assert_ne!(kept.url(), lost.url());
    for server in [&mut kept, &mut lost] {
        assert_eq!(server.command(&["SET", "key", "value"]), Reply::Text("OK".into()));
        server.kill();
        server.restart();
    }
    assert_eq!(kept.command(&["GET", "key"]), Reply::Text("value".into()));
    assert_eq!(lost.command(&["GET", "key"]), Reply::Nil);
    assert_eq!(lost.command(&["RPUSH", "list", "a", "b"]), Reply::Integer(2));
    let both = Reply::Array(vec![Reply::Text("a".into()), Reply::Text("b".into())]);
    assert_eq!(lost.command(&["LRANGE", "list", "0", "-1"]), both);
    assert!(matches!(lost.command(&["NONSENSE"]), Reply::Error(text) if text.starts_with("ERR")));
}
