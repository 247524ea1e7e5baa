//! ## What it checks
//! Containers that may run as root: neither they nor their pod say `runAsNonRoot: true` or name another user, or they name
//! user 0.
//! ## Why it matters
//! Root in a container is root of the node for every hole in the kernel or the container runtime, and owns whatever volume is
//! mounted.
//! ## Instead
//! Name the user that the image is made for. Images that only know root, as those of some runtimes, need a user and a writable
//! home: `HOME` or the cache's variable on a volume.

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

/// What lets a container run as root. A container's own words count before its pod's.
fn found(container: &Value, pod: &Value) -> Option<&'static str> {
    let said = |field: &str| if container[field].is_null() { &pod[field] } else { &container[field] };
    match (said("runAsUser").as_i64(), said("runAsNonRoot") == true) {
        (Some(0), _) => Some("`runAsUser: 0`"),
        (Some(_), _) | (None, true) => None,
        (None, false) => Some("nothing that prevents the image from running as root"),
    }
}
