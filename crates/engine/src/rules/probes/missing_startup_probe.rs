//! ## What it checks
//! Model servers without a startup probe, where it is known how to ask. Those whose liveness probe would kill them while they
//! load are `liveness-before-load`.
//! ## Why it matters
//! Loading takes minutes. Without a startup probe the liveness probe must wait as long, ever after: a server that hangs is
//! found out late.
//! ## Instead
//! Give the startup probe the time that loading takes, and let the liveness probe be quick. A policy with `probes` injects it.

use super::{liveness_kills, missing, startup_failures};
use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds servers whose start is not told from their work.
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
