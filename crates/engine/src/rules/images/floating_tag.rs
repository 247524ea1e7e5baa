//! ## What it checks
//! Images of containers and of volumes named by a tag that can move (`latest`, `main`, `nightly`, …) or by no tag,
//! without a digest.
//! ## Why it matters
//! Two pods of one rollout can run different code, and a rollback may have no effect.
//! ## Parameters
//! `tags`: additional tags that move, such as `blue`.
//! ## Instead
//! Name the image by a tag that is never moved, or better by digest: `registry.example.com/api@sha256:0f1e…`.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::used_image::{UsedImage, used};
use crate::policy::{Context, Finding, Rule};
use crate::rules::{parameters, this_source};
use crate::workload::Image;

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
        used(&context.workload).filter(|used| moves(&used.image)).map(|used| finding(&used)).collect()
    }
}

fn finding(used: &UsedImage) -> Finding {
    used.replace_by(&format!("{}:<version>", used.image.repository()))
        .found(format!("`{}`", used.image.text()))
        .expected("a tag that is never moved, or a digest")
}
