//! Values that every layer speaks: ids, inboxes, messages, time. No I/O.

mod address;
mod client_id;
mod clock;
mod inbox;
mod key_ring;
mod message;
mod network;
mod principal;
mod rate;
mod rfc3339;
mod survey;
mod trace;

pub use address::{Address, InvalidAddress, InvalidPeers, Peers};
pub use client_id::{ClientId, InvalidClientId};
pub use clock::{Clock, ManualClock, SystemClock};
pub use inbox::{Inbox, InvalidTenant, Tenant};
pub use key_ring::{InvalidKeyRing, KeyName, KeyRing, NamedKey};
pub use message::{InvalidMessageId, Message, MessageId, MessageState};
pub use network::{InvalidNetwork, Network};
pub use principal::{Grant, InvalidGrant, InvalidScopes, Principal, Scope, Scopes};
pub use rate::Rate;
pub use rfc3339::{rfc3339, rfc3339_micros, rfc3339_seconds};
pub use survey::Survey;
pub use trace::TraceParent;
