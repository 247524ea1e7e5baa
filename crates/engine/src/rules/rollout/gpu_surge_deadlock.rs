//! ## What it checks
//! Deployments on GPUs whose rollout starts a new pod before it stops an old one. This is the default of Kubernetes
//! below four replicas.
//! ## Why it matters
//! The new pod needs its own GPU. If none is free, the new pod stays pending, the old one keeps running, and the
//! rollout never ends.
//! ## Instead
//! Stop an old pod first, if one pod less is acceptable for a while; or keep a GPU free for rollouts, and turn this
//! rule off.

use super::surge;
use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds rollouts that may wait for a GPU that the old pods use.
#[derive(Debug)]
pub struct GpuSurgeDeadlock;

impl Rule for GpuSurgeDeadlock {
    fn id(&self) -> &'static str {
        "gpu-surge-deadlock"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let has_gpu = context.workload.long_running().any(|container| container.has_gpu());
        let found = surge::waits(context).filter(|_| has_gpu);
        found.map(|found| found.expected("1: each new pod needs a GPU of its own")).into_iter().collect()
    }
}
