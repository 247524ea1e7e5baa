//! ## What it checks
//! Pods that share their node's network, processes or shared memory: `hostNetwork`, `hostPID`, `hostIPC`.
//! ## Why it matters
//! Such a pod sees the traffic and the processes of every other pod of its node, past all network policies. Two of them that
//! listen on one port cannot share a node. GPUs of one pod exchange data through `/dev/shm`, without the node's.
//! ## Instead
//! Leave the fields out. Between nodes, give the pod a network device of its own; where there is none, ask for an exception.

use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds pods that live in their node's namespaces.
#[derive(Debug)]
pub struct HostNamespace;

impl Rule for HostNamespace {
    fn id(&self) -> &'static str {
        "host-namespace"
    }

    fn source(&self) -> &'static str {
        this_source!()
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
