//! ## What it checks
//! Updates that remove the label by which Tidegate recognizes a model server.
//! ## Why it matters
//! Without the label no policy applies any more: removing it would bypass all of them.
//! ## Instead
//! Keep the label. To remove a workload from Tidegate permanently, delete it and recreate it without the label.

use crate::policy::{Context, Finding, Membership, Rule};
use crate::rules::this_source;

/// Finds updates that remove the label of model servers.
#[derive(Debug)]
pub struct ModelServerLabelRemoved;

impl Rule for ModelServerLabelRemoved {
    fn id(&self) -> &'static str {
        "model-server-label-removed"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn concerns(&self) -> Membership {
        Membership::Leaving
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let was_covered = context.old.is_some_and(|old| context.policies.covers(&old, context.facts));
        if !was_covered || context.policies.covers(&context.workload, context.facts) {
            return Vec::new();
        }
        let labels = context.workload.labels();
        let before = context.policies.scope().selecting(|key| context.old?.label(key));
        let lost = before.into_iter().flatten().find(|(key, value)| {
            labels.and_then(|labels| labels.get(*key)).is_none_or(|found| found != value.as_str())
        });
        let Some((key, value)) = lost else { return Vec::new() };
        let found = labels.and_then(|labels| labels.get(key)?.as_str());
        vec![
            Finding::at(format!("metadata.labels[{key}]"))
                .found(found.map_or_else(|| "nothing".to_owned(), |found| format!("`{found}`")))
                .expected(format!("`{value}`, as before"))
                .fix(format!("metadata:\n  labels:\n    {key}: {value}")),
        ]
    }
}
