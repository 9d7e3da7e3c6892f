//! Before a message is sorted: which revision it speaks, and the one notification that means something.

use serde_json::value::RawValue;

use super::{
    discover,
    error::McpError,
    headers::Headers,
    jsonrpc::Request,
    meta::{Meta, Params},
    method::{Method, Named},
    revision::{Era, Revision},
    server::Incoming,
};
use crate::queue::CallKey;

/// Which revision a request speaks, or why it cannot be served in any. `mirrored`: what of it a header must
/// repeat.
pub(super) fn select(
    headers: &Headers<'_>,
    method: Method,
    mirrored: Option<Named>,
    request: &Request<'_>,
    meta: &Meta<'_>,
) -> Result<Revision, McpError> {
    if method == Method::Initialize && !meta.names_version() {
        return Ok(discover::negotiated(request.params.protocol_version().as_deref()));
    }
    let header = headers.protocol_version.text("MCP-Protocol-Version")?;
    let named = meta.version()?;
    let (header, named) = match (header, named) {
        (None, None) if method == Method::Discover => {
            return Err(McpError::MalformedParams(
                "_meta io.modelcontextprotocol/protocolVersion is missing",
            ));
        }
        (None, None) => return Ok(Revision::ASSUMED),
        (None, Some(_)) => {
            let why = "MCP-Protocol-Version is missing; send the version of _meta";
            return Err(McpError::HeaderMismatch(why.into()));
        }
        (Some(header), Some(named)) if header != named => {
            let why = "MCP-Protocol-Version differs from the version of _meta";
            return Err(McpError::HeaderMismatch(why.into()));
        }
        (Some(header), named) => (header, named),
    };
    let revision = Revision::named(header).ok_or_else(|| McpError::unsupported(header))?;
    match revision.era() {
        Era::Legacy => {}
        Era::Modern => {
            if named.is_none() {
                return Err(McpError::MalformedParams(
                    "_meta io.modelcontextprotocol/protocolVersion is missing",
                ));
            }
            meta.check_capabilities()?;
            headers.check_method(&request.method)?;
            match mirrored {
                Some(Named::Name) => headers.check_name("name", &request.params.name()?)?,
                Some(Named::Task) => headers.check_name("taskId", &request.params.task_id()?)?,
                Some(Named::Uri) => headers.check_name("uri", &request.params.uri()?)?,
                None => {}
            }
        }
    }
    Ok(revision)
}

/// A notification is never refused: nobody would read the refusal.
pub(super) fn notified(headers: &Headers<'_>, method: &str, params: Option<&RawValue>) -> Incoming {
    if method != "notifications/cancelled" {
        return Incoming::Accepted;
    }
    let request = Params::read(params).ok().and_then(|params| params.request_id());
    match (headers.session(), request) {
        (Some(session), Some(id)) => {
            Incoming::Cancel(CallKey::new(&headers.principal(), session, id.as_json()))
        }
        (None, _) | (_, None) => Incoming::Accepted,
    }
}
