//! ## What it checks
//! InferencePools that select the pods of a model server, but send requests to a port that no container has. It is not
//! checked if the server's port is unknown.
//! ## Why it matters
//! Each request to the pool fails, while the pods are ready.
//! ## Instead
//! Set the port of the server in the pool's `targetPorts`.

use serde_json::json;

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::{snippet, this_source};

/// Finds InferencePools with a wrong port.
#[derive(Debug)]
pub struct PoolPortNotServed;

impl Rule for PoolPortNotServed {
    fn id(&self) -> &'static str {
        "pool-port-not-served"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let workload = &context.workload;
        let Ok(endpoint) = context.recognised.endpoint() else { return Vec::new() };
        let declared = workload.long_running().flat_map(|container| container.tcp_ports().collect::<Vec<_>>());
        let served: Vec<u16> = declared.map(|(_, port)| port).chain([endpoint.port]).collect();
        let pools = context.facts.pools_for(workload.namespace(), &workload.template()["metadata"]["labels"]);
        let wrong = pools.into_iter().filter_map(|(name, pool)| {
            let port = pool.ports.iter().find(|port| !served.contains(port))?;
            let finding =
                Finding::beside(&format!("InferencePool/{name}"), "spec.targetPorts").found(format!("`{port}`"));
            let finding = finding.expected(format!("{}, the port of the server", endpoint.port));
            Some(finding.fix(snippet(&json!({"spec": {"targetPorts": [{"number": endpoint.port}]}}))))
        });
        wrong.collect()
    }
}
