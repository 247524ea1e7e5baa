//! ## What it checks
//! Model servers without a readiness probe, where it is known how to ask.
//! ## Why it matters
//! Without one a pod counts as ready as soon as its process runs: requests reach a server that is still loading its model, and
//! a rollout takes down the old pods before the new ones can answer.
//! ## Instead
//! Ask for what the server answers once its model is loaded. A policy with `probes` injects it.

use super::missing;
use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds servers that get requests before they can answer.
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
