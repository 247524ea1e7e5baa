//! Rules about replicas and autoscalers.

mod autoscaler_out_of_bounds;
mod cpu_scaling_on_gpu;
mod duplicate_autoscaler;
mod memory_scaling;
mod replicas_under_autoscaler;
mod scaling_without_request;
mod static_fallback;
mod value_target_on_queue;

pub use autoscaler_out_of_bounds::AutoscalerOutOfBounds;
pub use cpu_scaling_on_gpu::CpuScalingOnGpu;
pub use duplicate_autoscaler::DuplicateAutoscaler;
pub use memory_scaling::MemoryScaling;
pub use replicas_under_autoscaler::ReplicasUnderAutoscaler;
pub use scaling_without_request::ScalingWithoutRequest;
pub use static_fallback::StaticFallback;
pub use value_target_on_queue::ValueTargetOnQueue;

use serde_json::{Value, json};

use super::snippet;
use crate::facts::{Autoscaler, Metric, SCALED_OBJECT};
use crate::policy::{Context, Finding};

/// Returns the autoscalers of the workload that Tidegate does not manage: the policy determines those that it does.
fn unmanaged<'c>(context: &Context<'c>) -> impl Iterator<Item = &'c Autoscaler> + use<'c> {
    let of_workload = context.facts.autoscalers_of(&context.workload.reference());
    of_workload.iter().filter(|autoscaler| !autoscaler.ours)
}

/// Returns the metrics of those autoscalers, each with its index.
fn unmanaged_metrics<'c>(context: &Context<'c>) -> impl Iterator<Item = (&'c Autoscaler, usize, &'c Metric)> + use<'c> {
    unmanaged(context).flat_map(|autoscaler| {
        autoscaler.metrics.iter().enumerate().map(move |(index, metric)| (autoscaler, index, metric))
    })
}

/// Returns the fix that replaces the metrics of an autoscaler, or the triggers of a ScaledObject, with one.
fn replaced(autoscaler: &Autoscaler, metric: &Value, trigger: &Value) -> String {
    let of_kind =
        if autoscaler.kind == SCALED_OBJECT { json!({"triggers": [trigger]}) } else { json!({"metrics": [metric]}) };
    snippet(&json!({"spec": of_kind}))
}

/// Starts a finding about a metric of an autoscaler.
fn at_metric(autoscaler: &Autoscaler, index: usize, metric: &Metric) -> Finding {
    let (field, ..) = autoscaler.fields();
    let finding = Finding::beside(&autoscaler.reference(), &format!("{field}[{index}]"));
    finding.found(format!("{} `{}`", metric.kind, metric.name))
}
