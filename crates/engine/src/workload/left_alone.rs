//! Workloads that Tidegate leaves alone, because another object decides what their pods are.

use serde_json::Value;

use super::Workload;

/// Why Tidegate leaves a workload alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftAlone {
    /// The reason, as in a condition.
    pub reason: &'static str,
    /// The message.
    pub message: String,
}

/// A label by which an operator marks the workloads that it creates.
struct Mark {
    /// The label.
    label: &'static str,
    /// The beginning of its value.
    value: &'static str,
    /// The kind of the object that they were created for.
    kind: &'static str,
    /// The label with the name of that object.
    name: &'static str,
}

/// The marks of operators. Most of them set an owner reference too, but not on everything, and the owner of a worker of
/// a LeaderWorkerSet is a Pod.
///
/// <https://github.com/kubernetes-sigs/lws/blob/main/api/leaderworkerset/v1/leaderworkerset_types.go>,
/// <https://github.com/kubernetes-sigs/lws/blob/main/api/disaggregatedset/v1/disaggregatedset_types.go>,
/// <https://github.com/ai-dynamo/dynamo/blob/main/deploy/operator/internal/consts/consts.go>,
/// <https://github.com/kaito-project/kaito/blob/main/api/v1beta1/labels.go>,
/// <https://github.com/kserve/kserve/tree/master/pkg/controller/v1alpha2/llmisvc>,
/// <https://github.com/NVIDIA/k8s-nim-operator/blob/main/api/apps/v1alpha1/nimservice_types.go>
const MARKS: &[Mark] = &[
    Mark::named("leaderworkerset.sigs.k8s.io/name", "LeaderWorkerSet"),
    Mark::named("disaggregatedset.x-k8s.io/name", "DisaggregatedSet"),
    Mark::named("nvidia.com/dynamo-graph-deployment-name", "DynamoGraphDeployment"),
    Mark::named("kaito.sh/workspace", "Workspace"),
    Mark {
        label: "app.kubernetes.io/component",
        value: "llminferenceservice-workload",
        kind: "LLMInferenceService",
        name: "app.kubernetes.io/name",
    },
    Mark {
        label: "app.kubernetes.io/managed-by",
        value: "k8s-nim-operator",
        kind: "NIMService",
        name: "app.kubernetes.io/instance",
    },
];

impl Mark {
    /// Returns the mark of a label whose value is the name of the object.
    const fn named(label: &'static str, kind: &'static str) -> Self {
        Self { label, value: "", kind, name: label }
    }

    /// Returns the object that a workload was created for, such as `LeaderWorkerSet llm`.
    fn of(&self, workload: &Workload) -> Option<String> {
        let label = |label: &str| workload.labels()?.get(label)?.as_str();
        label(self.label).filter(|value| value.starts_with(self.value))?;
        Some(format!("{} {}", self.kind, label(self.name).unwrap_or_default()).trim_end().to_owned())
    }
}

impl LeftAlone {
    /// Returns why Tidegate leaves a workload alone, if it does.
    pub(super) fn of(workload: &Workload) -> Option<Self> {
        let reference = workload.known_kind().template_reference.and_then(|pointer| workload.object().pointer(pointer));
        if let Some(reference) = reference.filter(|reference| reference.is_object()) {
            let text = |field: &str| reference[field].as_str().unwrap_or_default();
            let template = format!("{} {}", text("kind"), text("name"));
            let message = format!("its pod template is that of {template}: tidegate manages the template there");
            return Some(Self { reason: "TemplateElsewhere", message });
        }
        let marked = || MARKS.iter().find_map(|mark| mark.of(workload));
        controller(workload).or_else(marked).map(|controller| Self {
            reason: "OwnedByController",
            message: format!("{controller} owns the workload: tidegate does not manage it"),
        })
    }
}

/// Returns the controller that owns a workload, such as `InferenceService api`.
fn controller(workload: &Workload) -> Option<String> {
    let owners = workload.metadata("ownerReferences").as_array()?;
    let owner = owners.iter().find(|owner: &&Value| owner["controller"] == true)?;
    Some(format!("{} {}", owner["kind"].as_str()?, owner["name"].as_str()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(metadata: &Value) -> Option<String> {
        let object = json!({"metadata": metadata});
        LeftAlone::of(&Workload::view(&object).unwrap()).map(|left| left.message)
    }

    #[test]
    fn leaves_the_workloads_of_other_controllers_alone() {
        let owned = |owner: &str| Some(format!("{owner} owns the workload: tidegate does not manage it"));
        let reference = |is_controller: bool| {
            message(&json!({"ownerReferences": [{"kind": "RayService", "name": "llm", "controller": is_controller}]}))
        };
        assert_eq!((reference(true), reference(false)), (owned("RayService llm"), None));
        for (labels, owner) in [
            (json!({"leaderworkerset.sigs.k8s.io/name": "llm"}), "LeaderWorkerSet llm"),
            (json!({"disaggregatedset.x-k8s.io/name": "llm"}), "DisaggregatedSet llm"),
            (json!({"nvidia.com/dynamo-graph-deployment-name": "llm"}), "DynamoGraphDeployment llm"),
            (json!({"kaito.sh/workspace": "llm"}), "Workspace llm"),
            (
                json!({"app.kubernetes.io/component": "llminferenceservice-workload-prefill",
                    "app.kubernetes.io/name": "llm"}),
                "LLMInferenceService llm",
            ),
            (json!({"app.kubernetes.io/managed-by": "k8s-nim-operator"}), "NIMService"),
        ] {
            assert_eq!(message(&json!({"labels": labels})), owned(owner), "{labels}");
        }
        let rollout = json!({"kind": "Rollout", "metadata": {}, "spec": {
            "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "api"},
            "template": {"metadata": {}, "spec": {"containers": null}}}});
        let left = LeftAlone::of(&Workload::view(&rollout).unwrap()).unwrap();
        assert_eq!(left.message, "its pod template is that of Deployment api: tidegate manages the template there");
        let others = json!({"app.kubernetes.io/component": "model-server", "app.kubernetes.io/managed-by": "Helm"});
        assert_eq!(message(&json!({"labels": others})), None);
    }
}
