//! The difference between two workloads as targeted JSON Patch operations.

use json_patch::jsonptr::{PointerBuf, Token};
use json_patch::{AddOperation, PatchOperation, RemoveOperation, ReplaceOperation};
use serde_json::{Map, Value};

use crate::kind;
use crate::workload::key_of;

/// Returns the operations that turn `old` into `new`, which are at `pointer` in an object.
///
/// Lists with keyed items are changed item by item, so that items of other writers are not touched. If the items in
/// both lists are in a different order, the list is replaced.
#[must_use]
pub fn between(old: &Value, new: &Value, pointer: &str) -> Vec<PatchOperation> {
    let at = kind::fields(pointer).map(Step::Field).collect();
    let mut difference = Difference { at, operations: Vec::new() };
    difference.values(old, new, "");
    difference.operations
}

/// Collects the differences between two values.
struct Difference<'v> {
    /// The current path.
    at: Vec<Step<'v>>,
    operations: Vec<PatchOperation>,
}

/// A step into a value.
#[derive(Clone, Copy)]
enum Step<'v> {
    Field(&'v str),
    Item(usize),
}

impl<'v> From<Step<'v>> for Token<'v> {
    fn from(step: Step<'v>) -> Self {
        match step {
            Step::Field(name) => Token::new(name),
            Step::Item(index) => Token::from(index),
        }
    }
}

impl<'v> Difference<'v> {
    fn values(&mut self, old: &'v Value, new: &'v Value, field: &str) {
        match (old, new) {
            (Value::Object(old), Value::Object(new)) => self.objects(old, new),
            (Value::Array(old), Value::Array(new)) => match key_of(field) {
                Some(key) if is_keyed(old, key) && is_keyed(new, key) && in_order(old, new, key) => {
                    self.lists(old, new, key);
                }
                _ if old == new => {}
                _ => self.replace(Value::Array(new.clone())),
            },
            _ if old == new => {}
            _ => self.replace(new.clone()),
        }
    }

    fn objects(&mut self, old: &'v Map<String, Value>, new: &'v Map<String, Value>) {
        for name in old.keys().filter(|name| !new.contains_key(*name)) {
            self.below(Step::Field(name), Self::remove);
        }
        for (name, value) in new {
            match old.get(name) {
                Some(before) => self.below(Step::Field(name), |this| this.values(before, value, name)),
                None => self.below(Step::Field(name), |this| this.add(value.clone())),
            }
        }
    }

    fn lists(&mut self, old: &'v [Value], new: &'v [Value], key: &str) {
        let mut current: Vec<&Value> = old.iter().collect();
        for index in (0..current.len()).rev() {
            if position(new, key, &current[index][key]).is_none() {
                self.below(Step::Item(index), Self::remove);
                current.remove(index);
            }
        }
        for (index, item) in new.iter().enumerate() {
            if let Some(before) = current.get(index).filter(|before| before[key] == item[key]) {
                self.below(Step::Item(index), |this| this.values(before, item, ""));
            } else {
                self.below(Step::Item(index), |this| this.add(item.clone()));
                current.insert(index, item);
            }
        }
    }

    fn below(&mut self, step: Step<'v>, change: impl FnOnce(&mut Self)) {
        self.at.push(step);
        change(self);
        self.at.pop();
    }

    /// Returns the current path as a JSON pointer.
    fn path(&self) -> PointerBuf {
        PointerBuf::from_tokens(self.at.iter().copied())
    }

    fn add(&mut self, value: Value) {
        self.operations.push(PatchOperation::Add(AddOperation { path: self.path(), value }));
    }

    fn replace(&mut self, value: Value) {
        self.operations.push(PatchOperation::Replace(ReplaceOperation { path: self.path(), value }));
    }

    fn remove(&mut self) {
        self.operations.push(PatchOperation::Remove(RemoveOperation { path: self.path() }));
    }
}

/// Returns whether every item of a list has a unique key.
fn is_keyed(items: &[Value], key: &str) -> bool {
    items
        .iter()
        .enumerate()
        .all(|(index, item)| item[key].is_string() && position(items, key, &item[key]) == Some(index))
}

/// Returns whether the items in both lists are in the same order.
fn in_order(old: &[Value], new: &[Value], key: &str) -> bool {
    let places = old.iter().filter_map(|item| position(new, key, &item[key]));
    places.is_sorted()
}

fn position(items: &[Value], key: &str, wanted: &Value) -> Option<usize> {
    items.iter().position(|item| item[key] == *wanted)
}

#[cfg(test)]
mod tests {
    use json_patch::Patch;
    use serde_json::json;

    use super::*;

    fn pod(env: &Value) -> Value {
        json!({"spec": {"containers": [{"name": "a", "env": env}]}})
    }

    fn patched(old: &Value, new: &Value) -> (Value, String) {
        let patch = Patch(between(old, new, ""));
        let mut result = old.clone();
        json_patch::patch(&mut result, &patch).unwrap();
        (result, serde_json::to_string(&patch).unwrap())
    }

    #[test]
    fn equal_values_need_no_patch() {
        assert!(between(&pod(&json!([])), &pod(&json!([])), "").is_empty());
    }

    #[test]
    fn adds_an_item_without_touching_others() {
        let old = pod(&json!([{"name": "B", "value": "1"}]));
        let new = pod(&json!([{"name": "A", "value": "0"}, {"name": "B", "value": "1"}]));
        let (result, text) = patched(&old, &new);
        assert_eq!(result, new);
        assert_eq!(text, r#"[{"op":"add","path":"/spec/containers/0/env/0","value":{"name":"A","value":"0"}}]"#);
    }

    #[test]
    fn removes_and_adds_items() {
        let old = pod(&json!([{"name": "A"}, {"name": "B", "value": "1"}, {"name": "C"}]));
        let new = pod(&json!([{"name": "X"}, {"name": "B", "value": "2"}, {"name": "Y"}]));
        assert_eq!(patched(&old, &new).0, new);
    }

    #[test]
    fn replaces_a_list_with_duplicate_keys() {
        let old = pod(&json!([{"name": "A"}, {"name": "A", "value": "1"}]));
        let new = pod(&json!([{"name": "A"}]));
        assert_eq!(patched(&old, &new).0, new);
    }

    #[test]
    fn field_names_are_escaped() {
        let (old, new) = (json!({}), json!({"nvidia.com/gpu": 1, "a~b": 2}));
        assert_eq!(patched(&old, &new).0, new);
    }
}
