//! Recognises model servers. The runtimes are data: the presets in `policies/runtimes`, and those of policies.

mod arrival;
mod endpoint;
mod loopback;
mod multi_node;
mod provenance;
mod recognise;
mod variant;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

pub use endpoint::{Endpoint, Handler};
pub use loopback::Loopback;
pub use provenance::Provenance;

use crate::api::{CONTAINER_ANNOTATION, Drain, RUNTIME_ANNOTATION, Runtime};
use crate::workload::{CommandLine, Container, Environment, Lookup, Workload};

/// The presets, one file each.
pub const TEXTS: [&str; 17] = [
    include_str!("../../../policies/runtimes/bentoml.yaml"),
    include_str!("../../../policies/runtimes/infinity.yaml"),
    include_str!("../../../policies/runtimes/kserve.yaml"),
    include_str!("../../../policies/runtimes/llama-cpp.yaml"),
    include_str!("../../../policies/runtimes/lmdeploy.yaml"),
    include_str!("../../../policies/runtimes/mlserver.yaml"),
    include_str!("../../../policies/runtimes/nim.yaml"),
    include_str!("../../../policies/runtimes/ollama.yaml"),
    include_str!("../../../policies/runtimes/openvino.yaml"),
    include_str!("../../../policies/runtimes/ray-serve.yaml"),
    include_str!("../../../policies/runtimes/sglang.yaml"),
    include_str!("../../../policies/runtimes/tei.yaml"),
    include_str!("../../../policies/runtimes/tensorflow-serving.yaml"),
    include_str!("../../../policies/runtimes/tgi.yaml"),
    include_str!("../../../policies/runtimes/torchserve.yaml"),
    include_str!("../../../policies/runtimes/triton.yaml"),
    include_str!("../../../policies/runtimes/vllm.yaml"),
];

static SHIPPED: LazyLock<Runtimes> = LazyLock::new(|| {
    let read = |text| serde_saphyr::from_str::<Runtime>(text).expect("the presets are checked by a test");
    Runtimes(TEXTS.into_iter().map(|text| Arc::new(read(text))).collect())
});

/// The value of the runtime annotation for a workload without a known runtime.
pub const NO_RUNTIME: &str = "none";

/// The runtimes that can be recognised, in order of precedence.
#[derive(Clone, Debug)]
pub struct Runtimes(Vec<Arc<Runtime>>);

impl Runtimes {
    /// Returns the presets that come with Tidegate.
    #[must_use]
    pub fn shipped() -> &'static Self {
        &SHIPPED
    }

    /// Returns other runtimes and then the presets. Of two with the same name, the first is used.
    #[must_use]
    pub fn with(own: impl IntoIterator<Item = Arc<Runtime>>) -> Self {
        let mut all: Vec<Arc<Runtime>> = Vec::new();
        for runtime in own.into_iter().chain(SHIPPED.0.iter().cloned()) {
            if all.iter().all(|known| known.name != runtime.name) {
                all.push(runtime);
            }
        }
        Self(all)
    }

    /// Iterates over the runtimes.
    pub fn iter(&self) -> impl Iterator<Item = &Runtime> {
        self.0.iter().map(Arc::as_ref)
    }

    /// Finds the model server's container: the one that the annotation names, else the one with a known runtime, else
    /// the only one. Its runtime is the one that the annotation names, else the one that is recognised.
    #[must_use]
    pub fn recognise(&self, workload: &Workload) -> Recognition {
        let mut recognition = match workload.annotation(CONTAINER_ANNOTATION) {
            None => self.only(workload),
            Some(name) => self.named(workload, name),
        };
        // A replica of such a kind is the whole group.
        recognition.multi_node = recognition.multi_node.filter(|_| workload.known_kind().group_size.is_none());
        match workload.annotation(RUNTIME_ANNOTATION).filter(|_| recognition.container.is_some()) {
            None => {}
            Some(NO_RUNTIME) => recognition.declare(None),
            Some(name) => {
                if let Some(named) = self.0.iter().find(|runtime| runtime.name == name) {
                    recognition.declare(Some(Arc::clone(named)));
                }
            }
        }
        let container = recognition.container.and_then(|index| workload.containers().nth(index));
        if let Some((runtime, container)) = recognition.runtime.take().zip(container) {
            recognition.runtime = Some(variant::of(runtime, &container, &recognition.words));
        }
        recognition
    }

    /// Recognises the runtime of the container of a name.
    fn named(&self, workload: &Workload, name: &str) -> Recognition {
        let found = workload.containers().enumerate().find(|(_, container)| container.name() == name);
        match found {
            Some((index, container)) => self.runtime_of(index, &container),
            None => Recognition { problem: Some(format!("container `{name}` not found")), ..Recognition::default() },
        }
    }

    /// Finds the only container with a known runtime, else the only container.
    fn only(&self, workload: &Workload) -> Recognition {
        let all = workload.containers().enumerate();
        let mut all: Vec<Recognition> = all.map(|(index, container)| self.runtime_of(index, &container)).collect();
        let mut known = all.iter().enumerate().filter(|(_, found)| found.runtime.is_some()).map(|(place, _)| place);
        let place = match (known.next(), known.next()) {
            (Some(place), None) => Some(place),
            _ if all.len() == 1 => Some(0),
            _ => None,
        };
        place.map(|place| all.swap_remove(place)).unwrap_or_default()
    }

    /// Recognises the runtime of one of the containers.
    fn runtime_of(&self, index: usize, container: &Container) -> Recognition {
        let run = recognise::Run::of(container);
        let server = |runtime: &Arc<Runtime>| Some((Arc::clone(runtime), run.server(runtime)?));
        let multi_node = run.multi_node();
        match self.0.iter().find_map(server) {
            Some((runtime, (words, provenance))) => Recognition {
                container: Some(index),
                runtime: Some(runtime),
                words,
                problem: None,
                provenance,
                multi_node,
            },
            None => Recognition { container: Some(index), words: run.words(), multi_node, ..Recognition::default() },
        }
    }
}

/// The container of a workload that is the model server, and its runtime. It stays valid while the workload's
/// annotations, and the images, commands, arguments and environment variables of its containers, are the same.
#[derive(Clone, Debug, Default)]
pub struct Recognition {
    /// The index of the model server's container; none if it is unknown.
    container: Option<usize>,
    runtime: Option<Arc<Runtime>>,
    words: CommandLine,
    problem: Option<String>,
    provenance: Provenance,
    multi_node: Option<String>,
}

impl Recognition {
    /// Returns the recognition with the container as in this version of the workload.
    #[must_use]
    pub fn view<'a>(&'a self, workload: &Workload<'a>) -> Recognised<'a> {
        Recognised {
            container: self.container.and_then(|index| workload.containers().nth(index)),
            runtime: self.runtime.as_deref(),
            words: &self.words,
            problem: self.problem.as_deref(),
            multi_node: self.multi_node.as_deref(),
        }
    }

    /// Sets the runtime that an annotation declares.
    fn declare(&mut self, runtime: Option<Arc<Runtime>>) {
        self.runtime = runtime;
        self.provenance = Provenance::Declared;
    }

    /// Returns how the runtime is known.
    #[must_use]
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Returns the name of the runtime.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.runtime.as_ref().map(|runtime| runtime.name.as_str())
    }
}

/// The container of a workload that is the model server, and its runtime, for one version of the workload.
#[derive(Clone, Copy, Debug)]
pub struct Recognised<'a> {
    /// The model server's container; none if it is unknown.
    pub container: Option<Container<'a>>,
    /// Its runtime; none if it is unknown.
    pub runtime: Option<&'a Runtime>,
    /// The container's command line.
    pub words: &'a CommandLine,
    /// Why the container is unknown, unless the reason is that there are several.
    pub problem: Option<&'a str>,
    /// The sign that each pod is a part of one server rather than a copy of it, such as `--nnodes 2`.
    pub multi_node: Option<&'a str>,
}

impl<'a> Recognised<'a> {
    /// Returns the model server's container.
    ///
    /// # Errors
    /// Returns why it is unknown, and what the workload's author can do.
    pub fn server(&self) -> Result<&Container<'a>, String> {
        self.container.as_ref().ok_or_else(|| {
            let why = self.problem.unwrap_or("it is unknown which container is the model server");
            format!(
                "{why}; name it in the annotation {CONTAINER_ANNOTATION}, which applies when the pod template changes"
            )
        })
    }

    /// Returns the runtime's name.
    #[must_use]
    pub fn name(&self) -> Option<&'a str> {
        self.runtime.map(|runtime| runtime.name.as_str())
    }

    /// Returns how the model server can be probed.
    ///
    /// # Errors
    /// Returns why this is unknown, and what the workload's author can do, as a clause after the container's name.
    pub fn endpoint(&self) -> Result<Endpoint, String> {
        let container = self.server()?;
        match self.runtime {
            Some(runtime) => endpoint::of_runtime(container, runtime, self.words),
            None => endpoint::unknown(container),
        }
    }

    /// Returns the container and its runtime, if both are known.
    #[must_use]
    pub fn known(&self) -> Option<(&Container<'a>, &'a Runtime)> {
        Some((self.container.as_ref()?, self.runtime?))
    }

    /// Returns whether the container's arguments say that it does not serve HTTP.
    #[must_use]
    pub fn is_worker(&self) -> bool {
        self.runtime.is_some_and(|runtime| endpoint::without_http(runtime, self.words).found().is_some())
    }

    /// Returns why the server listens only on localhost, if it certainly does.
    #[must_use]
    pub fn loopback(&self) -> Option<Loopback<'a>> {
        let (container, runtime) = self.known()?;
        loopback::of(container, runtime, self.words)
    }

    /// Returns how the runtime stops without losing requests. The grace period includes the time that the server's
    /// flags give it to finish its requests.
    #[must_use]
    pub fn drain(&self) -> Option<Drain> {
        let mut drain = self.runtime.filter(|_| !self.is_worker())?.drain.clone()?;
        let seconds = self.words.value_of_any(&drain.timeout).found().and_then(|seconds| seconds.parse().ok());
        let needed = Duration::from(drain.pre_stop).saturating_add(Duration::from_secs(seconds.unwrap_or_default()));
        drain.grace_period = needed.max(drain.grace_period.into()).into();
        Some(drain)
    }

    /// Returns the words of all commands that the container runs, before the server and after it.
    #[must_use]
    pub fn all_words(&self) -> CommandLine {
        let Some(container) = &self.container else { return CommandLine::default() };
        let environment = Environment::new(container);
        CommandLine::joined(&CommandLine::commands_of(container, &environment), &environment)
    }

    /// Returns the model, by its name on a hub or its path.
    #[must_use]
    pub fn model(&self) -> Lookup<&'a str> {
        let Some(source) = self.runtime.map(|runtime| &runtime.model) else { return Lookup::Absent };
        let by_flag = self.words.value_of_any(&source.flags);
        let by_place = || source.after.as_deref().map_or(Lookup::Absent, |word| self.words.after(word));
        by_flag.or_else(by_place).or_else(|| self.words.env_of_any(&source.env))
    }

    /// Returns how long the server may take to start, and its model to arrive before, as far as its startup probe says:
    /// a model that arrives before gets as long as the server itself.
    #[must_use]
    pub fn start(&self, workload: &Workload) -> Option<Start> {
        let windows = workload.long_running().filter_map(|container| container.probe("startupProbe"));
        let longest = windows.map(|probe| probe.window()).max()?;
        let server = self.container.and_then(|container| container.probe("startupProbe"));
        let before = server.filter(|_| arrival::is_before_server(workload, self));
        Some(Start { longest, before: before.map(|probe| probe.window()) })
    }

    /// Returns the number of GPUs of one node over which each layer of the model is spread; none if it is not set or
    /// unknown.
    #[must_use]
    pub fn tensor_parallel(&self) -> Option<u64> {
        let parallel = &self.runtime?.parallel;
        self.words.given(&parallel.tensor, &parallel.env).found()?.parse().ok()
    }
}

/// How long the containers of a pod may take to start, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The longest time that a startup probe allows.
    pub longest: u64,
    /// The time for a model that arrives before the server starts; none if it does not.
    pub before: Option<u64>,
}

impl Start {
    /// Returns the time for both.
    #[must_use]
    pub fn seconds(self) -> i64 {
        i64::try_from(self.longest.saturating_add(self.before.unwrap_or_default())).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn workload(containers: &Value, annotations: &Value) -> Value {
        json!({"metadata": {"annotations": annotations}, "spec": {"template": {"spec": {"containers": containers}}}})
    }

    fn found(containers: &Value, annotations: &Value) -> (Option<String>, Option<&'static str>) {
        let object = workload(containers, annotations);
        let workload = Workload::view(&object).unwrap();
        let recognition = Runtimes::shipped().recognise(&workload);
        let recognised = recognition.view(&workload);
        let name = recognised.name().and_then(|name| SHIPPED.iter().find(|runtime| runtime.name == name));
        (recognised.container.map(|container| container.name().to_owned()), name.map(|runtime| runtime.name.as_str()))
    }

    fn vllm(name: &str) -> Value {
        json!({"name": name, "image": "vllm/vllm-openai:v1"})
    }

    #[test]
    fn every_preset_has_sources() {
        for runtime in Runtimes::shipped().iter() {
            let has_source =
                |name: &str| runtime.sources.get(name).is_some_and(|source| source.starts_with("https://"));
            for (field, is_there) in [
                ("recognise", true),
                ("port", true),
                ("probes", true),
                ("startupBudget", true),
                ("drain", runtime.drain.is_some()),
                ("metrics", runtime.metrics.is_some()),
                ("unmaintained", runtime.unmaintained.is_some()),
                ("serviceLinkPrefix", runtime.service_link_prefix.is_some()),
            ] {
                assert_eq!(has_source(field), is_there, "{}: {field}", runtime.name);
            }
        }
    }

    #[test]
    fn annotations_take_precedence() {
        let containers = json!([vllm("a"), {"name": "b", "image": "app:1"}]);
        assert_eq!(found(&containers, &json!({CONTAINER_ANNOTATION: "b"})), (Some("b".into()), None));
        assert_eq!(found(&containers, &json!({CONTAINER_ANNOTATION: "c"})), (None, None));
        assert_eq!(found(&containers, &json!({RUNTIME_ANNOTATION: "triton"})), (Some("a".into()), Some("triton")));
        assert_eq!(found(&containers, &json!({RUNTIME_ANNOTATION: "none"})), (Some("a".into()), None));
        assert_eq!(found(&containers, &json!({RUNTIME_ANNOTATION: "vlm"})), (Some("a".into()), Some("vllm")));
    }

    #[test]
    fn says_how_a_runtime_is_known() {
        let known = |containers: Value, annotations: Value| {
            let object = workload(&containers, &annotations);
            Runtimes::shipped().recognise(&Workload::view(&object).unwrap()).provenance().to_string()
        };
        let serve = json!([{"name": "a", "image": "app:1", "command": ["sh", "-c", "exec vllm serve m"]}]);
        let (by_image, by_command) = ("inferred from its image", "inferred from its command, `vllm serve`");
        assert_eq!(known(json!([vllm("a")]), json!({})), by_image);
        assert_eq!(known(serve.clone(), json!({})), by_command);
        let declared = "declared by the annotation tidegate.dev/runtime";
        assert_eq!(known(serve.clone(), json!({RUNTIME_ANNOTATION: "triton"})), declared);
        assert_eq!(known(serve.clone(), json!({RUNTIME_ANNOTATION: "none"})), declared);
        assert_eq!(known(serve, json!({RUNTIME_ANNOTATION: "vlm"})), by_command);
        assert_eq!(known(json!([{"name": "a", "image": "app:1"}]), json!({})), "unresolved");
        assert_eq!(known(json!([vllm("a"), vllm("b")]), json!({})), "unresolved");
    }

    #[test]
    fn finds_a_known_runtime_among_sidecars() {
        let containers =
            json!([{"name": "proxy", "image": "envoy:1"}, {"name": "m", "image": "mirror/vllm/vllm-openai:v1"}]);
        assert_eq!(found(&containers, &json!({})), (Some("m".into()), Some("vllm")));
    }

    #[test]
    fn does_not_choose_between_two_containers() {
        assert_eq!(found(&json!([vllm("a"), vllm("b")]), &json!({})), (None, None));
        let unknown = json!([{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:1"}]);
        assert_eq!(found(&unknown, &json!({})), (None, None));
    }

    #[test]
    fn a_policys_runtime_replaces_a_preset_of_the_same_name() {
        let own = |name: &str, image: &str| {
            let written = json!({"name": name, "recognise": {"images": [image]}, "startupBudget": "1m"});
            Arc::new(serde_json::from_value::<Runtime>(written).unwrap())
        };
        let runtimes = Runtimes::with([own("vllm", "in-house/llm"), own("scorer", "scorer"), own("scorer", "other")]);
        let of = |image: &str| {
            let object = workload(&json!([{"name": "a", "image": image}]), &json!({}));
            runtimes.recognise(&Workload::view(&object).unwrap()).name().map(str::to_owned)
        };
        assert_eq!(of("registry.example.com/in-house/llm:1").as_deref(), Some("vllm"));
        assert_eq!(of("scorer:1").as_deref(), Some("scorer"));
        assert_eq!((of("vllm/vllm-openai:v1"), of("other:1")), (None, None));
        assert_eq!(of("ollama/ollama:1").as_deref(), Some("ollama"));
    }
}
