//! What clients burden the process with: bodies that it holds, and responses that they do not take.
//!
//! Both are bounded for all connections together; who comes on top is refused or cut off, and loses
//! nothing by it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The sums of a process. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Burden {
    memory: Sum,
    stalled: Sum,
}

#[derive(Debug, Clone)]
struct Sum {
    now: Arc<AtomicUsize>,
    limit: usize,
}

impl Sum {
    fn new(limit: usize) -> Self {
        Self { now: Arc::default(), limit }
    }

    fn add(&self, count: usize) -> Option<Share> {
        let before = self.now.fetch_add(count, Ordering::Relaxed);
        let share = Share { now: Arc::clone(&self.now), count };
        (before.saturating_add(count) <= self.limit).then_some(share)
    }
}

impl Burden {
    /// At most so many bytes, and so many stalled responses.
    pub(super) fn new(memory_limit: usize, stalled_limit: usize) -> Self {
        Self { memory: Sum::new(memory_limit), stalled: Sum::new(stalled_limit) }
    }

    /// Room for so many bytes, until it is dropped. `None`: there is none.
    pub(super) fn hold(&self, bytes: usize) -> Option<Share> {
        self.memory.add(bytes)
    }

    /// A response that its client does not take, until it is dropped. `None`: there are too many.
    pub(super) fn stall(&self) -> Option<Share> {
        self.stalled.add(1)
    }
}

/// A part of a sum.
#[derive(Debug)]
pub(super) struct Share {
    now: Arc<AtomicUsize>,
    count: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.now.fetch_sub(self.count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_burdens_nobody() {
        let burden = Burden::new(10, 1);
        let four = burden.hold(4).unwrap();
        assert!(burden.hold(7).is_none() && burden.hold(usize::MAX).is_none());
        let six = burden.hold(6).unwrap();
        assert!(burden.hold(1).is_none());
        drop((four, six));
        assert!(burden.hold(10).is_some());
        let stalled = burden.stall().unwrap();
        assert!(burden.stall().is_none());
        drop(stalled);
        assert!(burden.stall().is_some());
    }
}
