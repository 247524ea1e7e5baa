//! ## What it checks
//! Model servers without a readiness probe, if their endpoint is known.
//! ## Why it matters
//! Without one, a pod is ready as soon as its process runs: requests reach a server that is still loading its model,
//! and a rollout stops the old pods before the new ones can answer.
//! ## Instead
//! Probe a path that the server answers once its model is loaded. A policy with `probes` injects it.

use super::missing;
use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds servers without a readiness probe.
#[derive(Debug)]
pub struct MissingReadinessProbe;

impl Rule for MissingReadinessProbe {
    fn id(&self) -> &'static str {
        "missing-readiness-probe"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        missing(context, "readinessProbe", |endpoint| &endpoint.readiness, 3)
    }
}
