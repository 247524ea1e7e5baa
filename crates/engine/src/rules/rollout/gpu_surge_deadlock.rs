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
        if !has_gpu || workload.kind() != "Deployment" || strategy["type"] == "Recreate" {
            return Vec::new();
        }
        let (least, _) = replicas(context);
        let unavailable = &strategy["rollingUpdate"]["maxUnavailable"];
        if may_be_unavailable(unavailable, least.max(1)) > 0 {
            return Vec::new();
        }
        let found = if unavailable.is_null() { "nothing, which is 25%".to_owned() } else { unavailable.to_string() };
        let finding = Finding::at("spec.strategy.rollingUpdate.maxUnavailable")
            .found(format!("{found}: none of {} pods", least.max(1)))
            .expected("1: each new pod needs a GPU of its own");
        vec![finding.instead(
            "spec:\n  strategy:\n    type: RollingUpdate\n    rollingUpdate:\n      maxSurge: 0\n      maxUnavailable: 1",
        )]
    }
}

/// How many pods may be missing during a rollout. Kubernetes rounds a percentage down, and takes 25 % where nothing is said.
///
/// <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#max-unavailable>
fn may_be_unavailable(written: &Value, replicas: i64) -> i64 {
    let of = |percent: i64| replicas.saturating_mul(percent) / 100;
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
}
