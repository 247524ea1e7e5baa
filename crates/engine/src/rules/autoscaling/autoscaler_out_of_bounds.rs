//! ## What it checks
//! Autoscalers of the author's own whose least or most replicas are outside of what the policy allows.
//! ## Why it matters
//! The policy's bounds keep a quiet night from stopping the last replica that must be there, and a busy day from taking every
//! GPU of the cluster.
//! ## Instead
//! Keep within the bounds, or ask for what Tidegate makes: leave the autoscaler out.

use crate::api::Enforcement;
use crate::facts::Autoscaler;
use crate::policy::{AutoscalingSettings, Context, Finding, Rule};
use crate::rules::this_source;

/// Finds autoscalers that go further than the policy.
#[derive(Debug)]
pub struct AutoscalerOutOfBounds;

impl Rule for AutoscalerOutOfBounds {
    fn id(&self) -> &'static str {
        "autoscaler-out-of-bounds"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let Some(settings) = context.effective.autoscaling() else { return Vec::new() };
        super::authors(context).flat_map(|autoscaler| out_of_bounds(autoscaler, settings)).collect()
    }
}

fn out_of_bounds(autoscaler: &Autoscaler, settings: &AutoscalingSettings) -> Vec<Finding> {
    let (least, most) = (i64::from(settings.min_replicas), i64::from(settings.max_replicas));
    let finding = |field: &str, found: i64, expected: i64, word: &str| {
        Finding::beside(&autoscaler.reference(), &format!("spec.{field}"))
            .found(format!("`{found}`"))
            .expected(format!("{word} {expected}, as the policy says"))
            .instead(format!("spec:\n  {field}: {expected}"))
    };
    let below = (autoscaler.min < least).then(|| finding("minReplicas", autoscaler.min, least, "at least"));
    let above = (autoscaler.max > most).then(|| finding("maxReplicas", autoscaler.max, most, "at most"));
    below.into_iter().chain(above).collect()
}
