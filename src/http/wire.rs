//! A connection as its client speaks it: plain or by TLS, around the watched socket.
//!
//! TLS stands outside of the watch. Its `poll_flush` passes on only when all records were written, so
//! what [`TrackedIo`] learns of flushed bytes holds for both. Outside of TLS again, where requests are
//! bytes, heads are timed.

use std::{
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_http::error::DispatchError;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until, timeout},
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
    /// Something was answered on it.
    answered: bool,
    /// The turn in which bytes came that belong to no request yet.
    head: Option<u64>,
    /// When these have come for too long. Kept for the next head.
    timer: Option<Pin<Box<Sleep>>>,
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
        let wire =
            |stream| Self { stream, state, patience, answered: false, head: None, timer: None };
        let Some(tls) = tls else { return Ok(wire(Either::Left(io))) };
        // Boxed: the future of a connection is as large as the largest that it ever awaits.
        match Box::pin(timeout(patience, tls.accept(io))).await {
            Ok(Ok(stream)) => Ok(wire(Either::Right(Box::new(stream)))),
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

    /// After a read. Whether a head takes too long, be it that it comes slowly or that it stopped: the dispatcher
    /// sees to the first one of a connection, and to none that follows.
    fn poll_slow_head(&mut self, came: bool, cx: &mut Context<'_>) -> Poll<()> {
        let turn = self.state.between_requests();
        if self.head.is_some() && self.head != turn {
            self.head = None; // it came to its end: its request is served, or was
        }
        if !self.answered || turn.is_none() {
            return Poll::Pending;
        }
        if came && self.head.is_none() {
            self.head = turn;
            let until = Instant::now() + self.patience;
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(until),
                None => self.timer = Some(Box::pin(sleep_until(until))),
            }
        }
        match (&self.head, &mut self.timer) {
            (Some(_), Some(timer)) => timer.as_mut().poll(cx),
            (Some(_) | None, Some(_) | None) => Poll::Pending,
        }
    }

    /// Something is answered: what came so far is no part of a head any more.
    fn answers(&mut self) {
        self.answered = true;
        self.head = None;
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
        let came = buf.filled().len() > before;
        if (came || read.is_pending()) && self.poll_slow_head(came, cx).is_ready() {
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
        self.answers();
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.answers();
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
