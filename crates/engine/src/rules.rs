//! The rules for model servers, one module each. To add one: write its module, add it to [`ALL`], and add
//! `tests/cases/<subject>/<rule>/{bad,good,fixed}.yaml`.

pub mod annotations;
pub mod autoscaling;
pub mod database;
pub mod images;
pub mod membership;
pub mod models;
pub mod probes;
pub mod resources;
pub mod rollout;
pub mod routing;
pub mod runtime;
pub mod security;
pub mod storage;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::companions::autoscaler;
use crate::policy::{Context, Finding, Rule};
use crate::workload::Container;

/// Every rule, in the order in which findings are reported.
pub static ALL: &[&dyn Rule] = &[
    &membership::ModelServerLabelRemoved,
    &membership::UnlabelledModelServer,
    &images::FloatingTag { tags: Vec::new() },
    &images::MissingDigest,
    &images::UntrustedRegistry { registries: Vec::new() },
    &images::UnmaintainedRuntime,
    &models::UnpinnedModelRevision,
    &models::RemoteCodeWithoutRevision,
    &resources::MissingRequests,
    &resources::MissingMemoryLimit,
    &resources::RequestsAboveLimits,
    &resources::LimitFarAboveRequest::DEFAULT,
    &resources::ResourcesOutOfBounds { bounds: BTreeMap::new(), policy: String::new() },
    &resources::GpuRequestMismatch,
    &resources::GpuCountMismatch,
    &resources::GpuMissing,
    &resources::UnsetGpuShare,
    &resources::SharedResourceClaim,
    &resources::CpuLimitOnGpuServer,
    &probes::MissingStartupProbe,
    &probes::MissingReadinessProbe,
    &probes::MissingLivenessProbe,
    &probes::LivenessBeforeLoad,
    &probes::LivenessBeforeReadiness,
    &probes::StartupBudgetTooShort,
    &probes::LivenessRunsInference,
    &probes::ReadinessBeforeLoad,
    &probes::ProbeTimeoutTooShort,
    &probes::ProbePortUnknown,
    &probes::UndeclaredProbePort,
    &rollout::GpuSurgeDeadlock,
    &rollout::QueueSurgeDeadlock,
    &rollout::QueueNotOnPods,
    &rollout::ProgressDeadlineTooShort,
    &rollout::GracePeriodTooShort,
    &rollout::MissingPreStop,
    &rollout::SingleZone,
    &rollout::MissingDisruptionBudget,
    &storage::UnboundedScratch,
    &storage::SingleWriterVolume,
    &runtime::SmallSharedMemory,
    &runtime::LoopbackServer,
    &runtime::ServiceLinkCollision,
    &routing::PoolPortNotServed,
    &routing::LeftPool,
    &security::PrivilegedContainer,
    &security::HostNamespace,
    &security::HostPath,
    &security::PrivilegeEscalation,
    &security::RunsAsRoot,
    &security::MountedServiceAccountToken,
    &security::SecretInEnv { names: Vec::new() },
    &autoscaling::ReplicasUnderAutoscaler,
    &autoscaling::AutoscalerOutOfBounds,
    &autoscaling::DuplicateAutoscaler,
    &autoscaling::ScalingWithoutRequest,
    &autoscaling::MemoryScaling,
    &autoscaling::CpuScalingOnGpu,
    &autoscaling::ValueTargetOnQueue,
    &autoscaling::StaticFallback,
    &database::LiteralDatabaseCredentials,
    &database::DatabaseVariableOverridden,
    &database::TooManyConnections,
    &annotations::AnnotationOutOfBounds,
    &annotations::UnknownAnnotation,
];

/// Returns the page of a rule: the module documentation of its source.
#[must_use]
pub fn page(rule: &dyn Rule) -> String {
    let lines = rule.source().lines().map_while(|line| line.strip_prefix("//!"));
    lines.map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned() + "\n").collect()
}

/// Expands to the source of the current file.
macro_rules! this_source {
    () => {
        // `file!` is relative to the workspace.
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../", file!()))
    };
}
pub(crate) use this_source;

/// Deserializes the parameters of a rule into the rule.
fn parameters<R: Rule + DeserializeOwned + 'static>(params: &Map<String, Value>) -> Result<Arc<dyn Rule>, String> {
    match R::deserialize(&Value::Object(params.clone())) {
        Ok(rule) => Ok(Arc::new(rule)),
        Err(error) => Err(error.to_string()),
    }
}

/// Formats a value as YAML to paste.
fn snippet(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_default().trim_end().to_owned()
}

/// Formats an argument to add to a container's command or, for a shell script, to the command in it.
fn added(container: &Container, word: &str) -> String {
    let list = if container.has_items("args") { "args" } else { "command" };
    if container.runs_script() {
        return format!("# add to the command in the script: {word}");
    }
    format!("{list}:\n  # in addition to the existing ones\n  - {word}")
}

/// Returns the finding about a variable with a secret in plain text. The value is not shown.
fn written_out(container: &Container, name: &str, what: &str) -> Finding {
    let reference = json!({"secretKeyRef": {"name": "<secret>", "key": "<key>"}});
    let secret = json!({"name": name, "value": null, "valueFrom": reference});
    Finding::of_item(container, "env", name)
        .found(format!("`{name}` holds {what} in plain text"))
        .expected("a reference to a Secret")
        .fix(snippet(&json!({"env": [secret]})))
}

/// Returns whether a value is literal, rather than a reference to another variable.
fn is_written_out(value: &str) -> bool {
    !value.trim().is_empty() && !value.contains('$')
}

/// Returns the minimum and maximum replicas of a workload.
fn replicas(context: &Context) -> (i64, i64) {
    autoscaler::replicas(context.effective, &context.workload, context.recognised, context.facts)
}
