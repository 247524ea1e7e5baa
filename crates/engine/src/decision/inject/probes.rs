//! Injects startup, readiness and liveness probes.

use serde_json::{Value, json};

use super::Injector;
use crate::policy::{PolicyRef, ProbeSettings};
use crate::runtimes::{Endpoint, Handler, Recognised};
use crate::workload::{Container, FieldPath, has_handler};

/// Injects the probes that the model server's container lacks. A probe with a handler is the user's and not changed,
/// except for a missing port, which is required: the user may have changed only the path of an injected probe.
pub(super) fn inject(
    recognised: &Recognised,
    settings: &ProbeSettings,
    policy: &PolicyRef,
    injector: &mut Injector,
) -> Option<String> {
    if !settings.inject {
        return None;
    }
    let container = match recognised.server() {
        Ok(container) => container,
        Err(problem) => return Some(format!("no probes are injected: {problem}")),
    };
    let is_incomplete = |probe: &Probe| {
        let written = container.field(probe.field());
        !has_handler(written) || without_port(written).is_some()
    };
    let missing: Vec<Probe> = Probe::ALL.into_iter().filter(is_incomplete).collect();
    if missing.is_empty() {
        return None;
    }
    let endpoint = match recognised.endpoint() {
        Ok(endpoint) => endpoint,
        Err(problem) => return Some(format!("no probes are injected into container {}: {problem}", container.name())),
    };
    for probe in missing {
        let path = FieldPath::new([container.list(), container.name(), probe.field()]);
        if let Some(handler) = without_port(container.field(probe.field())) {
            injector.add(path.join(handler).join("port"), endpoint.port.into(), policy);
            continue;
        }
        let wanted = probe.wanted(container, &endpoint, settings);
        injector.add(path, lacking(container.field(probe.field()), wanted), policy);
    }
    None
}

/// Returns the handler without a port.
fn without_port(probe: &Value) -> Option<&'static str> {
    ["httpGet", "tcpSocket"].into_iter().find(|handler| probe[handler].is_object() && probe[handler]["port"].is_null())
}

/// Returns the fields of `wanted` that a probe lacks.
fn lacking(written: &Value, mut wanted: Value) -> Value {
    if let Value::Object(fields) = &mut wanted {
        fields.retain(|name, _| written[name].is_null());
    }
    wanted
}

/// The three probes of a container.
#[derive(Clone, Copy)]
enum Probe {
    Startup,
    Readiness,
    Liveness,
}

impl Probe {
    const ALL: [Self; 3] = [Self::Startup, Self::Readiness, Self::Liveness];

    fn field(self) -> &'static str {
        match self {
            Self::Startup => "startupProbe",
            Self::Readiness => "readinessProbe",
            Self::Liveness => "livenessProbe",
        }
    }

    /// Returns the whole probe with all defaults of the API server, so that the stored template matches the receipt.
    fn wanted(self, container: &Container, endpoint: &Endpoint, settings: &ProbeSettings) -> Value {
        let (handler, failures) = match self {
            Self::Startup => (&endpoint.startup, startup_failures(endpoint, settings)),
            Self::Readiness => (&endpoint.readiness, readiness_failures(container)),
            Self::Liveness => (&endpoint.liveness, liveness_failures(container)),
        };
        let mut probe = json!({
            "periodSeconds": PERIOD_SECONDS, "timeoutSeconds": 5, "successThreshold": 1, "failureThreshold": failures
        });
        match handler {
            Handler::Http { path, scheme } => {
                probe["httpGet"] = json!({"path": path, "port": endpoint.port, "scheme": scheme});
            }
            Handler::Tcp => probe["tcpSocket"] = json!({"port": endpoint.port}),
        }
        probe
    }
}

const PERIOD_SECONDS: u64 = 10;

/// Returns the failure threshold that covers the startup budget of the policy, or else of the runtime.
fn startup_failures(endpoint: &Endpoint, settings: &ProbeSettings) -> u64 {
    let budget = settings.startup_budget.unwrap_or(endpoint.startup_budget);
    budget.as_secs().div_ceil(PERIOD_SECONDS).max(1)
}

/// Returns the failure threshold of a readiness probe: the server is unready before the author's liveness probe kills
/// it.
fn readiness_failures(container: &Container) -> u64 {
    let killed = container.probe("livenessProbe").map(|probe| probe.patience());
    killed.map_or(3, |seconds| (seconds / PERIOD_SECONDS).clamp(1, 3))
}

/// Returns the failure threshold of a liveness probe: it kills the server after the author's readiness probe fails.
fn liveness_failures(container: &Container) -> u64 {
    let unready = container.probe("readinessProbe").map(|probe| probe.patience());
    // The API server accepts an int32.
    unready.map_or(6, |seconds| (seconds / PERIOD_SECONDS + 1).clamp(6, i32::MAX.unsigned_abs().into()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::runtimes::Runtimes;
    use crate::workload::Workload;

    fn endpoint() -> Endpoint {
        let (http, tcp) = (Handler::Http { path: "/ready".into(), scheme: "HTTPS" }, Handler::Tcp);
        let startup_budget = Duration::from_mins(5);
        Endpoint { port: 8443, startup: tcp.clone(), readiness: http, liveness: tcp, startup_budget }
    }

    fn settings(startup_budget: Option<u64>) -> ProbeSettings {
        ProbeSettings { inject: true, startup_budget: startup_budget.map(Duration::from_secs) }
    }

    #[test]
    fn the_failure_threshold_covers_the_startup_budget() {
        let failures = |budget| startup_failures(&endpoint(), &settings(budget));
        assert_eq!([None, Some(600), Some(601), Some(1), Some(0)].map(failures), [30, 60, 61, 1, 1]);
    }

    #[test]
    fn injects_all_defaults_of_the_api_server() {
        let object = crate::testing::with_container(&json!({}));
        let workload = Workload::view(&object).unwrap();
        let container = workload.containers().next().unwrap();
        let wanted = Probe::Readiness.wanted(&container, &endpoint(), &settings(None));
        let expected = json!({
            "httpGet": {"path": "/ready", "port": 8443, "scheme": "HTTPS"},
            "periodSeconds": 10, "timeoutSeconds": 5, "successThreshold": 1, "failureThreshold": 3
        });
        assert_eq!(wanted, expected);
        assert_eq!(
            Probe::Liveness.wanted(&container, &endpoint(), &settings(None))["tcpSocket"],
            json!({"port": 8443})
        );
    }

    #[test]
    fn an_injected_probe_leaves_the_server_unready_before_it_is_killed() {
        let failures = |field: &str, probe: Value| {
            let object = crate::testing::with_container(&json!({field: probe}));
            let workload = Workload::view(&object).unwrap();
            let container = workload.containers().next().unwrap();
            (readiness_failures(&container), liveness_failures(&container))
        };
        let every = |period: u64, failures: u64| json!({"tcpSocket": {"port": 1}, "periodSeconds": period, "failureThreshold": failures});
        assert_eq!(failures("livenessProbe", json!(null)), (3, 6));
        assert_eq!(failures("livenessProbe", every(10, 2)).0, 2);
        assert_eq!(failures("livenessProbe", every(5, 1)).0, 1);
        assert_eq!(failures("readinessProbe", every(30, 3)).1, 10);
        assert_eq!(failures("readinessProbe", every(u64::MAX, 3)).1, 2_147_483_647);
    }

    /// Returns the readiness probe of a container with one port after injection.
    fn injected(readiness: &Value) -> Value {
        let policy = PolicyRef { name: "serving".into(), generation: 1 };
        let mut injector = Injector::default();
        let container = json!({"name": "api", "image": "api:1", "ports": [{"containerPort": 8080}],
            "readinessProbe": readiness});
        let mut object = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
        let settings = ProbeSettings { inject: true, startup_budget: None };
        let workload = Workload::view(&object).unwrap();
        inject(&Runtimes::shipped().recognise(&workload).view(&workload), &settings, &policy, &mut injector);
        let pod = &mut object["spec"]["template"]["spec"];
        injector.injections.iter().for_each(|added| added.path.set(pod, added.value.clone()));
        pod["containers"][0]["readinessProbe"].clone()
    }

    #[test]
    fn keeps_a_probe_with_a_handler() {
        for handler in [json!({"tcpSocket": {"port": 1}}), json!({"exec": {"command": ["true"]}, "periodSeconds": 3})] {
            assert_eq!(injected(&handler), handler);
        }
    }

    #[test]
    fn injects_only_the_port_into_a_handler_without_one() {
        let path = json!({"httpGet": {"path": "/ready"}});
        assert_eq!(injected(&path), json!({"httpGet": {"path": "/ready", "port": 8080}}));
    }

    #[test]
    fn injects_missing_fields_into_a_probe_without_a_handler() {
        let probe = injected(&json!({"periodSeconds": 3}));
        assert_eq!((&probe["periodSeconds"], &probe["tcpSocket"]), (&json!(3), &json!({"port": 8080})));
    }
}
