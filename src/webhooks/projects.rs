//! The labels by which other projects mark model servers. Each project has a component in `manifests/selectors`.

use tidegate_engine::policy::Labels;

/// A project whose model servers have a label of their own.
#[derive(Debug)]
pub struct Project {
    /// The name of its component.
    pub name: &'static str,
    /// Its labels, each of which marks a model server.
    pub labels: &'static [(&'static str, &'static str)],
}

/// The projects. To add one: write its entry, then `make generate`.
///
/// llm-d spells its label in two ways. Its chart sets it on the pods alone, where the API server does not look; it has to
/// be set on the workload too:
/// <https://github.com/llm-d-incubation/llm-d-modelservice/blob/main/charts/llm-d-modelservice/templates/decode-deployment.yaml>.
/// The chart of production-stack sets its label on both:
/// <https://github.com/vllm-project/production-stack/blob/main/helm/templates/_helpers.tpl>.
pub const PROJECTS: [Project; 2] = [
    Project { name: "llm-d", labels: &[("llm-d.ai/inference-serving", "true"), ("llm-d.ai/inferenceServing", "true")] },
    Project { name: "production-stack", labels: &[("app.kubernetes.io/component", "serving-engine")] },
];

impl Project {
    /// Returns its labels, each as a selector.
    pub fn selectors(&self) -> impl Iterator<Item = Labels> {
        self.labels.iter().map(|(key, value)| [((*key).to_owned(), (*value).to_owned())].into())
    }
}
