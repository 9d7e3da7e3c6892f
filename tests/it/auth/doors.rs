//! Every way in, as something that `alice` of `acme` may do and others may not.

use serde_json::{Value, json};

use crate::support::Agent;

/// What stands in alice's inbox, and in how she presents herself.
pub(super) const SECRET: &str = "planted-secret";

/// Whose business something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// The client's that it names: nobody else's.
    Own,
    /// Its team's.
    Team,
    /// Everybody's who has a key.
    Holders,
}

/// One way in.
pub(super) struct Door {
    /// What the test says of it: `tool x`, `resource x`, `prompt x` or the method.
    pub(super) name: &'static str,
    pub(super) whose: Whose,
    /// Scopes that it needs, in short.
    pub(super) needs: &'static [&'static str],
    pub(super) method: &'static str,
    /// What the header names.
    pub(super) about: Option<&'static str>,
    pub(super) params: Value,
}

/// What came back.
pub(super) struct Said {
    pub(super) status: u16,
    /// `WWW-Authenticate`.
    pub(super) challenge: Option<String>,
    pub(super) body: String,
}

impl Said {
    /// The JSON-RPC message, or the first one of the stream.
    pub(super) fn json(&self) -> Value {
        let data = self.body.lines().find_map(|line| line.strip_prefix("data: "));
        serde_json::from_str(data.unwrap_or(&self.body)).unwrap_or_default()
    }

    /// Served, and nothing in it is an error.
    pub(super) fn is_served(&self) -> bool {
        let json = self.json();
        let refused = json["result"]["isError"] == true || json.get("error").is_some();
        self.status == 200 && !refused
    }
}

fn door(
    name: &'static str,
    whose: Whose,
    needs: &'static [&'static str],
    method: &'static str,
    about: Option<&'static str>,
    params: Value,
) -> Door {
    Door { name, whose, needs, method, about, params }
}

fn tool(
    name: &'static str,
    whose: Whose,
    needs: &'static [&'static str],
    arguments: &Value,
) -> Door {
    let about = name.strip_prefix("tool ");
    let params = json!({"name": about, "arguments": arguments});
    door(name, whose, needs, "tools/call", about, params)
}

fn resource(
    name: &'static str,
    whose: Whose,
    needs: &'static [&'static str],
    uri: &'static str,
) -> Door {
    door(name, whose, needs, "resources/read", Some(uri), json!({"uri": uri}))
}

fn prompt(name: &'static str, arguments: &Value) -> Door {
    let about = name.strip_prefix("prompt ");
    door(
        name,
        Whose::Own,
        &[],
        "prompts/get",
        about,
        json!({"name": about, "arguments": arguments}),
    )
}

fn plain(method: &'static str, params: Value) -> Door {
    door(method, Whose::Holders, &[], method, None, params)
}

/// All of them. `GET /api/sessions` has a test of its own.
pub(super) fn doors() -> Vec<Door> {
    use Whose::{Holders, Own, Team};
    let (me, you) = ("alice", "dave");
    let letter = json!({"sender_id": me, "recipient_id": you, "message": "as alice"});
    let both = json!({"sender_id": me, "recipients": [{"id": you, "message": "as alice"}]});
    let question =
        json!({"sender_id": me, "recipient_id": you, "message": "as alice", "timeout": 0.01});
    let watched = json!({"notifications": {"resourceSubscriptions": ["inbox://alice"]}});
    vec![
        tool(
            "tool checkin_client",
            Own,
            &["send"],
            &json!({"client_id": me, "name": "who came in here"}),
        ),
        tool("tool send_message", Own, &["send"], &letter),
        tool("tool send_message_and_wait", Own, &["send", "read"], &question),
        // What is taken under a receipt is not gone: it comes back for the next row.
        tool(
            "tool get_messages",
            Own,
            &["read"],
            &json!({"client_id": me, "ack": "manual", "max_messages": 1}),
        ),
        tool("tool get_my_identity", Team, &[], &json!({"recipients_config": {"my_id": me}})),
        tool("tool list_clients", Team, &[], &json!({})),
        tool("tool message_status", Own, &["send"], &json!({"sender_id": me})),
        tool("tool send_message_without_waiting", Own, &["send", "read"], &both),
        tool("tool get_active_sessions", Team, &[], &json!({})),
        resource("resource inbox://{client_id}", Own, &["read"], "inbox://alice"),
        resource("resource inbox://{client_id} encoded", Own, &["read"], "inbox://%61lice"),
        resource("resource clients://", Team, &[], "clients://"),
        resource("resource guide://usage", Holders, &[], "guide://usage"),
        prompt("prompt check_inbox", &json!({"client_id": me})),
        prompt(
            "prompt ask_agent",
            &json!({"client_id": me, "recipient_id": you, "question": "well?"}),
        ),
        prompt("prompt introduce_yourself", &json!({"client_id": me})),
        door("subscriptions/listen", Own, &["read"], "subscriptions/listen", None, watched),
        door(
            "completion of inbox://{client_id}",
            Own,
            &["read"],
            "completion/complete",
            None,
            json!({"ref": {"type": "ref/resource", "uri": "inbox://{client_id}"},
                "argument": {"name": "client_id", "value": "a"}}),
        ),
        door(
            "completion of ask_agent",
            Team,
            &[],
            "completion/complete",
            None,
            json!({"ref": {"type": "ref/prompt", "name": "ask_agent"},
                "argument": {"name": "recipient_id", "value": "a"}}),
        ),
        plain("server/discover", json!({})),
        plain("tools/list", json!({})),
        plain("resources/list", json!({})),
        plain("resources/templates/list", json!({})),
        plain("prompts/list", json!({})),
    ]
}

impl Door {
    /// Goes in as this agent. Of a stream, what begins it.
    pub(super) async fn knock(&self, agent: &Agent) -> Said {
        let mut params = self.params.clone();
        params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {}});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": self.method, "params": params});
        let mut request = agent
            .post()
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", self.method);
        if let Some(about) = self.about {
            request = request.header("mcp-name", about);
        }
        let mut answer = request.json(&body).send().await.unwrap();
        let status = answer.status().as_u16();
        let challenge = answer.headers().get("www-authenticate");
        let challenge = challenge.map(|value| value.to_str().unwrap().to_owned());
        let stream = answer.headers()["content-type"] == "text/event-stream";
        let body = if stream && self.method == "subscriptions/listen" {
            let first = answer.chunk().await.unwrap().unwrap();
            String::from_utf8(first.to_vec()).unwrap()
        } else {
            answer.text().await.unwrap()
        };
        Said { status, challenge, body }
    }
}
