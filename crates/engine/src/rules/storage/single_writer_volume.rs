//! ## What it checks
//! Workloads with more than one replica whose pods share a claim that only one node (`ReadWriteOnce`) or one pod
//! (`ReadWriteOncePod`) may mount, if the claim is known. With an autoscaler, its maximum counts.
//! ## Why it matters
//! The second pod, on another node, waits for the volume forever. A rollout hangs the same way.
//! ## Instead
//! Use a claim with `ReadOnlyMany` or `ReadWriteMany`, or a StatefulSet with a claim for each pod.

use serde_json::json;

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::{replicas, snippet, this_source};
use crate::workload::items;

/// Finds volumes that only one replica can mount.
#[derive(Debug)]
pub struct SingleWriterVolume;

impl Rule for SingleWriterVolume {
    fn id(&self) -> &'static str {
        "single-writer-volume"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let (_, most) = replicas(context);
        if most < 2 {
            return Vec::new();
        }
        let namespace = context.workload.namespace();
        let volumes = items(&context.workload.pod_spec()["volumes"]);
        let found = volumes.filter_map(|volume| {
            let name = volume["persistentVolumeClaim"]["claimName"].as_str()?;
            let modes = &context.facts.claim(namespace, name)?.access_modes;
            let is_single = !modes.is_empty() && modes.iter().all(|mode| mode.starts_with("ReadWriteOnce"));
            is_single.then(|| {
                let claim = json!({"name": volume["name"], "persistentVolumeClaim": {"claimName": "<claim>"}});
                let instead = json!({"volumes": [claim]});
                Finding::of_volume(&context.workload, volume, "persistentVolumeClaim.claimName")
                    .found(format!("`{name}`, which is {}, for up to {most} replicas", modes.join(", ")))
                    .expected("a claim that many nodes may mount")
                    .fix(snippet(&instead))
            })
        });
        found.collect()
    }
}
