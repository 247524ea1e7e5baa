//! Startup, readiness and liveness probes.

use serde_json::{Value, json};

use super::{Injector, which_container};
use crate::policy::ProbeSettings;
use crate::runtimes::{Endpoint, Handler, Recognised};
use crate::workload::{Container, Path};

/// What the API server takes as the handler of a probe.
const HANDLERS: [&str; 4] = ["httpGet", "tcpSocket", "exec", "grpc"];

/// Injects the probes that the model server's container lacks. A probe with a handler is its author's and left alone.
pub(super) fn inject(recognised: &Recognised, settings: &ProbeSettings, injector: &mut Injector) -> Option<String> {
    if !settings.inject {
        return None;
    }
    let Some(container) = &recognised.container else {
        return Some(which_container(recognised, "no probes are injected"));
    };
    let missing: Vec<Probe> = Probe::ALL.into_iter().filter(|probe| !has_handler(container, *probe)).collect();
    if missing.is_empty() {
        return None;
    }
    let Some(endpoint) = recognised.endpoint() else {
        return Some(format!(
            "no probes are injected into container {}: it declares {} TCP ports and it cannot be told which one serves; \
             name one `http` or write the probes",
            container.name(),
            container.tcp_ports().count()
        ));
    };
    for probe in missing {
        let path = Path::new([container.list(), container.name(), probe.field()]);
        inject_one(container, probe, &path, &probe.wanted(&endpoint, settings), injector);
    }
    None
}

/// Injects the fields that the probe lacks.
fn inject_one(container: &Container, probe: Probe, path: &Path, wanted: &Value, injector: &mut Injector) {
    let written = container.field(probe.field());
    for (name, value) in wanted.as_object().into_iter().flatten() {
        if written[name].is_null() {
            injector.add(&path.join(name), value.clone());
        }
    }
}

fn has_handler(container: &Container, probe: Probe) -> bool {
    let written = container.field(probe.field());
    HANDLERS.iter().any(|handler| !written[handler].is_null())
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

    /// Returns the whole probe with every default of the API server spelt out, so that what is stored is what the
    /// receipt was written for.
    fn wanted(self, endpoint: &Endpoint, settings: &ProbeSettings) -> Value {
        let (handler, failures) = match self {
            Self::Startup => (&endpoint.startup, startup_failures(endpoint, settings)),
            Self::Readiness => (&endpoint.readiness, 3),
            Self::Liveness => (&endpoint.liveness, 6),
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

/// How many failed startup probes fill the start-up budget: the policy's, else the runtime's.
fn startup_failures(endpoint: &Endpoint, settings: &ProbeSettings) -> u64 {
    let budget = settings.startup_budget.unwrap_or(endpoint.startup_budget);
    budget.as_secs().div_ceil(PERIOD_SECONDS).max(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn endpoint() -> Endpoint {
        let (http, tcp) = (Handler::Http { path: "/ready".into(), scheme: "HTTPS" }, Handler::Tcp);
        let startup_budget = Duration::from_mins(5);
        Endpoint { port: 8443, startup: tcp.clone(), readiness: http, liveness: tcp, startup_budget }
    }

    fn settings(startup_budget: Option<u64>) -> ProbeSettings {
        ProbeSettings { inject: true, startup_budget: startup_budget.map(Duration::from_secs) }
    }

    #[test]
    fn the_start_up_budget_is_filled_and_never_empty() {
        let failures = |budget| startup_failures(&endpoint(), &settings(budget));
        assert_eq!([None, Some(600), Some(601), Some(1), Some(0)].map(failures), [30, 60, 61, 1, 1]);
    }

    #[test]
    fn every_default_of_the_api_server_is_spelt_out() {
        let wanted = Probe::Readiness.wanted(&endpoint(), &settings(None));
        let expected = json!({
            "httpGet": {"path": "/ready", "port": 8443, "scheme": "HTTPS"},
            "periodSeconds": 10, "timeoutSeconds": 5, "successThreshold": 1, "failureThreshold": 3
        });
        assert_eq!(wanted, expected);
        assert_eq!(Probe::Liveness.wanted(&endpoint(), &settings(None))["tcpSocket"], json!({"port": 8443}));
    }
}
