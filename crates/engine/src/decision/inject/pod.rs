//! Injects fields of a pod for graceful shutdown, shared memory and scheduling. No field that the user has set is
//! changed, and no value is injected that the API server would refuse.

use serde_json::{Value, json};

use super::Injector;
use crate::facts::Facts;
use crate::kind;
use crate::policy::{Class, PodSettings, PolicyRef};
use crate::quantity::Quantity;
use crate::runtimes::Recognised;
use crate::workload::{Accelerator, Container, FieldOwnership, FieldPath, GRACE_PERIOD, Workload, items};

/// The name of the volume at `/dev/shm`.
const SHARED_MEMORY: &str = "tidegate-shm";

/// The path of POSIX shared memory.
const SHARED_MEMORY_PATH: &str = "/dev/shm";

/// A pod template to inject into, with the settings and facts.
pub(super) struct Pod<'a> {
    pub(super) workload: &'a Workload<'a>,
    /// The fields that users have declared.
    pub(super) ownership: &'a FieldOwnership<'a>,
    pub(super) recognised: &'a Recognised<'a>,
    pub(super) settings: &'a PodSettings,
    pub(super) policy: &'a PolicyRef,
    /// The minimum number of replicas.
    pub(super) least: i64,
    pub(super) facts: &'a Facts,
}

impl Pod<'_> {
    /// Injects all fields that are switched on, and returns a note for the user.
    pub(super) fn inject(&self, injector: &mut Injector) -> Option<String> {
        if self.settings.graceful_shutdown {
            self.graceful_shutdown(injector);
        }
        if self.settings.disable_service_links {
            self.disable_service_links(injector);
        }
        if let Some(most) = &self.settings.shared_memory {
            self.shared_memory(most, injector);
        }
        if self.settings.gpu_toleration {
            self.gpu_toleration(injector);
        }
        self.topology_spread(injector)
    }

    fn field(&self, name: &str) -> &Value {
        &self.workload.pod_spec()[name]
    }

    /// Returns whether a field is absent, or has the default of the API server and no user has declared it.
    fn is_default(&self, field: &str, default: &Value) -> bool {
        let found = self.field(field);
        let path: Vec<&str> = kind::fields(self.workload.template_pointer()).chain(["spec", field]).collect();
        found.is_null() || (found == default && !self.ownership.is_declared(&path))
    }

    /// Injects a `preStop` sleep and the grace period. The API server refuses a sleep that is not shorter than the
    /// grace period.
    ///
    /// <https://kubernetes.io/docs/concepts/containers/container-lifecycle-hooks/#hook-handler-execution>
    fn graceful_shutdown(&self, injector: &mut Injector) {
        let Some((container, drain)) = self.recognised.container.zip(self.recognised.drain()) else { return };
        let (sleep, wanted) = (seconds(drain.pre_stop.into()), seconds(drain.grace_period.into()));
        let is_default = self.is_default("terminationGracePeriodSeconds", &GRACE_PERIOD.into());
        let written = self.field("terminationGracePeriodSeconds").as_i64().unwrap_or(GRACE_PERIOD);
        let grace = if is_default { wanted.max(GRACE_PERIOD) } else { written };
        if grace != written {
            injector.add(FieldPath::new(["terminationGracePeriodSeconds"]), grace.into(), self.policy);
        }
        let has_none = container.field("lifecycle")["preStop"].is_null();
        if has_none && self.facts.apis.pre_stop_sleep && sleep < grace {
            let path = FieldPath::new([container.list(), container.name(), "lifecycle", "preStop"]);
            injector.add(path, json!({"sleep": {"seconds": sleep}}), self.policy);
        }
    }

    fn disable_service_links(&self, injector: &mut Injector) {
        let is_affected = self.recognised.runtime.is_some_and(|runtime| runtime.service_link_prefix.is_some());
        if is_affected && self.is_default("enableServiceLinks", &true.into()) {
            injector.add(FieldPath::new(["enableServiceLinks"]), false.into(), self.policy);
        }
    }

    /// Mounts a larger `/dev/shm`. Its default of 64 MiB is too small for processes that share a model between GPUs.
    /// Its usage counts towards the memory limit of the container, or else of the pod.
    ///
    /// <https://kubernetes.io/docs/concepts/storage/volumes/#emptydir>
    fn shared_memory(&self, most: &Quantity, injector: &mut Injector) {
        let Some(container) = self.recognised.container else { return };
        let is_spread = self.recognised.tensor_parallel().is_some_and(|count| count > 1);
        let is_taken = items(self.field("volumes")).any(|volume| volume["name"] == SHARED_MEMORY);
        if !is_spread || is_taken || self.field("hostIPC") == true || mounts(&container, SHARED_MEMORY_PATH) {
            return;
        }
        let limit = container.resource("limits", "memory");
        let half = limit.or_else(|| self.workload.pod_resource("limits", "memory")).map(|limit| limit.half());
        let size = half.as_ref().map_or(most, |half| half.min(most));
        let volume = json!({"emptyDir": {"medium": "Memory", "sizeLimit": size.to_string()}});
        injector.add(FieldPath::new(["volumes", SHARED_MEMORY]), volume, self.policy);
        let mount = FieldPath::new([container.list(), container.name(), "volumeMounts", SHARED_MEMORY_PATH, "name"]);
        injector.add(mount, SHARED_MEMORY.into(), self.policy);
    }

    /// Spreads pods over zones, if possible: a cluster with one zone runs them nevertheless. The parts of one server
    /// belong close together; the note says so.
    fn topology_spread(&self, injector: &mut Injector) -> Option<String> {
        let selector = self.workload.spec("selector");
        let is_set = items(self.field("topologySpreadConstraints")).next().is_some()
            || !self.field("affinity")["podAntiAffinity"].is_null();
        if !self.settings.topology_spread || self.least < 2 || is_set || !selector.is_object() {
            return None;
        }
        if let Some(sign) = self.recognised.multi_node {
            return Some(format!("no topology spread is injected: its pods are parts of one server (`{sign}`)"));
        }
        let path = FieldPath::new(["topologySpreadConstraints", "topology.kubernetes.io/zone"]);
        let constraint = json!({"maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": selector});
        injector.add(path, constraint, self.policy);
        None
    }

    fn gpu_toleration(&self, injector: &mut Injector) {
        let mut on_gpu = self.workload.all_containers().filter(|container| Class::of(container) == Class::Gpu);
        let resource = on_gpu.find_map(|container| container.gpu_resource());
        let Some(taint) = resource.and_then(Accelerator::find).and_then(|known| known.taint) else { return };
        if items(self.field("tolerations")).next().is_none() {
            let toleration = json!({"operator": "Exists", "effect": "NoSchedule"});
            injector.add(FieldPath::new(["tolerations", taint]), toleration, self.policy);
        }
    }
}

/// Returns whether a container mounts a volume at a path.
fn mounts(container: &Container, path: &str) -> bool {
    items(container.field("volumeMounts")).any(|mount| mount["mountPath"] == path)
}

fn seconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
