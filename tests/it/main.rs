//! Everything that is tested from outside, in one binary: real sockets, real processes, real Redis.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "tests spawn and sleep as they like")]

#[macro_use]
mod support;

mod auth;
mod bad_input;
mod clocks;
mod cluster;
mod converse;
mod desk;
mod disconnect;
mod doctor;
mod documents;
mod durability;
mod endpoint;
mod faults;
mod house;
mod injections;
mod layers;
mod limits;
mod listen;
mod listeners;
mod metrics;
mod offers;
mod overload;
mod queue_contract;
mod queue_model;
mod replicas;
mod resources;
mod rmcp_client;
mod sealed;
mod secrets;
mod tasks;
mod tls;
mod together;
mod traces;
mod upstream;
mod wire;
