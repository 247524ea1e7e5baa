//! Parses an object without managed fields that are never read, which are long: only those of server-side apply are
//! kept.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// An object as the API server sends it. Of `metadata.managedFields` only the entries of server-side apply are kept,
/// with what [`FieldOwnership`](super::FieldOwnership) reads of them.
#[derive(Debug)]
pub struct Sent(pub Value);

impl<'de> Deserialize<'de> for Sent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Part::Object.deserialize(deserializer).map(Self)
    }
}

/// The objects that contain the managed fields.
#[derive(Clone, Copy)]
enum Part {
    Object,
    Metadata,
}

impl<'de> DeserializeSeed<'de> for Part {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Part {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = match (self, name.as_str()) {
                (Self::Object, "metadata") => map.next_value_seed(Self::Metadata)?,
                (Self::Metadata, "managedFields") => appliers(map.next_value()?).map_err(A::Error::custom)?,
                _ => map.next_value()?,
            };
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}

/// An entry of `metadata.managedFields`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manager<'a> {
    #[serde(borrow, default)]
    operation: Cow<'a, str>,
    #[serde(borrow)]
    fields_v1: Option<&'a RawValue>,
}

fn appliers(managers: Vec<Manager>) -> serde_json::Result<Value> {
    let appliers = managers.into_iter().filter(|manager| manager.operation == "Apply");
    let kept = appliers.map(|Manager { operation, fields_v1 }| {
        let fields: Value = fields_v1.map_or(Ok(Value::Null), |fields| serde_json::from_str(fields.get()))?;
        Ok(serde_json::json!({"operation": operation, "fieldsV1": fields}))
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> serde_json::Result<Value> {
        serde_json::from_str(text).map(|Sent(object)| object)
    }

    #[test]
    fn keeps_the_managed_fields_of_server_side_apply_only() {
        let object = json!({"metadata": {"name": "api", "managedFields": [
            {"manager": "kubectl", "operation": "Apply", "fieldsV1": {"f:spec": {}}},
            {"manager": "kube-controller-manager", "operation": "Update", "fieldsV1": {"f:status": {}}},
        ]}, "spec": {"metadata": {"managedFields": [1]}}});
        let expected = json!({"metadata": {"name": "api", "managedFields": [
            {"operation": "Apply", "fieldsV1": {"f:spec": {}}},
        ]}, "spec": {"metadata": {"managedFields": [1]}}});
        assert_eq!(parse(&object.to_string()).unwrap(), expected);
    }

    #[test]
    fn refuses_other_types() {
        for text in ["null", "[]", "\"text\"", r#"{"metadata":null}"#, r#"{"metadata":{"managedFields":{"a":1}}}"#] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse(r#"{"metadata":{"managedFields":[]}}"#).unwrap(), json!({"metadata": {"managedFields": []}}));
    }
}
