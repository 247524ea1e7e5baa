//! ## What it checks
//! Model servers without a liveness probe, if their endpoint is known.
//! ## Why it matters
//! A server whose process hangs, for example after a GPU error, keeps its pod and GPU forever.
//! ## Instead
//! Probe a path that the server answers as long as it works, loaded or not, and allow several failures. A policy with
//! `probes` injects it.

use super::missing;
use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds servers without a liveness probe.
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
