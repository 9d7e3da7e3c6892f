//! Limits and defaults, as configured.

use std::time::Duration;

/// What the mailbox allows and assumes. Sizes are bytes.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Callers prove who they are: they may leave their own id out.
    pub proved_callers: bool,
    /// Longest text of one message.
    pub message_bytes: usize,
    /// Most recipients of one send.
    pub recipients: usize,
    /// Life of a message that names none.
    pub ttl: Duration,
    /// Shortest and longest life that a message may name.
    pub ttl_range: (Duration, Duration),
    /// Longest wait of one call.
    pub max_wait: Duration,
    /// Wait of a question that names none.
    pub default_wait: Duration,
    /// Lease of a delivery that the flush acknowledges.
    pub lease: Duration,
    /// Lease of a delivery that a receipt acknowledges.
    pub manual_lease: Duration,
    /// How long a task holds what its question came to, beyond the wait; zero: there are no tasks.
    pub task_hold: Duration,
    /// Messages of one fetch that names no number.
    pub fetch_messages: usize,
    /// Text of one fetch.
    pub fetch_bytes: usize,
    /// How long a check-in lasts.
    pub presence: Duration,
    /// Most inboxes that `/api/sessions` lists.
    pub listed_inboxes: usize,
}
