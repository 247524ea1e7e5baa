//! The progress deadline: a rollout must not fail while a model loads.
//!
//! <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#progress-deadline-seconds>

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation};
use serde_json::Value;

use super::subject::Subject;
use crate::policy::Effective;
use crate::runtimes::Recognition;
use crate::workload::{PROGRESS_DEADLINE, Workload, items};

/// Seconds that a rollout takes in addition to the start of its containers: scheduling, pulling images.
const ROLLOUT_OVERHEAD: i64 = 60;

/// Returns the change of the progress deadline of a workload.
pub(super) fn set(seconds: i64) -> PatchOperation {
    let path = PointerBuf::from_tokens(["spec", "progressDeadlineSeconds"]);
    PatchOperation::Add(AddOperation { path, value: seconds.into() })
}

/// Returns the deadline that a workload with this template needs, if it has a shorter one that the user did not set.
///
/// A change restarts no pods, so the receipt does not hold it: a deadline that equals what the old template needed was
/// set by Tidegate.
pub(super) fn deadline(
    asked: &Subject,
    old: Option<&Workload>,
    template: &Value,
    effective: &Effective,
) -> Option<i64> {
    let workload = &asked.workload;
    effective
        .pod()
        .filter(|(settings, _)| settings.progress_deadline && workload.known_kind().has_progress_deadline)?;
    let needed = needed(&workload.with_template(template), effective)?;
    let written = workload.progress_deadline();
    let is_default = written.is_none_or(|seconds| seconds == PROGRESS_DEADLINE)
        && !asked.ownership.is_declared(&["spec", "progressDeadlineSeconds"]);
    let is_injected = || written.is_some() && old.and_then(|old| self::needed(old, effective)) == written;
    (written.unwrap_or(PROGRESS_DEADLINE) < needed && (is_default || is_injected())).then_some(needed)
}

/// Returns the deadline that a workload needs, if the default of the API server is too short.
fn needed(workload: &Workload, effective: &Effective) -> Option<i64> {
    // A model arrives before its server only in a volume; other workloads need not be recognised again.
    let has_volumes = items(&workload.pod_spec()["volumes"]).next().is_some();
    let recognition = if has_volumes { effective.runtimes().recognise(workload) } else { Recognition::default() };
    let start = recognition.view(workload).start(workload)?;
    // The field is an int32.
    let needed = start.seconds().saturating_add(ROLLOUT_OVERHEAD).min(i32::MAX.into());
    (needed > PROGRESS_DEADLINE).then_some(needed)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::decision::{Operation, Request, decide};
    use crate::facts::User;
    use crate::testing::{facts, policies, with_container};

    /// Returns the deadline of a Deployment after a request, and the Deployment.
    fn after(budget: &str, written: Option<i64>, old: Option<&Value>) -> (Option<i64>, Value) {
        let mut object = with_container(&json!({"ports": [{"containerPort": 80}]}));
        object["metadata"]["managedFields"] = json!([]);
        object["spec"]["progressDeadlineSeconds"] = written.into();
        if old.is_some() {
            // Without a change, nothing is injected.
            object["spec"]["template"]["spec"]["containers"][0]["image"] = json!("registry.example.com/api:2");
        }
        let policies =
            policies(&[("serving", json!({"enforcement": "warn", "pod": {}, "probes": {"startupBudget": budget}}))]);
        let workload = Workload::view(&object).unwrap();
        let operation = if old.is_some() { Operation::Update } else { Operation::Create };
        let old = old.map(|old| Workload::view(old).unwrap());
        let request = Request { operation, workload, old, user: User::named("jane"), now: Timestamp::UNIX_EPOCH };
        let patch = decide(&request, &policies, &facts()).patch;
        json_patch::patch(&mut object, &patch).unwrap();
        (object["spec"]["progressDeadlineSeconds"].as_i64(), object)
    }

    #[test]
    fn the_deadline_is_the_startup_budget_and_a_minute() {
        assert_eq!(after("20m", Some(600), None).0, Some(1260));
        assert_eq!(after("20m", None, None).0, Some(1260));
        assert_eq!(after("9m", Some(600), None).0, Some(600));
        assert_eq!(after("9m", None, None).0, None);
    }

    #[test]
    fn a_model_that_arrives_before_its_server_gets_as_long() {
        let deadline = |volume: Value| {
            let mut object =
                with_container(&json!({"image": "vllm/vllm-openai:v0.11.0", "args": ["--model=/models/a"],
                "volumeMounts": [{"name": "models", "mountPath": "/models"}]}));
            object["metadata"]["managedFields"] = json!([]);
            let mut models = json!({"name": "models"});
            json_patch::merge(&mut models, &volume);
            object["spec"]["template"]["spec"]["volumes"] = json!([models]);
            let probes = json!({"startupBudget": "20m"});
            let policies = policies(&[("serving", json!({"enforcement": "warn", "pod": {}, "probes": probes}))]);
            let request = Request::new(Operation::Create, Workload::view(&object).unwrap(), Timestamp::UNIX_EPOCH);
            let patch = decide(&request, &policies, &facts()).patch;
            json_patch::patch(&mut object, &patch).unwrap();
            object["spec"]["progressDeadlineSeconds"].as_i64()
        };
        assert_eq!(deadline(json!({"persistentVolumeClaim": {"claimName": "models"}})), Some(1260));
        assert_eq!(deadline(json!({"image": {"reference": "registry.example.com/a:1"}})), Some(2460));
    }

    #[test]
    fn keeps_a_deadline_of_the_user() {
        assert_eq!(after("20m", Some(900), None).0, Some(900));
        assert_eq!(after("20m", Some(3600), None).0, Some(3600));
    }

    #[test]
    fn extends_its_own_deadline_but_never_shortens_it() {
        let (_, old) = after("20m", Some(600), None);
        let mut changed = old.clone();
        changed["spec"]["template"]["spec"]["containers"][0]["startupProbe"]["failureThreshold"] = json!(1);
        assert_eq!(after("30m", Some(1260), Some(&old)).0, Some(1860));
        assert_eq!(after("15m", Some(1260), Some(&old)).0, Some(1260));
        assert_eq!(after("30m", Some(1260), Some(&changed)).0, Some(1260), "not what the old one needed");
    }
}
