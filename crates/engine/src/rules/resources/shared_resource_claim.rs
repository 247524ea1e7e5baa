//! ## What it checks
//! Workloads with more than one replica whose pods use one ResourceClaim, named by `resourceClaimName`. With an
//! autoscaler, its maximum counts.
//! ## Why it matters
//! All replicas get the same device, on the same node: more replicas bring no more GPUs, and the node takes all of them
//! down.
//! ## Instead
//! Name a template, so that each pod gets a claim of its own: `resourceClaimTemplateName`. If the replicas share a
//! device on purpose, turn this rule off.

use serde_json::json;

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::{replicas, snippet, this_source};
use crate::workload::items;

/// Finds replicas that share one device.
#[derive(Debug)]
pub struct SharedResourceClaim;

impl Rule for SharedResourceClaim {
    fn id(&self) -> &'static str {
        "shared-resource-claim"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let (_, most) = replicas(context);
        let claims = items(&context.workload.pod_spec()["resourceClaims"]).filter(|_| most > 1);
        let found = claims.filter_map(|claim| {
            let shared = claim["resourceClaimName"].as_str()?;
            let name = claim["name"].as_str()?;
            let instead = json!({"name": name, "resourceClaimTemplateName": "<template>"});
            let finding = Finding::in_pod(&context.workload, &format!("resourceClaims[{name}].resourceClaimName"));
            let finding = finding.found(format!("`{shared}`, which all of up to {most} replicas share"));
            let finding = finding.expected("a claim for each pod, from a template");
            Some(finding.fix(snippet(&json!({"resourceClaims": [instead]}))))
        });
        found.collect()
    }
}
