//! What the product is measured against, served by this same binary: a canned answer, and a spike
//! with the same parts (actix, fred with a client per worker, one function call) that keeps no promise.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix_web::{App, HttpResponse, HttpServer, rt::System, web};
use fred::{
    clients::Client,
    error::Error,
    interfaces::{ClientLike, EventInterface, PubsubInterface},
    types::{Builder, ClusterHash, CustomCommand, Value, config::Config},
};
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use tokio::{
    sync::{Notify, OnceCell},
    time::{Instant, timeout_at},
};

use crate::Outcome;

/// The functions of the spike, for `FUNCTION LOAD`.
pub(crate) const LIBRARY: &str = include_str!("spike.lua");

/// As long as an answer to a send.
const CANNED: &str = concat!(
    r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"#,
    r#""Sent: message_id 0199c3a2-7d1e-7c3b-9f10-2b1d6a4e8f55 is queued for r-0001 (never seen here, "#,
    r#"so check the id (list_clients knows who checked in)).\nUnread, a message expires after 300 s.\n"}],"#,
    r#""structuredContent":{"results":[{"recipient_id":"r-0001","#,
    r#""message_id":"0199c3a2-7d1e-7c3b-9f10-2b1d6a4e8f55","status":"queued","#,
    r#""recipient":{"presence":"unknown"}}]},"isError":false}}"#,
);

/// Serves the canned answer until it is killed.
pub(crate) fn serve_canned(port: u16, workers: usize) -> Outcome<()> {
    async fn canned(_body: web::Bytes) -> HttpResponse {
        HttpResponse::Ok().content_type("application/json").body(CANNED)
    }
    System::new().block_on(
        HttpServer::new(|| App::new().route("/mcp", web::post().to(canned)))
            .workers(workers)
            .tcp_nodelay(true)
            .disable_signals()
            .bind(("127.0.0.1", port))?
            .run(),
    )?;
    Ok(())
}

/// The result of a send.
const QUEUED: &str = r#"{"content":[{"type":"text","text":"queued"}],"structuredContent":{"status":"queued"},"isError":false}"#;

type Waiters = Arc<Mutex<HashMap<String, Arc<Notify>>>>;

struct Spike {
    client: Client,
    ear: Arc<Ear>,
}

/// What a process hears, once somebody in it waits: who only sends does not pay for it.
struct Ear {
    client: Client,
    listening: OnceCell<()>,
    waiters: Waiters,
}

impl Ear {
    async fn listen(&self) -> Result<(), Error> {
        self.listening.get_or_try_init(|| self.client.subscribe("spike")).await?;
        Ok(())
    }
}

/// A client that connects in the background.
pub(crate) fn connect(url: &str) -> Outcome<Client> {
    let client = Builder::from_config(Config::from_url(url)?).build()?;
    client.connect();
    Ok(client)
}

/// Serves the spike until it is killed.
pub(crate) fn serve_spike(port: u16, url: &str, workers: usize) -> Outcome<()> {
    let url = url.to_owned();
    System::new().block_on(async move {
        let waiters = Waiters::default();
        let client = connect(&url)?;
        client.wait_for_connect().await?;
        actix_web::rt::spawn(listen(client.clone(), Arc::clone(&waiters)));
        let ear = Arc::new(Ear { client, listening: OnceCell::new(), waiters });
        let serve = HttpServer::new(move || {
            let client = match connect(&url) {
                Ok(client) => client,
                Err(error) => unreachable!("the same URL connected above: {error}"),
            };
            let spike = Spike { client, ear: Arc::clone(&ear) };
            App::new().app_data(web::Data::new(spike)).route("/mcp", web::post().to(post))
        });
        let serve = serve.workers(workers).tcp_nodelay(true).disable_signals();
        Ok(serve.bind(("127.0.0.1", port))?.run().await?)
    })
}

async fn listen(ear: Client, waiters: Waiters) {
    let mut messages = ear.message_rx();
    while let Ok(message) = messages.recv().await {
        let Some(inbox) = message.value.as_str() else { continue };
        let waiters = waiters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiter) = waiters.get(&*inbox) {
            waiter.notify_one();
        }
    }
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    params: Params,
}

#[derive(Deserialize)]
struct Params {
    name: String,
    arguments: Arguments,
}

#[derive(Deserialize)]
struct Arguments {
    recipient_id: Option<String>,
    message: Option<String>,
    client_id: Option<String>,
    wait_seconds: Option<u64>,
}

async fn post(body: web::Bytes, spike: web::Data<Spike>) -> actix_web::Result<HttpResponse> {
    let request: Request<'_> = serde_json::from_slice(&body)?;
    let Params { name, arguments } = request.params;
    let result = if name == "send_message" {
        let to = arguments.recipient_id.unwrap_or_default();
        spike.send(&to, arguments.message.unwrap_or_default()).await?;
        QUEUED.to_owned()
    } else {
        let client = arguments.client_id.unwrap_or_default();
        let wait = Duration::from_secs(arguments.wait_seconds.unwrap_or_default());
        let found = spike.wait(client, wait).await?;
        let texts: Vec<_> = found.iter().map(|text| json!({ "text": text })).collect();
        let texts = serde_json::to_string(&texts)?;
        format!(r#"{{"content":[],"structuredContent":{{"messages":{texts}}},"isError":false}}"#)
    };
    let id = request.id;
    let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
    Ok(HttpResponse::Ok().content_type("application/json").body(answer))
}

impl Spike {
    async fn call(&self, function: &'static str, rest: Vec<Value>) -> actix_web::Result<Value> {
        let command = CustomCommand::new_static("FCALL", ClusterHash::Custom(0), false);
        let mut args: Vec<Value> = vec![function.into(), 1.into()];
        args.extend(rest);
        let answer = self.client.custom(command, args).await;
        answer.map_err(actix_web::error::ErrorInternalServerError)
    }

    async fn send(&self, to: &str, message: String) -> actix_web::Result<()> {
        let rest = vec![format!("spike:{to}").into(), message.into(), to.into()];
        self.call("spike_send", rest).await?;
        Ok(())
    }

    async fn pop(&self, client: &str) -> actix_web::Result<Vec<String>> {
        let found = self.call("spike_pop", vec![format!("spike:{client}").into()]).await?;
        Ok(found.into_array().into_iter().filter_map(Value::into_string).collect())
    }

    /// Waits on the standing subscription. One waiter of an inbox at a time.
    async fn wait(&self, client: String, wait: Duration) -> actix_web::Result<Vec<String>> {
        if wait.is_zero() {
            return self.pop(&client).await;
        }
        self.ear.listen().await.map_err(actix_web::error::ErrorInternalServerError)?;
        let until = Instant::now() + wait;
        let notify = Arc::new(Notify::new());
        let waiters = || self.ear.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        waiters().insert(client.clone(), Arc::clone(&notify));
        let mut found = self.pop(&client).await?;
        while found.is_empty() && timeout_at(until, notify.notified()).await.is_ok() {
            found = self.pop(&client).await?;
        }
        waiters().remove(&client);
        Ok(found)
    }
}
