//! ## What it checks
//! Container images that are not named by their digest. Images with a tag that moves are covered by `floating-tag`.
//! ## Why it matters
//! Anyone who may push can move a tag. A digest identifies the image: every node runs what was tested.
//! ## Instead
//! Name the image by digest: `registry.example.com/api:1.2.0@sha256:0f1e…`. The tag may stay, for people.

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;
use crate::workload::Container;

/// Finds images without a digest.
#[derive(Debug)]
pub struct MissingDigest;

impl Rule for MissingDigest {
    fn id(&self) -> &'static str {
        "missing-digest"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Audit
    }

    fn is_about_pods(&self) -> bool {
        true
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let is_by_tag = |container: &Container| {
            let image = container.image();
            !image.text().is_empty() && image.digest().is_none() && !image.is_floating()
        };
        let finding = |container: Container| {
            let text = container.image().text();
            Finding::in_container(&container, "image")
                .found(format!("`{text}`"))
                .expected("a digest")
                .fix(format!("image: {text}@sha256:<digest>"))
        };
        context.workload.all_containers().filter(is_by_tag).map(finding).collect()
    }
}
