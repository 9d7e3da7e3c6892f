//! Stopping: idle connections close at once, responses under way are written to their end.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_server::ServerHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::burden::Burden;

/// The open connections of a server.
#[derive(Clone)]
pub(super) struct Connections {
    /// What they hold.
    pub(super) burden: Burden,
    open: Arc<AtomicUsize>,
    drain: CancellationToken,
}

impl Connections {
    /// None yet.
    pub(super) fn new(burden: Burden) -> Self {
        Self { burden, open: Arc::default(), drain: CancellationToken::new() }
    }

    /// Counts one, until the place is dropped.
    pub(super) fn enter(&self) -> Place {
        self.open.fetch_add(1, Ordering::Relaxed);
        Place(Arc::clone(&self.open))
    }

    /// Resolves when every connection is to end after its present response.
    pub(super) fn drained(&self) -> impl Future<Output = ()> + use<> {
        self.drain.clone().cancelled_owned()
    }
}

/// One open connection.
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ends a server.
#[derive(Clone)]
pub struct Stopper {
    handle: ServerHandle,
    connections: Connections,
    patience: Duration,
}

impl Stopper {
    pub(super) fn new(handle: ServerHandle, connections: Connections, patience: Duration) -> Self {
        Self { handle, connections, patience }
    }

    /// Closes what idles and lets responses under way end, for at most the patience of the
    /// configuration. Cancel the `stop` of [`super::HttpState`] before, or waits go on.
    ///
    /// What responses leave behind (acknowledgements) still runs on the workers: wait for it before
    /// [`stop`](Self::stop).
    pub async fn drain(&self) {
        self.connections.drain.cancel();
        let deadline = Instant::now() + self.patience;
        while self.open() > 0 && Instant::now() < deadline {
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Ends the server and its workers.
    pub async fn stop(&self) {
        self.drain().await;
        // actix looks only once a second whether connections have ended: it must find none.
        self.handle.stop(self.open() == 0).await;
    }

    /// The count of open connections, for a metric to read.
    #[must_use]
    pub fn gauge(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.connections.open)
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.connections.open.load(Ordering::Relaxed)
    }
}
