//! ## What it checks
//! Deployments on GPUs whose rollout starts a new pod before it stops an old one: Kubernetes' own default does so below four
//! replicas.
//! ## Why it matters
//! The new pod needs a GPU of its own. Where none is spare it stays pending, the old one stays up for its sake, and the rollout
//! never ends.
//! ## Instead
//! Let an old pod go first, if a moment with one pod less can be borne; or keep a GPU spare for rollouts, and let this rule off.

use serde_json::Value;

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::{replicas, this_source};

/// Finds rollouts that wait for a GPU that they hold themselves.
#[derive(Debug)]
pub struct GpuSurgeDeadlock;

impl Rule for GpuSurgeDeadlock {
    fn id(&self) -> &'static str {
        "gpu-surge-deadlock"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let workload = &context.workload;
        let strategy = workload.spec("strategy");
        let has_gpu = workload.long_running().any(|container| container.has_gpu());
        if !has_gpu || !workload.known_kind().has_surge || strategy["type"] == "Recreate" {
            return Vec::new();
        }
        let (least, _) = replicas(context);
        if lets_one_go_first(strategy, least.max(1)) {
            return Vec::new();
        }
        let unavailable = &strategy["rollingUpdate"]["maxUnavailable"];
        let found = if unavailable.is_null() { "nothing, which is 25%".to_owned() } else { unavailable.to_string() };
        let finding = Finding::at("spec.strategy.rollingUpdate.maxUnavailable")
            .found(format!("{found}: 0 of {} pods", least.max(1)))
            .expected("1: each new pod needs a GPU of its own");
        vec![finding.fix(
            "spec:\n  strategy:\n    type: RollingUpdate\n    rollingUpdate:\n      maxSurge: 0\n      maxUnavailable: 1",
        )]
    }
}

/// Tells whether a rolling update stops an old pod before a new one runs. Where it may neither run a pod more nor one less,
/// Kubernetes lets one be missing all the same.
///
/// <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#max-unavailable>, and `ResolveFenceposts` in
/// <https://github.com/kubernetes/kubernetes/blob/master/pkg/controller/deployment/util/deployment_util.go>
fn lets_one_go_first(strategy: &Value, replicas: i64) -> bool {
    let rolling = &strategy["rollingUpdate"];
    may_be_more(&rolling["maxSurge"], replicas) == 0 || may_be_unavailable(&rolling["maxUnavailable"], replicas) > 0
}

/// How many pods may be missing during a rollout. Kubernetes rounds a percentage down, and takes 25 % where nothing is said.
fn may_be_unavailable(written: &Value, replicas: i64) -> i64 {
    amount(written, |percent| replicas.saturating_mul(percent) / 100)
}

/// How many pods more there may be during a rollout. Kubernetes rounds a percentage up, and takes 25 % where nothing is said.
///
/// <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#max-surge>
fn may_be_more(written: &Value, replicas: i64) -> i64 {
    amount(written, |percent| (replicas.saturating_mul(percent).saturating_add(99)) / 100)
}

/// Reads a number of pods, of which a share is worked out.
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
    fn a_percentage_is_rounded_down() {
        let of = |written: Value, replicas| may_be_unavailable(&written, replicas);
        assert_eq!((of(json!(null), 3), of(json!(null), 4)), (0, 1));
        assert_eq!((of(json!("50%"), 1), of(json!("50%"), 2), of(json!(2), 1), of(json!(0), 9)), (0, 1, 2, 0));
    }

    #[test]
    fn without_a_pod_more_one_goes_first() {
        let goes = |rolling: Value| lets_one_go_first(&json!({"rollingUpdate": rolling}), 3);
        assert!(!goes(json!(null)) && !goes(json!({})) && !goes(json!({"maxSurge": 1})));
        assert!(goes(json!({"maxSurge": 0})) && goes(json!({"maxSurge": "0%", "maxUnavailable": "25%"})));
        assert!(!goes(json!({"maxSurge": "1%", "maxUnavailable": 0})), "a share of a pod is a pod");
        assert!(goes(json!({"maxSurge": 1, "maxUnavailable": 1})));
    }
}
