//! ## What it checks
//! Workloads that several autoscalers of the author's own scale. One that Tidegate made does not count: it goes by itself.
//! ## Why it matters
//! Kubernetes switches both off where two HorizontalPodAutoscalers scale the same pods (`AmbiguousSelector`); a ScaledObject
//! beside one pulls the other way.
//! ## Instead
//! Keep one of them.

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds autoscalers that switch each other off.
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
        let mut names: Vec<String> = super::authors(context).map(crate::facts::Autoscaler::reference).collect();
        names.sort();
        let [first, others @ ..] = &names[..] else { return Vec::new() };
        let finding = |other: &String| {
            let finding = Finding::beside(other, "spec.scaleTargetRef").found(format!("also the target of {first}"));
            finding.expected("one autoscaler for a workload").fix(format!("# remove {other}"))
        };
        others.iter().map(finding).collect()
    }
}
