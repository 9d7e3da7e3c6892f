//! `introduce_yourself`: say who you are, and see who else is there.

use std::fmt::Write;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{
    DATA, Prompt, PromptArguments, PromptError, PromptOutcome, argument, own_argument, own_client,
    quoted, said,
};
use crate::messaging::CallContext;

/// The prompt.
pub(super) struct IntroduceYourself {
    /// Nothing proves who calls: it must say so itself.
    pub(super) claimed: bool,
}

const DESCRIPTION: &str = "Check in, so that other agents find you, and see who is there.";

#[async_trait]
impl Prompt for IntroduceYourself {
    fn name(&self) -> &'static str {
        "introduce_yourself"
    }

    fn definition(&self) -> Value {
        json!({
            "name": self.name(),
            "title": "Introduce yourself to the other agents",
            "description": DESCRIPTION,
            "arguments": [
                own_argument(self.claimed),
                argument("name", "A name for people (if not given: chosen by the model)", false),
                argument("capabilities", "What you can do (if not given: said by the model)", false),
            ],
        })
    }

    async fn get(
        &self,
        sent: PromptArguments,
        context: &CallContext,
    ) -> Result<PromptOutcome, PromptError> {
        let client = own_client(&sent, context)?;
        let (name, capabilities) = (quoted(&sent, "name")?, quoted(&sent, "capabilities")?);
        let mut text = format!("Check in with checkin_client (client_id={}", client.expose());
        for (argument, value) in [("name", &name), ("capabilities", &capabilities)] {
            if let Some(value) = value {
                let _ = write!(text, ", {argument}={value}");
            }
        }
        text.push_str("). ");
        if name.is_none() {
            text.push_str("As name, take a short one for this workspace and its task. ");
        }
        if capabilities.is_none() {
            text.push_str(
                "As capabilities, say in one line what you can do here for others; leave out secrets. ",
            );
        }
        let _ = write!(
            text,
            "Then tell me who else is there (list_clients) and how many messages wait. {DATA}"
        );
        Ok(said(DESCRIPTION, &text))
    }
}
