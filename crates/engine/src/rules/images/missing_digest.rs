//! ## What it checks
//! Images of containers and of volumes that are not named by their digest. Images with a tag that moves are covered by
//! `floating-tag`.
//! ## Why it matters
//! Anyone who may push can move a tag. A digest identifies the image: every node runs what was tested.
//! ## Instead
//! Name the image by digest: `registry.example.com/api:1.2.0@sha256:0f1e…`. The tag may stay, for people.

use super::used_image::{UsedImage, used};
use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

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
        let by_tag = used(&context.workload).filter(|used| used.image.digest().is_none() && !used.image.is_floating());
        let finding = |used: UsedImage| {
            let text = used.image.text();
            used.replace_by(&format!("{text}@sha256:<digest>")).found(format!("`{text}`")).expected("a digest")
        };
        by_tag.map(finding).collect()
    }
}
