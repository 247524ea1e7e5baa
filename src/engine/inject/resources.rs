//! Resource requests and limits.

use serde_json::Value;

use super::Injector;
use crate::policy::{Class, Defaults, RequestAndLimit};
use crate::quantity::Quantity;
use crate::workload::{Container, Path, Workload};

/// Injects requests and limits into every long-running container of a class. Resources that are set for the whole pod
/// count as set for each container.
pub(super) fn inject(workload: &Workload, class: Class, defaults: &Defaults, injector: &mut Injector) {
    let pod = &workload.pod_spec()["resources"];
    for container in workload.long_running().filter(|container| Class::of(container) == class) {
        for (name, default) in &defaults.by_resource {
            if is_set(pod, name) {
                continue;
            }
            inject_one(&container, name, default, injector);
        }
    }
}

/// Injects one resource: a missing limit is the larger of default and request, a missing request the smaller of default
/// and limit, so that neither contradicts what the author wrote.
fn inject_one(container: &Container, name: &str, default: &RequestAndLimit, injector: &mut Injector) {
    let (request, limit) = (container.resource("requests", name), container.resource("limits", name));
    let wanted_limit = default.limit.as_ref().map(|default| larger(default, request.as_ref()));
    let upper = limit.as_ref().or(wanted_limit);
    let wanted_request = default.request.as_ref().map(|default| smaller(default, upper));
    for (of, wanted) in [("requests", wanted_request), ("limits", wanted_limit)] {
        if let Some(wanted) = wanted.filter(|_| !container.has_resource(of, name)) {
            let path = Path::new([container.list(), container.name(), "resources", of, name]);
            injector.add(&path, Value::from(wanted.to_string()));
        }
    }
}

fn larger<'q>(default: &'q Quantity, request: Option<&'q Quantity>) -> &'q Quantity {
    request.map_or(default, |request| request.max(default))
}

fn smaller<'q>(default: &'q Quantity, limit: Option<&'q Quantity>) -> &'q Quantity {
    limit.map_or(default, |limit| limit.min(default))
}

fn is_set(resources: &Value, name: &str) -> bool {
    ["requests", "limits"].iter().any(|of| !resources[of][name].is_null())
}
