//! `ask_agent`: a question to another agent, and its answer.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{
    DATA, Prompt, PromptArguments, PromptError, PromptOutcome, argument, client_id, own_argument,
    own_client, quoted, said,
};
use crate::{
    dialogue::Completion,
    messaging::{CallContext, MessagingService},
};

/// The prompt.
pub(super) struct AskAgent {
    pub(super) messaging: MessagingService,
    /// Nothing proves who calls: it must say so itself.
    pub(super) claimed: bool,
}

const DESCRIPTION: &str = "Ask another agent and wait for its answer.";

#[async_trait]
impl Prompt for AskAgent {
    fn name(&self) -> &'static str {
        "ask_agent"
    }

    fn definition(&self) -> Value {
        json!({
            "name": self.name(),
            "title": "Ask another agent",
            "description": DESCRIPTION,
            "arguments": [
                own_argument(self.claimed),
                argument("recipient_id", "The client id of the agent to ask", true),
                argument("question", "What to ask, with all that it needs to answer", true),
            ],
        })
    }

    fn completes(&self) -> bool {
        true
    }

    async fn complete(&self, argument: &str, value: &str, context: &CallContext) -> Completion {
        match argument {
            "recipient_id" => self.messaging.suggest_clients(value, context).await,
            _ => Completion::default(),
        }
    }

    async fn get(
        &self,
        sent: PromptArguments,
        context: &CallContext,
    ) -> Result<PromptOutcome, PromptError> {
        let client = own_client(&sent, context)?;
        let peer = client_id(&sent, "recipient_id", "the client id of the agent to ask")?;
        let question = quoted(&sent, "question")?.ok_or_else(|| {
            PromptError::Argument("question is missing; write what to ask".to_owned())
        })?;
        let (client, peer) = (client.expose(), peer.expose());
        let text = format!(
            "Ask another agent for me with send_message_and_wait (sender_id={client}, recipient_id={peer}, \
             message={question}). If it answers pending, the reply may still come: wait for it with \
             get_messages (client_id={client}, wait_seconds=50), once or twice; the one with the \
             message_id of the question as in_reply_to is the reply. Then tell me what it says, or that \
             nobody answered. {DATA}"
        );
        Ok(said(DESCRIPTION, &text))
    }
}
