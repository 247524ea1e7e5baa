//! ## What it checks
//! Deployments whose rollout counts as failed before a container's startup probe gives up.
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
        let probes = workload.long_running().filter_map(|container| container.probe("startupProbe"));
        let longest = probes.map(|probe| i64::try_from(probe.window()).unwrap_or(i64::MAX)).max();
        let deadline = workload.progress_deadline().unwrap_or(PROGRESS_DEADLINE);
        let Some(longest) =
            longest.filter(|longest| workload.known_kind().has_progress_deadline && deadline <= *longest)
        else {
            return Vec::new();
        };
        let finding = Finding::at("spec.progressDeadlineSeconds").found(format!("`{deadline}`"));
        vec![
            finding
                .expected(format!("more than {longest}, which a container may take to start"))
                .fix(format!("spec:\n  progressDeadlineSeconds: {}", longest.saturating_add(60))),
        ]
    }
}
