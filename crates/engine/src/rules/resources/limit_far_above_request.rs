//! ## What it checks
//! CPU and memory limits that are many times the request of the same container, or of the whole pod if it has one: more
//! than 10 times for CPU, 4 times for memory.
//! ## Why it matters
//! The scheduler counts requests. A node that looks half empty runs out of memory when several servers use what their limits
//! allow, and the kernel kills one of them.
//! ## Parameters
//! `cpu`, `memory`: the maximum ratio of limit to request.
//! ## Instead
//! Request close to what the server uses under load, or lower the limit.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::quantity::Quantity;
use crate::rules::{parameters, this_source};
use crate::workload::Container;

/// Finds containers that may use far more than the scheduler counts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitFarAboveRequest {
    /// The maximum ratio of a CPU limit to its request.
    pub cpu: u32,
    /// The maximum ratio of a memory limit to its request.
    pub memory: u32,
}

impl LimitFarAboveRequest {
    /// The default ratios.
    pub const DEFAULT: Self = Self { cpu: 10, memory: 4 };
}

impl Default for LimitFarAboveRequest {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Rule for LimitFarAboveRequest {
    fn id(&self) -> &'static str {
        "limit-far-above-request"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn with_params(&self, params: &Map<String, Value>) -> Result<Arc<dyn Rule>, String> {
        parameters::<Self>(params)
    }

    fn is_about_pods(&self) -> bool {
        true
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let most = [("cpu", self.cpu), ("memory", self.memory)];
        let workload = &context.workload;
        let of_pod = most.into_iter().filter_map(|(name, most)| {
            let of = |of: &str| workload.pod_resource(of, name);
            far(Finding::in_pod(workload, &field(name)), (name, most), of("requests"), of("limits"))
        });
        // The scheduler counts the pod's request if there is one.
        let counted = most.into_iter().filter(|(name, _)| workload.pod_resource("requests", name).is_none());
        let counted: Vec<(&str, u32)> = counted.collect();
        let of_container = |container: Container| {
            let found = counted.iter().filter_map(|&(name, most)| {
                let of = |of: &str| container.resource(of, name);
                far(Finding::in_container(&container, &field(name)), (name, most), of("requests"), of("limits"))
            });
            found.collect::<Vec<_>>()
        };
        of_pod.chain(workload.long_running().flat_map(of_container)).collect()
    }
}

fn field(name: &str) -> String {
    format!("resources.requests.{name}")
}

fn far(
    finding: Finding,
    (name, most): (&str, u32),
    request: Option<Quantity>,
    limit: Option<Quantity>,
) -> Option<Finding> {
    let (request, limit) = (request?, limit?);
    let allowed = request.nanos().saturating_mul(most.into());
    if request.is_zero() || limit.nanos() <= allowed {
        return None;
    }
    let suggested = needed(&limit, most);
    Some(
        finding
            .found(format!("`{request}`, with a limit of `{limit}`"))
            .expected(format!("a limit of at most {most} times the request"))
            .fix(format!("resources:\n  requests:\n    {name}: {suggested}")),
    )
}

/// Returns the smallest request for a limit, in whole units: thousandths for CPU, bytes for memory, in the notation of
/// the limit.
fn needed(limit: &Quantity, most: u32) -> Quantity {
    limit.divided_by(most.max(1))
}
