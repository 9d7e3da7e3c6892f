//! A call that may wait, as a stream: headers at once, a sign of life while it waits, its answer.
//!
//! The body itself drives the call: when the client hangs up, actix drops the body and so the call.
//! One waiter is one future and one timer.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep};

use super::{io::Connection, settle::LastChunk};
use crate::mcp::{Finished, Frame, PreparedCall, Progress};

/// What an answer is framed in.
const EVENT: Frame = Frame { before: "event: message\ndata: ", after: "\n\n" };
const COMMENT: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// The body of a stream.
pub(super) struct Stream {
    connection: Rc<Connection>,
    stage: Stage,
}

enum Stage {
    Waiting(Waiting),
    Last(LastChunk),
    Done,
}

struct Waiting {
    call: Pin<Box<dyn Future<Output = Finished>>>,
    progress: Option<Progress>,
    every: Duration,
    /// `None` until the call was seen to wait.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    pub(super) fn new(mut call: PreparedCall, every: Duration, connection: Rc<Connection>) -> Self {
        let progress = call.take_progress();
        let waiting = Waiting { progress, call: Box::pin(call.run(EVENT)), every, timer: None };
        Self { connection, stage: Stage::Waiting(waiting) }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match &mut self.stage {
            Stage::Waiting(waiting) => match waiting.call.as_mut().poll(cx) {
                Poll::Ready(finished) => self.answer(finished, cx),
                Poll::Pending => waiting.poll_sign(cx).map(Some),
            },
            Stage::Last(chunk) => chunk.poll(cx),
            Stage::Done => Poll::Ready(None),
        }
    }

    fn answer(&mut self, finished: Finished, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Finished { body, delivery, .. } = finished;
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
        timer.as_mut().reset(Instant::now() + self.every);
        Poll::Ready(match &mut self.progress {
            None => COMMENT,
            Some(progress) => {
                Bytes::from(format!("{}{}{}", EVENT.before, progress.tick(), EVENT.after))
            }
        })
    }
}

impl MessageBody for Stream {
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
