//! ## What it checks
//! Servers whose flags spread the model over a different number of GPUs than the container has: tensor parallelism
//! times pipelines and replicas, each 1 by default. A server that shares the work with other nodes may have fewer.
//! ## Why it matters
//! With too few GPUs the server does not start. With too many, the unused ones are paid for and idle.
//! ## Instead
//! Make the limit match the flags.

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;
use crate::runtimes::Recognised;
use crate::workload::{Accelerator, Container, Lookup};

/// Finds GPUs that are missing or idle.
#[derive(Debug)]
pub struct GpuCountMismatch;

impl Rule for GpuCountMismatch {
    fn id(&self) -> &'static str {
        "gpu-count-mismatch"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn is_about_pods(&self) -> bool {
        true
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let found = context.recognised.container.and_then(|container| mismatch(context.recognised, &container));
        found.into_iter().collect()
    }
}

fn mismatch(recognised: &Recognised, container: &Container) -> Option<Finding> {
    let resource =
        container.gpu_resource().filter(|name| Accelerator::find(name).is_some_and(|known| known.is_device))?;
    let gpus = whole(container, resource)?;
    let (tensor, all) = wanted(recognised)?;
    // Pipelines and replicas may run on other nodes, which then have a part each.
    let is_part = gpus % tensor == 0 && all % gpus == 0;
    let finding = Finding::in_container(container, &format!("resources.limits[{resource}]")).found(format!("`{gpus}`"));
    (gpus != all && !is_part).then(|| {
        finding
            .expected(format!("{all}, over which the server's flags spread the model"))
            .fix(format!("resources:\n  limits:\n    {resource}: {all}"))
    })
}

/// Returns the number of GPUs for each layer of the model, and for all of it; `None` if unknown.
fn wanted(recognised: &Recognised) -> Option<(u64, u64)> {
    let parallel = &recognised.runtime?.parallel;
    let is_configurable = !parallel.tensor.is_empty() || !parallel.env.is_empty();
    let words = &recognised.words;
    let is_said =
        words.has_any(&parallel.tensor).known().ok()?.is_some() || parallel.env.iter().any(|name| words.has_env(name));
    let tensor = match is_said {
        true => recognised.tensor_parallel().filter(|count| *count > 0)?,
        false if parallel.takes_all || !is_configurable => return None,
        false => 1,
    };
    let others = parallel.others.iter().map(|flag| factor(words.value(flag)));
    let all = others.collect::<Option<Vec<u64>>>()?.into_iter().try_fold(tensor, u64::checked_mul)?;
    let nodes = factor(words.value_of_any(&parallel.nodes))?;
    // Each node has a part of the layers, too.
    Some(if all % nodes == 0 { ((tensor / nodes).max(1), all / nodes) } else { (tensor, all) })
}

/// Returns a factor: 1 by default, `None` if unknown.
fn factor(said: Lookup<&str>) -> Option<u64> {
    match said.known().ok()? {
        Some(value) => value.parse().ok().filter(|count| *count > 0),
        None => Some(1),
    }
}

fn whole(container: &Container, resource: &str) -> Option<u64> {
    let nanos = container.resource("limits", resource)?.nanos();
    (nanos > 0 && nanos % 1_000_000_000 == 0).then(|| u64::try_from(nanos / 1_000_000_000).ok())?
}
