//! The extended resources that are GPUs or other accelerators.

/// A kind of accelerator, by the extended resource that pods request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accelerator {
    /// The name of the resource; with `*` at the end, all names that begin so.
    pub resource: &'static str,
    /// The key of the taint that usually keeps other pods off the nodes; none if there is no usual one.
    ///
    /// The admission plugin `ExtendedResourceToleration` expects the name of the resource.
    pub taint: Option<&'static str>,
    /// Whether one unit is one device, as the flags of runtimes count them, and not a share, a core or several cores.
    pub is_device: bool,
}

/// The accelerators. Of two that match a resource, the first counts.
pub const ACCELERATORS: &[Accelerator] = &[
    // https://github.com/NVIDIA/k8s-device-plugin#configuring-the-nvidia-device-plugin-binary
    // https://docs.cloud.google.com/kubernetes-engine/docs/how-to/gpus
    device("nvidia.com/gpu", Some("nvidia.com/gpu")),
    share("nvidia.com/gpu.shared", Some("nvidia.com/gpu")),
    device("nvidia.com/mig-*", Some("nvidia.com/gpu")),
    // https://instinct.docs.amd.com/projects/k8s-device-plugin/en/latest/user-guide/resource-allocation.html
    device("amd.com/gpu", Some("amd.com/gpu")),
    device("amd.com/spx_*", Some("amd.com/gpu")),
    device("amd.com/dpx_*", Some("amd.com/gpu")),
    device("amd.com/qpx_*", Some("amd.com/gpu")),
    device("amd.com/cpx_*", Some("amd.com/gpu")),
    // https://github.com/intel/intel-device-plugins-for-kubernetes/blob/main/cmd/gpu_plugin/README.md
    device("gpu.intel.com/i915", Some("gpu.intel.com/i915")),
    device("gpu.intel.com/xe", Some("gpu.intel.com/xe")),
    share("gpu.intel.com/*", None),
    device("intel.com/gpu", Some("intel.com/gpu")),
    // https://docs.habana.ai/en/latest/Orchestration/Gaudi_Kubernetes/Device_Plugin_for_Kubernetes.html
    device("habana.ai/gaudi", Some("habana.ai/gaudi")),
    // https://docs.cloud.google.com/kubernetes-engine/docs/how-to/tpus
    device("google.com/tpu", Some("google.com/tpu")),
    // https://awsdocs-neuron.readthedocs-hosted.com/en/latest/containers/tutorials/k8s-neuron-device-plugin.html
    share("aws.amazon.com/neuron*", Some("aws.amazon.com/neuron")),
    // https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/#extended-resource
    share("deviceclass.resource.kubernetes.io/*", None),
];

const fn device(resource: &'static str, taint: Option<&'static str>) -> Accelerator {
    Accelerator { resource, taint, is_device: true }
}

const fn share(resource: &'static str, taint: Option<&'static str>) -> Accelerator {
    Accelerator { resource, taint, is_device: false }
}

impl Accelerator {
    /// Returns the accelerator that an extended resource is; none if it is another resource.
    #[must_use]
    pub fn find(resource: &str) -> Option<&'static Self> {
        ACCELERATORS.iter().find(|known| known.is(resource))
    }

    fn is(&self, resource: &str) -> bool {
        match self.resource.strip_suffix('*') {
            Some(beginning) => resource.starts_with(beginning),
            None => resource == self.resource,
        }
    }
}

/// Returns whether an extended resource is a GPU or another accelerator.
pub(crate) fn is_gpu(resource: &str) -> bool {
    Accelerator::find(resource).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_accelerators_of_every_vendor() {
        let known = [
            "nvidia.com/gpu",
            "nvidia.com/mig-1g.10gb",
            "nvidia.com/mig-1g.10gb.shared",
            "amd.com/gpu",
            "amd.com/cpx_nps4",
            "gpu.intel.com/xe",
            "gpu.intel.com/millicores",
            "habana.ai/gaudi",
            "google.com/tpu",
            "aws.amazon.com/neuroncore",
            "aws.amazon.com/neurondevice",
            "deviceclass.resource.kubernetes.io/gpu.nvidia.com",
        ];
        for resource in known {
            assert!(is_gpu(resource), "{resource}");
        }
        for resource in ["cpu", "nvidia.com/gpumem", "google.com/tpus", "intel.com/qat", "example.com/gpu"] {
            assert!(!is_gpu(resource), "{resource}");
        }
    }

    #[test]
    fn tells_devices_from_shares() {
        let is_device = |resource| Accelerator::find(resource).unwrap().is_device;
        assert!(is_device("nvidia.com/mig-1g.10gb") && is_device("gpu.intel.com/i915"));
        assert!(!is_device("nvidia.com/gpu.shared") && !is_device("aws.amazon.com/neuron"));
    }
}
