//! ## What it checks
//! Containers that run as long as the pod and have no CPU or memory request, neither their own nor the pod's. A limit
//! counts: Kubernetes uses it as the request.
//! ## Why it matters
//! The scheduler places such a pod on any node, however full, and it is the first to be evicted there. An autoscaler
//! that compares usage with requests cannot work.
//! ## Instead
//! Request what the server needs when it is idle, with its model loaded.

use crate::policy::{Class, Context, Finding, Rule};
use crate::rules::this_source;
use crate::workload::Container;

/// Finds containers without requests.
#[derive(Debug)]
pub struct MissingRequests;

impl Rule for MissingRequests {
    fn id(&self) -> &'static str {
        "missing-requests"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn is_about_pods(&self) -> bool {
        true
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let workload = &context.workload;
        let asked: Vec<&str> = ["cpu", "memory"].into_iter().filter(|name| !workload.pod_requests(name)).collect();
        let containers = workload.long_running();
        containers.flat_map(|container| asked.iter().filter_map(move |name| missing(&container, name))).collect()
    }
}

fn missing(container: &Container, name: &str) -> Option<Finding> {
    if container.requests(name) {
        return None;
    }
    let suggested = match (name, Class::of(container)) {
        ("cpu", Class::Cpu) => "100m",
        ("cpu", Class::Gpu) => "4",
        (_, Class::Cpu) => "256Mi",
        (_, Class::Gpu) => "16Gi",
    };
    let finding = Finding::in_container(container, &format!("resources.requests.{name}")).found("nothing");
    Some(finding.expected(format!("a {name} request")).fix(format!("resources:\n  requests:\n    {name}: {suggested}")))
}
