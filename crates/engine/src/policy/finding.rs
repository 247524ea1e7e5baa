//! What a rule finds.

use serde_json::Value;

use crate::workload::Container;

/// One place where a workload gets something wrong, with what to write instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// The field, as a person would write it: `spec.template.spec.containers[0].image`.
    pub place: String,
    /// The container that it is about; empty where it is about the workload.
    pub subject: String,
    /// The field within the subject, whatever place that has in a list.
    pub field: String,
    /// What is there.
    pub found: String,
    /// What should be.
    pub expected: String,
    /// YAML to paste at `place` or above it.
    pub instead: String,
    /// Whether the rule could not be evaluated: then nothing tells whether it was so before an update.
    pub is_unjudged: bool,
}

impl Finding {
    /// Starts a finding about a field of the workload.
    pub(crate) fn at(place: impl Into<String>) -> Self {
        let place = place.into();
        Self { field: place.clone(), place, ..Self::default() }
    }

    /// Starts a finding about a field of a container.
    pub(crate) fn in_container(container: &Container, field: &str) -> Self {
        let (place, subject) = (container.place(field), container.name().to_owned());
        Self { place, subject, field: field.to_owned(), ..Self::default() }
    }

    /// Starts a finding about an item of a container's list, by its name: what is injected moves the others.
    pub(crate) fn of_item(container: &Container, list: &str, name: &str) -> Self {
        Self::in_container(container, &format!("{list}[{name}]"))
    }

    /// Starts a finding about a field of the pod.
    pub(crate) fn in_pod(field: &str) -> Self {
        Self::at(format!("spec.template.spec.{field}"))
    }

    /// Starts a finding about a field of one of the pod's volumes, by its name.
    pub(crate) fn of_volume(volume: &Value, field: &str) -> Self {
        let name = volume["name"].as_str().unwrap_or_default();
        Self::in_pod(&format!("volumes[{name}].{field}"))
    }

    /// Starts a finding about a field of an object beside the workload, such as `HorizontalPodAutoscaler/api`.
    pub(crate) fn beside(object: &str, field: &str) -> Self {
        Self::at(format!("{object} {field}"))
    }

    pub(crate) fn found(self, found: impl Into<String>) -> Self {
        Self { found: found.into(), ..self }
    }

    pub(crate) fn expected(self, expected: impl Into<String>) -> Self {
        Self { expected: expected.into(), ..self }
    }

    pub(crate) fn instead(self, instead: impl Into<String>) -> Self {
        Self { instead: instead.into(), ..self }
    }

    pub(crate) fn unjudged(self) -> Self {
        Self { is_unjudged: true, ..self }
    }
}
