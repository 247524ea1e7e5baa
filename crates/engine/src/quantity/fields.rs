//! The fields of objects that are quantities, or numbers that may be strings. Objects are compared by the meaning of
//! these, because the API server stores `1000m` as `1`. Strings in other fields are never quantities.

use serde_json::Value;

use super::Quantity;

/// Returns whether two values of a field mean the same.
type Same = fn(&Value, &Value) -> bool;

/// A path to fields, with `*` for any list item or field, and how to compare their values.
type Field = (&'static str, Same);

/// The fields of a kind.
type Kind = (&'static str, &'static str, &'static [Field]);

/// The fields of each kind, by its group and name.
const KINDS: [Kind; 6] = [
    // https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/horizontal-pod-autoscaler-v2/
    (
        "autoscaling",
        "HorizontalPodAutoscaler",
        &[
            ("spec.metrics.*.*.target.value", is_same_quantity),
            ("spec.metrics.*.*.target.averageValue", is_same_quantity),
            ("spec.behavior.*.tolerance", is_same_quantity),
        ],
    ),
    // https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/pod-disruption-budget-v1/
    (
        "policy",
        "PodDisruptionBudget",
        &[("spec.maxUnavailable", is_same_number), ("spec.minAvailable", is_same_number)],
    ),
    // https://keda.sh/docs/latest/reference/scaledobject-spec/
    (
        "keda.sh",
        "ScaledObject",
        &[("spec.advanced.horizontalPodAutoscalerConfig.behavior.*.tolerance", is_same_quantity)],
    ),
    // https://github.com/zalando/postgres-operator/blob/master/docs/reference/cluster_manifest.md
    (
        "acid.zalan.do",
        "postgresql",
        &[
            ("spec.volume.size", is_same_quantity),
            ("spec.resources.*.*", is_same_quantity),
            ("spec.connectionPooler.resources.*.*", is_same_quantity),
        ],
    ),
    // https://cloudnative-pg.io/documentation/current/cloudnative-pg.v1/
    (
        "postgresql.cnpg.io",
        "Cluster",
        &[("spec.storage.size", is_same_quantity), ("spec.resources.*.*", is_same_quantity)],
    ),
    (
        "tidegate.dev",
        "ServingPolicy",
        &[
            ("spec.resources.*.*.*", is_same_quantity),
            ("spec.pod.sharedMemorySize", is_same_quantity),
            ("spec.autoscaling.metrics.*.*.target.value", is_same_quantity),
            ("spec.autoscaling.metrics.*.*.target.averageValue", is_same_quantity),
            ("spec.autoscaling.behavior.*.tolerance", is_same_quantity),
            ("spec.autoscaling.queue.averageValue", is_same_quantity),
            ("spec.autoscaling.keda.threshold", is_same_quantity),
            ("spec.autoscaling.keda.activationThreshold", is_same_quantity),
            ("spec.database.zalando.volume.size", is_same_quantity),
            ("spec.database.zalando.resources.*.*", is_same_quantity),
            ("spec.database.zalando.connectionPooler.resources.*.*", is_same_quantity),
            ("spec.database.cloudNativePg.storage.size", is_same_quantity),
            ("spec.database.cloudNativePg.resources.*.*", is_same_quantity),
        ],
    ),
];

/// The fields of a pod, from its spec.
///
/// <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/>
const OF_POD: &[Field] = &[
    ("resources.*.*", is_same_quantity),
    ("containers.*.resources.*.*", is_same_quantity),
    ("initContainers.*.resources.*.*", is_same_quantity),
    ("overhead.*", is_same_quantity),
    ("volumes.*.emptyDir.sizeLimit", is_same_quantity),
    ("volumes.*.ephemeral.volumeClaimTemplate.spec.resources.*.*", is_same_quantity),
    // Probes, `postStart` and `preStop`.
    ("containers.*.*.httpGet.port", is_same_number),
    ("containers.*.*.tcpSocket.port", is_same_number),
    ("containers.*.lifecycle.*.httpGet.port", is_same_number),
    ("containers.*.lifecycle.*.tcpSocket.port", is_same_number),
    ("initContainers.*.*.httpGet.port", is_same_number),
    ("initContainers.*.*.tcpSocket.port", is_same_number),
    ("initContainers.*.lifecycle.*.httpGet.port", is_same_number),
    ("initContainers.*.lifecycle.*.tcpSocket.port", is_same_number),
];

/// The fields of an object that are compared by meaning, as paths from a position in it.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<Field>);

impl Fields {
    /// Returns the fields of an object, by its kind; none if the kind is unknown.
    #[must_use]
    pub fn for_object(object: &Value) -> Self {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let group = text("apiVersion").split_once('/').map_or("", |(group, _)| group);
        Self::for_kind(group, text("kind"))
    }

    /// Returns the fields of a kind; none if it is unknown.
    #[must_use]
    pub fn for_kind(group: &str, kind: &str) -> Self {
        let found = KINDS.iter().find(|(of, name, _)| (*of, *name) == (group, kind));
        Self(found.map(|(_, _, fields)| fields.to_vec()).unwrap_or_default())
    }

    /// Returns the fields of a pod's spec.
    #[must_use]
    pub fn for_pod() -> Self {
        Self(OF_POD.to_vec())
    }

    /// Returns the fields below a field or list item.
    #[must_use]
    pub fn below(&self, field: &str) -> Self {
        let step = |(path, same): &Field| {
            let (first, rest) = path.split_once('.').unwrap_or((path, ""));
            (first == "*" || first == field).then_some((rest, *same))
        };
        Self(self.0.iter().filter(|(path, _)| !path.is_empty()).filter_map(step).collect())
    }

    /// Returns whether `found` contains all of `wanted`; it may contain more.
    #[must_use]
    pub fn contain(&self, found: &Value, wanted: &Value) -> bool {
        match (found, wanted) {
            (Value::Object(found), Value::Object(wanted)) => wanted.iter().all(|(field, value)| {
                found.get(field).map_or(is_left_out(field, value), |found| self.below(field).contain(found, value))
            }),
            (Value::Array(found), Value::Array(wanted)) => {
                let below = self.below("*");
                found.len() == wanted.len()
                    && found.iter().zip(wanted).all(|(found, wanted)| below.contain(found, wanted))
            }
            _ => found == wanted || self.0.iter().any(|(path, same)| path.is_empty() && same(found, wanted)),
        }
    }

    /// Returns whether two values mean the same.
    #[must_use]
    pub fn are_same(&self, one: &Value, other: &Value) -> bool {
        self.contain(one, other) && self.contain(other, one)
    }
}

/// Returns whether the API server omits a field with this value. It keeps most empty objects, such as an empty
/// selector, which have a meaning.
fn is_left_out(field: &str, value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(labels) => field == "matchLabels" && labels.is_empty(),
        _ => false,
    }
}

/// Returns whether two values are the same quantity.
fn is_same_quantity(one: &Value, other: &Value) -> bool {
    matches!((Quantity::from_json(one), Quantity::from_json(other)), (Ok(one), Ok(other)) if one == other)
}

/// Returns whether two values are the same number, as a string or not. A percentage is not a number.
fn is_same_number(one: &Value, other: &Value) -> bool {
    let number = |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok());
    number(one).is_some_and(|one| number(other) == Some(one))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hpa(spec: &Value) -> Value {
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": spec})
    }

    /// Returns whether an autoscaler with one spec contains all of the other.
    fn contains(found: &Value, wanted: &Value) -> bool {
        Fields::for_object(&hpa(wanted)).contain(&hpa(found), &hpa(wanted))
    }

    fn pods(target: &Value) -> Value {
        json!({"metrics": [{"type": "Pods", "pods": {"metric": {"name": "waiting"}, "target": target}}]})
    }

    #[test]
    fn compares_quantities_by_value() {
        for (found, wanted) in [
            (json!("5"), json!(5)),
            (json!("1"), json!("1000m")),
            (json!("1500m"), json!(1.5)),
            (json!("1k"), json!(1000)),
        ] {
            let of = |value: &Value| pods(&json!({"type": "AverageValue", "averageValue": value}));
            assert!(contains(&of(&found), &of(&wanted)), "{found} {wanted}");
        }
        let tolerance = |value: Value| json!({"behavior": {"scaleUp": {"tolerance": value}}});
        assert!(contains(&tolerance(json!("50m")), &tolerance(json!(0.05))));
        assert!(!contains(&tolerance(json!("50m")), &tolerance(json!(0.06))));
        assert!(!contains(&tolerance(json!("50m")), &tolerance(json!("five"))));
    }

    #[test]
    fn compares_other_strings_literally() {
        let named = |name: &str| json!({"metrics": [{"type": "Pods", "pods": {"metric": {"name": name}}}]});
        assert!(contains(&named("1"), &named("1")) && !contains(&named("1"), &named("1000m")));
        let annotated = |value: &str| json!({"metadata": {"annotations": {"averageValue": value}}});
        assert!(!Fields::for_object(&hpa(&json!({}))).contain(&annotated("1"), &annotated("1000m")));
        let size = |kind: &str, size: &str| json!({"apiVersion": "example.com/v1", "kind": kind, "spec": {"volume": {"size": size}}});
        let (found, wanted) = (size("postgresql", "1Gi"), size("postgresql", "1024Mi"));
        assert!(!Fields::for_object(&wanted).contain(&found, &wanted), "another group's kind");
    }

    #[test]
    fn ignores_fields_that_are_not_wanted_and_omitted_values() {
        let found = json!({"minReplicas": 1, "maxReplicas": 4});
        assert!(contains(&found, &json!({"maxReplicas": 4})));
        assert!(contains(&found, &json!({"metrics": []})) && !contains(&found, &json!({"selector": {}})));
        assert!(contains(&json!({"selector": {}}), &json!({"selector": {"matchLabels": {}, "matchExpressions": []}})));
        assert!(!contains(&found, &json!({"maxReplicas": 5})) && !contains(&found, &json!({"other": 0})));
    }

    #[test]
    fn numbers_of_budgets_and_ports_may_be_strings() {
        let budget = |most: Value| json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "spec": {"maxUnavailable": most}});
        let contains = |found: Value, wanted: Value| {
            Fields::for_object(&budget(wanted.clone())).contain(&budget(found), &budget(wanted))
        };
        assert!(
            contains(json!("1"), json!(1)) && !contains(json!("1%"), json!(1)) && !contains(json!(10), json!("10%"))
        );
        let port = |port: Value| json!({"containers": [{"readinessProbe": {"httpGet": {"port": port}}}]});
        assert!(Fields::for_pod().are_same(&port(json!(80)), &port(json!("80"))));
        assert!(!Fields::for_pod().are_same(&port(json!("http")), &port(json!(80))));
    }

    #[test]
    fn descends_field_by_field() {
        let below =
            Fields::for_pod().below("containers").below("server").below("resources").below("limits").below("cpu");
        assert!(below.are_same(&json!("1"), &json!(1)) && below.below("more").0.is_empty());
        assert!(!Fields::for_pod().are_same(&json!("1"), &json!(1)), "a parent of a quantity is not a quantity");
    }
}
