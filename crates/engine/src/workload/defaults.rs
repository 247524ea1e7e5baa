//! What the API server fills in where nothing is said.

use serde_json::Value;
use smol_str::SmolStr;

use super::Path;

/// After how many seconds without progress a rollout counts as failed, and how many a pod has to stop, where nothing is said.
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
pub(crate) fn complete_probe(pod_spec: &mut Value, path: &Path) {
    let [list, container, field, ..] = path.segments() else { return };
    let probe = Path::new([list, container, field].map(SmolStr::clone));
    let Some(found) = probe.get(pod_spec).filter(|found| PROBES.contains(&field.as_str()) && has_handler(found)) else {
        return;
    };
    let numbers = [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)];
    let mut defaults: Vec<(Path, Value)> =
        numbers.into_iter().map(|(name, number)| (probe.join(name), number.into())).collect();
    if found["httpGet"].is_object() {
        let get = probe.join("httpGet");
        defaults.extend([(get.join("path"), "/".into()), (get.join("scheme"), "HTTP".into())]);
    }
    for (path, default) in defaults {
        if path.get(pod_spec).is_none_or(Value::is_null) {
            path.set(pod_spec, default);
        }
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
        complete_probe(&mut pod, &Path::new(["containers", "api", "readinessProbe", "tcpSocket", "port"]));
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
