//! What is known of one runtime: how it is recognised, where it listens, how it is probed, drained and measured. The
//! presets in `policies/runtimes` have this form, and so have a policy's own.

use std::collections::BTreeMap;

use kube::KubeSchema;
use kube::core::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A runtime: a program that serves models.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Runtime {
    /// The runtime's name, such as `vllm`. A policy's takes the place of one of the same name.
    #[schemars(length(max = 63))]
    #[x_kube(validation = (
        "self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "a name is lower-case letters, digits and dashes, and starts with a letter"
    ))]
    pub name: String,
    /// How it is recognised: by image or by command.
    #[serde(default)]
    pub recognise: Recognise,
    /// How its port is told.
    #[serde(default)]
    pub port: Port,
    /// Where it listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    /// How it is told to serve HTTPS.
    #[serde(default)]
    pub tls: Given,
    /// How it is told a prefix for the paths of its probes.
    #[serde(default)]
    pub prefix: Given,
    /// The words of a process that serves no HTTP: a worker of several nodes, one on a socket, one that speaks gRPC alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_http: Vec<String>,
    /// How it is given an API key.
    #[serde(default)]
    pub api_key: Given,
    /// How it is probed.
    #[serde(default)]
    pub probes: RuntimeProbes,
    /// How long it may take to start.
    pub startup_budget: Duration,
    /// How long it may take to answer a probe under load. Default: nobody knows, and Kubernetes' second is let be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_timeout: Option<Duration>,
    /// The paths, or `tcp`, that answer before the model is loaded: they say nothing of readiness.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_ready: Vec<String>,
    /// The paths that compute, beyond those that every server of its kind has: a liveness probe must not ask for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inference_paths: Vec<String>,
    /// How long it takes to stop without losing requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    /// Where it tells its load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// Whether it needs a GPU.
    #[serde(default)]
    pub gpu: GpuNeed,
    /// How it is spread over GPUs.
    #[serde(default)]
    pub parallel: Parallel,
    /// How it is told which model to serve.
    #[serde(default)]
    pub model: ModelSource,
    /// The beginning of the environment variables that it takes for settings, such as `VLLM`: those that Kubernetes makes of
    /// a Service of that name confuse it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_link_prefix: Option<String>,
    /// Why nobody should begin with it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmaintained: Option<String>,
    /// Where each of these facts comes from, by field.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, String>,
}

/// How a runtime is recognised: by any of these.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recognise {
    /// The last parts of an image's repository; a `*` at the end stands for any rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// What the image's tag must be like, `*` at either end standing for anything, or with `!` before it must not be like.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Commands: a program, or a module of Python, and the words behind it, flags among them wherever they stand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
    /// The program that the images run their arguments with, where those name what it is to do: `ollama`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<String>,
    /// Programs in the images that serve nothing, beside the servers' own programs with other words behind them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
}

/// How a runtime's port is told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Port {
    /// The flags that set it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// The environment variables that set it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The environment variables that set it through what the images run where no command is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_env: Vec<String>,
    /// The environment variables that hold the address to listen on, such as `0.0.0.0:11434`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// The flags of a port on which something else than HTTP is served, for a connection where HTTP is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tcp_flags: Vec<String>,
    /// What it is otherwise. Default: it must be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = 65535))]
    pub default: Option<u16>,
}

/// Where a runtime listens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Host {
    /// The flags that say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// The environment variables that say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Whether the program, outside of its own images, listens on localhost alone unless told otherwise.
    #[serde(default)]
    pub loopback: bool,
}

/// How something is given to a runtime.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Given {
    /// By these flags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// By these environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
}

/// How the three probes ask.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeProbes {
    /// Has the server started?
    #[serde(default)]
    pub startup: RuntimeProbe,
    /// Can it answer now?
    #[serde(default)]
    pub readiness: RuntimeProbe,
    /// Must it be restarted?
    #[serde(default)]
    pub liveness: RuntimeProbe,
}

/// How one probe asks: for a path, or by opening a connection where none answers well.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeProbe {
    /// The path. Default: a connection is opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The path of a server that wants an API key. Default: as without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_with_api_key: Option<String>,
}

/// How long a runtime takes to stop without losing requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Drain {
    /// How long it waits before SIGTERM, so that load balancers leave it.
    pub pre_stop: Duration,
    /// How long all of it may take, that wait included.
    pub grace_period: Duration,
}

/// Where a runtime tells its load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metrics {
    /// The port. Default: the one that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// The path.
    pub path: String,
    /// The gauge of how many requests wait: what to scale on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The flag without which there are no metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<String>,
}

/// Whether a runtime needs a GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GpuNeed {
    /// Whether it does.
    #[serde(default)]
    pub required: bool,
    /// Not where the image has one of these in its name or tag.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except_images: Vec<String>,
    /// Not where one of these flags has this value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub except_flags: BTreeMap<String, String>,
}

/// How a runtime is spread over GPUs: the product of what these flags say, each 1 where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Parallel {
    /// The flags that spread each layer of a model over the GPUs of one node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tensor: Vec<String>,
    /// The environment variables that say the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The flags that multiply it: pipelines and replicas, which may be on other nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
    /// The flags that say over how many nodes all of it is spread.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Whether it takes every GPU that there is where nothing is said.
    #[serde(default)]
    pub takes_all: bool,
}

/// How a runtime is told which model to serve.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelSource {
    /// By these flags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// By these environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// By the word that stands after this one, such as `serve`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How a revision of it is named.
    #[serde(default)]
    pub revision: Given,
    /// How it is allowed to bring code of its own.
    #[serde(default)]
    pub remote_code: Given,
}
