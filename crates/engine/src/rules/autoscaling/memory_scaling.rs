//! ## What it checks
//! Autoscalers not managed by Tidegate that scale on memory.
//! ## Why it matters
//! A server keeps the memory of its model and caches as long as it runs. Replicas are added and never removed.
//! ## Instead
//! Scale on CPU, or on the number of waiting requests.

use serde_json::json;

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds autoscalers that never scale down.
#[derive(Debug)]
pub struct MemoryScaling;

impl Rule for MemoryScaling {
    fn id(&self) -> &'static str {
        "memory-scaling"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let on_memory = super::unmanaged_metrics(context).filter(|(_, _, metric)| metric.is_of_resource("memory"));
        let target = json!({"type": "Utilization", "averageUtilization": 50});
        let instead = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        let trigger = json!({"type": "cpu", "metricType": "Utilization", "metadata": {"value": "50"}});
        let finding = |(autoscaler, index, metric)| {
            super::at_metric(autoscaler, index, metric)
                .expected("a metric that falls when the load does")
                .fix(super::replaced(autoscaler, &instead, &trigger))
        };
        on_memory.map(finding).collect()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use crate::decision::{Operation, Request, decide};
    use crate::facts::{Autoscaler, Facts};
    use crate::testing::{facts, policies, reference, with_container};
    use crate::workload::Workload;

    #[test]
    fn reports_the_triggers_of_a_scaled_object() {
        let trigger = json!({"type": "memory", "metricType": "Utilization", "metadata": {"value": "80"}});
        let object = json!({"kind": "ScaledObject", "metadata": {"name": "api"}, "spec": {"triggers": [trigger]}});
        let found = vec![Autoscaler::from_scaled_object(&object, false)];
        let facts = Facts { autoscalers: [(reference(), found)].into(), ..facts() };
        let workload = with_container(&json!({}));
        let request = Request::new(Operation::Observe, Workload::view(&workload).unwrap(), Timestamp::UNIX_EPOCH);
        let policies = policies(&[("serving", json!({"rules": {"memory-scaling": {"enforcement": "enforce"}}}))]);
        let verdict = decide(&request, &policies, &facts).verdict;
        let found = verdict.violations.iter().find(|violation| violation.rule == "memory-scaling").unwrap();
        assert_eq!(found.finding.place, "ScaledObject/api spec.triggers[0]");
        assert!(found.finding.fix.contains("triggers:"), "{}", found.finding.fix);
    }
}
