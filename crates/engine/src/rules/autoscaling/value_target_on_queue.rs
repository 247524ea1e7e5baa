//! ## What it checks
//! Autoscalers of the author's own that scale on the length of a queue with a target of type `Value`.
//! ## Why it matters
//! The number of replicas is multiplied by length over target, and once more before the new replicas, which still load their
//! model, have shortened the queue: it runs away to the most replicas.
//! ## Instead
//! Take a target of type `AverageValue`: so many requests for each replica.

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// What the metrics of queues are called.
const QUEUES: [&str; 8] = ["queue", "waiting", "pending", "backlog", "depth", "lag", "deferred", "inflight"];

/// Finds autoscalers that run away.
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
        let of_queue = super::authors_metrics(context).filter(|(_, _, metric)| {
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
