//! Streams: a call that may wait, and a subscription. Headers at once, a sign of life while nothing
//! happens, and the last message ends it.
//!
//! The body itself drives what it streams: when the client hangs up, actix drops the body and so the
//! call or the subscription. One stream is one future and one timer.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use futures_util::Stream;
use tokio::{
    sync::mpsc,
    time::{Instant, Sleep, sleep},
};

use super::{
    credentials::Vigil,
    io::{Connection, Serving},
    mcp_endpoint::Shares,
    settle::LastChunk,
};
use crate::mcp::{Finished, Frame, PreparedCall, Progress, Subscription};

/// What a message is framed in.
const EVENT: Frame = Frame { before: "event: message\ndata: ", after: "\n\n" };
const COMMENT: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// The body of a call's answer.
pub(super) struct Call {
    connection: Rc<Connection>,
    stage: Stage,
    _vigil: Option<Vigil>,
    _serving: Serving,
}

enum Stage {
    Waiting(Waiting),
    Last(LastChunk),
    Done,
}

struct Waiting {
    call: Pin<Box<dyn Future<Output = Finished>>>,
    /// The call's end, while what it said before is still being sent.
    finished: Option<Box<Finished>>,
    /// What it says before its answer.
    messages: Option<mpsc::Receiver<String>>,
    progress: Option<Progress>,
    every: Duration,
    /// `None` until the call was seen to wait.
    timer: Option<Pin<Box<Sleep>>>,
    /// What its request holds; by the first tick of the timer it is in the store, or let go of.
    shares: Option<Shares>,
}

/// Begins a call that may wait. One that ends at once, without a word before its answer, needs no stream
/// and is answered under its own status.
pub(super) async fn begin(
    mut call: Box<PreparedCall>,
    every: Duration,
    connection: Rc<Connection>,
    (serving, shares): (Serving, Shares),
    vigil: Option<Vigil>,
) -> Result<Call, Finished> {
    let (progress, mut messages) = (call.take_progress(), call.take_messages());
    let converses = messages.is_some();
    let mut call: Pin<Box<dyn Future<Output = Finished>>> = Box::pin(call.run(EVENT));
    let mut finished = None;
    if converses {
        finished = poll_fn(|cx| {
            Poll::Ready(match call.as_mut().poll(cx) {
                Poll::Ready(finished) => Some(finished),
                Poll::Pending => None,
            })
        })
        .await;
        if messages.as_ref().is_some_and(mpsc::Receiver::is_empty)
            && let Some(mut finished) = finished.take()
        {
            let body = &finished.body;
            let (before, after) = (EVENT.before.len(), EVENT.after.len());
            finished.body = body.slice(before.min(body.len())..body.len().saturating_sub(after));
            return Err(finished);
        }
    }
    let finished = finished.map(Box::new);
    let messages = messages.take();
    let shares = Some(shares);
    let waiting = Waiting { call, finished, messages, progress, every, timer: None, shares };
    Ok(Call { connection, stage: Stage::Waiting(waiting), _serving: serving, _vigil: vigil })
}

impl Call {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match &mut self.stage {
            Stage::Waiting(waiting) => {
                let mut finished = waiting.finished.take();
                if finished.is_none()
                    && let Poll::Ready(ended) = waiting.call.as_mut().poll(cx)
                {
                    match &mut waiting.messages {
                        Some(messages) if !messages.is_empty() => finished = Some(Box::new(ended)),
                        Some(_) | None => return self.answer(ended, cx),
                    }
                }
                if let Some(messages) = &mut waiting.messages
                    && let Poll::Ready(Some(message)) = messages.poll_recv(cx)
                {
                    waiting.finished = finished;
                    return Poll::Ready(Some(EVENT.around(&message)));
                }
                match finished {
                    Some(finished) => self.answer(*finished, cx),
                    None => waiting.poll_sign(cx).map(Some),
                }
            }
            Stage::Last(chunk) => chunk.poll(cx),
            Stage::Done => Poll::Ready(None),
        }
    }

    fn answer(&mut self, finished: Finished, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Finished { status: _, body, delivery, operation } = finished;
        self.connection.drop_when_written(operation);
        self.stage = Stage::Done;
        if body.is_empty() {
            return Poll::Ready(None);
        }
        match delivery {
            None => Poll::Ready(Some(body)),
            Some(delivery) => {
                let mut last = LastChunk::new(body, delivery, Rc::clone(&self.connection));
                let first = last.poll(cx);
                self.stage = Stage::Last(last);
                first
            }
        }
    }
}

impl Waiting {
    /// A sign of life: at once when the call begins to wait, then whenever it is time for one.
    fn poll_sign(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        let Some(timer) = &mut self.timer else {
            self.timer = Some(Box::pin(sleep(self.every)));
            return Poll::Ready(COMMENT);
        };
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.shares = None;
        timer.as_mut().reset(Instant::now() + self.every);
        Poll::Ready(match &mut self.progress {
            None => COMMENT,
            Some(progress) => EVENT.around(&progress.tick()),
        })
    }
}

impl MessageBody for Call {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.get_mut().poll(cx).map(|chunk| chunk.map(Ok))
    }
}

/// The body of a subscription.
pub(super) struct Feed {
    messages: Pin<Box<dyn Stream<Item = Bytes>>>,
    every: Duration,
    timer: Pin<Box<Sleep>>,
    _serving: Serving,
    _vigil: Option<Vigil>,
}

impl Feed {
    pub(super) fn new(
        subscription: Subscription,
        every: Duration,
        serving: Serving,
        vigil: Option<Vigil>,
    ) -> Self {
        let messages = Box::pin(subscription.messages(EVENT));
        let timer = Box::pin(sleep(every));
        Self { messages, every, timer, _serving: serving, _vigil: vigil }
    }
}

impl MessageBody for Feed {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let feed = self.get_mut();
        let message = match feed.messages.as_mut().poll_next(cx) {
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(message)) => message,
            Poll::Pending if feed.timer.as_mut().poll(cx).is_ready() => COMMENT,
            Poll::Pending => return Poll::Pending,
        };
        feed.timer.as_mut().reset(Instant::now() + feed.every);
        Poll::Ready(Some(Ok(message)))
    }
}
