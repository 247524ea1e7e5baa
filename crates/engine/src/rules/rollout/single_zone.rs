//! ## What it checks
//! Workloads with two or more replicas that are not spread: neither over zones or nodes, nor by anti-affinity.
//! ## Why it matters
//! The scheduler may place all of them where one failure affects all.
//! ## Instead
//! Spread them over zones where possible. A policy with `pod` injects it.

use serde_json::json;

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::{replicas, snippet, this_source};
use crate::workload::items;

/// Finds replicas that are not spread.
#[derive(Debug)]
pub struct SingleZone;

impl Rule for SingleZone {
    fn id(&self) -> &'static str {
        "single-zone"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let pod = context.workload.pod_spec();
        let is_spread =
            items(&pod["topologySpreadConstraints"]).next().is_some() || !pod["affinity"]["podAntiAffinity"].is_null();
        let (least, _) = replicas(context);
        let selector = context.workload.spec("selector");
        if least < 2 || is_spread || !selector.is_object() {
            return Vec::new();
        }
        let constraint = json!({"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": selector});
        let finding = Finding::in_pod(&context.workload, "topologySpreadConstraints")
            .found(format!("nothing, for {least} replicas"));
        let instead = snippet(&json!({"topologySpreadConstraints": [constraint]}));
        vec![finding.expected("a spread over zones, where possible").fix(instead)]
    }
}
