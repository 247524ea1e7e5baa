//! ## What it checks
//! Autoscalers that compare CPU or memory usage with the request, if a relevant container has no request: all
//! containers for a metric of type `Resource`, the named one for `ContainerResource`. A request of the pod counts for
//! `Resource`, and only there.
//! ## Why it matters
//! Kubernetes cannot compute the utilization without a request: the autoscaler does nothing
//! (`FailedGetResourceMetric`).
//! ## Instead
//! Request the resource in each container, or measure only the model server with `ContainerResource`.

use crate::api::AutoscalingEngine;
use crate::companions::autoscaler::{self, AutoscalingSettings};
use crate::facts::Metric;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;
use crate::workload::Container;

/// Finds autoscalers that cannot work.
#[derive(Debug)]
pub struct ScalingWithoutRequest;

impl Rule for ScalingWithoutRequest {
    fn id(&self) -> &'static str {
        "scaling-without-request"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let resources = ["cpu", "memory"].into_iter();
        let findings = resources.flat_map(|resource| {
            context.workload.long_running().filter_map(move |container| finding(context, &container, resource))
        });
        findings.collect()
    }
}

/// Returns the finding about a container without a request that an autoscaler needs.
fn finding(context: &Context, container: &Container, resource: &str) -> Option<Finding> {
    let unmanaged =
        super::unmanaged_metrics(context).map(|(autoscaler, _, metric)| (autoscaler.reference(), metric.clone()));
    // KEDA queries Prometheus, whatever the metrics are.
    let is_hpa = |settings: &&AutoscalingSettings| settings.engine == AutoscalingEngine::Hpa;
    let Context { workload, effective, recognised, facts, .. } = context;
    let settings = autoscaler::settings_for(effective, workload, recognised, facts).filter(is_hpa);
    // A container metric without a container gets the model server's.
    let own_container = context.recognised.container.map(|container| container.name().to_owned());
    let managed = settings.into_iter().flat_map(|settings| &settings.metrics).map(|written| {
        let metric = Metric::read(&serde_json::Value::Object(written.clone()));
        (
            "the policy's autoscaler".to_owned(),
            Metric { container: metric.container.or_else(|| own_container.clone()), ..metric },
        )
    });
    let has_gpu = context.recognised.container.is_some_and(|container| container.has_gpu());
    // Tidegate never scales a GPU server on resources, whatever the policy sets.
    let mut all = unmanaged.chain(managed.filter(|_| !has_gpu));
    let (autoscaler, _) = all
        .find(|(_, metric)| metric.is_of_resource(resource) && metric.lacks_request_of(&context.workload, container))?;
    let amount = if resource == "cpu" { "100m" } else { "256Mi" };
    let finding = Finding::in_container(container, &format!("resources.requests.{resource}"));
    Some(
        finding
            .found(format!("nothing, but {autoscaler} compares usage with it"))
            .expected(format!("a {resource} request"))
            .fix(format!("resources:\n  requests:\n    {resource}: {amount}")),
    )
}
