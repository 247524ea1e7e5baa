//! ## What it checks
//! ScaledObjects not managed by Tidegate whose `fallback` sets a number of replicas below the maximum, whatever the
//! number that is running (`behavior: static`, the default).
//! ## Why it matters
//! When a trigger fails, KEDA reports a made-up value for it, and the ScaledObject stays `Ready`. Replicas that serve
//! load are stopped because Prometheus is away, or a wrong address is noticed by nobody.
//! ## Instead
//! Keep the running replicas if they are more: `behavior: currentReplicasIfHigher`, from KEDA 2.17 on. Alert on the
//! condition `Fallback` of the ScaledObject.

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds fallbacks that stop replicas under load.
#[derive(Debug)]
pub struct StaticFallback;

impl Rule for StaticFallback {
    fn id(&self) -> &'static str {
        "static-fallback"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let found = super::unmanaged(context).filter_map(|autoscaler| {
            let replicas = autoscaler.static_fallback.filter(|replicas| *replicas < autoscaler.max)?;
            let finding = Finding::beside(&autoscaler.reference(), "spec.fallback.behavior");
            let finding =
                finding.found(format!("{replicas} replicas, of at most {}, while a trigger fails", autoscaler.max));
            let finding = finding.expected("the running replicas if they are more");
            Some(finding.fix("spec:\n  fallback:\n    behavior: currentReplicasIfHigher"))
        });
        found.collect()
    }
}
