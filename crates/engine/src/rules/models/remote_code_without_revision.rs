//! ## What it checks
//! Model servers that run code from a model's repository (`--trust-remote-code`) without a fixed revision.
//! ## Why it matters
//! Anyone who can change that repository can run any code in your cluster, with the server's secrets and network, from
//! its next start.
//! ## Instead
//! Review the code of one commit and set that with `--revision`, or remove the flag.

use super::{model_on_hub, runs_remote_code};
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds servers that run unpinned remote code.
#[derive(Debug)]
pub struct RemoteCodeWithoutRevision;

impl Rule for RemoteCodeWithoutRevision {
    fn id(&self) -> &'static str {
        "remote-code-without-revision"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let found = model_on_hub(context.recognised).filter(|found| !found.is_pinned);
        let found = found.filter(|_| runs_remote_code(context.recognised));
        found
            .map(|found| found.finding().expected("a revision whose code was reviewed: a commit"))
            .into_iter()
            .collect()
    }
}
