//! Policies that can be for one workload: what they disagree on, and what makes no sense of them together. It is found when
//! a policy is applied, not by the author of a workload.

use std::collections::BTreeSet;

use kube::core::{Expression, Selector};

use super::{Effective, Policy, PolicySet, Variant};

/// What there is to say of a policy beside the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meeting {
    /// Settings about which it and another of its priority disagree, a sentence each.
    pub conflicts: BTreeSet<String>,
    /// What it and others say together that would have workloads refused for what their authors did not write, a sentence
    /// each.
    pub contradictions: BTreeSet<String>,
}

impl Meeting {
    /// Looks at two policies together.
    #[must_use]
    pub fn of(one: &Policy, other: &Policy) -> Self {
        let mut meeting = Self::default();
        if !one.may_meet(other) {
            return meeting;
        }
        let (first, second) = if precedes(one, other) { (one, other) } else { (other, one) };
        for (of_first, of_second) in together(first, second) {
            let effective = Effective::of(&[(first, of_first), (second, of_second)]);
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
    pub fn beside(&self, policy: &Policy) -> Meeting {
        let mut meeting = Meeting::default();
        for other in self.policies.iter().filter(|other| other.reference.name != policy.reference.name) {
            meeting.extend(Meeting::of(policy, other));
        }
        meeting
    }
}

/// Tells whether a policy comes before another: by priority, the highest first, then by name.
pub(super) fn precedes(one: &Policy, other: &Policy) -> bool {
    (-i64::from(one.priority), &one.reference.name) < (-i64::from(other.priority), &other.reference.name)
}

/// Returns the variants of two policies that can be for one workload, in each environment that either knows.
fn together<'p>(one: &'p Policy, other: &'p Policy) -> Vec<(&'p Variant, &'p Variant)> {
    let places: BTreeSet<(usize, usize)> = if one.environment_label == other.environment_label {
        let environments = one.environments().chain(other.environments()).map(Some).chain([None]);
        environments.map(|environment| (one.variant_in(environment), other.variant_in(environment))).collect()
    } else {
        let others = || 0..other.variants.len();
        (0..one.variants.len()).flat_map(|place| others().map(move |other| (place, other))).collect()
    };
    places.into_iter().map(|(place, of_other)| (&one.variants[place], &other.variants[of_other])).collect()
}

impl Policy {
    /// Tells whether one workload can be under both policies, as far as their selectors tell.
    fn may_meet(&self, other: &Self) -> bool {
        !self.selection.kinds.is_disjoint(&other.selection.kinds)
            && !excludes(&self.selection.selector, &other.selection.selector)
            && !excludes(&self.selection.namespaces, &other.selection.namespaces)
    }
}

/// Tells whether no labels fit both selectors, where one requirement of each shows it.
fn excludes(one: &Selector, other: &Selector) -> bool {
    let requirements = |selector: &Selector| selector.clone().into_iter().collect::<Vec<Expression>>();
    let others = requirements(other);
    requirements(one).iter().any(|one| others.iter().any(|other| contradict(one, other) || contradict(other, one)))
}

fn contradict(one: &Expression, other: &Expression) -> bool {
    use Expression::{DoesNotExist, Equal, Exists, In, NotEqual, NotIn};
    let Some((key, values)) = required(one) else { return false };
    key == key_of(other)
        && match other {
            DoesNotExist(_) => true,
            Equal(_, value) => values.is_some_and(|values| !values.contains(value)),
            NotEqual(_, value) => values.is_some_and(|values| values.iter().all(|found| found == value)),
            In(_, accepted) => values.is_some_and(|values| values.is_disjoint(accepted)),
            NotIn(_, refused) => values.is_some_and(|values| values.is_subset(refused)),
            Exists(_) => false,
        }
}

/// Returns the label that a requirement wants to be there, and its values where it says which.
fn required(requirement: &Expression) -> Option<(&str, Option<BTreeSet<String>>)> {
    match requirement {
        Expression::Equal(key, value) => Some((key, Some([value.clone()].into()))),
        Expression::In(key, values) => Some((key, Some(values.clone()))),
        Expression::Exists(key) => Some((key, None)),
        _ => None,
    }
}

fn key_of(requirement: &Expression) -> &str {
    match requirement {
        Expression::Equal(key, _)
        | Expression::NotEqual(key, _)
        | Expression::In(key, _)
        | Expression::NotIn(key, _)
        | Expression::Exists(key)
        | Expression::DoesNotExist(key) => key,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::policies;

    /// What there is to say of the first policy beside the others.
    fn beside(specs: &[(&str, Value)]) -> Meeting {
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
        insta::assert_snapshot!(meeting.conflicts.into_iter().collect::<Vec<_>>().join("\n"), @"policies a and b, both of priority 0, disagree on autoscaling.maxReplicas: 1 of a is used, not 2 of b; give one of them a higher priority");
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
