//! ## What it checks
//! Autoscalers not managed by Tidegate that scale on the length of a queue with a target of type `Value`.
//! ## Why it matters
//! The number of replicas is multiplied by length over target, and again before the new replicas, which still load
//! their model, have shortened the queue: it escalates to the maximum.
//! ## Instead
//! Use a target of type `AverageValue`: the number of requests per replica.

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Parts of the names of queue metrics.
const QUEUES: [&str; 8] = ["queue", "waiting", "pending", "backlog", "depth", "lag", "deferred", "inflight"];

/// Finds autoscalers that escalate to the maximum.
#[derive(Debug)]
pub struct ValueTargetOnQueue;

impl Rule for ValueTargetOnQueue {
    fn id(&self) -> &'static str {
        "value-target-on-queue"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let of_queue = super::unmanaged_metrics(context).filter(|(_, _, metric)| {
            let name = metric.name.to_lowercase();
            matches!(&*metric.kind, "External" | "Object")
                && metric.target == "Value"
                && QUEUES.iter().any(|word| name.contains(word))
        });
        let finding = |(autoscaler, index, metric): (&crate::facts::Autoscaler, usize, &crate::facts::Metric)| {
            let source = metric.kind.to_lowercase();
            let name = &metric.name;
            super::at_metric(autoscaler, index, metric).expected("a target of type `AverageValue`").fix(format!(
                "spec:\n  metrics:\n    - type: {}\n      {source}:\n        metric:\n          name: {name}\n        target:\n          \
                 type: AverageValue\n          averageValue: 5",
                metric.kind
            ))
        };
        of_queue.map(finding).collect()
    }
}
