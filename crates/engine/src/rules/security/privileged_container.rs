//! ## What it checks
//! Containers, init containers among them, with `securityContext.privileged: true`.
//! ## Why it matters
//! Whoever breaks into a privileged container owns the node and every pod on it. GPUs do not need it: device plugins
//! hand them to ordinary containers.
//! ## Instead
//! Leave the field out, and add the one capability that the server really needs.

use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds containers that own their node.
#[derive(Debug)]
pub struct PrivilegedContainer;

impl Rule for PrivilegedContainer {
    fn id(&self) -> &'static str {
        "privileged-container"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let containers = context.workload.all_containers();
        let privileged = containers.filter(|container| container.field("securityContext")["privileged"] == true);
        let finding = |container| {
            Finding::in_container(&container, "securityContext.privileged")
                .found("`true`")
                .expected("`false`, or nothing")
                .fix("securityContext:\n  privileged: false\n  allowPrivilegeEscalation: false")
        };
        privileged.map(finding).collect()
    }
}
