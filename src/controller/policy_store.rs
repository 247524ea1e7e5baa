//! The policies and exceptions as last seen: activates them, counts their effects, and writes their statuses.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::apply::{ApplyError, Writer, apply_status, status_patch};
use super::informer::Key;
use super::leader::Leadership;
use super::status::timed;
use super::unlabelled::UnlabelledWorkloads;
use super::{Parts, Queue};
use crate::report;
use crate::server::worker_threads::in_place;
use crate::shared_state::SharedState;
use tidegate_engine::BUILTIN;
use tidegate_engine::api::Condition;
use tidegate_engine::companions::{HeldReplicas, contains};
use tidegate_engine::decision::Decision;
use tidegate_engine::policy::{Exception, InvalidPolicy, Policy, PolicyConflicts, PolicySet};
use tidegate_engine::workload::WorkloadRef;

/// How often counts are written and exceptions checked for expiry: each status changes at most this often because of
/// them.
const TICK: Duration = Duration::from_secs(5);

/// The interval until the workloads that existed at the start have been counted; no status is written before.
const FIRST_TICK: Duration = Duration::from_millis(200);

/// The most unlabelled workloads that a status names.
const MOST_NAMED: usize = 10;

/// The longest message of a condition, in characters.
const MAX_MESSAGE: usize = 1024;

/// The policies and exceptions seen by the watches.
pub(super) struct PolicyStore {
    state: Arc<SharedState>,
    queue: Queue,
    unlabelled: Arc<UnlabelledWorkloads>,
    leadership: Leadership,
    statuses: UnboundedSender<Value>,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    policies: BTreeMap<String, Entry<Policy>>,
    exceptions: BTreeMap<Key, Entry<Exception>>,
    /// The conflicts of two policies, by their names; only pairs with conflicts.
    conflicts: BTreeMap<(String, String), PolicyConflicts>,
    /// Policies from files, which have no status.
    from_files: Vec<Arc<Policy>>,
    /// The watches that have not synced yet.
    missing: BTreeSet<&'static str>,
    results: HashMap<WorkloadRef, Results>,
    /// Whether every workload that existed at the start has been counted.
    is_counted: bool,
    expired: BTreeSet<Key>,
}

/// A policy or an exception as last seen.
struct Entry<T> {
    object: Value,
    /// The last valid version.
    active: Option<Arc<T>>,
    /// Why the current version is invalid.
    problem: Option<String>,
}

/// The results of one workload.
#[derive(Debug, Default, PartialEq)]
struct Results {
    policies: BTreeSet<String>,
    refused: BTreeSet<String>,
    warned: BTreeSet<String>,
    /// How many violations each exception exempts.
    exempted: BTreeMap<String, i64>,
    /// The replicas, if they are more than a policy allows.
    held: Option<HeldReplicas>,
}

impl<T> Entry<T> {
    /// Returns whether an object has the same UID and generation.
    fn is(&self, object: &Value) -> bool {
        let version =
            |object: &Value| [&object["metadata"]["uid"], &object["metadata"]["generation"]].map(Clone::clone);
        version(&self.object) == version(object)
    }

    /// Creates an entry; if the object is invalid, the version that was active before stays active.
    fn new(object: Value, compiled: Result<T, String>, before: Option<Self>) -> Self {
        let before = before.filter(|before| before.object["metadata"]["uid"] == object["metadata"]["uid"]);
        match compiled {
            Ok(compiled) => Self { object, active: Some(Arc::new(compiled)), problem: None },
            Err(problem) => Self { object, active: before.and_then(|before| before.active), problem: Some(problem) },
        }
    }
}

impl PolicyStore {
    /// Creates a store that is filled by these watches; the returned statuses are to be written by [`write()`].
    pub(super) fn open(
        state: &Arc<SharedState>,
        queue: Queue,
        unlabelled: Arc<UnlabelledWorkloads>,
        leadership: Leadership,
        watches: impl IntoIterator<Item = &'static str>,
    ) -> (Arc<Self>, UnboundedReceiver<Value>) {
        let (statuses, to_write) = unbounded();
        let from_files = state.read(|policies, _| policies.policies().to_vec());
        let entries = Entries { from_files, missing: watches.into_iter().collect(), ..Entries::default() };
        let (state, entries) = (Arc::clone(state), Mutex::new(entries));
        (Arc::new(Self { state, queue, unlabelled, leadership, statuses, entries }), to_write)
    }

    /// Stores a policy, unless this version is stored already.
    pub(super) fn put_policy(&self, name: &str, object: Value, compile: impl FnOnce(&Value) -> Result<Policy, String>) {
        if let Some(known) = self.entries().policies.get_mut(name).filter(|known| known.is(&object)) {
            known.object = object;
            return;
        }
        // Long work without the lock; only this watch stores policies, so the others do not change meanwhile.
        let (compiled, conflicts) = in_place(|| {
            let compiled = compile(&object);
            let others = self.entries().other_active(name);
            let conflicts = compiled.as_ref().ok().map(|policy| conflicts(name, policy, &others));
            (compiled, conflicts)
        });
        let mut entries = self.entries();
        let before = entries.policies.remove(name);
        let entry = Entry::new(object, compiled, before);
        match &entry.problem {
            None => info!(policy = name, "policy is active"),
            Some(problem) => warn!(policy = name, error = problem, "invalid policy"),
        }
        // If the last valid version stays active, its conflicts stay too.
        if let Some(conflicts) = conflicts.or_else(|| entry.active.is_none().then(Vec::new)) {
            entries.set_conflicts(name, conflicts);
        }
        entries.policies.insert(name.to_owned(), entry);
        self.activate(&entries);
        self.queue_statuses(&entries);
    }

    /// Removes a policy.
    pub(super) fn remove_policy(&self, name: &str) {
        let mut entries = self.entries();
        entries.policies.remove(name);
        entries.set_conflicts(name, Vec::new());
        self.activate(&entries);
        self.queue_statuses(&entries);
    }

    /// Stores an exception, unless this version is stored already.
    pub(super) fn put_exception(
        &self,
        key: Key,
        object: Value,
        compile: impl FnOnce(&Value) -> Result<Exception, String>,
    ) {
        if let Some(known) = self.entries().exceptions.get_mut(&key).filter(|known| known.is(&object)) {
            known.object = object;
            return;
        }
        let compiled = compile(&object);
        let mut entries = self.entries();
        let before = entries.exceptions.remove(&key);
        let entry = Entry::new(object, compiled, before);
        let (namespace, name) = (&key.0, &key.1);
        match &entry.problem {
            None => info!(namespace, name, "exception is valid"),
            Some(problem) => warn!(namespace, name, error = problem, "invalid exception"),
        }
        entries.expired.remove(&key);
        entries.exceptions.insert(key, entry);
        self.activate(&entries);
        self.queue_statuses(&entries);
    }

    /// Removes an exception.
    pub(super) fn remove_exception(&self, key: &Key) {
        let mut entries = self.entries();
        entries.exceptions.remove(key);
        self.activate(&entries);
    }

    /// Marks a watch as synced.
    pub(super) fn synced(&self, watch: &'static str) {
        let mut entries = self.entries();
        entries.missing.remove(watch);
        self.activate(&entries);
        self.queue_statuses(&entries);
    }

    /// Stores the results of a workload.
    pub(super) fn record(&self, workload: &WorkloadRef, decision: &Decision) {
        let mut results = Results { policies: decision.policies.iter().cloned().collect(), ..Results::default() };
        let verdict = &decision.verdict;
        results.refused.extend(verdict.violations.iter().map(|violation| violation.policy.clone()));
        results.warned.extend(verdict.warned.iter().map(|violation| violation.policy.clone()));
        results.held.clone_from(&decision.companions.held);
        for exempted in &verdict.exempted {
            *results.exempted.entry(exempted.exception.clone()).or_default() += 1;
        }
        self.entries().results.insert(workload.clone(), results);
    }

    /// Marks a workload as reconciled, even if it has no results.
    pub(super) fn reconciled(&self, workload: WorkloadRef) {
        self.entries().results.entry(workload).or_default();
    }

    /// Forgets a workload.
    pub(super) fn forget(&self, workload: &WorkloadRef) {
        self.entries().results.remove(workload);
    }

    /// Returns whether every workload that existed at the start has been counted.
    pub(super) fn is_complete(&self) -> bool {
        self.entries().is_counted
    }

    /// Counts workloads, and expires exceptions, while it is polled.
    pub(super) async fn tick(self: Arc<Self>) {
        loop {
            let is_counted = self.entries().is_counted;
            tokio::time::sleep(if is_counted { TICK } else { FIRST_TICK }).await;
            let mut entries = self.entries();
            entries.is_counted = is_counted || self.is_counted(&entries);
            let expired = entries.expired(Timestamp::now());
            for (namespace, _) in expired.difference(&mem::take(&mut entries.expired)) {
                self.queue.push_namespace(namespace);
                self.unlabelled.recheck_namespace(namespace);
            }
            entries.expired = expired;
            self.queue_statuses(&entries);
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Activates the valid policies and exceptions, once all watches have synced: some of them alone would decide
    /// differently.
    fn activate(&self, entries: &Entries) {
        if !entries.missing.is_empty() {
            return;
        }
        let of_cluster = entries.policies.values().filter_map(|entry| entry.active.clone());
        let policies = entries.from_files.iter().cloned().chain(of_cluster).collect();
        let exceptions = entries.exceptions.values().filter_map(|entry| entry.active.clone());
        let invalid = entries.policies.iter().filter(|(_, entry)| entry.active.is_none()).map(|(name, entry)| {
            let policy = serde_json::from_value(entry.object.clone()).ok();
            InvalidPolicy::new(name, policy.as_ref(), entry.problem.as_deref().unwrap_or_default())
        });
        let scope = self.state.read(|current, _| current.scope().clone());
        self.state.replace_policies(
            PolicySet::new(scope, policies).with_exceptions(exceptions).with_invalid(invalid.collect()),
        );
        self.queue.push_all();
        self.unlabelled.recheck_all();
    }

    /// Writes every status that is out of date.
    pub(super) fn write_statuses(&self) {
        self.queue_statuses(&self.entries());
    }

    /// Returns whether all known workloads have been counted.
    fn is_counted(&self, entries: &Entries) -> bool {
        let has_results = |workload: &WorkloadRef| entries.results.contains_key(workload);
        self.state.is_complete()
            && self.unlabelled.are_checked()
            && self.queue.kinds().iter().all(|workloads| workloads.references().all(|known| has_results(&known)))
    }

    /// Queues every status that is out of date, once all workloads have been counted.
    fn queue_statuses(&self, entries: &Entries) {
        if !entries.missing.is_empty() || !entries.is_counted || !self.leadership.holds() {
            return;
        }
        let now = Timestamp::now();
        let (counts, used, unlabelled) = (entries.counts(), entries.used(), self.unlabelled.by_policy());
        let of_policies = entries.policies.iter().map(|(name, entry)| {
            let counts = counts.get(name.as_str()).copied().unwrap_or_default();
            let mut status = entries.policy_status(name, entry, counts);
            status["unlabelled"] = unlabelled_status(unlabelled.get(name).map_or(&[][..], Vec::as_slice));
            (&entry.object, status)
        });
        let of_exceptions = entries.exceptions.iter().map(|(key, entry)| {
            let used = used.get(&(key.0.as_str(), key.1.as_str())).copied().unwrap_or_default();
            (&entry.object, entries.exception_status(entry, used, now))
        });
        for (object, status) in of_policies.chain(of_exceptions) {
            let status = timed(status, &object["status"], now);
            if !contains(&object["status"], &status) {
                // The receiver is dropped only at shutdown.
                let _ = self.statuses.unbounded_send(status_patch(object, status));
            }
        }
    }
}

impl Entries {
    /// Replaces the conflicts of a policy with others.
    fn set_conflicts(&mut self, name: &str, conflicts: Vec<((String, String), PolicyConflicts)>) {
        self.conflicts.retain(|(one, other), _| one != name && other != name);
        self.conflicts.extend(conflicts);
    }

    /// Returns the other active policies, by name.
    fn other_active(&self, name: &str) -> Vec<(String, Arc<Policy>)> {
        let others = self.policies.iter().filter(|(other, _)| *other != name);
        others.filter_map(|(other, entry)| Some((other.clone(), entry.active.clone()?))).collect()
    }

    /// Returns the conflicts and contradictions of a policy with others.
    fn conflicts_of(&self, name: &str) -> impl Iterator<Item = &str> {
        let of_policy = self.conflicts.iter().filter(move |((one, other), _)| one == name || other == name);
        of_policy.flat_map(|(_, found)| found.conflicts.iter().chain(&found.contradictions)).map(String::as_str)
    }

    /// Returns the exceptions that have expired.
    fn expired(&self, now: Timestamp) -> BTreeSet<Key> {
        let is_expired = |entry: &Entry<Exception>| entry.active.as_ref().is_some_and(|found| found.expires() <= now);
        self.exceptions.iter().filter(|(_, entry)| is_expired(entry)).map(|(key, _)| key.clone()).collect()
    }

    fn policy_status(&self, name: &str, entry: &Entry<Policy>, [matched, refused, warned]: [i64; 3]) -> Value {
        let ready = match (&entry.problem, &entry.active) {
            (None, _) => condition("Ready", "True", "InForce", "this generation is active"),
            (Some(problem), None) => {
                condition("Ready", "False", "Invalid", &format!("{problem}; the policy is not active"))
            }
            (Some(problem), Some(policy)) => {
                let message = format!("{problem}; generation {} stays active", policy.reference().generation);
                condition("Ready", "False", "Invalid", &message)
            }
        };
        let problems: Vec<&str> = self.conflicts_of(name).collect();
        let conflicting = if problems.is_empty() {
            condition("Conflicting", "False", "NoConflict", "no conflict with another policy")
        } else {
            condition("Conflicting", "True", "Conflicts", &problems.join("; "))
        };
        json!({
            "observedGeneration": entry.object["metadata"]["generation"],
            "conditions": [ready, conflicting, self.replicas_in_bounds(name)],
            "workloads": {"matched": matched, "refused": refused, "warned": warned}
        })
    }

    /// Returns whether workloads have more replicas than a policy allows.
    fn replicas_in_bounds(&self, policy: &str) -> Condition {
        let held = self.results.iter().filter_map(|(workload, results)| Some((workload, results.held.as_ref()?)));
        let held: BTreeMap<&WorkloadRef, i64> =
            held.filter(|(_, held)| held.policy == policy).map(|(workload, held)| (workload, held.replicas)).collect();
        match report::held(&held) {
            Some(message) => condition("ReplicasInBounds", "False", "MoreRun", &message),
            None => condition("ReplicasInBounds", "True", "InBounds", "no model server exceeds maxReplicas"),
        }
    }

    /// Returns how many workloads each policy matches, refuses and warns about.
    fn counts(&self) -> HashMap<&str, [i64; 3]> {
        let mut counts: HashMap<&str, [i64; 3]> = HashMap::new();
        for results in self.results.values() {
            for (index, names) in [&results.policies, &results.refused, &results.warned].into_iter().enumerate() {
                for name in names {
                    counts.entry(name).or_default()[index] += 1;
                }
            }
        }
        counts
    }

    /// Returns how many violations each exception exempts, by its namespace and name.
    fn used(&self) -> HashMap<(&str, &str), i64> {
        let mut used: HashMap<(&str, &str), i64> = HashMap::new();
        for (workload, results) in &self.results {
            for (exception, count) in &results.exempted {
                *used.entry((&workload.namespace, exception)).or_default() += count;
            }
        }
        used
    }

    fn exception_status(&self, entry: &Entry<Exception>, used: i64, now: Timestamp) -> Value {
        let active = match (&entry.problem, &entry.active) {
            (Some(problem), _) => condition("Active", "False", "Invalid", problem),
            (None, Some(found)) if found.expires() <= now => {
                condition("Active", "False", "Expired", &format!("expired at {}", found.expires()))
            }
            (None, Some(found)) => match self.unknown_rules(found).as_slice() {
                [] => condition("Active", "True", "Active", &format!("active until {}", found.expires())),
                unknown => {
                    let message = format!("active until {}; unknown rule {}", found.expires(), unknown.join(", "));
                    condition("Active", "True", "UnknownRules", &message)
                }
            },
            (None, None) => condition("Active", "Unknown", "Unknown", "not checked yet"),
        };
        json!({"observedGeneration": entry.object["metadata"]["generation"], "conditions": [active], "used": used})
    }

    /// Returns the rules of an exception that neither Tidegate nor a policy has.
    fn unknown_rules<'e>(&self, exception: &'e Exception) -> Vec<&'e str> {
        let policies = || self.policies.values().filter_map(|entry| entry.active.as_ref()).chain(&self.from_files);
        exception.unknown_rules(&BUILTIN).filter(|id| !policies().any(|policy| policy.has_rule(id))).collect()
    }
}

/// Returns the conflicts of a policy with each of the others that it conflicts with.
fn conflicts(
    name: &str,
    policy: &Policy,
    others: &[(String, Arc<Policy>)],
) -> Vec<((String, String), PolicyConflicts)> {
    let pairs =
        others.iter().map(|(other, found)| ((name.to_owned(), other.clone()), PolicyConflicts::between(policy, found)));
    pairs.filter(|(_, conflicts)| !conflicts.is_empty()).collect()
}

/// Returns the status of unlabelled workloads that a policy would match.
fn unlabelled_status(names: &[String]) -> Value {
    json!({"count": names.len(), "names": &names[..names.len().min(MOST_NAMED)]})
}

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Condition {
    Condition::new(type_, status, reason, message.chars().take(MAX_MESSAGE).collect::<String>())
}

/// Starts to count workloads, and to write the statuses of policies and exceptions.
pub(super) fn start(store: &Arc<PolicyStore>, writer: Writer, statuses: UnboundedReceiver<Value>, parts: &mut Parts) {
    parts.spawn_writing("statuses", write(writer, statuses));
    parts.spawn("counts", Arc::clone(store).tick());
}

/// Writes statuses, one after the other. One that fails is written again at the next tick if it still differs.
async fn write(writer: Writer, mut statuses: UnboundedReceiver<Value>) {
    while let Some(status) = statuses.next().await {
        match apply_status(&writer, &status).await {
            Ok(()) | Err(ApplyError::NotLeading) => {}
            Err(error) => warn!(error = report::chain(&error), "cannot write a status"),
        }
    }
}
