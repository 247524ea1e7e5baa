//! ## What it checks
//! `emptyDir` volumes without a size limit, unless every container that mounts one has a limit of `ephemeral-storage`.
//! ## Why it matters
//! A growing model cache fills the disk of its node, and Kubernetes evicts pods there, not always the one responsible.
//! A volume of medium `Memory` fills the container's memory instead, until the container is killed.
//! ## Instead
//! Set a size limit.

use serde_json::json;

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::{snippet, this_source};
use crate::workload::{Workload, items};

/// Finds scratch volumes without a size limit.
#[derive(Debug)]
pub struct UnboundedScratch;

impl Rule for UnboundedScratch {
    fn id(&self) -> &'static str {
        "unbounded-scratch"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let volumes = items(&context.workload.pod_spec()["volumes"]);
        let unbounded = volumes.filter(|volume| {
            let scratch = &volume["emptyDir"];
            let in_memory = scratch["medium"] == "Memory";
            scratch.is_object()
                && scratch["sizeLimit"].is_null()
                && (in_memory || !is_bounded(&context.workload, volume["name"].as_str().unwrap_or_default()))
        });
        let finding = |volume: &serde_json::Value| {
            let name = volume["name"].as_str().unwrap_or_default();
            let finding = Finding::of_volume(&context.workload, volume, "emptyDir.sizeLimit")
                .found(format!("nothing for `{name}`"));
            let instead = json!({"volumes": [{"name": name, "emptyDir": {"sizeLimit": "20Gi"}}]});
            finding.expected("a size limit").fix(snippet(&instead))
        };
        unbounded.map(finding).collect()
    }
}

/// Returns whether every container that mounts a volume has an `ephemeral-storage` limit.
fn is_bounded(workload: &Workload, volume: &str) -> bool {
    let mut mounting = workload
        .all_containers()
        .filter(|container| items(container.field("volumeMounts")).any(|mount| mount["name"] == volume))
        .peekable();
    mounting.peek().is_some() && mounting.all(|container| container.has_resource("limits", "ephemeral-storage"))
}
