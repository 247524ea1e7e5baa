//! ## What it checks
//! Volumes of type `hostPath`.
//! ## Why it matters
//! Files differ between nodes: a pod that moves finds no model, or a different one. Anyone who may write there can
//! change what other pods, or the node itself, run.
//! ## Instead
//! Keep models in a PersistentVolumeClaim or in the image, and scratch data in an `emptyDir`.

use serde_json::json;

use crate::policy::{Context, Finding, Rule};
use crate::rules::{snippet, this_source};
use crate::workload::items;

/// Finds `hostPath` volumes.
#[derive(Debug)]
pub struct HostPath;

impl Rule for HostPath {
    fn id(&self) -> &'static str {
        "host-path"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn is_about_pods(&self) -> bool {
        true
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let volumes = items(&context.workload.pod_spec()["volumes"]);
        let of_host = volumes.filter(|volume| volume["hostPath"].is_object());
        let finding = |volume: &serde_json::Value| {
            let (name, path) = (&volume["name"], volume["hostPath"]["path"].as_str().unwrap_or_default());
            let claim = json!({"name": name, "persistentVolumeClaim": {"claimName": "<claim>"}, "hostPath": null});
            Finding::of_volume(&context.workload, volume, "hostPath")
                .found(format!("`{path}` on the node that the pod runs on"))
                .expected("a volume that does not depend on the node")
                .fix(snippet(&json!({"volumes": [claim]})))
        };
        of_host.map(finding).collect()
    }
}
