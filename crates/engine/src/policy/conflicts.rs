//! Policies that can be for one workload: what they disagree on, and what makes no sense of them together. It is found when
//! a policy is applied, not by the author of a workload.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};

use kube::core::Expression;

use super::{Effective, Policy, PolicySet, Variant};
use crate::api::Enforcement;

/// What there is to say of a policy beside the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyConflicts {
    /// Settings about which it and another of its priority disagree, a sentence each.
    pub conflicts: BTreeSet<String>,
    /// What it and others say together that would have workloads refused for what their authors did not write, a sentence
    /// each.
    pub contradictions: BTreeSet<String>,
}

impl PolicyConflicts {
    /// Looks at two policies together.
    #[must_use]
    pub fn between(one: &Policy, other: &Policy) -> Self {
        let mut meeting = Self::default();
        if !one.may_meet(other) {
            return meeting;
        }
        let (first, second) = if order(one, other).is_le() { (one, other) } else { (other, one) };
        for (of_first, of_second) in together(first, second) {
            let effective = Effective::merge(&[(first, of_first), (second, of_second)]);
            meeting.conflicts.extend(effective.conflicts().iter().map(ToString::to_string));
            meeting.contradictions.extend(effective.contradictions().iter().cloned());
        }
        meeting
    }

    /// Tells whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.conflicts.is_empty() && self.contradictions.is_empty()
    }

    /// Adds what there is to say of another meeting.
    pub fn extend(&mut self, other: Self) {
        self.conflicts.extend(other.conflicts);
        self.contradictions.extend(other.contradictions);
    }
}

impl PolicySet {
    /// Looks at a policy beside all others of the set.
    #[must_use]
    pub fn beside(&self, policy: &Policy) -> PolicyConflicts {
        let mut meeting = PolicyConflicts::default();
        for other in self.policies.iter().filter(|other| other.reference.name != policy.reference.name) {
            meeting.extend(PolicyConflicts::between(policy, other));
        }
        meeting
    }
}

/// Compares policies by which comes first: by priority, the highest first, then by name. Of one name, as files and the
/// cluster may have them, the older generation comes first.
pub(super) fn order(one: &Policy, other: &Policy) -> Ordering {
    let key = |policy: &Policy| (Reverse(policy.priority), policy.reference.generation);
    let ((first, generation), (second, of_other)) = (key(one), key(other));
    first.cmp(&second).then_with(|| one.reference.name.cmp(&other.reference.name)).then(generation.cmp(&of_other))
}

/// Returns the variants of two policies that are in force in one namespace, as far as labels tell.
fn together<'p>(one: &'p Policy, other: &'p Policy) -> Vec<(&'p Variant, &'p Variant)> {
    let others = || other.variants.iter().filter(in_force);
    let pairs = one.variants.iter().filter(in_force).flat_map(|variant| others().map(move |other| (variant, other)));
    let share_one = |(variant, of_other): &(&Variant, &Variant)| {
        let requirements = one.namespaces_of(variant).into_iter().chain(other.namespaces_of(of_other));
        can_hold(requirements.chain([Expression::Exists(NAME_LABEL.to_owned())]))
    };
    pairs.filter(share_one).collect()
}

/// The label that the API server gives each namespace: its name.
///
/// <https://kubernetes.io/docs/reference/labels-annotations-taints/#kubernetes-io-metadata-name>
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

fn in_force(variant: &&Variant) -> bool {
    variant.enforcement > Enforcement::Off
}

impl Policy {
    /// Tells whether one workload can be under both policies, as far as its kind and its own labels tell.
    fn may_meet(&self, other: &Self) -> bool {
        let selectors = [&self.selection.selector, &other.selection.selector];
        !self.selection.kinds.is_disjoint(&other.selection.kinds) && can_hold(selectors.into_iter().cloned().flatten())
    }

    /// Returns what the labels of a namespace are to be for one of the policy's variants to be in force in it.
    fn namespaces_of(&self, variant: &Variant) -> Vec<Expression> {
        let key = self.environment_label.clone();
        let in_environment = match &variant.environment {
            Some(name) => Expression::Equal(key, name.clone()),
            None => Expression::NotIn(key, self.environments().map(str::to_owned).collect()),
        };
        self.selection.namespaces.clone().into_iter().chain([in_environment]).collect()
    }
}

/// Tells whether there are labels for which all requirements hold.
fn can_hold(requirements: impl IntoIterator<Item = Expression>) -> bool {
    let mut labels: BTreeMap<String, Label> = BTreeMap::new();
    for requirement in requirements {
        let (key, wanted) = Label::from_requirement(requirement);
        labels.entry(key).or_default().also(wanted);
    }
    labels.values().all(Label::can_be)
}

/// What requirements say of one label.
#[derive(Debug, Default)]
struct Label {
    /// Whether it must be there.
    is_required: bool,
    /// Whether it must not be there.
    is_refused: bool,
    /// The values that it may have; none where any will do.
    accepted: Option<BTreeSet<String>>,
    /// The values that it must not have.
    refused: BTreeSet<String>,
}

impl Label {
    /// Reads one requirement.
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

    /// Adds what another requirement says.
    fn also(&mut self, other: Self) {
        self.is_required |= other.is_required;
        self.is_refused |= other.is_refused;
        self.refused.extend(other.refused);
        self.accepted = match (self.accepted.take(), other.accepted) {
            (Some(one), Some(other)) => Some(one.intersection(&other).cloned().collect()),
            (one, other) => one.or(other),
        };
    }

    /// Tells whether the label can be as it is to be. Of the values that nothing is said of there is always another one.
    fn can_be(&self) -> bool {
        let has_value = self.accepted.as_ref().is_none_or(|accepted| !accepted.is_subset(&self.refused));
        !(self.is_required && self.is_refused) && has_value
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::policies;

    /// What there is to say of the first policy beside the others.
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
    fn policies_of_one_priority_that_disagree_are_told() {
        let meeting = beside(&[("b", max(2, &json!({}))), ("a", max(1, &json!({})))]);
        insta::assert_snapshot!(meeting.conflicts.into_iter().collect::<Vec<_>>().join("\n"), @"policies a and b, both of priority 0, disagree on autoscaling.maxReplicas: 1 from a is used, not 2 from b; give one of them a higher priority");
        assert!(!disagree(&json!({"priority": 1}), &json!({})));
        assert!(!disagree(&max(1, &json!({})), &max(1, &json!({}))));
    }

    #[test]
    fn policies_that_cannot_meet_do_not_disagree() {
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
    fn requirements_that_exclude_each_other_only_together_are_seen() {
        let selector = |requirements: Value| selecting(&json!({"matchExpressions": requirements}));
        let of = |operator: &str, values: Value| json!({"key": "team", "operator": operator, "values": values});
        let (two, not_search) = (of("In", json!(["search", "ads"])), of("NotIn", json!(["search"])));
        let not_ads = of("NotIn", json!(["ads"]));
        assert!(!disagree(&selector(json!([two, not_search])), &selector(json!([not_ads]))));
        assert!(disagree(&selector(json!([two, not_search])), &selector(json!([not_search]))));
        let ads = of("In", json!(["ads", "maps"]));
        assert!(!disagree(&selector(json!([two, ads])), &selector(json!([of("In", json!(["search", "maps"]))]))));
        let nothing = selector(json!([two, of("In", json!(["maps"]))]));
        assert!(!disagree(&nothing, &json!({})), "a selector that fits nothing");
    }

    #[test]
    fn a_namespace_has_its_name_for_a_label() {
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
    fn policies_are_in_an_environment_only_where_their_namespaces_are() {
        let of = |stage: &Value, more: &Value| {
            let mut spec = json!({"environment": {"namespaceLabel": "stage"}, "match": {"namespaceSelector": stage}});
            json_patch::merge(&mut spec, more);
            spec
        };
        let max = |max: i32| json!({"autoscaling": {"maxReplicas": max}});
        let differ =
            |one: &Value, other: &Value| !beside(&[("a", one.clone()), ("b", other.clone())]).conflicts.is_empty();
        let (prod, dev) = (json!({"matchLabels": {"stage": "prod"}}), json!({"matchLabels": {"stage": "dev"}}));
        // They disagree in dev alone, where only one of them is.
        let in_dev = json!({"environments": {"dev": max(3), "prod": max(4)}});
        assert!(!differ(&of(&prod, &in_dev), &of(&json!({}), &json!({"environments": {"dev": max(5)}}))));
        assert!(differ(&of(&dev, &in_dev), &of(&json!({}), &json!({"environments": {"dev": max(5)}}))));
        // What one says where nothing is said of the environment does not hold in prod, of which it knows.
        let (mut base, mut other) = (in_dev.clone(), json!({"environments": {"prod": max(4)}}));
        json_patch::merge(&mut base, &max(1));
        json_patch::merge(&mut other, &max(2));
        assert!(!differ(&of(&prod, &base), &of(&json!({}), &other)));
        assert!(differ(&of(&json!({}), &base), &of(&json!({}), &other)), "elsewhere they disagree");
        // A label of its own tells one of them its environment.
        let mut by_tier = of(&prod, &json!({"environments": {"gold": max(7)}}));
        by_tier["environment"] = json!({"namespaceLabel": "tier"});
        assert!(differ(&by_tier, &of(&json!({}), &in_dev)), "a namespace of prod may be gold");
        by_tier["match"] = json!({"namespaceSelector": {"matchLabels": {"tier": "silver"}}});
        assert!(!differ(&by_tier, &of(&json!({}), &in_dev)), "gold is none of its namespaces");
    }

    #[test]
    fn a_policy_that_is_off_in_an_environment_disagrees_with_none_there() {
        let bound = json!({"resources": {"bounds": {"memory": {"max": "1Gi"}}}});
        let mut off = max(1, &json!({"environments": {"dev": {"enforcement": "off"}}}));
        json_patch::merge(&mut off, &bound);
        off["match"] = json!({"namespaceSelector": {"matchLabels": {"environment": "dev"}}});
        assert!(!disagree(&off, &json!({})));
    }

    #[test]
    fn policies_may_disagree_in_one_environment_only() {
        let prod = |max: i32| json!({"environments": {"prod": {"autoscaling": {"maxReplicas": max}}}});
        assert!(!beside(&[("a", prod(3)), ("b", prod(4))]).conflicts.is_empty());
        assert!(beside(&[("a", prod(3)), ("b", prod(3))]).conflicts.is_empty());
        let mut stage = prod(4);
        stage["environment"] = json!({"namespaceLabel": "stage"});
        assert!(!beside(&[("a", prod(3)), ("b", stage)]).conflicts.is_empty());
    }

    #[test]
    fn a_default_out_of_the_bounds_of_another_policy_is_told() {
        let default = json!({"resources": {"cpu": {"limits": {"memory": "2Gi"}}}});
        let bound = |more: Value| {
            let mut spec = json!({"resources": {"bounds": {"memory": {"max": "1Gi"}}}});
            json_patch::merge(&mut spec, &more);
            spec
        };
        let meeting = beside(&[("a", default.clone()), ("b", bound(json!({})))]);
        insta::assert_snapshot!(meeting.contradictions.into_iter().collect::<Vec<_>>().join("\n"), @"the default limit 2Gi of memory for class cpu, which policy a sets, is out of the bounds that policy b sets: what says nothing of it would be refused");
        for milder in [
            json!({"enforcement": "warn"}),
            json!({"rules": {"resources-out-of-bounds": {"enforcement": "warn"}}}),
            json!({"resources": {"bounds": {"memory": {"max": "2Gi"}}}}),
        ] {
            assert_eq!(beside(&[("a", default.clone()), ("b", bound(milder))]).contradictions, BTreeSet::new());
        }
    }
}
