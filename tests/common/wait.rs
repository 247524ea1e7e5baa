//! Waits for what comes about by itself.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a cluster on a busy machine may take for what it does at once.
pub(crate) const SOON: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(100);

/// Looks again and again until there is something, and returns it.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, timeout: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < timeout, "waited {} s in vain for {what}", timeout.as_secs());
        sleep(PAUSE);
    }
}

/// Looks again and again until something holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, timeout: Duration, mut holds: impl FnMut() -> bool) {
    wait_for(what, timeout, || holds().then_some(()));
}
