//! The description of a runtime: how to detect, probe, drain and measure it, and where it listens. The presets in
//! `policies/runtimes` and the runtimes of policies have this form.

use std::collections::BTreeMap;

use kube::KubeSchema;
use kube::core::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A runtime: a program that serves models.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Runtime {
    /// The runtime's name, such as `vllm`. A policy's runtime replaces a preset of the same name.
    #[schemars(length(max = 63))]
    #[x_kube(validation = (
        "self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "a name must be lower-case letters, digits and dashes, and start with a letter"
    ))]
    pub name: String,
    /// How to detect it: by image or by command.
    #[serde(default)]
    pub recognise: Recognise,
    /// How its port is set.
    #[serde(default)]
    pub port: Port,
    /// Where it listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    /// How HTTPS is enabled.
    #[serde(default)]
    pub tls: Given,
    /// How a prefix for the paths of its probes is set.
    #[serde(default)]
    pub prefix: Given,
    /// The arguments of a process that does not serve HTTP: a worker of a multi-node server, or one that listens only
    /// on a socket or for gRPC.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_http: Vec<String>,
    /// How an API key is set.
    #[serde(default)]
    pub api_key: Given,
    /// How to probe it.
    #[serde(default)]
    pub probes: RuntimeProbes,
    /// How long it may take to start.
    pub startup_budget: Duration,
    /// How long it may take to answer a probe under load. Default: unknown; Kubernetes' default of 1s is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_timeout: Option<Duration>,
    /// The paths, or `tcp`, that answer before the model is loaded: they do not show readiness.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_ready: Vec<String>,
    /// The paths that run inference, in addition to the usual ones: liveness probes must not use them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inference_paths: Vec<String>,
    /// How long it takes to stop without losing requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    /// Where it serves metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// Whether it needs a GPU.
    #[serde(default)]
    pub gpu: GpuNeed,
    /// How the number of GPUs that it uses is set.
    #[serde(default)]
    pub parallel: Parallel,
    /// How its share of a GPU's memory is set.
    #[serde(default)]
    pub gpu_memory: Given,
    /// How its model is set.
    #[serde(default)]
    pub model: ModelSource,
    /// The prefix of the environment variables that it reads as settings, such as `VLLM`: the variables that Kubernetes
    /// sets for a Service of that name conflict with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_link_prefix: Option<String>,
    /// Why it should not be used any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmaintained: Option<String>,
    /// What is different in some containers. Of several that apply, the first that has a section sets it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<Variant>,
    /// The version that was run to check these facts. Default: none, they come from its documentation and its source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<String>,
    /// The sources of these facts, by field.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, String>,
}

/// How to detect a runtime: by any of these.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recognise {
    /// The last parts of an image's repository; a `*` at the end matches any rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// Patterns that the image's tag must match, or with `!` in front must not match; `*` at either end matches
    /// anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Commands: a program or a Python module, and the arguments after it; flags match in any position.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
    /// The program of the images, if their arguments contain its subcommand: `ollama`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<String>,
    /// Programs in the images that are not servers, in addition to the servers' programs with other arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
}

/// How a runtime's port is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Port {
    /// The flags that set it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// The environment variables that set it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The environment variables that set it through the images' own command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_env: Vec<String>,
    /// The environment variables that hold the address to listen on, such as `0.0.0.0:11434`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// The flags that set a port for something other than HTTP, for TCP probes of a server without HTTP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tcp_flags: Vec<String>,
    /// The default of `tcpFlags`. Default: none, it must be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = 65535))]
    pub tcp_default: Option<u16>,
    /// The default port. Default: none, it must be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = 65535))]
    pub default: Option<u16>,
    /// A value of the flags that counts as if it was not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = 65535))]
    pub ignored: Option<u16>,
    /// Whether nothing else sets the port: a port that the container declares is not used then.
    #[serde(default, skip_serializing_if = "is_false")]
    pub fixed: bool,
    /// Whether the default depends on something unknown, such as the version: only a port that the container declares
    /// is used then.
    #[serde(default, skip_serializing_if = "is_false")]
    pub default_varies: bool,
}

/// Returns whether a setting is off, which is not written.
fn is_false(setting: &bool) -> bool {
    !setting
}

/// Where a runtime listens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Host {
    /// The flags that set the address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// The environment variables that set the address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The endings of arguments that are configuration files: the address may be set there, so its default is unknown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Whether the program listens only on localhost by default, outside of its own images.
    #[serde(default)]
    pub loopback: bool,
}

/// How something is set for a runtime.
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

/// The three probes of a runtime.
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

/// One probe: HTTP with a path, or TCP if no path is suitable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeProbe {
    /// The path. Default: none, for a TCP probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The path for a server that requires an API key. Default: `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_with_api_key: Option<String>,
}

/// How long a runtime takes to stop without losing requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Drain {
    /// The wait before SIGTERM, in which load balancers remove the pod.
    pub pre_stop: Duration,
    /// The termination grace period, including that wait.
    pub grace_period: Duration,
    /// The flags that set how many seconds the server takes after SIGTERM to finish its requests: the grace period is
    /// at least the wait and this time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeout: Vec<String>,
}

/// Where a runtime serves metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metrics {
    /// The port. Default: the server's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// The path.
    pub path: String,
    /// The gauge of waiting requests, for autoscaling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The flag that enables metrics, if it is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<String>,
    /// The environment variables that enable metrics as well, with the values that do.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub needs_env: BTreeMap<String, Vec<String>>,
    /// The flag that disables metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled_by: Option<String>,
}

/// Whether a runtime needs a GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GpuNeed {
    /// Whether it needs one.
    #[serde(default)]
    pub required: bool,
    /// It does not if the image has one of these in its name or tag.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except_images: Vec<String>,
    /// It does not if one of these flags has this value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub except_flags: BTreeMap<String, String>,
}

/// How the number of GPUs that a runtime uses is set: the product of these flags, each 1 by default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Parallel {
    /// The flags for the number of GPUs of one node over which each layer of a model is spread.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tensor: Vec<String>,
    /// The environment variables for the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The flags that multiply it: pipelines and replicas, which may be on other nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
    /// The flags for the number of nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Whether it uses all GPUs by default.
    #[serde(default)]
    pub takes_all: bool,
}

/// How the model of a runtime is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelSource {
    /// By these flags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// By these environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// By the argument after this one, such as `serve`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How its revision is set.
    #[serde(default)]
    pub revision: Given,
    /// How it is allowed to run its own code.
    #[serde(default)]
    pub remote_code: Given,
}

/// What is different in some containers of a runtime: whole sections that replace those of the runtime.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Variant {
    /// Which containers.
    pub when: When,
    /// How its port is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    /// How to probe it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<RuntimeProbes>,
    /// Where it serves metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// The paths that run inference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inference_paths: Option<Vec<String>>,
}

/// The containers that a variant applies to: all of these must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct When {
    /// Each of these is set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given: Vec<Given>,
    /// Each of these environment variables has one of these values; a `*` at either end matches anything.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, Vec<String>>,
    /// The image is one of the runtime's own, and is like this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<OwnImage>,
}

/// Images among a runtime's own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OwnImage {
    /// One of these is in its name or tag.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contains: Vec<String>,
    /// Its tag has a build number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builds: Option<Builds>,
    /// The container runs the image's own command.
    #[serde(default, skip_serializing_if = "is_false")]
    pub own_command: bool,
}

/// A range of build numbers in an image's tag, such as `b6700` in `server-cuda-b6700`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Builds {
    /// What is in front of the number, after the beginning of the tag or a dash.
    pub prefix: String,
    /// The first build. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>", range(min = 0))]
    pub from: Option<u64>,
    /// The last build. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>", range(min = 0))]
    pub to: Option<u64>,
}
