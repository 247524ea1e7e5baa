//! Looks at one workload: what the engine says of it, what is there, what to do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use kube::runtime::controller::Action as Requeue;
use serde_json::{Value, json};
use tracing::{debug, warn};

use super::apply::{ApplyError, apply, apply_status};
use super::observed::Observed;
use super::plan::{Action, Plan, contains, plan};
use super::{Context, status};
use crate::companions::{Wanted, names};
use crate::engine::{Decision, Operation, Request, decide};
use crate::facts::{Facts, WorkloadRef};
use crate::report;
use crate::workload::Workload;

/// How long to wait after a failure before looking again: long enough for a hiccup of the API server to pass.
const RETRY: Duration = Duration::from_secs(5);

/// Since when autoscalers have been wanted that are not there.
#[derive(Default)]
pub(super) struct WantedSince(Mutex<HashMap<WorkloadRef, Instant>>);

impl WantedSince {
    /// Returns how long a workload's autoscaler has been missing; zero when it is missed for the first time.
    fn waited(&self, workload: &WorkloadRef, missing: bool) -> Duration {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if missing {
            return since.entry(workload.clone()).or_insert_with(Instant::now).elapsed();
        }
        since.remove(workload);
        Duration::ZERO
    }
}

/// Looks at a workload and carries out what follows.
pub(super) async fn reconcile(deployment: Arc<DynamicObject>, context: Arc<Context>) -> Result<Requeue, ApplyError> {
    let object = serde_json::to_value(&*deployment)?;
    let Ok(workload) = Workload::view(&object) else {
        warn!("a workload cannot be read and is left alone");
        return Ok(Requeue::await_change());
    };
    let Some(decision) = considered(&workload, &context) else { return Ok(Requeue::await_change()) };
    let reference = workload.reference();
    let observed = context.state.read(|_, facts| around(&reference, &decision, facts, &context));
    let missing = matches!(decision.companions.autoscaler, Wanted::Object(_)) && observed.autoscalers.is_empty();
    let waited = context.wanted_since.waited(&reference, missing);
    let plan = plan(&reference, &decision.companions, &observed, waited, context.settle);
    for action in &plan.actions {
        apply(&context.client, action).await?;
    }
    write_model_server(&workload, &decision, &plan, &observed, &context).await?;
    Ok(Requeue::requeue(plan.again.unwrap_or(context.resync)))
}

/// Says when to look again after a failure.
#[expect(clippy::needless_pass_by_value, reason = "the form that kube's `applier` asks for")]
pub(super) fn retry(deployment: Arc<DynamicObject>, error: &ApplyError, _: Arc<Context>) -> Requeue {
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
    warn!(namespace, name, error = report::chain(error), "a workload was not brought in step; trying again");
    Requeue::requeue(RETRY)
}

/// Decides about a workload as it is; none where it is on its way out or no policy has ever been for it.
fn considered(workload: &Workload, context: &Context) -> Option<Decision> {
    let request =
        Request { operation: Operation::Observe, workload: *workload, old: None, user: "", now: Timestamp::now() };
    let (decision, terminating) = context
        .state
        .read(|policies, facts| (decide(&request, policies, facts), facts.is_terminating(workload.namespace())));
    if workload.is_being_deleted() || terminating {
        debug!("on its way out");
        return None;
    }
    let known = || context.objects.around(&workload.reference(), &[], None).model_server.is_some();
    (!decision.policies.is_empty() || known()).then_some(decision)
}

/// Returns what exists around a workload.
fn around(workload: &WorkloadRef, decision: &Decision, facts: &Facts, context: &Context) -> Observed {
    let ours = names::autoscaler(&workload.name);
    let mut autoscalers: Vec<&str> = facts.autoscalers_of(workload).iter().map(|found| found.name.as_str()).collect();
    if !autoscalers.contains(&ours.as_str()) {
        autoscalers.push(&ours);
    }
    let made_for = format!("{}/{}", workload.kind, workload.name);
    let database = match &decision.companions.database {
        Wanted::Object(object) => object["metadata"]["name"].as_str(),
        _ => facts.databases.iter().find_map(|((namespace, name), found)| {
            (*namespace == workload.namespace && found.made_for.as_ref() == Some(&made_for)).then_some(name.as_str())
        }),
    };
    context.objects.around(workload, &autoscalers, database)
}

/// Writes the ModelServer of a workload where it is not written yet.
async fn write_model_server(
    workload: &Workload<'_>,
    decision: &Decision,
    plan: &Plan,
    observed: &Observed,
    context: &Context,
) -> Result<(), ApplyError> {
    let wanted = status::model_server(workload);
    let found = observed.model_server.as_ref();
    if !found.is_some_and(|found| contains(found, &wanted)) {
        apply(&context.client, &Action::Apply(wanted.clone())).await?;
    }
    let status: Value = serde_json::to_value(status::of_model_server(workload, decision, plan))?;
    if found.is_some_and(|found| found["status"] == status) {
        return Ok(());
    }
    let metadata = json!({"name": workload.name(), "namespace": workload.namespace()});
    let written = json!({
        "apiVersion": wanted["apiVersion"], "kind": wanted["kind"], "metadata": metadata, "status": status
    });
    apply_status(&context.client, &written).await
}
