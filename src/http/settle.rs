//! A response that carries messages: they are acknowledged after its last byte was written.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;

use super::io::{Connection, Mark};
use crate::messaging::Delivery;

/// The last chunk of a body, with what it carries.
///
/// The body ends one round after the chunk was written, so that a connection that broke meanwhile is
/// seen first. Dropped before it was written, it gives the messages back.
pub(super) struct LastChunk {
    connection: Rc<Connection>,
    stage: Stage,
}

enum Stage {
    Ready {
        bytes: Bytes,
        delivery: Delivery,
    },
    /// The chunk was handed over in this round.
    Handed(Mark),
    /// A round has ended since.
    Waiting(Mark),
    Done,
}

impl LastChunk {
    pub(super) fn new(bytes: Bytes, delivery: Delivery, connection: Rc<Connection>) -> Self {
        Self { connection, stage: Stage::Ready { bytes, delivery } }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Ready { bytes, delivery } => {
                self.stage = Stage::Handed(self.connection.carry(delivery));
                Poll::Ready(Some(bytes))
            }
            Stage::Handed(mark) => {
                self.stage = Stage::Waiting(mark);
                if self.connection.has_written(mark) {
                    cx.waker().wake_by_ref();
                } else {
                    self.connection.wake_when_written(cx.waker());
                }
                Poll::Pending
            }
            Stage::Waiting(mark) if self.connection.has_written(mark) => {
                self.connection.settle();
                Poll::Ready(None)
            }
            Stage::Waiting(mark) => {
                self.stage = Stage::Waiting(mark);
                self.connection.wake_when_written(cx.waker());
                Poll::Pending
            }
            Stage::Done => Poll::Ready(None),
        }
    }

    fn len(&self) -> u64 {
        match &self.stage {
            Stage::Ready { bytes, .. } => bytes.len() as u64,
            Stage::Handed(_) | Stage::Waiting(_) | Stage::Done => 0,
        }
    }
}

impl Drop for LastChunk {
    fn drop(&mut self) {
        match &self.stage {
            // The connection ended between the last byte and the end of the body.
            Stage::Waiting(mark) if self.connection.has_written(*mark) => self.connection.settle(),
            Stage::Handed(_) | Stage::Waiting(_) => self.connection.give_back(),
            Stage::Ready { .. } | Stage::Done => {}
        }
    }
}

/// A body of one chunk.
pub(super) struct Settling {
    size: u64,
    chunk: LastChunk,
}

impl Settling {
    pub(super) fn new(chunk: LastChunk) -> Self {
        Self { size: chunk.len(), chunk }
    }
}

impl MessageBody for Settling {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.size)
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.get_mut().chunk.poll(cx).map(|chunk| chunk.map(Ok))
    }
}
