//! The policies and exceptions as they were seen last: puts them in force, counts what they do, and says so in their
//! statuses.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::apply::{ApplyError, Writer, apply_status};
use super::informer::Key;
use super::leader::Leadership;
use super::status::timed;
use super::unlabelled::UnlabelledWorkloads;
use super::{Parts, Queue};
use crate::report;
use crate::server::slow_lane::in_place;
use crate::shared_state::SharedState;
use tidegate_engine::BUILTIN;
use tidegate_engine::companions::{HeldReplicas, contains};
use tidegate_engine::decision::Decision;
use tidegate_engine::policy::{Exception, InvalidPolicy, Policy, PolicyConflicts, PolicySet};
use tidegate_engine::workload::WorkloadRef;

/// How often counts are written, and exceptions looked at that may have expired: each status changes at most so often
/// because of them.
const TICK: Duration = Duration::from_secs(5);

/// The same until the workloads that were there at the start have been judged, and nothing is told yet.
const FIRST_TICK: Duration = Duration::from_millis(200);

/// How many workloads a status names that are not labelled as model servers.
const MOST_NAMED: usize = 10;

/// The longest message of a condition, in characters.
const MAX_MESSAGE: usize = 1024;

/// What the watches of policies and exceptions have told.
pub(super) struct PolicyStore {
    state: Arc<SharedState>,
    queue: Queue,
    unlabelled: Arc<UnlabelledWorkloads>,
    leadership: Leadership,
    statuses: UnboundedSender<Value>,
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    policies: BTreeMap<String, Page<Policy>>,
    exceptions: BTreeMap<Key, Page<Exception>>,
    /// What there is to say of two policies together, by their names; only where there is something.
    meetings: BTreeMap<(String, String), PolicyConflicts>,
    /// Policies that come from files, and whose status nobody reads.
    from_files: Vec<Arc<Policy>>,
    /// The watches that have not told everything yet.
    missing: BTreeSet<&'static str>,
    judged: HashMap<WorkloadRef, Judged>,
    /// Whether every workload that was there at the start has been judged.
    is_counted: bool,
    expired: BTreeSet<Key>,
}

/// A policy or an exception as it was seen last.
struct Page<T> {
    object: Value,
    /// The last version that makes sense.
    in_force: Option<Arc<T>>,
    /// Why the version that was seen last makes none.
    problem: Option<String>,
}

/// What became of one workload.
#[derive(Debug, Default, PartialEq)]
struct Judged {
    policies: BTreeSet<String>,
    refused: BTreeSet<String>,
    warned: BTreeSet<String>,
    /// By exception: how many violations it excuses.
    excused: BTreeMap<String, i64>,
    /// The replicas, where they are more than a policy allows.
    held: Option<HeldReplicas>,
}

impl<T> Page<T> {
    fn is(&self, object: &Value) -> bool {
        let identity =
            |object: &Value| [&object["metadata"]["uid"], &object["metadata"]["generation"]].map(Clone::clone);
        identity(&self.object) == identity(object)
    }

    /// Takes over what still holds of the version before.
    fn of(object: Value, compiled: Result<T, String>, before: Option<Self>) -> Self {
        let before = before.filter(|before| before.object["metadata"]["uid"] == object["metadata"]["uid"]);
        match compiled {
            Ok(compiled) => Self { object, in_force: Some(Arc::new(compiled)), problem: None },
            Err(problem) => {
                Self { object, in_force: before.and_then(|before| before.in_force), problem: Some(problem) }
            }
        }
    }
}

impl PolicyStore {
    /// Opens a store of policies for what these watches will tell; the statuses are to be written by [`write()`].
    pub(super) fn open(
        state: &Arc<SharedState>,
        queue: Queue,
        unlabelled: Arc<UnlabelledWorkloads>,
        leadership: Leadership,
        watches: impl IntoIterator<Item = &'static str>,
    ) -> (Arc<Self>, UnboundedReceiver<Value>) {
        let (statuses, to_write) = unbounded();
        let from_files = state.read(|policies, _| policies.policies().to_vec());
        let pages = Pages { from_files, missing: watches.into_iter().collect(), ..Pages::default() };
        let (state, pages) = (Arc::clone(state), Mutex::new(pages));
        (Arc::new(Self { state, queue, unlabelled, leadership, statuses, pages }), to_write)
    }

    /// Notes a policy, unless it is one that was noted before.
    pub(super) fn put_policy(&self, name: &str, object: Value, compile: impl FnOnce(&Value) -> Result<Policy, String>) {
        if let Some(known) = self.pages().policies.get_mut(name).filter(|known| known.is(&object)) {
            known.object = object;
            return;
        }
        // What takes long is done while nobody waits for the pages, nor for this thread: only this watch puts policies.
        let (compiled, meetings) = in_place(|| {
            let compiled = compile(&object);
            let beside = self.pages().in_force_beside(name);
            let meetings = compiled.as_ref().ok().map(|policy| meetings(name, policy, &beside));
            (compiled, meetings)
        });
        let mut pages = self.pages();
        let before = pages.policies.remove(name);
        let page = Page::of(object, compiled, before);
        match &page.problem {
            None => info!(policy = name, "a policy is in force"),
            Some(problem) => warn!(policy = name, error = problem, "a policy cannot be put in force"),
        }
        // Where the last good version stays in force, so does what there is to say of it.
        if let Some(meetings) = meetings.or_else(|| page.in_force.is_none().then(Vec::new)) {
            pages.meet(name, meetings);
        }
        pages.policies.insert(name.to_owned(), page);
        self.put_in_force(&pages);
        self.tell(&pages);
    }

    /// Notes that a policy has gone.
    pub(super) fn remove_policy(&self, name: &str) {
        let mut pages = self.pages();
        pages.policies.remove(name);
        pages.meet(name, Vec::new());
        self.put_in_force(&pages);
        self.tell(&pages);
    }

    /// Notes an exception, unless it is one that was noted before.
    pub(super) fn put_exception(
        &self,
        key: Key,
        object: Value,
        compile: impl FnOnce(&Value) -> Result<Exception, String>,
    ) {
        if let Some(known) = self.pages().exceptions.get_mut(&key).filter(|known| known.is(&object)) {
            known.object = object;
            return;
        }
        let compiled = compile(&object);
        let mut pages = self.pages();
        let before = pages.exceptions.remove(&key);
        let page = Page::of(object, compiled, before);
        let (namespace, name) = (&key.0, &key.1);
        match &page.problem {
            None => info!(namespace, name, "an exception is known"),
            Some(problem) => warn!(namespace, name, error = problem, "an exception makes no sense"),
        }
        pages.expired.remove(&key);
        pages.exceptions.insert(key, page);
        self.put_in_force(&pages);
        self.tell(&pages);
    }

    /// Notes that an exception has gone.
    pub(super) fn remove_exception(&self, key: &Key) {
        let mut pages = self.pages();
        pages.exceptions.remove(key);
        self.put_in_force(&pages);
    }

    /// Notes that a watch has told everything that was there.
    pub(super) fn synced(&self, watch: &'static str) {
        let mut pages = self.pages();
        pages.missing.remove(watch);
        self.put_in_force(&pages);
        self.tell(&pages);
    }

    /// Notes what became of a workload.
    pub(super) fn judged(&self, workload: &WorkloadRef, decision: &Decision) {
        let mut judged = Judged { policies: decision.policies.iter().cloned().collect(), ..Judged::default() };
        let verdict = &decision.verdict;
        judged.refused.extend(verdict.violations.iter().map(|violation| violation.policy.clone()));
        judged.warned.extend(verdict.warned.iter().map(|violation| violation.policy.clone()));
        judged.held.clone_from(&decision.companions.held);
        for excepted in &verdict.excused {
            *judged.excused.entry(excepted.exception.clone()).or_default() += 1;
        }
        self.pages().judged.insert(workload.clone(), judged);
    }

    /// Notes that a workload has been looked at, even if nothing came of it.
    pub(super) fn looked_at(&self, workload: WorkloadRef) {
        self.pages().judged.entry(workload).or_default();
    }

    /// Forgets a workload.
    pub(super) fn forget(&self, workload: &WorkloadRef) {
        self.pages().judged.remove(workload);
    }

    /// Tells whether everything has been judged that was there at the start.
    pub(super) fn is_complete(&self) -> bool {
        self.pages().is_counted
    }

    /// Looks, for as long as it is polled, at what changes without a watch telling of it.
    pub(super) async fn tick(self: Arc<Self>) {
        loop {
            let is_counted = self.pages().is_counted;
            tokio::time::sleep(if is_counted { TICK } else { FIRST_TICK }).await;
            let mut pages = self.pages();
            pages.is_counted = is_counted || self.is_counted(&pages);
            let expired = pages.expired(Timestamp::now());
            for (namespace, _) in expired.difference(&mem::take(&mut pages.expired)) {
                self.queue.push_namespace(namespace);
                self.unlabelled.decide_again_in(namespace);
            }
            pages.expired = expired;
            self.tell(&pages);
        }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts what makes sense in force, once everything has been told: half of the policies would decide otherwise.
    fn put_in_force(&self, pages: &Pages) {
        if !pages.missing.is_empty() {
            return;
        }
        let of_cluster = pages.policies.values().filter_map(|page| page.in_force.clone());
        let policies = pages.from_files.iter().cloned().chain(of_cluster).collect();
        let exceptions = pages.exceptions.values().filter_map(|page| page.in_force.clone());
        let broken = pages.policies.iter().filter(|(_, page)| page.in_force.is_none()).map(|(name, page)| {
            let written = serde_json::from_value(page.object.clone()).ok();
            InvalidPolicy::new(name, written.as_ref(), page.problem.as_deref().unwrap_or_default())
        });
        let scope = self.state.read(|current, _| current.scope().clone());
        self.state.replace_policies(
            PolicySet::new(scope, policies).with_exceptions(exceptions).with_invalid(broken.collect()),
        );
        self.queue.push_all();
        self.unlabelled.decide_all_again();
    }

    /// Writes every status that is not as it should be.
    pub(super) fn tell_all(&self) {
        self.tell(&self.pages());
    }

    /// Tells whether all workloads have been judged that are known.
    fn is_counted(&self, pages: &Pages) -> bool {
        let is_judged = |workload: &WorkloadRef| pages.judged.contains_key(workload);
        self.state.is_complete()
            && self.unlabelled.are_seen()
            && self.queue.kinds().iter().all(|workloads| workloads.references().all(|known| is_judged(&known)))
    }

    /// Writes every status that is not as it should be. Counts of half of the workloads are none.
    fn tell(&self, pages: &Pages) {
        if !pages.missing.is_empty() || !pages.is_counted || !self.leadership.holds() {
            return;
        }
        let now = Timestamp::now();
        let (counts, used, unlabelled) = (pages.counts(), pages.used(), self.unlabelled.by_policy());
        let told = |(name, page): (&String, &Page<Policy>)| {
            let counts = counts.get(name.as_str()).copied().unwrap_or_default();
            let mut status = pages.of_policy(name, page, counts);
            status["unlabelled"] = unlabelled_status(unlabelled.get(name).map_or(&[][..], Vec::as_slice));
            (page.object.clone(), status)
        };
        let of_policies = pages.policies.iter().map(told);
        let told = |(key, page): (&Key, &Page<Exception>)| {
            let used = used.get(&(key.0.as_str(), key.1.as_str())).copied().unwrap_or_default();
            (page.object.clone(), pages.of_exception(page, used, now))
        };
        let of_exceptions = pages.exceptions.iter().map(told);
        for (object, status) in of_policies.chain(of_exceptions) {
            let status = timed(status, &object["status"], now);
            if !contains(&object["status"], &status) {
                let metadata =
                    json!({"name": object["metadata"]["name"], "namespace": object["metadata"]["namespace"]});
                let written = json!({
                    "apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": metadata, "status": status
                });
                // The receiver is gone only at shutdown.
                let _ = self.statuses.unbounded_send(written);
            }
        }
    }
}

impl Pages {
    /// Notes what there is to say of a policy that has changed, or gone, beside the others.
    fn meet(&mut self, name: &str, meetings: Vec<((String, String), PolicyConflicts)>) {
        self.meetings.retain(|(one, other), _| one != name && other != name);
        self.meetings.extend(meetings);
    }

    /// Returns the other policies that are in force, by name.
    fn in_force_beside(&self, name: &str) -> Vec<(String, Arc<Policy>)> {
        let others = self.policies.iter().filter(|(other, _)| *other != name);
        others.filter_map(|(other, page)| Some((other.clone(), page.in_force.clone()?))).collect()
    }

    /// Returns what there is to say of a policy beside the others.
    fn beside(&self, name: &str) -> impl Iterator<Item = &str> {
        let met = self.meetings.iter().filter(move |((one, other), _)| one == name || other == name);
        met.flat_map(|(_, meeting)| meeting.conflicts.iter().chain(&meeting.contradictions)).map(String::as_str)
    }

    /// Returns the exceptions that count no more by themselves.
    fn expired(&self, now: Timestamp) -> BTreeSet<Key> {
        let is_over = |page: &Page<Exception>| page.in_force.as_ref().is_some_and(|found| found.expires() <= now);
        self.exceptions.iter().filter(|(_, page)| is_over(page)).map(|(key, _)| key.clone()).collect()
    }

    fn of_policy(&self, name: &str, page: &Page<Policy>, [matched, refused, warned]: [i64; 3]) -> Value {
        let ready = match (&page.problem, &page.in_force) {
            (None, _) => condition("Ready", "True", "InForce", "this generation is in force"),
            (Some(problem), None) => {
                condition("Ready", "False", "Invalid", &format!("{problem}; nothing of this policy is in force"))
            }
            (Some(problem), Some(policy)) => {
                let message = format!("{problem}; generation {} stays in force", policy.reference().generation);
                condition("Ready", "False", "Invalid", &message)
            }
        };
        let problems: Vec<&str> = self.beside(name).collect();
        let conflicting = if problems.is_empty() {
            condition("Conflicting", "False", "NoConflict", "no other policy disagrees")
        } else {
            condition("Conflicting", "True", "Conflicts", &problems.join("; "))
        };
        json!({
            "observedGeneration": page.object["metadata"]["generation"],
            "conditions": [ready, conflicting, self.replicas_in_bounds(name)],
            "workloads": {"matched": matched, "refused": refused, "warned": warned}
        })
    }

    /// Tells of the workloads that have more replicas than a policy allows.
    fn replicas_in_bounds(&self, policy: &str) -> Value {
        let held = self.judged.iter().filter_map(|(workload, judged)| Some((workload, judged.held.as_ref()?)));
        let held: BTreeMap<&WorkloadRef, i64> =
            held.filter(|(_, held)| held.policy == policy).map(|(workload, held)| (workload, held.replicas)).collect();
        match report::held(&held) {
            Some(message) => condition("ReplicasInBounds", "False", "MoreRun", &message),
            None => condition("ReplicasInBounds", "True", "InBounds", "no autoscaler is held above maxReplicas"),
        }
    }

    /// Returns how many workloads each policy selects, refuses and warns of.
    fn counts(&self) -> HashMap<&str, [i64; 3]> {
        let mut counts: HashMap<&str, [i64; 3]> = HashMap::new();
        for judged in self.judged.values() {
            for (place, names) in [&judged.policies, &judged.refused, &judged.warned].into_iter().enumerate() {
                for name in names {
                    counts.entry(name).or_default()[place] += 1;
                }
            }
        }
        counts
    }

    /// Returns how many violations each exception excuses, by its namespace and name.
    fn used(&self) -> HashMap<(&str, &str), i64> {
        let mut used: HashMap<(&str, &str), i64> = HashMap::new();
        for (workload, judged) in &self.judged {
            for (exception, count) in &judged.excused {
                *used.entry((&workload.namespace, exception)).or_default() += count;
            }
        }
        used
    }

    fn of_exception(&self, page: &Page<Exception>, used: i64, now: Timestamp) -> Value {
        let active = match (&page.problem, &page.in_force) {
            (Some(problem), _) => condition("Active", "False", "Invalid", problem),
            (None, Some(found)) if found.expires() <= now => {
                condition("Active", "False", "Expired", &format!("it counts no more since {}", found.expires()))
            }
            (None, Some(found)) => match self.unknown_rules(found).as_slice() {
                [] => condition("Active", "True", "Active", &format!("it counts until {}", found.expires())),
                unknown => {
                    let message =
                        format!("it counts until {}; there is no rule {}", found.expires(), unknown.join(", "));
                    condition("Active", "True", "UnknownRules", &message)
                }
            },
            (None, None) => condition("Active", "Unknown", "Unknown", "it has not been looked at yet"),
        };
        json!({"observedGeneration": page.object["metadata"]["generation"], "conditions": [active], "used": used})
    }

    /// Returns the rules that an exception names and that neither Tidegate nor a policy has.
    fn unknown_rules<'e>(&self, exception: &'e Exception) -> Vec<&'e str> {
        let policies = || self.policies.values().filter_map(|page| page.in_force.as_ref()).chain(&self.from_files);
        exception.unknown_rules(&BUILTIN).filter(|id| !policies().any(|policy| policy.has_rule(id))).collect()
    }
}

/// Returns what there is to say of a policy beside each of the others, where there is something.
fn meetings(name: &str, policy: &Policy, others: &[(String, Arc<Policy>)]) -> Vec<((String, String), PolicyConflicts)> {
    let met =
        others.iter().map(|(other, found)| ((name.to_owned(), other.clone()), PolicyConflicts::between(policy, found)));
    met.filter(|(_, meeting)| !meeting.is_empty()).collect()
}

/// Tells of workloads that a policy would be for if they were labelled.
fn unlabelled_status(names: &[String]) -> Value {
    json!({"count": names.len(), "names": &names[..names.len().min(MOST_NAMED)]})
}

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    let message: String = message.chars().take(MAX_MESSAGE).collect();
    json!({"type": type_, "status": status, "reason": reason, "message": message})
}

/// Starts to count, and to write the statuses of policies and exceptions.
pub(super) fn start(store: &Arc<PolicyStore>, writer: Writer, statuses: UnboundedReceiver<Value>, parts: &mut Parts) {
    parts.spawn_writing("statuses", write(writer, statuses));
    parts.spawn("counts", Arc::clone(store).tick());
}

/// Writes statuses, one after the other. One that fails is written with the next tick, where it still differs.
async fn write(writer: Writer, mut statuses: UnboundedReceiver<Value>) {
    while let Some(status) = statuses.next().await {
        match apply_status(&writer, &status).await {
            Ok(()) | Err(ApplyError::NotLeading) => {}
            Err(error) => warn!(error = report::chain(&error), "a status was not written"),
        }
    }
}
