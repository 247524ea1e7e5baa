//! ## What it checks
//! Containers that may run as root: neither they nor their pod set `runAsNonRoot: true` or another user, or they set
//! user 0.
//! ## Why it matters
//! With a vulnerability in the kernel or the container runtime, root in a container becomes root on the node, and it
//! can access every mounted volume.
//! ## Instead
//! Set the user that the image is built for. Images that have only root, as those of some runtimes, need a user and a
//! writable home: point `HOME` or the cache's variable to a volume.

use serde_json::Value;

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds containers that may run as root.
#[derive(Debug)]
pub struct RunsAsRoot;

impl Rule for RunsAsRoot {
    fn id(&self) -> &'static str {
        "runs-as-root"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn is_about_pods(&self) -> bool {
        true
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let pod = &context.workload.pod_spec()["securityContext"];
        let may_be_root = context.workload.all_containers().filter_map(|container| {
            let found = found(container.field("securityContext"), pod)?;
            let finding = Finding::in_container(&container, "securityContext.runAsNonRoot").found(found);
            let instead = "securityContext:\n  runAsNonRoot: true\n  runAsUser: 1000";
            Some(finding.expected("a user other than root").fix(instead))
        });
        may_be_root.collect()
    }
}

/// Returns what allows a container to run as root. The container's settings take precedence over its pod's.
fn found(container: &Value, pod: &Value) -> Option<&'static str> {
    let setting = |field: &str| if container[field].is_null() { &pod[field] } else { &container[field] };
    match (setting("runAsUser").as_i64(), setting("runAsNonRoot") == true) {
        (Some(0), _) => Some("`runAsUser: 0`"),
        (Some(_), _) | (None, true) => None,
        (None, false) => Some("nothing that prevents the image from running as root"),
    }
}
