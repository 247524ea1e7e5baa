//! Image references.

/// Tags that usually move to newer images.
const MOVING_TAGS: &[&str] = &["latest", "main", "master", "nightly", "stable", "edge", "dev"];

/// The placeholder for an image that another webhook sets.
///
/// <https://istio.io/latest/docs/setup/additional-setup/gateway/#deploying-a-gateway>
const INJECTED: &str = "auto";

/// Returns whether a tag moves to newer images: `latest`, `nightly-gpu`, `cpu-latest`. A tag with a number is of one
/// day or version, unless it contains `latest`.
fn is_moving(tag: &str) -> bool {
    let has_number = tag.contains(|c: char| c.is_ascii_digit());
    tag.split('-').any(|part| part == "latest" || (!has_number && MOVING_TAGS.contains(&part)))
}

/// A container image reference: `[registry[:port]/]repository[:tag][@digest]`.
///
/// <https://github.com/distribution/reference>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image<'a> {
    text: &'a str,
}

impl<'a> Image<'a> {
    /// Wraps the reference of a container.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self { text }
    }

    /// Returns the reference as it was written.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Returns the reference without tag and digest, registry included.
    #[must_use]
    pub fn repository(&self) -> &'a str {
        let named = self.text.split('@').next().unwrap_or_default();
        match named.rfind(':') {
            Some(colon) if !named[colon..].contains('/') => &named[..colon],
            _ => named,
        }
    }

    /// Returns the repository with the defaults of Docker: `busybox` is `docker.io/library/busybox`.
    #[must_use]
    pub fn full_repository(&self) -> String {
        const HUB: &str = "docker.io";
        let repository = self.repository();
        let (first, rest) = repository.split_once('/').unwrap_or((repository, ""));
        match (rest, first) {
            ("", _) => format!("{HUB}/library/{repository}"),
            (_, HUB | "index.docker.io") if !rest.contains('/') => format!("{HUB}/library/{rest}"),
            (_, "index.docker.io") => format!("{HUB}/{rest}"),
            (_, "localhost") => repository.to_owned(),
            _ if first.contains(['.', ':']) => repository.to_owned(),
            _ => format!("{HUB}/{repository}"),
        }
    }

    /// Returns the tag.
    #[must_use]
    pub fn tag(&self) -> Option<&'a str> {
        let named = self.text.split('@').next().unwrap_or_default();
        named[self.repository().len()..].strip_prefix(':')
    }

    /// Returns the digest.
    #[must_use]
    pub fn digest(&self) -> Option<&'a str> {
        self.text.split_once('@').map(|(_, digest)| digest)
    }

    /// Returns whether the reference may name another image later.
    #[must_use]
    pub fn is_floating(&self) -> bool {
        self.digest().is_none() && self.tag().is_none_or(is_moving) && self.text != INJECTED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_port_is_not_a_tag() {
        let image = Image::new("registry.example.com:5000/team/api");
        assert_eq!((image.repository(), image.tag()), ("registry.example.com:5000/team/api", None));
        assert!(image.is_floating());
    }

    #[test]
    fn parses_tag_and_digest() {
        let image = Image::new("registry.example.com:5000/api:1.2@sha256:0f1e");
        assert_eq!((image.repository(), image.tag()), ("registry.example.com:5000/api", Some("1.2")));
        assert_eq!(image.digest(), Some("sha256:0f1e"));
    }

    #[test]
    fn a_digest_is_pinned_whatever_the_tag() {
        assert!(!Image::new("api:latest@sha256:0f1e").is_floating());
        assert!(!Image::new("api:1.2").is_floating());
        assert!(Image::new("api:latest").is_floating());
        assert!(Image::new("api").is_floating());
    }

    #[test]
    fn detects_variants_of_moving_tags() {
        for text in ["a:latest-gpu", "a:cpu-latest", "a:nightly-cuda", "a:main", "a:cu124-latest"] {
            assert!(Image::new(text).is_floating(), "{text}");
        }
        for text in ["a:nightly-20260101", "a:1.2.0-dev", "a:stable-1.36", "a:server-cuda", "auto"] {
            assert!(!Image::new(text).is_floating(), "{text}");
        }
    }
}
