//! Injects resource requests and limits.

use serde_json::Value;

use super::Injector;
use crate::policy::{Class, Defaults, RequestAndLimit};
use crate::quantity::Quantity;
use crate::workload::{Container, FieldPath, Workload};

/// Injects requests and limits into every long-running container of a class. Resources that are set for the whole pod
/// count as set for each container.
pub(super) fn inject(workload: &Workload, class: Class, defaults: &Defaults, injector: &mut Injector) {
    for container in workload.long_running().filter(|container| Class::of(container) == class) {
        for (name, default) in &defaults.by_resource {
            if !workload.pod_requests(name) {
                inject_one(&container, name, default, injector);
            }
        }
    }
}

/// Injects one resource: a missing limit is the larger of default and request, a missing request the smaller of default
/// and limit, so that the request never exceeds the limit.
fn inject_one(container: &Container, name: &str, default: &RequestAndLimit, injector: &mut Injector) {
    let (request, limit) = (container.resource("requests", name), container.resource("limits", name));
    let wanted_limit = default.limit.as_ref().map(|(default, policy)| (larger(default, request.as_ref()), policy));
    let upper = limit.as_ref().or(wanted_limit.map(|(limit, _)| limit));
    let wanted_request = default.request.as_ref().map(|(default, policy)| (smaller(default, upper), policy));
    for (of, wanted) in [("requests", wanted_request), ("limits", wanted_limit)] {
        if let Some((wanted, policy)) = wanted.filter(|_| !container.has_resource(of, name)) {
            let path = FieldPath::new([container.list(), container.name(), "resources", of, name]);
            injector.add(path, Value::from(wanted.to_string()), policy);
        }
    }
}

fn larger<'q>(default: &'q Quantity, request: Option<&'q Quantity>) -> &'q Quantity {
    request.map_or(default, |request| request.max(default))
}

fn smaller<'q>(default: &'q Quantity, limit: Option<&'q Quantity>) -> &'q Quantity {
    limit.map_or(default, |limit| limit.min(default))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::PolicyRef;
    use crate::testing::with_container;

    /// Injects a default request and limit of memory into a container with these resources.
    fn injected(resources: &Value, request: Option<&str>, limit: Option<&str>) -> Vec<String> {
        let policy = PolicyRef { name: "serving".into(), generation: 1 };
        let read = |text: Option<&str>| text.map(|text| (text.parse().unwrap(), policy.clone()));
        let pair = RequestAndLimit { request: read(request), limit: read(limit) };
        let defaults = Defaults { by_resource: [("memory".to_owned(), pair)].into() };
        let mut injector = Injector::default();
        let object = with_container(&json!({"resources": resources}));
        inject(&Workload::view(&object).unwrap(), Class::Cpu, &defaults, &mut injector);
        let set = injector.injections.iter().map(|set| format!("{}={}", set.path.segments()[3], set.value));
        set.map(|set| set.replace('"', "")).collect()
    }

    #[test]
    fn injects_a_request_or_a_limit_alone() {
        assert_eq!(injected(&json!({}), Some("1Gi"), None), ["requests=1Gi"]);
        assert_eq!(injected(&json!({}), None, Some("1Gi")), ["limits=1Gi"]);
        assert_eq!(injected(&json!({"limits": {"memory": "1Mi"}}), Some("1Gi"), None), ["requests=1Mi"]);
        assert_eq!(injected(&json!({"requests": {"memory": "2Gi"}}), None, Some("1Gi")), ["limits=2Gi"]);
    }

    #[test]
    fn compares_amounts_in_different_notations() {
        assert_eq!(injected(&json!({"limits": {"memory": 1_073_741_824}}), Some("1Gi"), None), ["requests=1073741824"]);
        assert_eq!(injected(&json!({"requests": {"memory": "1024Mi"}}), None, Some("1Gi")), ["limits=1Gi"]);
    }

    #[test]
    fn injects_nothing_if_both_are_set_or_the_class_differs() {
        let both = json!({"requests": {"memory": "1"}, "limits": {"memory": "2"}});
        assert_eq!(injected(&both, Some("1Gi"), Some("2Gi")), [""; 0]);
        assert_eq!(injected(&json!({"limits": {"amd.com/gpu": 1}}), Some("1Gi"), Some("2Gi")), [""; 0]);
    }

    #[test]
    fn treats_null_as_absent() {
        let null = json!({"requests": null, "limits": {"memory": null}});
        assert_eq!(injected(&null, Some("1Gi"), Some("2Gi")), ["requests=1Gi", "limits=2Gi"]);
    }
}
