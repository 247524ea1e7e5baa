//! ## What it checks
//! Readiness probes that succeed before the model is loaded: a TCP probe if the server listens immediately, or a path
//! that only reports that the process is alive.
//! ## Why it matters
//! The pod becomes ready and gets requests that it cannot answer; a rollout stops the old pods too early.
//! ## Instead
//! Probe the path that succeeds once the model is loaded. Ray Serve and TorchServe have none of their own: probe a path of
//! the application.

use serde_json::json;

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::{snippet, this_source};
use crate::runtimes::Handler;

/// Finds servers that become ready too early.
#[derive(Debug)]
pub struct ReadinessBeforeLoad;

impl Rule for ReadinessBeforeLoad {
    fn id(&self) -> &'static str {
        "readiness-before-load"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let Some((container, runtime)) = context.recognised.known() else { return Vec::new() };
        let Some(probe) = container.probe("readinessProbe") else { return Vec::new() };
        let asked = if probe.is_tcp() { Some("tcp") } else { probe.path() };
        let Some(asked) = asked.filter(|asked| runtime.not_ready.iter().any(|known| known == asked)) else {
            return Vec::new();
        };
        let Ok(endpoint) = context.recognised.endpoint() else { return Vec::new() };
        let Handler::Http { path, scheme } = endpoint.readiness else { return Vec::new() };
        let found = if probe.is_tcp() { "a connection".to_owned() } else { format!("`{asked}`") };
        let finding = Finding::in_container(container, "readinessProbe")
            .found(format!("{found}, which {} answers before its model is loaded", runtime.name));
        if runtime.not_ready.contains(&path) {
            let expected = "a path of the application, or a command, that succeeds only once the model is loaded";
            return vec![finding.expected(expected).fix("readinessProbe:\n  httpGet:\n    path: <path>")];
        }
        let get = json!({"path": path, "port": endpoint.port, "scheme": scheme});
        let mut instead = json!({"readinessProbe": {"httpGet": get}});
        if probe.is_tcp() {
            // A probe has one handler.
            instead["readinessProbe"]["tcpSocket"] = json!(null);
        }
        vec![finding.expected(format!("`{path}`")).fix(snippet(&instead))]
    }
}
