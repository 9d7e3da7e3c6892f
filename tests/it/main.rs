//! Tests of the whole: real sockets, whole requests, whole responses.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod disconnect;
mod endpoint;
mod house;
mod wire;
