//! ## What it checks
//! Autoscalers that compare the use of CPU or memory with what is requested, where a container that counts requests none:
//! with a metric of type `Resource` all containers count, with `ContainerResource` the one that it names.
//! ## Why it matters
//! Kubernetes cannot compute the share of a request that is not there: the autoscaler does nothing at all
//! (`FailedGetResourceMetric`).
//! ## Instead
//! Request the resource in each container, or measure the model server alone with `ContainerResource`.

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
            let unasked = context.workload.without_request(resource);
            unasked.filter_map(move |container| finding(context, &container, resource))
        });
        findings.collect()
    }
}

/// Returns the finding about a container without a request, where an autoscaler looks for one.
fn finding(context: &Context, container: &Container, resource: &str) -> Option<Finding> {
    let theirs =
        super::authors_metrics(context).map(|(autoscaler, _, metric)| (autoscaler.reference(), metric.clone()));
    // KEDA asks Prometheus, whatever the metrics say.
    let is_asked = |settings: &&AutoscalingSettings| {
        settings.is_wanted(&context.workload) && settings.engine == AutoscalingEngine::Hpa
    };
    let settings = autoscaler::settings(context.effective).filter(is_asked);
    // A metric of one container without its name is completed with the model server's.
    let own_container = context.recognised.container.map(|container| container.name().to_owned());
    let ours = settings.into_iter().flat_map(|settings| &settings.metrics).map(|written| {
        let metric = Metric::read(&serde_json::Value::Object(written.clone()));
        (
            "the policy's autoscaler".to_owned(),
            Metric { container: metric.container.or_else(|| own_container.clone()), ..metric },
        )
    });
    let has_gpu = context.recognised.container.is_some_and(|container| container.has_gpu());
    // Tidegate scales no GPU server on resources, whatever the policy says.
    let mut all = theirs.chain(ours.filter(|_| !has_gpu));
    let (autoscaler, _) =
        all.find(|(_, metric)| metric.is_of_resource(resource) && metric.needs_request_of(container.name()))?;
    let amount = if resource == "cpu" { "100m" } else { "256Mi" };
    let finding = Finding::in_container(container, &format!("resources.requests.{resource}"));
    Some(
        finding
            .found(format!("nothing, but {autoscaler} compares usage with it"))
            .expected(format!("a {resource} request"))
            .fix(format!("resources:\n  requests:\n    {resource}: {amount}")),
    )
}
