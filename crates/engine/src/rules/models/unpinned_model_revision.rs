//! ## What it checks
//! Model servers that download a model by its name on a hub, `owner/name`, without a fixed revision.
//! ## Why it matters
//! The owner may change the model at any time: two replicas can serve different versions, and a rollback restores the
//! code but not the model.
//! ## Instead
//! Set the commit, with `--revision` or the runtime's equivalent, or serve from a volume or bucket that only you can
//! write to.

use super::{model_on_hub, runs_remote_code};
use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds models without a fixed revision.
#[derive(Debug)]
pub struct UnpinnedModelRevision;

impl Rule for UnpinnedModelRevision {
    fn id(&self) -> &'static str {
        "unpinned-model-revision"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let Some(found) = model_on_hub(context.recognised).filter(|found| !found.is_pinned) else { return Vec::new() };
        // With remote code, `remote-code-without-revision` applies.
        if runs_remote_code(context.recognised) {
            return Vec::new();
        }
        vec![found.finding().expected("a revision that never changes: a commit")]
    }
}
