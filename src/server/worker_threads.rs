//! A bounded number of threads for long work, apart from those that serve connections.

use std::future::pending;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{block_in_place, spawn_blocking};
use tokio::time::timeout;

/// Threads for long work, never more at a time than there are slots.
#[derive(Clone, Debug)]
pub struct WorkerThreads {
    slots: Arc<Semaphore>,
}

impl WorkerThreads {
    /// Creates a pool with this many slots, at least one.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(slots.max(1))) }
    }

    /// Creates a pool with one slot per core.
    #[must_use]
    pub fn one_per_core() -> Self {
        Self::new(available_parallelism().map_or(1, usize::from))
    }

    /// Runs `work` as soon as there is a free slot.
    ///
    /// # Panics
    /// If `work` panics.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let slot = Arc::clone(&self.slots).acquire_owned().await.expect("the semaphore is never closed");
        in_slot(slot, work).await
    }

    /// Like [`run`](Self::run), but returns `None` if there is no free slot within `limit`.
    ///
    /// # Panics
    /// If `work` panics.
    pub async fn run_within<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let slot = timeout(limit, Arc::clone(&self.slots).acquire_owned()).await.ok()?;
        Some(in_slot(slot.expect("the semaphore is never closed"), work).await)
    }
}

/// Holds the slot until the work ends, even if the caller no longer waits for it.
async fn in_slot<T: Send + 'static>(slot: OwnedSemaphorePermit, work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = spawn_blocking(move || {
        let _slot = slot;
        work()
    });
    match done.await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => resume_unwind(panic),
        // The runtime is shutting down.
        Err(Err(_)) => pending().await,
    }
}

/// Runs long work on this thread, and moves its other tasks to another thread.
pub fn in_place<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(work),
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn runs_no_more_at_a_time_than_there_are_slots() {
        let workers = WorkerThreads::new(1);
        let (go_on, waiting) = mpsc::channel::<()>();
        let first = tokio::spawn({
            let workers = workers.clone();
            async move { workers.run(move || waiting.recv()).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(workers.run_within(Duration::from_millis(10), || ()).await, None, "the slot is taken");
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        assert_eq!(
            workers.run_within(Duration::from_millis(10), || ()).await,
            None,
            "even though the caller no longer waits"
        );
        go_on.send(()).unwrap();
        assert_eq!(workers.run(|| 1).await, 1);
    }

    #[tokio::test]
    async fn a_panic_is_propagated_and_its_slot_freed() {
        let workers = WorkerThreads::new(1);
        let panicked = tokio::spawn({
            let workers = workers.clone();
            async move { workers.run(|| panic!("this panic is part of a test")).await }
        });
        assert!(panicked.await.unwrap_err().is_panic());
        assert_eq!(workers.run_within(Duration::from_secs(5), || 1).await, Some(1));
    }
}
