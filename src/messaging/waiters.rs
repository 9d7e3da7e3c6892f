//! How many calls wait in this process.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::MessagingError;

/// Counts the waiting calls of a process and refuses those above a limit. Clones share the count.
#[derive(Debug, Clone)]
pub struct Waiters {
    now: Arc<AtomicUsize>,
    limit: usize,
}

impl Waiters {
    /// At most `limit` waiting calls.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { now: Arc::default(), limit }
    }

    /// How many wait now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    /// The count itself, for a metric to read.
    #[must_use]
    pub fn gauge(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.now)
    }

    /// A place, until it is dropped.
    pub(super) fn enter(&self) -> Result<Place, MessagingError> {
        let before = self.now.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(&self.now));
        if before >= self.limit {
            return Err(MessagingError::ReplicaBusy { waiters: self.limit });
        }
        Ok(place)
    }
}

/// One waiting call.
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_it_is_dropped_or_refused() {
        let waiters = Waiters::new(1);
        let place = waiters.enter().unwrap();
        assert!(waiters.enter().is_err());
        assert_eq!(waiters.count(), 1);
        drop(place);
        assert!(waiters.enter().is_ok());
    }
}
