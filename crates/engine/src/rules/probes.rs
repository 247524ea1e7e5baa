//! Rules about probes of the model server's container.

mod liveness_before_load;
mod liveness_before_readiness;
mod liveness_runs_inference;
mod missing_liveness_probe;
mod missing_readiness_probe;
mod missing_startup_probe;
mod probe_port_unknown;
mod probe_timeout_too_short;
mod readiness_before_load;
mod startup_budget_too_short;
mod undeclared_probe_port;

use serde_json::json;

pub use liveness_before_load::LivenessBeforeLoad;
pub use liveness_before_readiness::LivenessBeforeReadiness;
pub use liveness_runs_inference::LivenessRunsInference;
pub use missing_liveness_probe::MissingLivenessProbe;
pub use missing_readiness_probe::MissingReadinessProbe;
pub use missing_startup_probe::MissingStartupProbe;
pub use probe_port_unknown::ProbePortUnknown;
pub use probe_timeout_too_short::ProbeTimeoutTooShort;
pub use readiness_before_load::ReadinessBeforeLoad;
pub use startup_budget_too_short::StartupBudgetTooShort;
pub use undeclared_probe_port::UndeclaredProbePort;

use super::snippet;
use crate::policy::{Context, Finding};
use crate::runtimes::{Endpoint, Handler};
use crate::workload::{Container, Probe};

/// The period of a startup probe in seconds.
const PERIOD: u64 = 10;

/// Finds a missing probe for a known endpoint.
fn missing(context: &Context, field: &str, handler: impl Fn(&Endpoint) -> &Handler, failures: u64) -> Vec<Finding> {
    let Some(container) = context.recognised.container else { return Vec::new() };
    if container.probe(field).is_some() {
        return Vec::new();
    }
    let Ok(endpoint) = context.recognised.endpoint() else { return Vec::new() };
    let mut probe = match handler(&endpoint) {
        Handler::Http { path, scheme } => {
            json!({"httpGet": {"path": path, "port": endpoint.port, "scheme": scheme}, "timeoutSeconds": 5})
        }
        Handler::Tcp => json!({"tcpSocket": {"port": endpoint.port}}),
    };
    probe["periodSeconds"] = PERIOD.into();
    probe["failureThreshold"] = failures.into();
    let finding = Finding::in_container(&container, field).found("nothing");
    vec![finding.expected("a probe").fix(snippet(&json!({field: probe})))]
}

/// Returns how long, in seconds, the model server may take to start, according to the policy or else its runtime.
fn startup_budget(context: &Context) -> Option<u64> {
    let of_policy = context.effective.probes().and_then(|(settings, _)| settings.startup_budget);
    let of_runtime = || context.recognised.runtime.map(|runtime| runtime.startup_budget.into());
    of_policy.or_else(of_runtime).map(|budget| budget.as_secs())
}

/// Returns how many failures of a startup probe the start-up budget allows.
fn startup_failures(context: &Context) -> u64 {
    const FIVE_MINUTES: u64 = 300;
    startup_budget(context).unwrap_or(FIVE_MINUTES).div_ceil(PERIOD).max(1)
}

/// Returns the liveness probe that kills the model server while it is loading, and how long loading may take.
fn liveness_kills<'c>(context: &Context<'c>) -> Option<(&'c Container<'c>, Probe<'c>, u64)> {
    let container = context.recognised.container.as_ref()?;
    let liveness = container.probe("livenessProbe").filter(|_| container.probe("startupProbe").is_none())?;
    let budget = startup_budget(context).filter(|budget| liveness.window() < *budget)?;
    Some((container, liveness, budget))
}
