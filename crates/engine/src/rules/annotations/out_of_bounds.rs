//! ## What it checks
//! The annotations `tidegate.dev/min-replicas`, `max-replicas`, `database`, `autoscaling` and `runtime` of a workload:
//! invalid values, and numbers of replicas outside the policy's bounds.
//! ## Why it matters
//! Such an annotation has no effect: the model server would not run as its author expects.
//! ## Instead
//! Set a value that the policy allows, or remove the annotation.

use serde_json::Map;

use crate::api::{
    AUTOSCALING_ANNOTATION, DATABASE_ANNOTATION, MAX_REPLICAS_ANNOTATION, MIN_REPLICAS_ANNOTATION, RUNTIME_ANNOTATION,
};
use crate::companions::autoscaler::{self, AutoscalingSettings};
use crate::policy::{Context, Finding, Rule};
use crate::rules::{snippet, this_source};
use crate::runtimes::NO_RUNTIME;
use crate::workload::{Annotations, Requested};

/// Finds annotations with invalid values.
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
        let annotations = Annotations::new(&context.workload);
        let mut findings = Vec::new();
        if let Requested::Unclear(text) = annotations.database() {
            findings.push(finding(DATABASE_ANNOTATION, text, "`none` or `true`", "none"));
        }
        if let Requested::Unclear(text) = annotations.scaled_elsewhere() {
            findings.push(finding(AUTOSCALING_ANNOTATION, text, "`external`", "external"));
        }
        let unknown = context.workload.annotation(RUNTIME_ANNOTATION).filter(|name| {
            *name != NO_RUNTIME && context.effective.runtimes().iter().all(|runtime| runtime.name != *name)
        });
        findings.extend(unknown.map(|name| {
            finding(RUNTIME_ANNOTATION, name, "`none`, or a runtime that Tidegate or the policy knows", NO_RUNTIME)
        }));
        let settings = autoscaler::settings(context.effective);
        let (least, most) = settings.map_or((1, i32::MAX), |settings| (settings.min_replicas, settings.max_replicas));
        let of_min = of_replicas(MIN_REPLICAS_ANNOTATION, annotations.min_replicas(), least..=most, least.max(1));
        // The maximum must not be zero, whatever the policy's minimum.
        let of_max = of_replicas(MAX_REPLICAS_ANNOTATION, annotations.max_replicas(), least.max(1)..=most, most);
        let of_both = settings.filter(|_| of_min.is_none() && of_max.is_none());
        findings.extend(of_both.and_then(|settings| self::of_both(&annotations, settings)));
        findings.extend(of_min.into_iter().chain(of_max));
        findings
    }
}

fn of_replicas(
    key: &str,
    requested: Requested<i32>,
    bounds: std::ops::RangeInclusive<i32>,
    instead: i32,
) -> Option<Finding> {
    let found = match requested {
        Requested::Unsaid => return None,
        Requested::Said(count) if bounds.contains(&count) => return None,
        Requested::Said(count) => count.to_string(),
        Requested::Unclear(text) => text.to_owned(),
    };
    let expected = format!("a number from {} to {}, the policy's bounds", bounds.start(), bounds.end());
    Some(finding(key, &found, &expected, &instead.to_string()))
}

/// Compares the requested minimum and maximum. The policy's value is used for one that is not requested.
fn of_both(annotations: &Annotations, settings: &AutoscalingSettings) -> Option<Finding> {
    let min = annotations.min_replicas().said().unwrap_or(settings.min_replicas);
    let max = annotations.max_replicas().said().unwrap_or(settings.max_replicas);
    let expected = format!("at most {max}, the maximum number of replicas");
    (min > max).then(|| finding(MIN_REPLICAS_ANNOTATION, &min.to_string(), &expected, &max.to_string()))
}

fn finding(key: &str, found: &str, expected: &str, instead: &str) -> Finding {
    let annotations = Map::from_iter([(key.to_owned(), instead.into())]);
    let instead = serde_json::json!({"metadata": {"annotations": annotations}});
    Finding::at(format!("metadata.annotations[{key}]"))
        .found(format!("`{found}`"))
        .expected(expected)
        .fix(snippet(&instead))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::decision::{Operation, Request, decide};
    use crate::testing::{facts, policies, with_container};
    use crate::workload::Workload;

    /// Returns the findings for a workload with these annotations, under a policy with these bounds.
    fn found(bounds: [i32; 2], annotations: Value) -> Vec<String> {
        let mut object = with_container(&json!({}));
        object["metadata"]["annotations"] = annotations;
        let query = json!({"serverAddress": "http://prometheus:9090", "query": "vector(1)"});
        let [min, max] = bounds;
        let autoscaling = json!({"engine": "keda", "minReplicas": min, "maxReplicas": max, "keda": query});
        let workload = Workload::view(&object).unwrap();
        let request = Request::new(Operation::Create, workload, Timestamp::UNIX_EPOCH);
        let verdict =
            decide(&request, &policies(&[("serving", json!({"autoscaling": autoscaling}))]), &facts()).verdict;
        let of_rule = verdict.violations.iter().filter(|found| found.rule == "annotation-out-of-bounds");
        of_rule.map(ToString::to_string).collect()
    }

    #[test]
    fn reports_a_minimum_above_the_maximum_along_with_others() {
        let both = json!({MIN_REPLICAS_ANNOTATION: "6", MAX_REPLICAS_ANNOTATION: "4"});
        assert_eq!(found([2, 8], both.clone()).len(), 1);
        let mut more = both;
        more[RUNTIME_ANNOTATION] = "vllmm".into();
        assert_eq!(found([2, 8], more).len(), 2);
    }

    #[test]
    fn reports_only_the_annotation_outside_the_policys_bounds() {
        let found = found([2, 8], json!({MIN_REPLICAS_ANNOTATION: "9", MAX_REPLICAS_ANNOTATION: "4"}));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(MIN_REPLICAS_ANNOTATION), "{found:?}");
    }

    #[test]
    fn rejects_a_maximum_of_zero() {
        assert_eq!(found([0, 8], json!({MIN_REPLICAS_ANNOTATION: "0"})), Vec::<String>::new());
        assert_eq!(found([1, 8], json!({MIN_REPLICAS_ANNOTATION: "0"})).len(), 1);
        let found = found([0, 8], json!({MAX_REPLICAS_ANNOTATION: "0"}));
        assert!(found.len() == 1 && found[0].contains("a number from 1 to 8"), "{found:?}");
    }
}
