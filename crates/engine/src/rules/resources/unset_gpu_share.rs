//! ## What it checks
//! Servers on a GPU that others use too, whose share of its memory is not set. It is checked for runtimes that take
//! most of it by default: vLLM (`--gpu-memory-utilization`), SGLang (`--mem-fraction-static`), LMDeploy
//! (`--cache-max-entry-count`) and TGI (`--cuda-memory-fraction`). A GPU is shared if the resource ends in `.shared`,
//! if the node selector asks for a node with time-slicing or MPS, or if several containers use one resource claim. A
//! MIG device has memory of its own.
//! ## Why it matters
//! Each server takes nearly all memory, as if it were alone. The second one on the GPU does not start, or the first one
//! fails when its load grows.
//! ## Instead
//! Set the share, so that those of all servers on the GPU add up to less than 1.

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::{added, this_source};
use crate::workload::{Container, Workload, items};

/// Finds servers that take a shared GPU for themselves.
#[derive(Debug)]
pub struct UnsetGpuShare;

impl Rule for UnsetGpuShare {
    fn id(&self) -> &'static str {
        "unset-gpu-share"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let Some((container, runtime)) = context.recognised.known() else { return Vec::new() };
        let share = &runtime.gpu_memory;
        let is_unset = context.recognised.words.given(&share.flags, &share.env).is_absent();
        let Some(flag) = share.flags.first().filter(|_| is_unset) else { return Vec::new() };
        let finding = |why| {
            Finding::in_container(container, if container.field("args").is_null() { "command" } else { "args" })
                .found(format!("no `{flag}`, and {why}"))
                .expected("the server's share of the GPU's memory")
                .fix(added(container, &format!("{flag}=0.45")))
        };
        shared(&context.workload, container).map(finding).into_iter().collect()
    }
}

/// Returns why a container's GPU is known to be shared.
fn shared(workload: &Workload, container: &Container) -> Option<String> {
    if let Some(resource) = container.gpu_resource().filter(|name| name.ends_with(".shared")) {
        return Some(format!("`{resource}` is a share of a GPU"));
    }
    if container.has_gpu()
        && let Some(label) = SELECTORS.iter().find(|label| is_selected(workload, label))
    {
        return Some(format!("the node selector `{label}` asks for a shared GPU"));
    }
    let mut claims = items(&container.field("resources")["claims"]).filter_map(|claim| claim["name"].as_str());
    let claim = claims.find(|name| users(workload, name) > 1)?;
    Some(format!("several containers use the resource claim `{claim}`"))
}

/// The labels of nodes that say how a GPU is shared.
///
/// <https://docs.cloud.google.com/kubernetes-engine/docs/how-to/timesharing-gpus> and
/// <https://github.com/NVIDIA/k8s-device-plugin/blob/main/docs/gpu-feature-discovery/README.md>
const SELECTORS: [&str; 2] = ["cloud.google.com/gke-gpu-sharing-strategy", "nvidia.com/gpu.sharing-strategy"];

fn is_selected(workload: &Workload, label: &str) -> bool {
    workload.pod_spec()["nodeSelector"][label].as_str().is_some_and(|strategy| strategy != "none")
}

/// Returns the number of long-running containers that use a resource claim.
fn users(workload: &Workload, claim: &str) -> usize {
    let uses = |container: &Container| items(&container.field("resources")["claims"]).any(|used| used["name"] == claim);
    workload.long_running().filter(uses).count()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::deployment;

    fn is_shared(pod: &Value, containers: &[Value]) -> bool {
        let containers = containers.iter().map(|resources| json!({"name": "a", "resources": resources}));
        let mut object = deployment(&containers.collect());
        json_patch::merge(&mut object["spec"]["template"]["spec"], pod);
        let workload = Workload::view(&object).unwrap();
        let container = workload.containers().next().unwrap();
        shared(&workload, &container).is_some()
    }

    #[test]
    fn a_gpu_is_shared_if_something_says_so() {
        let limits = |resource: &str| json!({"limits": {resource: 1}});
        let none = json!({});
        assert!(
            !is_shared(&none, &[limits("nvidia.com/gpu")]) && !is_shared(&none, &[limits("nvidia.com/mig-1g.5gb")])
        );
        assert!(is_shared(&none, &[limits("nvidia.com/gpu.shared")]));
        assert!(is_shared(&none, &[limits("nvidia.com/mig-1g.5gb.shared")]));
        let selected = |value: &str| json!({"nodeSelector": {"nvidia.com/gpu.sharing-strategy": value}});
        assert!(is_shared(&selected("mps"), &[limits("nvidia.com/gpu")]));
        assert!(
            !is_shared(&selected("none"), &[limits("nvidia.com/gpu")]) && !is_shared(&selected("mps"), &[json!({})])
        );
        let claim = json!({"claims": [{"name": "gpu"}]});
        assert!(is_shared(&none, &[claim.clone(), claim.clone()]));
        assert!(
            !is_shared(&none, std::slice::from_ref(&claim))
                && !is_shared(&none, &[claim, json!({"claims": [{"name": "b"}]})])
        );
    }
}
