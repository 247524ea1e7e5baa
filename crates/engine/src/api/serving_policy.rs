//! `ServingPolicy`: the requirements of a platform team for model servers.

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

/// The requirements of a platform team for model servers: the defaults that are injected, the companions that are
/// created, and the rules that apply.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tidegate.dev",
    version = "v1alpha1",
    kind = "ServingPolicy",
    doc = "The requirements of a platform team for model servers.",
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
    /// How strict the policy is. Default: `enforce`. No rule of the policy is enforced more strictly.
    #[serde(default)]
    pub enforcement: Enforcement,
    /// The precedence among several policies: an injected value comes from the policy with the highest priority that
    /// sets it, or the first by name. The rules of all policies apply.
    #[serde(default)]
    pub priority: i32,
    /// The model servers that the policy selects, of those that the webhook intercepts. Empty: all of them.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub match_: Option<Match>,
    /// Resource requests and limits that are injected where they are missing, and their bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Probes that are injected where they are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<Probes>,
    /// Other fields of pods that are injected where they are missing. Default: none; `{}` injects all that default to
    /// true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
    /// The autoscaler that each model server gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// The PodDisruptionBudget that each model server with several replicas gets. Default: none; `{}` is one that
    /// allows one pod to be unavailable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruption_budget: Option<DisruptionBudget>,
    /// The database that each model server gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<Database>,
    /// Settings of rules, by rule id. Other rules have their default enforcement, at most that of the policy.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: BTreeMap<String, RuleSettings>,
    /// Custom rules, in CEL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub custom_rules: Vec<CustomRule>,
    /// Runtimes in addition to those that Tidegate knows. One with the name of a known runtime replaces it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub runtimes: Vec<Runtime>,
    /// How the environment of a model server is determined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentSource>,
    /// Settings of each environment, by name. They override the rest of the policy.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub environments: BTreeMap<String, Environment>,
    /// Limits for exceptions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exceptions: Option<ExceptionBounds>,
}

/// How the environment of a model server is determined.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvironmentSource {
    /// The label of the namespace whose value names the environment. Default: `environment`.
    pub namespace_label: String,
}

/// Settings of a policy in one environment. A field that is not set here is as in the rest of the policy; a list that
/// is set replaces the other.
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
    /// Other fields of pods that are injected.
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

/// Limits for exceptions to a policy.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExceptionBounds {
    /// How long an exception may last after its creation, such as `720h`. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("duration(self) > duration('0s')", "maxDuration must be above zero"))]
    pub max_duration: Option<Duration>,
    /// The rules from which no workload can be exempted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub never: Vec<String>,
}

/// How strict a policy or a rule is, from the least to the most strict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Enforcement {
    /// Does nothing. It must be quoted in YAML: `off` without quotes means `false`.
    Off,
    /// Changes and denies nothing, creates no companions; records what would have happened.
    Audit,
    /// Injects, and allows workloads that do not conform with warnings.
    Warn,
    /// Injects, and denies workloads that do not conform.
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
            other => Err(D::Error::custom(format!("`{other}` is not a valid enforcement"))),
        }
    }
}

/// The model servers that a policy selects. All fields must match.
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

/// A label selector, as in Kubernetes.
///
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors>
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    /// Labels, each with the value that it must have.
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
    "operator must be one of In, NotIn, Exists, DoesNotExist"
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

/// Requests and limits by class of container: `gpu` for containers that request a GPU, `cpu` for others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// For containers without a GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<ContainerDefaults>,
    /// For containers with a GPU. CPU and memory limits are not recommended for these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<ContainerDefaults>,
    /// Bounds of requests and limits, by resource name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bounds: BTreeMap<String, Bound>,
}

/// Default requests and limits of a container, by resource name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerDefaults {
    /// A missing request is set to the smaller of this and the container's limit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
    /// A missing limit is set to the larger of this and the container's request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Quantity>,
}

/// The bounds of a quantity, both inclusive.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("has(self.min) || has(self.max)", "a bound must have a min, a max, or both"))]
pub struct Bound {
    /// The minimum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Quantity>,
    /// The maximum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Quantity>,
}

/// Where probes come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ProbeSource {
    /// From the preset of the detected runtime; an unknown runtime with one known port gets TCP probes.
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
    /// How long a model server may take to start, such as `10m`. Default: that of its runtime's preset, or 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = (
        "duration(self) >= duration('10s') && duration(self) <= duration('24h')",
        "startupBudget must be between 10s and 24h"
    ))]
    pub startup_budget: Option<Duration>,
}

/// Fields of a model server's pods, other than resources, probes and the database, that are injected where they are
/// missing. Those that depend on the runtime are injected only if it is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pod {
    /// A `preStop` sleep and a termination grace period that suit the runtime. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_shutdown: Option<bool>,
    /// A progress deadline above the start-up budget, so that a rollout does not fail while a model loads. Default:
    /// true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_deadline: Option<bool>,
    /// Memory at `/dev/shm` for a model that uses several GPUs. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_memory: Option<bool>,
    /// The size of that memory, at most half of the container's memory limit. Default: 8Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_memory_size: Option<Quantity>,
    /// `enableServiceLinks: false` for a runtime that reads those variables as settings. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_service_links: Option<bool>,
    /// Topology spread over zones, where possible, for two or more replicas. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology_spread: Option<bool>,
    /// A toleration for the usual taint of GPU nodes. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_toleration: Option<bool>,
}

/// The kind of autoscaler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum AutoscalingEngine {
    /// A HorizontalPodAutoscaler.
    #[default]
    Hpa,
    /// A KEDA ScaledObject, which queries Prometheus for the number of waiting requests.
    Keda,
    /// No autoscaler.
    None,
}

/// The autoscaler of each model server.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = (
    "!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
    "minReplicas must not be above maxReplicas"
))]
pub struct Autoscaling {
    /// The kind of autoscaler. Default: `hpa`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<AutoscalingEngine>,
    /// The minimum number of replicas. Default: 1. Zero is for engine `keda`, and from Kubernetes 1.37 on for engine
    /// `hpa` with a metric of type Object or External.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self >= 0", "minReplicas must be at least 0"))]
    pub min_replicas: Option<i32>,
    /// The maximum number of replicas. Default: 10; with engine `none`, users' autoscalers have no maximum unless it is
    /// set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self >= 1", "maxReplicas must be at least 1"))]
    pub max_replicas: Option<i32>,
    /// The `metrics` of `autoscaling/v2`. A `ContainerResource` metric without `container` gets the model server's
    /// container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "metrics_schema")]
    pub metrics: Option<Vec<Map<String, Value>>>,
    /// Scales GPU servers, and others if `metrics` is empty, by the number of waiting requests, if their runtime
    /// reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queue>,
    /// Settings for engine `keda`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keda: Option<Keda>,
    /// The `behavior` of `autoscaling/v2`. Default: the API server's; with `queue`, one that gives a new pod the
    /// start-up budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_object_schema")]
    pub behavior: Option<Map<String, Value>>,
    /// Keeps the live `spec.replicas` when an update would reset the number that an autoscaler set within its bounds.
    /// Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preserve_replicas: Option<bool>,
    /// Gives up the ownership of `spec.replicas` that an autoscaler gets by scaling within its bounds, so that
    /// server-side apply of a manifest with `replicas` does not conflict. Needs `preserveReplicas`. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_replicas: Option<bool>,
}

/// Scaling by the number of waiting requests.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Queue {
    /// The number of waiting requests for each replica. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average_value: Option<Quantity>,
    /// The name of the metric that the metrics adapter serves. Default: the runtime's own, such as
    /// `vllm:num_requests_waiting`, with `_` for `:`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub metric: Option<String>,
}

/// The ScaledObject of a model server, which queries Prometheus.
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
        "serverAddress must begin with http:// or https://"
    ))]
    pub server_address: Option<String>,
    /// The query, in PromQL. `{namespace}` and `{name}` are replaced by those of the workload, `{pods}` by a regular
    /// expression that matches the names of its pods. Default: the number of waiting requests that its pods report;
    /// with `minReplicas: 0` there is no default, since there may be no pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub query: Option<String>,
    /// The target value of the query for each replica. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Quantity>,
    /// The value above which a workload is scaled from zero. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_threshold: Option<Quantity>,
    /// Seconds between two queries. Default: KEDA's 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self >= 1", "pollingInterval must be at least 1"))]
    pub polling_interval: Option<i32>,
    /// Seconds without waiting requests before scaling to zero. Default: the start-up budget, at least KEDA's 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self >= 0", "cooldownPeriod must be at least 0"))]
    pub cooldown_period: Option<i32>,
    /// The replicas while Prometheus does not answer. Default: they are not changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
}

/// The replicas while Prometheus does not answer.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fallback {
    /// The number of failed queries in a row before it applies.
    #[x_kube(validation = ("self >= 0", "failureThreshold must be at least 0"))]
    pub failure_threshold: i32,
    /// The number of replicas.
    #[x_kube(validation = ("self >= 0", "replicas must be at least 0"))]
    pub replicas: i32,
}

/// The PodDisruptionBudget of each model server that may have several replicas, unless its pods have another.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DisruptionBudget {
    /// Whether it is created. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The number of pods that may be evicted at a time. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self >= 1", "maxUnavailable must be at least 1: zero keeps nodes from being drained"))]
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
    /// The rule's parameters, as listed by `tidegate explain RULE`.
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
        "an id must be lower-case letters, digits and dashes, and start with a letter"
    ))]
    pub id: String,
    /// True if a workload conforms.
    pub expression: String,
    /// The message for a workload that does not, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Returns the message; `message` is used if it cannot be evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_expression: Option<String>,
    /// The field that the rule is about, such as `metadata.labels.team`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Values for all expressions, as `variables.<name>`; each may use those before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<CustomVariable>,
    /// Values for all expressions, as `params`; `rules.<id>.params` replaces them in an environment.
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
    /// Its value, in CEL.
    pub expression: String,
}

/// The observed state of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServingPolicyStatus {
    /// The generation that the conditions are about.
    #[serde(default)]
    pub observed_generation: i64,
    /// `Ready`: whether this generation is applied; if not, the last valid one stays applied. `Conflicting`: whether
    /// another policy of the same priority sets other values.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// The number of workloads that the policy selects, and of those that do not conform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workloads: Option<WorkloadCounts>,
    /// Workloads that run a known runtime and would be selected if they were labelled as model servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlabelled: Option<Unlabelled>,
}

/// Workloads that are not labelled as model servers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unlabelled {
    /// Their number.
    pub count: i64,
    /// The first ten of them, by name: `namespace/name`.
    #[serde(default)]
    pub names: Vec<String>,
}

/// The number of workloads that a policy selects, and of those that do not conform as they are stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadCounts {
    /// The workloads that the policy selects.
    pub matched: i64,
    /// Those that violate a rule that it enforces: they would be denied if they were new.
    pub refused: i64,
    /// Those that violate a rule of which it only warns.
    pub warned: i64,
}

/// One condition of a policy or model server, as in Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// The type of the condition, such as `Ready`.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// The reason for the status, in one word.
    pub reason: String,
    /// A message for users.
    pub message: String,
    /// The last time that `status` changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
}

impl Condition {
    /// Creates a condition; `last_transition_time` is set when it is written.
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
