//! The settings for injection and companions, parsed and with defaults filled in.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::core::Duration as WrittenDuration;

use super::section::field;
use super::{Merged, Parsed, PolicyRef, Section, SettingsError};
use crate::api::ProbeSource;
use crate::quantity::Quantity;
use crate::workload::Container;

/// The settings for injection and companions.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) resources: BTreeMap<Class, Defaults>,
    pub(super) probes: Option<(ProbeSettings, PolicyRef)>,
    pub(super) pod: Option<(PodSettings, PolicyRef)>,
    /// The sections that other modules parse.
    pub(super) sections: Vec<Parsed>,
}

/// The class of a container, by the hardware that it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Without a GPU.
    Cpu,
    /// With a GPU or another accelerator.
    Gpu,
}

impl Class {
    /// Returns the class of a container.
    #[must_use]
    pub fn of(container: &Container) -> Self {
        if container.has_gpu() { Self::Gpu } else { Self::Cpu }
    }

    /// Returns its name, which is also its field in a policy.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
        }
    }
}

/// The requests and limits of one class, by resource name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Defaults {
    /// What is injected for each resource.
    pub by_resource: BTreeMap<String, RequestAndLimit>,
}

/// The default request and limit of one resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestAndLimit {
    /// The default request and its policy.
    pub request: Option<(Quantity, PolicyRef)>,
    /// The default limit and its policy.
    pub limit: Option<(Quantity, PolicyRef)>,
}

/// How probes are injected.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeSettings {
    /// Whether they are injected.
    pub inject: bool,
    /// How long a model server may take to start; `None` for the default of its runtime.
    pub startup_budget: Option<Duration>,
}

/// Other settings that are injected into pods.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent switch")]
pub struct PodSettings {
    /// Whether pods get time to stop.
    pub graceful_shutdown: bool,
    /// Whether rollouts get time to start.
    pub progress_deadline: bool,
    /// The size limit of `/dev/shm`; `None` if no volume is mounted there.
    pub shared_memory: Option<Quantity>,
    /// Whether Service variables are disabled for runtimes that misread them.
    pub disable_service_links: bool,
    /// Whether pods are spread over zones.
    pub topology_spread: bool,
    /// Whether pods tolerate the taint of GPU nodes.
    pub gpu_toleration: bool,
}

impl Settings {
    /// Parses merged settings. Invalid sections are left out, and their errors returned.
    pub(super) fn read(merged: &Merged, sections: &[&dyn Section]) -> (Self, Vec<SettingsError>) {
        let read: Vec<_> = sections.iter().map(|section| section.read(merged)).collect();
        let problems = read.iter().filter_map(|read| read.as_ref().err().cloned()).collect();
        let sections = read.into_iter().filter_map(Result::ok).flatten().collect();
        (Self { resources: resources(merged), probes: probes(merged), pod: pod(merged), sections }, problems)
    }
}

fn resources(merged: &Merged) -> BTreeMap<Class, Defaults> {
    let mut classes = BTreeMap::new();
    for class in [Class::Cpu, Class::Gpu] {
        let written = &merged.values()["resources"][class.name()];
        let mut defaults = Defaults::default();
        for of in ["requests", "limits"] {
            for (resource, quantity) in written[of].as_object().into_iter().flatten() {
                let source = merged.source(&["resources", class.name(), of, resource]);
                let default = Quantity::from_json(quantity).ok().zip(source.cloned());
                let pair = defaults.by_resource.entry(resource.clone()).or_default();
                *if of == "requests" { &mut pair.request } else { &mut pair.limit } = default;
            }
        }
        if !defaults.by_resource.is_empty() {
            classes.insert(class, defaults);
        }
    }
    classes
}

fn probes(merged: &Merged) -> Option<(ProbeSettings, PolicyRef)> {
    let policy = merged.source(&["probes"])?;
    let written = &merged.values()["probes"];
    let budget: Option<WrittenDuration> = field(written, "startupBudget");
    let inject = field::<ProbeSource>(written, "from").unwrap_or_default() == ProbeSource::Runtime;
    Some((ProbeSettings { inject, startup_budget: budget.map(Duration::from) }, policy.clone()))
}

fn pod(merged: &Merged) -> Option<(PodSettings, PolicyRef)> {
    let policy = merged.source(&["pod"])?;
    let written = &merged.values()["pod"];
    let is = |name: &str, default: bool| field(written, name).unwrap_or(default);
    let size = || field(written, "sharedMemorySize").unwrap_or_else(|| "8Gi".parse().expect("this is a quantity"));
    let settings = PodSettings {
        graceful_shutdown: is("gracefulShutdown", true),
        progress_deadline: is("progressDeadline", true),
        shared_memory: is("sharedMemory", true).then(size),
        disable_service_links: is("disableServiceLinks", true),
        topology_spread: is("topologySpread", true),
        gpu_toleration: is("gpuToleration", false),
    };
    Some((settings, policy.clone()))
}
