//! Policies and facts in memory, written by the watches and read by the webhooks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;

use tidegate_engine::facts::Facts;
use tidegate_engine::policy::PolicySet;
use tidegate_engine::workload::WorkloadRef;

/// How long a request waits for its namespace: one `kubectl apply` may create both Namespace and Deployment.
const NAMESPACE_WAIT: Duration = Duration::from_millis(500);

/// How long a request that may be a rollback waits for the revisions of its workload.
const REVISIONS_WAIT: Duration = Duration::from_secs(1);

/// The active policies, and the facts about the cluster.
pub struct SharedState {
    policies: ArcSwap<PolicySet>,
    /// Locked only to clone the `Arc` or to change a fact: decisions use a copy that shares its data with this one. The
    /// cost is measured by `benches/decide.rs`.
    facts: RwLock<Arc<Facts>>,
    changes: watch::Sender<()>,
    complete: AtomicBool,
    stored: OnceLock<Stored>,
    revisions: OnceLock<Revisions>,
}

/// Looks up a stored workload; none if it is not watched.
type Stored = Box<dyn Fn(&WorkloadRef) -> Option<Value> + Send + Sync>;

/// Asks the cluster for the revisions of a workload.
type Revisions = Box<dyn Fn(&WorkloadRef, &Value) -> BoxFuture<'static, Vec<Value>> + Send + Sync>;

impl SharedState {
    /// Creates a state with these policies and no facts.
    #[must_use]
    pub fn new(policies: PolicySet) -> Self {
        Self {
            policies: ArcSwap::from_pointee(policies),
            facts: RwLock::default(),
            changes: watch::Sender::new(()),
            complete: AtomicBool::new(false),
            stored: OnceLock::new(),
            revisions: OnceLock::new(),
        }
    }

    /// Sets how stored workloads are looked up.
    pub fn set_lookup(&self, stored: impl Fn(&WorkloadRef) -> Option<Value> + Send + Sync + 'static) {
        // There is one controller; another would watch the same workloads.
        let _ = self.stored.set(Box::new(stored));
    }

    /// Returns a stored workload; none if it is not watched.
    #[must_use]
    pub fn workload(&self, workload: &WorkloadRef) -> Option<Value> {
        self.stored.get()?(workload)
    }

    /// Sets how the revisions of a workload, with a label selector, are read.
    pub fn set_revisions(
        &self,
        revisions: impl Fn(&WorkloadRef, &Value) -> BoxFuture<'static, Vec<Value>> + Send + Sync + 'static,
    ) {
        let _ = self.revisions.set(Box::new(revisions));
    }

    /// Returns the ReplicaSets or ControllerRevisions with the labels of a workload's selector; none if the API server
    /// does not answer in time.
    pub async fn revisions(&self, workload: &WorkloadRef, selector: &Value) -> Vec<Value> {
        let Some(revisions) = self.revisions.get() else { return Vec::new() };
        timeout(REVISIONS_WAIT, revisions(workload, selector)).await.unwrap_or_default()
    }

    /// Reads the current policies and facts. Does not block writers, however long it takes.
    pub fn read<T>(&self, read: impl FnOnce(&PolicySet, &Facts) -> T) -> T {
        read(&self.policies.load(), &self.facts())
    }

    /// Returns the current policies and facts.
    #[must_use]
    pub fn snapshot(&self) -> (Arc<PolicySet>, Arc<Facts>) {
        (self.policies.load_full(), self.facts())
    }

    /// Returns whether the caches have synced: before that, decisions are unreliable.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Marks the caches as synced.
    pub fn completed(&self) {
        self.complete.store(true, Ordering::Release);
    }

    /// Replaces the active policies.
    pub fn replace_policies(&self, policies: PolicySet) {
        self.policies.store(policies.into());
        self.changes.send_replace(());
    }

    /// Changes the facts.
    pub fn note<T>(&self, note: impl FnOnce(&mut Facts) -> T) -> T {
        let result = note(Arc::make_mut(&mut self.facts.write().unwrap_or_else(PoisonError::into_inner)));
        self.changes.send_replace(());
        result
    }

    /// Waits a moment for a namespace to be known.
    pub async fn wait_for_namespace(&self, name: &str) {
        if name.is_empty() || self.facts().namespaces.contains_key(name) {
            return;
        }
        let mut changes = self.changes.subscribe();
        let seen = changes.wait_for(|()| self.facts().namespaces.contains_key(name));
        let _ = timeout(NAMESPACE_WAIT, seen).await;
    }

    fn facts(&self) -> Arc<Facts> {
        // Facts are plain data: a writer that panicked leaves them usable.
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
    fn facts_change_while_a_reader_uses_the_old_ones() {
        let state = state();
        state.note(|facts| facts.namespaces.insert("old".into(), Namespace::default()));
        let known = |facts: &Facts| ["old", "new"].map(|name| facts.namespaces.contains_key(name));
        state.read(|_, facts| {
            state.note(|facts| facts.namespaces.insert("new".into(), Namespace::default()));
            assert_eq!((known(facts), known(&state.snapshot().1)), ([true, false], [true, true]));
        });
    }

    #[tokio::test(start_paused = true)]
    async fn waits_until_a_namespace_is_known() {
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
    async fn stops_waiting_for_an_unknown_namespace() {
        let begun = Instant::now();
        state().wait_for_namespace("never").await;
        assert_eq!(begun.elapsed(), NAMESPACE_WAIT);
    }
}
