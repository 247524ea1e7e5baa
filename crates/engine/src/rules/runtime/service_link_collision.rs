//! ## What it checks
//! Servers that read all environment variables with a prefix as settings, such as vLLM, in a pod that gets variables
//! for Services, if a Service in the namespace has that prefix; only if the Services are known.
//! ## Why it matters
//! Kubernetes sets `VLLM_PORT=tcp://10.0.0.1:8000` for a Service called `vllm`. vLLM reads that as its port, and exits.
//! ## Instead
//! Disable these variables, which are rarely needed. A policy with `pod` does this.

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds servers that read Service variables as settings.
#[derive(Debug)]
pub struct ServiceLinkCollision;

impl Rule for ServiceLinkCollision {
    fn id(&self) -> &'static str {
        "service-link-collision"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let prefix = context.recognised.runtime.and_then(|runtime| runtime.service_link_prefix.as_deref());
        let Some(prefix) = prefix.filter(|_| context.workload.pod_spec()["enableServiceLinks"] != false) else {
            return Vec::new();
        };
        let mut services = context.facts.services_in(context.workload.namespace());
        let collides = |service: &&str| {
            let variable = service.to_uppercase().replace('-', "_");
            variable == prefix || variable.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('_'))
        };
        let Some(service) = services.find(collides) else { return Vec::new() };
        let finding = Finding::in_pod(&context.workload, "enableServiceLinks")
            .found(format!("`true`, with a Service `{service}` in the namespace"));
        vec![finding.expected(format!("`false`: variables {prefix}_* are settings")).fix("enableServiceLinks: false")]
    }
}
