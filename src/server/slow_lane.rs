//! A few threads beside those that serve connections, for what may take long.

use std::future::pending;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{block_in_place, spawn_blocking};
use tokio::time::timeout;

/// Threads for what may take long: never more at a time than there are slots.
#[derive(Clone, Debug)]
pub struct SlowLane {
    slots: Arc<Semaphore>,
}

impl SlowLane {
    /// Has so many slots; at least one.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(slots.max(1))) }
    }

    /// Has a slot for each core: more would only wait for each other.
    #[must_use]
    pub fn of_cores() -> Self {
        Self::new(available_parallelism().map_or(1, usize::from))
    }

    /// Does something as soon as there is a slot.
    ///
    /// # Panics
    /// Where what is done panics.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let slot = Arc::clone(&self.slots).acquire_owned().await.expect("the semaphore is never closed");
        in_slot(slot, work).await
    }

    /// The same; gives up if there is no slot for so long.
    ///
    /// # Panics
    /// Where what is done panics.
    pub async fn run_within<T: Send + 'static>(
        &self,
        patience: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let slot = timeout(patience, Arc::clone(&self.slots).acquire_owned()).await.ok()?;
        Some(in_slot(slot.expect("the semaphore is never closed"), work).await)
    }
}

/// The slot is taken until the work ends, even if nobody waits for that any more.
async fn in_slot<T: Send + 'static>(slot: OwnedSemaphorePermit, work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = spawn_blocking(move || {
        let _slot = slot;
        work()
    });
    match done.await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => resume_unwind(panic),
        // The runtime is shutting down, and this with it.
        Err(Err(_)) => pending().await,
    }
}

/// Does something that may take long here and now, and has another thread do meanwhile what else this one would.
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
    async fn no_more_is_done_at_a_time_than_there_are_slots() {
        let lane = SlowLane::new(1);
        let (go_on, waiting) = mpsc::channel::<()>();
        let first = tokio::spawn({
            let lane = lane.clone();
            async move { lane.run(move || waiting.recv()).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(lane.run_within(Duration::from_millis(10), || ()).await, None, "the slot is taken");
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        assert_eq!(lane.run_within(Duration::from_millis(10), || ()).await, None, "by what nobody waits for any more");
        go_on.send(()).unwrap();
        assert_eq!(lane.run(|| 1).await, 1);
    }

    #[tokio::test]
    async fn a_panic_is_passed_on_and_its_slot_given_back() {
        let lane = SlowLane::new(1);
        let panicked = tokio::spawn({
            let lane = lane.clone();
            async move { lane.run(|| panic!("this panic is part of a test")).await }
        });
        assert!(panicked.await.unwrap_err().is_panic());
        assert_eq!(lane.run_within(Duration::from_secs(5), || 1).await, Some(1));
    }
}
