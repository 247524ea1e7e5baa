//! ## What it checks
//! Workloads with two or more replicas that are not spread: neither over zones or nodes, nor by anti-affinity. Pods that
//! are parts of one server are ignored.
//! ## Why it matters
//! The scheduler may place all of them where one failure affects all.
//! ## Instead
//! Spread them over zones where possible. A policy with `pod` injects it.

use serde_json::json;

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::{replicas, snippet, this_source};
use crate::workload::items;

/// Finds replicas that are not spread.
#[derive(Debug)]
pub struct SingleZone;

impl Rule for SingleZone {
    fn id(&self) -> &'static str {
        "single-zone"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let pod = context.workload.pod_spec();
        let is_spread =
            items(&pod["topologySpreadConstraints"]).next().is_some() || !pod["affinity"]["podAntiAffinity"].is_null();
        let (least, _) = replicas(context);
        let selector = context.workload.spec("selector");
        let is_multi_node = context.recognised.multi_node.is_some();
        if least < 2 || is_spread || is_multi_node || !selector.is_object() {
            return Vec::new();
        }
        let constraint = json!({"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": selector});
        let finding = Finding::in_pod(&context.workload, "topologySpreadConstraints")
            .found(format!("nothing, for {least} replicas"));
        let instead = snippet(&json!({"topologySpreadConstraints": [constraint]}));
        vec![finding.expected("a spread over zones, where possible").fix(instead)]
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use crate::decision::{Operation, Request, decide};
    use crate::testing::{facts, policies, with_container};
    use crate::workload::Workload;

    #[test]
    fn ignores_the_parts_of_one_server() {
        let warnings = |nodes: &str| {
            let mut object = with_container(&json!({"command": ["torchrun", "--nnodes", nodes, "serve.py"]}));
            object["spec"]["replicas"] = 2.into();
            object["spec"]["selector"] = json!({"matchLabels": {"app": "api"}});
            let request = Request::new(Operation::Observe, Workload::view(&object).unwrap(), Timestamp::UNIX_EPOCH);
            let policies = policies(&[("serving", json!({"rules": {"single-zone": {}}}))]);
            decide(&request, &policies, &facts()).verdict.warnings.len()
        };
        assert_eq!((warnings("1"), warnings("2")), (1, 0));
    }
}
