//! What is known of one runtime, as its file in `policies/runtimes` says it.

use std::time::Duration;

use serde::Deserialize;

use crate::workload::{Container, Image};

/// A runtime: how it is recognised, where it listens and how it is probed.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Preset {
    /// The runtime's name, such as `vllm`.
    pub name: String,
    recognise: Recognise,
    /// How its port is told.
    pub port: Port,
    /// The flags whose presence means that it serves HTTPS.
    #[serde(default)]
    pub tls_flags: Vec<String>,
    /// The flags that put a prefix before the paths of its probes.
    #[serde(default)]
    pub prefix_flags: Vec<String>,
    /// The flags and words of a process that serves nothing itself, such as a worker of several nodes.
    #[serde(default)]
    pub workers: Vec<String>,
    /// How it is given an API key.
    #[serde(default)]
    pub api_key: ApiKey,
    /// How it is probed.
    pub probes: Probes,
    /// How long it may take to start.
    #[serde(deserialize_with = "duration")]
    pub startup_budget: Duration,
}

/// How a runtime is recognised: by any of these.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Recognise {
    /// The last parts of an image's repository; a `*` at the end stands for any rest.
    #[serde(default)]
    images: Vec<String>,
    /// What the image's tag must be like, `*` at either end standing for anything, or with `!` before it must not be like.
    #[serde(default)]
    tags: Vec<String>,
    /// Words that stand together in command and arguments.
    #[serde(default)]
    commands: Vec<String>,
}

/// How a runtime's port is told.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Port {
    /// The flags that set it.
    #[serde(default)]
    pub flags: Vec<String>,
    /// The environment variables that set it.
    #[serde(default)]
    pub env: Vec<String>,
    /// What it is otherwise.
    pub default: u16,
}

/// How a runtime is given an API key.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiKey {
    /// By these flags.
    #[serde(default)]
    pub flags: Vec<String>,
    /// By these environment variables.
    #[serde(default)]
    pub env: Vec<String>,
}

/// How the three probes ask.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probes {
    /// Has the server started?
    pub startup: Probe,
    /// Can it answer now?
    pub readiness: Probe,
    /// Must it be restarted?
    pub liveness: Probe,
}

/// How one probe asks: for a path, or by opening a connection where none answers well.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probe {
    path: Option<String>,
    path_with_api_key: Option<String>,
}

impl Probe {
    /// Returns the path, for a server that wants an API key or one that does not; none where a connection says it all.
    #[must_use]
    pub fn path(&self, has_api_key: bool) -> Option<&str> {
        self.path_with_api_key.as_deref().filter(|_| has_api_key).or(self.path.as_deref())
    }
}

/// Why a preset cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("this is no runtime preset")]
pub struct PresetError {
    source: Box<serde_saphyr::Error>,
}

impl Preset {
    /// Parses a preset.
    ///
    /// # Errors
    /// Says what is not a preset, and where.
    pub fn parse(text: &str) -> Result<Self, PresetError> {
        serde_saphyr::from_str(text).map_err(|source| PresetError { source: Box::new(source) })
    }

    /// Tells whether a container runs this runtime.
    #[must_use]
    pub fn recognises(&self, container: &Container) -> bool {
        let image = container.image();
        let is_named = self.recognise.images.iter().any(|pattern| names(pattern, image));
        is_named && self.tag_fits(image) || self.runs_in(container)
    }

    fn tag_fits(&self, image: Image) -> bool {
        let tag = image.tag();
        self.recognise.tags.iter().all(|pattern| match pattern.strip_prefix('!') {
            Some(refused) => !tag.is_some_and(|tag| is_like(refused, tag)),
            None => tag.is_some_and(|tag| is_like(pattern, tag)),
        })
    }

    fn runs_in(&self, container: &Container) -> bool {
        if container.field("command").is_null() && container.field("args").is_null() {
            return false;
        }
        let words = container.words();
        let bare: Vec<&str> = words.iter().map(|word| word.rsplit('/').next().unwrap_or(word)).collect();
        self.recognise.commands.iter().any(|command| {
            let command: Vec<&str> = command.split(' ').collect();
            bare.windows(command.len()).any(|window| window == command)
        })
    }
}

/// Tells whether a text is like a pattern with a `*` at either end, or none.
fn is_like(pattern: &str, text: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => text.ends_with(end),
        (None, Some(start)) => text.starts_with(start),
        (None, None) => text == pattern,
    }
}

/// Tells whether a pattern names the last parts of an image's repository.
fn names(pattern: &str, image: Image) -> bool {
    let mut parts = image.repository().rsplit('/');
    let mut wanted = pattern.rsplit('/');
    let last = wanted.next().unwrap_or_default();
    let found = parts.next().unwrap_or_default();
    let last_fits = last.strip_suffix('*').map_or(found == last, |prefix| found.starts_with(prefix));
    last_fits && wanted.all(|wanted| parts.next() == Some(wanted))
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    kube::core::Duration::deserialize(deserializer).map(Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_known_by_its_last_parts() {
        assert!(names("vllm-openai*", Image::new("registry.example.com:5000/hub/vllm/vllm-openai-cpu:v1")));
        assert!(names("rocm/vllm", Image::new("registry.example.com/rocm/vllm:6")));
        assert!(!names("rocm/vllm", Image::new("vllm:6")));
        assert!(!names("rocm/vllm", Image::new("registry.example.com/rocm/vllm-tools:6")));
    }
}
