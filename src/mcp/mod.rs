//! The Model Context Protocol, as a function from one request to one answer.
//!
//! [`McpServer::receive`] sorts the body of a POST and says what is to be done before anything is
//! done, so that `http` can choose how to answer. One endpoint serves five revisions: four that begin
//! with `initialize` (one legacy shape for all of them) and the stateless 2026-07-28.
//!
//! What is served comes from an [`Offer`]: registries of tools, resources and prompts. A further one of
//! them needs no change here.
//!
//! Not here: HTTP (no framework type is named), the meaning of a tool, any state between requests. The
//! session id that `initialize` mints is stored nowhere; it only routes `notifications/cancelled`.

mod call;
mod discover;
mod error;
mod exchange;
mod headers;
mod jsonrpc;
mod list;
mod listen;
mod meta;
mod method;
mod offer;
mod operation;
mod progress;
mod result;
mod revision;
mod select;
mod server;
mod task;

pub use call::{Batch, Finished, Frame, PreparedCall};
pub use error::McpError;
pub use headers::{Field, Headers, Lookup};
pub use listen::{PreparedListen, Subscription};
pub use offer::{ListChanges, ListKind, Offer};
pub use operation::Operation;
pub use progress::Progress;
pub use revision::{Era, Revision};
pub use server::{Answer, Incoming, McpServer, Reply};
