//! ## What it checks
//! A new workload whose manifest sets `spec.replicas` although an autoscaler will set them.
//! ## Why it matters
//! Every `kubectl apply` of that manifest asks for the written number again. Tidegate keeps the live one then, but
//! server-side apply stops with a conflict before Tidegate is asked, and GitOps tools report a difference for ever.
//! ## Instead
//! Leave `spec.replicas` out of the manifest.

use crate::api::Enforcement;
use crate::rules::{Context, Finding, Rule};
use crate::workload::Authors;

/// Finds manifests that set what an autoscaler sets.
pub struct ReplicasUnderAutoscaler;

impl Rule for ReplicasUnderAutoscaler {
    fn id(&self) -> &'static str {
        "replicas-under-autoscaler"
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let Some(replicas) = context.workload.replicas().filter(|_| context.old.is_none()) else { return Vec::new() };
        let scaled = context.effective.autoscaling().is_some_and(|settings| settings.enabled)
            || !context.facts.autoscalers_of(&context.workload.reference()).is_empty();
        // The API server fills in 1, so a 1 counts only where somebody is known to have written it.
        if !scaled || (replicas == 1 && !Authors::of(&context.workload).wrote_replicas()) {
            return Vec::new();
        }
        let finding = Finding::at("spec.replicas").found(format!("`{replicas}`"));
        vec![finding.expected("nothing, since an autoscaler sets it").instead("# leave spec.replicas out")]
    }
}
