//! ## What it checks
//! Servers that spread a model over several GPUs without a volume of medium `Memory` at `/dev/shm`.
//! ## Why it matters
//! By default, a container has 64 MiB there. The processes of such a server exchange more, and it fails at startup or
//! under load with an NCCL error or a bus error.
//! ## Instead
//! Mount an `emptyDir` of medium `Memory` with a size limit. A policy with `pod` injects it.

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;
use crate::workload::items;

/// Finds multi-GPU servers with little shared memory.
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
        // Any other volume there is the author's choice.
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
