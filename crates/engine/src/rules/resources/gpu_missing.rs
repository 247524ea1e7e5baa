//! ## What it checks
//! Servers of a runtime that needs GPUs, such as vLLM, without a GPU limit or resource claim. CPU builds are ignored,
//! and so are servers with another accelerator.
//! ## Why it matters
//! The pod starts on any node and fails repeatedly because there is no driver.
//! ## Instead
//! Set the GPUs that the model needs: `resources.limits: {nvidia.com/gpu: 1}`.

use serde_json::Value;

use crate::api::{Enforcement, Runtime};
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;
use crate::runtimes::Recognised;
use crate::workload::{Container, Lookup};

/// Finds GPU servers without a GPU.
#[derive(Debug)]
pub struct GpuMissing;

impl Rule for GpuMissing {
    fn id(&self) -> &'static str {
        "gpu-missing"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn is_about_pods(&self) -> bool {
        true
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let Some((container, runtime)) = context.recognised.known() else { return Vec::new() };
        let claims = context.workload.pod_spec()["resourceClaims"].as_array();
        if !needs(context.recognised, container, runtime)
            || has_accelerator(container)
            || claims.is_some_and(|claims| !claims.is_empty())
        {
            return Vec::new();
        }
        let finding =
            Finding::in_container(container, "resources.limits").found(format!("no GPU for {}", runtime.name));
        vec![finding.expected("the GPUs that the model needs").fix("resources:\n  limits:\n    nvidia.com/gpu: 1")]
    }
}

fn needs(recognised: &Recognised, container: &Container, runtime: &Runtime) -> bool {
    let image = container.image().text();
    let is_exempt = runtime.gpu.except_images.iter().any(|part| image.contains(part.as_str()))
        || runtime.gpu.except_flags.iter().any(|(flag, value)| match recognised.words.value(flag) {
            Lookup::Found(said) => said == value,
            Lookup::Absent => false,
            Lookup::Unknown(_) => true,
        });
    runtime.gpu.required && !is_exempt
}

/// Any resource with a vendor's name may be an unknown accelerator.
fn has_accelerator(container: &Container) -> bool {
    let limits = container.field("resources")["limits"].as_object();
    let vendors = |name: &str| name.split_once('/').is_some_and(|(vendor, _)| !vendor.ends_with("kubernetes.io"));
    container.has_gpu()
        || limits.is_some_and(|limits| {
            limits.iter().any(|(name, amount): (&String, &Value)| vendors(name) && !amount.is_null())
        })
}
