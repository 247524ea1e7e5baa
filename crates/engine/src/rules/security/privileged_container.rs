//! ## What it checks
//! Containers, including init containers, with `securityContext.privileged: true`.
//! ## Why it matters
//! Anyone who breaks into a privileged container controls the node and every pod on it. GPUs do not need it: device
//! plugins make them available to ordinary containers.
//! ## Instead
//! Remove the field, and add only the capability that the server really needs.

use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds privileged containers.
#[derive(Debug)]
pub struct PrivilegedContainer;

impl Rule for PrivilegedContainer {
    fn id(&self) -> &'static str {
        "privileged-container"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn is_about_pods(&self) -> bool {
        true
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
