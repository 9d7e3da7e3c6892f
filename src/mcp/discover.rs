//! How the server presents itself: `initialize` and `server/discover`.

use serde_json::{Value, json};

use super::{
    offer::Offer,
    revision::{Era, Revision},
};

/// The revision that `initialize` answers: the one that was asked for, if it begins with `initialize`.
pub(super) fn negotiated(requested: Option<&str>) -> Revision {
    requested
        .and_then(Revision::named)
        .filter(|revision| revision.era() == Era::Legacy)
        .unwrap_or(Revision::LATEST_LEGACY)
}

/// The members of an `initialize` result.
pub(super) fn initialize(offer: &Offer, revision: Revision) -> String {
    members(&instructed(
        json!({
            "protocolVersion": revision.as_str(),
            "capabilities": offer.capabilities(Era::Legacy),
            "serverInfo": { "name": offer.name, "version": offer.version },
        }),
        offer,
    ))
}

/// The members of a `server/discover` result.
pub(super) fn discover(offer: &Offer) -> String {
    members(&instructed(
        json!({
            "supportedVersions": Revision::ALL.map(Revision::as_str),
            "capabilities": offer.capabilities(Era::Modern),
        }),
        offer,
    ))
}

fn instructed(mut result: Value, offer: &Offer) -> Value {
    if !offer.instructions.is_empty() {
        result["instructions"] = json!(offer.instructions);
    }
    result
}

/// The inside of an object.
pub(super) fn members(object: &Value) -> String {
    let text = object.to_string();
    text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_does_not_begin_with_initialize_is_not_agreed_to() {
        assert_eq!(negotiated(Some("2025-06-18")), Revision::V2025_06_18);
        assert_eq!(negotiated(Some("2024-11-05")), Revision::V2024_11_05);
        for other in [Some("2026-07-28"), Some("1999-01-01"), Some(""), None] {
            assert_eq!(negotiated(other), Revision::V2025_11_25, "{other:?}");
        }
    }
}
