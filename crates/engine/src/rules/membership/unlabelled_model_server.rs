//! ## What it checks
//! Workloads that run a known runtime, such as vLLM, and are not labelled as model servers, in checked files and in the
//! cluster. The webhooks are not called for such workloads.
//! ## Why it matters
//! No policy applies to it: it gets no limits, probes, autoscaler or database.
//! ## Instead
//! Label it, or label its namespace if all workloads in it are model servers. If it only looks like one, set the
//! annotation `tidegate.dev/runtime: none`.

use serde_json::json;

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Membership, Rule};
use crate::rules::{snippet, this_source};

/// Finds model servers without the label.
#[derive(Debug)]
pub struct UnlabelledModelServer;

impl Rule for UnlabelledModelServer {
    fn id(&self) -> &'static str {
        "unlabelled-model-server"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn concerns(&self) -> Membership {
        Membership::Never
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let Some(runtime) = context.recognised.name() else { return Vec::new() };
        let labels = json!({"metadata": {"labels": context.policies.scope().selectors().first()}});
        let finding =
            Finding::at("metadata.labels").found(format!("{runtime}, which is not labelled as a model server"));
        vec![finding.expected("the label of a model server").fix(snippet(&labels))]
    }
}
