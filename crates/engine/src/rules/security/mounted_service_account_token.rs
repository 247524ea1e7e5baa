//! ## What it checks
//! Pods of model servers that get the token of their service account.
//! ## Why it matters
//! Whoever makes the server read a file, which models with code of their own can, talks to the API server in its name.
//! ## Instead
//! Do not mount it. What needs it, a sidecar for one, can be given it by a projected volume of its own.

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds pods that carry a token which they do not need.
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

    fn check(&self, context: &Context) -> Vec<Finding> {
        if context.workload.pod_spec()["automountServiceAccountToken"] == false {
            return Vec::new();
        }
        let finding = Finding::in_pod(&context.workload, "automountServiceAccountToken")
            .found("the service account's token is mounted");
        vec![finding.expected("`false`").fix("automountServiceAccountToken: false")]
    }
}
