//! Watches whether the cluster serves custom and external metrics: an adapter may be installed or removed at any time.

use std::collections::BTreeMap;

use kube::api::DynamicObject;
use tracing::info;

use super::informer::{Handler, Key, follow};
use super::resource;
use super::watches::Watches;
use crate::server::health::Step;
use tidegate_engine::facts::Apis;

const CUSTOM: &str = "custom.metrics.k8s.io";
const EXTERNAL: &str = "external.metrics.k8s.io";

impl Watches {
    /// Watches the `APIService` objects.
    pub(super) fn metrics_apis(&self, step: Step) -> impl Future<Output = ()> + use<> {
        let kind = resource("apiregistration.k8s.io", "v1", "APIService");
        let apis = MetricsApis { watches: self.clone(), step, groups: BTreeMap::new(), is_synced: false };
        follow(self.events(&kind), apis)
    }
}

struct MetricsApis {
    watches: Watches,
    step: Step,
    /// The groups of the available metrics APIs, by the name of their `APIService`.
    groups: BTreeMap<String, String>,
    is_synced: bool,
}

impl MetricsApis {
    /// Updates the facts, and reconciles everything if they have changed.
    fn update(&self) {
        let is_served = |group: &str| self.groups.values().any(|served| served == group);
        let (custom, external) = (is_served(CUSTOM), is_served(EXTERNAL));
        let changed = self.watches.state.note(|facts| {
            let before = facts.apis;
            facts.apis = Apis { custom_metrics: custom, external_metrics: external, ..before };
            facts.apis != before
        });
        if changed && self.is_synced {
            info!(custom, external, "the served metrics APIs have changed");
            self.watches.queue.push_all();
        }
    }
}

/// Returns whether the custom and the external metrics APIs are served.
#[must_use]
pub fn metrics_served(services: &[DynamicObject]) -> (bool, bool) {
    let is_served = |group: &str| services.iter().filter_map(served).any(|found| found == group);
    (is_served(CUSTOM), is_served(EXTERNAL))
}

/// Returns the group of a metrics API if it is available.
fn served(service: &DynamicObject) -> Option<&str> {
    let group = service.data["spec"]["group"].as_str().filter(|group| [CUSTOM, EXTERNAL].contains(group))?;
    let conditions = service.data["status"]["conditions"].as_array()?;
    let is_available = |found: &serde_json::Value| found["type"] == "Available" && found["status"] == "True";
    conditions.iter().any(is_available).then_some(group)
}

impl Handler<DynamicObject> for MetricsApis {
    fn put(&mut self, key: Key, service: DynamicObject) {
        match served(&service) {
            Some(group) => drop(self.groups.insert(key.1, group.to_owned())),
            None => drop(self.groups.remove(&key.1)),
        }
        self.update();
    }

    fn remove(&mut self, key: &Key) {
        self.groups.remove(&key.1);
        self.update();
    }

    fn synced(&mut self) {
        self.is_synced = true;
        self.step.done();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_only_available_apis() {
        let group_of = |group: &str, status: &str| {
            let conditions = json!([{"type": "Other", "status": "True"}, {"type": "Available", "status": status}]);
            let mut service = DynamicObject::new("a", &resource("apiregistration.k8s.io", "v1", "APIService"));
            service.data = json!({"spec": {"group": group}, "status": {"conditions": conditions}});
            served(&service).map(str::to_owned)
        };
        assert_eq!(group_of(CUSTOM, "True").as_deref(), Some(CUSTOM));
        assert_eq!(group_of(EXTERNAL, "True").as_deref(), Some(EXTERNAL));
        assert_eq!(
            (group_of(CUSTOM, "False"), group_of(CUSTOM, "Unknown"), group_of("metrics.k8s.io", "True")),
            (None, None, None)
        );
        let new = DynamicObject::new("a", &resource("apiregistration.k8s.io", "v1", "APIService"));
        assert_eq!(served(&new), None);
    }
}
