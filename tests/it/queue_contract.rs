//! The laws of [`mcp_messaging::queue::QueueBackend`], for every backend.
//!
//! On a store with a clock of its own, time passes in reality: a law sleeps for 2.5 s at most and
//! never asserts how fast something was.

mod answers;
mod browse;
mod clients;
mod expiry;
mod idempotency;
mod leases;
mod ledger;
mod limits;
mod order;
mod pauses;
mod permits;
mod survey;
mod tasks;
mod waiting;
mod waits;
mod wakeups;
