//! ## What it checks
//! The annotations `tidegate.dev/min-replicas`, `max-replicas`, `database`, `autoscaling` and `runtime` of a workload: values
//! that mean nothing, and numbers of replicas outside of what the policy allows.
//! ## Why it matters
//! Such an annotation is not followed: the model server would run otherwise than its author believes.
//! ## Instead
//! Write a value that the policy allows, or leave the annotation out.

use serde_json::Map;

use crate::api::{
    AUTOSCALING_ANNOTATION, DATABASE_ANNOTATION, MAX_REPLICAS_ANNOTATION, MIN_REPLICAS_ANNOTATION, RUNTIME_ANNOTATION,
};
use crate::policy::AutoscalingSettings;
use crate::rules::{Context, Finding, Rule, snippet, this_source};
use crate::runtimes::NO_RUNTIME;
use crate::workload::{Wish, Wishes};

/// Finds annotations that are not followed.
#[derive(Debug)]
pub struct AnnotationOutOfBounds;

impl Rule for AnnotationOutOfBounds {
    fn id(&self) -> &'static str {
        "annotation-out-of-bounds"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let wishes = Wishes::of(&context.workload);
        let mut findings = Vec::new();
        if let Wish::Unclear(text) = wishes.database {
            findings.push(finding(DATABASE_ANNOTATION, text, "`none` or `true`", "none"));
        }
        if let Wish::Unclear(text) = wishes.scaled_elsewhere {
            findings.push(finding(AUTOSCALING_ANNOTATION, text, "`external`", "external"));
        }
        let unknown = context.workload.annotation(RUNTIME_ANNOTATION).filter(|name| {
            *name != NO_RUNTIME && context.effective.runtimes().iter().all(|runtime| runtime.name != *name)
        });
        findings.extend(unknown.map(|name| {
            finding(RUNTIME_ANNOTATION, name, "`none`, or a runtime that Tidegate or the policy knows", NO_RUNTIME)
        }));
        let settings = context.effective.autoscaling();
        // Nobody asks for no replicas: a policy's zero is for its autoscaler.
        let (least, most) =
            settings.map_or((1, i32::MAX), |settings| (settings.min_replicas.max(1), settings.max_replicas));
        findings.extend(of_replicas(MIN_REPLICAS_ANNOTATION, wishes.min_replicas, least..=most, least));
        findings.extend(of_replicas(MAX_REPLICAS_ANNOTATION, wishes.max_replicas, least..=most, most));
        if findings.is_empty() {
            findings.extend(settings.and_then(|settings| of_both(&wishes, settings)));
        }
        findings
    }
}

fn of_replicas(key: &str, wish: Wish<i32>, bounds: std::ops::RangeInclusive<i32>, instead: i32) -> Option<Finding> {
    let found = match wish {
        Wish::Unsaid => return None,
        Wish::Said(count) if bounds.contains(&count) => return None,
        Wish::Said(count) => count.to_string(),
        Wish::Unclear(text) => text.to_owned(),
    };
    let expected = format!("a number from {} to {}, the policy's bounds", bounds.start(), bounds.end());
    Some(finding(key, &found, &expected, &instead.to_string()))
}

/// The least that is asked for may be above the most, each with the policy's where only one is asked for.
fn of_both(wishes: &Wishes, settings: &AutoscalingSettings) -> Option<Finding> {
    let min = wishes.min_replicas.said().unwrap_or(settings.min_replicas);
    let max = wishes.max_replicas.said().unwrap_or(settings.max_replicas);
    let expected = format!("at most {max}, the most replicas");
    (min > max).then(|| finding(MIN_REPLICAS_ANNOTATION, &min.to_string(), &expected, &max.to_string()))
}

fn finding(key: &str, found: &str, expected: &str, instead: &str) -> Finding {
    let annotations = Map::from_iter([(key.to_owned(), instead.into())]);
    let instead = serde_json::json!({"metadata": {"annotations": annotations}});
    Finding::at(format!("metadata.annotations[{key}]"))
        .found(format!("`{found}`"))
        .expected(expected)
        .instead(snippet(&instead))
}
