//! Compares whole objects with the schemas of the Kubernetes API, as the API server and `kubectl` do before a webhook is
//! called: for files, which nothing has checked yet.
//!
//! <https://kubernetes.io/docs/reference/using-api/api-concepts/#field-validation>

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::LazyLock;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

use super::{ValidationError, name_of};
use crate::kind::Kind;
use crate::quantity::Quantity;
use crate::spelling::nearest;

/// The schemas of the kinds that are built into Kubernetes. Objects of other kinds are not compared.
static SCHEMAS: LazyLock<[(&str, Value); 2]> =
    LazyLock::new(|| [("Deployment", schema::<Deployment>()), ("StatefulSet", schema::<StatefulSet>())]);

fn schema<T: JsonSchema>() -> Value {
    SchemaGenerator::default().into_root_schema_for::<T>().to_value()
}

/// A field that Kubernetes does not have. The API server drops it; `kubectl` refuses it, unless told not to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownField {
    place: String,
    /// The place of the field that was probably meant.
    meant: Option<String>,
}

impl fmt::Display for UnknownField {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}: unknown field", self.place)?;
        self.meant.iter().try_for_each(|meant| write!(formatter, "; did you mean {meant}?"))
    }
}

/// Returns the fields of a workload whose values have a wrong type.
#[must_use]
pub fn mistyped(object: &Value) -> Vec<ValidationError> {
    compared(object).mistyped
}

/// Returns the fields of a workload that Kubernetes does not have.
#[must_use]
pub fn unknown_fields(object: &Value) -> Vec<UnknownField> {
    compared(object).unknown
}

fn compared(object: &Value) -> Comparison<'static> {
    let kind = Kind::from_object(object).kind;
    let mut comparison = Comparison::default();
    if let Some((_, root)) = SCHEMAS.iter().find(|(known, _)| *known == kind) {
        comparison.root = root;
        comparison.value(root, object, "");
    }
    comparison
}

/// The differences between an object and a schema.
struct Comparison<'s> {
    root: &'s Value,
    mistyped: Vec<ValidationError>,
    unknown: Vec<UnknownField>,
}

impl Default for Comparison<'_> {
    fn default() -> Self {
        Self { root: &Value::Null, mistyped: Vec::new(), unknown: Vec::new() }
    }
}

impl<'s> Comparison<'s> {
    fn value(&mut self, schema: &'s Value, value: &Value, place: &str) {
        let (schema, is_quantity) = self.resolved(schema);
        match (schema["type"].as_str(), value) {
            (_, Value::Null) => {}
            (Some("array"), Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.value(&schema["items"], item, &format!("{place}[{index}]"));
                }
            }
            (Some("object"), Value::Object(fields)) => {
                fields.iter().for_each(|(name, value)| self.field(schema, name, value, place));
            }
            _ => {
                let is_written = value.is_string() || value.is_number();
                let found = if is_quantity && is_written { "an invalid value" } else { name_of(value) };
                let place = place.to_owned();
                let error = |expected| ValidationError { place, expected, found };
                self.mistyped.extend(mismatch(schema, is_quantity, value).map(error));
            }
        }
    }

    fn field(&mut self, schema: &'s Value, name: &str, value: &Value, place: &str) {
        let below = if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") };
        let properties = &schema["properties"];
        match (&properties[name], &schema["additionalProperties"]) {
            (Value::Null, Value::Null) if properties.is_object() => {
                let meant = self.meant(properties, name, place);
                self.unknown.push(UnknownField { place: below, meant });
            }
            (Value::Null, more) => self.value(more, value, &below),
            (known, _) => self.value(known, value, &below),
        }
    }

    /// Follows a reference. Returns the schema, and whether it is that of a quantity.
    fn resolved(&self, schema: &'s Value) -> (&'s Value, bool) {
        let reference = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
        let target = reference.and_then(|pointer| self.root.pointer(pointer)).unwrap_or(schema);
        (target, reference.is_some_and(|pointer| pointer.ends_with(".api.resource.Quantity")))
    }

    /// Returns the place that an unknown field was probably meant for: beside it with other capitals, elsewhere with the
    /// same name, or beside it with other letters.
    fn meant(&self, properties: &'s Value, name: &str, place: &str) -> Option<String> {
        let known = || properties.as_object().into_iter().flatten().map(|(known, _)| known.as_str());
        let beside = |known: &str| if place.is_empty() { known.to_owned() } else { format!("{place}.{known}") };
        let same = known().find(|known| known.eq_ignore_ascii_case(name)).map(beside);
        same.or_else(|| self.place_of(name)).or_else(|| nearest(name, known()).map(beside))
    }

    /// Returns the place of the field of a name that is nearest to the root.
    fn place_of(&self, name: &str) -> Option<String> {
        let mut queue = VecDeque::from([(self.root, String::new())]);
        let mut seen = HashSet::new();
        while let Some((schema, place)) = queue.pop_front() {
            let (schema, _) = self.resolved(schema);
            if !seen.insert(std::ptr::from_ref(schema)) {
                continue;
            }
            let below = |field: &str| if place.is_empty() { field.to_owned() } else { format!("{place}.{field}") };
            let properties = schema["properties"].as_object().into_iter().flatten();
            for (field, property) in properties.filter(|(field, _)| *field != "status") {
                if field == name {
                    return Some(below(field));
                }
                queue.push_back((property, below(field)));
            }
            if !schema["items"].is_null() {
                queue.push_back((&schema["items"], format!("{place}[]")));
            }
        }
        None
    }
}

/// Returns the type that a schema expects, if a value has another.
fn mismatch(schema: &Value, is_quantity: bool, value: &Value) -> Option<&'static str> {
    let is_number_or_string = schema["x-kubernetes-int-or-string"] == true;
    let (expected, fits) = match schema["type"].as_str() {
        Some("string") => ("a string", value.is_string()),
        Some("boolean") => ("a boolean", value.is_boolean()),
        Some("integer") => ("an integer", value.as_f64().is_some_and(|number| number.fract() == 0.0)),
        Some("number") => ("a number", value.is_number()),
        Some("array") => ("a list", false),
        Some(_) => ("an object", false),
        None if is_quantity => ("a quantity", Quantity::from_json(value).is_ok()),
        None => ("a number or a string", !is_number_or_string || value.is_string() || value.is_number()),
    };
    (!fits).then_some(expected)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(container: &Value, spec: &Value) -> Value {
        let mut object = json!({"kind": "Deployment", "metadata": {"name": "a", "labels": {"any": "x"}},
            "spec": {"template": {"spec": {"containers": [container]}}}});
        json_patch::merge(&mut object["spec"], spec);
        object
    }

    #[test]
    fn reports_every_field_of_a_wrong_type() {
        let container = json!({"name": "a", "ports": [{"containerPort": "8000"}], "env": [{"name": "A", "value": 1}],
            "resources": {"limits": {"cpu": 1, "memory": "lots"}}, "livenessProbe": {"grpc": {"port": "grpc"}},
            "readinessProbe": {"httpGet": {"port": true}}, "tty": "no", "args": "x"});
        let object = deployment(&container, &json!({"replicas": "${N}", "minReadySeconds": 1e3}));
        let found: Vec<String> = mistyped(&object).iter().map(ToString::to_string).collect();
        let of_container = "spec.template.spec.containers[0]";
        assert_eq!(
            found,
            [
                "spec.replicas: expected an integer, found a string",
                &format!("{of_container}.args: expected a list, found a string"),
                &format!("{of_container}.env[0].value: expected a string, found a number"),
                &format!("{of_container}.livenessProbe.grpc.port: expected an integer, found a string"),
                &format!("{of_container}.ports[0].containerPort: expected an integer, found a string"),
                &format!("{of_container}.readinessProbe.httpGet.port: expected a number or a string, found a boolean"),
                &format!("{of_container}.resources.limits.memory: expected a quantity, found an invalid value"),
                &format!("{of_container}.tty: expected a boolean, found a string"),
            ]
        );
        assert_eq!(unknown_fields(&object), []);
    }

    #[test]
    fn reports_unknown_fields_and_where_they_belong() {
        let container = json!({"name": "a", "livenessprobe": {}, "prots": [], "replicas": 2, "resources": {"limit": {}},
            "envFrom": null, "volumes": []});
        let object = deployment(&container, &json!({"containers": [], "whatever": 1}));
        let found: Vec<String> = unknown_fields(&object).iter().map(ToString::to_string).collect();
        let of_container = "spec.template.spec.containers[0]";
        assert_eq!(
            found,
            [
                "spec.containers: unknown field; did you mean spec.template.spec.containers?",
                &format!("{of_container}.livenessprobe: unknown field; did you mean {of_container}.livenessProbe?"),
                &format!("{of_container}.prots: unknown field; did you mean {of_container}.ports?"),
                &format!("{of_container}.replicas: unknown field; did you mean spec.replicas?"),
                &format!(
                    "{of_container}.resources.limit: unknown field; did you mean {of_container}.resources.limits?"
                ),
                &format!("{of_container}.volumes: unknown field; did you mean spec.template.spec.volumes?"),
                "spec.whatever: unknown field",
            ]
        );
    }

    #[test]
    fn other_kinds_are_not_compared() {
        // Of an unknown kind, `Kind::from_object` takes the first.
        assert_eq!(mistyped(&json!({"kind": "Deployment"})), []);
        assert_eq!(mistyped(&json!(null)), []);
        assert_eq!(mistyped(&json!("text")).len(), 1);
    }
}
