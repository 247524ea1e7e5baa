//! ## What it checks
//! Model servers without a startup probe whose liveness probe fails before their runtime may have loaded a model.
//! ## Why it matters
//! The server is killed while loading, restarts, and is killed again: it never serves, and downloads the weights on
//! each start.
//! ## Instead
//! Add a startup probe that allows for the loading time: the liveness probe starts only after it succeeds. A policy
//! with `probes` injects it.

use serde_json::json;

use super::{liveness_kills, startup_failures};
use crate::policy::{Context, Finding, Rule};
use crate::rules::{snippet, this_source};

/// Finds servers that are killed while loading.
#[derive(Debug)]
pub struct LivenessBeforeLoad;

impl Rule for LivenessBeforeLoad {
    fn id(&self) -> &'static str {
        "liveness-before-load"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let Some((container, liveness, budget)) = liveness_kills(context) else { return Vec::new() };
        let Some((field, handler)) = liveness.handler() else { return Vec::new() };
        let probe = json!({field: handler, "periodSeconds": 10, "failureThreshold": startup_failures(context)});
        let finding = Finding::in_container(container, "livenessProbe");
        vec![
            finding
                .found(format!("a probe that gives up {} seconds after the start", liveness.window()))
                .expected(format!("a startup probe before it: loading may take {budget} seconds"))
                .fix(snippet(&json!({"startupProbe": probe}))),
        ]
    }
}
