//! Waits for conditions.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// A timeout for what a cluster does at once, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(100);

/// Polls until there is a result, and returns it.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, timeout: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < timeout, "timed out after {} s waiting for {what}", timeout.as_secs());
        sleep(PAUSE);
    }
}

/// Polls until a condition holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, timeout: Duration, mut holds: impl FnMut() -> bool) {
    wait_for(what, timeout, || holds().then_some(()));
}
