//! ## What it checks
//! Deployments in a queue of Kueue (`kueue.x-k8s.io/queue-name`) whose rollout starts a new pod before it stops an old
//! one. Those on GPUs are covered by `gpu-surge-deadlock`.
//! ## Why it matters
//! The new pod waits until the queue has quota for it, which the old pods use. If none is free, it stays gated, and the
//! rollout never ends.
//! ## Instead
//! Stop an old pod first, if one pod less is acceptable for a while; or keep quota for rollouts, and turn this rule
//! off.

use super::surge;
use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds rollouts that may wait for the quota that the old pods use.
#[derive(Debug)]
pub struct QueueSurgeDeadlock;

impl Rule for QueueSurgeDeadlock {
    fn id(&self) -> &'static str {
        "queue-surge-deadlock"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let has_gpu = context.workload.long_running().any(|container| container.has_gpu());
        let queue = context.workload.queue().filter(|_| !has_gpu);
        let found = queue.and_then(|queue| {
            let finding = surge::waits(context)?;
            Some(finding.expected(format!("1: each new pod needs quota of the queue `{queue}`")))
        });
        found.into_iter().collect()
    }
}
