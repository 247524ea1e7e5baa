//! The condition of the autoscaler of a workload.

use serde_json::Value;

use super::{Autoscaling, HeldReplicas};
use crate::api::Condition;
use crate::companions::companion::Described;
use crate::companions::condition;
use crate::companions::plan::CompanionState;
use crate::facts::SCALED_OBJECT;

/// Returns the condition of an autoscaler.
pub(super) fn ready(state: &CompanionState, described: &Described) -> Condition {
    let of_found = |found: &Value| if found["kind"] == SCALED_OBJECT { scaled(found) } else { scaling_active(found) };
    held(condition::ready(&Autoscaling, state, of_found), state, described.companions.held.as_ref())
}

/// Extends the condition if the autoscaler keeps more replicas than the policy allows.
fn held(ready: Condition, state: &CompanionState, held: Option<&HeldReplicas>) -> Condition {
    let (CompanionState::Ours(_), Some(HeldReplicas { replicas, kept, most, policy })) = (state, held) else {
        return ready;
    };
    let message = format!(
        "there are {replicas} replicas, more than maxReplicas {most} of policy {policy}: Tidegate stops none of them; \
         the autoscaler's maxReplicas is {kept} and decreases with them; {}",
        ready.message
    );
    let reason = if ready.status == "True" { "MaxReplicasHeld".to_owned() } else { ready.reason.clone() };
    Condition { reason, message, ..ready }
}

/// Returns the condition that Kubernetes reports for a HorizontalPodAutoscaler.
fn scaling_active(hpa: &Value) -> Condition {
    let conditions = hpa["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let active = conditions.iter().find(|condition| condition["type"] == "ScalingActive");
    let text = |field: &str| active.and_then(|active| active[field].as_str()).unwrap_or_default().to_owned();
    match active {
        Some(active) if active["status"] == "True" => {
            Condition::new("AutoscalerReady", "True", "ScalingActive", "its metrics are available")
        }
        Some(_) => Condition::new("AutoscalerReady", "False", &text("reason"), text("message")),
        None => Condition::new("AutoscalerReady", "False", "Pending", "it has not been reconciled yet"),
    }
}

/// Returns the condition that KEDA reports for a ScaledObject.
fn scaled(object: &Value) -> Condition {
    let conditions = object["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let found = |type_: &str| conditions.iter().find(|condition| condition["type"] == type_);
    let is = |type_: &str| found(type_).is_some_and(|condition| condition["status"] == "True");
    let of = |status: &str, reason: &str, message: &str| Condition::new("AutoscalerReady", status, reason, message);
    match found("Ready") {
        _ if is("Paused") => of("True", "Paused", "an annotation on the ScaledObject pauses KEDA"),
        Some(_) if is("Fallback") => {
            of("False", "Fallback", "KEDA gets no answer from Prometheus and uses its fallback")
        }
        Some(ready) if ready["status"] == "True" => of("True", "ScalingActive", "KEDA is scaling it"),
        Some(ready) => {
            let text = |field: &str| ready[field].as_str().unwrap_or_default();
            of("False", if text("reason").is_empty() { "NotReady" } else { text("reason") }, text("message"))
        }
        None => of("False", "Pending", "KEDA has not reconciled it yet; check that KEDA is running"),
    }
}
