//! ## What it checks
//! GPU requests without a limit, different from the limit, or fractional.
//! ## Why it matters
//! GPUs cannot be requested in fractions or overcommitted: the API server refuses such a pod. To share a GPU, request a
//! slice (`nvidia.com/mig-…`) or whatever the cluster's device plugin offers.
//! ## Instead
//! Set only the limit: Kubernetes uses it as the request.

use crate::policy::{Context, Finding, Rule};
use crate::quantity::Quantity;
use crate::rules::this_source;
use crate::workload::{Container, is_gpu};

/// Finds GPU requests that Kubernetes refuses.
#[derive(Debug)]
pub struct GpuRequestMismatch;

impl Rule for GpuRequestMismatch {
    fn id(&self) -> &'static str {
        "gpu-request-mismatch"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn is_about_pods(&self) -> bool {
        true
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        context.workload.all_containers().flat_map(|container| mismatches(&container)).collect()
    }
}

fn mismatches(container: &Container) -> Vec<Finding> {
    let resources = container.field("resources");
    let names = |of: &str| resources[of].as_object().into_iter().flatten().map(|(name, _)| name.clone());
    let mut gpus: Vec<String> = names("limits").chain(names("requests")).filter(|name| is_gpu(name)).collect();
    gpus.sort();
    gpus.dedup();
    gpus.iter().filter_map(|name| mismatch(container, name)).collect()
}

fn mismatch(container: &Container, name: &str) -> Option<Finding> {
    let (request, limit) = (container.resource("requests", name), container.resource("limits", name));
    let amount = limit.as_ref().or(request.as_ref())?;
    let is_right = is_whole(amount) && limit.is_some() && request.as_ref().is_none_or(|request| request == amount);
    let text = |amount: &Option<Quantity>| {
        amount.as_ref().map_or_else(|| "nothing".to_owned(), |amount| format!("`{amount}`"))
    };
    let whole = amount.whole().max(1);
    let finding = Finding::in_container(container, &format!("resources.limits[{name}]"));
    (!is_right).then(|| {
        finding
            .found(format!("a limit of {} and a request of {}", text(&limit), text(&request)))
            .expected("a whole number as the limit, and the same as the request or none")
            .fix(format!("resources:\n  limits:\n    {name}: {whole}\n  requests:\n    {name}: {whole}"))
    })
}

fn is_whole(amount: &Quantity) -> bool {
    amount.nanos() % 1_000_000_000 == 0
}
