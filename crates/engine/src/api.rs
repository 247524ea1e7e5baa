//! The custom resources as Rust types, and their CustomResourceDefinitions.

#[expect(unreachable_pub, reason = "the derive repeats each type within a function")]
mod database;
mod model_server;
#[expect(unreachable_pub, reason = "the derive repeats each type within a function")]
mod runtime;
#[expect(unreachable_pub, reason = "the derive repeats each type within a function")]
mod serving_exception;
#[expect(unreachable_pub, reason = "the derive repeats each type within a function")]
mod serving_policy;

pub use database::{
    CloudNativePg, ConnectionPooler, Database, DatabaseAmounts, DatabaseCreation, DatabaseEnv, DatabaseKeys,
    DatabasePart, DatabaseProvider, DatabaseResources, DatabaseSecret, DatabaseTls, PoolerMode, PreparedDatabase,
    PreparedSchema, RoleFlag, Volume, Zalando,
};
pub use model_server::{
    AutoscalerStatus, DatabaseStatus, DisruptionBudgetStatus, ModelServer, ModelServerSpec, ModelServerStatus,
    ReplicasStatus,
};
pub use runtime::{
    Builds, Drain, Given, GpuNeed, Host, Metrics, ModelSource, OwnImage, Parallel, Port, Recognise, Runtime,
    RuntimeProbe, RuntimeProbes, Variant, When,
};
pub use serving_exception::{ExceptedWorkloads, ServingException, ServingExceptionSpec, ServingExceptionStatus};
pub use serving_policy::{
    Autoscaling, AutoscalingEngine, Bound, Condition, ContainerDefaults, CustomRule, CustomVariable, DisruptionBudget,
    Enforcement, Environment, EnvironmentSource, ExceptionBounds, Fallback, Keda, LabelRequirement, LabelSelector,
    Match, Pod, ProbeSource, Probes, Queue, Resources, RuleSettings, ServingPolicy, ServingPolicySpec,
    ServingPolicyStatus, Unlabelled, WorkloadCounts, WorkloadKind,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

/// The API group of everything Tidegate defines.
pub const GROUP: &str = "tidegate.dev";

/// Label on a namespace all of whose workloads are model servers, and its value.
pub const MODEL_SERVERS_LABEL: (&str, &str) = ("tidegate.dev/model-servers", "all");

/// Annotation on a workload that names its model server container if Tidegate cannot determine it.
pub const CONTAINER_ANNOTATION: &str = "tidegate.dev/container";

/// Annotation on a workload: the name of its runtime, or `none` if it has no known runtime.
pub const RUNTIME_ANNOTATION: &str = "tidegate.dev/runtime";

/// Annotation on a workload: the minimum number of replicas of its autoscaler, within the policy's bounds.
pub const MIN_REPLICAS_ANNOTATION: &str = "tidegate.dev/min-replicas";

/// Annotation on a workload: the maximum number of replicas of its autoscaler, within the policy's bounds.
pub const MAX_REPLICAS_ANNOTATION: &str = "tidegate.dev/max-replicas";

/// Annotation on a workload: `none` if it needs no database, `true` to request one.
pub const DATABASE_ANNOTATION: &str = "tidegate.dev/database";

/// Annotation on a workload: `external` if something other than Tidegate scales it.
pub const AUTOSCALING_ANNOTATION: &str = "tidegate.dev/autoscaling";

/// Annotation on a workload: `true` if it existed before Tidegate, which is to manage it without changing it.
pub const ADOPTED_ANNOTATION: &str = "tidegate.dev/adopted";

/// Annotation on a workload that records what Tidegate injected into it: the receipt.
pub const RECEIPT_ANNOTATION: &str = "tidegate.dev/receipt";

/// The annotations that a workload's author may set.
pub const AUTHORS_ANNOTATIONS: [&str; 7] = [
    CONTAINER_ANNOTATION,
    RUNTIME_ANNOTATION,
    MIN_REPLICAS_ANNOTATION,
    MAX_REPLICAS_ANNOTATION,
    DATABASE_ANNOTATION,
    AUTOSCALING_ANNOTATION,
    ADOPTED_ANNOTATION,
];

/// Label on a database that Tidegate created and that no workload uses any more: the time since then, in the form that
/// label values allow, such as `2027-01-31T12-00-00Z`.
pub const ORPHANED_SINCE_LABEL: &str = "tidegate.dev/orphaned-since";

/// Prefix of every annotation that Tidegate reads or writes.
pub const ANNOTATION_PREFIX: &str = "tidegate.dev/";

/// Returns the CustomResourceDefinitions to apply to a cluster.
#[must_use]
pub fn crds() -> Vec<Value> {
    [ServingPolicy::crd(), ServingException::crd(), ModelServer::crd()].into_iter().map(structural).collect()
}

/// Removes `additionalProperties: false`, which makes unknown fields errors in files but which a structural
/// schema does not allow next to `properties`: there the API server itself reports unknown fields.
///
/// <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>
fn structural(crd: CustomResourceDefinition) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(map) => {
                if map.get("additionalProperties") == Some(&Value::Bool(false)) {
                    map.remove("additionalProperties");
                }
                map.values_mut().for_each(walk);
            }
            Value::Array(items) => items.iter_mut().for_each(walk),
            _ => {}
        }
    }
    let mut crd = serde_json::to_value(crd).expect("a CustomResourceDefinition is plain data");
    walk(&mut crd);
    crd
}
