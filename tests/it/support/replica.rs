//! The real server as a process, and agents that talk to it.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// A server process on a free port, ended with this value.
pub(crate) struct Replica {
    process: Child,
    address: SocketAddr,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Replica {
    /// A server with these variables beside the defaults; it listens when this returns.
    pub(crate) fn start(variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-messaging"));
        command.env_clear().env("MCP_SERVER_PORT", "0").env("MCP_SERVER_HOST", "127.0.0.1");
        command.env("MCP_MESSAGING__HTTP__WORKERS", "1").env("MCP_MESSAGING__LOG__FORMAT", "json");
        command.envs(variables.iter().copied());
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let address = loop {
            let line = lines.next().expect("the server listens").unwrap();
            log.lock().unwrap().extend([&line, "\n"]);
            let Ok(line) = serde_json::from_str::<Value>(&line) else {
                panic!("the server does not start: {line}");
            };
            if line["message"].as_str().is_some_and(|text| text.starts_with("serving MCP")) {
                break line["address"].as_str().unwrap().parse().unwrap();
            }
        };
        // Somebody must read on, or the server would block on a full pipe.
        let reader = std::thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in lines.map_while(Result::ok) {
                    eprintln!("{line}");
                    log.lock().unwrap().extend([&line, "\n"]);
                }
            }
        });
        Self { process, address, log, reader: Some(reader) }
    }

    /// Its id as a process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Ends it; everything that it logged.
    pub(crate) fn ended_log(&mut self) -> String {
        self.kill();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.log.lock().unwrap().clone()
    }

    /// Waits until its log holds this text.
    pub(crate) async fn says(&self, text: &str) {
        let patience = Instant::now() + Duration::from_secs(15);
        while !self.log.lock().unwrap().contains(text) {
            assert!(Instant::now() < patience, "not said: {text}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until so many calls wait in it.
    pub(crate) async fn waiters(&self, count: usize) {
        self.counts("mcp_messaging_waiters", count).await;
        tokio::time::sleep(Duration::from_millis(50)).await; // from the count to the store
    }

    /// Waits until a metric says so many.
    pub(crate) async fn counts(&self, metric: &str, count: usize) {
        let patience = Instant::now() + Duration::from_secs(15);
        while self.metric(metric).await != count {
            assert!(Instant::now() < patience, "{metric} is not {count}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A server on this Redis, ready.
    pub(crate) async fn on(redis: &str) -> Self {
        Self::with(redis, &[]).await
    }

    /// A server on this Redis with more variables, ready.
    pub(crate) async fn with(redis: &str, variables: &[(&str, &str)]) -> Self {
        let variables: Vec<_> = [&[("REDIS_URL", redis)], variables].concat();
        let replica = Self::start(&variables);
        replica.ready(Duration::from_secs(15)).await;
        replica
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn ready(&self, within: Duration) {
        let patience = Instant::now() + within;
        loop {
            let (status, said) = self.get("/readyz").await;
            if status == 200 {
                return;
            }
            assert!(Instant::now() < patience, "not ready: {status} {said}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Status and body of a GET.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let answer = reqwest::get(format!("http://{}{path}", self.address)).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// A count without labels.
    pub(crate) async fn metric(&self, name: &str) -> usize {
        let (_, text) = self.get("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no metric {name}")).parse().unwrap()
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        self.process.wait().unwrap();
    }

    /// Asks it to end, as Kubernetes does.
    pub(crate) fn terminate(&self) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self, within: Duration) -> ExitStatus {
        let patience = Instant::now() + within;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < patience, "the server does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// An agent that talks to this server.
    pub(crate) fn agent(&self, id: &str) -> Agent {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
        Agent {
            id: id.to_owned(),
            url: format!("http://{}/mcp", self.address),
            http,
            session: None,
            key: None,
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A client of the tools.
#[derive(Clone)]
pub(crate) struct Agent {
    pub(crate) id: String,
    pub(crate) url: String,
    pub(crate) http: reqwest::Client,
    pub(crate) session: Option<String>,
    pub(crate) key: Option<String>,
}

impl Agent {
    /// The same with a key.
    pub(crate) fn with_key(self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self }
    }

    /// The beginning of every request.
    pub(crate) fn post(&self) -> reqwest::RequestBuilder {
        let mut request =
            self.http.post(&self.url).header("accept", "application/json, text/event-stream");
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session);
        }
        request
    }

    /// The result of a JSON-RPC request, whether it came as JSON or as a stream.
    pub(crate) async fn request(
        &self,
        id: u64,
        method: &str,
        params: Value,
    ) -> Result<Value, String> {
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let answer = self.post().json(&body).send().await.map_err(|error| format!("{error:?}"))?;
        let text = answer.text().await.map_err(|error| format!("{error:?}"))?;
        let json = match text.lines().find_map(|line| line.strip_prefix("data: ")) {
            Some(data) => data,
            None => &text,
        };
        let answer: Value =
            serde_json::from_str(json).map_err(|_| format!("no answer: {text:?}"))?;
        match answer.get("result") {
            Some(result) => Ok(result.clone()),
            None => Err(answer["error"].to_string()),
        }
    }

    /// The whole result of a tool call.
    pub(crate) async fn try_call(&self, tool: &str, arguments: Value) -> Result<Value, String> {
        self.request(1, "tools/call", json!({"name": tool, "arguments": arguments})).await
    }

    /// The structured content of a tool call that succeeds.
    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> Value {
        let result = self.try_call(tool, arguments).await.unwrap();
        assert_eq!(result["isError"], false, "{result}");
        result["structuredContent"].clone()
    }

    /// Sends a text; its message id.
    pub(crate) async fn send(&self, to: &str, text: &str) -> String {
        let sent = self
            .call(
                "send_message",
                json!({"sender_id": self.id, "recipient_id": to, "message": text}),
            )
            .await;
        sent["results"][0]["message_id"].as_str().unwrap().to_owned()
    }

    /// Fetches, waiting so many seconds.
    pub(crate) async fn fetch(&self, wait: u64) -> Value {
        self.call("get_messages", json!({"client_id": self.id, "wait_seconds": wait})).await
    }

    /// The texts that a fetch brings.
    pub(crate) async fn texts(&self, wait: u64) -> Vec<String> {
        texts(&self.fetch(wait).await)
    }

    /// Asks and waits.
    pub(crate) async fn ask(&self, whom: &str, text: &str, timeout: u64) -> Value {
        let arguments = json!({"sender_id": self.id, "recipient_id": whom, "message": text, "timeout": timeout});
        self.call("send_message_and_wait", arguments).await
    }

    /// Opens a protocol session, as clients before 2026-07-28 do.
    pub(crate) async fn initialize(&mut self) {
        let body = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"}}});
        let answer = self.post().json(&body).send().await.unwrap();
        let session = answer.headers()["mcp-session-id"].to_str().unwrap();
        self.session = Some(session.to_owned());
    }
}

/// The texts in the structured content of `get_messages`.
pub(crate) fn texts(fetched: &Value) -> Vec<String> {
    let messages = fetched["messages"].as_array().unwrap();
    messages.iter().map(|message| message["text"].as_str().unwrap().to_owned()).collect()
}
