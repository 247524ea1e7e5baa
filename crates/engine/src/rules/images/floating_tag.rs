//! ## What it checks
//! Container images named by a tag that can move (`latest`, `main`, `nightly`, …) or by no tag, without a digest.
//! ## Why it matters
//! Two pods of one rollout can run different code, and a rollback may have no effect.
//! ## Parameters
//! `tags`: additional tags that move, such as `blue`.
//! ## Instead
//! Name the image by a tag that is never moved, or better by digest: `registry.example.com/api@sha256:0f1e…`.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::policy::{Context, Finding, Rule};
use crate::rules::{parameters, this_source};
use crate::workload::{Container, Image};

/// Finds images with a tag that can move.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FloatingTag {
    /// Additional tags that move.
    pub tags: Vec<String>,
}

impl Rule for FloatingTag {
    fn id(&self) -> &'static str {
        "floating-tag"
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
        let moves = |image: &Image| {
            let among = |tag: &str| self.tags.iter().any(|known| known == tag);
            image.is_floating() || (image.digest().is_none() && image.tag().is_some_and(among))
        };
        let containers = context.workload.all_containers();
        let floating = containers.filter(|container| !container.image().text().is_empty() && moves(&container.image()));
        floating.map(|container| finding(&container)).collect()
    }
}

fn finding(container: &Container) -> Finding {
    let image = container.image();
    Finding::in_container(container, "image")
        .found(format!("`{}`", image.text()))
        .expected("a tag that is never moved, or a digest")
        .fix(format!("image: {}:<version>", image.repository()))
}
