//! Joining a team by a code.

use secrecy::SecretString;
use serde_json::{Value, json};

use super::{Endpoint, client::Failure};

/// What somebody got who joined.
#[derive(Debug)]
pub struct Joined {
    /// The key, for the configuration of a client. It is not shown again.
    pub key: SecretString,
    /// How to use it, for people.
    pub told: String,
}

/// Why nobody joined.
#[derive(Debug, thiserror::Error)]
#[error("not joined: {0}")]
pub struct NotJoined(String);

/// Redeems a code at a mailbox, as `client` if the code leaves a choice.
///
/// # Errors
/// [`NotJoined`] says why. If the mailbox did not answer, the code may have been used all the same: an admin sees it
/// in the list of members.
pub async fn join(
    endpoint: &Endpoint,
    code: &str,
    client: Option<&str>,
) -> Result<Joined, NotJoined> {
    let mut body = json!({ "code": code });
    if let Some(client) = client {
        body["client"] = client.into();
    }
    let answered = endpoint.beside("/api/join").post(&body).await;
    let answer = answered.map_err(|failure| NotJoined(failure.to_string()))?;
    let text = |name: &str| answer[name].as_str().map(str::to_owned);
    let key = text("key").ok_or_else(|| NotJoined("the answer has no key in it".to_owned()))?;
    let told = format!(
        "You are {client} of team {team}, {role}; your key ends {ends}.\nIt is not shown again. Put it in place of KEY:\n\n  \
         claude mcp add --transport http messaging {url} --header \"Authorization: Bearer KEY\"\n",
        client = text("client").unwrap_or_default(),
        team = text("team").unwrap_or_default(),
        role = text("role").unwrap_or_default(),
        ends = answer["expires_at"].as_str().unwrap_or("never"),
        url = endpoint.url(),
    );
    Ok(Joined { key: key.into(), told })
}

impl Endpoint {
    /// The answer to a POST of JSON, or what problem details say.
    async fn post(&self, body: &Value) -> Result<Value, Failure> {
        let (status, text) = self.post_json(body).await?;
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        if status.is_success() {
            return Ok(answer);
        }
        Err(match answer["detail"].as_str() {
            Some(why) => Failure::Refused(why.to_owned()),
            None => Failure::Status { status, said: text.chars().take(120).collect() },
        })
    }
}
