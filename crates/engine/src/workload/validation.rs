//! Checks that the fields that Tidegate reads have the types of the Kubernetes API.

mod schema;

use std::fmt::Write as _;

use serde_json::Value;

use crate::kind::{self, Kind};
use crate::quantity::Quantity;

pub use schema::{UnknownField, mistyped, unknown_fields};

/// A field of a wrong type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: expected {expected}, found {found}")]
pub struct ValidationError {
    place: String,
    expected: &'static str,
    found: &'static str,
}

/// The type of a field that is neither absent nor null.
enum Shape {
    Text,
    Number,
    Boolean,
    /// A quantity: a string, or a number as in YAML.
    Quantity,
    /// A list of items of one type.
    List(&'static Shape),
    /// An object with these fields; others are not checked.
    Object(&'static [(&'static str, Shape)]),
    /// An object whose values have one type.
    Map(&'static Shape),
}

const WORKLOAD: Shape = Shape::Object(&[
    ("kind", Shape::Text),
    ("metadata", METADATA),
    ("spec", Shape::Object(&[("replicas", Shape::Number)])),
]);

const TEMPLATE: Shape = Shape::Object(&[("metadata", METADATA), ("spec", POD)]);

const METADATA: Shape = Shape::Object(&[
    ("name", Shape::Text),
    ("namespace", Shape::Text),
    ("uid", Shape::Text),
    ("labels", Shape::Map(&Shape::Text)),
    ("annotations", Shape::Map(&Shape::Text)),
]);

const POD: Shape = Shape::Object(&[
    ("containers", Shape::List(&CONTAINER)),
    ("initContainers", Shape::List(&CONTAINER)),
    ("resources", RESOURCES),
]);

const CONTAINER: Shape = Shape::Object(&[
    ("name", Shape::Text),
    ("image", Shape::Text),
    ("restartPolicy", Shape::Text),
    ("command", Shape::List(&Shape::Text)),
    ("args", Shape::List(&Shape::Text)),
    ("resources", RESOURCES),
    (
        "env",
        Shape::List(&Shape::Object(&[
            ("name", Shape::Text),
            ("value", Shape::Text),
            ("valueFrom", Shape::Object(&[])),
        ])),
    ),
    (
        "ports",
        Shape::List(&Shape::Object(&[
            ("name", Shape::Text),
            ("containerPort", Shape::Number),
            ("protocol", Shape::Text),
        ])),
    ),
    ("startupProbe", PROBE),
    ("readinessProbe", PROBE),
    ("livenessProbe", PROBE),
    ("securityContext", Shape::Object(&[("privileged", Shape::Boolean)])),
]);

const RESOURCES: Shape = Shape::Object(&[
    ("requests", Shape::Map(&Shape::Quantity)),
    ("limits", Shape::Map(&Shape::Quantity)),
    ("claims", Shape::List(&Shape::Object(&[]))),
]);

const PROBE: Shape = Shape::Object(&[
    ("httpGet", Shape::Object(&[("path", Shape::Text), ("scheme", Shape::Text)])),
    ("tcpSocket", Shape::Object(&[])),
    ("exec", Shape::Object(&[])),
    ("grpc", Shape::Object(&[])),
]);

/// Checks a workload of a kind.
pub(super) fn check(object: &Value, kind: &Kind) -> Result<(), ValidationError> {
    if !object.is_object() {
        return Err(WORKLOAD.error(object, &[]));
    }
    WORKLOAD.check(object, &mut Vec::new())?;
    kind.templates.iter().try_for_each(|pointer| check_at(object, kind::fields(pointer), &mut Vec::new()))
}

/// Checks the pod template at a path, and that there are objects along the path.
fn check_at<'v>(
    value: &'v Value,
    mut path: impl Iterator<Item = &'static str>,
    place: &mut Vec<Step<'v>>,
) -> Result<(), ValidationError> {
    let Some(field) = path.next() else { return TEMPLATE.check(value, place) };
    Shape::Object(&[]).check(value, place)?;
    below(place, Step::Field(field), |place| check_at(&value[field], path, place))
}

/// Checks a pod template.
pub(super) fn check_template(template: &Value) -> Result<(), ValidationError> {
    TEMPLATE.check(template, &mut Vec::new())
}

/// A segment of the path to a field.
enum Step<'s> {
    Field(&'s str),
    Item(usize),
}

impl Shape {
    fn check<'v>(&self, value: &'v Value, place: &mut Vec<Step<'v>>) -> Result<(), ValidationError> {
        match (self, value) {
            (_, Value::Null)
            | (Self::Text, Value::String(_))
            | (Self::Number, Value::Number(_))
            | (Self::Boolean, Value::Bool(_)) => Ok(()),
            (Self::Quantity, _) if Quantity::from_json(value).is_ok() => Ok(()),
            (Self::List(item), Value::Array(items)) => items.iter().enumerate().try_for_each(|(index, value)| {
                // A null item is invalid: unlike an absent field, it has no default.
                if value.is_null() {
                    return Err(item.error(value, &with(place, Step::Item(index))));
                }
                below(place, Step::Item(index), |place| item.check(value, place))
            }),
            (Self::Object(fields), Value::Object(map)) => fields.iter().try_for_each(|(name, shape)| {
                map.get(*name)
                    .map_or(Ok(()), |value| below(place, Step::Field(name), |place| shape.check(value, place)))
            }),
            (Self::Map(shape), Value::Object(map)) => map
                .iter()
                .try_for_each(|(name, value)| below(place, Step::Field(name), |place| shape.check(value, place))),
            _ => Err(self.error(value, place)),
        }
    }

    fn error(&self, value: &Value, place: &[Step]) -> ValidationError {
        let found = match (self, value) {
            (Self::Quantity, Value::String(_) | Value::Number(_)) => "an invalid value",
            _ => name_of(value),
        };
        ValidationError { place: written(place), expected: self.name(), found }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Number => "a number",
            Self::Boolean => "a boolean",
            Self::Quantity => "a quantity",
            Self::List(_) => "a list",
            Self::Object(_) | Self::Map(_) => "an object",
        }
    }
}

fn below<'v, T>(place: &mut Vec<Step<'v>>, step: Step<'v>, check: impl FnOnce(&mut Vec<Step<'v>>) -> T) -> T {
    place.push(step);
    let result = check(place);
    place.pop();
    result
}

fn with<'v>(place: &mut Vec<Step<'v>>, step: Step<'v>) -> Vec<Step<'v>> {
    let mut place = std::mem::take(place);
    place.push(step);
    place
}

fn written(place: &[Step]) -> String {
    let mut text = String::new();
    for step in place {
        match step {
            Step::Field(name) if text.is_empty() => text.push_str(name),
            Step::Field(name) => write!(text, ".{name}").expect("writing to a String does not fail"),
            Step::Item(index) => write!(text, "[{index}]").expect("writing to a String does not fail"),
        }
    }
    if text.is_empty() { "the object".to_owned() } else { text }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kind::KINDS;

    fn checked(object: &Value) -> Result<(), ValidationError> {
        check(object, Kind::from_object(object))
    }

    fn error_of(object: &Value) -> String {
        checked(object).expect_err("this object has a wrong type").to_string()
    }

    #[test]
    fn reports_the_first_field_of_a_wrong_type() {
        let object =
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}, {"name": "b", "env": "X=1"}]}}}});
        assert_eq!(error_of(&object), "spec.template.spec.containers[1].env: expected a list, found a string");
    }

    #[test]
    fn checks_every_template_of_a_kind_and_the_objects_around_it() {
        let kind = Kind { templates: &["/spec/leader/template", "/spec/worker/template"], ..KINDS[0] };
        let checked = |worker: Value| {
            let leader = json!({"template": {"spec": {"containers": [{"name": "a"}]}}});
            check(&json!({"spec": {"leader": leader, "worker": worker}}), &kind).map_err(|error| error.to_string())
        };
        assert_eq!((checked(json!(null)), checked(json!({"template": {"spec": {}}}))), (Ok(()), Ok(())));
        let error = |place: &str, found: &str| Err(format!("{place}: expected an object, found {found}"));
        assert_eq!(checked(json!("x")), error("spec.worker", "a string"));
        assert_eq!(checked(json!({"template": {"spec": []}})), error("spec.worker.template.spec", "a list"));
    }

    #[test]
    fn a_null_container_is_not_an_absent_one() {
        let object = json!({"spec": {"template": {"spec": {"containers": [null]}}}});
        assert_eq!(error_of(&object), "spec.template.spec.containers[0]: expected an object, found null");
        assert_eq!(checked(&json!({"spec": {"template": {"spec": {"containers": null}}}})), Ok(()));
    }

    #[test]
    fn reports_invalid_quantities() {
        let limit = |memory: Value| {
            let resources = json!({"limits": {"memory": memory}});
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "resources": resources}]}}}})
        };
        let place = "spec.template.spec.containers[0].resources.limits.memory";
        for (memory, found) in
            [(json!("lots"), "an invalid value"), (json!(""), "an invalid value"), (json!([]), "a list")]
        {
            assert_eq!(error_of(&limit(memory)), format!("{place}: expected a quantity, found {found}"));
        }
        for memory in [json!("1Gi"), json!(1_000_000), json!(0.5), json!(null)] {
            assert_eq!(checked(&limit(memory)), Ok(()));
        }
    }

    #[test]
    fn refuses_other_values_than_objects() {
        assert_eq!(error_of(&json!([])), "the object: expected an object, found a list");
        assert_eq!(error_of(&json!(null)), "the object: expected an object, found null");
    }
}
