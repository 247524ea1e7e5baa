//! Defaults that the API server sets.

use serde_json::Value;
use smol_str::SmolStr;

use super::FieldPath;

/// The default progress deadline of a Deployment, in seconds.
///
/// `SetDefaults_Deployment` and `SetDefaults_PodSpec` of
/// <https://github.com/kubernetes/kubernetes/blob/v1.36.3/pkg/apis/apps/v1/defaults.go>
pub const PROGRESS_DEADLINE: i64 = 600;

/// The default termination grace period of a pod, in seconds; see [`PROGRESS_DEADLINE`] for the source.
pub const GRACE_PERIOD: i64 = 30;

const PROBES: [&str; 3] = ["startupProbe", "readinessProbe", "livenessProbe"];

/// The handlers of probes.
const HANDLERS: [&str; 4] = ["httpGet", "tcpSocket", "exec", "grpc"];

/// Sets the defaults of the probe that a path is in, as the API server will do, so that the stored template is known
/// beforehand. A probe without a handler is not changed.
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

/// Sets the defaults of a probe.
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

/// Returns whether a probe has a handler.
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
    fn sets_the_defaults_of_a_probe() {
        let wanted = json!({"tcpSocket": {"port": 1}, "timeoutSeconds": 1, "periodSeconds": 7, "successThreshold": 1,
            "failureThreshold": 3});
        assert_eq!(completed(&json!({"tcpSocket": {"port": 1}, "periodSeconds": 7})), wanted);
        let get = completed(&json!({"httpGet": {"port": 1}}));
        assert_eq!(get["httpGet"], json!({"port": 1, "path": "/", "scheme": "HTTP"}));
    }

    #[test]
    fn does_not_change_a_probe_without_a_handler() {
        let bare = json!({"periodSeconds": 7});
        assert_eq!(completed(&bare), bare);
    }
}
