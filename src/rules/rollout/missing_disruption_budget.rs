//! ## What it checks
//! Workloads of two replicas and more for whose pods there is no PodDisruptionBudget, where it is known which there are:
//! in a cluster once the workload is stored, in files where a budget is among them.
//! ## Why it matters
//! An upgrade that drains nodes may take all replicas at once, each of which takes minutes to load its model elsewhere.
//! ## Instead
//! Add a budget that lets one go at a time.

use serde_json::json;

use crate::api::Enforcement;
use crate::rules::{Context, Finding, Rule, snippet, this_source};

/// Finds replicas that may all be drained at once.
#[derive(Debug)]
pub struct MissingDisruptionBudget;

impl Rule for MissingDisruptionBudget {
    fn id(&self) -> &'static str {
        "missing-disruption-budget"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let workload = &context.workload;
        let labels = &workload.template()["metadata"]["labels"];
        let (least, _) = context.replicas();
        let is_missing = context.facts.has_budget(workload.namespace(), labels) == Some(false);
        let selector = workload.spec("selector");
        if least < 2 || !is_missing || !selector.is_object() {
            return Vec::new();
        }
        let budget = json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": workload.name(), "namespace": workload.namespace()},
            "spec": {"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow", "selector": selector}
        });
        let finding =
            Finding::at("spec.replicas").found(format!("{least} replicas and no PodDisruptionBudget for them"));
        vec![finding.expected("a budget that lets one go at a time").instead(snippet(&budget))]
    }
}
