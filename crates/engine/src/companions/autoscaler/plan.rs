//! Plans the actions for the autoscaler of a workload.

use serde_json::Value;

use super::Autoscaling;
use crate::companions::plan::{
    CompanionPlan, CompanionState, Observed, deletions, has_name_of, is_managed, kept, text,
};
use crate::companions::{Wanted, names};
use crate::facts::{Autoscaler, SCALED_OBJECT};
use crate::workload::WorkloadRef;

/// Plans the actions for the autoscaler of a workload.
pub(super) fn plan(workload: &WorkloadRef, wanted: &Wanted, observed: &Observed, is_settled: bool) -> CompanionPlan {
    let (managed, others): (Vec<&Value>, Vec<&Value>) = observed.of(&Autoscaling).iter().partition(|found| {
        is_managed(found, workload) && names::is_autoscaler_of(found, &workload.kind, &workload.name)
    });
    if let Some(user_managed) = others.iter().find(|found| Autoscaler::target(found).as_ref() == Some(workload)) {
        // Two autoscalers for one workload disable each other.
        return CompanionPlan { actions: deletions(managed), state: CompanionState::Theirs((*user_managed).clone()) };
    }
    if *wanted == Wanted::Declined {
        return CompanionPlan { actions: deletions(managed), state: CompanionState::Declined };
    }
    if let Wanted::Harmful { reason, message } = wanted {
        return CompanionPlan { actions: deletions(managed), state: CompanionState::Harmful(reason, message.clone()) };
    }
    if let Some(handed_over) = handed_over(wanted, &managed, observed) {
        return handed_over;
    }
    match (wanted, managed.first()) {
        (Wanted::Object(object), _) if others.iter().any(|other| has_name_of(other, object)) => {
            let message = "an autoscaler with that name exists and is not managed by Tidegate".to_owned();
            CompanionState::Impossible("NameTaken", message).into()
        }
        (Wanted::Object(_), None) if !is_settled => {
            CompanionState::Pending("it will be created unless the user creates one first".to_owned()).into()
        }
        (Wanted::Object(object), found) => kept(object, found.copied()),
        (Wanted::Impossible { reason, message }, None) => CompanionState::Impossible(reason, message.clone()).into(),
        (Wanted::Impossible { reason, message }, Some(found)) => {
            CompanionState::Left((*found).clone(), reason, message.clone()).into()
        }
        (_, Some(found)) => CompanionState::Unmanaged((*found).clone()).into(),
        (_, None) => CompanionPlan::default(),
    }
}

/// Hands a workload over from one engine to the other: the old autoscaler, and KEDA's own for it, are deleted before
/// the new one is created. Returns `None` if there is nothing to hand over.
fn handed_over(wanted: &Wanted, managed: &[&Value], observed: &Observed) -> Option<CompanionPlan> {
    let Wanted::Object(object) = wanted else { return None };
    let stale: Vec<&Value> = managed.iter().copied().filter(|found| found["kind"] != object["kind"]).collect();
    if let Some(first) = stale.first() {
        let (kind, name) = (text(&first["kind"]), text(&first["metadata"]["name"]));
        let message = format!("waiting for the deletion of {kind} {name}, which the other engine created");
        return Some(CompanionPlan { actions: deletions(stale), state: CompanionState::Pending(message) });
    }
    // With a ScaledObject of Tidegate, it is KEDA's autoscaler for that.
    let is_derived = observed.is_scaled_by_keda && managed.iter().all(|found| found["kind"] != SCALED_OBJECT);
    let message = "waiting for the deletion of the HorizontalPodAutoscaler that KEDA created";
    is_derived.then(|| CompanionState::Pending(message.to_owned()).into())
}
