//! What a client is told at its next contact.

use futures_util::future::join;

use super::{Delivery, MessagingService, delivery::Claim};
use crate::{
    model::Inbox,
    queue::{self, Pause},
};

/// What a client must be told. The server says it, beside messages and never as one, so that nobody can forge it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Its message expired unread.
    Expired(queue::Notice),
    /// It and another one look like a loop, and may not send to each other for a while.
    Paused(Pause),
}

impl MessagingService {
    /// What a client was not told yet. A failure of the store is logged and leaves it for the next contact.
    pub(super) async fn notices(&self, client: &Inbox) -> (Vec<Notice>, Option<Delivery>) {
        let (expired, pauses) = join(self.queue.notices(client), self.pauses(client)).await;
        let (expired, pauses) = (read(expired), read(pauses));
        let claims = [Claim::told(client, &expired), Claim::paused(client, &pauses)];
        let delivery = self.settler().deliver(claims.into_iter().flatten().collect());
        let notices = expired.into_iter().map(Notice::Expired);
        (notices.chain(pauses.into_iter().map(Notice::Paused)).collect(), delivery)
    }
}

fn read<T>(found: Result<Vec<T>, queue::QueueError>) -> Vec<T> {
    found.unwrap_or_else(|error| {
        tracing::warn!(error.kind = error.label(), error = %error, "reading notices failed");
        Vec::new()
    })
}
