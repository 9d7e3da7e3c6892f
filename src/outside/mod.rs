//! What talks to an installation as its clients do: over its address, whatever stands before it.
//!
//! Not here: anything of the server. Nothing is known of it but what it answers.

mod client;
mod demo;
mod doctor;
mod hook;
mod join;
mod shell;

pub use client::{Endpoint, InvalidEndpoint};
pub use demo::{Pace, demonstrate};
pub use doctor::{Check, Diagnosis, Questions, Verdict, examine, new_name};
pub use hook::{Hook, HookError, Told};
pub use join::{Joined, NotJoined, join};
pub use shell::{Letter, Said, ShellError, receive, send};
