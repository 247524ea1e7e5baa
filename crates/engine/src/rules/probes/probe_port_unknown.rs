//! ## What it checks
//! Model servers that lack probes because the serving container or its port is unknown. Tidegate then injects none, and
//! warns when the workload is created: a probe on the wrong port would restart a healthy server.
//! ## Why it matters
//! Without probes, requests reach a server that is still loading its model, and one that hangs is never restarted.
//! ## Instead
//! Set the annotation `tidegate.dev/container` to the container and name its port `http`, or add the probes.

use crate::api::{CONTAINER_ANNOTATION, Enforcement};
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds servers that probes cannot be injected into.
#[derive(Debug)]
pub struct ProbePortUnknown;

impl Rule for ProbePortUnknown {
    fn id(&self) -> &'static str {
        "probe-port-unknown"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Audit
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let recognised = context.recognised;
        let Some(container) = recognised.container else {
            let expected = "the name of the container that is the model server";
            let instead = format!("metadata:\n  annotations:\n    {CONTAINER_ANNOTATION}: <container>");
            let place = format!("metadata.annotations[{CONTAINER_ANNOTATION}]");
            let found = recognised.problem.unwrap_or("several containers could be the model server");
            return vec![Finding::at(place).found(found).expected(expected).fix(instead)];
        };
        let probes = ["startupProbe", "readinessProbe", "livenessProbe"];
        // `loopback-server` reports a server on localhost.
        let has_no_port = recognised.is_worker() || recognised.loopback().is_some();
        if has_no_port || probes.iter().all(|field| container.probe(field).is_some()) {
            return Vec::new();
        }
        let Err(problem) = recognised.endpoint() else { return Vec::new() };
        let finding = Finding::in_container(&container, "ports").found(problem);
        vec![finding.expected("a port that is named `http`").fix("ports:\n  - name: http\n    containerPort: <port>")]
    }
}
