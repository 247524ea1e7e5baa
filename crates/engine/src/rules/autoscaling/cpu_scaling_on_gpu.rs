//! ## What it checks
//! Autoscalers not managed by Tidegate that scale a GPU server on its CPU.
//! ## Why it matters
//! A server that is saturated with requests hardly uses its CPU, and one that loads a model uses all of it: replicas
//! are added when they are not needed, and not added when they are.
//! ## Instead
//! Scale on the number of waiting requests, which every runtime for language models exports, such as
//! `vllm:num_requests_waiting`.

use serde_json::json;

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds GPU servers that scale on a metric unrelated to their load.
#[derive(Debug)]
pub struct CpuScalingOnGpu;

impl Rule for CpuScalingOnGpu {
    fn id(&self) -> &'static str {
        "cpu-scaling-on-gpu"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        if !context.recognised.container.is_some_and(|container| container.has_gpu()) {
            return Vec::new();
        }
        let metrics = context.recognised.runtime.and_then(|runtime| runtime.metrics.as_ref());
        let queue = metrics.and_then(|metrics| metrics.queue.as_deref()).unwrap_or("<requests waiting>");
        let on_cpu = super::unmanaged_metrics(context).filter(|(_, _, metric)| metric.is_of_resource("cpu"));
        let target = json!({"type": "AverageValue", "averageValue": 5});
        let pods = json!({"metric": {"name": queue.replace(':', "_")}, "target": target});
        let query = format!("sum({queue}{{namespace=\"{}\"}})", context.workload.namespace());
        let metadata = json!({"serverAddress": "<Prometheus>", "query": query, "threshold": "5"});
        let instead = json!({"type": "Pods", "pods": pods});
        let trigger = json!({"type": "prometheus", "metadata": metadata});
        let finding = |(autoscaler, index, metric)| {
            super::at_metric(autoscaler, index, metric)
                .expected("a metric of waiting requests")
                .fix(super::replaced(autoscaler, &instead, &trigger))
        };
        on_cpu.map(finding).collect()
    }
}
