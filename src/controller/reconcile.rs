//! Looks at one workload: what the engine says of it, what is there, what to do.

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

use super::apply::{ApplyError, Writer, apply, apply_status, read};
use super::compressed::CompressedObject;
use super::{Context, databases, events, orphans, status};
use crate::report;
use crate::shared_state::SharedState;
use tidegate_engine::companions::plan::{Action, CompanionPlan, CompanionState, Observed, Plan, is_missing, plan};
use tidegate_engine::companions::{Precedence, contains};
use tidegate_engine::decision::{Decision, Operation, Request, User, decide};
use tidegate_engine::facts::Facts;
use tidegate_engine::workload::{Workload, WorkloadRef};

/// How long to wait after a failure before looking again: long enough for a hiccup of the API server to pass.
const RETRY: Duration = Duration::from_secs(5);

/// How long to wait before looking again at what depends on others that nobody has looked at yet.
const RETRY_EARLY: Duration = Duration::from_millis(500);

/// How long to wait after a refusal, which lasts until a person does something about it.
const RETRY_REFUSED: Duration = Duration::from_mins(1);

/// Since when autoscalers have been wanted that are not there.
#[derive(Default)]
pub(super) struct WantedSince(Mutex<HashMap<WorkloadRef, Missing>>);

/// The workload, by its UID, whose autoscaler is missing, and since when.
struct Missing {
    uid: String,
    since: Instant,
}

impl WantedSince {
    /// Returns how long a workload's autoscaler has been missing; zero when it is missed for the first time. A workload
    /// that was made anew under the same name is another one.
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

    /// Forgets a workload that has gone.
    pub(super) fn forget(&self, workload: &WorkloadRef) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(workload);
    }
}

/// Looks at a workload; a fault in doing so stays with that workload.
pub(super) async fn guarded(kept: Arc<CompressedObject>, context: Arc<Context>) -> Result<Requeue, ApplyError> {
    let object = Arc::new(kept.to_json());
    let looked = AssertUnwindSafe(reconcile(&object, &context)).catch_unwind().await;
    let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
    let (kind, metadata) = (text(&object["kind"]), &object["metadata"]);
    context.policy_store.looked_at(WorkloadRef {
        namespace: text(&metadata["namespace"]),
        kind,
        name: text(&metadata["name"]),
    });
    looked.unwrap_or(Err(ApplyError::Panicked))
}

/// Looks at a workload and carries out what follows.
async fn reconcile(object: &Arc<Value>, context: &Context) -> Result<Requeue, ApplyError> {
    let Ok(workload) = Workload::view(object) else {
        warn!("a workload cannot be read and is left alone");
        return Ok(Requeue::await_change());
    };
    let Some(mut planned) = planned(object, &workload, context).await else { return Ok(Requeue::await_change()) };
    if !context.writer.leads() {
        // Whoever becomes the leader looks at everything.
        return Ok(Requeue::await_change());
    }
    let mut turn = None;
    if planned.makes_database()
        && planned.decision.companions.precedence == Precedence::Later
        && !context.policy_store.is_complete()
    {
        // A workload that has not been looked at yet may be led to a database, and comes before this one then.
        return Ok(Requeue::requeue(RETRY_EARLY));
    }
    if planned.makes_database() {
        turn = Some(context.databases.lock().await);
        // Others may have made theirs while this one waited for its turn.
        let again = self::planned(object, &workload, context).await;
        let Some(again) = again else { return Ok(Requeue::await_change()) };
        planned = again;
    }
    let Planned { decision, observed, mut plan } = planned;
    // What fails for one companion is no reason to leave out the others, nor to say nothing of it.
    let mut results = Vec::new();
    // What others wait for comes first.
    let (first, others): (Vec<_>, Vec<_>) = plan.companions.iter_mut().partition(|companion| companion.creates());
    for companion in first {
        let made = carry_out(companion, &context.writer).await;
        if made.is_ok() {
            note_made(companion, context);
        }
        results.push(made);
    }
    drop(turn);
    for companion in others {
        results.push(carry_out(companion, &context.writer).await);
    }
    let kept = orphans::of_workload(&workload, &decision.companions, context).await;
    let written = write_model_server(&workload, &decision, &plan, &observed, context).await;
    let is_written = written.is_ok();
    results.extend([kept, written]);
    let mut told = events::done(&plan, &observed);
    if is_written {
        let before = observed.model_server.as_ref().map_or(&Value::Null, |found| &found["status"]);
        told.extend(events::changed(before, &plan));
    }
    context.events.tell(&workload, told).await;
    results.into_iter().collect::<Result<(), ApplyError>>()?;
    Ok(Requeue::requeue(plan.again.unwrap_or(context.resync)))
}

/// What follows from one look at a workload.
struct Planned {
    decision: Decision,
    observed: Observed,
    plan: Plan,
}

impl Planned {
    fn makes_database(&self) -> bool {
        self.plan.companions.iter().any(CompanionPlan::creates)
    }
}

/// Looks at a workload; none where nothing is to be done about it.
async fn planned(object: &Arc<Value>, workload: &Workload<'_>, context: &Context) -> Option<Planned> {
    let decision = evaluation(object, workload, context).await?;
    let reference = workload.reference();
    context.policy_store.judged(&reference, &decision);
    if let Some(reports) = &context.reports {
        reports.judged(workload, &decision);
    }
    orphans::note_precedence(&reference, decision.companions.precedence, context);
    let observed = context.state.read(|_, facts| around(workload, &decision, facts, context));
    let missing = is_missing(&decision.companions, &observed);
    let waited = context.wanted_since.waited(workload, missing);
    let plan = plan(&reference, &decision.companions, &observed, waited, context.settle);
    Some(Planned { decision, observed, plan })
}

/// Notes a database that was just made, before the watch tells of it: the next one is to know of it.
fn note_made(companion: &CompanionPlan, context: &Context) {
    for action in &companion.actions {
        let Action::Create(object) = action else { continue };
        if let Some((api, key)) = databases::identity(object) {
            databases::note(api, &key, object, &context.state, &context.objects);
        }
    }
}

/// Carries out what is to be done about one companion, and notes where the API server does not take it.
async fn carry_out(companion: &mut CompanionPlan, writer: &Writer) -> Result<(), ApplyError> {
    for action in &companion.actions {
        if let Err(error) = apply(writer, action).await {
            companion.state = CompanionState::Refused(report::chain(&error));
            return Err(error);
        }
    }
    Ok(())
}

/// Sees to what is left of a workload that is followed no longer: it was deleted, or is no model server any more.
pub(super) async fn gone(workload: &ObjectRef<DynamicObject>, context: &Context) {
    let namespace = workload.namespace.clone().unwrap_or_default();
    let reference = WorkloadRef { namespace, kind: workload.dyntype.kind.clone(), name: workload.name.clone() };
    context.wanted_since.forget(&reference);
    context.policy_store.forget(&reference);
    if let Some(reports) = &context.reports {
        reports.forget(&reference);
    }
    orphans::note_precedence(&reference, Precedence::Irrelevant, context);
    orphans::of_former(&reference, context).await;
    let Some(found) = context.objects.model_server(&reference) else { return };
    // One whose owner was taken off tells of a workload that has gone.
    let owner = &found["metadata"]["ownerReferences"][0];
    if owner["kind"] != reference.kind || owner["name"] != reference.name {
        return;
    }
    let status = status::of_former(&found, Timestamp::now());
    if context.writer.leads() && is_there(&found, &context.writer).await && !contains(&found, &status) {
        let written = apply_status(&context.writer, &status).await;
        written.unwrap_or_else(|error| warn!(error = report::chain(&error), "a ModelServer was not written"));
    }
}

/// Tells whether the workload that owns a ModelServer is still there. The API server is asked, for it is followed no
/// longer.
async fn is_there(model_server: &Value, writer: &Writer) -> bool {
    let owner = &model_server["metadata"]["ownerReferences"][0];
    let metadata = json!({"name": owner["name"], "namespace": model_server["metadata"]["namespace"]});
    let named = json!({"apiVersion": owner["apiVersion"], "kind": owner["kind"], "metadata": metadata});
    let found = read(writer, &named).await;
    found.is_some_and(|found| {
        found.metadata.uid.as_deref() == owner["uid"].as_str() && found.metadata.deletion_timestamp.is_none()
    })
}

/// Says when to look again after a failure.
#[expect(clippy::needless_pass_by_value, reason = "the form that kube's `applier` asks for")]
pub(super) fn retry(kept: Arc<CompressedObject>, error: &ApplyError, _: Arc<Context>) -> Requeue {
    let name = kept.meta().name.as_deref().unwrap_or_default();
    let namespace = kept.meta().namespace.as_deref().unwrap_or_default();
    if matches!(error, ApplyError::NotLeading) {
        debug!(namespace, name, "this replica leads no longer");
        return Requeue::await_change();
    }
    warn!(namespace, name, error = report::chain(error), "a workload was not brought in step; trying again");
    Requeue::requeue(if error.is_lasting() { RETRY_REFUSED } else { RETRY })
}

/// Decides about a workload as it is; none where it is on its way out or no policy has ever been for it.
async fn evaluation(object: &Arc<Value>, workload: &Workload<'_>, context: &Context) -> Option<Decision> {
    let (policies, facts) = context.state.snapshot();
    if workload.is_being_deleted() || facts.is_terminating(workload.namespace()) {
        debug!("on its way out");
        return None;
    }
    // Like the webhooks: custom rules may take long.
    let effective = policies.resolve(workload, &facts);
    let decision = if effective.is_some_and(|effective| effective.has_custom_rules()) {
        let (object, state) = (Arc::clone(object), Arc::clone(&context.state));
        context.lane.run(move || Workload::view(&object).ok().map(|workload| decided(workload, &state))).await?
    } else {
        decided(*workload, &context.state)
    };
    let known = || context.objects.has_model_server(&workload.reference());
    (!decision.policies.is_empty() || known()).then_some(decision)
}

fn decided(workload: Workload, state: &SharedState) -> Decision {
    let (operation, now) = (Operation::Observe, Timestamp::now());
    let request = Request { operation, workload, old: None, user: User::default(), now };
    state.read(|policies, facts| decide(&request, policies, facts))
}

/// Returns what exists around a workload.
fn around(workload: &Workload, decision: &Decision, facts: &Facts, context: &Context) -> Observed {
    let reference = workload.reference();
    let observed = context.objects.around(&reference, &decision.companions.around(workload, facts));
    Observed { is_scaled_by_keda: facts.derived_autoscalers.contains_key(&reference), ..observed }
}

/// Writes the ModelServer of a workload where it is not written yet.
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
    let metadata = json!({"name": wanted["metadata"]["name"], "namespace": workload.namespace()});
    let written = json!({
        "apiVersion": wanted["apiVersion"], "kind": wanted["kind"], "metadata": metadata, "status": status
    });
    apply_status(&context.writer, &written).await
}
