//! Minimal objects to apply.

use serde_json::{Value, json};

/// Returns a minimal model server of an unknown runtime.
pub(crate) fn model_server(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name, "app.kubernetes.io/component": "model-server"}},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{
                    "name": "api", "image": "registry.example.com/api:1.0.0", "ports": [{"containerPort": 8080}]
                }]}
            }
        }
    })
}

/// Returns a model server that runs vLLM.
pub(crate) fn vllm(name: &str) -> Value {
    let mut object = model_server(name);
    container(&mut object)["image"] = "vllm/vllm-openai:v0.10.0".into();
    container(&mut object)["ports"] = json!([{"containerPort": 8000}]);
    object
}

/// Returns the only container of a workload.
pub(crate) fn container(workload: &mut Value) -> &mut Value {
    &mut workload["spec"]["template"]["spec"]["containers"][0]
}

/// Returns an environment variable of a container; null if there is none.
pub(crate) fn env<'c>(container: &'c Value, name: &str) -> &'c Value {
    let variables = container["env"].as_array().map_or(&[][..], Vec::as_slice);
    variables.iter().find(|variable| variable["name"] == name).unwrap_or(&Value::Null)
}

/// The label that makes a Deployment a model server.
pub(crate) const LABEL: &str = "app.kubernetes.io/component";

/// Sets or removes the label of a workload.
pub(crate) fn label(workload: &mut Value, value: Option<&str>) {
    let labels = workload["metadata"]["labels"].as_object_mut().unwrap();
    match value {
        Some(value) => labels.insert(LABEL.to_owned(), value.into()),
        None => labels.remove(LABEL),
    };
}

/// Returns the policy `serving`, under the name of a namespace and for that namespace only.
pub(crate) fn serving(namespace: &str) -> Value {
    let text = include_str!("../../policies/serving.yaml");
    let mut policy: Value = serde_saphyr::from_str(text).unwrap();
    policy["metadata"]["name"] = namespace.into();
    policy["spec"]["match"] = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}});
    policy
}
