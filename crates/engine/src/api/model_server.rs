//! `ModelServer`: the state of one model server, for users to read.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Condition;

/// The state of one model server. Tidegate writes it; the workload owns it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "tidegate.dev",
    version = "v1alpha1",
    kind = "ModelServer",
    doc = "The state of one model server. Tidegate writes it; the workload owns it.",
    namespaced,
    shortname = "ms",
    status = "ModelServerStatus",
    derive = "PartialEq",
    printcolumn(name = "Runtime", type_ = "string", json_path = ".status.runtime"),
    printcolumn(name = "Policy", type_ = "string", json_path = ".status.policy"),
    printcolumn(name = "Managed", type_ = "string", json_path = ".status.conditions[?(@.type=='Managed')].status"),
    printcolumn(name = "Conforms", type_ = "string", json_path = ".status.conforms"),
    printcolumn(name = "Min", type_ = "integer", json_path = ".status.replicas.min"),
    printcolumn(name = "Max", type_ = "integer", json_path = ".status.replicas.max"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicas.now"),
    printcolumn(name = "Autoscaler", type_ = "string", json_path = ".status.autoscaler.name"),
    printcolumn(name = "Database", type_ = "string", json_path = ".status.database.name"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Why",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ModelServerSpec {
    /// The kind of the workload that serves the model, such as `Deployment`.
    pub kind: String,
    /// The name of that workload.
    pub name: String,
}

/// The observed state of a model server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelServerStatus {
    /// The generation of the workload that this status is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// The runtime that was recognised, or `unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// How the runtime is known: declared by an annotation, inferred from the command or the image, or unresolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_source: Option<String>,
    /// The policies that select it, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Whether it conforms to them now: `True`, `False`, or `Unknown` if no policy applies to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conforms: Option<String>,
    /// The current number of replicas, and its bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<ReplicasStatus>,
    /// The autoscaler that sets the replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaler: Option<AutoscalerStatus>,
    /// The PodDisruptionBudget for its pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruption_budget: Option<DisruptionBudgetStatus>,
    /// The database that was created for it or is bound to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseStatus>,
    /// `Ready`, `Managed`, `Conforming`, `AutoscalerReady`, `DisruptionBudgetReady` and `DatabaseReady`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// The number of replicas of a model server, and its bounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicasStatus {
    /// The minimum that its autoscaler keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    /// The maximum that its autoscaler creates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
    /// The current number.
    pub now: i64,
}

/// The autoscaler of a model server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalerStatus {
    /// Its kind, such as `HorizontalPodAutoscaler`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// `tidegate`, or `user` if a user created it.
    pub managed_by: String,
}

/// The PodDisruptionBudget of a model server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DisruptionBudgetStatus {
    /// Its name.
    pub name: String,
    /// `tidegate`, or `user` if a user created it.
    pub managed_by: String,
}

/// The database of a model server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseStatus {
    /// Its kind, such as `postgresql`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The phase that its operator reports, such as `Running`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
}
