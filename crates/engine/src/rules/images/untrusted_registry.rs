//! ## What it checks
//! Images of containers, init containers and volumes that are not from a registry in the parameter. Without the
//! parameter, nothing is checked.
//! ## Why it matters
//! Anyone who can publish an image anywhere can run it next to your models and their data.
//! ## Parameters
//! `registries`: the trusted repositories, such as `registry.example.com/ml/**`. `*` matches one part of the name, `**`
//! any remainder. Images of Docker Hub are `docker.io/library/name` or `docker.io/owner/name`.
//! ## Instead
//! Copy the image to a trusted registry, and use that.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::used_image::{UsedImage, used};
use crate::policy::{Context, Finding, Rule};
use crate::rules::{parameters, this_source};
use crate::workload::Image;

/// Finds images from untrusted registries.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UntrustedRegistry {
    /// Patterns of trusted repositories.
    pub registries: Vec<String>,
}

impl Rule for UntrustedRegistry {
    fn id(&self) -> &'static str {
        "untrusted-registry"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn with_params(&self, params: &Map<String, Value>) -> Result<Arc<dyn Rule>, String> {
        parameters::<Self>(params)
    }

    fn is_about_pods(&self) -> bool {
        true
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let is_trusted = |image: &Image| {
            let repository = image.full_repository();
            self.registries.iter().any(|pattern| is_like(pattern, &repository))
        };
        let Some(first) = self.registries.first() else { return Vec::new() };
        let registry = first.split('*').next().unwrap_or_default().trim_end_matches('/');
        let finding = |used: UsedImage| {
            let text = used.image.text();
            let name = text.rsplit('/').next().unwrap_or_default();
            used.replace_by(&format!("{registry}/{name}"))
                .found(format!("`{text}`"))
                .expected(format!("an image from {}", self.registries.join(", ")))
        };
        used(&context.workload).filter(|used| !is_trusted(&used.image)).map(finding).collect()
    }
}

/// Returns whether a repository matches a pattern, part by part.
fn is_like(pattern: &str, repository: &str) -> bool {
    let (mut wanted, mut found) = (pattern.split('/'), repository.split('/'));
    loop {
        match (wanted.next(), found.next()) {
            (Some("**"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted == found => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_patterns_part_by_part() {
        let trusted = |pattern: &str, image: &str| is_like(pattern, &Image::new(image).full_repository());
        assert!(trusted("registry.example.com/**", "registry.example.com/a/b/c:1"));
        assert!(!trusted("registry.example.com/**", "registry.example.com.evil.io/a:1"));
        assert!(
            !trusted("registry.example.com/**", "registry.example.com:5000/a:1"),
            "another port is another registry"
        );
        assert!(trusted("docker.io/library/*", "nginx:1") && trusted("docker.io/vllm/*", "vllm/vllm-openai:v1"));
        assert!(!trusted("docker.io/library/*", "vllm/vllm-openai:v1"));
        assert!(trusted("ghcr.io/*/llama.cpp", "ghcr.io/ggml-org/llama.cpp:server"));
        assert!(!trusted("ghcr.io/*", "ghcr.io/a/b:1") && !trusted("ghcr.io/a/b", "ghcr.io/a:1"));
    }
}
