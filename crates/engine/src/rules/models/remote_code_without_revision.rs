//! ## What it checks
//! Model servers that run code which comes with a model (`--trust-remote-code`), without saying which revision of it.
//! ## Why it matters
//! Whoever can change that repository runs what they like in your cluster, with the server's secrets and network, from its next
//! start on.
//! ## Instead
//! Read the code of one commit, and name that commit by `--revision`; or leave the flag out.

use super::{model_on_hub, runs_remote_code};
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds servers that run whatever somebody else publishes.
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
        found.map(|found| found.finding().expected("a revision whose code was read: a commit")).into_iter().collect()
    }
}
