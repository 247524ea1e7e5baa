//! ## What it checks
//! Pods of model servers that mount the token of their service account.
//! ## Why it matters
//! Anyone who can make the server read a file, as models with remote code can, can call the API server with its
//! identity.
//! ## Instead
//! Do not mount it. If a sidecar, for example, needs it, give it its own projected volume.

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds pods with a token that they do not need.
#[derive(Debug)]
pub struct MountedServiceAccountToken;

impl Rule for MountedServiceAccountToken {
    fn id(&self) -> &'static str {
        "mounted-service-account-token"
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
        if context.workload.pod_spec()["automountServiceAccountToken"] == false {
            return Vec::new();
        }
        let finding = Finding::in_pod(&context.workload, "automountServiceAccountToken")
            .found("the service account's token is mounted");
        vec![finding.expected("`false`").fix("automountServiceAccountToken: false")]
    }
}
