//! Policies, compiled: selectors ready to match, quantities parsed, settings known to make sense.

mod compile;
mod load;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kube::core::{Selector, SelectorExt};
use serde_json::{Map, Value};

pub use compile::PolicyError;
pub use load::{LoadError, load, parse};

use crate::api::{Bound, Enforcement, Zalando};
use crate::companions::{Provider, zalando};
use crate::facts::Facts;
use crate::quantity::Quantity;
use crate::rules::Rule;
use crate::workload::{Container, Workload};

/// Names the policy, and the generation of it, that set a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRef {
    /// The policy's name.
    pub name: Arc<str>,
    /// Its `metadata.generation`.
    pub generation: i64,
}

impl fmt::Display for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.generation)
    }
}

/// A policy that is ready to decide.
#[derive(Clone, Debug)]
pub struct Policy {
    reference: PolicyRef,
    enforcement: Enforcement,
    selector: Selector,
    namespaces: Selector,
    defaults: BTreeMap<Class, Defaults>,
    bounds: BTreeMap<String, Bound>,
    probes: Option<ProbeSettings>,
    autoscaling: Option<AutoscalingSettings>,
    database: Option<DatabaseSettings>,
    rules: BTreeMap<String, Enforcement>,
}

/// The class of a container, by what it computes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Without a GPU.
    Cpu,
    /// With a GPU or another accelerator.
    Gpu,
}

impl Class {
    /// Returns the class of a container.
    #[must_use]
    pub fn of(container: &Container) -> Self {
        if container.has_gpu() { Self::Gpu } else { Self::Cpu }
    }
}

/// The requests and limits of one class, by resource name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Defaults {
    /// What is injected for each resource.
    pub by_resource: BTreeMap<String, RequestAndLimit>,
}

/// The default request and limit of one resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestAndLimit {
    /// The default request.
    pub request: Option<Quantity>,
    /// The default limit.
    pub limit: Option<Quantity>,
}

/// How probes are injected.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeSettings {
    /// Whether they are.
    pub inject: bool,
    /// How long a model server may take to start; none where its runtime says.
    pub startup_budget: Option<Duration>,
}

/// The autoscaler of each model server.
#[derive(Clone, Debug, PartialEq)]
pub struct AutoscalingSettings {
    /// Whether one is made.
    pub enabled: bool,
    /// The least number of replicas.
    pub min_replicas: i32,
    /// The most replicas.
    pub max_replicas: i32,
    /// The metrics, as `autoscaling/v2` has them.
    pub metrics: Vec<Map<String, Value>>,
    /// The behavior, as `autoscaling/v2` has it.
    pub behavior: Map<String, Value>,
    /// Whether updates leave `spec.replicas` to the autoscaler.
    pub preserve_replicas: bool,
}

/// The database of each model server.
#[derive(Clone, Debug, PartialEq)]
pub enum DatabaseSettings {
    /// Zalando's postgres-operator.
    Zalando(Zalando),
}

impl DatabaseSettings {
    /// Returns who provides the database.
    #[must_use]
    pub fn provider(&self) -> Box<dyn Provider + '_> {
        match self {
            Self::Zalando(settings) => Box::new(zalando::Postgresql { settings }),
        }
    }
}

/// All policies in force, and which workloads are Tidegate's at all.
#[derive(Clone, Debug)]
pub struct PolicySet {
    scope: BTreeMap<String, String>,
    policies: Vec<Arc<Policy>>,
}

impl PolicySet {
    /// Makes a set of policies for the workloads with all of the labels in `scope`.
    #[must_use]
    pub fn new(scope: BTreeMap<String, String>, mut policies: Vec<Arc<Policy>>) -> Self {
        policies.sort_by(|a, b| a.reference.name.cmp(&b.reference.name));
        Self { scope, policies }
    }

    /// Returns the labels that make a workload a model server.
    #[must_use]
    pub fn scope(&self) -> &BTreeMap<String, String> {
        &self.scope
    }

    /// Returns the policies, by name.
    #[must_use]
    pub fn policies(&self) -> &[Arc<Policy>] {
        &self.policies
    }

    /// Tells whether a workload is labelled as a model server.
    #[must_use]
    pub fn covers(&self, workload: &Workload) -> bool {
        let labels = workload.labels();
        self.scope
            .iter()
            .all(|(key, value)| labels.and_then(|labels| labels.get(key)).is_some_and(|found| found == value))
    }

    /// Returns the policies that are for a workload, as one; none where there is no such policy.
    #[must_use]
    pub fn resolve(&self, workload: &Workload, facts: &Facts) -> Option<Effective<'_>> {
        let labels = workload.labels().map(text_map).unwrap_or_default();
        let namespace = facts.namespaces.get(workload.namespace());
        let selecting = self.policies.iter().filter(|policy| {
            policy.enforcement > Enforcement::Off
                && policy.selector.matches(&labels)
                && (policy.namespaces.selects_all()
                    || namespace.is_some_and(|namespace| policy.namespaces.matches(&namespace.labels)))
        });
        let policies: Vec<&Policy> = selecting.map(AsRef::as_ref).collect();
        (!policies.is_empty()).then_some(Effective { policies })
    }

    /// Tells whether any policy has to know the workload's namespace.
    #[must_use]
    pub fn reads_namespaces(&self) -> bool {
        self.policies.iter().any(|policy| !policy.namespaces.selects_all())
    }
}

fn text_map(map: &Map<String, Value>) -> BTreeMap<String, String> {
    map.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// The policies that are for one workload. A setting comes from the first policy, by name, that has it; the rules of
/// all apply, the strictest enforcement wins.
#[derive(Clone, Debug)]
pub struct Effective<'p> {
    policies: Vec<&'p Policy>,
}

impl<'p> Effective<'p> {
    /// Returns the policies' names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.policies.iter().map(|policy| policy.reference.name.to_string()).collect()
    }

    /// Tells whether anything is injected: a policy in audit changes nothing.
    #[must_use]
    pub fn injects(&self) -> bool {
        self.injecting().next().is_some()
    }

    /// Returns the resources of each class, with the policy that sets them.
    pub fn container_defaults(&self) -> impl Iterator<Item = (Class, &'p Defaults, &'p PolicyRef)> {
        [Class::Cpu, Class::Gpu].into_iter().filter_map(|class| {
            self.injecting().find_map(|policy| Some((class, policy.defaults.get(&class)?, &policy.reference)))
        })
    }

    /// Returns how probes are injected, with the policy that says so.
    #[must_use]
    pub fn probes(&self) -> Option<(&'p ProbeSettings, &'p PolicyRef)> {
        self.injecting().find_map(|policy| Some((policy.probes.as_ref()?, &policy.reference)))
    }

    /// Returns the autoscaling, where a policy has it.
    #[must_use]
    pub fn autoscaling(&self) -> Option<&'p AutoscalingSettings> {
        self.injecting().find_map(|policy| policy.autoscaling.as_ref())
    }

    /// Returns the database, with the policy that wants it.
    #[must_use]
    pub fn database(&self) -> Option<(&'p DatabaseSettings, &'p PolicyRef)> {
        self.injecting().find_map(|policy| Some((policy.database.as_ref()?, &policy.reference)))
    }

    /// Tells whether updates leave `spec.replicas` to an autoscaler that holds them.
    #[must_use]
    pub fn preserves_replicas(&self) -> bool {
        self.autoscaling().is_none_or(|settings| settings.preserve_replicas)
    }

    /// Returns the bounds that hold for a resource, with the names of the policies that set them.
    pub fn bounds<'s>(&'s self, resource: &'s str) -> impl Iterator<Item = (&'p Bound, &'p str)> + 's {
        self.policies.iter().filter_map(move |policy| Some((policy.bounds.get(resource)?, &*policy.reference.name)))
    }

    /// Returns how strict the strictest policy is about a rule, with its name.
    #[must_use]
    pub fn enforcement_of(&self, rule: &dyn Rule) -> (Enforcement, &'p str) {
        let each = self.policies.iter().map(|policy| (policy.enforcement_of(rule), &*policy.reference.name));
        // The first of equals, so that the answer does not depend on how many agree.
        each.reduce(|best, next| if next.0 > best.0 { next } else { best }).unwrap_or((Enforcement::Off, ""))
    }

    fn injecting(&self) -> impl Iterator<Item = &'p Policy> {
        self.policies.iter().copied().filter(|policy| policy.enforcement >= Enforcement::Warn)
    }
}

impl Policy {
    /// Returns the policy's name and generation.
    #[must_use]
    pub fn reference(&self) -> &PolicyRef {
        &self.reference
    }

    /// A rule is as strict as the policy says of it, or else as it is by itself, but never stricter than the policy.
    fn enforcement_of(&self, rule: &dyn Rule) -> Enforcement {
        self.rules.get(rule.id()).copied().unwrap_or_else(|| rule.enforcement()).min(self.enforcement)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::facts::Namespace;
    use crate::rules;
    use crate::testing::{LABEL, deployment, facts, policies};

    fn names(set: &PolicySet, facts: &Facts) -> Vec<String> {
        let object = deployment(&json!([]));
        let workload = Workload::view(&object).unwrap();
        set.resolve(&workload, facts).map(|effective| effective.names()).unwrap_or_default()
    }

    /// Asks something of the policies for the Deployment `ml/api`.
    fn ask<T>(specs: &[(&str, Value)], ask: impl FnOnce(&Effective) -> T) -> T {
        let set = policies(specs);
        let object = deployment(&json!([]));
        let workload = Workload::view(&object).unwrap();
        ask(&set.resolve(&workload, &facts()).unwrap())
    }

    fn rule(id: &str) -> &'static dyn Rule {
        *rules::ALL.iter().find(|rule| rule.id() == id).unwrap()
    }

    fn strictness(specs: &[(&str, Value)], id: &str) -> (Enforcement, String) {
        ask(specs, |effective| {
            let (enforcement, policy) = effective.enforcement_of(rule(id));
            (enforcement, policy.to_owned())
        })
    }

    #[test]
    fn a_model_server_has_the_label_with_its_value() {
        let set = policies(&[]);
        let mut object = deployment(&json!([]));
        assert!(set.covers(&Workload::view(&object).unwrap()));
        object["metadata"]["labels"][LABEL] = "web".into();
        assert!(!set.covers(&Workload::view(&object).unwrap()));
        object["metadata"]["labels"] = json!(null);
        assert!(!set.covers(&Workload::view(&object).unwrap()));
    }

    #[test]
    fn a_policy_without_a_selector_is_for_all_and_one_that_is_off_for_none() {
        let set = policies(&[("a", json!({})), ("b", json!({"enforcement": "off"}))]);
        assert_eq!(names(&set, &facts()), ["a"]);
        assert_eq!(names(&policies(&[]), &facts()), [""; 0]);
    }

    #[test]
    fn a_selector_wants_all_that_it_says() {
        let selecting =
            |selector: Value| names(&policies(&[("a", json!({"match": {"selector": selector}}))]), &facts());
        assert_eq!(selecting(json!({})), ["a"]);
        assert_eq!(selecting(json!({"matchLabels": {LABEL: "model-server"}})), ["a"]);
        assert_eq!(selecting(json!({"matchLabels": {LABEL: "model-server", "team": "x"}})), [""; 0]);
        let expression = |operator: &str| json!({"matchExpressions": [{"key": "team", "operator": operator}]});
        assert_eq!(selecting(expression("DoesNotExist")), ["a"]);
        assert_eq!(selecting(expression("Exists")), [""; 0]);
    }

    #[test]
    fn a_namespace_that_is_not_known_is_not_selected_by_what_it_may_lack() {
        let expression = json!({"matchExpressions": [{"key": "stage", "operator": "DoesNotExist"}]});
        let set = policies(&[("a", json!({"match": {"namespaceSelector": expression}}))]);
        assert_eq!(names(&set, &facts()), ["a"]);
        assert_eq!(names(&set, &Facts::default()), [""; 0]);
        let labels = [("stage".to_owned(), "prod".to_owned())].into();
        let prod = Facts { namespaces: [("ml".into(), Namespace { labels, terminating: false })].into(), ..facts() };
        assert_eq!(names(&set, &prod), [""; 0]);
        assert!(set.reads_namespaces() && !policies(&[("a", json!({}))]).reads_namespaces());
    }

    #[test]
    fn a_setting_comes_from_the_first_policy_by_name_that_has_it() {
        let budget = |text: &str| json!({"probes": {"startupBudget": text}});
        let of = |specs: &[(&str, Value)]| {
            ask(specs, |effective| effective.probes().map(|(probes, from)| (probes.startup_budget, from.to_string())))
        };
        let first = Some((Some(Duration::from_mins(1)), "a@1".to_owned()));
        assert_eq!(of(&[("b", budget("2m")), ("a", budget("1m"))]), first);
        assert_eq!(of(&[("b", budget("1m")), ("a", json!({}))]).unwrap().1, "b@1");
        let audited = json!({"enforcement": "audit", "probes": {}});
        assert_eq!(of(&[("a", audited.clone()), ("b", budget("2m"))]).unwrap().1, "b@1");
        assert_eq!(of(&[("a", audited)]), None);
    }

    #[test]
    fn each_class_has_the_defaults_of_its_own_policy() {
        let defaults = |class: &str| json!({"resources": {class: {"requests": {"cpu": "1"}}}});
        let found = ask(&[("a", defaults("gpu")), ("b", defaults("cpu"))], |effective| {
            effective.container_defaults().map(|(class, _, from)| (class, from.to_string())).collect::<Vec<_>>()
        });
        assert_eq!(found, [(Class::Cpu, "b@1".to_owned()), (Class::Gpu, "a@1".to_owned())]);
    }

    #[test]
    fn the_strictest_policy_wins_and_none_is_stricter_than_itself() {
        let of = |enforcement: &str| json!({"enforcement": enforcement});
        let (enforce, warn) = (Enforcement::Enforce, Enforcement::Warn);
        assert_eq!(strictness(&[("a", of("warn")), ("b", of("enforce"))], "floating-tag"), (enforce, "b".into()));
        assert_eq!(strictness(&[("a", of("enforce")), ("b", of("enforce"))], "floating-tag"), (enforce, "a".into()));
        let strict = json!({"enforcement": "warn", "rules": {"floating-tag": {"enforcement": "enforce"}}});
        assert_eq!(strictness(&[("a", strict)], "floating-tag"), (warn, "a".into()));
        let mild = json!({"rules": {"floating-tag": {"enforcement": "off"}, "privileged-container": {}}});
        assert_eq!(strictness(&[("a", mild.clone())], "floating-tag").0, Enforcement::Off);
        assert_eq!(strictness(&[("a", mild)], "privileged-container").0, enforce);
    }

    #[test]
    fn a_rule_is_as_strict_as_it_is_by_itself_where_no_policy_says() {
        let id = "replicas-under-autoscaler";
        assert_eq!(strictness(&[("a", json!({}))], id).0, Enforcement::Warn);
        let strict = json!({"rules": {id: {"enforcement": "enforce"}}});
        assert_eq!(strictness(&[("a", strict)], id).0, Enforcement::Enforce);
    }

    #[test]
    fn the_bounds_of_every_policy_hold_even_of_one_in_audit() {
        let bound =
            |enforcement: &str| json!({"enforcement": enforcement, "resources": {"bounds": {"cpu": {"max": "1"}}}});
        let of = |resource: &str| {
            ask(&[("a", bound("audit")), ("b", bound("enforce"))], |effective| {
                effective.bounds(resource).map(|(_, policy)| policy.to_owned()).collect::<Vec<_>>()
            })
        };
        assert_eq!((of("cpu"), of("memory")), (vec!["a".to_owned(), "b".to_owned()], vec![]));
    }

    #[test]
    fn replicas_are_preserved_unless_a_policy_says_otherwise() {
        let lets_go = |spec: Value| ask(&[("a", spec)], |effective| !effective.preserves_replicas());
        assert!(!lets_go(json!({})) && !lets_go(json!({"autoscaling": {}})));
        assert!(lets_go(json!({"autoscaling": {"preserveReplicas": false}})));
    }
}
