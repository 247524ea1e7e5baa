//! Workloads that run a known runtime and are not labelled as model servers: no webhook is asked about them, but the statuses
//! of the policies that would be for them tell of them.

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
use tidegate_engine::decision::{Evaluation, Operation, Request, User};
use tidegate_engine::workload::{Workload, WorkloadRef};

/// The unlabelled workloads that are known.
pub(super) struct UnlabelledWorkloads {
    state: Arc<SharedState>,
    known: Mutex<Known>,
    /// Notified when there is something to decide.
    changed: Notify,
    /// Whether those have been seen that were there at the start.
    seen: Readiness,
}

#[derive(Default)]
struct Known {
    /// Every workload without the labels, whatever it runs: the next policy may bring the runtime that recognises it.
    workloads: HashMap<WorkloadRef, CompressedObject>,
    /// The workloads to decide about: they, or what decides about them, have changed.
    due: BTreeSet<WorkloadRef>,
    /// Whether one is being decided about that is no longer due.
    is_deciding: bool,
    /// The policies that would tell of a workload, where there are any.
    told: BTreeMap<WorkloadRef, Vec<String>>,
}

impl UnlabelledWorkloads {
    /// Begins without any.
    pub(super) fn new(state: &Arc<SharedState>) -> Arc<Self> {
        let (state, seen) = (Arc::clone(state), Readiness::default());
        Arc::new(Self { state, known: Mutex::default(), changed: Notify::new(), seen })
    }

    /// Starts to follow the unlabelled workloads of each kind, and to decide about them.
    pub(super) fn start(self: &Arc<Self>, queue: &Queue, parts: &mut Parts) {
        for workloads in queue.kinds() {
            if let Some(definition) = workloads.served().follow_definition(parts.client) {
                parts.spawn("kinds", definition);
            }
            parts.spawn("unlabelled", self.follow(parts.client, workloads, parts.readiness.clone()));
        }
        parts.spawn("unlabelled", Arc::clone(self).decide());
    }

    /// Follows the workloads of a kind that lack the labels of a model server, once all else is known. Several labels cannot
    /// be asked for in that way: then all are followed.
    fn follow(
        self: &Arc<Self>,
        client: &Client,
        workloads: &Workloads,
        all_else: Readiness,
    ) -> impl Future<Output = ()> + use<> {
        let step = self.seen.step(workloads.kind());
        let (kind, served) = (workloads.resource().clone(), Arc::clone(workloads.served()));
        let without = self.state.read(|policies, _| {
            let mut labels = policies.scope().iter();
            match (labels.next(), labels.next()) {
                (Some((key, value)), None) => format!("{key}!={value}"),
                _ => String::new(),
            }
        });
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
        let unlabelled = Arc::clone(self);
        async move {
            all_else.reached().await;
            let begin = |step| {
                let events = watcher(api.clone(), informer::config().labels(&without)).default_backoff();
                follow(events, OfKind { unlabelled: Arc::clone(&unlabelled), kind: kind.clone(), step })
            };
            served.during(Some(step.into()), begin, || unlabelled.forget(&kind.kind)).await;
        }
    }

    /// Forgets the workloads of a kind, which is served no longer.
    fn forget(&self, kind: &str) {
        let mut known = self.known();
        known.workloads.retain(|workload, _| workload.kind != kind);
        known.due.retain(|workload| workload.kind != kind);
        known.told.retain(|workload, _| workload.kind != kind);
    }

    /// Decides, for as long as it is polled, about what is due: one workload after the other, so that nobody waits for long.
    pub(super) async fn decide(self: Arc<Self>) {
        loop {
            while self.decide_next() {
                tokio::task::yield_now().await;
            }
            self.changed.notified().await;
        }
    }

    /// Has every workload decided about again: other policies or exceptions are in force.
    pub(super) fn decide_all_again(&self) {
        self.decide_again(|_| true);
    }

    /// Has the workloads of a namespace decided about again: its labels have changed, or an exception has expired.
    pub(super) fn decide_again_in(&self, namespace: &str) {
        self.decide_again(|workload| workload.namespace == namespace);
    }

    fn decide_again(&self, is_meant: impl Fn(&WorkloadRef) -> bool) {
        let mut known = self.known();
        let Known { workloads, due, .. } = &mut *known;
        due.extend(workloads.keys().filter(|workload| is_meant(workload)).cloned());
        self.changed.notify_one();
    }

    /// Tells whether all have been seen that were there at the start, and all that are known have been decided about.
    pub(super) fn are_seen(&self) -> bool {
        let known = self.known();
        self.seen.missing().is_empty() && known.due.is_empty() && !known.is_deciding
    }

    /// Returns the names of the unlabelled workloads that each policy would be for, `namespace/name` in their order.
    pub(super) fn by_policy(&self) -> BTreeMap<String, Vec<String>> {
        let mut by_policy: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (workload, policies) in &self.known().told {
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

    /// Decides about one workload that is due; tells whether there was one.
    fn decide_next(&self) -> bool {
        let Some((workload, kept)) = self.known().next() else { return false };
        // A fault in deciding about one workload is no reason not to tell of the others.
        let policies = catch_unwind(AssertUnwindSafe(|| self.policies(&kept.to_json()))).unwrap_or_else(|_| {
            error!(namespace = workload.namespace, name = workload.name, "deciding about a workload has panicked");
            None
        });
        self.known().decided(workload, policies.unwrap_or_default());
        true
    }

    /// Returns the policies that would tell of a workload; none where it is no stranger.
    fn policies(&self, object: &Value) -> Option<Vec<String>> {
        let workload = Workload::view(object).ok()?;
        let (operation, now) = (Operation::Observe, Timestamp::now());
        let request = Request { operation, workload, old: None, user: User::default(), now };
        self.state.read(|policies, facts| {
            let evaluation = Evaluation::new(request, policies, facts);
            let verdict = evaluation.verdict();
            let is_told = !(verdict.allows() && verdict.warned.is_empty() && verdict.recorded.is_empty());
            (evaluation.is_unlabelled() && is_told).then(|| evaluation.policies())
        })
    }

    fn put(&self, workload: WorkloadRef, kept: CompressedObject) {
        let mut known = self.known();
        known.due.insert(workload.clone());
        known.workloads.insert(workload, kept);
        self.changed.notify_one();
    }

    fn remove(&self, workload: &WorkloadRef) {
        let mut known = self.known();
        known.workloads.remove(workload);
        known.due.remove(workload);
        known.told.remove(workload);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Takes the next workload to decide about.
    fn next(&mut self) -> Option<(WorkloadRef, CompressedObject)> {
        let workload = self.due.pop_first()?;
        let kept = self.workloads.get(&workload)?.clone();
        self.is_deciding = true;
        Some((workload, kept))
    }

    /// Notes what was decided about a workload, unless it has gone meanwhile. One that has changed meanwhile is due again.
    fn decided(&mut self, workload: WorkloadRef, policies: Vec<String>) {
        self.is_deciding = false;
        if policies.is_empty() || !self.workloads.contains_key(&workload) {
            self.told.remove(&workload);
        } else {
            self.told.insert(workload, policies);
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

    /// Tells whether a workload has all labels of a model server.
    fn is_labelled(&self, object: &DynamicObject) -> bool {
        let labels = object.metadata.labels.as_ref();
        let has = |(key, value): (&String, &String)| labels.and_then(|labels| labels.get(key)) == Some(value);
        self.unlabelled.state.read(|policies, _| policies.scope().iter().all(has))
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

    /// What is told once everything that is due has been decided.
    fn told(unlabelled: &UnlabelledWorkloads) -> BTreeMap<String, Vec<String>> {
        while unlabelled.decide_next() {}
        unlabelled.by_policy()
    }

    fn by(policy: &str, names: &[&str]) -> BTreeMap<String, Vec<String>> {
        let names: Vec<String> = names.iter().map(|name| format!("ml/{name}")).collect();
        [(policy.to_owned(), names)].into()
    }

    #[test]
    fn a_stranger_that_was_there_before_the_first_policy_is_told_of() {
        let unlabelled = unlabelled(&[]);
        put(&unlabelled, "llm");
        assert_eq!(told(&unlabelled), BTreeMap::new());
        unlabelled.state.replace_policies(policies(&[("serving", warning())]));
        unlabelled.decide_all_again();
        assert_eq!(told(&unlabelled), by("serving", &["llm"]));
        unlabelled.state.replace_policies(policies(&[]));
        unlabelled.decide_all_again();
        assert_eq!(told(&unlabelled), BTreeMap::new());
    }

    #[test]
    fn a_runtime_that_only_a_later_policy_knows_is_recognised() {
        let unlabelled = unlabelled(&[("serving", warning())]);
        let mut object = llm("own", json!({}));
        object.data["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.example.com/own-server:1".into();
        handler(&unlabelled).put(("ml".to_owned(), "own".to_owned()), object);
        assert_eq!(told(&unlabelled), BTreeMap::new());
        let mut spec = warning();
        let runtime = json!({"name": "own", "recognise": {"images": ["own-server"]}, "startupBudget": "5m"});
        spec["runtimes"] = json!([runtime]);
        unlabelled.state.replace_policies(policies(&[("serving", spec)]));
        unlabelled.decide_all_again();
        assert_eq!(told(&unlabelled), by("serving", &["own"]));
    }

    #[test]
    fn what_policies_are_chosen_by_counts_as_it_is_now() {
        let mut spec = warning();
        spec["match"] = json!({"namespaceSelector": {"matchLabels": {"team": "search"}}});
        let unlabelled = unlabelled(&[("search", spec)]);
        let label = |labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            let namespace = Namespace { labels, terminating: false };
            unlabelled.state.note(|facts| facts.namespaces.insert("ml".to_owned(), namespace));
            unlabelled.decide_again_in("other");
            let before = told(&unlabelled);
            unlabelled.decide_again_in("ml");
            (before, told(&unlabelled))
        };
        put(&unlabelled, "llm");
        assert_eq!(label(&[]), (BTreeMap::new(), BTreeMap::new()));
        assert_eq!(label(&[("team", "search")]), (BTreeMap::new(), by("search", &["llm"])));
        let whole = label(&[("team", "search"), ("tidegate.dev/model-servers", "all")]);
        assert_eq!(whole, (by("search", &["llm"]), BTreeMap::new()), "all of the namespace are model servers");
    }

    #[test]
    fn an_excused_stranger_is_told_of_once_the_exception_is_over() {
        let unlabelled = unlabelled(&[]);
        let rules = json!(["unlabelled-model-server"]);
        let until = |expires: &str| {
            let spec =
                json!({"workloads": {"names": ["llm"]}, "rules": rules, "reason": "a pilot", "expires": expires});
            policies(&[("serving", warning())]).with_exceptions([exception("pilot", &spec)])
        };
        put(&unlabelled, "llm");
        unlabelled.state.replace_policies(until("2999-01-01T00:00:00Z"));
        unlabelled.decide_all_again();
        assert_eq!(told(&unlabelled), BTreeMap::new());
        unlabelled.state.replace_policies(until("2000-01-01T00:00:00Z"));
        unlabelled.decide_again_in("ml");
        assert_eq!(told(&unlabelled), by("serving", &["llm"]));
    }

    #[test]
    fn nothing_is_told_of_what_has_gone_or_has_the_label() {
        let unlabelled = unlabelled(&[("serving", warning())]);
        for name in ["a", "b", "c"] {
            put(&unlabelled, name);
        }
        assert_eq!(told(&unlabelled), by("serving", &["a", "b", "c"]));
        handler(&unlabelled).remove(&("ml".to_owned(), "a".to_owned()));
        handler(&unlabelled).put(("ml".to_owned(), "b".to_owned()), llm("b", json!({LABEL: "model-server"})));
        assert_eq!(told(&unlabelled), by("serving", &["c"]));
        assert_eq!(unlabelled.known().workloads.len(), 1);
        // It goes while it is being decided about.
        unlabelled.decide_all_again();
        let (workload, _) = unlabelled.known().next().unwrap();
        unlabelled.remove(&workload);
        assert!(!unlabelled.are_seen());
        unlabelled.known().decided(workload, vec!["serving".to_owned()]);
        assert_eq!(told(&unlabelled), BTreeMap::new());
    }

    #[test]
    fn nothing_is_told_of_a_kind_that_is_served_no_longer() {
        let unlabelled = unlabelled(&[("serving", warning())]);
        put(&unlabelled, "a");
        assert_eq!(told(&unlabelled), by("serving", &["a"]));
        unlabelled.decide_all_again();
        unlabelled.forget("StatefulSet");
        assert_eq!(unlabelled.by_policy(), by("serving", &["a"]));
        unlabelled.forget("Deployment");
        assert!(!unlabelled.decide_next() && unlabelled.by_policy().is_empty());
    }

    #[test]
    fn they_are_seen_once_all_have_been_decided_about() {
        let unlabelled = unlabelled(&[("serving", warning())]);
        let mut handler = OfKind { step: Some(unlabelled.seen.step("Deployment").into()), ..handler(&unlabelled) };
        assert!(!unlabelled.are_seen());
        handler.put(("ml".to_owned(), "llm".to_owned()), llm("llm", json!({})));
        handler.synced();
        assert!(!unlabelled.are_seen());
        assert!(unlabelled.decide_next() && unlabelled.are_seen());
    }

    #[test]
    fn what_is_told_of_strangers_is_not_decided_when_it_is_asked_for() {
        let unlabelled = unlabelled(&[("serving", warning())]);
        put(&unlabelled, "llm");
        told(&unlabelled);
        let (tell, told) = std::sync::mpsc::channel();
        let state = Arc::clone(&unlabelled.state);
        state.note(|_| {
            // Whoever decides reads the facts, and waits as long as somebody else writes them.
            std::thread::spawn(move || tell.send(unlabelled.by_policy()));
            assert!(told.recv_timeout(Duration::from_secs(5)).is_ok_and(|told| told.len() == 1));
        });
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_is_decided_about_whenever_it_comes() {
        let unlabelled = unlabelled(&[("serving", warning())]);
        let deciding = tokio::spawn(Arc::clone(&unlabelled).decide());
        for name in ["a", "b"] {
            tokio::time::sleep(Duration::from_secs(1)).await;
            put(&unlabelled, name);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(unlabelled.by_policy(), by("serving", &["a", "b"]));
        deciding.abort();
    }
}
