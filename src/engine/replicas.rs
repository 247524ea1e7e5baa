//! Peace with the autoscaler: an update does not reset the replicas that an autoscaler holds.

use super::Request;
use crate::facts::Facts;
use crate::policy::Effective;

/// The live number of replicas, kept against an update, and what its author is told.
pub(super) struct Kept {
    pub(super) replicas: i64,
    pub(super) warning: String,
}

/// Tells whether an update would reset replicas that an autoscaler holds within its bounds. Zero, and zero to any number,
/// are a person's doing and let through.
pub(super) fn kept(request: &Request, effective: &Effective, facts: &Facts) -> Option<Kept> {
    if !effective.preserves_replicas() {
        return None;
    }
    let (live, wanted) = (request.old?.replicas()?, request.workload.replicas()?);
    if live == wanted || live == 0 || wanted == 0 {
        return None;
    }
    let autoscalers = facts.autoscalers_of(&request.workload.reference());
    let holder = autoscalers.iter().find(|held| (held.min..=held.max).contains(&live))?;
    Some(Kept {
        replicas: live,
        warning: format!(
            "spec.replicas stays {live}, not {wanted}: {} {} holds it between {} and {}; drop spec.replicas from the manifest",
            holder.kind, holder.name, holder.min, holder.max
        ),
    })
}
