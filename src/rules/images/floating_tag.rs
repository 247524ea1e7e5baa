//! ## What it checks
//! Container images named by a tag that can move (`latest`, `main`, `nightly`, …) or by no tag, without a digest.
//! ## Why it matters
//! Two pods of one rollout can run different code, and a rollback may roll nothing back.
//! ## Instead
//! Name the image by a tag that is never moved, or better by digest: `registry.example.com/api@sha256:0f1e…`.

use crate::rules::{Context, Finding, Rule};
use crate::workload::Container;

/// Finds images that can be another one tomorrow.
#[derive(Debug)]
pub struct FloatingTag;

impl Rule for FloatingTag {
    fn id(&self) -> &str {
        "floating-tag"
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let containers = context.workload.all_containers();
        let floating =
            containers.filter(|container| !container.image().text().is_empty() && container.image().is_floating());
        floating.map(|container| finding(&container)).collect()
    }
}

fn finding(container: &Container) -> Finding {
    let image = container.image();
    Finding::in_container(container, "image")
        .found(format!("`{}`", image.text()))
        .expected("a tag that is never moved, or a digest")
        .instead(format!("image: {}:<version>", image.repository()))
}
