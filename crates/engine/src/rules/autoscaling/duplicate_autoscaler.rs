//! ## What it checks
//! Workloads with several autoscalers that Tidegate does not manage. Tidegate deletes its own in favour of others.
//! ## Why it matters
//! Kubernetes disables two HorizontalPodAutoscalers for the same pods (`AmbiguousSelector`). A HorizontalPodAutoscaler
//! and a ScaledObject work against each other.
//! ## Instead
//! Keep one of them.

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds workloads with several autoscalers.
#[derive(Debug)]
pub struct DuplicateAutoscaler;

impl Rule for DuplicateAutoscaler {
    fn id(&self) -> &'static str {
        "duplicate-autoscaler"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let mut names: Vec<String> = super::unmanaged(context).map(crate::facts::Autoscaler::reference).collect();
        names.sort();
        let [first, others @ ..] = &names[..] else { return Vec::new() };
        let finding = |other: &String| {
            let finding = Finding::beside(other, "spec.scaleTargetRef").found(format!("also the target of {first}"));
            finding.expected("one autoscaler for a workload").fix(format!("# remove {other}"))
        };
        others.iter().map(finding).collect()
    }
}
