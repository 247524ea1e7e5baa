//! Compiled policies: selectors ready to match, quantities parsed, settings validated.

mod builtin;
mod compile;
mod conflicts;
mod custom;
mod effective;
mod exception;
mod finding;
mod merge;
mod rule;
mod schema;
mod scope;
mod section;
mod settings;
mod shipped;

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use kube::core::{Selector, SelectorExt};
use serde_json::{Map, Value};

pub use builtin::Builtin;
pub use compile::PolicyError;
pub use conflicts::PolicyConflicts;
pub use custom::{Costs, CustomRule, CustomRuleError, Expressions};
pub use effective::{ActiveRule, Effective, Selected};
pub use exception::{Exception, ExceptionError, ExceptionLimits};
pub use finding::Finding;
pub use merge::{Conflict, Merged};
pub use rule::{Context, Membership, Rule};
pub use scope::{Labels, Scope, selector_of};
pub use section::{Parsed, Section, SettingsError, field};
pub use settings::{Class, Defaults, PodSettings, ProbeSettings, RequestAndLimit};
pub use shipped::{SHIPPED, shipped};

use crate::api::{Bound, Enforcement, Runtime, ServingPolicy};
use crate::facts::Facts;
use crate::workload::Workload;

/// The name and generation of the policy that set a value.
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

/// The workloads that a policy applies to.
#[derive(Clone, Debug)]
struct Selection {
    selector: Selector,
    namespaces: Selector,
    kinds: BTreeSet<String>,
}

impl Selection {
    fn is_for(
        &self,
        kind: &str,
        labels: &LazyCell<BTreeMap<String, String>, impl FnOnce() -> BTreeMap<String, String>>,
        namespace: Option<&BTreeMap<String, String>>,
    ) -> bool {
        self.kinds.contains(kind)
            && (self.selector.selects_all() || self.selector.matches(labels))
            && (self.namespaces.selects_all() || namespace.is_some_and(|labels| self.namespaces.matches(labels)))
    }
}

/// An invalid policy without a known valid version. Requests for its workloads get a warning.
#[derive(Clone, Debug)]
pub struct InvalidPolicy {
    name: String,
    why: String,
    /// `None` if the selection itself is invalid; the policy may then apply to any workload.
    selection: Option<Selection>,
    /// Whether the policy only records violations in every environment. Such a policy never warns, valid or not.
    is_silent: bool,
}

impl InvalidPolicy {
    /// Records an invalid policy and why it is invalid. `policy` is `None` if it cannot be read.
    #[must_use]
    pub fn new(name: &str, policy: Option<&ServingPolicy>, why: &str) -> Self {
        let selection = policy.and_then(|policy| Selection::compile(&policy.spec).ok());
        let is_silent = policy.is_some_and(|policy| {
            let environments = policy.spec.environments.values().filter_map(|environment| environment.enforcement);
            environments.chain([policy.spec.enforcement]).all(|enforcement| enforcement <= Enforcement::Audit)
        });
        Self { name: name.to_owned(), why: why.to_owned(), selection, is_silent }
    }
}

/// A compiled policy.
#[derive(Debug)]
pub struct Policy {
    reference: PolicyRef,
    builtin: &'static Builtin,
    priority: i32,
    selection: Selection,
    /// The namespace label that names the environment.
    environment_label: String,
    /// The limits on exceptions to the policy.
    exceptions: ExceptionLimits,
    /// The runtimes that it defines.
    runtimes: Vec<Arc<Runtime>>,
    /// The settings of the policy: first those for environments that it does not list, then one per listed environment,
    /// by name.
    variants: Vec<Variant>,
}

/// The settings of a policy in one environment.
#[derive(Debug)]
struct Variant {
    environment: Option<String>,
    enforcement: Enforcement,
    /// The settings for injection and companions, as written.
    settings: Value,
    bounds: BTreeMap<String, Bound>,
    rules: BTreeMap<String, Enforcement>,
    /// The built-in rules that the policy sets parameters for.
    configured: BTreeMap<String, Arc<dyn Rule>>,
    /// The custom rules of the policy.
    custom: Vec<Arc<dyn Rule>>,
}

impl Policy {
    /// Returns the policy's name and generation.
    #[must_use]
    pub fn reference(&self) -> &PolicyRef {
        &self.reference
    }

    /// Returns whether this policy forbids exceptions to a rule.
    #[must_use]
    pub fn never_excepts(&self, rule: &str) -> bool {
        self.exceptions.never.contains_key(rule)
    }

    /// Returns whether the policy has custom rules.
    #[must_use]
    pub fn has_custom_rules(&self) -> bool {
        self.variants.iter().any(|variant| !variant.custom.is_empty())
    }

    /// Returns whether a rule is a custom rule of the policy.
    #[must_use]
    pub fn has_rule(&self, id: &str) -> bool {
        self.variants.iter().any(|variant| variant.custom.iter().any(|rule| rule.id() == id))
    }

    /// Returns the lowest `maxReplicas` of the policy in any environment, or `None` if it has no `autoscaling`.
    #[must_use]
    pub fn least_max_replicas(&self) -> Option<i64> {
        let autoscaling = self.variants.iter().filter_map(|variant| variant.settings.get("autoscaling"));
        autoscaling.map(|written| written["maxReplicas"].as_i64().unwrap_or_default()).min()
    }

    /// Returns the namespace label that names the environment.
    #[must_use]
    pub fn environment_label(&self) -> &str {
        &self.environment_label
    }

    /// Returns the names of the environments that the policy lists.
    pub fn environments(&self) -> impl Iterator<Item = &str> {
        self.variants.iter().filter_map(|variant| variant.environment.as_deref())
    }

    /// Returns the index of the variant for a namespace with these labels.
    fn variant_for(&self, labels: Option<&BTreeMap<String, String>>) -> usize {
        self.variant_in(labels.and_then(|labels| labels.get(&self.environment_label)).map(String::as_str))
    }

    /// Returns the index of the variant for an environment; the first if the policy does not list it.
    fn variant_in(&self, environment: Option<&str>) -> usize {
        let place = |name| self.variants.iter().position(|variant| variant.environment.as_deref() == Some(name));
        environment.and_then(place).unwrap_or(0)
    }
}

impl Variant {
    /// Returns the enforcement of a rule: as the policy sets it or else the rule's default, but never stricter than the
    /// policy's own.
    fn enforcement_of(&self, rule: &dyn Rule) -> Enforcement {
        self.rules.get(rule.id()).copied().unwrap_or_else(|| rule.enforcement()).min(self.enforcement)
    }
}

/// All active policies, and the labels that select model servers.
pub struct PolicySet {
    scope: Scope,
    /// In the order of precedence: by priority, the highest first, then by name.
    policies: Vec<Arc<Policy>>,
    /// By namespace.
    exceptions: HashMap<String, Vec<Arc<Exception>>>,
    invalid: Vec<InvalidPolicy>,
    /// A cache of merged policies. There are far fewer combinations of policies than workloads.
    known: RwLock<HashMap<Vec<Choice>, Arc<Effective>>>,
}

/// The indexes of a policy and one of its variants.
type Choice = (usize, usize);

/// The maximum number of cached combinations of policies. It bounds memory whatever labels workloads have.
const MOST_KNOWN: usize = 1024;

impl PolicySet {
    /// Creates a set of policies for the workloads that `scope` selects.
    #[must_use]
    pub fn new(scope: Scope, mut policies: Vec<Arc<Policy>>) -> Self {
        policies.sort_by(|one, other| conflicts::order(one, other));
        Self { scope, policies, exceptions: HashMap::new(), invalid: Vec::new(), known: RwLock::default() }
    }

    /// Returns the set with its exceptions replaced by these.
    #[must_use]
    pub fn with_exceptions(mut self, exceptions: impl IntoIterator<Item = Arc<Exception>>) -> Self {
        self.exceptions.clear();
        for exception in exceptions {
            self.exceptions.entry(exception.namespace.clone()).or_default().push(exception);
        }
        // The result must not depend on the order in which they were created.
        self.exceptions.values_mut().for_each(|of_namespace| of_namespace.sort_by(|a, b| a.name.cmp(&b.name)));
        self
    }

    /// Returns the set with its invalid policies replaced by these.
    #[must_use]
    pub fn with_invalid(self, invalid: Vec<InvalidPolicy>) -> Self {
        Self { invalid, ..self }
    }

    /// Returns a message for each invalid policy that would apply to a workload.
    pub fn invalid_policies_for<'s>(
        &'s self,
        workload: &Workload,
        facts: &'s Facts,
    ) -> impl Iterator<Item = String> + 's {
        let (kind, labels) = (workload.kind().to_owned(), workload.labels().map(text_map).unwrap_or_default());
        let labels = LazyCell::new(move || labels);
        let namespace = facts.namespaces.get(workload.namespace()).map(|namespace| &namespace.labels);
        let is_for = move |selection: &Selection| selection.is_for(&kind, &labels, namespace);
        let invalid = self.invalid.iter().filter(|invalid| !invalid.is_silent);
        let invalid = invalid.filter(move |invalid| invalid.selection.as_ref().is_none_or(&is_for));
        invalid.map(|InvalidPolicy { name, why, .. }| format!("invalid policy {name:?} is not applied: {why}"))
    }

    /// Returns the exceptions that apply to a workload, including expired ones.
    pub fn exceptions_for(&self, workload: &Workload) -> impl Iterator<Item = &Exception> {
        let of_namespace = self.exceptions.get(workload.namespace()).map_or(&[][..], Vec::as_slice);
        of_namespace.iter().map(AsRef::as_ref).filter(|exception| exception.is_for(workload))
    }

    /// Returns a set in which this policy replaces the one with the same name. It has no exceptions.
    #[must_use]
    pub fn replacing(&self, policy: Policy) -> Self {
        let others = self.policies.iter().filter(|other| other.reference.name != policy.reference.name).cloned();
        let policies: Vec<Arc<Policy>> = others.collect();
        Self::new(self.scope.clone(), policies.into_iter().chain([Arc::new(policy)]).collect())
    }

    /// Returns the labels that make a workload a model server.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Returns the policies in order of precedence.
    #[must_use]
    pub fn policies(&self) -> &[Arc<Policy>] {
        &self.policies
    }

    /// Returns whether any policy has custom rules.
    #[must_use]
    pub fn has_custom_rules(&self) -> bool {
        self.policies.iter().any(|policy| policy.has_custom_rules())
    }

    /// Returns whether a workload is a model server, by its own labels or because its namespace marks all workloads as
    /// such.
    #[must_use]
    pub fn covers(&self, workload: &Workload, facts: &Facts) -> bool {
        self.scope.selecting(|key| workload.label(key)).is_some() || facts.is_for_model_servers(workload.namespace())
    }

    /// Returns the policies with these names, merged for an environment.
    ///
    /// # Errors
    /// Returns the name of a policy that does not exist.
    pub fn named<'n>(&self, names: &[&'n str], environment: Option<&str>) -> Result<Arc<Effective>, &'n str> {
        let place =
            |&name: &&'n str| self.policies.iter().position(|policy| *policy.reference.name == *name).ok_or(name);
        let mut places = names.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        places.sort_unstable();
        places.dedup();
        Ok(self.make(places.into_iter().map(|place| (place, self.policies[place].variant_in(environment))).collect()))
    }

    /// Returns the merged policies for a workload, or `None` if no policy applies.
    #[must_use]
    pub fn resolve(&self, workload: &Workload, facts: &Facts) -> Option<Arc<Effective>> {
        let choice = self.choice(workload, facts);
        if choice.is_empty() {
            return None;
        }
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&choice).cloned();
        Some(known.unwrap_or_else(|| self.make(choice)))
    }

    /// Returns the policies that apply to a workload, each with its variant for the namespace's environment.
    fn choice(&self, workload: &Workload, facts: &Facts) -> Vec<Choice> {
        // Few policies select by labels.
        let labels = LazyCell::new(|| workload.labels().map(text_map).unwrap_or_default());
        let namespace = facts.namespaces.get(workload.namespace()).map(|namespace| &namespace.labels);
        let chosen = self.policies.iter().enumerate().filter_map(|(place, policy)| {
            let is_for = policy.selection.is_for(workload.kind(), &labels, namespace);
            let variant = is_for.then(|| policy.variant_for(namespace))?;
            (policy.variants[variant].enforcement > Enforcement::Off).then_some((place, variant))
        });
        chosen.collect()
    }

    fn make(&self, choice: Vec<Choice>) -> Arc<Effective> {
        let policies: Vec<(&Policy, &Variant)> = choice
            .iter()
            .map(|&(place, variant)| (&*self.policies[place], &self.policies[place].variants[variant]))
            .collect();
        let effective = Arc::new(Effective::merge(&policies));
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(choice, Arc::clone(&effective));
        effective
    }
}

fn text_map(map: &Map<String, Value>) -> BTreeMap<String, String> {
    map.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use std::time::Duration;

    use super::*;
    use crate::BUILTIN;
    use crate::companions::autoscaler;
    use crate::facts::Namespace;
    use crate::testing::{LABEL, deployment, facts, policies};

    fn names(set: &PolicySet, facts: &Facts) -> Vec<String> {
        let object = deployment(&json!([]));
        let workload = Workload::view(&object).unwrap();
        set.resolve(&workload, facts).map(|effective| effective.names()).unwrap_or_default()
    }

    /// Calls a function with the merged policies for the Deployment `ml/api`.
    fn ask<T>(specs: &[(&str, Value)], ask: impl FnOnce(&Effective) -> T) -> T {
        let set = policies(specs);
        let object = deployment(&json!([]));
        let workload = Workload::view(&object).unwrap();
        ask(&set.resolve(&workload, &facts()).unwrap())
    }

    fn strictness(specs: &[(&str, Value)], id: &str) -> (Enforcement, String) {
        ask(specs, |effective| {
            let active = effective.rules().iter().find(|active| active.rule.id() == id);
            active.map_or((Enforcement::Off, String::new()), |active| (active.enforcement, active.policy.to_string()))
        })
    }

    #[test]
    fn sorts_policies_with_the_same_name() {
        let of_generation = |generation: i64| {
            let mut written = crate::testing::policy("serving", &json!({}));
            written.metadata.generation = Some(generation);
            Arc::new(Policy::compile(&written, &BUILTIN).unwrap())
        };
        // So many that the standard library does not use an insertion sort, which makes too few comparisons to detect
        // this.
        let generations: Vec<i64> = (0..64).map(|place| place * 37 % 64).collect();
        let set = PolicySet::new(Scope::default(), generations.into_iter().map(of_generation).collect());
        let found: Vec<i64> = set.policies().iter().map(|policy| policy.reference.generation).collect();
        assert_eq!(found, (0..64).collect::<Vec<i64>>());
    }

    #[test]
    fn recognizes_model_servers_by_label_and_value() {
        let set = policies(&[]);
        let mut object = deployment(&json!([]));
        assert!(set.covers(&Workload::view(&object).unwrap(), &facts()));
        object["metadata"]["labels"][LABEL] = "web".into();
        assert!(!set.covers(&Workload::view(&object).unwrap(), &facts()));
        let labels = [("tidegate.dev/model-servers".to_owned(), "all".to_owned())].into();
        let whole = Facts { namespaces: [("ml".into(), Namespace { labels, terminating: false })].into(), ..facts() };
        assert!(set.covers(&Workload::view(&object).unwrap(), &whole));
        object["metadata"]["labels"] = json!(null);
        assert!(!set.covers(&Workload::view(&object).unwrap(), &facts()));
    }

    #[test]
    fn applies_a_policy_without_a_selector_to_all_unless_it_is_off() {
        let set = policies(&[("a", json!({})), ("b", json!({"enforcement": "off"}))]);
        assert_eq!(names(&set, &facts()), ["a"]);
        assert_eq!(names(&policies(&[]), &facts()), [""; 0]);
    }

    #[test]
    fn requires_every_term_of_a_selector() {
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
    fn does_not_select_unknown_namespaces_by_missing_labels() {
        let expression = json!({"matchExpressions": [{"key": "stage", "operator": "DoesNotExist"}]});
        let set = policies(&[("a", json!({"match": {"namespaceSelector": expression}}))]);
        assert_eq!(names(&set, &facts()), ["a"]);
        assert_eq!(names(&set, &Facts::default()), [""; 0]);
        let labels = [("stage".to_owned(), "prod".to_owned())].into();
        let prod = Facts { namespaces: [("ml".into(), Namespace { labels, terminating: false })].into(), ..facts() };
        assert_eq!(names(&set, &prod), [""; 0]);
    }

    #[test]
    fn takes_a_setting_from_the_first_policy_by_name() {
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
    fn merges_defaults_per_class() {
        let defaults = |class: &str| json!({"resources": {class: {"requests": {"cpu": "1"}}}});
        let found = ask(&[("a", defaults("gpu")), ("b", defaults("cpu"))], |effective| {
            let of = |defaults: &Defaults| defaults.by_resource["cpu"].request.as_ref().unwrap().1.to_string();
            effective.container_defaults().map(|(class, defaults)| (class, of(defaults))).collect::<Vec<_>>()
        });
        assert_eq!(found, [(Class::Cpu, "b@1".to_owned()), (Class::Gpu, "a@1".to_owned())]);
    }

    #[test]
    fn does_not_apply_a_rule_that_is_off_everywhere() {
        let off = json!({"rules": {"floating-tag": {"enforcement": "off"}}});
        let applies = |specs: &[(&str, Value)]| {
            ask(specs, |effective| effective.rules().iter().any(|active| active.rule.id() == "floating-tag"))
        };
        assert!(!applies(&[("a", off.clone())]) && applies(&[("a", off), ("b", json!({}))]));
    }

    #[test]
    fn enforces_bounds_as_strictly_as_their_policy() {
        let bounds = json!({"resources": {"bounds": {"memory": {"max": "1Gi"}}}, "enforcement": "audit"});
        let rules: Vec<(String, Enforcement, String)> = ask(&[("a", json!({})), ("b", bounds)], |effective| {
            let found = effective.rules().iter().filter(|active| active.rule.id() == "resources-out-of-bounds");
            found.map(|active| (format!("{:?}", active.rule), active.enforcement, active.policy.to_string())).collect()
        });
        assert!(rules[0].0.contains("max: Some") && rules.len() == 2, "{rules:?}");
        assert_eq!((rules[0].1, &*rules[0].2), (Enforcement::Audit, "b"));
    }

    #[test]
    fn uses_the_strictest_policy_for_a_rule_but_never_above_its_enforcement() {
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
    fn uses_the_default_enforcement_of_a_rule() {
        let id = "replicas-under-autoscaler";
        assert_eq!(strictness(&[("a", json!({}))], id).0, Enforcement::Warn);
        let strict = json!({"rules": {id: {"enforcement": "enforce"}}});
        assert_eq!(strictness(&[("a", strict)], id).0, Enforcement::Enforce);
    }

    #[test]
    fn applies_the_bounds_of_every_policy_including_audit() {
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
    fn preserves_replicas_by_default() {
        let discards = |spec: Value| ask(&[("a", spec)], |effective| !autoscaler::preserves_replicas(effective));
        assert!(!discards(json!({})) && !discards(json!({"autoscaling": {}})));
        assert!(discards(json!({"autoscaling": {"preserveReplicas": false}})));
    }

    #[test]
    fn shares_replicas_by_default_where_they_are_preserved() {
        let shares = |spec: Value| ask(&[("a", spec)], autoscaler::shares_replicas);
        assert!(shares(json!({})) && shares(json!({"autoscaling": {}})));
        assert!(!shares(json!({"autoscaling": {"shareReplicas": false}})));
        assert!(!shares(json!({"autoscaling": {"preserveReplicas": false}})));
    }

    fn in_environment(specs: &[(&str, Value)], labels: &[(&str, &str)]) -> Vec<(i32, Enforcement)> {
        let set = policies(specs);
        let object = deployment(&json!([]));
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let namespaces = [("ml".into(), Namespace { labels, terminating: false })].into();
        let effective = set.resolve(&Workload::view(&object).unwrap(), &Facts { namespaces, ..facts() });
        let found = effective.map(|effective| {
            (autoscaler::settings(&effective).unwrap().min_replicas, effective.selected()[0].enforcement)
        });
        found.into_iter().collect()
    }

    #[test]
    fn overlays_an_environment_on_its_policy() {
        let prod = json!({"autoscaling": {"minReplicas": 3}});
        let dev = json!({"enforcement": "warn"});
        let spec = json!({"autoscaling": {"minReplicas": 2, "maxReplicas": 20}, "environments": {"prod": prod, "dev": dev,
            "off": {"enforcement": "off"}}});
        let of = |labels: &[(&str, &str)]| in_environment(&[("a", spec.clone())], labels);
        assert_eq!(of(&[("environment", "prod")]), [(3, Enforcement::Enforce)]);
        assert_eq!(of(&[("environment", "dev")]), [(2, Enforcement::Warn)]);
        assert_eq!(of(&[("environment", "elsewhere")]), [(2, Enforcement::Enforce)]);
        assert_eq!(of(&[("stage", "prod")]), [(2, Enforcement::Enforce)]);
        assert_eq!(of(&[("environment", "off")]), []);
        let mut by_stage = spec.clone();
        by_stage["environment"] = json!({"namespaceLabel": "stage"});
        assert_eq!(in_environment(&[("a", by_stage)], &[("stage", "prod")]), [(3, Enforcement::Enforce)]);
    }

    #[test]
    fn orders_by_priority_before_name() {
        let spec = |priority: i32, max: i32| json!({"priority": priority, "autoscaling": {"maxReplicas": max}});
        let max = |specs: &[(&str, Value)]| {
            ask(specs, |effective| (autoscaler::settings(effective).unwrap().max_replicas, effective.problems().len()))
        };
        assert_eq!(max(&[("a", spec(1, 10)), ("b", spec(2, 20))]), (20, 0));
        assert_eq!(max(&[("a", spec(2, 10)), ("b", spec(-1, 20))]), (10, 0));
        assert_eq!(max(&[("a", spec(1, 10)), ("b", spec(1, 20))]), (10, 1));
        assert_eq!(max(&[("a", spec(1, 10)), ("b", spec(1, 10))]), (10, 0));
    }

    #[test]
    fn omits_and_reports_settings_that_are_invalid_together() {
        let (least, most) =
            (json!({"autoscaling": {"minReplicas": 5}}), json!({"priority": 1, "autoscaling": {"maxReplicas": 2}}));
        let found = ask(&[("a", least), ("b", most)], |effective| {
            (autoscaler::settings(effective).cloned(), effective.problems())
        });
        let problem = "the combined policies are invalid: autoscaling: minReplicas 5 and maxReplicas 2: must be 0 <= \
                       minReplicas <= maxReplicas";
        assert_eq!(found, (None, vec![problem.to_owned()]));
    }

    #[test]
    fn caches_merged_policies() {
        let set = policies(&[("a", json!({})), ("b", json!({"match": {"selector": {"matchLabels": {"team": "x"}}}}))]);
        let (one, mut two) = (deployment(&json!([])), deployment(&json!([])));
        two["metadata"]["labels"]["team"] = "x".into();
        let of = |object: &Value| set.resolve(&Workload::view(object).unwrap(), &facts()).unwrap();
        assert!(Arc::ptr_eq(&of(&one), &of(&one)) && !Arc::ptr_eq(&of(&one), &of(&two)));
        assert_eq!((of(&one).names(), of(&two).names()), (vec!["a".to_owned()], vec!["a".to_owned(), "b".to_owned()]));
    }
}
