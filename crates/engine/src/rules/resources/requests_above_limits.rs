//! ## What it checks
//! Containers and pods that request more of a resource than its limit, containers with a limit above the pod's, and
//! pods whose request is below the sum of their containers'.
//! ## Why it matters
//! The API server refuses such a pod. For a file, this would be noticed only when it is applied.
//! ## Instead
//! Raise the limit to the request, or lower the request. Leave out what is set for the whole pod.

use serde_json::Value;

use crate::policy::{Context, Finding, Rule};
use crate::quantity::Quantity;
use crate::rules::this_source;
use crate::workload::{Container, Workload, is_gpu};

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
        let workload = &context.workload;
        let of_containers = workload.all_containers().flat_map(|container| {
            let at = |field: &str| Finding::in_container(&container, field);
            above(container.field("resources"), &at)
        });
        let of_pod = above(&workload.pod_spec()["resources"], &|field| Finding::in_pod(workload, field));
        of_containers
            .chain(of_pod)
            .chain(above_limits_of_pod(workload))
            .chain(above_requests_of_pod(workload))
            .collect()
    }
}

/// Finds requests above the limits beside them.
fn above(resources: &Value, at: &dyn Fn(&str) -> Finding) -> Vec<Finding> {
    let found = quantities(&resources["requests"]).filter(|(name, _)| !is_gpu(name)).filter_map(|(name, request)| {
        let limit = Quantity::from_json(&resources["limits"][name]).ok()?;
        (request > limit).then(|| {
            at(&format!("resources.requests.{name}"))
                .found(format!("`{request}`"))
                .expected(format!("at most the limit, {limit}"))
                .fix(format!("resources:\n  requests:\n    {name}: {limit}"))
        })
    });
    found.collect()
}

/// Finds containers with limits above those of the pod.
fn above_limits_of_pod(workload: &Workload) -> Vec<Finding> {
    let of_container = |container: Container| {
        let of_pod = quantities(&workload.pod_spec()["resources"]["limits"]);
        let found = of_pod.filter_map(move |(name, most)| {
            let limit = container.resource("limits", name).filter(|limit| *limit > most)?;
            let finding = Finding::in_container(&container, &format!("resources.limits.{name}"));
            let finding = finding.found(format!("`{limit}`")).expected(format!("at most the limit of the pod, {most}"));
            Some(finding.fix(format!("resources:\n  limits:\n    {name}: {most}")))
        });
        found.collect::<Vec<_>>()
    };
    workload.containers().flat_map(of_container).collect()
}

/// Finds requests of the pod that are below the sum of those of its containers, without the init containers that end.
///
/// `validatePodResourceConsistency` in
/// <https://github.com/kubernetes/kubernetes/blob/v1.36.3/pkg/apis/core/validation/validation.go>
fn above_requests_of_pod(workload: &Workload) -> Vec<Finding> {
    let of_pod = quantities(&workload.pod_spec()["resources"]["requests"]);
    let found = of_pod.filter_map(|(name, request)| {
        let requests = workload.long_running().filter_map(|container| {
            container.resource("requests", name).or_else(|| container.resource("limits", name))
        });
        let sum = requests.reduce(|sum, request| sum.plus(&request)).filter(|sum| *sum > request)?;
        let finding = Finding::in_pod(workload, &format!("resources.requests.{name}")).found(format!("`{request}`"));
        let finding = finding.expected(format!("at least {sum}, the sum of the containers' requests"));
        Some(finding.fix(format!("resources:\n  requests:\n    {name}: {sum}")))
    });
    found.collect()
}

fn quantities(named: &Value) -> impl Iterator<Item = (&str, Quantity)> {
    let named = named.as_object().into_iter().flatten();
    named.filter_map(|(name, amount)| Some((name.as_str(), Quantity::from_json(amount).ok()?)))
}
