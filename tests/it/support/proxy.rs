//! A proxy between a replica and Redis that can go bad in the ways of networks.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
};

/// What the proxy does to what Redis says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Weather {
    /// Passes everything on.
    Fair,
    /// Passes answers on and drops published messages: a healthy connection with a deaf subscription.
    Deaf,
    /// Swallows everything and keeps connections open: half-open ones, which never recover.
    Hole,
}

/// A proxy on a free port of 127.0.0.1.
pub(crate) struct Proxy {
    port: u16,
    weather: Arc<AtomicU8>,
}

impl Proxy {
    /// In front of the server at this `redis://127.0.0.1:port`.
    pub(crate) async fn before(redis: &str) -> Self {
        let target: u16 = redis.rsplit(':').next().unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let weather = Arc::new(AtomicU8::new(Weather::Fair as u8));
        let now = Arc::clone(&weather);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pass(from_client, to_server, Arc::new(AtomicU8::new(0))));
                tokio::spawn(pass(from_server, to_client, Arc::clone(&now)));
            }
        });
        Self { port, weather }
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Changes the weather, for open connections too.
    pub(crate) fn turn(&self, weather: Weather) {
        self.weather.store(weather as u8, Ordering::SeqCst);
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, weather: Arc<AtomicU8>) {
    let mut buffer = vec![0; 64 * 1024];
    let mut broken = false;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let said = &buffer[..count];
        let now = weather.load(Ordering::SeqCst);
        let published = said.starts_with(b">3\r\n$7\r\nmessage");
        broken |= now == Weather::Hole as u8;
        let lost = broken || (now == Weather::Deaf as u8 && published);
        if !lost && to.write_all(said).await.is_err() {
            return;
        }
    }
}
