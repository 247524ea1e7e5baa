//! ## What it checks
//! Deployments whose rollout counts as failed before a container's startup probe gives up. If the model arrives before
//! the server starts, in an image volume or from an init container or a sidecar, it counts as long again.
//! ## Why it matters
//! While the model is still loading, the Deployment reports `ProgressDeadlineExceeded`: pipelines, Argo CD and Pulumi
//! fail, and a working version is rolled back.
//! ## Instead
//! Set the deadline above the start-up budget. A policy with `pod` does this.

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;
use crate::workload::PROGRESS_DEADLINE;

/// Finds rollouts that fail while a model is loading.
#[derive(Debug)]
pub struct ProgressDeadlineTooShort;

impl Rule for ProgressDeadlineTooShort {
    fn id(&self) -> &'static str {
        "progress-deadline-too-short"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let workload = &context.workload;
        let deadline = workload.progress_deadline().unwrap_or(PROGRESS_DEADLINE);
        let start = context.recognised.start(workload).filter(|_| workload.known_kind().has_progress_deadline);
        let Some(start) = start.filter(|start| deadline <= start.seconds()) else { return Vec::new() };
        let longest = start.seconds();
        let what = match start.before {
            Some(before) => format!("{before} for the model to arrive and {} for a container to start", start.longest),
            None => "which a container may take to start".to_owned(),
        };
        let finding = Finding::at("spec.progressDeadlineSeconds").found(format!("`{deadline}`"));
        vec![
            finding
                .expected(format!("more than {longest}, {what}"))
                .fix(format!("spec:\n  progressDeadlineSeconds: {}", longest.saturating_add(60))),
        ]
    }
}
