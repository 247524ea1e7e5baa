//! The merged policies of a workload.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::merge::{Conflict, Layer, Merged};
use super::settings::{Class, Defaults, PodSettings, ProbeSettings, Settings};
use super::{ExceptionLimits, Parsed, Policy, PolicyRef, Rule, Variant};
use crate::api::{Bound, Enforcement};
use crate::runtimes::Runtimes;

/// A policy and the variant of it that applies.
#[derive(Clone, Debug)]
pub struct Selected {
    /// Its name and generation.
    pub policy: PolicyRef,
    /// The environment whose settings overlay it, or `None` if it does not list the workload's environment.
    pub environment: Option<String>,
    /// Its enforcement in that environment.
    pub enforcement: Enforcement,
}

/// A rule with the enforcement and parameters that the policies set.
#[derive(Clone)]
pub struct ActiveRule {
    /// The rule.
    pub rule: Arc<dyn Rule>,
    /// Its enforcement.
    pub enforcement: Enforcement,
    /// The policy with the strictest enforcement of it.
    pub policy: Arc<str>,
}

/// The merged policies of one workload. A setting comes from the policy with the highest priority that has it, then
/// from the first by name. The rules of all policies apply, with the strictest enforcement.
pub struct Effective {
    selected: Vec<Selected>,
    merged: Merged,
    settings: Settings,
    contradictions: Vec<String>,
    bounds: Vec<(Arc<str>, BTreeMap<String, Bound>)>,
    rules: Vec<ActiveRule>,
    exceptions: ExceptionLimits,
    /// `None` if there are only the built-in runtimes.
    runtimes: Option<Runtimes>,
    has_custom_rules: bool,
}

impl Effective {
    /// Merges policies, given in order of precedence, each with its variant for the environment.
    pub(super) fn merge(policies: &[(&Policy, &Variant)]) -> Self {
        let layers = policies.iter().filter(|(_, variant)| variant.enforcement >= Enforcement::Warn);
        let merged = Merged::of(layers.map(|(policy, variant)| Layer {
            policy: &policy.reference,
            priority: policy.priority,
            settings: &variant.settings,
        }));
        let sections = policies.first().map_or(&[][..], |(policy, _)| policy.builtin.sections);
        let (settings, problems) = Settings::read(&merged, sections);
        let problems = problems.iter().map(|problem| format!("the combined policies are invalid: {problem}"));
        let mut effective = Self {
            selected: policies.iter().map(|(policy, variant)| selected(policy, variant)).collect(),
            contradictions: problems.collect(),
            merged,
            settings,
            bounds: policies
                .iter()
                .map(|(policy, variant)| (Arc::clone(&policy.reference.name), variant.bounds.clone()))
                .collect(),
            rules: active(policies),
            exceptions: limits(policies),
            runtimes: runtimes(policies),
            has_custom_rules: policies.iter().any(|(_, variant)| !variant.custom.is_empty()),
        };
        let out_of_bounds = effective.defaults_out_of_bounds();
        effective.contradictions.extend(out_of_bounds);
        effective
    }

    /// Returns a message for each default outside a bound: workloads without their own value would be refused for the
    /// injected one.
    fn defaults_out_of_bounds(&self) -> Vec<String> {
        let refuses = |policy: &str| {
            let refusing = self.rules.iter().filter(|active| active.enforcement == Enforcement::Enforce);
            refusing.into_iter().any(|active| active.rule.id() == OUT_OF_BOUNDS && *active.policy == *policy)
        };
        let defaults = self.container_defaults().flat_map(|(class, defaults)| {
            defaults.by_resource.iter().flat_map(move |(resource, pair)| {
                let (request, limit) = (pair.request.as_ref(), pair.limit.as_ref());
                let given = [("request", request), ("limit", limit)];
                given.into_iter().filter_map(move |(of, given)| Some((class, resource, of, given?)))
            })
        });
        let messages = defaults.flat_map(|(class, resource, of, (default, from))| {
            let violated = self.bounds(resource).filter(|(bound, policy)| !bound.allows(default) && refuses(policy));
            violated.map(move |(_, of_policy)| {
                format!(
                    "the default {resource} {of} {default} for class {}, set by policy {}, is outside the bounds set \
                     by policy {of_policy}: workloads without their own value would be refused",
                    class.name(),
                    from.name
                )
            })
        });
        messages.collect()
    }

    /// Returns the policies.
    #[must_use]
    pub fn selected(&self) -> &[Selected] {
        &self.selected
    }

    /// Returns the policies' names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.selected.iter().map(|selected| selected.policy.name.to_string()).collect()
    }

    /// Returns all settings with their sources.
    #[must_use]
    pub fn merged(&self) -> &Merged {
        &self.merged
    }

    /// Returns the settings on which policies of the same priority disagree.
    #[must_use]
    pub fn conflicts(&self) -> &[Conflict] {
        self.merged.conflicts()
    }

    /// Returns a message for each invalid combination of settings.
    #[must_use]
    pub fn contradictions(&self) -> &[String] {
        &self.contradictions
    }

    /// Returns the messages of all conflicts and contradictions.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.conflicts().iter().map(Conflict::to_string).chain(self.contradictions.iter().cloned()).collect()
    }

    /// Returns whether anything is injected. A policy in `audit` changes nothing.
    #[must_use]
    pub fn injects(&self) -> bool {
        self.selected.iter().any(|selected| selected.enforcement >= Enforcement::Warn)
    }

    /// Returns the resources of each class.
    pub fn container_defaults(&self) -> impl Iterator<Item = (Class, &Defaults)> {
        self.settings.resources.iter().map(|(class, defaults)| (*class, defaults))
    }

    /// Returns how probes are injected, with the policy that sets this.
    #[must_use]
    pub fn probes(&self) -> Option<(&ProbeSettings, &PolicyRef)> {
        self.settings.probes.as_ref().map(|(settings, policy)| (settings, policy))
    }

    /// Returns what else is injected into pods, with the policy that sets this.
    #[must_use]
    pub fn pod(&self) -> Option<(&PodSettings, &PolicyRef)> {
        self.settings.pod.as_ref().map(|(settings, policy)| (settings, policy))
    }

    /// Returns the runtimes that can be recognised.
    #[must_use]
    pub fn runtimes(&self) -> &Runtimes {
        self.runtimes.as_ref().unwrap_or_else(|| Runtimes::shipped())
    }

    /// Returns a parsed section of the policies, or `None` if no policy has it.
    #[must_use]
    pub fn section<T: Any>(&self) -> Option<&T> {
        self.settings.sections.iter().find_map(Parsed::get)
    }

    /// Returns the bounds of a resource, with the names of the policies that set them.
    pub fn bounds<'s>(&'s self, resource: &'s str) -> impl Iterator<Item = (&'s Bound, &'s str)> + 's {
        self.bounds.iter().filter_map(move |(policy, bounds)| Some((bounds.get(resource)?, &**policy)))
    }

    /// Returns every bound with its policy and resource.
    pub fn all_bounds(&self) -> impl Iterator<Item = (&str, &str, &Bound)> {
        self.bounds.iter().flat_map(|(policy, bounds)| {
            bounds.iter().map(move |(resource, bound)| (&**policy, resource.as_str(), bound))
        })
    }

    /// Returns the limits on exceptions: those of all policies combined.
    #[must_use]
    pub fn exceptions(&self) -> &ExceptionLimits {
        &self.exceptions
    }

    /// Returns whether custom rules apply. Evaluating them may take long.
    #[must_use]
    pub fn has_custom_rules(&self) -> bool {
        self.has_custom_rules
    }

    /// Returns the rules that apply.
    #[must_use]
    pub fn rules(&self) -> &[ActiveRule] {
        &self.rules
    }
}

/// The rule that enforces the bounds.
const OUT_OF_BOUNDS: &str = "resources-out-of-bounds";

fn limits(policies: &[(&Policy, &Variant)]) -> ExceptionLimits {
    let each = || policies.iter().map(|(policy, _)| &policy.exceptions);
    ExceptionLimits {
        never: each().flat_map(|limits| limits.never.clone()).collect(),
        longest: each().filter_map(|limits| limits.longest).min(),
    }
}

fn selected(policy: &Policy, variant: &Variant) -> Selected {
    Selected {
        policy: policy.reference.clone(),
        environment: variant.environment.clone(),
        enforcement: variant.enforcement,
    }
}

/// Returns the rules that apply. Each built-in rule appears once, with the strictest enforcement, and once more for
/// each policy that sets parameters, with the enforcement of that policy. The custom rules follow.
fn active(policies: &[(&Policy, &Variant)]) -> Vec<ActiveRule> {
    let mut active = Vec::new();
    let builtin = policies.first().map_or(&[][..], |(policy, _)| policy.builtin.rules);
    for rule in builtin {
        let of = |(policy, variant): &(&Policy, &Variant)| {
            (variant.enforcement_of(*rule), Arc::clone(&policy.reference.name))
        };
        // The first of several equal ones, so that the result does not depend on how many agree.
        let plainly = policies.iter().filter(|(_, variant)| !variant.configured.contains_key(rule.id()));
        let strictest = plainly.map(of).reduce(|best, next| if next.0 > best.0 { next } else { best });
        let plain = strictest.map(|(enforcement, policy)| ActiveRule { rule: Arc::new(*rule), enforcement, policy });
        let configured = policies.iter().filter_map(|(policy, variant)| {
            let (enforcement, policy) = of(&(policy, variant));
            Some(ActiveRule { rule: Arc::clone(variant.configured.get(rule.id())?), enforcement, policy })
        });
        active.extend(configured.chain(plain));
    }
    let custom = policies.iter().flat_map(|(policy, variant)| {
        variant.custom.iter().map(|rule| ActiveRule {
            rule: Arc::clone(rule),
            enforcement: variant.enforcement_of(&**rule),
            policy: Arc::clone(&policy.reference.name),
        })
    });
    active.extend(custom);
    active.retain(|active| active.enforcement > Enforcement::Off);
    active
}
/// Returns the runtimes of the policies, followed by the built-in ones.
fn runtimes(policies: &[(&Policy, &Variant)]) -> Option<Runtimes> {
    let own: Vec<_> = policies.iter().flat_map(|(policy, _)| policy.runtimes.iter().cloned()).collect();
    (!own.is_empty()).then(|| Runtimes::with(own))
}
