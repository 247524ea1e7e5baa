//! The findings of rules.

use json_patch::jsonptr::PointerBuf;
use serde::Serialize;
use serde_json::Value;

use crate::kind;
use crate::workload::{Container, Workload, items};

/// One violation in a workload, with how to fix it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The path of the field, such as `spec.template.spec.containers[0].image`.
    pub place: String,
    /// The container with the violation; empty if it is in the workload itself.
    pub container: String,
    /// The field within the container, independent of the container's index.
    pub field: String,
    /// What was found.
    pub found: String,
    /// What was expected.
    pub expected: String,
    /// YAML to paste at `place` or above it.
    pub fix: String,
    /// Whether the rule could not be evaluated. It is then unknown whether it was violated before an update.
    pub not_evaluated: bool,
}

impl Finding {
    /// Returns the place in an object as a JSON pointer. A missing field has a pointer too.
    ///
    /// <https://www.rfc-editor.org/rfc/rfc6901>
    #[must_use]
    pub fn pointer(&self, object: &Value) -> String {
        let mut pointer = PointerBuf::new();
        let (mut at, mut rest) = (object, self.place.as_str());
        while !rest.is_empty() {
            let (token, next) = step(at, rest);
            at = match at {
                Value::Array(items) => token.parse().ok().and_then(|place: usize| items.get(place)),
                value => value.get(&token),
            }
            .unwrap_or(&Value::Null);
            pointer.push_back(token);
            rest = next;
        }
        pointer.to_string()
    }

    /// Starts a finding about a field of the workload.
    pub(crate) fn at(place: impl Into<String>) -> Self {
        let place = place.into();
        Self { field: place.clone(), place, ..Self::default() }
    }

    /// Starts a finding about a field of a container.
    pub(crate) fn in_container(container: &Container, field: &str) -> Self {
        let (place, name) = (container.place(field), container.name().to_owned());
        Self { place, container: name, field: field.to_owned(), ..Self::default() }
    }

    /// Starts a finding about an item of a container's list, by name: injection changes the indexes.
    pub(crate) fn of_item(container: &Container, list: &str, name: &str) -> Self {
        Self::in_container(container, &format!("{list}[{name}]"))
    }

    /// Starts a finding about a field of the pod.
    pub(crate) fn in_pod(workload: &Workload, field: &str) -> Self {
        Self::at(format!("{}.spec.{field}", kind::place(workload.template_pointer())))
    }

    /// Starts a finding about a field of one of the pod's volumes, by its name.
    pub(crate) fn of_volume(workload: &Workload, volume: &Value, field: &str) -> Self {
        let name = volume["name"].as_str().unwrap_or_default();
        Self::in_pod(workload, &format!("volumes[{name}].{field}"))
    }

    /// Starts a finding about a field of another object, such as `HorizontalPodAutoscaler/api`.
    pub(crate) fn beside(object: &str, field: &str) -> Self {
        Self::at(format!("{object} {field}"))
    }

    pub(crate) fn found(self, found: impl Into<String>) -> Self {
        Self { found: found.into(), ..self }
    }

    pub(crate) fn expected(self, expected: impl Into<String>) -> Self {
        Self { expected: expected.into(), ..self }
    }

    pub(crate) fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: fix.into(), ..self }
    }

    pub(crate) fn not_evaluated(self) -> Self {
        Self { not_evaluated: true, ..self }
    }
}

/// Splits off the first step of a path: a field or, in brackets, an item by index, name or key. Returns the rest.
fn step<'p>(at: &Value, place: &'p str) -> (String, &'p str) {
    let place = place.strip_prefix('.').unwrap_or(place);
    if let Some((inside, next)) = place.strip_prefix('[').and_then(|place| place.split_once(']')) {
        let of_name = items(at).position(|item| item["name"] == inside);
        return (of_name.map_or_else(|| inside.to_owned(), |place| place.to_string()), next);
    }
    // A key may have dots in it: `requests.nvidia.com/gpu`.
    let ends: Vec<usize> = place.match_indices(['.', '[']).map(|(end, _)| end).chain([place.len()]).collect();
    let longest = ends.iter().rev().find(|end| at.get(&place[..**end]).is_some());
    let end = *longest.unwrap_or(&ends[0]);
    (place[..end].to_owned(), &place[end..])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn converts_places_to_json_pointers() {
        let container = json!({"name": "api", "env": [{"name": "A"}, {"name": "B.C"}],
            "resources": {"limits": {"nvidia.com/gpu": 1}}});
        let object = json!({"metadata": {"annotations": {"tidegate.dev/runtime": "vllm"}},
            "spec": {"template": {"spec": {"containers": [container]}}}});
        let pointer = |place: &str| Finding::at(place).pointer(&object);
        let of_container = "/spec/template/spec/containers/0";
        assert_eq!(pointer("spec.template.spec.containers[0].image"), format!("{of_container}/image"));
        assert_eq!(pointer("spec.template.spec.containers[0].env[B.C]"), format!("{of_container}/env/1"));
        let gpu = pointer("spec.template.spec.containers[0].resources.limits.nvidia.com/gpu");
        assert_eq!(gpu, format!("{of_container}/resources/limits/nvidia.com~1gpu"));
        let annotation = pointer("metadata.annotations[tidegate.dev/runtime]");
        assert_eq!(annotation, "/metadata/annotations/tidegate.dev~1runtime");
        let missing = pointer("spec.template.spec.containers[0].readinessProbe.httpGet");
        assert_eq!(missing, format!("{of_container}/readinessProbe/httpGet"));
    }
}
