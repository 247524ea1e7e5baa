//! Validates an autoscaler as the API server does, when a policy is applied. Otherwise, each workload's autoscaler
//! would be refused later, unnoticed.
//!
//! <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/horizontal-pod-autoscaler-v2/>

use serde_json::{Map, Value};

use crate::api::Autoscaling;
use crate::quantity::Quantity;

/// Why the API server would refuse an autoscaler.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AutoscalingError {
    /// A metric has an unknown type.
    #[error(
        "metrics[{index}]: unknown type `{kind}`: must be one of Resource, ContainerResource, Pods, Object, External"
    )]
    MetricType {
        /// The index of the metric.
        index: usize,
        /// The type as written.
        kind: String,
    },
    /// A metric does not have exactly the source for its type.
    #[error("metrics[{index}]: type {kind} needs the field `{source_field}` and no other source")]
    Metric {
        /// The index of the metric.
        index: usize,
        /// Its type.
        kind: &'static str,
        /// The field for its type.
        source_field: &'static str,
    },
    /// A metric lacks a required field.
    #[error("metrics[{index}].{source_field}: `{field}` is missing")]
    MetricField {
        /// The index of the metric.
        index: usize,
        /// Its source.
        source_field: &'static str,
        /// The missing field.
        field: &'static str,
    },
    /// The target of a metric is invalid for its type.
    #[error("metrics[{index}].{source_field}.target: {problem}")]
    Target {
        /// The index of the metric.
        index: usize,
        /// Its source.
        source_field: &'static str,
        /// The problem.
        problem: String,
    },
    /// The behavior is invalid.
    #[error("behavior.{field}: {problem}")]
    Behavior {
        /// The field.
        field: String,
        /// The problem.
        problem: &'static str,
    },
}

/// Checks that the API server would accept the autoscaling settings of a policy.
pub(super) fn check(written: &Autoscaling) -> Result<(), AutoscalingError> {
    for (index, metric) in written.metrics.iter().flatten().enumerate() {
        check_metric(index, metric)?;
    }
    written.behavior.as_ref().map_or(Ok(()), check_behavior)
}

/// A type of metric in `autoscaling/v2`.
struct Type {
    name: &'static str,
    /// The field that holds its source.
    field: &'static str,
    /// The required fields of the source.
    required: &'static [&'static str],
    /// The types that its target may have.
    targets: &'static [&'static str],
}

const TYPES: [Type; 5] = [
    Type {
        name: "Resource",
        field: "resource",
        required: &["name", "target.type"],
        targets: &["Utilization", "AverageValue"],
    },
    Type {
        name: "ContainerResource",
        field: "containerResource",
        required: &["name", "target.type"],
        targets: &["Utilization", "AverageValue"],
    },
    Type { name: "Pods", field: "pods", required: &["metric.name", "target.type"], targets: &["AverageValue"] },
    Type {
        name: "Object",
        field: "object",
        required: &["metric.name", "describedObject.kind", "describedObject.name", "target.type"],
        targets: &["Value", "AverageValue"],
    },
    Type {
        name: "External",
        field: "external",
        required: &["metric.name", "target.type"],
        targets: &["Value", "AverageValue"],
    },
];

fn check_metric(index: usize, metric: &Map<String, Value>) -> Result<(), AutoscalingError> {
    let written = metric.get("type").and_then(Value::as_str).unwrap_or_default();
    let known = TYPES.iter().find(|known| known.name == written);
    let known = known.ok_or_else(|| AutoscalingError::MetricType { index, kind: written.to_owned() })?;
    let mut given = TYPES.iter().filter(|known| metric.get(known.field).is_some_and(Value::is_object));
    let is_alone = given.next().is_some_and(|first| first.name == known.name) && given.next().is_none();
    if !is_alone {
        return Err(AutoscalingError::Metric { index, kind: known.name, source_field: known.field });
    }
    let (source, source_field) = (&metric[known.field], known.field);
    let is_missing =
        |field: &&&str| source.pointer(&format!("/{}", field.replace('.', "/"))).is_none_or(Value::is_null);
    if let Some(field) = known.required.iter().find(is_missing) {
        return Err(AutoscalingError::MetricField { index, source_field, field });
    }
    let problem = target_problem(&source["target"], known.targets);
    problem.map_or(Ok(()), |problem| Err(AutoscalingError::Target { index, source_field, problem }))
}

fn target_problem(target: &Value, types: &[&str]) -> Option<String> {
    let written = target["type"].as_str().unwrap_or_default();
    if !types.contains(&written) {
        return Some(format!("invalid type `{written}`: must be {}", types.join(" or ")));
    }
    if written == "Utilization" {
        let share = target["averageUtilization"].as_i64().filter(|share| *share > 0);
        return share.is_none().then(|| "averageUtilization must be a number above zero".to_owned());
    }
    let field = if written == "Value" { "value" } else { "averageValue" };
    let is_above = |quantity: Quantity| !quantity.is_negative() && !quantity.is_zero();
    let amount = Quantity::from_json(&target[field]).ok().filter(|quantity| is_above(quantity.clone()));
    amount.is_none().then(|| format!("{field} must be a quantity above zero"))
}

fn check_behavior(behavior: &Map<String, Value>) -> Result<(), AutoscalingError> {
    for direction in ["scaleUp", "scaleDown"] {
        let rules = behavior.get(direction).unwrap_or(&Value::Null);
        let wrong = |field: &str, problem| AutoscalingError::Behavior { field: format!("{direction}{field}"), problem };
        if !is_in(&rules["stabilizationWindowSeconds"], 0..=3600) {
            return Err(wrong(".stabilizationWindowSeconds", "must be a number between 0 and 3600"));
        }
        if !matches!(&rules["selectPolicy"], Value::Null)
            && !is_one_of(&rules["selectPolicy"], &["Max", "Min", "Disabled"])
        {
            return Err(wrong(".selectPolicy", "must be one of Max, Min, Disabled"));
        }
        let tolerance = &rules["tolerance"];
        if !tolerance.is_null() && Quantity::from_json(tolerance).map_or(true, |tolerance| tolerance.is_negative()) {
            return Err(wrong(".tolerance", "must be a quantity of at least zero"));
        }
        for (index, policy) in rules["policies"].as_array().into_iter().flatten().enumerate() {
            let problem = policy_problem(policy);
            problem.map_or(Ok(()), |problem| Err(wrong(&format!(".policies[{index}]"), problem)))?;
        }
    }
    Ok(())
}

fn policy_problem(policy: &Value) -> Option<&'static str> {
    if !is_one_of(&policy["type"], &["Pods", "Percent"]) {
        return Some("type must be Pods or Percent");
    }
    if policy["value"].as_i64().is_none_or(|value| value <= 0) {
        return Some("value must be a number above zero");
    }
    let is_period = !policy["periodSeconds"].is_null() && is_in(&policy["periodSeconds"], 1..=1800);
    (!is_period).then_some("periodSeconds must be a number between 1 and 1800")
}

/// Returns whether a number is in a range. A missing number is the API server's default.
fn is_in(value: &Value, range: std::ops::RangeInclusive<i64>) -> bool {
    value.is_null() || value.as_i64().is_some_and(|value| range.contains(&value))
}

fn is_one_of(value: &Value, allowed: &[&str]) -> bool {
    value.as_str().is_some_and(|value| allowed.contains(&value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(autoscaling: &Value) -> Option<String> {
        let written = serde_json::from_value(autoscaling.clone()).unwrap();
        check(&written).err().map(|error| error.to_string())
    }

    fn metric(metric: &Value) -> Option<String> {
        let cpu = json!({"type": "Resource", "resource":
            {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}});
        error(&json!({"metrics": [cpu, metric]}))
    }

    #[test]
    fn rejects_metrics_that_the_api_server_would_refuse() {
        let queue = |target: Value| json!({"type": "Pods", "pods": {"metric": {"name": "queue"}, "target": target}});
        let cpu = |target: Value| json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        let external = json!({"metric": {"name": "queue"}, "target": {"type": "Value", "value": "0"}});
        let cases = [
            json!({"type": "Pods", "object": {}}),
            json!({"type": "Pods", "pods": {}, "object": {}}),
            json!({"type": "Pods"}),
            json!({"type": "Humidity"}),
            json!({"type": "pods", "pods": {}}),
            json!({}),
            json!({"type": "Pods", "pods": {"target": {"type": "AverageValue"}}}),
            json!({"type": "Resource", "resource": {"name": "cpu"}}),
            json!({"type": "Object", "object": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": 1}}}),
            queue(json!({"type": "Value", "value": "5"})),
            queue(json!({"type": "AverageValue", "value": "5"})),
            cpu(json!({"type": "Utilization", "averageUtilization": 0})),
            cpu(json!({"type": "Value", "value": "1"})),
            json!({"type": "External", "external": external}),
        ];
        let errors: Vec<String> = cases.iter().map(|written| metric(written).unwrap_or_default()).collect();
        insta::assert_snapshot!(errors.join("\n"));
    }

    #[test]
    fn rejects_behavior_that_the_api_server_would_refuse() {
        let policy = |policy: Value| json!({"scaleUp": {"policies": [policy]}});
        let cases = [
            json!({"scaleDown": {"stabilizationWindowSeconds": 3601}}),
            json!({"scaleUp": {"selectPolicy": "Most"}}),
            json!({"scaleUp": {"tolerance": "-0.1"}}),
            policy(json!({"type": "Node", "value": 1, "periodSeconds": 60})),
            policy(json!({"type": "Pods", "value": 0, "periodSeconds": 60})),
            policy(json!({"type": "Pods", "value": 1, "periodSeconds": 1801})),
            policy(json!({"type": "Pods", "value": 1})),
        ];
        let errors = cases.iter().map(|behavior| error(&json!({"behavior": behavior})).unwrap_or_default());
        insta::assert_snapshot!(errors.collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn accepts_valid_edge_cases() {
        let amount = json!({"type": "AverageValue", "averageValue": "500m"});
        for right in [
            json!({"type": "Object", "object": {"metric": {"name": "queue", "selector": {"matchLabels": {"queue": "a"}}},
                "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "api"}, "target": amount}}),
            json!({"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": 30}}}),
            json!({"type": "ContainerResource", "containerResource": {"name": "memory", "target": amount}}),
        ] {
            assert_eq!(metric(&right), None, "{right}");
        }
        let rules = json!({"stabilizationWindowSeconds": 3600, "selectPolicy": "Disabled", "tolerance": "0.05",
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 1800}]});
        assert_eq!(error(&json!({"behavior": {"scaleUp": rules, "scaleDown": {}}})), None);
    }
}
