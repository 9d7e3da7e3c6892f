//! `inbox://{client_id}`: what waits for a client.
//!
//! As markdown, because a host gives it to its model as it is: what peers wrote stands in the same
//! envelope as in `get_messages`. A program that wants fields calls that tool.

use std::fmt::Write;

use async_trait::async_trait;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{Changes, MARKDOWN, Resource, ResourceError, markdown, sorted};
use crate::{
    dialogue::Completion,
    messaging::{CallContext, MessagingService},
    model::{ClientId, Principal, Scope},
    queue::Browsed,
    tools::markdown::{counted, messages},
};

const SCHEME: &str = "inbox://";

/// Instead of an id: the inbox of the identity that the caller proved.
const ME: &str = "me";

/// The member of `_meta` with what programs want to know of an inbox.
const SUMMARY: &str = "mailbox";

/// The template.
pub(super) struct InboxResource {
    pub(super) messaging: MessagingService,
}

#[async_trait]
impl Resource for InboxResource {
    fn definition(&self) -> Value {
        json!({
            "uriTemplate": format!("{SCHEME}{{client_id}}"),
            "name": "inbox",
            "title": "Messages that wait",
            "description": "What waits for a client, shown without taking it; get_messages takes it. \
                            Can be watched.",
            "mimeType": MARKDOWN,
        })
    }

    fn is_template(&self) -> bool {
        true
    }

    fn scopes(&self) -> &'static [Scope] {
        &[Scope::Read]
    }

    fn matches(&self, uri: &str) -> bool {
        uri.starts_with(SCHEME)
    }

    async fn read(&self, uri: &str, context: &CallContext) -> Result<Vec<Value>, ResourceError> {
        let client = client_of(uri, &context.principal)?;
        let found = self.messaging.browse(&client, context).await.map_err(sorted)?;
        let mut contents = markdown(uri, &told(&client, &found));
        for content in &mut contents {
            content["_meta"] = json!({ SUMMARY: summary(&found) });
        }
        Ok(contents)
    }

    fn completes(&self) -> bool {
        true
    }

    async fn complete(&self, variable: &str, value: &str, context: &CallContext) -> Completion {
        match variable {
            "client_id" => {
                let mut found = self.messaging.suggest_clients(value, context).await;
                found.values.retain(|id| id.parse().is_ok_and(|id| context.principal.owns(&id)));
                found
            }
            _ => Completion::default(),
        }
    }

    fn can_be_watched(&self) -> bool {
        true
    }

    async fn watch(
        &self,
        uri: &str,
        context: &CallContext,
    ) -> Result<Option<Box<dyn Changes>>, ResourceError> {
        let client = client_of(uri, &context.principal)?;
        let watch = self.messaging.watch_inbox(&client, context).await.map_err(sorted)?;
        Ok(Some(Box::new(watch)))
    }
}

/// Whose inbox a URI names.
fn client_of(uri: &str, principal: &Principal) -> Result<ClientId, ResourceError> {
    let id = uri.strip_prefix(SCHEME).ok_or(ResourceError::NotFound)?;
    let id = percent_decode_str(id).decode_utf8().map_err(|_not_text| ResourceError::NotFound)?;
    if id == ME {
        return match (principal.client(), principal.grant()) {
            (Some(client), _) => Ok(client.clone()),
            (None, Some(_several)) => Err(ResourceError::ManyIdentities),
            (None, None) => Err(ResourceError::NoIdentity),
        };
    }
    id.parse().map_err(|_not_an_id| ResourceError::NotFound)
}

/// An inbox, for programs: never what was written. `arrivals` changes when there is something to take that was not
/// there before, and says nothing else.
fn summary(found: &Browsed) -> Value {
    let Browsed { messages, queued, leased, arrivals, .. } = found;
    let free = messages.iter().skip(usize::try_from(*leased).unwrap_or(usize::MAX));
    let mut senders: Vec<_> = free.map(|message| message.from.expose()).collect();
    senders.sort_unstable();
    senders.dedup();
    let mut state = arrivals.newest.0.to_string();
    if let Some((stamp, times)) = arrivals.returned {
        let _ = write!(state, ":{}:{times}", stamp.0);
    }
    json!({ "queued": queued, "leased": leased, "senders": senders, "arrivals": state })
}

/// An inbox, for the model.
fn told(client: &ClientId, found: &Browsed) -> String {
    let Browsed { messages: shown, queued, leased, .. } = found;
    let client = client.expose();
    if shown.is_empty() {
        return format!("No messages wait for {client}.\n");
    }
    let mut text = format!("{} for {client}, oldest first", counted(*queued, "message"));
    let more = queued.saturating_sub(shown.len() as u64);
    if more > 0 {
        let _ = write!(text, "; {more} of them not shown");
    }
    let _ = writeln!(text, ". Nothing was taken: get_messages with client_id={client} takes them.");
    if *leased > 0 {
        let first = counted(*leased, "message");
        let _ = writeln!(text, "A reader is receiving the first {first} now.");
    }
    messages(&mut text, shown);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Scopes, Tenant};

    #[test]
    fn a_uri_names_a_client_however_it_is_encoded() {
        for (uri, client) in [
            ("inbox://bob", "bob"),
            ("inbox://backend+1@host_2.x-y", "backend+1@host_2.x-y"),
            ("inbox://backend%2B1%40host", "backend+1@host"),
            ("inbox://%62ob", "bob"),
            ("inbox://Me", "Me"),
        ] {
            assert_eq!(client_of(uri, &Principal::anyone()).unwrap().expose(), client);
        }
    }

    #[test]
    fn what_names_no_client_is_not_found() {
        let long = format!("inbox://{}", "x".repeat(129));
        for uri in [
            "inbox://",
            "inbox://%",
            "inbox://a%2Fb",
            "inbox://a/b",
            "inbox://bob/",
            "inbox://a?b",
            "inbox://a#b",
            "inbox://%20",
            "inbox://%ff",
            "inbox://b%C3%B6b",
            "inbox:bob",
            "bob",
            &long,
        ] {
            assert_eq!(client_of(uri, &Principal::anyone()), Err(ResourceError::NotFound), "{uri}");
        }
    }

    #[test]
    fn whose_inbox_mine_is_needs_a_credential() {
        for uri in ["inbox://me", "inbox://m%65"] {
            let refused = client_of(uri, &Principal::anyone()).unwrap_err();
            assert_eq!(refused, ResourceError::NoIdentity);
            assert!(refused.to_string().contains("use inbox:// with your own client id"));
        }
        let me = |grant: &str| {
            let grant = grant.parse().unwrap();
            client_of("inbox://me", &Principal::proved(Tenant::default(), grant, Scopes::default()))
        };
        assert_eq!(me("alice").unwrap().expose(), "alice");
        assert_eq!(me("alice.*"), Err(ResourceError::ManyIdentities));
    }
}
