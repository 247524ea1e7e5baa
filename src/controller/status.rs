//! ModelServers and their statuses.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::apply::status_patch;
use tidegate_engine::api::{Condition, ModelServerStatus, ReplicasStatus};
use tidegate_engine::companions::plan::Plan;
use tidegate_engine::companions::{self, Described, condition_type};
use tidegate_engine::decision::Decision;
use tidegate_engine::workload::Workload;

/// Returns the ModelServer with this name for a workload, without its status.
pub(super) fn model_server(workload: &Workload, name: &str) -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "ModelServer",
        "metadata": {
            "name": name,
            "namespace": workload.namespace(),
            "ownerReferences": [{
                "apiVersion": workload.known_kind().api_version(), "kind": workload.kind(), "name": workload.name(), "uid": workload.uid(),
                "controller": true, "blockOwnerDeletion": true
            }]
        },
        "spec": {"kind": workload.kind(), "name": workload.name()}
    })
}

/// Returns the patch of a ModelServer whose workload is no longer a model server.
pub(super) fn of_former(found: &Value, now: Timestamp) -> Value {
    let message = "the workload is no longer labelled as a model server: its companions are kept but no longer managed";
    let condition = |type_: &str| Condition::new(type_, "Unknown", "Unmanaged", message);
    let own = ["Ready", "Managed", "Conforming"].map(str::to_owned);
    let types = own.into_iter().chain(companions::ALL.map(condition_type));
    let conditions = types.map(|type_| condition(&type_)).collect();
    let status = json!(ModelServerStatus { conforms: Some("Unknown".into()), conditions, ..Default::default() });
    status_patch(found, timed(status, &found["status"], now))
}

/// Returns the status of a model server.
pub(super) fn of_model_server(workload: &Workload, decision: &Decision, plan: &Plan) -> ModelServerStatus {
    let conforming = conforming(decision);
    let described = Described { workload, companions: &decision.companions };
    let companions: Vec<Condition> =
        plan.each().map(|(companion, plan)| companion.condition(&plan.state, &described)).collect();
    let ready = ready(workload, &companions);
    let mut status = ModelServerStatus {
        observed_generation: workload.object()["metadata"]["generation"].as_i64().unwrap_or_default(),
        runtime: Some(decision.runtime.clone().unwrap_or_else(|| "unknown".to_owned())),
        runtime_source: Some(decision.provenance.to_string()),
        policy: (!decision.policies.is_empty()).then(|| decision.policies.join(",")),
        conforms: Some(conforming.status.clone()),
        replicas: Some(replicas(workload)),
        conditions: [ready, managed(workload, decision), conforming].into_iter().chain(companions).collect(),
        ..ModelServerStatus::default()
    };
    for (companion, plan) in plan.each() {
        companion.describe(&plan.state, &mut status);
    }
    status
}

fn replicas(workload: &Workload) -> ReplicasStatus {
    let now = workload.object()["status"]["replicas"].as_i64().unwrap_or_default();
    ReplicasStatus { min: None, max: None, now }
}

/// Sets `lastTransitionTime` in each condition of a status: the previous one if the condition's status is unchanged,
/// else now.
pub(super) fn timed(mut status: Value, before: &Value, now: Timestamp) -> Value {
    let now = Value::from(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let before = before["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    for condition in status.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        let same = before.iter().find(|found| ["type", "status"].iter().all(|field| found[field] == condition[field]));
        let since = same.map(|same| &same["lastTransitionTime"]).filter(|since| since.is_string());
        condition["lastTransitionTime"] = since.unwrap_or(&now).clone();
    }
    status
}

/// Returns whether Tidegate manages the workload: whether it injects fields and creates companions.
fn managed(workload: &Workload, decision: &Decision) -> Condition {
    let of = |status: &str, reason: &str, message: &str| Condition::new("Managed", status, reason, message);
    if let Some(left) = &decision.left_alone {
        return of("False", left.reason, &left.message);
    }
    if decision.is_unmanaged {
        let message = format!(
            "the workload is older than tidegate: nothing is injected or created until its pod template changes; to manage \
             it now, run `tidegate adopt {}/{} --namespace {}`",
            workload.kind().to_lowercase(),
            workload.name(),
            workload.namespace()
        );
        return of("False", "Unmanaged", &message);
    }
    match &decision.receipt {
        Some(receipt) if receipt.entries().next().is_none() => of("True", "Managed", "no fields had to be injected"),
        Some(_) => of("True", "Managed", "the annotation tidegate.dev/receipt lists the injected fields"),
        None => of("False", "NoPolicy", "no policy in `warn` or `enforce` matches the workload"),
    }
}

fn conforming(decision: &Decision) -> Condition {
    if decision.policies.is_empty() {
        return Condition::new("Conforming", "Unknown", "NoPolicy", "no policy matches the workload");
    }
    if let Some(left) = &decision.left_alone {
        return Condition::new("Conforming", "Unknown", left.reason, left.message.clone());
    }
    let verdict = &decision.verdict;
    let findings = verdict.violations.iter().chain(&verdict.recorded);
    let found: Vec<String> =
        findings.map(ToString::to_string).chain(verdict.warnings.iter().map(ToString::to_string)).collect();
    // Violations that are only recorded do not make it non-conforming, unless all policies are in audit.
    let is_only_recorded = verdict.allows() && verdict.warnings.is_empty() && !decision.is_in_audit;
    match found.is_empty() {
        true => Condition::new("Conforming", "True", "Conforms", "the workload conforms to every rule"),
        false if is_only_recorded => Condition::new("Conforming", "True", "Recorded", found.join("; ")),
        false => Condition::new("Conforming", "False", "Violations", found.join("; ")),
    }
}

fn ready(workload: &Workload, companions: &[Condition]) -> Condition {
    let status = &workload.object()["status"];
    if let Some(missing) = companions.iter().find(|condition| condition.status != "True") {
        return Condition::new("Ready", "False", &missing.reason, format!("{}: {}", missing.type_, missing.message));
    }
    if workload.replicas() != Some(0) && status["readyReplicas"].as_i64().unwrap_or_default() == 0 {
        let message = match workload.queue() {
            Some(queue) => format!("no pod is ready: Kueue may hold them in the queue `{queue}` until there is quota"),
            None => "no pod is ready".to_owned(),
        };
        return Condition::new("Ready", "False", "NoReadyReplica", message);
    }
    Condition::new("Ready", "True", "Ready", "pods and companions are ready")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_engine::decision::{Operation, Request, decide};
    use tidegate_engine::testing::{facts, policies, with_container};

    /// The conditions of a stored model server under a policy.
    fn conditions(spec: Value, plan: &Plan) -> Vec<Condition> {
        let object = with_container(&json!({"image": "api:latest"}));
        let workload = Workload::view(&object).unwrap();
        let request = Request::new(Operation::Observe, workload, Timestamp::UNIX_EPOCH);
        let decision = decide(&request, &policies(&[("serving", spec)]), &facts());
        of_model_server(&workload, &decision, plan).conditions
    }

    fn found<'c>(conditions: &'c [Condition], type_: &str) -> &'c Condition {
        conditions.iter().find(|condition| condition.type_ == type_).unwrap()
    }

    #[test]
    fn findings_describe_the_stored_workload() {
        for enforcement in ["enforce", "warn", "audit"] {
            let conditions = conditions(json!({"enforcement": enforcement}), &Plan::default());
            let conforming = found(&conditions, "Conforming");
            assert_eq!(conforming.status, "False", "{enforcement}");
            let expected = "floating-tag: spec.template.spec.containers[0].image: `api:latest`; \
                        expected a tag that is never moved, or a digest";
            assert!(conforming.message.contains(expected), "{}", conforming.message);
            assert!(!conforming.message.contains("update"), "{}", conforming.message);
        }
    }

    #[test]
    fn pods_that_wait_in_a_queue_are_not_called_broken() {
        let mut object = with_container(&json!({}));
        let message = |object: &Value| ready(&Workload::view(object).unwrap(), &[]).message;
        assert_eq!(message(&object), "no pod is ready");
        object["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "serving".into();
        assert!(message(&object).contains("in the queue `serving`"), "{}", message(&object));
    }

    #[test]
    fn keeps_the_transition_time_of_unchanged_conditions() {
        let is = |type_: &str, status: &str| json!({"type": type_, "status": status});
        let since = |type_: &str, status: &str, time: &str| json!({"type": type_, "status": status, "lastTransitionTime": time});
        let (early, now) = ("1969-07-20T20:17:40Z", "1970-01-01T00:00:00Z");
        let before =
            json!({"conditions": [since("Same", "True", early), since("Other", "True", early), is("Untimed", "True")]});
        let status =
            json!({"conditions": [is("Same", "True"), is("Other", "False"), is("New", "True"), is("Untimed", "True")]});
        let expected = [
            since("Same", "True", early),
            since("Other", "False", now),
            since("New", "True", now),
            since("Untimed", "True", now),
        ];
        assert_eq!(timed(status.clone(), &before, Timestamp::UNIX_EPOCH), json!({"conditions": expected}));
        assert_eq!(timed(json!({}), &before, Timestamp::UNIX_EPOCH), json!({}));
        assert_eq!(timed(status, &Value::Null, Timestamp::UNIX_EPOCH)["conditions"][0], since("Same", "True", now));
    }

    #[test]
    fn an_older_workload_gets_the_command_to_adopt_it() {
        let conditions = conditions(json!({"enforcement": "warn"}), &Plan::default());
        let managed = found(&conditions, "Managed");
        assert_eq!((&*managed.status, &*managed.reason), ("False", "Unmanaged"));
        assert!(managed.message.ends_with("`tidegate adopt deployment/api --namespace ml`"), "{}", managed.message);
    }
}
