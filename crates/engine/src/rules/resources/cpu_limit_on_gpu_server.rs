//! ## What it checks
//! CPU limits of containers with a GPU.
//! ## Why it matters
//! Tokenizing, scheduling and copying run on the CPU in bursts. A limit throttles them while the far more expensive GPU
//! waits. A request reserves the same share without throttling.
//! ## Instead
//! Request the CPUs that the server needs, and remove the limit.

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
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
        let containers = context.workload.long_running().filter(Container::has_gpu);
        let found = containers.filter_map(|container| {
            let limit = container.resource("limits", "cpu")?;
            let finding = Finding::in_container(&container, "resources.limits.cpu").found(format!("`{limit}`"));
            Some(finding.expected("no CPU limit").fix("# remove resources.limits.cpu"))
        });
        found.collect()
    }
}
