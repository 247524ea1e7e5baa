//! Merges the settings of several policies. Each setting comes from the policy with the highest priority that has it,
//! then from the first by name.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::PolicyRef;
use crate::quantity::fields::Fields;

/// The settings of one policy, to be merged.
#[derive(Clone, Copy)]
pub(super) struct Layer<'p> {
    pub(super) policy: &'p PolicyRef,
    pub(super) priority: i32,
    pub(super) settings: &'p Value,
}

/// The merged settings of several policies.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    values: Value,
    sources: BTreeMap<Vec<String>, (PolicyRef, i32)>,
    conflicts: Vec<Conflict>,
}

/// Two policies of the same priority that set a field differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The field, such as `autoscaling.maxReplicas`.
    pub field: String,
    /// The priority of both.
    pub priority: i32,
    /// The policy that comes first by name, and its value, which is used.
    pub used: (PolicyRef, Value),
    /// The other policy and its value.
    pub other: (PolicyRef, Value),
}

/// Objects that are not merged field by field.
const WHOLE: [&str; 2] = ["autoscaling.behavior", "database.env"];

impl Merged {
    /// Merges layers in order of precedence.
    pub(super) fn of<'p>(layers: impl IntoIterator<Item = Layer<'p>>) -> Self {
        let mut merged = Self { values: Value::Object(Map::new()), ..Self::default() };
        for layer in layers {
            merged.add(layer, &mut Vec::new(), layer.settings);
        }
        merged
    }

    fn add(&mut self, layer: Layer, path: &mut Vec<String>, value: &Value) {
        let fields = value.as_object().filter(|_| !WHOLE.contains(&path.join(".").as_str()));
        let set = self.sources.get(path).cloned();
        if set.is_none() {
            let start = if fields.is_some() { Value::Object(Map::new()) } else { value.clone() };
            *path.iter().fold(&mut self.values, |place, field| &mut place[field]) = start;
            self.sources.insert(path.clone(), (layer.policy.clone(), layer.priority));
        }
        if let Some(fields) = fields {
            for (name, value) in fields {
                path.push(name.clone());
                self.add(layer, path, value);
                path.pop();
            }
        } else if let Some((first, priority)) = set {
            self.compare(path, priority, first, layer, value);
        }
    }

    fn compare(&mut self, path: &[String], priority: i32, first: PolicyRef, layer: Layer, value: &Value) {
        let used = path.iter().fold(&self.values, |place, field| &place[field]);
        let fields = path
            .iter()
            .fold(Fields::for_kind("tidegate.dev", "ServingPolicy").below("spec"), |fields, field| fields.below(field));
        if priority == layer.priority && !fields.are_same(used, value) {
            let (used, other) = ((first, used.clone()), (layer.policy.clone(), value.clone()));
            self.conflicts.push(Conflict { field: path.join("."), priority, used, other });
        }
    }

    /// Returns all settings.
    #[must_use]
    pub fn values(&self) -> &Value {
        &self.values
    }

    /// Returns the policy that a setting comes from; for an object, the first policy that has it.
    #[must_use]
    pub fn source(&self, path: &[&str]) -> Option<&PolicyRef> {
        let path: Vec<String> = path.iter().map(|&field| field.to_owned()).collect();
        self.sources.get(&path).map(|(policy, _)| policy)
    }

    /// Returns each setting that is not merged field by field, with its field and the policy that it comes from.
    pub fn settings(&self) -> impl Iterator<Item = (String, &Value, &PolicyRef)> {
        self.sources.iter().filter_map(|(path, (policy, _))| {
            let value = path.iter().fold(&self.values, |place, field| &place[field]);
            let field = path.join(".");
            (!value.is_object() || WHOLE.contains(&field.as_str())).then_some((field, value, policy))
        })
    }

    /// Returns the fields on which policies of the same priority disagree.
    #[must_use]
    pub fn conflicts(&self) -> &[Conflict] {
        &self.conflicts
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, priority, used: (used, value), other: (other, otherwise) } = self;
        let (used, other) = (&used.name, &other.name);
        write!(
            f,
            "policies {used} and {other}, both of priority {priority}, disagree on {field}: {value} from {used} is \
             used, not {otherwise} from {other}; give one of them a higher priority"
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(layers: &[(&str, i32, Value)]) -> Merged {
        let references: Vec<PolicyRef> =
            layers.iter().map(|(name, ..)| PolicyRef { name: (*name).into(), generation: 1 }).collect();
        Merged::of(layers.iter().zip(&references).map(|((_, priority, settings), policy)| Layer {
            policy,
            priority: *priority,
            settings,
        }))
    }

    #[test]
    fn takes_each_field_from_the_first_policy() {
        let merged = merged(&[
            ("a", 5, json!({"autoscaling": {"maxReplicas": 20}})),
            ("b", 0, json!({"autoscaling": {"maxReplicas": 10, "minReplicas": 2}, "probes": {}})),
        ]);
        assert_eq!(*merged.values(), json!({"autoscaling": {"maxReplicas": 20, "minReplicas": 2}, "probes": {}}));
        let source = |path: &[&str]| merged.source(path).map(|policy| policy.name.to_string());
        assert_eq!(source(&["autoscaling", "maxReplicas"]).as_deref(), Some("a"));
        assert_eq!(source(&["autoscaling", "minReplicas"]).as_deref(), Some("b"));
        assert_eq!((source(&["probes"]).as_deref(), source(&["database"])), (Some("b"), None));
        assert!(merged.conflicts().is_empty());
        let settings: Vec<String> = merged.settings().map(|(field, ..)| field).collect();
        assert_eq!(settings, ["autoscaling.maxReplicas", "autoscaling.minReplicas"]);
    }

    #[test]
    fn merges_no_policies_to_an_empty_object() {
        assert_eq!(*merged(&[]).values(), json!({}));
    }

    #[test]
    fn does_not_merge_lists_or_behavior() {
        let with =
            |seconds: u32| json!({"autoscaling": {"metrics": [seconds], "behavior": {"scaleDown": {"s": seconds}}}});
        let merged = merged(&[("a", 1, with(1)), ("b", 0, with(2))]);
        assert_eq!(*merged.values(), with(1));
    }

    #[test]
    fn equal_values_in_different_notation_do_not_conflict() {
        let with = |value: Value, tolerance: Value| {
            let target = json!({"type": "AverageValue", "averageValue": value});
            let metrics = json!([{"type": "Pods", "pods": {"metric": {"name": "waiting"}, "target": target}}]);
            json!({"autoscaling": {"metrics": metrics, "behavior": {"scaleUp": {"tolerance": tolerance}}}})
        };
        let conflicts = |one: Value, other: Value| merged(&[("a", 0, one), ("b", 0, other)]).conflicts().len();
        assert_eq!(conflicts(with(json!(5), json!(0.05)), with(json!("5000m"), json!("50m"))), 0);
        assert_eq!(conflicts(with(json!(5), json!(0.05)), with(json!(6), json!(0.06))), 2);
    }

    #[test]
    fn accepts_a_string_and_a_mapping_for_one_field() {
        let env = |env: Value| json!({"database": {"env": env}});
        let (word, mapping) = (env(json!("libpq")), env(json!({"DB_URL": "uri"})));
        assert_eq!(*merged(&[("a", 1, word.clone()), ("b", 0, mapping.clone())]).values(), word);
        let merged = merged(&[("a", 1, mapping.clone()), ("b", 0, word)]);
        assert_eq!(*merged.values(), mapping);
        assert_eq!(merged.settings().map(|(field, ..)| field).collect::<Vec<_>>(), ["database.env"]);
    }

    #[test]
    fn reports_conflicts_between_policies_of_the_same_priority() {
        let max = |max: i32| json!({"autoscaling": {"maxReplicas": max}});
        let conflicts = |layers: &[(&str, i32, Value)]| -> Vec<String> {
            merged(layers).conflicts().iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            conflicts(&[("a", 3, max(1)), ("b", 3, max(2))]),
            ["policies a and b, both of priority 3, disagree on autoscaling.maxReplicas: 1 from a is used, not 2 \
              from b; give one of them a higher priority"]
        );
        assert!(conflicts(&[("a", 3, max(1)), ("b", 3, max(1))]).is_empty(), "they agree");
        assert!(conflicts(&[("a", 4, max(1)), ("b", 3, max(2))]).is_empty(), "one comes first");
        assert!(conflicts(&[("a", 4, max(1)), ("b", 3, max(2)), ("c", 3, max(3))]).is_empty(), "one settles it");
    }
}
