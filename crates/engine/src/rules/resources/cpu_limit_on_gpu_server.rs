//! ## What it checks
//! CPU limits of containers with a GPU, and of pods that have such a container.
//! ## Why it matters
//! Tokenizing, scheduling and copying run on the CPU in bursts. A limit throttles them while the far more expensive GPU
//! waits. A request reserves the same share without throttling.
//! ## Instead
//! Request the CPUs that the server needs, and remove the limit.

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::quantity::Quantity;
use crate::rules::this_source;
use crate::workload::Container;

/// Finds CPU limits on GPU servers.
#[derive(Debug)]
pub struct CpuLimitOnGpuServer;

impl Rule for CpuLimitOnGpuServer {
    fn id(&self) -> &'static str {
        "cpu-limit-on-gpu-server"
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
        let workload = &context.workload;
        let on_gpu: Vec<Container> = workload.long_running().filter(Container::has_gpu).collect();
        let of_pod = workload.pod_resource("limits", "cpu").filter(|_| !on_gpu.is_empty());
        let of_pod = of_pod.map(|limit| (limit, Finding::in_pod(workload, "resources.limits.cpu")));
        let of_containers = on_gpu.iter().filter_map(|container| {
            let limit = container.resource("limits", "cpu")?;
            Some((limit, Finding::in_container(container, "resources.limits.cpu")))
        });
        let finding = |(limit, finding): (Quantity, Finding)| {
            finding.found(format!("`{limit}`")).expected("no CPU limit").fix("# remove resources.limits.cpu")
        };
        of_pod.into_iter().chain(of_containers).map(finding).collect()
    }
}
