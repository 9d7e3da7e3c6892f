//! A connection as its client speaks it: plain or by TLS, around the watched socket.
//!
//! TLS stands outside of the watch. Its `poll_flush` passes on only when all records were written, so
//! what [`TrackedIo`] learns of flushed bytes holds for both.

use std::{rc::Rc, time::Duration};

use actix_http::error::DispatchError;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;

use super::io::{Connection, TrackedIo};

/// A connection: plain, or TLS.
pub(super) type Wire = Either<TrackedIo, Box<TlsStream<TrackedIo>>>;

/// Shakes hands within `patience` if this is TLS.
///
/// # Errors
/// The client does not speak TLS, or not as we do, or not in time.
pub(super) async fn open(
    io: TrackedIo,
    tls: Option<&TlsAcceptor>,
    patience: Duration,
) -> Result<Wire, DispatchError> {
    let Some(tls) = tls else { return Ok(Either::Left(io)) };
    match timeout(patience, tls.accept(io)).await {
        Ok(Ok(stream)) => Ok(Either::Right(Box::new(stream))),
        Ok(Err(error)) => {
            tracing::debug!(error = %error, "no TLS with a client");
            Err(DispatchError::Io(error))
        }
        Err(_elapsed) => Err(DispatchError::SlowRequestTimeout),
    }
}

/// What is known of the connection.
pub(super) fn state(wire: &Wire) -> Rc<Connection> {
    match wire {
        Either::Left(io) => io.state(),
        Either::Right(stream) => stream.get_ref().0.state(),
    }
}
