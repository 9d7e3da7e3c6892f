//! Everything that is tested from outside, in one binary.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "tests spawn and sleep as they like")]

#[macro_use]
mod support;

mod faults;
mod layers;
mod queue_contract;
mod queue_model;
mod replicas;
