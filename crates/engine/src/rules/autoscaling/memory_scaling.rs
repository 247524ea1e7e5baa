//! ## What it checks
//! Autoscalers not managed by Tidegate that scale on memory.
//! ## Why it matters
//! A server keeps the memory of its model and caches as long as it runs. Replicas are added and never removed.
//! ## Instead
//! Scale on CPU, or on the number of waiting requests.

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
        let instead = "spec:\n  metrics:\n    - type: Resource\n      resource:\n        name: cpu\n        target:\n          \
                       type: Utilization\n          averageUtilization: 50";
        let finding = |(autoscaler, index, metric)| {
            super::at_metric(autoscaler, index, metric).expected("a metric that falls when the load does").fix(instead)
        };
        on_memory.map(finding).collect()
    }
}
