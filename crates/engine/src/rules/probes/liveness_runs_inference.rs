//! ## What it checks
//! Liveness probes with a path that runs inference, such as `/v1/chat/completions`, `/predict` or SGLang's
//! `/health_generate`.
//! ## Why it matters
//! Each probe waits in the queue. Under load it times out, and a healthy server is restarted; when idle it keeps a GPU
//! busy for nothing.
//! ## Instead
//! Use the server's health path, which it answers without inference, or a TCP probe if it has none.

use serde_json::json;

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::{snippet, this_source};
use crate::runtimes::Handler;

/// The paths that run inference, for any runtime.
const INFERENCE: [&str; 8] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/generate",
    "/generate_stream",
    "/predict",
    "/predictions",
    "/invocations",
];

const WITHOUT: &str = "a path that answers without inference";

/// Finds liveness probes that run inference.
#[derive(Debug)]
pub struct LivenessRunsInference;

impl Rule for LivenessRunsInference {
    fn id(&self) -> &'static str {
        "liveness-runs-inference"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let Some(container) = context.recognised.container else { return Vec::new() };
        let Some(path) = container.probe("livenessProbe").and_then(|probe| probe.path()) else { return Vec::new() };
        let own = context.recognised.runtime.map_or(&[][..], |runtime| &runtime.inference_paths);
        let computes = own.iter().any(|known| known == path)
            || INFERENCE
                .iter()
                .any(|known| path == *known || path.strip_prefix(known).is_some_and(|rest| rest.starts_with('/')));
        if !computes {
            return Vec::new();
        }
        let (expected, fix) = match context.recognised.endpoint().map(|endpoint| (endpoint.liveness, endpoint.port)) {
            Ok((Handler::Http { path, .. }, _)) => (WITHOUT, json!({"httpGet": {"path": path}})),
            // A probe has one handler.
            Ok((Handler::Tcp, port)) if context.recognised.runtime.is_some() => {
                ("a connection", json!({"httpGet": null, "tcpSocket": {"port": port}}))
            }
            _ => (WITHOUT, json!({"httpGet": {"path": "<health path>"}})),
        };
        let finding = Finding::in_container(&container, "livenessProbe.httpGet.path").found(format!("`{path}`"));
        vec![finding.expected(expected).fix(snippet(&json!({"livenessProbe": fix})))]
    }
}
