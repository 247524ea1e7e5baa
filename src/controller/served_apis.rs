//! Learns whether the cluster serves custom and external metrics: an adapter may come, and go, at any time.

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
    /// Follows the objects by which the API server asks others.
    pub(super) fn metrics_apis(&self, step: Step) -> impl Future<Output = ()> + use<> {
        let kind = resource("apiregistration.k8s.io", "v1", "APIService");
        let apis = MetricsApis { watches: self.clone(), step, groups: BTreeMap::new(), is_synced: false };
        follow(self.events(&kind), apis)
    }
}

struct MetricsApis {
    watches: Watches,
    step: Step,
    /// The groups of what is available, by the name of the object that says so.
    groups: BTreeMap<String, String>,
    is_synced: bool,
}

impl MetricsApis {
    /// Notes what is served now, and has all looked at where that is something else than before.
    fn note(&self) {
        let is_served = |group: &str| self.groups.values().any(|served| served == group);
        let (custom, external) = (is_served(CUSTOM), is_served(EXTERNAL));
        let changed = self.watches.state.note(|facts| {
            let before = facts.apis;
            facts.apis = Apis { custom_metrics: custom, external_metrics: external, ..before };
            facts.apis != before
        });
        if changed && self.is_synced {
            info!(custom, external, "other metrics are served");
            self.watches.queue.push_all();
        }
    }
}

/// Tells which APIs of metrics are served: custom and external ones.
#[must_use]
pub fn metrics_served(services: &[DynamicObject]) -> (bool, bool) {
    let is_served = |group: &str| services.iter().filter_map(served).any(|found| found == group);
    (is_served(CUSTOM), is_served(EXTERNAL))
}

/// Tells the group of an API that serves metrics and is available.
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
        self.note();
    }

    fn remove(&mut self, key: &Key) {
        self.groups.remove(&key.1);
        self.note();
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
    fn only_what_is_available_is_served() {
        let of = |group: &str, status: &str| {
            let conditions = json!([{"type": "Other", "status": "True"}, {"type": "Available", "status": status}]);
            let mut service = DynamicObject::new("a", &resource("apiregistration.k8s.io", "v1", "APIService"));
            service.data = json!({"spec": {"group": group}, "status": {"conditions": conditions}});
            served(&service).map(str::to_owned)
        };
        assert_eq!(of(CUSTOM, "True").as_deref(), Some(CUSTOM));
        assert_eq!(of(EXTERNAL, "True").as_deref(), Some(EXTERNAL));
        assert_eq!((of(CUSTOM, "False"), of(CUSTOM, "Unknown"), of("metrics.k8s.io", "True")), (None, None, None));
        let new = DynamicObject::new("a", &resource("apiregistration.k8s.io", "v1", "APIService"));
        assert_eq!(served(&new), None);
    }
}
