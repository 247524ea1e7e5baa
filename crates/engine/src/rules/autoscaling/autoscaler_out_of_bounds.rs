//! ## What it checks
//! Autoscalers not managed by Tidegate whose minimum or maximum replicas are outside the policy's bounds.
//! ## Why it matters
//! The policy's bounds prevent a quiet night from stopping replicas that are required, and a busy day from taking every
//! GPU in the cluster.
//! ## Instead
//! Stay within the bounds, or remove the autoscaler to use Tidegate's.

use crate::api::Enforcement;
use crate::companions::autoscaler::{self, AutoscalingSettings};
use crate::facts::Autoscaler;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds autoscalers outside the policy's bounds.
#[derive(Debug)]
pub struct AutoscalerOutOfBounds;

impl Rule for AutoscalerOutOfBounds {
    fn id(&self) -> &'static str {
        "autoscaler-out-of-bounds"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let Some(settings) = autoscaler::settings(context.effective) else { return Vec::new() };
        super::unmanaged(context).flat_map(|autoscaler| out_of_bounds(autoscaler, settings)).collect()
    }
}

fn out_of_bounds(autoscaler: &Autoscaler, settings: &AutoscalingSettings) -> Vec<Finding> {
    let (least, most) = (i64::from(settings.min_replicas), i64::from(settings.max_replicas));
    let finding = |field: &str, found: i64, expected: i64, word: &str| {
        Finding::beside(&autoscaler.reference(), &format!("spec.{field}"))
            .found(format!("`{found}`"))
            .expected(format!("{word} {expected}, as the policy says"))
            .fix(format!("spec:\n  {field}: {expected}"))
    };
    let (_, min, max) = autoscaler.fields();
    let below = (autoscaler.min < least).then(|| finding(min, autoscaler.min, least, "at least"));
    let above = (autoscaler.max > most).then(|| finding(max, autoscaler.max, most, "at most"));
    below.into_iter().chain(above).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};

    use crate::decision::{Operation, Request, User, decide};
    use crate::facts::{Autoscaler, Facts};
    use crate::testing::{facts, policies, reference, with_container};
    use crate::workload::Workload;

    /// Returns the number of warnings about an unmanaged autoscaler, under a policy's `autoscaling`.
    fn warnings(autoscaling: &Value, (min, max): (i64, i64)) -> usize {
        let object = with_container(&json!({}));
        let (workload, now) = (Workload::view(&object).unwrap(), Timestamp::UNIX_EPOCH);
        let hpa = json!({"kind": "HorizontalPodAutoscaler", "spec": {"minReplicas": min, "maxReplicas": max}});
        let unmanaged = vec![Autoscaler::from_hpa(&hpa, false)];
        let facts = Facts { autoscalers: [(reference(), unmanaged)].into(), ..facts() };
        let rules = json!({"autoscaler-out-of-bounds": {"enforcement": "warn"}});
        let policies = policies(&[("serving", json!({"autoscaling": autoscaling, "rules": rules}))]);
        let request = Request { user: User::named("jane"), ..Request::new(Operation::Update, workload, now) };
        decide(&request, &policies, &facts).verdict.warned.len()
    }

    #[test]
    fn engine_none_checks_only_explicit_bounds() {
        let none = |bounds: &Value| {
            let mut autoscaling = json!({"engine": "none"});
            json_patch::merge(&mut autoscaling, bounds);
            autoscaling
        };
        assert_eq!(warnings(&none(&json!({})), (0, 40)), 0, "it has no bounds");
        assert_eq!(warnings(&none(&json!({"maxReplicas": 20})), (0, 40)), 1);
        assert_eq!(warnings(&none(&json!({"minReplicas": 12})), (0, 40)), 1, "it has no most");
        assert_eq!(warnings(&json!({"engine": "hpa"}), (0, 40)), 2, "what tidegate would make is bounded");
    }
}
