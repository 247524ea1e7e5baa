//! ## What it checks
//! Model servers whose runtime is no longer maintained, such as TorchServe.
//! ## Why it matters
//! Vulnerabilities found in it are not fixed, and new models and drivers stop working with it.
//! ## Instead
//! Move to a runtime that is maintained. For models of PyTorch: Triton, BentoML, Ray Serve or KServe's servers; for language
//! models vLLM, SGLang or TGI.

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds runtimes without security fixes.
#[derive(Debug)]
pub struct UnmaintainedRuntime;

impl Rule for UnmaintainedRuntime {
    fn id(&self) -> &'static str {
        "unmaintained-runtime"
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
        let known = context.recognised.known();
        let found = known.and_then(|(container, runtime)| Some((container, runtime, runtime.unmaintained.as_ref()?)));
        let finding = |(container, runtime, why): (_, &crate::api::Runtime, _)| {
            Finding::in_container(container, "image")
                .found(format!("{}: {why}", runtime.name))
                .expected("a runtime that is maintained")
                .fix("image: <an image of another runtime>")
        };
        found.map(finding).into_iter().collect()
    }
}
