//! Conflicts between policies that can apply to the same workload. They are reported when a policy is applied, before a
//! workload's author runs into them.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};

use kube::core::Expression;

use super::{Effective, Policy, PolicySet, Variant};
use crate::api::Enforcement;

/// The conflicts of a policy with others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyConflicts {
    /// A message for each setting on which it disagrees with another policy of the same priority.
    pub conflicts: BTreeSet<String>,
    /// A message for each combination of settings that would have workloads refused for something that their authors
    /// did not write.
    pub contradictions: BTreeSet<String>,
}

impl PolicyConflicts {
    /// Returns the conflicts between two policies.
    #[must_use]
    pub fn between(one: &Policy, other: &Policy) -> Self {
        let mut found = Self::default();
        if !one.may_overlap(other) {
            return found;
        }
        let (first, second) = if order(one, other).is_le() { (one, other) } else { (other, one) };
        for (of_first, of_second) in together(first, second) {
            let effective = Effective::merge(&[(first, of_first), (second, of_second)]);
            found.conflicts.extend(effective.conflicts().iter().map(ToString::to_string));
            found.contradictions.extend(effective.contradictions().iter().cloned());
        }
        found
    }

    /// Returns whether there are no conflicts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.conflicts.is_empty() && self.contradictions.is_empty()
    }

    /// Adds other conflicts.
    pub fn extend(&mut self, other: Self) {
        self.conflicts.extend(other.conflicts);
        self.contradictions.extend(other.contradictions);
    }
}

impl PolicySet {
    /// Returns the conflicts of a policy with all others in the set.
    #[must_use]
    pub fn beside(&self, policy: &Policy) -> PolicyConflicts {
        let mut found = PolicyConflicts::default();
        for other in self.policies.iter().filter(|other| other.reference.name != policy.reference.name) {
            found.extend(PolicyConflicts::between(policy, other));
        }
        found
    }
}

/// Compares policies by precedence: the highest priority first, then by name. If files and the cluster have a policy
/// with the same name, the older generation comes first.
pub(super) fn order(one: &Policy, other: &Policy) -> Ordering {
    let key = |policy: &Policy| (Reverse(policy.priority), policy.reference.generation);
    let ((first, generation), (second, of_other)) = (key(one), key(other));
    first.cmp(&second).then_with(|| one.reference.name.cmp(&other.reference.name)).then(generation.cmp(&of_other))
}

/// Returns the pairs of variants of two policies that can be active in the same namespace, judging by labels.
fn together<'p>(one: &'p Policy, other: &'p Policy) -> Vec<(&'p Variant, &'p Variant)> {
    let others = || other.variants.iter().filter(is_active);
    let pairs = one.variants.iter().filter(is_active).flat_map(|variant| others().map(move |other| (variant, other)));
    let share_one = |(variant, of_other): &(&Variant, &Variant)| {
        let requirements = one.namespaces_of(variant).into_iter().chain(other.namespaces_of(of_other));
        is_satisfiable(requirements.chain([Expression::Exists(NAME_LABEL.to_owned())]))
    };
    pairs.filter(share_one).collect()
}

/// The label that the API server sets to the name of each namespace.
///
/// <https://kubernetes.io/docs/reference/labels-annotations-taints/#kubernetes-io-metadata-name>
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

fn is_active(variant: &&Variant) -> bool {
    variant.enforcement > Enforcement::Off
}

impl Policy {
    /// Returns whether both policies can apply to the same workload, judging by its kind and labels.
    fn may_overlap(&self, other: &Self) -> bool {
        let selectors = [&self.selection.selector, &other.selection.selector];
        !self.selection.kinds.is_disjoint(&other.selection.kinds)
            && is_satisfiable(selectors.into_iter().cloned().flatten())
    }

    /// Returns the requirements on the labels of a namespace for one of the policy's variants to be active in it.
    fn namespaces_of(&self, variant: &Variant) -> Vec<Expression> {
        let key = self.environment_label.clone();
        let in_environment = match &variant.environment {
            Some(name) => Expression::Equal(key, name.clone()),
            None => Expression::NotIn(key, self.environments().map(str::to_owned).collect()),
        };
        self.selection.namespaces.clone().into_iter().chain([in_environment]).collect()
    }
}

/// Returns whether any labels satisfy all requirements.
fn is_satisfiable(requirements: impl IntoIterator<Item = Expression>) -> bool {
    let mut labels: BTreeMap<String, Label> = BTreeMap::new();
    for requirement in requirements {
        let (key, wanted) = Label::from_requirement(requirement);
        labels.entry(key).or_default().also(wanted);
    }
    labels.values().all(Label::is_satisfiable)
}

/// The requirements on one label.
#[derive(Debug, Default)]
struct Label {
    /// Whether it must exist.
    is_required: bool,
    /// Whether it must not exist.
    is_refused: bool,
    /// The values that it may have; `None` if any value is accepted.
    accepted: Option<BTreeSet<String>>,
    /// The values that it must not have.
    refused: BTreeSet<String>,
}

impl Label {
    /// Converts one requirement.
    fn from_requirement(requirement: Expression) -> (String, Self) {
        use Expression::{DoesNotExist, Equal, Exists, In, NotEqual, NotIn};
        let accept = |values| Self { is_required: true, accepted: Some(values), ..Self::default() };
        let refuse = |refused| Self { refused, ..Self::default() };
        match requirement {
            Equal(key, value) => (key, accept([value].into())),
            In(key, values) => (key, accept(values)),
            NotEqual(key, value) => (key, refuse([value].into())),
            NotIn(key, values) => (key, refuse(values)),
            Exists(key) => (key, Self { is_required: true, ..Self::default() }),
            DoesNotExist(key) => (key, Self { is_refused: true, ..Self::default() }),
        }
    }

    /// Adds another requirement.
    fn also(&mut self, other: Self) {
        self.is_required |= other.is_required;
        self.is_refused |= other.is_refused;
        self.refused.extend(other.refused);
        self.accepted = match (self.accepted.take(), other.accepted) {
            (Some(one), Some(other)) => Some(one.intersection(&other).cloned().collect()),
            (one, other) => one.or(other),
        };
    }

    /// Returns whether the label can satisfy its requirements. If any value is accepted, there is always one that is
    /// not refused.
    fn is_satisfiable(&self) -> bool {
        let has_value = self.accepted.as_ref().is_none_or(|accepted| !accepted.is_subset(&self.refused));
        !(self.is_required && self.is_refused) && has_value
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::policies;

    /// Returns the conflicts of the first policy with the others.
    fn beside(specs: &[(&str, Value)]) -> PolicyConflicts {
        let set = policies(specs);
        let first = set.policies().iter().find(|policy| *policy.reference.name == *specs[0].0).unwrap();
        set.beside(first)
    }

    fn max(max: i32, more: &Value) -> Value {
        let mut spec = json!({"autoscaling": {"maxReplicas": max}});
        json_patch::merge(&mut spec, more);
        spec
    }

    fn disagree(one: &Value, other: &Value) -> bool {
        !beside(&[("a", max(1, one)), ("b", max(2, other))]).conflicts.is_empty()
    }

    fn selecting(selector: &Value) -> Value {
        json!({"match": {"selector": selector}})
    }

    #[test]
    fn reports_policies_of_the_same_priority_that_disagree() {
        let found = beside(&[("b", max(2, &json!({}))), ("a", max(1, &json!({})))]);
        insta::assert_snapshot!(found.conflicts.into_iter().collect::<Vec<_>>().join("\n"), @"policies a and b, both of priority 0, disagree on autoscaling.maxReplicas: 1 from a is used, not 2 from b; give one of them a higher priority");
        assert!(!disagree(&json!({"priority": 1}), &json!({})));
        assert!(!disagree(&max(1, &json!({})), &max(1, &json!({}))));
    }

    #[test]
    fn ignores_policies_that_cannot_apply_together() {
        let (search, ads) = (json!({"matchLabels": {"team": "search"}}), json!({"matchLabels": {"team": "ads"}}));
        assert!(disagree(&selecting(&search), &json!({})) && disagree(&selecting(&search), &selecting(&search)));
        assert!(!disagree(&selecting(&search), &selecting(&ads)));
        let namespaces = |selector: &Value| json!({"match": {"namespaceSelector": selector}});
        assert!(!disagree(&namespaces(&search), &namespaces(&ads)));
        assert!(disagree(&namespaces(&search), &selecting(&ads)));
        let expression = |operator: &str, values: &Value| {
            selecting(&json!({"matchExpressions": [{"key": "team", "operator": operator, "values": values}]}))
        };
        let (none, both) = (json!([]), json!(["search", "ads"]));
        for (one, other, meet) in [
            (expression("Exists", &none), expression("DoesNotExist", &none), false),
            (expression("Exists", &none), expression("Exists", &none), true),
            (expression("In", &both), selecting(&search), true),
            (expression("In", &json!(["ads"])), selecting(&search), false),
            (expression("NotIn", &both), selecting(&search), false),
            (expression("NotIn", &json!(["ads"])), selecting(&search), true),
            (expression("NotIn", &both), expression("Exists", &none), true),
            (expression("DoesNotExist", &none), expression("NotIn", &both), true),
        ] {
            assert_eq!(disagree(&one, &other), meet, "{one} {other}");
            assert_eq!(disagree(&other, &one), meet, "{other} {one}");
        }
    }

    #[test]
    fn detects_requirements_that_are_unsatisfiable_in_combination() {
        let selector = |requirements: Value| selecting(&json!({"matchExpressions": requirements}));
        let of = |operator: &str, values: Value| json!({"key": "team", "operator": operator, "values": values});
        let (two, not_search) = (of("In", json!(["search", "ads"])), of("NotIn", json!(["search"])));
        let not_ads = of("NotIn", json!(["ads"]));
        assert!(!disagree(&selector(json!([two, not_search])), &selector(json!([not_ads]))));
        assert!(disagree(&selector(json!([two, not_search])), &selector(json!([not_search]))));
        let ads = of("In", json!(["ads", "maps"]));
        assert!(!disagree(&selector(json!([two, ads])), &selector(json!([of("In", json!(["search", "maps"]))]))));
        let nothing = selector(json!([two, of("In", json!(["maps"]))]));
        assert!(!disagree(&nothing, &json!({})), "a selector that matches nothing");
    }

    #[test]
    fn considers_the_name_label_of_namespaces() {
        let namespaces = |operator: &str, values: Value| {
            let name = json!({"key": "kubernetes.io/metadata.name", "operator": operator, "values": values});
            json!({"match": {"namespaceSelector": {"matchExpressions": [name]}}})
        };
        let named = json!({"match": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ml"}}}});
        assert!(!disagree(&named, &namespaces("NotIn", json!(["ml"]))) && disagree(&named, &json!({})));
        assert!(!disagree(&namespaces("DoesNotExist", json!([])), &json!({})), "every namespace has a name");
        assert!(disagree(&namespaces("NotIn", json!(["ml"])), &namespaces("NotIn", json!(["web"]))));
    }

    #[test]
    fn considers_only_environments_that_the_namespace_selector_allows() {
        let of = |stage: &Value, more: &Value| {
            let mut spec = json!({"environment": {"namespaceLabel": "stage"}, "match": {"namespaceSelector": stage}});
            json_patch::merge(&mut spec, more);
            spec
        };
        let max = |max: i32| json!({"autoscaling": {"maxReplicas": max}});
        let differ =
            |one: &Value, other: &Value| !beside(&[("a", one.clone()), ("b", other.clone())]).conflicts.is_empty();
        let (prod, dev) = (json!({"matchLabels": {"stage": "prod"}}), json!({"matchLabels": {"stage": "dev"}}));
        // They disagree only in dev, where only one of them applies.
        let in_dev = json!({"environments": {"dev": max(3), "prod": max(4)}});
        assert!(!differ(&of(&prod, &in_dev), &of(&json!({}), &json!({"environments": {"dev": max(5)}}))));
        assert!(differ(&of(&dev, &in_dev), &of(&json!({}), &json!({"environments": {"dev": max(5)}}))));
        // The base settings of a policy do not apply in prod, which it lists.
        let (mut base, mut other) = (in_dev.clone(), json!({"environments": {"prod": max(4)}}));
        json_patch::merge(&mut base, &max(1));
        json_patch::merge(&mut other, &max(2));
        assert!(!differ(&of(&prod, &base), &of(&json!({}), &other)));
        assert!(differ(&of(&json!({}), &base), &of(&json!({}), &other)), "elsewhere they disagree");
        // One of them uses another label for the environment.
        let mut by_tier = of(&prod, &json!({"environments": {"gold": max(7)}}));
        by_tier["environment"] = json!({"namespaceLabel": "tier"});
        assert!(differ(&by_tier, &of(&json!({}), &in_dev)), "a namespace of prod may be gold");
        by_tier["match"] = json!({"namespaceSelector": {"matchLabels": {"tier": "silver"}}});
        assert!(!differ(&by_tier, &of(&json!({}), &in_dev)), "it does not apply to gold namespaces");
    }

    #[test]
    fn ignores_a_policy_that_is_off_in_the_environment() {
        let bound = json!({"resources": {"bounds": {"memory": {"max": "1Gi"}}}});
        let mut off = max(1, &json!({"environments": {"dev": {"enforcement": "off"}}}));
        json_patch::merge(&mut off, &bound);
        off["match"] = json!({"namespaceSelector": {"matchLabels": {"environment": "dev"}}});
        assert!(!disagree(&off, &json!({})));
    }

    #[test]
    fn reports_policies_that_disagree_in_one_environment() {
        let prod = |max: i32| json!({"environments": {"prod": {"autoscaling": {"maxReplicas": max}}}});
        assert!(!beside(&[("a", prod(3)), ("b", prod(4))]).conflicts.is_empty());
        assert!(beside(&[("a", prod(3)), ("b", prod(3))]).conflicts.is_empty());
        let mut stage = prod(4);
        stage["environment"] = json!({"namespaceLabel": "stage"});
        assert!(!beside(&[("a", prod(3)), ("b", stage)]).conflicts.is_empty());
    }

    #[test]
    fn reports_a_default_outside_the_bounds_of_another_policy() {
        let default = json!({"resources": {"cpu": {"limits": {"memory": "2Gi"}}}});
        let bound = |more: Value| {
            let mut spec = json!({"resources": {"bounds": {"memory": {"max": "1Gi"}}}});
            json_patch::merge(&mut spec, &more);
            spec
        };
        let found = beside(&[("a", default.clone()), ("b", bound(json!({})))]);
        insta::assert_snapshot!(found.contradictions.into_iter().collect::<Vec<_>>().join("\n"), @"the default memory limit 2Gi for class cpu, set by policy a, is outside the bounds set by policy b: workloads without their own value would be refused");
        for milder in [
            json!({"enforcement": "warn"}),
            json!({"rules": {"resources-out-of-bounds": {"enforcement": "warn"}}}),
            json!({"resources": {"bounds": {"memory": {"max": "2Gi"}}}}),
        ] {
            assert_eq!(beside(&[("a", default.clone()), ("b", bound(milder))]).contradictions, BTreeSet::new());
        }
    }
}
