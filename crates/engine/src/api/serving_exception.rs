//! `ServingException`: what a team is let off, for whom, why and until when.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, LabelSelector};

/// Lets workloads of its namespace break rules for a time. It lifts no bound of injection: only rules.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tidegate.dev",
    version = "v1alpha1",
    kind = "ServingException",
    doc = "Lets workloads of its namespace break rules for a time.",
    namespaced,
    shortname = "sx",
    status = "ServingExceptionStatus",
    derive = "PartialEq",
    printcolumn(name = "Rules", type_ = "string", json_path = ".spec.rules"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".spec.expires"),
    printcolumn(name = "Active", type_ = "string", json_path = ".status.conditions[?(@.type=='Active')].status"),
    printcolumn(name = "Used", type_ = "integer", json_path = ".status.used"),
    printcolumn(name = "Why", type_ = "string", json_path = ".spec.reason")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServingExceptionSpec {
    /// The workloads that it is for.
    #[x_kube(validation = (
        "has(self.names) && size(self.names) > 0 || has(self.selector)",
        "an exception names workloads, or selects them by label"
    ))]
    pub workloads: ExceptedWorkloads,
    /// The rules that they may break, by id.
    #[x_kube(validation = ("size(self) > 0", "an exception names the rules that it is from"))]
    pub rules: Vec<String>,
    /// Why, for those who read it later.
    #[x_kube(validation = ("self.trim() != ''", "an exception says why"))]
    pub reason: String,
    /// Until when, such as `2027-01-31T00:00:00Z`. From then on it counts no more.
    pub expires: Time,
}

/// The workloads that an exception is for: those that are named, and those with the labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExceptedWorkloads {
    /// Names of workloads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Labels of workloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// What Tidegate observed of an exception.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServingExceptionStatus {
    /// The generation that the conditions speak of.
    #[serde(default)]
    pub observed_generation: i64,
    /// How many violations of workloads that are there it excuses.
    #[serde(default)]
    pub used: i64,
    /// `Active`: whether it counts.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}
