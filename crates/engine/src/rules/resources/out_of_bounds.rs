//! ## What it checks
//! Requests and limits, of containers and of the whole pod, that are outside the policy's `resources.bounds`.
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
        let mut findings = self.outside(pod, &|path| Finding::in_pod(&context.workload, &format!("resources.{path}")));
        for container in context.workload.all_containers() {
            let at = |path: &str| Finding::in_container(&container, &format!("resources.{path}"));
            findings.extend(self.outside(container.field("resources"), &at));
        }
        findings
    }
}

impl ResourcesOutOfBounds {
    fn outside(&self, resources: &Value, at: &dyn Fn(&str) -> Finding) -> Vec<Finding> {
        let mut findings = Vec::new();
        for of in ["requests", "limits"] {
            for (name, written) in resources[of].as_object().into_iter().flatten() {
                let Ok(quantity) = Quantity::from_json(written) else { continue };
                if let Some(bound) = self.bounds.get(name).filter(|bound| !bound.allows(&quantity)) {
                    findings.push(finding(at(&format!("{of}.{name}")), of, name, &quantity, bound, &self.policy));
                }
            }
        }
        findings
    }
}

fn finding(at: Finding, of: &str, name: &str, quantity: &Quantity, bound: &Bound, policy: &str) -> Finding {
    let (expected, nearest) = match bound {
        Bound { max: Some(max), .. } if quantity > max => (format!("at most {max}"), max),
        Bound { min: Some(min), .. } => (format!("at least {min}"), min),
        Bound { .. } => return at,
    };
    at.found(format!("`{quantity}`"))
        .expected(format!("{expected} (policy `{policy}`)"))
        .fix(format!("resources:\n  {of}:\n    {name}: {nearest}"))
}
