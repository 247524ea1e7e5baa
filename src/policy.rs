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
