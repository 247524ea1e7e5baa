//! ## What it checks
//! Containers that request more of a resource than its limit.
//! ## Why it matters
//! The API server refuses such a pod. For a file, this would be noticed only when it is applied.
//! ## Instead
//! Raise the limit to the request, or lower the request.

use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;
use crate::workload::{Container, is_gpu};

/// Finds requests above limits.
#[derive(Debug)]
pub struct RequestsAboveLimits;

impl Rule for RequestsAboveLimits {
    fn id(&self) -> &'static str {
        "requests-above-limits"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn is_about_pods(&self) -> bool {
        true
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        context.workload.all_containers().flat_map(|container| above(&container)).collect()
    }
}

fn above(container: &Container) -> Vec<Finding> {
    let requests = container.field("resources")["requests"].as_object().into_iter().flatten();
    let found = requests.filter(|(name, _)| !is_gpu(name)).filter_map(|(name, _)| {
        let (request, limit) = (container.resource("requests", name)?, container.resource("limits", name)?);
        let finding = Finding::in_container(container, &format!("resources.requests.{name}"));
        (request > limit).then(|| {
            finding
                .found(format!("`{request}`"))
                .expected(format!("at most the limit, {limit}"))
                .fix(format!("resources:\n  requests:\n    {name}: {limit}"))
        })
    });
    found.collect()
}
