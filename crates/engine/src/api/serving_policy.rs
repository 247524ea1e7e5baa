//! `ServingPolicy`: what a platform team holds model servers to.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema, core::Duration};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::{Database, Runtime};
use crate::kind::{Kind, NAMES};
use crate::quantity::Quantity;

/// What a platform team holds its model servers to: what is injected where it is absent, which companions are made,
/// and which rules apply.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tidegate.dev",
    version = "v1alpha1",
    kind = "ServingPolicy",
    doc = "What a platform team holds its model servers to.",
    shortname = "sp",
    status = "ServingPolicyStatus",
    derive = "PartialEq",
    printcolumn(name = "Enforcement", type_ = "string", json_path = ".spec.enforcement"),
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(
        name = "Conflicting",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Conflicting')].status"
    ),
    printcolumn(name = "Matched", type_ = "integer", json_path = ".status.workloads.matched"),
    printcolumn(name = "Refused", type_ = "integer", json_path = ".status.workloads.refused"),
    printcolumn(name = "Warned", type_ = "integer", json_path = ".status.workloads.warned"),
    printcolumn(name = "Unlabelled", type_ = "integer", json_path = ".status.unlabelled.count"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServingPolicySpec {
    /// How strict the policy is, `enforce` where nothing is said. It also caps the enforcement of each of its rules.
    #[serde(default)]
    pub enforcement: Enforcement,
    /// Which of several policies comes first: a value that is injected comes from the highest that sets it, then from the
    /// first by name. The rules of all apply.
    #[serde(default)]
    pub priority: i32,
    /// Which model servers the policy is for, within what the installation intercepts. Empty: all of them.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub match_: Option<Match>,
    /// Resource requests and limits that are injected where they are absent, and their bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Probes that are injected where they are absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<Probes>,
    /// What else is injected into pods where it is absent. Default: nothing; `{}` is all that is on by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
    /// The autoscaler that each model server gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// The PodDisruptionBudget that each model server of several replicas gets. Default: none; `{}` is one that lets one pod
    /// go at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruption_budget: Option<DisruptionBudget>,
    /// The database that each model server gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<Database>,
    /// Settings of rules, by rule id. A rule that is not named applies as the policy's enforcement says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: BTreeMap<String, RuleSettings>,
    /// Rules of the policy's own, in CEL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub custom_rules: Vec<CustomRule>,
    /// Runtimes beside those that Tidegate knows, or in their place by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub runtimes: Vec<Runtime>,
    /// How the environment of a model server is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentSource>,
    /// What is different in an environment, by its name: what is said here is laid over the rest of the policy.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub environments: BTreeMap<String, Environment>,
    /// What exceptions may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exceptions: Option<ExceptionBounds>,
}

/// How the environment of a model server is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvironmentSource {
    /// The label of the namespace whose value names the environment. Default: `environment`.
    pub namespace_label: String,
}

/// What a policy says otherwise in one environment. A field that is not said here is as in the rest of the policy; a list
/// that is said takes the place of the other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Environment {
    /// How strict the policy is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
    /// Requests, limits and bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Probes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<Probes>,
    /// What else is injected into pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
    /// The autoscaler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// The PodDisruptionBudget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruption_budget: Option<DisruptionBudget>,
    /// The database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<Database>,
    /// Settings of the built-in rules.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: BTreeMap<String, RuleSettings>,
}

/// What exceptions to a policy may do.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExceptionBounds {
    /// How long an exception may last from when it was made, such as `720h`. Default: as long as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("duration(self) > duration('0s')", "maxDuration is above zero"))]
    pub max_duration: Option<Duration>,
    /// The rules that are never excepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub never: Vec<String>,
}

/// How strict a policy or a rule is, from the mildest to the strictest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Enforcement {
    /// Does nothing. In YAML it stands in quotes: without, it is a way to write `false`.
    Off,
    /// Changes and refuses nothing, makes no companions; records what would have happened.
    Audit,
    /// Injects, and admits with warnings.
    Warn,
    /// Injects, and refuses what does not conform.
    #[default]
    Enforce,
}

impl fmt::Display for Enforcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Audit => "audit",
            Self::Warn => "warn",
            Self::Enforce => "enforce",
        })
    }
}

impl<'de> Deserialize<'de> for Enforcement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => match text.as_str() {
                "off" => Ok(Self::Off),
                "audit" => Ok(Self::Audit),
                "warn" => Ok(Self::Warn),
                "enforce" => Ok(Self::Enforce),
                other => Err(D::Error::custom(format!(
                    "unknown enforcement `{other}`, expected one of `off`, `audit`, `warn`, `enforce`"
                ))),
            },
            Value::Bool(false) => Err(D::Error::custom("`off` without quotes means `false` in YAML: write \"off\"")),
            other => Err(D::Error::custom(format!("`{other}` is no enforcement"))),
        }
    }
}

/// Which model servers a policy is for. All that is said must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Match {
    /// Selects by the workload's own labels. Empty: every workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Selects by the labels of the workload's namespace. Empty: every namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Selects by the workload's kind. Empty: every kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<WorkloadKind>,
}

/// A kind of workload that can be a model server, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkloadKind(pub &'static Kind);

impl Serialize for WorkloadKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.kind.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for WorkloadKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Kind::named(&name).map(Self).ok_or_else(|| D::Error::unknown_variant(&name, &NAMES))
    }
}

impl JsonSchema for WorkloadKind {
    fn schema_name() -> Cow<'static, str> {
        "WorkloadKind".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let description = "A kind of workload that can be a model server.";
        json_schema!({"description": description, "type": "string", "enum": NAMES})
    }
}

/// A label selector, as Kubernetes has it.
///
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors>
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    /// Labels that must have these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Requirements that must all hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelRequirement>,
}

/// One requirement of a label selector.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[x_kube(validation = (
    "self.operator in ['In', 'NotIn', 'Exists', 'DoesNotExist']",
    "operator is one of In, NotIn, Exists, DoesNotExist"
))]
pub struct LabelRequirement {
    /// The label.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// The values that `In` and `NotIn` compare with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// Requests and limits by class of container. A container that asks for a GPU is of class `gpu`, any other of `cpu`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// For containers without a GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<ContainerDefaults>,
    /// For containers with a GPU. A GPU server is best left without CPU and memory limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<ContainerDefaults>,
    /// What each request and limit must stay within, by resource name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bounds: BTreeMap<String, Bound>,
}

/// Requests and limits that a container gets where it has none, by resource name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerDefaults {
    /// A missing request becomes the smaller of this and the container's limit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
    /// A missing limit becomes the larger of this and the container's request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Quantity>,
}

/// What a quantity must stay within; both ends are allowed.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("has(self.min) || has(self.max)", "a bound has a min, a max, or both"))]
pub struct Bound {
    /// The least that is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Quantity>,
    /// The most that is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Quantity>,
}

/// Where probes come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ProbeSource {
    /// From the preset of the recognised runtime; an unknown runtime with one known port gets TCP probes.
    #[default]
    Runtime,
    /// No probes are injected.
    None,
}

/// Startup, readiness and liveness probes of the model server's container.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probes {
    /// Where they come from. Default: `runtime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<ProbeSource>,
    /// How long a model server may take to start, such as `10m`. Default: what its runtime's preset says, else 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = (
        "duration(self) >= duration('10s') && duration(self) <= duration('24h')",
        "startupBudget lies between 10s and 24h"
    ))]
    pub startup_budget: Option<Duration>,
}

/// What is injected into the pods of a model server beside resources, probes and the database, where it is absent. What
/// depends on the runtime is injected where that is recognised.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pod {
    /// A sleep before SIGTERM and the time to finish requests, as the runtime needs them. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_shutdown: Option<bool>,
    /// A progress deadline above the start-up budget, so that a rollout is not given up while a model loads. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_deadline: Option<bool>,
    /// Memory at `/dev/shm` for a model that is spread over several GPUs. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_memory: Option<bool>,
    /// How much memory that is, at most half of the container's memory limit. Default: 8Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_memory_size: Option<Quantity>,
    /// `enableServiceLinks: false` for a runtime that takes those variables for settings. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_service_links: Option<bool>,
    /// A spread over zones, where possible, from two replicas on. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology_spread: Option<bool>,
    /// The toleration of the taint that GPU nodes usually have. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_toleration: Option<bool>,
}

/// What makes and keeps the autoscaler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum AutoscalingEngine {
    /// A HorizontalPodAutoscaler.
    #[default]
    Hpa,
    /// A ScaledObject of KEDA, which asks Prometheus how many requests wait.
    Keda,
    /// No autoscaler.
    None,
}

/// The autoscaler of each model server.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = (
    "!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
    "minReplicas is not above maxReplicas"
))]
pub struct Autoscaling {
    /// What makes and keeps it. Default: `hpa`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<AutoscalingEngine>,
    /// The least number of replicas. Default: 1. Zero is for engine `keda`, and from Kubernetes 1.37 on for engine `hpa` with
    /// a metric of type Object or External.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self >= 0", "minReplicas is at least 0"))]
    pub min_replicas: Option<i32>,
    /// The greatest number of replicas. Default: 10; with engine `none`, autoscalers of authors are held only to what is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self >= 1", "maxReplicas is at least 1"))]
    pub max_replicas: Option<i32>,
    /// The metrics of `autoscaling/v2`, as they are. A `ContainerResource` metric without `container` is given the
    /// model server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "metrics_schema")]
    pub metrics: Option<Vec<Map<String, Value>>>,
    /// Scales GPU servers, and others for which `metrics` names nothing, by how many requests wait, where their runtime tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queue>,
    /// Settings for engine `keda`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keda: Option<Keda>,
    /// The `behavior` of `autoscaling/v2`, as it is. Default: the API server's; with the queue one that gives a new pod the
    /// start-up budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_object_schema")]
    pub behavior: Option<Map<String, Value>>,
    /// Keeps the live `spec.replicas` when an update would reset what an autoscaler holds within its bounds. Default:
    /// true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preserve_replicas: Option<bool>,
}

/// Scaling by how many requests wait.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Queue {
    /// How many requests may wait for each replica. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average_value: Option<Quantity>,
    /// The name under which the metrics adapter serves the length of the queue. Default: the runtime's own, such as
    /// `vllm:num_requests_waiting`, with `_` for `:`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub metric: Option<String>,
}

/// The ScaledObject of a model server, which asks Prometheus.
///
/// <https://keda.sh/docs/latest/scalers/prometheus/>
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Keda {
    /// The URL of Prometheus, such as `http://prometheus.monitoring:9090`. There is no default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    #[x_kube(validation = (
        "self.startsWith('http://') || self.startsWith('https://')",
        "serverAddress begins with http:// or https://"
    ))]
    pub server_address: Option<String>,
    /// What is asked, in PromQL; `{namespace}` and `{name}` stand for those of the workload, `{pods}` for a regular expression
    /// that its pods' names match. Default: how many requests wait in its pods, as its runtime tells; with `minReplicas: 0` there
    /// is none, for then there may be no pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub query: Option<String>,
    /// How much of what is asked there may be for each replica. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Quantity>,
    /// Above what a workload without replicas gets one. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_threshold: Option<Quantity>,
    /// How many seconds pass between two questions. Default: KEDA's 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self >= 1", "pollingInterval is at least 1"))]
    pub polling_interval: Option<i32>,
    /// How many seconds after nothing waits any more the last replica goes. Default: the start-up budget, at least KEDA's 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self >= 0", "cooldownPeriod is at least 0"))]
    pub cooldown_period: Option<i32>,
    /// What holds while Prometheus does not answer. Default: the replicas stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
}

/// What holds while Prometheus does not answer.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fallback {
    /// How many questions in a row are not answered before it holds.
    #[x_kube(validation = ("self >= 0", "failureThreshold is at least 0"))]
    pub failure_threshold: i32,
    /// How many replicas there are then.
    #[x_kube(validation = ("self >= 0", "replicas is at least 0"))]
    pub replicas: i32,
}

/// The PodDisruptionBudget of each model server that may have several replicas, for whose pods there is no other.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DisruptionBudget {
    /// Whether it is made. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// How many pods a drain may take at a time. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self >= 1", "maxUnavailable is at least 1: zero keeps nodes from being drained"))]
    pub max_unavailable: Option<i32>,
}

fn metrics_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "required": ["type"],
            "properties": {
                "type": {"type": "string", "enum": ["Resource", "ContainerResource", "Pods", "Object", "External"]}
            },
            "x-kubernetes-preserve-unknown-fields": true
        }
    })
}

fn free_object_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Settings of one built-in rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleSettings {
    /// How strict the rule is; never stricter than the policy. Default: the rule's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
    /// The rule's parameters, as `tidegate explain RULE` has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_object_schema")]
    pub params: Option<Map<String, Value>>,
}

/// A rule in CEL, with the variables of Kubernetes' `ValidatingAdmissionPolicy`: `object` as it would be stored,
/// `oldObject`, `request`, `namespaceObject`, `params` and `variables`.
///
/// <https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#validation-expression>
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CustomRule {
    /// The rule's name, such as `missing-team-label`.
    #[schemars(length(max = 63))]
    #[x_kube(validation = (
        "self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "an id is lower-case letters, digits and dashes, and starts with a letter"
    ))]
    pub id: String,
    /// True where a workload conforms.
    pub expression: String,
    /// What is wrong where it does not, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Gives the message; `message` counts where it cannot be evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_expression: Option<String>,
    /// The field that it is about, such as `metadata.labels.team`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Values that the expressions share, as `variables.<name>`; each may use those before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<CustomVariable>,
    /// Values that the expressions read as `params`; `rules.<id>.params` takes their place in an environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_object_schema")]
    pub params: Option<Map<String, Value>>,
}

/// A named value of a custom rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CustomVariable {
    /// Its name.
    pub name: String,
    /// What gives it.
    pub expression: String,
}

/// What Tidegate observed of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServingPolicyStatus {
    /// The generation that the conditions speak of.
    #[serde(default)]
    pub observed_generation: i64,
    /// `Ready`: whether this generation is in force; while it is not, the last good one stays in force. `Conflicting`:
    /// whether another policy of its priority disagrees.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// How many workloads are under the policy, and how they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workloads: Option<WorkloadCounts>,
    /// Workloads that run a known runtime and would be under the policy if they were labelled as model servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlabelled: Option<Unlabelled>,
}

/// Workloads that are not labelled as model servers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unlabelled {
    /// How many there are.
    pub count: i64,
    /// The first ten of them, by name: `namespace/name`.
    #[serde(default)]
    pub names: Vec<String>,
}

/// How many workloads are under a policy, and how they do as they are stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadCounts {
    /// How many it selects.
    pub matched: i64,
    /// How many of them break a rule that it enforces: they would be refused if they were new.
    pub refused: i64,
    /// How many of them break a rule that it only warns of.
    pub warned: i64,
}

/// One condition of a policy or model server, in the form that Kubernetes uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about, such as `Ready`.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word for why.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// Since when `status` is as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
}

impl Condition {
    /// Makes a condition; since when it is so is added when it is written.
    #[must_use]
    pub fn new(type_: &str, status: &str, reason: &str, message: impl Into<String>) -> Self {
        Self {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.into(),
            last_transition_time: None,
        }
    }
}
