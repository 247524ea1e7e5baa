//! ## What it checks
//! Workloads with two or more replicas and no PodDisruptionBudget for their pods, if the existing budgets are known: in
//! a cluster, and in files that include a budget. If the policy creates one, none is missing, nor if the pods are parts
//! of one server.
//! ## Why it matters
//! An upgrade that drains nodes may evict all replicas at once, and each takes minutes to load its model elsewhere.
//! ## Instead
//! Add a budget that allows one eviction at a time, or let the policy create them: `disruptionBudget: {}`.

use serde_json::json;

use crate::api::Enforcement;
use crate::companions::disruption_budget;
use crate::policy::{Context, Finding, Rule};
use crate::rules::{replicas, snippet, this_source};

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
        let (least, _) = replicas(context);
        let is_missing = context.facts.has_budget(workload.namespace(), labels) == Some(false);
        let selector = workload.spec("selector");
        let is_created = disruption_budget::settings(context.effective).is_some();
        let is_multi_node = context.recognised.multi_node.is_some();
        if least < 2 || !is_missing || !selector.is_object() || is_created || is_multi_node {
            return Vec::new();
        }
        let budget = json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": workload.name(), "namespace": workload.namespace()},
            "spec": {"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow", "selector": selector}
        });
        let finding =
            Finding::at("spec.replicas").found(format!("{least} replicas and no PodDisruptionBudget for them"));
        vec![finding.expected("a budget that allows one eviction at a time").fix(snippet(&budget))]
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};

    use crate::decision::{Operation, Request, decide};
    use crate::facts::{Facts, SharedMap};
    use crate::testing::{facts, policies, with_container};
    use crate::workload::Workload;

    fn warnings(spec: Value) -> usize {
        warnings_of(&json!({}), spec)
    }

    fn warnings_of(container: &Value, spec: Value) -> usize {
        let mut object = with_container(container);
        object["spec"]["replicas"] = 2.into();
        object["spec"]["selector"] = json!({"matchLabels": {"app": "api"}});
        let workload = Workload::view(&object).unwrap();
        let request = Request::new(Operation::Observe, workload, Timestamp::UNIX_EPOCH);
        let facts = Facts { budgets: Some(SharedMap::default()), ..facts() };
        decide(&request, &policies(&[("serving", spec)]), &facts).verdict.warnings.len()
    }

    #[test]
    fn ignores_workloads_with_a_budget_of_the_policy() {
        let rules = json!({"missing-disruption-budget": {}});
        assert_eq!(warnings(json!({"rules": rules})), 1);
        assert_eq!(warnings(json!({"rules": rules, "disruptionBudget": {}})), 0);
        assert_eq!(warnings(json!({"rules": rules, "disruptionBudget": {"enabled": false}})), 1);
    }

    #[test]
    fn ignores_the_parts_of_one_server() {
        let spec = json!({"rules": {"missing-disruption-budget": {}}});
        let of =
            |nodes: &str| warnings_of(&json!({"command": ["torchrun", "--nnodes", nodes, "serve.py"]}), spec.clone());
        assert_eq!((of("1"), of("2")), (1, 0));
    }
}
