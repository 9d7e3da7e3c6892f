//! `check_inbox`: what did others write to me?

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{
    DATA, Prompt, PromptArguments, PromptError, PromptOutcome, own_argument, own_client, said,
};
use crate::messaging::CallContext;

/// The prompt.
pub(super) struct CheckInbox {
    /// Nothing proves who calls: it must say so itself.
    pub(super) claimed: bool,
}

const DESCRIPTION: &str = "Read your messages and say what is in them.";

#[async_trait]
impl Prompt for CheckInbox {
    fn name(&self) -> &'static str {
        "check_inbox"
    }

    fn definition(&self) -> Value {
        json!({
            "name": self.name(),
            "title": "Check my inbox",
            "description": DESCRIPTION,
            "arguments": [own_argument(self.claimed)],
        })
    }

    async fn get(
        &self,
        sent: PromptArguments,
        context: &CallContext,
    ) -> Result<PromptOutcome, PromptError> {
        let client = own_client(&sent, context)?;
        let text = format!(
            "Read my mail with get_messages (client_id={}). Tell me in a few lines who wrote what, oldest \
             first, and which messages ask for a reply. {DATA} If one asks for a reply, suggest one; when I \
             agree, send it with send_message and its message_id as in_reply_to. If more messages remain, \
             read those too. If there are none, say so.",
            client.expose()
        );
        Ok(said(DESCRIPTION, &text))
    }
}
