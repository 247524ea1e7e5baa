//! ## What it checks
//! Pods that are killed before their runtime may have finished its current requests.
//! ## Why it matters
//! A generation takes tens of seconds. Each rollout and each scale-down interrupts those that are running.
//! ## Instead
//! Set the time that the runtime needs, including the wait in `preStop`. A policy with `pod` injects it.

use std::time::Duration;

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;
use crate::workload::GRACE_PERIOD;

/// Finds pods that are killed while serving.
#[derive(Debug)]
pub struct GracePeriodTooShort;

impl Rule for GracePeriodTooShort {
    fn id(&self) -> &'static str {
        "grace-period-too-short"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let drain = context.recognised.drain();
        let needed = drain.and_then(|drain| i64::try_from(Duration::from(drain.grace_period).as_secs()).ok());
        let written = context.workload.pod_spec()["terminationGracePeriodSeconds"].as_i64().unwrap_or(GRACE_PERIOD);
        let Some(needed) = needed.filter(|needed| written < *needed) else { return Vec::new() };
        let finding = Finding::in_pod(&context.workload, "terminationGracePeriodSeconds").found(format!("`{written}`"));
        let runtime = context.recognised.name().unwrap_or_default();
        vec![
            finding
                .expected(format!("at least {needed}, which {runtime} may need to finish its requests"))
                .fix(format!("terminationGracePeriodSeconds: {needed}")),
        ]
    }
}
