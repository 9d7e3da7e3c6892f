//! The socket of a connection, watched: what was written, whether its client is still there, and
//! whether it reads.
//!
//! actix's HTTP/1 dispatcher calls `poll_flush` of its socket exactly when all that it had to write
//! has been written (`actix_http::h1::Dispatcher::poll_flush`). So a response has gone out when
//! `poll_flush` comes after its last byte was handed over.
//!
//! It went to somebody if the client had not ended its side before, and nothing came back that says
//! otherwise. The kernel is asked for both, because tokio learns of them only when its driver has had
//! a turn: a waiter that is woken for mail may run before that. A reset says otherwise unless the other
//! side had acknowledged everything by then: load balancers end connections so when they have the answer.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::AsFd,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use rustix::net::{RecvFlags, recv};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

use super::{
    burden::{Burden, Share},
    stop::Place,
    unacked::unacked,
};
use crate::{mcp::Operation, messaging::Delivery};

/// What is known of a connection. Shared by its socket and by the body that is being written.
pub(super) struct Connection {
    /// What all connections burden the process with.
    burden: Burden,
    /// How often everything handed over so far had been written.
    flushes: Cell<u64>,
    /// Up to which of them the socket was asked afterwards whether it broke.
    verified: Cell<u64>,
    /// The client has ended its side.
    ended: Cell<bool>,
    /// Something written may not have arrived.
    broken: Cell<bool>,
    /// Who waits for the next flush.
    waiting: Cell<Option<Waker>>,
    /// Requests whose answers are not all handed over yet.
    serving: Cell<u32>,
    /// Changes whenever a request begins to be served and whenever one ends.
    turn: Cell<u64>,
    /// What the response under way carries.
    delivery: RefCell<Option<Delivery>>,
    /// The request whose answer is being handed over.
    operation: Cell<Option<Box<Operation>>>,
}

impl Connection {
    fn new(burden: Burden) -> Self {
        Self {
            burden,
            flushes: Cell::default(),
            verified: Cell::default(),
            ended: Cell::default(),
            broken: Cell::default(),
            waiting: Cell::default(),
            serving: Cell::default(),
            turn: Cell::default(),
            delivery: RefCell::default(),
            operation: Cell::default(),
        }
    }

    /// A request has begun to be served, until the guard is dropped: its head is here, and whatever comes
    /// now may take its time.
    pub(super) fn serve(self: &Rc<Self>) -> Serving {
        self.serving.set(self.serving.get() + 1);
        self.turn.set(self.turn.get().wrapping_add(1));
        Serving(Rc::clone(self))
    }

    /// Changes with every request that begins or ends; `None` while one is served.
    pub(super) fn between_requests(&self) -> Option<u64> {
        (self.serving.get() == 0).then(|| self.turn.get())
    }

    /// Room for so many bytes of a body. `None`: there is none.
    pub(super) fn hold(&self, bytes: usize) -> Option<Share> {
        self.burden.hold(bytes)
    }

    /// A response that carries messages is being handed over.
    pub(super) fn carry(&self, delivery: Delivery) -> Mark {
        *self.delivery.borrow_mut() = Some(delivery);
        Mark(self.flushes.get())
    }

    /// Whether all that was handed over before the mark has been written, and what became of the
    /// connection then is known.
    pub(super) fn has_written(&self, mark: Mark) -> bool {
        self.verified.get() > mark.0
    }

    /// Wakes `waker` when it is worth asking again.
    pub(super) fn wake_when_written(&self, waker: &Waker) {
        self.waiting.set(Some(waker.clone()));
    }

    /// An answer is being handed over: its request is logged once it has been written.
    pub(super) fn drop_when_written(&self, operation: Option<Operation>) {
        self.operation.set(operation.map(Box::new));
    }

    fn wake(&self) {
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// Whether the response under way carries something.
    fn carries(&self) -> bool {
        self.delivery.borrow().is_some()
    }

    /// The response ended: what it carried was received, or goes back.
    pub(super) fn settle(&self) {
        let delivery = self.delivery.borrow_mut().take();
        if let (Some(delivery), false) = (delivery, self.broken.get()) {
            delivery.flushed();
        }
    }

    /// The response was given up: what it carried goes back.
    pub(super) fn give_back(&self) {
        drop(self.delivery.borrow_mut().take());
    }
}

/// A request that is being served.
pub(super) struct Serving(Rc<Connection>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.serving.set(self.0.serving.get() - 1);
        self.0.turn.set(self.0.turn.get().wrapping_add(1));
    }
}

/// A place in the stream of what a connection wrote.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark(u64);

/// The socket.
pub(super) struct TrackedIo {
    socket: TcpStream,
    encrypted: bool,
    state: Rc<Connection>,
    /// How long a client may take to take something of a response.
    stall: Duration,
    blocked: Option<Box<Blocked>>,
    _place: Place,
}

/// A write that waits for the client to read.
struct Blocked {
    timer: Pin<Box<Sleep>>,
    every: Duration,
    since: Instant,
    _share: Share,
}

impl TrackedIo {
    /// `encrypted`: what passes are records of TLS. A client may take `stall` to take something of a response.
    pub(super) fn new(
        socket: TcpStream,
        encrypted: bool,
        stall: Duration,
        burden: Burden,
        place: Place,
    ) -> Self {
        let state = Rc::new(Connection::new(burden));
        Self { socket, encrypted, state, stall, blocked: None, _place: place }
    }

    pub(super) fn state(&self) -> Rc<Connection> {
        Rc::clone(&self.state)
    }

    /// Before messages are written: whether their client has ended its side.
    fn look_for_the_end(&self) {
        let mut head = [0; RECORD_HEAD];
        let ended = match recv(&self.socket, &mut head, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((0, _)) => true,
            Ok((read, _)) if self.encrypted => is_alert(&head[..read]),
            Ok(_) | Err(_) => false,
        };
        if ended {
            self.state.ended.set(true);
        }
    }

    /// After messages were written: whether the client's side answered that it is gone.
    fn verify(&self) {
        let state = &self.state;
        if state.verified.get() != state.flushes.get() && state.carries() {
            if !matches!(self.socket.take_error(), Ok(None)) {
                self.broke();
            }
            state.verified.set(state.flushes.get());
            state.wake();
        }
    }

    /// The connection broke, with or without something in flight.
    fn broke(&self) {
        if unacked(self.socket.as_fd()) != Some(0) {
            self.state.broken.set(true);
        }
    }

    /// The client takes nothing now. Keeps leases alive, until it counts as gone.
    fn poll_blocked(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let stall = self.stall;
        let state = &self.state;
        let blocked = match &mut self.blocked {
            Some(blocked) => blocked,
            none => {
                let Some(share) = state.burden.stall() else {
                    state.broken.set(true);
                    state.give_back();
                    return Poll::Ready(io::ErrorKind::TimedOut.into());
                };
                let lease = state.delivery.borrow().as_ref().map(Delivery::keep_alive_every);
                let every = lease.map_or(stall, |lease| lease.min(stall));
                let (timer, since) = (Box::pin(sleep(every)), Instant::now());
                none.insert(Box::new(Blocked { timer, every, since, _share: share }))
            }
        };
        while blocked.timer.as_mut().poll(cx).is_ready() {
            if blocked.since.elapsed() >= stall {
                state.broken.set(true);
                state.give_back();
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            if let Some(delivery) = state.delivery.borrow().as_ref() {
                delivery.keep_alive();
            }
            let next = Instant::now() + blocked.every;
            blocked.timer.as_mut().reset(next.min(blocked.since + stall).max(Instant::now()));
        }
        Poll::Pending
    }

    fn wrote(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(_)) => {
                if let Some(blocked) = &mut self.blocked {
                    blocked.since = Instant::now();
                }
            }
            Poll::Ready(Err(_)) => self.state.broken.set(true),
            Poll::Pending => {
                if let Poll::Ready(gone) = self.poll_blocked(cx) {
                    return Poll::Ready(Err(gone));
                }
            }
        }
        written
    }
}

/// What a record of TLS begins with: its type, version and length.
const RECORD_HEAD: usize = 5;

/// Whether a record says that the other side ends (or why it cannot go on): an alert, which TLS 1.3
/// disguises as data, of two bytes, the type and 16 bytes of authentication (RFC 8446, 5.2). An HTTP
/// client has nothing else to say in two bytes.
fn is_alert(head: &[u8]) -> bool {
    matches!(head, [21, ..] | [23, 3, 3, 0, 19])
}

impl AsyncRead for TrackedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.verify();
        let (before, room) = (buf.filled().len(), buf.remaining());
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        match &read {
            Poll::Ready(Ok(())) if room > 0 && buf.filled().len() == before => {
                self.state.ended.set(true);
            }
            Poll::Ready(Err(_)) => self.broke(),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        read
    }
}

impl AsyncWrite for TrackedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.state.carries() {
            self.look_for_the_end();
        }
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.wrote(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.state.carries() {
            self.look_for_the_end();
        }
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.wrote(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.blocked = None;
        // A round without anything to write ends here as well.
        self.verify();
        // What is written after the client ended its side reaches nobody.
        if !self.state.ended.get() {
            self.state.flushes.set(self.state.flushes.get().wrapping_add(1));
            self.state.wake();
        }
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        self.state.operation.take();
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
