//! What to do about the autoscaler of a workload.

use serde_json::Value;

use super::Autoscaling;
use crate::companions::plan::{CompanionPlan, CompanionState, Observed, deletions, has_name_of, is_ours, kept, text};
use crate::companions::{Wanted, names};
use crate::facts::{Autoscaler, SCALED_OBJECT};
use crate::workload::WorkloadRef;

/// Plans what to do about the autoscaler of a workload.
pub(super) fn plan(workload: &WorkloadRef, wanted: &Wanted, observed: &Observed, is_settled: bool) -> CompanionPlan {
    let (ours, others): (Vec<&Value>, Vec<&Value>) = observed
        .of(&Autoscaling)
        .iter()
        .partition(|found| is_ours(found, workload) && names::is_autoscaler_of(found, &workload.kind, &workload.name));
    if let Some(theirs) = others.iter().find(|found| Autoscaler::target(found).as_ref() == Some(workload)) {
        // Two autoscalers on one workload switch each other off.
        return CompanionPlan { actions: deletions(ours), state: CompanionState::Theirs((*theirs).clone()) };
    }
    if *wanted == Wanted::Declined {
        return CompanionPlan { actions: deletions(ours), state: CompanionState::Declined };
    }
    if let Some(handed_over) = handed_over(wanted, &ours, observed) {
        return handed_over;
    }
    match (wanted, ours.first()) {
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

/// Hands a workload over from one engine to the other: what one has made goes, with all that KEDA made for it, before the
/// other makes anything. None where there is nothing to hand over.
fn handed_over(wanted: &Wanted, ours: &[&Value], observed: &Observed) -> Option<CompanionPlan> {
    let Wanted::Object(object) = wanted else { return None };
    let stale: Vec<&Value> = ours.iter().copied().filter(|found| found["kind"] != object["kind"]).collect();
    if let Some(first) = stale.first() {
        let (kind, name) = (text(&first["kind"]), text(&first["metadata"]["name"]));
        let message = format!("waiting for the deletion of {kind} {name}, which the other engine created");
        return Some(CompanionPlan { actions: deletions(stale), state: CompanionState::Pending(message) });
    }
    // With a ScaledObject of ours it is what KEDA made for that.
    let is_derived = observed.is_scaled_by_keda && ours.iter().all(|found| found["kind"] != SCALED_OBJECT);
    let message = "waiting for the deletion of the HorizontalPodAutoscaler that KEDA created";
    is_derived.then(|| CompanionState::Pending(message.to_owned()).into())
}
