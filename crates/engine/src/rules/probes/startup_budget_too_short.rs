//! ## What it checks
//! Startup probes of the model server that give up before its runtime may have loaded a model.
//! ## Why it matters
//! The server is killed while loading, restarts, and is killed again: it never serves, and downloads the weights on
//! each start.
//! ## Instead
//! Raise the `failureThreshold` of the startup probe. The default of Kubernetes allows for half a minute. A probe that is
//! there is not replaced by a policy with `probes`.

use super::startup_budget;
use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds startup probes that end while the model is loading.
#[derive(Debug)]
pub struct StartupBudgetTooShort;

impl Rule for StartupBudgetTooShort {
    fn id(&self) -> &'static str {
        "startup-budget-too-short"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let Some(container) = context.recognised.container else { return Vec::new() };
        let Some(probe) = container.probe("startupProbe") else { return Vec::new() };
        let Some(budget) = startup_budget(context).filter(|budget| probe.window() < *budget) else { return Vec::new() };
        let finding = Finding::in_container(&container, "startupProbe.failureThreshold")
            .found(format!("a probe that gives up {} seconds after the start", probe.window()))
            .expected(format!("{budget} seconds, which loading may take"));
        vec![finding.fix(format!("startupProbe:\n  failureThreshold: {}", probe.failures_within(budget)))]
    }
}
