//! Receipts of manual acknowledgement: opaque to clients, nothing stored for them.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::MessagingError;
use crate::{model::Inbox, queue::Stamp};

/// Up to where the holder has received an inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Receipt {
    owner: [u8; 8],
    pub(super) upto: Stamp,
}

impl Receipt {
    pub(super) fn new(inbox: &Inbox, upto: Stamp) -> Self {
        Self { owner: owner(inbox), upto }
    }

    pub(super) fn encode(self) -> String {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.owner);
        bytes[8..].copy_from_slice(&self.upto.0.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The receipt in `text`, if it is one for this inbox.
    pub(super) fn decode(text: &str, inbox: &Inbox) -> Result<Self, MessagingError> {
        let bytes =
            URL_SAFE_NO_PAD.decode(text.trim()).map_err(|_| MessagingError::InvalidReceipt)?;
        let bytes: [u8; 16] = bytes.try_into().map_err(|_| MessagingError::InvalidReceipt)?;
        let (mut who, mut upto) = ([0; 8], [0; 8]);
        who.copy_from_slice(&bytes[..8]);
        upto.copy_from_slice(&bytes[8..]);
        if who != owner(inbox) {
            return Err(MessagingError::ForeignReceipt);
        }
        Ok(Self { owner: who, upto: Stamp(u64::from_be_bytes(upto)) })
    }
}

fn owner(inbox: &Inbox) -> [u8; 8] {
    let mut out = [0; 8];
    out.copy_from_slice(&Sha256::digest(inbox.name())[..8]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Tenant;

    fn inbox(id: &str) -> Inbox {
        Inbox::new(Tenant::default(), id.parse().unwrap())
    }

    #[test]
    fn a_receipt_is_good_for_its_own_inbox_only() {
        let text = Receipt::new(&inbox("bob"), Stamp(7)).encode();
        assert_eq!(Receipt::decode(&text, &inbox("bob")).unwrap().upto, Stamp(7));
        assert_eq!(Receipt::decode(&text, &inbox("eve")), Err(MessagingError::ForeignReceipt));
        for bad in ["", "x", "AAAA", "not base64!"] {
            assert_eq!(Receipt::decode(bad, &inbox("bob")), Err(MessagingError::InvalidReceipt));
        }
    }
}
