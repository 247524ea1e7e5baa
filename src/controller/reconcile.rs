//! Reconciles one workload: evaluates it, compares existing objects with the plan, and applies the difference.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::Resource as _;
use kube::api::DynamicObject;
use kube::runtime::controller::Action as Requeue;
use kube::runtime::reflector::ObjectRef;
use serde_json::{Value, json};
use tracing::{debug, warn};

use super::apply::{ApplyError, Writer, apply, apply_status, read, status_patch};
use super::compressed::CompressedObject;
use super::{Context, databases, events, orphans, shared_replicas, status};
use crate::report;
use crate::shared_state::SharedState;
use tidegate_engine::companions::plan::{Action, CompanionPlan, CompanionState, Observed, Plan, is_missing, plan};
use tidegate_engine::companions::{Precedence, contains};
use tidegate_engine::decision::{Decision, Operation, Request, decide};
use tidegate_engine::facts::Facts;
use tidegate_engine::workload::{Workload, WorkloadRef};

/// How long to wait after a failure: long enough for a short outage of the API server to pass.
const RETRY: Duration = Duration::from_secs(5);

/// How long to wait if the result depends on workloads that have not been reconciled yet.
const RETRY_EARLY: Duration = Duration::from_millis(500);

/// How long to wait after a refusal, which usually needs a change by a user.
const RETRY_REFUSED: Duration = Duration::from_mins(1);

/// Since when requested autoscalers have been missing.
#[derive(Default)]
pub(super) struct WantedSince(Mutex<HashMap<WorkloadRef, Missing>>);

/// The workload, by its UID, whose autoscaler is missing, and since when.
struct Missing {
    uid: String,
    since: Instant,
}

impl WantedSince {
    /// Returns how long a workload's autoscaler has been missing; zero the first time. A recreated workload with the
    /// same name counts as another one.
    fn waited(&self, workload: &Workload, is_missing: bool) -> Duration {
        let mut missing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (reference, uid) = (workload.reference(), workload.uid());
        if !is_missing {
            missing.remove(&reference);
            return Duration::ZERO;
        }
        let new = || Missing { uid: uid.to_owned(), since: Instant::now() };
        let found = missing.entry(reference).or_insert_with(new);
        if found.uid != uid {
            *found = new();
        }
        found.since.elapsed()
    }

    /// Forgets a deleted workload.
    pub(super) fn forget(&self, workload: &WorkloadRef) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(workload);
    }
}

/// Reconciles a workload; a panic affects only that workload.
pub(super) async fn guarded(stored: Arc<CompressedObject>, context: Arc<Context>) -> Result<Requeue, ApplyError> {
    let object = Arc::new(stored.to_json());
    let result = AssertUnwindSafe(reconcile(&object, stored.is_owned_by_scaling, &context)).catch_unwind().await;
    let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
    let (kind, metadata) = (text(&object["kind"]), &object["metadata"]);
    context.policy_store.reconciled(WorkloadRef {
        namespace: text(&metadata["namespace"]),
        kind,
        name: text(&metadata["name"]),
    });
    result.unwrap_or(Err(ApplyError::Panicked))
}

/// Reconciles a workload.
async fn reconcile(object: &Arc<Value>, is_owned_by_scaling: bool, context: &Context) -> Result<Requeue, ApplyError> {
    let Ok(workload) = Workload::view(object) else {
        warn!("skipping an invalid workload");
        return Ok(Requeue::await_change());
    };
    let Some(mut planned) = planned(object, &workload, context).await else { return Ok(Requeue::await_change()) };
    if !context.writer.leads() {
        // A new leader reconciles everything.
        return Ok(Requeue::await_change());
    }
    let mut lock = None;
    if planned.creates_database()
        && planned.decision.companions.precedence == Precedence::Later
        && !context.policy_store.is_complete()
    {
        // A workload that has not been reconciled yet may be bound to a database, which is created before this one.
        return Ok(Requeue::requeue(RETRY_EARLY));
    }
    if planned.creates_database() {
        lock = Some(context.databases.lock().await);
        // Other databases may have been created while this one waited.
        let again = self::planned(object, &workload, context).await;
        let Some(again) = again else { return Ok(Requeue::await_change()) };
        planned = again;
    }
    let Planned { decision, observed, mut plan } = planned;
    // If one companion fails, the others are applied all the same, and the status is written.
    let mut results = Vec::new();
    // Databases come first, while the lock is held.
    let (first, others): (Vec<_>, Vec<_>) = plan.companions.iter_mut().partition(|companion| companion.creates());
    for companion in first {
        let created = carry_out(companion, &context.writer).await;
        if created.is_ok() {
            store_created(companion, context);
        }
        results.push(created);
    }
    drop(lock);
    for companion in others {
        results.push(carry_out(companion, &context.writer).await);
    }
    if decision.shares_replicas && is_owned_by_scaling {
        results.push(shared_replicas::share(object, &context.writer).await);
    }
    let marked = orphans::of_workload(&workload, &decision.companions, context).await;
    let written = write_model_server(&workload, &decision, &plan, &observed, context).await;
    let is_written = written.is_ok();
    results.extend([marked, written]);
    let mut events = events::of_actions(&plan, &observed);
    if is_written {
        let before = observed.model_server.as_ref().map_or(&Value::Null, |found| &found["status"]);
        events.extend(events::of_changes(before, &plan));
    }
    context.events.publish(&workload, events).await;
    results.into_iter().collect::<Result<(), ApplyError>>()?;
    Ok(Requeue::requeue(plan.again.unwrap_or(context.resync)))
}

/// The plan for a workload, and its inputs.
struct Planned {
    decision: Decision,
    observed: Observed,
    plan: Plan,
}

impl Planned {
    fn creates_database(&self) -> bool {
        self.plan.companions.iter().any(CompanionPlan::creates)
    }
}

/// Evaluates a workload and plans its companions; none if there is nothing to do.
async fn planned(object: &Arc<Value>, workload: &Workload<'_>, context: &Context) -> Option<Planned> {
    let decision = evaluation(object, workload, context).await?;
    let reference = workload.reference();
    context.policy_store.record(&reference, &decision);
    if let Some(reports) = &context.reports {
        reports.record(workload, &decision);
    }
    orphans::update_precedence(&reference, decision.companions.precedence, context);
    let observed = context.state.read(|_, facts| around(workload, &decision, facts, context));
    let missing = is_missing(&decision.companions, &observed);
    let waited = context.wanted_since.waited(workload, missing);
    let plan = plan(&reference, &decision.companions, &observed, waited, context.settle);
    Some(Planned { decision, observed, plan })
}

/// Stores a created database before the watch sees it, so that the next plan knows of it.
fn store_created(companion: &CompanionPlan, context: &Context) {
    for action in &companion.actions {
        let Action::Create(object) = action else { continue };
        if let Some((api, key)) = databases::identity(object) {
            databases::note(api, &key, object, &context.state, &context.objects);
        }
    }
}

/// Carries out the actions for one companion; if one is refused, sets its state.
async fn carry_out(companion: &mut CompanionPlan, writer: &Writer) -> Result<(), ApplyError> {
    for action in &companion.actions {
        if let Err(error) = apply(writer, action).await {
            companion.state = CompanionState::Refused(report::chain(&error));
            return Err(error);
        }
    }
    Ok(())
}

/// Cleans up after a workload that is no longer watched: it was deleted, or is no longer a model server.
pub(super) async fn removed(workload: &ObjectRef<DynamicObject>, context: &Context) {
    let namespace = workload.namespace.clone().unwrap_or_default();
    let reference = WorkloadRef { namespace, kind: workload.dyntype.kind.clone(), name: workload.name.clone() };
    context.wanted_since.forget(&reference);
    context.policy_store.forget(&reference);
    if let Some(reports) = &context.reports {
        reports.forget(&reference);
    }
    orphans::update_precedence(&reference, Precedence::Irrelevant, context);
    orphans::of_former(&reference, context).await;
    let Some(found) = context.objects.model_server(&reference) else { return };
    // If its owner reference was removed, the workload is gone.
    let owner = &found["metadata"]["ownerReferences"][0];
    if owner["kind"] != reference.kind || owner["name"] != reference.name {
        return;
    }
    let status = status::of_former(&found, Timestamp::now());
    if context.writer.leads() && owner_exists(&found, &context.writer).await && !contains(&found, &status) {
        let written = apply_status(&context.writer, &status).await;
        written.unwrap_or_else(|error| warn!(error = report::chain(&error), "cannot write a ModelServer"));
    }
}

/// Returns whether the workload that owns a ModelServer still exists. Asks the API server, because it is no longer
/// watched.
async fn owner_exists(model_server: &Value, writer: &Writer) -> bool {
    let owner = &model_server["metadata"]["ownerReferences"][0];
    let metadata = json!({"name": owner["name"], "namespace": model_server["metadata"]["namespace"]});
    let named = json!({"apiVersion": owner["apiVersion"], "kind": owner["kind"], "metadata": metadata});
    let found = read(writer, &named).await;
    found.is_some_and(|found| {
        found.metadata.uid.as_deref() == owner["uid"].as_str() && found.metadata.deletion_timestamp.is_none()
    })
}

/// Returns when to retry after a failure.
#[expect(clippy::needless_pass_by_value, reason = "the form that kube's `applier` asks for")]
pub(super) fn retry(stored: Arc<CompressedObject>, error: &ApplyError, _: Arc<Context>) -> Requeue {
    let name = stored.meta().name.as_deref().unwrap_or_default();
    let namespace = stored.meta().namespace.as_deref().unwrap_or_default();
    if matches!(error, ApplyError::NotLeading) {
        debug!(namespace, name, "this replica no longer leads");
        return Requeue::await_change();
    }
    warn!(namespace, name, error = report::chain(error), "cannot reconcile a workload; trying again");
    Requeue::requeue(if error.is_lasting() { RETRY_REFUSED } else { RETRY })
}

/// Evaluates a stored workload; none if it is being deleted or no policy has ever matched it.
async fn evaluation(object: &Arc<Value>, workload: &Workload<'_>, context: &Context) -> Option<Decision> {
    let (policies, facts) = context.state.snapshot();
    if workload.is_being_deleted() || facts.is_terminating(workload.namespace()) {
        debug!("skipping a workload that is being deleted");
        return None;
    }
    // As in the webhooks, custom rules may take long.
    let effective = policies.resolve(workload, &facts);
    let decision = if effective.is_some_and(|effective| effective.has_custom_rules()) {
        let (object, state) = (Arc::clone(object), Arc::clone(&context.state));
        context.workers.run(move || Workload::view(&object).ok().map(|workload| observe(workload, &state))).await?
    } else {
        observe(*workload, &context.state)
    };
    let is_known = || context.objects.has_model_server(&workload.reference());
    (!decision.policies.is_empty() || is_known()).then_some(decision)
}

fn observe(workload: Workload, state: &SharedState) -> Decision {
    let request = Request::new(Operation::Observe, workload, Timestamp::now());
    state.read(|policies, facts| decide(&request, policies, facts))
}

/// Returns the existing objects for a workload.
fn around(workload: &Workload, decision: &Decision, facts: &Facts, context: &Context) -> Observed {
    let reference = workload.reference();
    let observed = context.objects.around(&reference, &decision.companions.around(workload, facts));
    Observed { is_scaled_by_keda: facts.derived_autoscalers.contains_key(&reference), ..observed }
}

/// Writes the ModelServer of a workload if it has changed.
async fn write_model_server(
    workload: &Workload<'_>,
    decision: &Decision,
    plan: &Plan,
    observed: &Observed,
    context: &Context,
) -> Result<(), ApplyError> {
    let wanted = status::model_server(workload, &observed.model_server_name);
    let found = observed.model_server.as_ref();
    if !found.is_some_and(|found| contains(found, &wanted)) {
        apply(&context.writer, &Action::Apply(wanted.clone())).await?;
    }
    let status: Value = serde_json::to_value(status::of_model_server(workload, decision, plan))?;
    let before = found.map_or(&Value::Null, |found| &found["status"]);
    let status = status::timed(status, before, Timestamp::now());
    if *before == status {
        return Ok(());
    }
    apply_status(&context.writer, &status_patch(&wanted, status)).await
}
