//! ## What it checks
//! Model servers without a startup probe, if their endpoint is known. Those whose liveness probe would kill them while
//! loading are covered by `liveness-before-load`.
//! ## Why it matters
//! Loading takes minutes. Without a startup probe, the liveness probe must always allow for that time, so a server that
//! hangs is detected late.
//! ## Instead
//! Allow for the loading time in the startup probe, and make the liveness probe quick. A policy with `probes` injects
//! it.

use super::{liveness_kills, missing, startup_failures};
use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds servers without a startup probe.
#[derive(Debug)]
pub struct MissingStartupProbe;

impl Rule for MissingStartupProbe {
    fn id(&self) -> &'static str {
        "missing-startup-probe"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        if liveness_kills(context).is_some() {
            return Vec::new();
        }
        missing(context, "startupProbe", |endpoint| &endpoint.startup, startup_failures(context))
    }
}
