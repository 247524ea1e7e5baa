//! Recognises model servers. What is known of each runtime is data: the presets in `policies/runtimes`.

mod endpoint;
mod preset;

use std::sync::LazyLock;

pub use endpoint::{Endpoint, Handler};
pub use preset::{Preset, PresetError};

use crate::api::CONTAINER_ANNOTATION;
use crate::workload::{Container, Workload};

/// The presets, a file each.
const TEXTS: [&str; 15] = [
    include_str!("../policies/runtimes/bentoml.yaml"),
    include_str!("../policies/runtimes/infinity.yaml"),
    include_str!("../policies/runtimes/kserve.yaml"),
    include_str!("../policies/runtimes/llama-cpp.yaml"),
    include_str!("../policies/runtimes/lmdeploy.yaml"),
    include_str!("../policies/runtimes/mlserver.yaml"),
    include_str!("../policies/runtimes/nim.yaml"),
    include_str!("../policies/runtimes/ollama.yaml"),
    include_str!("../policies/runtimes/sglang.yaml"),
    include_str!("../policies/runtimes/tei.yaml"),
    include_str!("../policies/runtimes/tensorflow-serving.yaml"),
    include_str!("../policies/runtimes/tgi.yaml"),
    include_str!("../policies/runtimes/torchserve.yaml"),
    include_str!("../policies/runtimes/triton.yaml"),
    include_str!("../policies/runtimes/vllm.yaml"),
];

static PRESETS: LazyLock<Vec<Preset>> = LazyLock::new(|| {
    let presets = TEXTS.into_iter().map(|text| Preset::parse(text).expect("the presets are checked by a test"));
    presets.collect()
});

/// Which container of a workload is the model server, and what it runs.
#[derive(Clone, Debug, Default)]
pub struct Recognised<'a> {
    /// The model server's container; none where it cannot be told.
    pub container: Option<Container<'a>>,
    /// The runtime's preset; none where the runtime is unknown.
    pub preset: Option<&'static Preset>,
    /// Why the container cannot be told, where there is more to say than that there are several.
    pub problem: Option<String>,
}

impl<'a> Recognised<'a> {
    /// Returns the runtime's name.
    #[must_use]
    pub fn preset_name(&self) -> Option<&'static str> {
        self.preset.map(|preset| preset.name.as_str())
    }

    /// Returns where and how the model server can be probed.
    ///
    /// # Errors
    /// Says why that cannot be told, and what its author can do, in words that follow the container's name.
    pub fn endpoint(&self) -> Result<Endpoint, String> {
        let container = self.container.as_ref().ok_or("it cannot be told which container is the model server")?;
        match self.preset {
            Some(preset) => endpoint::of_preset(container, preset),
            None => endpoint::unknown(container),
        }
    }

    fn of(container: Container<'a>) -> Self {
        let preset = PRESETS.iter().find(|preset| preset.recognises(&container));
        Self { container: Some(container), preset, problem: None }
    }
}

/// Finds the model server's container: the one that the annotation names, else the one that runs a known runtime, else
/// the only one.
#[must_use]
pub fn recognise<'a>(workload: &Workload<'a>) -> Recognised<'a> {
    if let Some(name) = workload.annotation(CONTAINER_ANNOTATION) {
        return match workload.containers().find(|container| container.name() == name) {
            Some(container) => Recognised::of(container),
            None => Recognised { problem: Some(format!("there is no container `{name}`")), ..Recognised::default() },
        };
    }
    let mut known = workload.containers().map(Recognised::of).filter(|found| found.preset.is_some());
    if let (Some(found), None) = (known.next(), known.next()) {
        return found;
    }
    let mut all = workload.containers();
    match (all.next(), all.next()) {
        (Some(only), None) => Recognised::of(only),
        _ => Recognised::default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn workload(containers: &Value, annotation: Option<&str>) -> Value {
        let annotations = annotation.map(|name| json!({CONTAINER_ANNOTATION: name}));
        json!({"metadata": {"annotations": annotations}, "spec": {"template": {"spec": {"containers": containers}}}})
    }

    fn found(containers: &Value, annotation: Option<&str>) -> (Option<String>, Option<&'static str>) {
        let object = workload(containers, annotation);
        let recognised = recognise(&Workload::view(&object).unwrap());
        (recognised.container.map(|container| container.name().to_owned()), recognised.preset_name())
    }

    #[test]
    fn every_preset_can_be_read() {
        assert!(PRESETS.iter().all(|preset| !preset.name.is_empty()));
    }

    #[test]
    fn the_annotation_comes_first() {
        let containers = json!([{"name": "a", "image": "vllm/vllm-openai:v1"}, {"name": "b", "image": "app:1"}]);
        assert_eq!(found(&containers, Some("b")), (Some("b".into()), None));
        assert_eq!(found(&containers, Some("c")), (None, None));
    }

    #[test]
    fn a_known_runtime_is_found_beside_its_sidecars() {
        let containers =
            json!([{"name": "proxy", "image": "envoy:1"}, {"name": "m", "image": "mirror/vllm/vllm-openai:v1"}]);
        assert_eq!(found(&containers, None), (Some("m".into()), Some("vllm")));
    }

    #[test]
    fn two_of_a_kind_cannot_be_told_apart() {
        let containers =
            json!([{"name": "a", "image": "vllm/vllm-openai:v1"}, {"name": "b", "image": "vllm/vllm-openai:v1"}]);
        assert_eq!(found(&containers, None), (None, None));
        assert_eq!(found(&json!([{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:1"}]), None), (None, None));
    }
}
