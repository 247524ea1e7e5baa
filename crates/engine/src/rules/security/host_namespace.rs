//! ## What it checks
//! Pods that share their node's network, processes or shared memory: `hostNetwork`, `hostPID`, `hostIPC`.
//! ## Why it matters
//! Such a pod can see the traffic and processes of every other pod on its node, regardless of network policies. Two
//! pods that listen on the same port cannot share a node. GPUs of one pod exchange data through the pod's own
//! `/dev/shm`; they do not need the node's.
//! ## Instead
//! Remove the fields. For traffic between nodes, give the pod its own network device; if there is none, ask for an
//! exception.

use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds pods that use their node's namespaces.
#[derive(Debug)]
pub struct HostNamespace;

impl Rule for HostNamespace {
    fn id(&self) -> &'static str {
        "host-namespace"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn is_about_pods(&self) -> bool {
        true
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let pod = context.workload.pod_spec();
        let shared = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| pod[field] == true);
        let finding = |field| {
            let finding = Finding::in_pod(&context.workload, field).found("`true`").expected("`false`, or nothing");
            finding.fix(format!("{field}: false"))
        };
        shared.map(finding).collect()
    }
}
