//! A connection as its client speaks it: plain or by TLS, around the watched socket.
//!
//! TLS stands outside of the watch. Its `poll_flush` passes on only when all records were written, so
//! what [`TrackedIo`] learns of flushed bytes holds for both. Outside of TLS again, where requests are
//! bytes, heads are timed.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_http::error::DispatchError;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;

use super::io::{Connection, TrackedIo};

/// A connection: plain, or TLS.
pub(super) struct Wire {
    stream: Either<TrackedIo, Box<TlsStream<TrackedIo>>>,
    state: Rc<Connection>,
    /// How long the head of a request may take.
    patience: Duration,
    /// Bytes came that belong to no request yet: since which turn, and since when.
    head: Option<(u64, Instant)>,
}

impl Wire {
    /// Shakes hands within `patience` if this is TLS.
    ///
    /// # Errors
    /// The client does not speak TLS, or not as we do, or not in time.
    pub(super) async fn open(
        io: TrackedIo,
        tls: Option<&TlsAcceptor>,
        patience: Duration,
    ) -> Result<Self, DispatchError> {
        let state = io.state();
        let Some(tls) = tls else {
            return Ok(Self { stream: Either::Left(io), state, patience, head: None });
        };
        match timeout(patience, tls.accept(io)).await {
            Ok(Ok(stream)) => {
                Ok(Self { stream: Either::Right(Box::new(stream)), state, patience, head: None })
            }
            Ok(Err(error)) => {
                tracing::debug!(error = %error, "no TLS with a client");
                Err(DispatchError::Io(error))
            }
            Err(_elapsed) => Err(DispatchError::SlowRequestTimeout),
        }
    }

    /// What is known of the connection.
    pub(super) fn state(&self) -> Rc<Connection> {
        Rc::clone(&self.state)
    }

    /// Bytes came. Whether they are of a head that takes too long: the dispatcher sees to the first one of a
    /// connection, and to none that follows. (A head that stops altogether ends with the idle connection.)
    fn is_slow_head(&mut self) -> bool {
        let turn = self.state.between_requests();
        match self.head {
            Some((began, since)) if turn == Some(began) => since.elapsed() > self.patience,
            Some(_) | None => {
                self.head = turn.map(|turn| (turn, Instant::now()));
                false
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if matches!(read, Poll::Ready(Ok(()))) && buf.filled().len() > before && self.is_slow_head()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
