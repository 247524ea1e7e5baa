//! Paths in a pod spec, which name list items by their merge key, so that they are valid in any order.

use std::fmt;

use serde_json::{Map, Value};
use smol_str::SmolStr;

/// Returns the merge key of a list, for the lists that Tidegate injects into.
///
/// The patch merge keys of <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/>.
#[must_use]
pub fn key_of(list: &str) -> Option<&'static str> {
    match list {
        "containers" | "initContainers" | "env" | "volumes" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        "topologySpreadConstraints" => Some("topologyKey"),
        "tolerations" => Some("key"),
        _ => None,
    }
}

/// A path from a pod spec to a value below it: fields by name, items of keyed lists by their key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath(Vec<SmolStr>);

impl FieldPath {
    /// Creates a path from its segments.
    pub fn new<S: Into<SmolStr>>(segments: impl IntoIterator<Item = S>) -> Self {
        Self(segments.into_iter().map(Into::into).collect())
    }

    /// Returns the path with a segment appended.
    #[must_use]
    pub fn join(&self, segment: &str) -> Self {
        let mut segments = Vec::with_capacity(self.0.len() + 1);
        segments.extend_from_slice(&self.0);
        segments.push(segment.into());
        Self(segments)
    }

    /// Returns the segments.
    #[must_use]
    pub fn segments(&self) -> &[SmolStr] {
        &self.0
    }

    /// Returns the value at the path.
    #[must_use]
    pub fn get<'v>(&self, root: &'v Value) -> Option<&'v Value> {
        let mut list = "";
        self.0.iter().try_fold(root, |value, segment| {
            let found = match value {
                Value::Array(items) => items.iter().find(|item| has_key(item, list, segment)),
                _ => value.get(segment.as_str()),
            };
            list = segment;
            found
        })
    }

    /// Sets the value at the path and creates missing parents; new list items are inserted at the head. An object is
    /// merged into an existing one.
    pub fn set(&self, root: &mut Value, value: Value) {
        let mut place = root;
        let mut list = "";
        for segment in &self.0 {
            place = match place {
                Value::Array(items) => item_mut(items, list, segment),
                other => field_mut(other, segment),
            };
            list = segment;
        }
        put(place, value);
    }

    /// Removes the value at the path and parents that become empty: objects, lists, and items with only a key. Items
    /// for which `keep` returns true are kept.
    pub fn remove(&self, root: &mut Value, keep: &dyn Fn(&FieldPath) -> bool) {
        remove(root, "", &self.0, &mut Vec::new(), keep);
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

/// Returns the merge key of a list, by default `name`.
pub(super) fn key_field(list: &str) -> &'static str {
    key_of(list).unwrap_or("name")
}

/// Returns whether an item of a list has this key.
fn has_key(item: &Value, list: &str, key: &str) -> bool {
    item[key_field(list)] == *key
}

fn item_mut<'v>(items: &'v mut Vec<Value>, list: &str, key: &str) -> &'v mut Value {
    let index = items.iter().position(|item| has_key(item, list, key)).unwrap_or_else(|| {
        items.insert(0, Value::Object(Map::from_iter([(key_field(list).to_owned(), key.into())])));
        0
    });
    &mut items[index]
}

/// Returns a field of an object; null if it was absent. Other values are replaced by an object.
fn child<'v>(value: &'v mut Value, field: &str) -> &'v mut Value {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Value::Object(map) = value else { unreachable!("replaced by an object above") };
    // The check avoids a copy of the name of an existing field.
    if map.contains_key(field) { &mut map[field] } else { map.entry(field).or_insert(Value::Null) }
}

/// Sets a value; an object is merged into an existing one.
fn put(place: &mut Value, value: Value) {
    match (place, value) {
        (Value::Object(there), Value::Object(mut fields)) => there.append(&mut fields),
        (place, value) => *place = value,
    }
}

fn field_mut<'v>(value: &'v mut Value, field: &str) -> &'v mut Value {
    let child = child(value, field);
    if child.is_null() {
        *child = empty(field);
    }
    child
}

fn empty(field: &str) -> Value {
    if key_of(field).is_some() { Value::Array(Vec::new()) } else { Value::Object(Map::new()) }
}

fn remove(
    value: &mut Value,
    list: &str,
    path: &[SmolStr],
    above: &mut Vec<SmolStr>,
    keep: &dyn Fn(&FieldPath) -> bool,
) {
    let Some((segment, rest)) = path.split_first() else { return };
    above.push(segment.clone());
    match value {
        Value::Array(items) => {
            if let Some(index) = items.iter().position(|item| has_key(item, list, segment)) {
                remove(&mut items[index], segment, rest, above, keep);
                // Tidegate never injects a container: one with only a name is the user's.
                let is_removable = !matches!(list, "containers" | "initContainers");
                if is_removable && has_only_key(&items[index], list) && !keep(&FieldPath(above.clone())) {
                    items.remove(index);
                }
            }
        }
        Value::Object(map) => {
            if let Some(child) = map.get_mut(segment.as_str()) {
                remove(child, segment, rest, above, keep);
                if rest.is_empty() || is_empty(child) {
                    map.remove(segment.as_str());
                }
            }
        }
        _ => {}
    }
    above.pop();
}

fn has_only_key(item: &Value, list: &str) -> bool {
    item.as_object().is_some_and(|item| item.keys().all(|field| field == key_field(list)))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keep_none(_: &FieldPath) -> bool {
        false
    }

    fn path(text: &str) -> FieldPath {
        FieldPath::new(text.split('/'))
    }

    #[test]
    fn creates_missing_parents() {
        let mut pod = json!({"containers": [{"name": "a"}, {"name": "b", "env": [{"name": "X", "value": "1"}]}]});
        path("containers/b/env/PGHOST/value").set(&mut pod, json!("db"));
        path("containers/a/resources/limits/cpu").set(&mut pod, json!("1"));
        let b = json!([{"name": "PGHOST", "value": "db"}, {"name": "X", "value": "1"}]);
        assert_eq!(pod["containers"][1]["env"], b);
        assert_eq!(pod["containers"][0], json!({"name": "a", "resources": {"limits": {"cpu": "1"}}}));
    }

    #[test]
    fn removes_empty_parents() {
        let mut pod = json!({"containers": [{"name": "a", "env": [{"name": "PGHOST", "value": "db"}],
            "resources": {"limits": {"cpu": "1"}}}]});
        path("containers/a/env/PGHOST/value").remove(&mut pod, &keep_none);
        path("containers/a/resources/limits/cpu").remove(&mut pod, &keep_none);
        assert_eq!(pod, json!({"containers": [{"name": "a"}]}));
    }

    #[test]
    fn keeps_parents_with_other_fields() {
        let mut pod =
            json!({"containers": [{"name": "a", "readinessProbe": {"httpGet": {"path": "/"}, "tcpSocket": {}}}]});
        path("containers/a/readinessProbe/httpGet/path").remove(&mut pod, &keep_none);
        assert_eq!(pod["containers"][0]["readinessProbe"], json!({"tcpSocket": {}}));
    }

    #[test]
    fn each_list_has_its_own_key() {
        let mut pod = json!({"containers": [{"name": "a", "volumeMounts": [{"mountPath": "/data", "name": "d"}]}]});
        let bare = pod.clone();
        let mount = FieldPath::new(["containers", "a", "volumeMounts", "/dev/shm", "name"]);
        let spread = FieldPath::new(["topologySpreadConstraints", "topology.kubernetes.io/zone", "maxSkew"]);
        mount.set(&mut pod, json!("shm"));
        spread.set(&mut pod, json!(1));
        assert_eq!(pod["containers"][0]["volumeMounts"][0], json!({"mountPath": "/dev/shm", "name": "shm"}));
        assert_eq!(
            pod["topologySpreadConstraints"],
            json!([{"topologyKey": "topology.kubernetes.io/zone", "maxSkew": 1}])
        );
        assert_eq!(mount.get(&pod), Some(&json!("shm")));
        mount.remove(&mut pod, &keep_none);
        spread.remove(&mut pod, &keep_none);
        assert_eq!(pod, bare);
    }

    #[test]
    fn keeps_items_of_the_user() {
        let mut pod = json!({"containers": [{"name": "a", "env": [{"name": "PGHOST", "value": "db"}]}]});
        path("containers/a/env/PGHOST/value").remove(&mut pod, &|path: &FieldPath| path.segments().len() == 4);
        assert_eq!(pod["containers"][0]["env"], json!([{"name": "PGHOST"}]));
    }
}
