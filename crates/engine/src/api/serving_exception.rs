//! `ServingException`: rules from which workloads are exempt, why and until when.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, LabelSelector};

/// Exempts workloads in its namespace from rules for a limited time. Bounds on injected values still apply.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tidegate.dev",
    version = "v1alpha1",
    kind = "ServingException",
    doc = "Exempts workloads in its namespace from rules for a limited time.",
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
    /// The exempted workloads.
    #[x_kube(validation = (
        "has(self.names) && size(self.names) > 0 || has(self.selector)",
        "an exception must name workloads or select them by label"
    ))]
    pub workloads: ExceptedWorkloads,
    /// The ids of the rules from which they are exempt.
    #[x_kube(validation = ("size(self) > 0", "an exception must name at least one rule"))]
    pub rules: Vec<String>,
    /// Why the workloads are exempt.
    #[x_kube(validation = ("self.trim() != ''", "reason must not be empty"))]
    pub reason: String,
    /// When the exception expires, such as `2027-01-31T00:00:00Z`.
    pub expires: Time,
}

/// The workloads that are exempt: those that are named, and those that the selector matches.
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

/// The observed state of an exception.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServingExceptionStatus {
    /// The generation that the conditions are about.
    #[serde(default)]
    pub observed_generation: i64,
    /// How many violations of existing workloads it exempts.
    #[serde(default)]
    pub used: i64,
    /// `Active`: whether the exception applies.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}
