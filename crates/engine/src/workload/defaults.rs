//! What the API server fills in where nothing is said.

use serde_json::Value;
use smol_str::SmolStr;

use super::FieldPath;

/// After how many seconds without progress a rollout counts as failed, and how many a pod has to stop, where nothing is
/// said.
///
/// `SetDefaults_Deployment` and `SetDefaults_PodSpec` of
/// <https://github.com/kubernetes/kubernetes/blob/v1.36.3/pkg/apis/apps/v1/defaults.go>
pub const PROGRESS_DEADLINE: i64 = 600;

/// See [`PROGRESS_DEADLINE`].
pub const GRACE_PERIOD: i64 = 30;

const PROBES: [&str; 3] = ["startupProbe", "readinessProbe", "livenessProbe"];

/// What the API server takes as the handler of a probe.
const HANDLERS: [&str; 4] = ["httpGet", "tcpSocket", "exec", "grpc"];

/// Fills in what is missing in the probe that a path leads into, as the API server is about to: so what is stored is
/// known beforehand. A probe without a handler is left as it is.
///
/// `SetDefaults_Probe` and `SetDefaults_HTTPGetAction` of
/// <https://github.com/kubernetes/kubernetes/blob/v1.36.3/pkg/apis/core/v1/defaults.go>
pub(crate) fn complete_probe(pod_spec: &mut Value, path: &FieldPath) {
    let [list, container, field, ..] = path.segments() else { return };
    let probe = FieldPath::new([list, container, field].map(SmolStr::clone));
    let Some(mut found) = probe.get(pod_spec).filter(|_| PROBES.contains(&field.as_str())).cloned() else { return };
    complete(&mut found);
    probe.set(pod_spec, found);
}

/// Fills in what is missing in a probe.
pub(super) fn complete(probe: &mut Value) {
    if !has_handler(probe) {
        return;
    }
    let numbers = [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)];
    for (name, number) in numbers {
        fill(probe, name, number.into());
    }
    if probe["httpGet"].is_object() {
        for (name, text) in [("path", "/"), ("scheme", "HTTP")] {
            fill(&mut probe["httpGet"], name, text.into());
        }
    }
    if probe["grpc"].is_object() {
        fill(&mut probe["grpc"], "service", "".into());
    }
}

fn fill(place: &mut Value, field: &str, default: Value) {
    if place[field].is_null() {
        place[field] = default;
    }
}

/// Tells whether a probe says how to ask.
pub(crate) fn has_handler(probe: &Value) -> bool {
    HANDLERS.iter().any(|handler| !probe[handler].is_null())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn completed(probe: &Value) -> Value {
        let mut pod = json!({"containers": [{"name": "api", "readinessProbe": probe}]});
        complete_probe(&mut pod, &FieldPath::new(["containers", "api", "readinessProbe", "tcpSocket", "port"]));
        pod["containers"][0]["readinessProbe"].clone()
    }

    #[test]
    fn what_a_probe_lacks_is_filled_in() {
        let wanted = json!({"tcpSocket": {"port": 1}, "timeoutSeconds": 1, "periodSeconds": 7, "successThreshold": 1,
            "failureThreshold": 3});
        assert_eq!(completed(&json!({"tcpSocket": {"port": 1}, "periodSeconds": 7})), wanted);
        let get = completed(&json!({"httpGet": {"port": 1}}));
        assert_eq!(get["httpGet"], json!({"port": 1, "path": "/", "scheme": "HTTP"}));
    }

    #[test]
    fn a_probe_without_a_handler_is_left_as_it_is() {
        let bare = json!({"periodSeconds": 7});
        assert_eq!(completed(&bare), bare);
    }
}
