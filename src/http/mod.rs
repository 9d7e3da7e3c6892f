//! HTTP: routes, connections, and what was really written.
//!
//! This is the only layer that knows actix. It does not use `actix_web::HttpServer`, which hides the
//! socket: `io::TrackedIo` sits between the socket and the dispatcher, so that messages are
//! acknowledged after the last byte of their response was written and not before (`settle`).
//!
//! Not here: anything of the protocol beyond media types and status codes.

mod address;
mod burden;
mod credentials;
mod guard;
mod io;
mod mcp_endpoint;
mod ops;
mod origin;
mod problem;
mod sessions;
mod settle;
mod sse;
mod state;
mod stop;
mod teams;
mod unacked;
mod well_known;
mod wire;

use std::{
    collections::HashMap,
    convert::Infallible,
    io::Result,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, ThreadId},
};

use actix_http::{HttpService, Protocol};
use actix_server::Server;
use actix_service::{IntoServiceFactory, ServiceFactoryExt, boxed, fn_service, map_config};
use actix_web::{
    App, HttpResponse,
    dev::AppConfig,
    http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS},
    middleware::DefaultHeaders,
    web::{self, ServiceConfig},
};
use parking_lot::Mutex;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;

pub use self::{
    address::ForwardedHeader,
    state::{HttpConfig, HttpState},
    stop::Stopper,
};
use self::{burden::Burden, guard::Guard, io::TrackedIo, stop::Connections, wire::Wire};

/// What a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Routes {
    /// The endpoint and the probes.
    All,
    /// The endpoint; the probes are elsewhere.
    Public,
    /// The probes and metrics.
    Ops,
}

impl Routes {
    fn register(self, app: &mut ServiceConfig) {
        if self != Self::Ops {
            // One resource each: a list of paths is matched by regular expression, a path by bytes.
            for path in ["/mcp", "/mcp/"] {
                app.service(
                    web::resource(path)
                        .route(web::post().to(mcp_endpoint::post))
                        .default_service(web::to(mcp_endpoint::method_not_allowed)),
                );
            }
            app.service(
                web::resource("/api/sessions")
                    .route(web::get().to(sessions::get))
                    .route(web::method(actix_web::http::Method::OPTIONS).to(sessions::options)),
            );
            let tail = format!("{}{{tail:.*}}", well_known::PREFIX);
            app.service(
                web::resource(tail)
                    .route(web::get().to(well_known::get))
                    .route(web::method(actix_web::http::Method::OPTIONS).to(well_known::options)),
            );
            teams::register(app);
        }
        if self != Self::Public {
            app.route("/livez", web::get().to(ops::livez));
            app.route("/readyz", web::get().to(ops::readyz));
            app.route("/metrics", web::get().to(ops::metrics));
        }
    }
}

/// A listening socket with a queue of `backlog` connections. Needs a tokio runtime.
///
/// # Errors
/// The address is taken, or is not this machine's.
pub fn bind(address: SocketAddr, backlog: u32) -> Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(backlog)?.into_std()
}

/// Serves on `listeners`, and the probes on `ops_listener` if there is one, else on all of them.
///
/// With [`HttpConfig::tls`] the endpoint speaks TLS; a listener for the probes alone never does.
///
/// `make_state` is called once per worker, in the worker's runtime. The server runs while it is
/// awaited; [`Stopper::stop`] ends it.
///
/// # Errors
/// A listener that is none.
pub fn serve(
    listeners: Vec<TcpListener>,
    ops_listener: Option<TcpListener>,
    config: &HttpConfig,
    make_state: impl Fn() -> HttpState + Send + Clone + 'static,
) -> Result<(Server, Stopper)> {
    let mut builder = Server::build()
        .workers(config.workers.clamp(1, 512))
        .max_concurrent_connections(config.max_connections)
        .shutdown_timeout(1)
        .disable_signals();
    let guard = web::Data::new(Guard::new(config));
    let burden = Burden::new(config.memory_limit, config.stalled_limit);
    let connections = Connections::new(burden);
    let states = PerWorker { made: Arc::default(), make: make_state };
    let public = if ops_listener.is_some() { Routes::Public } else { Routes::All };
    let public = listeners.into_iter().map(|listener| (listener, public));
    for (listener, routes) in public.chain(ops_listener.map(|listener| (listener, Routes::Ops))) {
        let (states, connections, config) = (states.clone(), connections.clone(), config.clone());
        let guard = guard.clone();
        // Probes and metrics on a listener of their own are for the machine's own network.
        let tls = config.tls.clone().filter(|_tls| routes != Routes::Ops).map(TlsAcceptor::from);
        builder = builder.listen("mcp-messaging", listener, move || {
            let state = states.get();
            let app = App::new()
                .app_data(web::Data::new(state))
                .app_data(guard.clone())
                .configure(|app| routes.register(app))
                .default_service(web::to(not_found))
                // No answer is a page, and none is to be kept by a browser or a proxy on the way.
                .wrap(
                    DefaultHeaders::new()
                        .add((X_CONTENT_TYPE_OPTIONS, "nosniff"))
                        .add((CACHE_CONTROL, "no-store")),
                );
            let draining = connections.clone();
            let service = HttpService::build()
                .graceful_shutdown_signal(move || draining.drained())
                .keep_alive(config.idle_timeout)
                .client_request_timeout(config.client_request_timeout)
                .client_disconnect_timeout(config.client_disconnect_timeout)
                // A client that hung up must not be served on: its messages would be lost.
                .h1_allow_half_closed(false)
                .on_connect_ext(|wire: &Wire, data| {
                    data.insert(wire.state());
                })
                .finish(map_config(app.into_factory(), |()| AppConfig::default()));
            let open = connections.clone();
            let (tls, patience) = (tls.clone(), config.client_request_timeout);
            let stall = config.write_stall_timeout;
            let service = fn_service(move |socket: TcpStream| {
                let (place, burden, tls) = (open.enter(), open.burden.clone(), tls.clone());
                async move {
                    // Without this an answer written in two pieces waits for a delayed ACK.
                    if let Err(error) = socket.set_nodelay(true) {
                        tracing::debug!(error = %error, "setting TCP_NODELAY failed");
                    }
                    let peer = socket.peer_addr().ok();
                    let io = TrackedIo::new(socket, tls.is_some(), stall, burden, place);
                    let wire = Wire::open(io, tls.as_ref(), patience).await?;
                    Ok((wire, Protocol::Http1, peer))
                }
            })
            .and_then(service);
            // The server keeps room for two of what it is given to run: a pointer is a smaller one.
            boxed::factory(service)
        })?;
    }
    let server = builder.run();
    let stopper = Stopper::new(server.handle(), connections, config.drain_timeout);
    Ok((server, stopper))
}

async fn not_found() -> std::result::Result<HttpResponse, Infallible> {
    Ok(HttpResponse::NotFound().body("not found; the MCP endpoint is POST /mcp"))
}

/// The state of each worker: made once in its thread, shared by its listeners.
#[derive(Clone)]
struct PerWorker<F> {
    made: Arc<Mutex<HashMap<ThreadId, HttpState>>>,
    make: F,
}

impl<F: Fn() -> HttpState> PerWorker<F> {
    fn get(&self) -> HttpState {
        let thread = thread::current().id();
        if let Some(state) = self.made.lock().get(&thread) {
            return state.clone();
        }
        let state = (self.make)();
        self.made.lock().insert(thread, state.clone());
        state
    }
}
