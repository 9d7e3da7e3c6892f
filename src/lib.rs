//! MCP messaging server: agents connect over MCP Streamable HTTP and message each other.
//!
//! Data flows one way. A layer may use the layers to its right and never those to its left:
//!
//! `http -> mcp -> tools, resources, prompts -> messaging -> teams -> auth -> queue (redis | memory) -> model`
//!
//! [`dialogue`] holds the words in which what is offered talks with clients.
//!
//! [`app`] is the only place that sees all of them: it builds the object graph from
//! [`config::Config`]. [`telemetry`] and [`config`] are leaves. `ARCHITECTURE.md` has the picture,
//! the walkthroughs and the invariants; `tests/it/layers.rs` enforces the arrow.

pub mod app;
pub mod auth;
pub mod config;
pub mod dialogue;
pub mod http;
pub mod mcp;
pub mod messaging;
pub mod model;
pub mod outside;
pub mod prompts;
pub mod queue;
pub mod resources;
pub mod teams;
pub mod telemetry;
pub mod tls;
pub mod tools;
pub mod web;
