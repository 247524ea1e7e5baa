//! ## What it checks
//! Containers without a GPU that have no memory limit, neither their own nor the pod's. GPU servers are ignored: their
//! memory depends on the model that they load, and a limit that is too low kills them.
//! ## Why it matters
//! A container that leaks takes memory from every pod of its node until the kernel kills one of them, not always the
//! culprit.
//! ## Instead
//! Set `resources.limits.memory` to what the server needs under load, with some margin.

use crate::policy::{Class, Context, Finding, Rule};
use crate::quantity::Quantity;
use crate::rules::this_source;
use crate::workload::Container;

/// Finds containers without a memory limit.
#[derive(Debug)]
pub struct MissingMemoryLimit;

impl Rule for MissingMemoryLimit {
    fn id(&self) -> &'static str {
        "missing-memory-limit"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn is_about_pods(&self) -> bool {
        true
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        if !context.workload.pod_spec()["resources"]["limits"]["memory"].is_null() {
            return Vec::new();
        }
        let containers = context.workload.long_running();
        let unlimited = containers
            .filter(|container| Class::of(container) == Class::Cpu && !container.has_resource("limits", "memory"));
        let finding = |container| {
            Finding::in_container(&container, "resources.limits.memory")
                .found("nothing")
                .expected("a memory limit")
                .fix(format!("resources:\n  limits:\n    memory: {}", suggested(&container)))
        };
        unlimited.map(finding).collect()
    }
}

/// Returns a limit to start with; the API server refuses one below the request.
fn suggested(container: &Container) -> Quantity {
    let least: Quantity = "512Mi".parse().expect("this is a quantity");
    container.resource("requests", "memory").filter(|request| *request > least).unwrap_or(least)
}
