//! What the watches write and the webhooks read: the policies and the facts, both in memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;

use tidegate_engine::facts::Facts;
use tidegate_engine::policy::PolicySet;
use tidegate_engine::workload::WorkloadRef;

/// How long a request waits for its namespace to be seen: Namespace and Deployment may come in one `kubectl apply`.
const NAMESPACE_WAIT: Duration = Duration::from_millis(500);

/// The policies in force and what is known of the cluster.
pub struct SharedState {
    policies: ArcSwap<PolicySet>,
    /// Locked for no longer than it takes to get hold of the facts, or to note one: whoever decides holds a copy that shares
    /// all with this one. What that costs is measured by `benches/decide.rs`.
    facts: RwLock<Arc<Facts>>,
    changes: watch::Sender<()>,
    complete: AtomicBool,
    stored: OnceLock<Stored>,
}

/// Looks up a workload as it is stored; none where it is not followed.
type Stored = Box<dyn Fn(&WorkloadRef) -> Option<Value> + Send + Sync>;

impl SharedState {
    /// Starts with these policies and no facts.
    #[must_use]
    pub fn new(policies: PolicySet) -> Self {
        Self {
            policies: ArcSwap::from_pointee(policies),
            facts: RwLock::default(),
            changes: watch::Sender::new(()),
            complete: AtomicBool::new(false),
            stored: OnceLock::new(),
        }
    }

    /// Has workloads looked up where those are kept who follow them.
    pub fn look_up_by(&self, stored: impl Fn(&WorkloadRef) -> Option<Value> + Send + Sync + 'static) {
        // There is one controller; another would follow the same.
        let _ = self.stored.set(Box::new(stored));
    }

    /// Returns a workload as it is stored; none where it is not followed.
    #[must_use]
    pub fn workload(&self, workload: &WorkloadRef) -> Option<Value> {
        self.stored.get()?(workload)
    }

    /// Reads the policies and the facts, as they are now. Nobody waits for it, however long it takes.
    pub fn read<T>(&self, read: impl FnOnce(&PolicySet, &Facts) -> T) -> T {
        read(&self.policies.load(), &self.facts())
    }

    /// Returns the policies and the facts, as they are now.
    #[must_use]
    pub fn snapshot(&self) -> (Arc<PolicySet>, Arc<Facts>) {
        (self.policies.load_full(), self.facts())
    }

    /// Tells whether everything that was there at the start has been seen: before that, no decision is to be trusted.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Notes that everything that was there at the start has been seen.
    pub fn completed(&self) {
        self.complete.store(true, Ordering::Release);
    }

    /// Puts other policies in force.
    pub fn replace_policies(&self, policies: PolicySet) {
        self.policies.store(policies.into());
        self.changes.send_replace(());
    }

    /// Notes something about the cluster.
    pub fn note<T>(&self, note: impl FnOnce(&mut Facts) -> T) -> T {
        let result = note(Arc::make_mut(&mut self.facts.write().unwrap_or_else(PoisonError::into_inner)));
        self.changes.send_replace(());
        result
    }

    /// Waits, for a moment only, until a namespace has been seen.
    pub async fn wait_for_namespace(&self, name: &str) {
        if name.is_empty() || self.facts().namespaces.contains_key(name) {
            return;
        }
        let mut changes = self.changes.subscribe();
        let seen = changes.wait_for(|()| self.facts().namespaces.contains_key(name));
        let _ = timeout(NAMESPACE_WAIT, seen).await;
    }

    fn facts(&self) -> Arc<Facts> {
        // Facts are plain data: a writer that panicked leaves nothing half done that matters.
        Arc::clone(&self.facts.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use tidegate_engine::facts::Namespace;

    fn state() -> Arc<SharedState> {
        Arc::new(SharedState::new(PolicySet::new([].into(), Vec::new())))
    }

    #[test]
    fn facts_are_noted_while_somebody_decides_on_those_before() {
        let state = state();
        state.note(|facts| facts.namespaces.insert("old".into(), Namespace::default()));
        let known = |facts: &Facts| ["old", "new"].map(|name| facts.namespaces.contains_key(name));
        state.read(|_, facts| {
            state.note(|facts| facts.namespaces.insert("new".into(), Namespace::default()));
            assert_eq!((known(facts), known(&state.snapshot().1)), ([true, false], [true, true]));
        });
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_is_waited_for_until_it_is_seen() {
        let state = state();
        let writer = Arc::clone(&state);
        let seen = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            writer.note(|facts| facts.namespaces.insert("new".into(), Namespace::default()));
        });
        let begun = Instant::now();
        state.wait_for_namespace("new").await;
        assert_eq!(begun.elapsed(), Duration::from_millis(100));
        seen.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_that_never_comes_is_not_waited_for_long() {
        let begun = Instant::now();
        state().wait_for_namespace("never").await;
        assert_eq!(begun.elapsed(), NAMESPACE_WAIT);
    }
}
