//! ## What it checks
//! Model servers whose liveness probe gives up sooner than their readiness probe.
//! ## Why it matters
//! A server that does not answer for a while is killed while it still gets requests: all of them fail, and the model is
//! loaded again. A server that first becomes unready can work off its queue, and gets requests again once it answers.
//! ## Instead
//! Let the liveness probe fail for longer than the readiness probe, usually twice as long.

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds servers that are killed before they are unready.
#[derive(Debug)]
pub struct LivenessBeforeReadiness;

impl Rule for LivenessBeforeReadiness {
    fn id(&self) -> &'static str {
        "liveness-before-readiness"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let Some(container) = context.recognised.container else { return Vec::new() };
        let probes = container.probe("livenessProbe").zip(container.probe("readinessProbe"));
        let sooner = probes.filter(|(liveness, readiness)| liveness.patience() < readiness.patience());
        let found = sooner.map(|(liveness, readiness)| {
            let (killed, unready) = (liveness.patience(), readiness.patience());
            let failures = unready / liveness.period().max(1) + 1;
            Finding::in_container(&container, "livenessProbe")
                .found(format!("a probe that gives up after {killed} seconds of failures"))
                .expected(format!("more than {unready} seconds, after which the server is unready"))
                .fix(format!("livenessProbe:\n  failureThreshold: {failures}"))
        });
        found.into_iter().collect()
    }
}
