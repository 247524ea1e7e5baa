//! Workloads that run a known runtime and are not labelled as model servers: no webhook is asked about them, but the statuses
//! of the policies that would be for them tell of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DynamicObject};
use kube::core::ApiResource;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::Value;

use super::watch::{self, Key, Sink, follow};
use super::{raw, resource};
use tidegate_engine::decision::{Considered, Operation, Request, User};
use tidegate_engine::workload::{Workload, WorkloadRef};
use crate::server::health::{Readiness, Step};
use crate::state::State;

/// The most that are kept: whoever has more learns enough from these.
const MOST: usize = 1000;

/// The strangers that are known.
pub(super) struct Strangers {
    state: Arc<State>,
    known: Mutex<HashMap<WorkloadRef, Value>>,
    /// Whether those have been seen that were there at the start.
    seen: Readiness,
}

impl Strangers {
    /// Begins without any.
    pub(super) fn new(state: &Arc<State>) -> Arc<Self> {
        Arc::new(Self { state: Arc::clone(state), known: Mutex::default(), seen: Readiness::default() })
    }

    /// Follows the workloads of a kind that lack the labels of a model server, once all else is known: what is none of the
    /// policies' concern is not kept. Several labels cannot be asked for in that way: then all are followed.
    pub(super) fn follow(
        self: &Arc<Self>,
        client: &Client,
        kind: &'static str,
        all_else: Readiness,
    ) -> impl Future<Output = ()> + use<> {
        let step = self.seen.step(kind);
        let kind = resource("apps", "v1", kind);
        let without = self.state.read(|policies, _| {
            let mut labels = policies.scope().iter();
            match (labels.next(), labels.next()) {
                (Some((key, value)), None) => format!("{key}!={value}"),
                _ => String::new(),
            }
        });
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
        let events = watcher(api, watch::config().labels(&without)).default_backoff();
        let following = follow(events, OfKind { strangers: Arc::clone(self), kind, step });
        async move {
            all_else.reached().await;
            following.await;
        }
    }

    /// Tells whether all have been seen that were there at the start.
    pub(super) fn are_seen(&self) -> bool {
        self.seen.missing().is_empty()
    }

    /// Returns the names of the strangers that each policy would be for, `namespace/name` in their order.
    pub(super) fn by_policy(&self) -> BTreeMap<String, Vec<String>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut by_policy: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (workload, object) in &*known {
            for policy in self.policies(object).unwrap_or_default() {
                by_policy.entry(policy).or_default().push(format!("{}/{}", workload.namespace, workload.name));
            }
        }
        for names in by_policy.values_mut() {
            names.sort();
        }
        by_policy
    }

    /// Returns the policies that would tell of a workload; none where it is no stranger.
    fn policies(&self, object: &Value) -> Option<Vec<String>> {
        let workload = Workload::view(object).ok()?;
        let (operation, now) = (Operation::Observe, Timestamp::now());
        let request = Request { operation, workload, old: None, user: User::default(), now };
        self.state.read(|policies, facts| {
            let considered = Considered::of(request, policies, facts);
            let verdict = considered.verdict();
            let is_told = !(verdict.allows() && verdict.warned.is_empty() && verdict.audited.is_empty());
            (considered.is_stranger() && is_told).then(|| considered.policies())
        })
    }

    fn put(&self, workload: WorkloadRef, object: Value) {
        let is_one = self.policies(&object).is_some();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_one {
            known.remove(&workload);
        } else if known.len() < MOST || known.contains_key(&workload) {
            known.insert(workload, object);
        }
    }

    fn remove(&self, workload: &WorkloadRef) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(workload);
    }
}

struct OfKind {
    strangers: Arc<Strangers>,
    kind: ApiResource,
    step: Step,
}

impl OfKind {
    fn reference(&self, (namespace, name): &Key) -> WorkloadRef {
        WorkloadRef { namespace: namespace.clone(), kind: self.kind.kind.clone(), name: name.clone() }
    }
}

impl Sink<DynamicObject> for OfKind {
    fn put(&mut self, key: Key, object: DynamicObject) {
        self.strangers.put(self.reference(&key), raw(object, &self.kind));
    }

    fn remove(&mut self, key: &Key) {
        self.strangers.remove(&self.reference(key));
    }

    fn synced(&mut self) {
        self.step.done();
    }
}
