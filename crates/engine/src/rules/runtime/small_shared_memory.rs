//! ## What it checks
//! Servers that spread a model over several GPUs without memory of their own at `/dev/shm`: a volume of medium `Memory`.
//! ## Why it matters
//! A container has 64 MiB there. The processes of such a server exchange more, and it fails at its start, or under load, with
//! an error of NCCL or a bus error.
//! ## Instead
//! Mount an `emptyDir` of medium `Memory` with a size limit. A policy with `pod` injects it.

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;
use crate::workload::items;

/// Finds servers whose processes have no room to talk.
#[derive(Debug)]
pub struct SmallSharedMemory;

impl Rule for SmallSharedMemory {
    fn id(&self) -> &'static str {
        "small-shared-memory"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let Some(container) = context.recognised.container else { return Vec::new() };
        let Some(count) = context.recognised.tensor_parallel().filter(|count| *count > 1) else { return Vec::new() };
        let pod = context.workload.pod_spec();
        let mounted = items(container.field("volumeMounts")).find(|mount| mount["mountPath"] == "/dev/shm");
        let volume = mounted.and_then(|mount| items(&pod["volumes"]).find(|volume| volume["name"] == mount["name"]));
        // What else may be mounted there is its author's business.
        let is_small =
            volume.is_none_or(|volume| volume["emptyDir"].is_object() && volume["emptyDir"]["medium"] != "Memory");
        if !is_small || pod["hostIPC"] == true {
            return Vec::new();
        }
        let finding = Finding::in_container(&container, "volumeMounts")
            .found(format!("64 MiB of shared memory for {count} GPUs"));
        let instead = "volumeMounts:\n  - name: shm\n    mountPath: /dev/shm\n# and beside the containers:\n# volumes:\n\
                       #   - name: shm\n#     emptyDir:\n#       medium: Memory\n#       sizeLimit: 8Gi";
        vec![finding.expected("memory at `/dev/shm`").fix(instead)]
    }
}
