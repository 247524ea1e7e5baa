//! ## What it checks
//! Requests and limits, of containers and of the whole pod, that are outside the policy's `resources.bounds`. If several
//! pods are parts of one server, the GPUs of all of them count.
//! ## Why it matters
//! One typo (`64Gi` for `6.4Gi`) takes up a node, or keeps the pods pending forever.
//! ## Instead
//! Stay within the bounds in the message, or ask the platform team for others.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::api::{Bound, ServingPolicySpec};
use crate::policy::{Context, Finding, Rule};
use crate::quantity::Quantity;
use crate::rules::this_source;
use crate::workload::is_gpu;

/// Finds requests and limits outside the bounds. Each policy's bounds have the enforcement of that policy.
#[derive(Debug)]
pub struct ResourcesOutOfBounds {
    /// The bounds of one policy, by resource.
    pub bounds: BTreeMap<String, Bound>,
    /// The policy's name.
    pub policy: String,
}

impl Rule for ResourcesOutOfBounds {
    fn id(&self) -> &'static str {
        "resources-out-of-bounds"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn for_policy(&self, policy: &str, spec: &ServingPolicySpec) -> Option<Arc<dyn Rule>> {
        let bounds = spec.resources.as_ref().map(|resources| resources.bounds.clone()).unwrap_or_default();
        (!bounds.is_empty()).then(|| -> Arc<dyn Rule> { Arc::new(Self { bounds, policy: policy.to_owned() }) })
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let pod = &context.workload.pod_spec()["resources"];
        let pods = pods_of_server(context);
        let mut findings =
            self.outside(pod, pods, &|path| Finding::in_pod(&context.workload, &format!("resources.{path}")));
        for container in context.workload.all_containers() {
            let at = |path: &str| Finding::in_container(&container, &format!("resources.{path}"));
            findings.extend(self.outside(container.field("resources"), pods, &at));
        }
        findings
    }
}

impl ResourcesOutOfBounds {
    fn outside(&self, resources: &Value, pods: u32, at: &dyn Fn(&str) -> Finding) -> Vec<Finding> {
        let mut findings = Vec::new();
        for of in ["requests", "limits"] {
            for (name, written) in resources[of].as_object().into_iter().flatten() {
                let Ok(quantity) = Quantity::from_json(written) else { continue };
                let pods = if is_gpu(name) { pods } else { 1 };
                let quantity = if pods > 1 { quantity.times(pods) } else { quantity };
                if let Some(bound) = self.bounds.get(name).filter(|bound| !bound.allows(&quantity)) {
                    let path = format!("{of}.{name}");
                    findings.push(finding(at(&path), &path, &quantity, pods, bound, &self.policy));
                }
            }
        }
        findings
    }
}

/// Returns how many pods are one server.
fn pods_of_server(context: &Context) -> u32 {
    let replicas = context.workload.replicas().filter(|_| context.recognised.multi_node.is_some());
    replicas.and_then(|replicas| u32::try_from(replicas).ok()).map_or(1, |replicas| replicas.max(1))
}

fn finding(at: Finding, path: &str, quantity: &Quantity, pods: u32, bound: &Bound, policy: &str) -> Finding {
    let (expected, nearest) = match bound {
        Bound { max: Some(max), .. } if quantity > max => (format!("at most {max}"), max),
        Bound { min: Some(min), .. } => (format!("at least {min}"), min),
        Bound { .. } => return at,
    };
    let (of, name) = path.split_once('.').unwrap_or_default();
    let (found, fix) = match pods {
        1 => (format!("`{quantity}`"), format!("resources:\n  {of}:\n    {name}: {nearest}")),
        _ => (format!("`{quantity}` in the {pods} pods of the server"), format!("# {expected} in all pods together")),
    };
    at.found(found).expected(format!("{expected} (policy `{policy}`)")).fix(fix)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};

    use crate::decision::{Operation, Request, decide};
    use crate::testing::{facts, policies, with_container};
    use crate::workload::Workload;

    /// Returns what is found in a server with eight GPUs in each pod.
    fn found(command: &Value, replicas: &Value) -> Vec<String> {
        let limits = json!({"nvidia.com/gpu": 8, "memory": "8Gi"});
        let mut object = with_container(&json!({"command": command, "resources": {"limits": limits}}));
        object["spec"]["replicas"] = replicas.clone();
        let bounds = json!({"nvidia.com/gpu": {"max": 8}, "memory": {"max": "8Gi"}});
        let policies = policies(&[("serving", json!({"resources": {"bounds": bounds}}))]);
        let request = Request::new(Operation::Create, Workload::view(&object).unwrap(), Timestamp::UNIX_EPOCH);
        let violations = decide(&request, &policies, &facts()).verdict.violations;
        violations.into_iter().map(|violation| violation.finding.found).collect()
    }

    #[test]
    fn counts_the_gpus_of_all_pods_of_a_server() {
        let parts = json!(["torchrun", "--nnodes", "2", "serve.py"]);
        assert_eq!(found(&parts, &json!(2)), ["`16` in the 2 pods of the server"]);
        for replicas in [json!(null), json!(0), json!(1), json!(i64::MAX)] {
            assert_eq!(found(&parts, &replicas), [""; 0], "{replicas}");
        }
        assert_eq!(found(&json!(["serve"]), &json!(2)), [""; 0], "copies count one by one");
    }
}
