//! Which fields of objects are quantities, or numbers that may be written as texts: two objects are compared by what they
//! mean, for the API server writes `1000m` back as `1`. A text elsewhere is no quantity, whatever it looks like.

use serde_json::Value;

use super::Quantity;

/// What the values of some fields mean.
type Same = fn(&Value, &Value) -> bool;

/// The way to some fields, `*` for any item of a list and any field, and what their values mean.
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
    // Of probes and of what runs after the start and before the stop.
    ("containers.*.*.httpGet.port", is_same_number),
    ("containers.*.*.tcpSocket.port", is_same_number),
    ("containers.*.lifecycle.*.httpGet.port", is_same_number),
    ("containers.*.lifecycle.*.tcpSocket.port", is_same_number),
    ("initContainers.*.*.httpGet.port", is_same_number),
    ("initContainers.*.*.tcpSocket.port", is_same_number),
    ("initContainers.*.lifecycle.*.httpGet.port", is_same_number),
    ("initContainers.*.lifecycle.*.tcpSocket.port", is_same_number),
];

/// The fields below a place in an object whose values are compared by what they mean, each by the way to it.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<Field>);

impl Fields {
    /// Returns those of an object, by its kind; none where that is not known.
    #[must_use]
    pub fn for_object(object: &Value) -> Self {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let group = text("apiVersion").split_once('/').map_or("", |(group, _)| group);
        Self::for_kind(group, text("kind"))
    }

    /// Returns those of a kind; none where that is not known.
    #[must_use]
    pub fn for_kind(group: &str, kind: &str) -> Self {
        let found = KINDS.iter().find(|(of, name, _)| (*of, *name) == (group, kind));
        Self(found.map(|(_, _, fields)| fields.to_vec()).unwrap_or_default())
    }

    /// Returns those of the spec of a pod.
    #[must_use]
    pub fn for_pod() -> Self {
        Self(OF_POD.to_vec())
    }

    /// Returns those below a field, or an item of a list.
    #[must_use]
    pub fn below(&self, field: &str) -> Self {
        let step = |(way, same): &Field| {
            let (first, rest) = way.split_once('.').unwrap_or((way, ""));
            (first == "*" || first == field).then_some((rest, *same))
        };
        Self(self.0.iter().filter(|(way, _)| !way.is_empty()).filter_map(step).collect())
    }

    /// Tells whether everything that is wanted is there; what else is there does not matter.
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
            _ => found == wanted || self.0.iter().any(|(way, same)| way.is_empty() && same(found, wanted)),
        }
    }

    /// Tells whether two values mean the same.
    #[must_use]
    pub fn are_same(&self, one: &Value, other: &Value) -> bool {
        self.contain(one, other) && self.contain(other, one)
    }
}

/// Tells whether a value says nothing, so that the API server leaves its field out. Most empty objects say something, such as
/// an empty selector.
fn is_left_out(field: &str, value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(labels) => field == "matchLabels" && labels.is_empty(),
        _ => false,
    }
}

/// Tells whether two values are one quantity.
fn is_same_quantity(one: &Value, other: &Value) -> bool {
    matches!((Quantity::from_json(one), Quantity::from_json(other)), (Ok(one), Ok(other)) if one == other)
}

/// Tells whether two values are one number, as a text or not. A percentage is none.
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

    /// Tells whether an autoscaler that is found with one spec has all of the other.
    fn is_there(found: &Value, wanted: &Value) -> bool {
        Fields::for_object(&hpa(wanted)).contain(&hpa(found), &hpa(wanted))
    }

    fn pods(target: &Value) -> Value {
        json!({"metrics": [{"type": "Pods", "pods": {"metric": {"name": "waiting"}, "target": target}}]})
    }

    #[test]
    fn quantities_are_compared_by_what_they_mean() {
        for (found, wanted) in [
            (json!("5"), json!(5)),
            (json!("1"), json!("1000m")),
            (json!("1500m"), json!(1.5)),
            (json!("1k"), json!(1000)),
        ] {
            let of = |value: &Value| pods(&json!({"type": "AverageValue", "averageValue": value}));
            assert!(is_there(&of(&found), &of(&wanted)), "{found} {wanted}");
        }
        let tolerance = |value: Value| json!({"behavior": {"scaleUp": {"tolerance": value}}});
        assert!(is_there(&tolerance(json!("50m")), &tolerance(json!(0.05))));
        assert!(!is_there(&tolerance(json!("50m")), &tolerance(json!(0.06))));
        assert!(!is_there(&tolerance(json!("50m")), &tolerance(json!("five"))));
    }

    #[test]
    fn a_text_that_looks_like_a_quantity_is_none_elsewhere() {
        let named = |name: &str| json!({"metrics": [{"type": "Pods", "pods": {"metric": {"name": name}}}]});
        assert!(is_there(&named("1"), &named("1")) && !is_there(&named("1"), &named("1000m")));
        let annotated = |value: &str| json!({"metadata": {"annotations": {"averageValue": value}}});
        assert!(!Fields::for_object(&hpa(&json!({}))).contain(&annotated("1"), &annotated("1000m")));
        let size = |kind: &str, size: &str| json!({"apiVersion": "example.com/v1", "kind": kind, "spec": {"volume": {"size": size}}});
        let (found, wanted) = (size("postgresql", "1Gi"), size("postgresql", "1024Mi"));
        assert!(!Fields::for_object(&wanted).contain(&found, &wanted), "another group's kind");
    }

    #[test]
    fn what_is_not_said_is_not_looked_at_and_what_is_empty_says_nothing() {
        let found = json!({"minReplicas": 1, "maxReplicas": 4});
        assert!(is_there(&found, &json!({"maxReplicas": 4})));
        assert!(is_there(&found, &json!({"metrics": []})) && !is_there(&found, &json!({"selector": {}})));
        assert!(is_there(&json!({"selector": {}}), &json!({"selector": {"matchLabels": {}, "matchExpressions": []}})));
        assert!(!is_there(&found, &json!({"maxReplicas": 5})) && !is_there(&found, &json!({"other": 0})));
    }

    #[test]
    fn numbers_of_budgets_and_ports_may_be_texts() {
        let budget = |most: Value| json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "spec": {"maxUnavailable": most}});
        let is_there = |found: Value, wanted: Value| {
            Fields::for_object(&budget(wanted.clone())).contain(&budget(found), &budget(wanted))
        };
        assert!(
            is_there(json!("1"), json!(1)) && !is_there(json!("1%"), json!(1)) && !is_there(json!(10), json!("10%"))
        );
        let port = |port: Value| json!({"containers": [{"readinessProbe": {"httpGet": {"port": port}}}]});
        assert!(Fields::for_pod().are_same(&port(json!(80)), &port(json!("80"))));
        assert!(!Fields::for_pod().are_same(&port(json!("http")), &port(json!(80))));
    }

    #[test]
    fn a_place_is_found_step_by_step() {
        let below =
            Fields::for_pod().below("containers").below("server").below("resources").below("limits").below("cpu");
        assert!(below.are_same(&json!("1"), &json!(1)) && below.below("more").0.is_empty());
        assert!(!Fields::for_pod().are_same(&json!("1"), &json!(1)), "a way to a quantity is none");
    }
}
