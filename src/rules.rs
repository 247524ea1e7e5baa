//! The rules that a model server is judged by, one file each. To add one: write its file, add it to [`ALL`], and add
//! `tests/cases/<subject>/<rule>/{bad,good,fixed}.yaml`.

pub mod annotations;
pub mod autoscaling;
pub mod custom;
pub mod database;
pub mod images;
pub mod membership;
pub mod models;
pub mod probes;
pub mod resources;
pub mod rollout;
pub mod runtime;
pub mod security;
pub mod storage;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::api::Enforcement;
use crate::companions::{self, Binding};
use crate::facts::{Facts, User};
use crate::policy::{Effective, PolicySet};
use crate::runtimes::Recognised;
use crate::workload::{Container, Workload};
use custom::Expressions;

/// Every rule, in the order in which findings are told.
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
    &resources::CpuLimitOnGpuServer,
    &probes::MissingStartupProbe,
    &probes::MissingReadinessProbe,
    &probes::MissingLivenessProbe,
    &probes::LivenessBeforeLoad,
    &probes::LivenessRunsInference,
    &probes::ReadinessBeforeLoad,
    &probes::ProbeTimeoutTooShort,
    &probes::ProbePortUnknown,
    &rollout::GpuSurgeDeadlock,
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
    &database::LiteralDatabaseCredentials,
    &database::DatabaseVariableOverridden,
    &annotations::AnnotationOutOfBounds,
];

/// One thing that a model server can get wrong.
pub trait Rule: fmt::Debug + Send + Sync {
    /// Returns the name of what was found, such that "allow floating-tag" reads as English. It never changes.
    fn id(&self) -> &str;

    /// Returns the source of the rule, whose front page explains it; empty for a policy's own.
    fn source(&self) -> &'static str {
        ""
    }

    /// Returns how strict the rule is where no policy says.
    fn enforcement(&self) -> Enforcement {
        Enforcement::Enforce
    }

    /// Returns the rule with parameters, as a policy gives them.
    ///
    /// # Errors
    /// Says what is wrong with them, in a sentence that follows their place.
    fn with(&self, params: &Map<String, Value>) -> Result<Arc<dyn Rule>, String> {
        let given: Vec<&str> = params.keys().map(String::as_str).collect();
        Err(format!("the rule takes no parameters; found {}", given.join(", ")))
    }

    /// Returns which workloads the rule judges.
    fn concerns(&self) -> Membership {
        Membership::Member
    }

    /// Returns every place where the workload gets it wrong.
    fn check(&self, context: &Context) -> Vec<Finding>;
}

impl<R: Rule + ?Sized> Rule for &'static R {
    fn id(&self) -> &str {
        (**self).id()
    }

    fn source(&self) -> &'static str {
        (**self).source()
    }

    fn enforcement(&self) -> Enforcement {
        (**self).enforcement()
    }

    fn with(&self, params: &Map<String, Value>) -> Result<Arc<dyn Rule>, String> {
        (**self).with(params)
    }

    fn concerns(&self) -> Membership {
        (**self).concerns()
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        (**self).check(context)
    }
}

/// Returns the page of a rule: the front page of its source.
#[must_use]
pub fn page(rule: &dyn Rule) -> String {
    let lines = rule.source().lines().map_while(|line| line.strip_prefix("//!"));
    lines.map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned() + "\n").collect()
}

/// The source of the file in which this stands.
macro_rules! this_source {
    () => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", file!()))
    };
}
pub(crate) use this_source;

/// Reads the parameters of a rule into the rule itself.
fn parameters<R: Rule + DeserializeOwned + 'static>(params: &Map<String, Value>) -> Result<Arc<dyn Rule>, String> {
    match R::deserialize(&Value::Object(params.clone())) {
        Ok(rule) => Ok(Arc::new(rule)),
        Err(error) => Err(error.to_string()),
    }
}

/// Writes what to paste.
fn snippet(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_default().trim_end().to_owned()
}

/// Writes a word to add to what a container runs: to its words, or to the script of its shell.
fn added(container: &Container, word: &str) -> String {
    let list = if container.field("args").is_null() { "command" } else { "args" };
    if container.runs_script() {
        return format!("# add to the command in the script: {word}");
    }
    format!("{list}:\n  # beside those that are there\n  - {word}")
}

/// The finding about a variable whose value nobody should read. The value is not shown.
fn written_out(container: &Container, name: &str, what: &str) -> Finding {
    let reference = json!({"secretKeyRef": {"name": "<secret>", "key": "<key>"}});
    let secret = json!({"name": name, "value": null, "valueFrom": reference});
    Finding::of_item(container, "env", name)
        .found(format!("`{name}` holds {what} that is written out"))
        .expected("a reference to a Secret")
        .instead(snippet(&json!({"env": [secret]})))
}

/// Tells whether a value says something itself, rather than referring to another variable.
fn is_written_out(value: &str) -> bool {
    !value.trim().is_empty() && !value.contains('$')
}

/// Returns the built-in rule of this name.
#[must_use]
pub fn named(id: &str) -> Option<&'static dyn Rule> {
    ALL.iter().copied().find(|rule| rule.id() == id)
}

/// Whether a workload is a model server, as far as labels say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// It is one.
    Member,
    /// It was one until this update.
    Leaving,
    /// It is none, and was none.
    Never,
}

/// What a rule reads.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Whether the workload is being made.
    pub is_new: bool,
    /// Whether the workload is a model server.
    pub membership: Membership,
    /// The workload as it would be stored.
    pub workload: Workload<'a>,
    /// The workload as it is stored, for an update.
    pub old: Option<Workload<'a>>,
    /// All policies, and which workloads are model servers at all.
    pub policies: &'a PolicySet,
    /// The policies that are for the workload.
    pub effective: &'a Effective,
    /// What is known of the cluster.
    pub facts: &'a Facts,
    /// The model server's container and runtime.
    pub recognised: &'a Recognised<'a>,
    /// Who asks.
    pub user: User<'a>,
    /// When it is judged.
    pub now: Timestamp,
    /// What custom rules share.
    pub expressions: &'a Expressions<'a>,
}

impl Context<'_> {
    /// Returns the same for the workload as it was before an update, with what is recognised in that and what custom rules
    /// share about it.
    pub(crate) fn before<'b>(
        &'b self,
        recognised: &'b Recognised<'b>,
        expressions: &'b Expressions<'b>,
    ) -> Option<Context<'b>> {
        self.old.map(|old| Context { is_new: false, workload: old, old: None, recognised, expressions, ..*self })
    }

    /// Returns the least and the most replicas that the workload runs with.
    fn replicas(&self) -> (i64, i64) {
        self.effective.replicas(&self.workload, self.facts)
    }

    /// Returns how the workload reaches the database that a policy gives it.
    fn binding(&self) -> Option<Binding> {
        companions::binding(&self.workload, self.recognised, self.effective, self.facts).ok()?
    }
}

/// One place where a workload gets something wrong, with what to write instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// The field, as a person would write it: `spec.template.spec.containers[0].image`.
    pub place: String,
    /// The container that it is about; empty where it is about the workload.
    pub subject: String,
    /// The field within the subject, whatever place that has in a list.
    pub field: String,
    /// What is there.
    pub found: String,
    /// What should be.
    pub expected: String,
    /// YAML to paste at `place` or above it.
    pub instead: String,
    /// Whether the rule could not judge the workload: then nothing tells whether it was so before an update.
    pub is_unjudged: bool,
}

impl Finding {
    /// Starts a finding about a field of the workload.
    fn at(place: impl Into<String>) -> Self {
        let place = place.into();
        Self { field: place.clone(), place, ..Self::default() }
    }

    /// Starts a finding about a field of a container.
    fn in_container(container: &Container, field: &str) -> Self {
        let (place, subject) = (container.place(field), container.name().to_owned());
        Self { place, subject, field: field.to_owned(), ..Self::default() }
    }

    /// Starts a finding about an item of a container's list, by its name: what is injected moves the others.
    fn of_item(container: &Container, list: &str, name: &str) -> Self {
        Self::in_container(container, &format!("{list}[{name}]"))
    }

    /// Starts a finding about a field of the pod.
    fn in_pod(field: &str) -> Self {
        Self::at(format!("spec.template.spec.{field}"))
    }

    /// Starts a finding about a field of one of the pod's volumes, by its name.
    fn of_volume(volume: &Value, field: &str) -> Self {
        let name = volume["name"].as_str().unwrap_or_default();
        Self::in_pod(&format!("volumes[{name}].{field}"))
    }

    /// Starts a finding about a field of an object beside the workload, such as `HorizontalPodAutoscaler/api`.
    fn beside(object: &str, field: &str) -> Self {
        Self::at(format!("{object} {field}"))
    }

    fn found(self, found: impl Into<String>) -> Self {
        Self { found: found.into(), ..self }
    }

    fn expected(self, expected: impl Into<String>) -> Self {
        Self { expected: expected.into(), ..self }
    }

    fn instead(self, instead: impl Into<String>) -> Self {
        Self { instead: instead.into(), ..self }
    }

    fn unjudged(self) -> Self {
        Self { is_unjudged: true, ..self }
    }
}
