//! ## What it checks
//! Model servers without a liveness probe, where it is known how to ask.
//! ## Why it matters
//! A server whose process hangs, after an error of its GPU for one, keeps its pod and its GPU for ever.
//! ## Instead
//! Ask for what the server answers as long as it works, loaded or not, and let it fail several times. A policy with `probes`
//! injects it.

use super::missing;
use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds servers that hang unnoticed.
#[derive(Debug)]
pub struct MissingLivenessProbe;

impl Rule for MissingLivenessProbe {
    fn id(&self) -> &'static str {
        "missing-liveness-probe"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        missing(context, "livenessProbe", |endpoint| &endpoint.liveness, 6)
    }
}
