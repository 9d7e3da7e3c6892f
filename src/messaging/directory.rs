//! Who is there: check-in, directory, the state of what was sent.

use std::time::Duration;

use super::{CallContext, MessagingError, MessagingService};
use crate::{
    model::{ClientId, MessageId},
    queue::{ClientPage, ClientQuery, InboxStat, LedgerEntry, Peek, Profile},
};

impl MessagingService {
    /// Records a client in the directory. Answers what its inbox holds.
    ///
    /// # Errors
    /// [`MessagingError::Queue`].
    pub async fn check_in(
        &self,
        client: &ClientId,
        profile: &Profile,
        context: &CallContext,
    ) -> Result<(Duration, Peek), MessagingError> {
        let inbox = context.inbox(client);
        self.queue.check_in(&inbox, profile, self.rules.presence).await?;
        Ok((self.rules.presence, self.queue.peek(&inbox).await?))
    }

    /// A page of the directory of the caller's team.
    ///
    /// # Errors
    /// [`MessagingError::Queue`].
    pub async fn clients(
        &self,
        query: &ClientQuery,
        context: &CallContext,
    ) -> Result<ClientPage, MessagingError> {
        Ok(self.queue.clients(&context.tenant, query).await?)
    }

    /// What became of the sender's recent messages, or of those named, oldest first. A named
    /// message that the ledger does not know is left out.
    ///
    /// # Errors
    /// [`MessagingError::Queue`].
    pub async fn status(
        &self,
        sender: &ClientId,
        ids: &[MessageId],
        context: &CallContext,
    ) -> Result<Vec<LedgerEntry>, MessagingError> {
        let mut entries = self.queue.ledger(&context.inbox(sender)).await?;
        if !ids.is_empty() {
            entries.retain(|entry| ids.contains(&entry.id));
        }
        Ok(entries)
    }

    /// Inboxes of the caller's team that hold messages or wait.
    ///
    /// # Errors
    /// [`MessagingError::Queue`].
    pub async fn inboxes(&self, context: &CallContext) -> Result<Vec<InboxStat>, MessagingError> {
        Ok(self.queue.inboxes(&context.tenant, self.rules.listed_inboxes).await?)
    }
}
