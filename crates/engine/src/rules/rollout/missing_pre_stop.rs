//! ## What it checks
//! Model servers of a known runtime that get SIGTERM immediately when their pod is stopped.
//! ## Why it matters
//! Load balancers are notified at the same time, not before: for seconds they send requests to a server that no longer
//! accepts any, and each fails.
//! ## Instead
//! Sleep before the stop. A policy with `pod` injects it.

use std::time::Duration;

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds servers that stop before load balancers are updated.
#[derive(Debug)]
pub struct MissingPreStop;

impl Rule for MissingPreStop {
    fn id(&self) -> &'static str {
        "missing-pre-stop"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let Some((container, drain)) = context.recognised.container.zip(context.recognised.drain()) else {
            return Vec::new();
        };
        if !container.field("lifecycle")["preStop"].is_null() {
            return Vec::new();
        }
        let seconds = Duration::from(drain.pre_stop).as_secs();
        let finding = Finding::in_container(&container, "lifecycle.preStop").found("nothing");
        vec![
            finding
                .expected(format!("a sleep of {seconds} seconds"))
                .fix(format!("lifecycle:\n  preStop:\n    sleep:\n      seconds: {seconds}")),
        ]
    }
}
