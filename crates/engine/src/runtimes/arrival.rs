//! How the model of a server arrives in its pod, which decides what time limit covers it. What the server downloads
//! itself is covered by its startup probe; a claim has the model already. Images are pulled and init containers run
//! before that: only the progress deadline covers them.
//!
//! <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#progress-deadline-seconds>

use serde_json::Value;

use super::Recognised;
use crate::workload::{Container, Workload, items};

/// Returns whether an image volume contains the model, or an init container or a sidecar writes it.
pub(super) fn is_before_server(workload: &Workload, recognised: &Recognised) -> bool {
    let Some((server, model)) = recognised.container.zip(recognised.model().found()) else { return false };
    let Some(name) = volume_at(&server, model) else { return false };
    let volume = items(&workload.pod_spec()["volumes"]).find(|volume| volume["name"] == name);
    let is_shared = || {
        let is_server = |other: &Container| (other.list(), other.name()) == (server.list(), server.name());
        let mut others = workload.all_containers().filter(|other| !is_server(other));
        others.any(|other| mounts(&other).any(|mount| mount["name"] == name))
    };
    volume.is_some_and(|volume| volume["image"].is_object() || (volume["emptyDir"].is_object() && is_shared()))
}

/// Returns the volume that a container mounts at or above a path.
fn volume_at<'a>(container: &Container<'a>, path: &str) -> Option<&'a str> {
    let above = mounts(container).filter_map(|mount| {
        let at = mount["mountPath"].as_str()?.trim_end_matches('/');
        let is_above = path.strip_prefix(at).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        is_above.then_some((at.len(), mount["name"].as_str()?))
    });
    above.max_by_key(|(length, _)| *length).map(|(_, name)| name)
}

fn mounts<'a>(container: &Container<'a>) -> impl Iterator<Item = &'a Value> + use<'a> {
    items(container.field("volumeMounts"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::runtimes::Runtimes;
    use crate::testing::deployment;

    fn is_before(model: &str, mounts: &Value, init: &Value, volumes: &Value) -> bool {
        let server = json!({"name": "api", "image": "vllm/vllm-openai:v0.11.0", "args": ["--model", model],
            "volumeMounts": mounts});
        let mut object = deployment(&json!([server]));
        object["spec"]["template"]["spec"]["initContainers"] = init.clone();
        object["spec"]["template"]["spec"]["volumes"] = volumes.clone();
        let workload = Workload::view(&object).unwrap();
        let recognition = Runtimes::shipped().recognise(&workload);
        is_before_server(&workload, &recognition.view(&workload))
    }

    #[test]
    fn the_volume_of_a_model_says_how_it_arrives() {
        let mounts = json!([{"name": "other", "mountPath": "/"}, {"name": "models", "mountPath": "/models/"}]);
        let of = |volume: Value, init: Value| {
            let mut models = json!({"name": "models"});
            json_patch::merge(&mut models, &volume);
            is_before("/models/llama", &mounts, &init, &json!([{"name": "other", "emptyDir": {}}, models]))
        };
        assert!(of(json!({"image": {"reference": "registry.example.com/llama:1"}}), json!([])));
        assert!(!of(json!({"persistentVolumeClaim": {"claimName": "models"}}), json!([])));
        let download = |volume: &str| json!([{"name": "get", "volumeMounts": [{"name": volume, "mountPath": "/m"}]}]);
        assert!(of(json!({"emptyDir": {}}), download("models")));
        assert!(!of(json!({"emptyDir": {}}), download("other")) && !of(json!({"emptyDir": {}}), json!([])));
    }

    #[test]
    fn only_the_folder_of_the_model_counts() {
        let image = json!([{"name": "models", "image": {"reference": "registry.example.com/llama:1"}}]);
        let mounts = json!([{"name": "models", "mountPath": "/models"}]);
        let of = |model: &str| is_before(model, &mounts, &json!([]), &image);
        assert!(of("/models") && of("/models/llama"));
        assert!(!of("/models-of-others/llama") && !of("org/model"));
    }
}
