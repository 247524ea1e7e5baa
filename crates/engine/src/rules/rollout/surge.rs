//! Rollouts that start a new pod before they stop an old one.

use serde_json::Value;

use crate::policy::{Context, Finding};
use crate::rules::replicas;
use crate::workload::Workload;

/// Starts a finding about a rollout whose new pod may wait for what the old pods use.
pub(super) fn waits(context: &Context) -> Option<Finding> {
    let workload = &context.workload;
    let strategy = workload.spec("strategy");
    if !workload.known_kind().has_surge || strategy["type"] == "Recreate" {
        return None;
    }
    let (least, _) = replicas(context);
    if lets_one_go_first(strategy, least.max(1)) {
        return None;
    }
    let unavailable = &strategy["rollingUpdate"]["maxUnavailable"];
    let found = if unavailable.is_null() { "nothing, which is 25%".to_owned() } else { unavailable.to_string() };
    let finding =
        Finding::at("spec.strategy.rollingUpdate.maxUnavailable").found(format!("{found}: 0 of {} pods", least.max(1)));
    Some(finding.fix(
        "spec:\n  strategy:\n    type: RollingUpdate\n    rollingUpdate:\n      maxSurge: 0\n      maxUnavailable: 1",
    ))
}

/// Returns the largest number of pods of a workload with this many replicas during a rollout.
pub(in crate::rules) fn most_pods(workload: &Workload, replicas: i64) -> i64 {
    let strategy = workload.spec("strategy");
    if !workload.known_kind().has_surge || strategy["type"] == "Recreate" {
        return replicas;
    }
    replicas.saturating_add(may_be_more(&strategy["rollingUpdate"]["maxSurge"], replicas).max(0))
}

/// Returns whether a rolling update stops an old pod before a new one runs. If neither surge nor unavailability is
/// allowed, Kubernetes makes one pod unavailable.
///
/// <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#max-unavailable>, and `ResolveFenceposts` in
/// <https://github.com/kubernetes/kubernetes/blob/master/pkg/controller/deployment/util/deployment_util.go>
fn lets_one_go_first(strategy: &Value, replicas: i64) -> bool {
    let rolling = &strategy["rollingUpdate"];
    may_be_more(&rolling["maxSurge"], replicas) == 0 || may_be_unavailable(&rolling["maxUnavailable"], replicas) > 0
}

/// Returns how many pods may be unavailable during a rollout. Kubernetes rounds a percentage down; the default is 25 %.
fn may_be_unavailable(written: &Value, replicas: i64) -> i64 {
    amount(written, |percent| replicas.saturating_mul(percent) / 100)
}

/// Returns how many additional pods may run during a rollout. Kubernetes rounds a percentage up; the default is 25 %.
///
/// <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#max-surge>
fn may_be_more(written: &Value, replicas: i64) -> i64 {
    amount(written, |percent| (replicas.saturating_mul(percent).saturating_add(99)) / 100)
}

/// Reads a number or percentage of pods.
fn amount(written: &Value, of: impl Fn(i64) -> i64) -> i64 {
    match written {
        Value::Number(number) => number.as_i64().unwrap_or_default(),
        Value::String(text) => {
            let percent = text.strip_suffix('%').and_then(|percent| percent.parse().ok());
            percent.map_or(0, of)
        }
        _ => of(25),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rounds_percentages_down() {
        let of = |written: Value, replicas| may_be_unavailable(&written, replicas);
        assert_eq!((of(json!(null), 3), of(json!(null), 4)), (0, 1));
        assert_eq!((of(json!("50%"), 1), of(json!("50%"), 2), of(json!(2), 1), of(json!(0), 9)), (0, 1, 2, 0));
    }

    #[test]
    fn stops_a_pod_first_without_surge() {
        let goes = |rolling: Value| lets_one_go_first(&json!({"rollingUpdate": rolling}), 3);
        assert!(!goes(json!(null)) && !goes(json!({})) && !goes(json!({"maxSurge": 1})));
        assert!(goes(json!({"maxSurge": 0})) && goes(json!({"maxSurge": "0%", "maxUnavailable": "25%"})));
        assert!(!goes(json!({"maxSurge": "1%", "maxUnavailable": 0})), "a share of a pod is a pod");
        assert!(goes(json!({"maxSurge": 1, "maxUnavailable": 1})));
    }
}
