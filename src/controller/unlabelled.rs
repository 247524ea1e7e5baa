//! Workloads that run a known runtime but are not labelled as model servers: no webhook is called for them, but the
//! statuses of the policies that would match list them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DynamicObject};
use kube::core::ApiResource;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::Value;
use tokio::sync::Notify;
use tracing::error;

use super::compressed::CompressedObject;
use super::informer::{self, Handler, Key, follow};
use super::workloads::{SharedStep, Workloads};
use super::{Parts, Queue};
use crate::server::health::Readiness;
use crate::shared_state::SharedState;
use tidegate_engine::decision::{Evaluation, Operation, Request};
use tidegate_engine::workload::{Workload, WorkloadRef};

/// The known unlabelled workloads.
pub(super) struct UnlabelledWorkloads {
    state: Arc<SharedState>,
    known: Mutex<Known>,
    /// Notified when there is something to check.
    changed: Notify,
    /// Complete once the watches have synced.
    synced: Readiness,
}

#[derive(Default)]
struct Known {
    /// Every workload without the labels, whatever it runs: the next policy may bring a runtime that recognises it.
    workloads: HashMap<WorkloadRef, CompressedObject>,
    /// The workloads to check: they, or facts or policies about them, have changed.
    due: BTreeSet<WorkloadRef>,
    /// Whether a workload that is no longer due is being checked.
    is_checking: bool,
    /// The policies that would list a workload; only workloads that have any.
    listed: BTreeMap<WorkloadRef, Vec<String>>,
}

impl UnlabelledWorkloads {
    /// Creates an empty set.
    pub(super) fn new(state: &Arc<SharedState>) -> Arc<Self> {
        let (state, synced) = (Arc::clone(state), Readiness::default());
        Arc::new(Self { state, known: Mutex::default(), changed: Notify::new(), synced })
    }

    /// Starts to watch the unlabelled workloads of each kind, and to check them.
    pub(super) fn start(self: &Arc<Self>, queue: &Queue, parts: &mut Parts) {
        for workloads in queue.kinds() {
            if let Some(definition) = workloads.served().follow_definition(parts.client) {
                parts.spawn("kinds", definition);
            }
            parts.spawn("unlabelled", self.follow(parts.client, workloads, parts.readiness.clone()));
        }
        parts.spawn("unlabelled", Arc::clone(self).check());
    }

    /// Watches the workloads of a kind that lack the labels of a model server, once all other caches have synced.
    fn follow(
        self: &Arc<Self>,
        client: &Client,
        workloads: &Workloads,
        others: Readiness,
    ) -> impl Future<Output = ()> + use<> {
        let step = self.synced.step(workloads.kind());
        let (kind, served) = (workloads.resource().clone(), Arc::clone(workloads.served()));
        let without = self.state.read(|policies, _| policies.scope().complement());
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
        let unlabelled = Arc::clone(self);
        async move {
            others.reached().await;
            let start = |step| {
                let events = watcher(api.clone(), informer::config().labels(&without)).default_backoff();
                follow(events, OfKind { unlabelled: Arc::clone(&unlabelled), kind: kind.clone(), step })
            };
            served.during(Some(step.into()), start, || unlabelled.forget(&kind.kind)).await;
        }
    }

    /// Forgets the workloads of a kind that is no longer served.
    fn forget(&self, kind: &str) {
        let mut known = self.known();
        known.workloads.retain(|workload, _| workload.kind != kind);
        known.due.retain(|workload| workload.kind != kind);
        known.listed.retain(|workload, _| workload.kind != kind);
    }

    /// Checks the due workloads while it is polled, one after the other, so that other tasks do not wait for long.
    pub(super) async fn check(self: Arc<Self>) {
        loop {
            while self.check_next() {
                tokio::task::yield_now().await;
            }
            self.changed.notified().await;
        }
    }

    /// Checks every workload again: policies or exceptions have changed.
    pub(super) fn recheck_all(&self) {
        self.recheck(|_| true);
    }

    /// Checks the workloads in a namespace again: its labels have changed, or an exception has expired.
    pub(super) fn recheck_namespace(&self, namespace: &str) {
        self.recheck(|workload| workload.namespace == namespace);
    }

    fn recheck(&self, matches: impl Fn(&WorkloadRef) -> bool) {
        let mut known = self.known();
        let Known { workloads, due, .. } = &mut *known;
        due.extend(workloads.keys().filter(|workload| matches(workload)).cloned());
        self.changed.notify_one();
    }

    /// Returns whether the watches have synced and all known workloads have been checked.
    pub(super) fn are_checked(&self) -> bool {
        let known = self.known();
        self.synced.missing().is_empty() && known.due.is_empty() && !known.is_checking
    }

    /// Returns the unlabelled workloads that each policy would match, as sorted `namespace/name`.
    pub(super) fn by_policy(&self) -> BTreeMap<String, Vec<String>> {
        let mut by_policy: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (workload, policies) in &self.known().listed {
            let name = format!("{}/{}", workload.namespace, workload.name);
            for policy in policies {
                by_policy.entry(policy.clone()).or_default().push(name.clone());
            }
        }
        for names in by_policy.values_mut() {
            names.sort();
        }
        by_policy
    }

    /// Checks one due workload; returns whether there was one.
    fn check_next(&self) -> bool {
        let Some((workload, object)) = self.known().next() else { return false };
        // A panic about one workload must not affect the others.
        let policies = catch_unwind(AssertUnwindSafe(|| self.policies(&object.to_json()))).unwrap_or_else(|_| {
            error!(namespace = workload.namespace, name = workload.name, "the check of a workload panicked");
            None
        });
        self.known().checked(workload, policies.unwrap_or_default());
        true
    }

    /// Returns the policies that would list a workload; none if it is not an unlabelled model server.
    fn policies(&self, object: &Value) -> Option<Vec<String>> {
        let workload = Workload::view(object).ok()?;
        let request = Request::new(Operation::Observe, workload, Timestamp::now());
        self.state.read(|policies, facts| {
            let evaluation = Evaluation::new(request, policies, facts);
            let verdict = evaluation.verdict();
            let has_findings = !(verdict.allows() && verdict.warned.is_empty() && verdict.recorded.is_empty());
            (evaluation.is_unlabelled() && has_findings).then(|| evaluation.policies())
        })
    }

    fn put(&self, workload: WorkloadRef, object: CompressedObject) {
        let mut known = self.known();
        known.due.insert(workload.clone());
        known.workloads.insert(workload, object);
        self.changed.notify_one();
    }

    fn remove(&self, workload: &WorkloadRef) {
        let mut known = self.known();
        known.workloads.remove(workload);
        known.due.remove(workload);
        known.listed.remove(workload);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Takes the next workload to check.
    fn next(&mut self) -> Option<(WorkloadRef, CompressedObject)> {
        let workload = self.due.pop_first()?;
        let object = self.workloads.get(&workload)?.clone();
        self.is_checking = true;
        Some((workload, object))
    }

    /// Stores the result for a workload, unless it was removed meanwhile. If it has changed meanwhile, it is due again.
    fn checked(&mut self, workload: WorkloadRef, policies: Vec<String>) {
        self.is_checking = false;
        if policies.is_empty() || !self.workloads.contains_key(&workload) {
            self.listed.remove(&workload);
        } else {
            self.listed.insert(workload, policies);
        }
    }
}

struct OfKind {
    unlabelled: Arc<UnlabelledWorkloads>,
    kind: ApiResource,
    step: Option<SharedStep>,
}

impl OfKind {
    fn reference(&self, (namespace, name): &Key) -> WorkloadRef {
        WorkloadRef { namespace: namespace.clone(), kind: self.kind.kind.clone(), name: name.clone() }
    }

    /// Returns whether a workload has the labels of a model server.
    fn is_labelled(&self, object: &DynamicObject) -> bool {
        let label = |key: &str| object.metadata.labels.as_ref()?.get(key).map(String::as_str);
        self.unlabelled.state.read(|policies, _| policies.scope().selecting(label).is_some())
    }
}

impl Handler<DynamicObject> for OfKind {
    fn put(&mut self, key: Key, object: DynamicObject) {
        let workload = self.reference(&key);
        if self.is_labelled(&object) {
            self.unlabelled.remove(&workload);
        } else {
            self.unlabelled.put(workload, CompressedObject::new(object, &self.kind));
        }
    }

    fn remove(&mut self, key: &Key) {
        self.unlabelled.remove(&self.reference(key));
    }

    fn synced(&mut self) {
        self.step = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::resource;
    use super::*;
    use tidegate_engine::facts::Namespace;
    use tidegate_engine::testing::{LABEL, deployment, exception, facts, policies};

    fn warning() -> Value {
        json!({"rules": {"unlabelled-model-server": {"enforcement": "warn"}}})
    }

    /// Unlabelled workloads under these policies, each with its spec.
    fn unlabelled(specs: &[(&str, Value)]) -> Arc<UnlabelledWorkloads> {
        let state = Arc::new(SharedState::new(policies(specs)));
        state.note(|known| *known = facts());
        UnlabelledWorkloads::new(&state)
    }

    /// A Deployment of this name that runs vLLM, with these labels.
    fn llm(name: &str, labels: Value) -> DynamicObject {
        let mut object = deployment(&json!([{"name": "llm", "image": "vllm/vllm-openai:v0.9.0"}]));
        object["metadata"]["name"] = name.into();
        object["metadata"]["labels"] = labels;
        serde_json::from_value(object).unwrap()
    }

    fn handler(unlabelled: &Arc<UnlabelledWorkloads>) -> OfKind {
        let kind = resource("apps", "v1", "Deployment");
        OfKind { unlabelled: Arc::clone(unlabelled), step: None, kind }
    }

    fn put(unlabelled: &Arc<UnlabelledWorkloads>, name: &str) {
        handler(unlabelled).put(("ml".to_owned(), name.to_owned()), llm(name, json!({})));
    }

    /// The workloads by policy, once all due ones have been checked.
    fn listed(unlabelled: &UnlabelledWorkloads) -> BTreeMap<String, Vec<String>> {
        while unlabelled.check_next() {}
        unlabelled.by_policy()
    }

    fn by(policy: &str, names: &[&str]) -> BTreeMap<String, Vec<String>> {
        let names: Vec<String> = names.iter().map(|name| format!("ml/{name}")).collect();
        [(policy.to_owned(), names)].into()
    }

    #[test]
    fn lists_a_workload_older_than_the_first_policy() {
        let unlabelled = unlabelled(&[]);
        put(&unlabelled, "llm");
        assert_eq!(listed(&unlabelled), BTreeMap::new());
        unlabelled.state.replace_policies(policies(&[("serving", warning())]));
        unlabelled.recheck_all();
        assert_eq!(listed(&unlabelled), by("serving", &["llm"]));
        unlabelled.state.replace_policies(policies(&[]));
        unlabelled.recheck_all();
        assert_eq!(listed(&unlabelled), BTreeMap::new());
    }

    #[test]
    fn recognises_a_runtime_of_a_later_policy() {
        let unlabelled = unlabelled(&[("serving", warning())]);
        let mut object = llm("own", json!({}));
        object.data["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.example.com/own-server:1".into();
        handler(&unlabelled).put(("ml".to_owned(), "own".to_owned()), object);
        assert_eq!(listed(&unlabelled), BTreeMap::new());
        let mut spec = warning();
        let runtime = json!({"name": "own", "recognise": {"images": ["own-server"]}, "startupBudget": "5m"});
        spec["runtimes"] = json!([runtime]);
        unlabelled.state.replace_policies(policies(&[("serving", spec)]));
        unlabelled.recheck_all();
        assert_eq!(listed(&unlabelled), by("serving", &["own"]));
    }

    #[test]
    fn follows_changes_of_namespace_labels() {
        let mut spec = warning();
        spec["match"] = json!({"namespaceSelector": {"matchLabels": {"team": "search"}}});
        let unlabelled = unlabelled(&[("search", spec)]);
        let label = |labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            let namespace = Namespace { labels, terminating: false };
            unlabelled.state.note(|facts| facts.namespaces.insert("ml".to_owned(), namespace));
            unlabelled.recheck_namespace("other");
            let before = listed(&unlabelled);
            unlabelled.recheck_namespace("ml");
            (before, listed(&unlabelled))
        };
        put(&unlabelled, "llm");
        assert_eq!(label(&[]), (BTreeMap::new(), BTreeMap::new()));
        assert_eq!(label(&[("team", "search")]), (BTreeMap::new(), by("search", &["llm"])));
        let whole = label(&[("team", "search"), ("tidegate.dev/model-servers", "all")]);
        assert_eq!(whole, (by("search", &["llm"]), BTreeMap::new()), "all of the namespace are model servers");
    }

    #[test]
    fn lists_an_exempted_workload_once_the_exception_expires() {
        let unlabelled = unlabelled(&[]);
        let rules = json!(["unlabelled-model-server"]);
        let until = |expires: &str| {
            let spec =
                json!({"workloads": {"names": ["llm"]}, "rules": rules, "reason": "a pilot", "expires": expires});
            policies(&[("serving", warning())]).with_exceptions([exception("pilot", &spec)])
        };
        put(&unlabelled, "llm");
        unlabelled.state.replace_policies(until("2999-01-01T00:00:00Z"));
        unlabelled.recheck_all();
        assert_eq!(listed(&unlabelled), BTreeMap::new());
        unlabelled.state.replace_policies(until("2000-01-01T00:00:00Z"));
        unlabelled.recheck_namespace("ml");
        assert_eq!(listed(&unlabelled), by("serving", &["llm"]));
    }

    #[test]
    fn does_not_list_deleted_or_labelled_workloads() {
        let unlabelled = unlabelled(&[("serving", warning())]);
        for name in ["a", "b", "c"] {
            put(&unlabelled, name);
        }
        assert_eq!(listed(&unlabelled), by("serving", &["a", "b", "c"]));
        handler(&unlabelled).remove(&("ml".to_owned(), "a".to_owned()));
        handler(&unlabelled).put(("ml".to_owned(), "b".to_owned()), llm("b", json!({LABEL: "model-server"})));
        assert_eq!(listed(&unlabelled), by("serving", &["c"]));
        assert_eq!(unlabelled.known().workloads.len(), 1);
        // It is removed while it is being checked.
        unlabelled.recheck_all();
        let (workload, _) = unlabelled.known().next().unwrap();
        unlabelled.remove(&workload);
        assert!(!unlabelled.are_checked());
        unlabelled.known().checked(workload, vec!["serving".to_owned()]);
        assert_eq!(listed(&unlabelled), BTreeMap::new());
    }

    #[test]
    fn does_not_list_kinds_that_are_no_longer_served() {
        let unlabelled = unlabelled(&[("serving", warning())]);
        put(&unlabelled, "a");
        assert_eq!(listed(&unlabelled), by("serving", &["a"]));
        unlabelled.recheck_all();
        unlabelled.forget("StatefulSet");
        assert_eq!(unlabelled.by_policy(), by("serving", &["a"]));
        unlabelled.forget("Deployment");
        assert!(!unlabelled.check_next() && unlabelled.by_policy().is_empty());
    }

    #[test]
    fn are_checked_once_nothing_is_due() {
        let unlabelled = unlabelled(&[("serving", warning())]);
        let mut handler = OfKind { step: Some(unlabelled.synced.step("Deployment").into()), ..handler(&unlabelled) };
        assert!(!unlabelled.are_checked());
        handler.put(("ml".to_owned(), "llm".to_owned()), llm("llm", json!({})));
        handler.synced();
        assert!(!unlabelled.are_checked());
        assert!(unlabelled.check_next() && unlabelled.are_checked());
    }

    #[test]
    fn by_policy_does_not_wait_for_the_facts() {
        let unlabelled = unlabelled(&[("serving", warning())]);
        put(&unlabelled, "llm");
        listed(&unlabelled);
        let (sender, listed) = std::sync::mpsc::channel();
        let state = Arc::clone(&unlabelled.state);
        state.note(|_| {
            // A check would read the facts, and wait while they are being written.
            std::thread::spawn(move || sender.send(unlabelled.by_policy()));
            assert!(listed.recv_timeout(Duration::from_secs(5)).is_ok_and(|found| found.len() == 1));
        });
    }

    #[tokio::test(start_paused = true)]
    async fn checks_workloads_as_they_come() {
        let unlabelled = unlabelled(&[("serving", warning())]);
        let checking = tokio::spawn(Arc::clone(&unlabelled).check());
        for name in ["a", "b"] {
            tokio::time::sleep(Duration::from_secs(1)).await;
            put(&unlabelled, name);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(unlabelled.by_policy(), by("serving", &["a", "b"]));
        checking.abort();
    }
}
