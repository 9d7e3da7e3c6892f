//! Who is there and what lies there: check-in, directory, inboxes, the state of what was sent.

use std::time::Duration;

use super::{CallContext, MessagingError, MessagingService, audit};
use crate::{
    dialogue::Completion,
    model::{ClientId, MessageId},
    queue::{Browsed, ClientPage, ClientQuery, InboxStat, LedgerEntry, Peek, Profile},
};

/// Most ids of one suggestion.
const SUGGESTED: usize = 100;

impl MessagingService {
    /// Records a client in the directory. Answers what its inbox holds.
    ///
    /// # Errors
    /// [`MessagingError::Overloaded`] or [`MessagingError::Queue`].
    pub async fn check_in(
        &self,
        client: &ClientId,
        profile: &Profile,
        context: &CallContext,
    ) -> Result<(Duration, Peek), MessagingError> {
        let inbox = context.own(client)?;
        let _place = self.waiters.run(&context.stop).await?;
        self.queue.check_in(&inbox, profile, self.rules.presence).await?;
        audit::own("check_in", &inbox);
        Ok((self.rules.presence, self.queue.peek(&inbox).await?))
    }

    /// What waits in an inbox, as much as one fetch would bring. Nothing is taken by it.
    ///
    /// # Errors
    /// [`MessagingError::Overloaded`] or [`MessagingError::Queue`].
    pub async fn browse(
        &self,
        client: &ClientId,
        context: &CallContext,
    ) -> Result<Browsed, MessagingError> {
        let (inbox, rules) = (context.own(client)?, &self.rules);
        let _place = self.waiters.run(&context.stop).await?;
        let found = self.queue.browse(&inbox, rules.fetch_messages, rules.fetch_bytes).await?;
        audit::own("look", &inbox);
        Ok(found)
    }

    /// A page of the directory of the caller's team.
    ///
    /// # Errors
    /// [`MessagingError::Overloaded`] or [`MessagingError::Queue`].
    pub async fn clients(
        &self,
        query: &ClientQuery,
        context: &CallContext,
    ) -> Result<ClientPage, MessagingError> {
        let _place = self.waiters.run(&context.stop).await?;
        Ok(self.queue.clients(context.tenant(), query).await?)
    }

    /// The ids of those who checked in that begin so. Without the store there is nothing to suggest.
    pub async fn suggest_clients(&self, beginning: &str, context: &CallContext) -> Completion {
        let text = beginning.to_owned();
        let query = ClientQuery { text, limit: SUGGESTED, ..ClientQuery::default() };
        match self.clients(&query, context).await {
            Ok(page) => {
                let ids = page.clients.iter().map(|entry| entry.client.expose());
                let values =
                    ids.filter(|id| id.starts_with(beginning)).map(str::to_owned).collect();
                Completion { values, total: None, has_more: page.next.is_some() }
            }
            Err(error) => {
                tracing::warn!(error = %error, "no suggestions");
                Completion::default()
            }
        }
    }

    /// What became of the sender's recent messages, or of those named, oldest first. A named
    /// message that the ledger does not know is left out.
    ///
    /// # Errors
    /// [`MessagingError::Overloaded`] or [`MessagingError::Queue`].
    pub async fn status(
        &self,
        sender: &ClientId,
        ids: &[MessageId],
        context: &CallContext,
    ) -> Result<Vec<LedgerEntry>, MessagingError> {
        let sender = context.own(sender)?;
        let _place = self.waiters.run(&context.stop).await?;
        let mut entries = self.queue.ledger(&sender).await?;
        audit::own("ask_status", &sender);
        if !ids.is_empty() {
            entries.retain(|entry| ids.contains(&entry.id));
        }
        Ok(entries)
    }

    /// Inboxes of the caller's team that hold messages or wait.
    ///
    /// # Errors
    /// [`MessagingError::Overloaded`] or [`MessagingError::Queue`].
    pub async fn inboxes(&self, context: &CallContext) -> Result<Vec<InboxStat>, MessagingError> {
        let _place = self.waiters.run(&context.stop).await?;
        Ok(self.queue.inboxes(context.tenant(), self.rules.listed_inboxes).await?)
    }
}
