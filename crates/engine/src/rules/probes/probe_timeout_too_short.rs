//! ## What it checks
//! Probes of the model server with a timeout shorter than its runtime may take to answer under load.
//! ## Why it matters
//! A busy server answers late, not never. If it is restarted when it is needed most, its load moves to the others,
//! which then answer late as well.
//! ## Instead
//! Set a timeout of five seconds. The default of Kubernetes is one.

use std::time::Duration;

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds probes that fail on busy servers.
#[derive(Debug)]
pub struct ProbeTimeoutTooShort;

impl Rule for ProbeTimeoutTooShort {
    fn id(&self) -> &'static str {
        "probe-timeout-too-short"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let Some((container, runtime)) = context.recognised.known() else { return Vec::new() };
        let Some(needed) = runtime.probe_timeout.map(|timeout| Duration::from(timeout).as_secs()) else {
            return Vec::new();
        };
        let probes = ["startupProbe", "readinessProbe", "livenessProbe"].into_iter();
        let probes = probes.filter_map(|field| Some((field, container.probe(field)?)));
        let short = probes.filter(|(_, probe)| probe.path().is_some() && probe.timeout() < needed);
        let finding = |(field, probe): (&str, crate::workload::Probe)| {
            Finding::in_container(container, &format!("{field}.timeoutSeconds"))
                .found(format!("`{}`", probe.timeout()))
                .expected(format!("at least {needed}: {} answers late under load", runtime.name))
                .fix(format!("{field}:\n  timeoutSeconds: {needed}"))
        };
        short.map(finding).collect()
    }
}
