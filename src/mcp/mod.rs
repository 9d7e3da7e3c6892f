//! The Model Context Protocol, as a function from one request to one answer.
//!
//! [`McpServer::receive`] sorts the body of a POST and says what is to be done before anything is
//! done, so that `http` can choose how to answer. One endpoint serves five revisions: four that begin
//! with `initialize` (one legacy shape for all of them) and the stateless 2026-07-28.
//!
//! Not here: HTTP (no framework type is named), the meaning of a tool, any state between requests. The
//! session id that `initialize` mints is stored nowhere; it only routes `notifications/cancelled`.

mod call;
mod discover;
mod error;
mod headers;
mod jsonrpc;
mod meta;
mod method;
mod operation;
mod progress;
mod result;
mod revision;
mod server;
mod tools;

pub use call::{Batch, Finished, Frame, PreparedCall};
pub use error::McpError;
pub use headers::{Field, Headers};
pub use progress::Progress;
pub use revision::{Era, Revision};
pub use server::{Answer, Incoming, McpServer};

/// Name of this server, as it presents itself.
pub const SERVER_NAME: &str = "mcp-messaging";
/// Version of this server, as it presents itself.
pub const SERVER_VERSION: &str = env!("CARGO_PKG_VERSION");
