//! ## What it checks
//! Probes that name a port which their own container does not declare.
//! ## Why it matters
//! The API server stores them, and every one of these probes fails: the pod never becomes ready, or is restarted again
//! and again.
//! ## Instead
//! Write the number of the port, or add its name to the `ports` of the container. Ports of other containers do not count.

use serde_json::{Value, json};

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::{snippet, this_source};
use crate::workload::{Container, items};

/// Finds probes whose port does not exist.
#[derive(Debug)]
pub struct UndeclaredProbePort;

impl Rule for UndeclaredProbePort {
    fn id(&self) -> &'static str {
        "undeclared-probe-port"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let containers = context.workload.long_running();
        containers.flat_map(|container| undeclared(context, &container)).collect()
    }
}

fn undeclared(context: &Context, container: &Container) -> Vec<Finding> {
    let probes = ["startupProbe", "readinessProbe", "livenessProbe"].into_iter();
    let handlers = probes.filter_map(|field| Some((field, container.probe(field)?.handler()?)));
    let named = handlers.filter_map(|(field, (handler, value))| Some((field, handler, value["port"].as_str()?)));
    let finding = |(field, handler, name): (&str, &str, &str)| {
        Finding::in_container(container, &format!("{field}.{handler}.port"))
            .found(format!("`{name}`, which no port of the container is named"))
            .expected("a number, or the name of a port of this container")
            .fix(snippet(&json!({field: {handler: {"port": port(context, container)}}})))
    };
    named.filter(|(_, _, name)| !is_declared(container, name)).map(finding).collect()
}

fn is_declared(container: &Container, name: &str) -> bool {
    items(container.field("ports")).any(|port| port["name"] == name)
}

/// Returns the port of the model server, if this is its container.
fn port(context: &Context, container: &Container) -> Value {
    let server = context.recognised.container.filter(|server| server.name() == container.name());
    let endpoint = server.and_then(|_| context.recognised.endpoint().ok());
    endpoint.map_or_else(|| "<port>".into(), |endpoint| endpoint.port.into())
}
