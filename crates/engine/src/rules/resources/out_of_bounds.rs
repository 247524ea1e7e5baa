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
use crate::workload::{Workload, is_gpu};

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

    fn is_about_pods(&self) -> bool {
        true
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let pod = &context.workload.pod_spec()["resources"];
        let server = Server::of(context);
        let mut findings =
            self.outside(pod, &server, &|path| Finding::in_pod(&context.workload, &format!("resources.{path}")));
        for container in context.workload.all_containers() {
            let at = |path: &str| Finding::in_container(&container, &format!("resources.{path}"));
            findings.extend(self.outside(container.field("resources"), &server, &at));
        }
        findings
    }
}

impl ResourcesOutOfBounds {
    fn outside(&self, resources: &Value, server: &Server, at: &dyn Fn(&str) -> Finding) -> Vec<Finding> {
        let mut findings = Vec::new();
        for of in ["requests", "limits"] {
            for (name, written) in resources[of].as_object().into_iter().flatten() {
                let Ok(quantity) = Quantity::from_json(written) else { continue };
                let (quantity, pods) = server.total(of, name).unwrap_or((quantity, 1));
                if let Some(bound) = self.bounds.get(name).filter(|bound| !bound.allows(&quantity)) {
                    let path = format!("{of}.{name}");
                    findings.push(finding(at(&path), &path, &quantity, pods, bound, &self.policy));
                }
            }
        }
        findings
    }
}

/// The pod templates of one server, each with its number of pods.
struct Server<'a>(Vec<(Workload<'a>, i64)>);

impl<'a> Server<'a> {
    fn of(context: &Context<'a>) -> Self {
        let (workload, replicas) = (context.workload, context.workload.replicas().unwrap_or(1).max(1));
        Self(if context.recognised.multi_node.is_some() { vec![(workload, replicas)] } else { workload.group() })
    }

    /// Returns the GPUs of all pods, and the number of pods; `None` for another resource, or if there is only one pod.
    fn total(&self, of: &str, name: &str) -> Option<(Quantity, i64)> {
        let pods = self.0.iter().fold(0_i64, |sum, (_, count)| sum.saturating_add(*count));
        if pods < 2 || !is_gpu(name) {
            return None;
        }
        let in_pods = |(pod, count): &(Workload, i64)| {
            let of_pod = pod.long_running().filter_map(|container| container.resource(of, name));
            of_pod.map(|quantity| quantity.times(*count)).collect::<Vec<_>>()
        };
        let total = self.0.iter().flat_map(in_pods).reduce(|sum, more| sum.plus(&more));
        total.map(|total| (total, pods))
    }
}

fn finding(at: Finding, path: &str, quantity: &Quantity, pods: i64, bound: &Bound, policy: &str) -> Finding {
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
    use crate::testing::{LABEL, facts, policies, with_container};
    use crate::workload::Workload;

    /// Returns what is found in a server with eight GPUs in each pod.
    fn found(command: &Value, replicas: &Value) -> Vec<String> {
        let limits = json!({"nvidia.com/gpu": 8, "memory": "8Gi"});
        let mut object = with_container(&json!({"command": command, "resources": {"limits": limits}}));
        object["spec"]["replicas"] = replicas.clone();
        found_in(&object)
    }

    fn found_in(object: &Value) -> Vec<String> {
        let bounds = json!({"nvidia.com/gpu": {"max": 8}, "memory": {"max": "8Gi"}});
        let policies = policies(&[("serving", json!({"resources": {"bounds": bounds}}))]);
        let request = Request::new(Operation::Create, Workload::view(object).unwrap(), Timestamp::UNIX_EPOCH);
        let violations = decide(&request, &policies, &facts()).verdict.violations;
        violations.into_iter().map(|violation| violation.finding.found).collect()
    }

    #[test]
    fn counts_the_gpus_of_all_pods_of_a_server() {
        let parts = json!(["torchrun", "--nnodes", "2", "serve.py"]);
        assert_eq!(found(&parts, &json!(2)), ["`16` in the 2 pods of the server"]);
        for replicas in [json!(null), json!(0), json!(1), json!(-1)] {
            assert_eq!(found(&parts, &replicas), [""; 0], "{replicas}");
        }
        assert_eq!(found(&json!(["serve"]), &json!(2)), [""; 0], "copies count one by one");
    }

    #[test]
    fn counts_the_gpus_of_a_group() {
        let group = |size: i64, leader: Value| {
            let pod = |name: &str, gpus: i64| {
                let limits = json!({"nvidia.com/gpu": gpus, "memory": "8Gi"});
                json!({"spec": {"containers": [{"name": name, "image": "a:1", "resources": {"limits": limits}}]}})
            };
            let leader = leader.as_i64().map(|gpus| pod("leader", gpus));
            let template = json!({"size": size, "leaderTemplate": leader, "workerTemplate": pod("worker", 4)});
            found_in(&json!({"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet",
                "metadata": {"name": "llm", "namespace": "ml", "labels": {LABEL: "model-server"}},
                "spec": {"replicas": 3, "leaderWorkerTemplate": template}}))
        };
        assert_eq!(group(2, json!(4)), [""; 0], "replicas are copies");
        assert_eq!(group(3, json!(4)), ["`12` in the 3 pods of the server"; 2], "in the leader and in the worker");
        assert_eq!((group(2, json!(null)), group(1, json!(null))), (vec![], vec![]));
        assert_eq!(group(3, json!(null)), ["`12` in the 3 pods of the server"]);
    }
}
