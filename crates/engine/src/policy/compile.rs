//! Compiles a `ServingPolicy` into a [`Policy`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::jiff::SignedDuration;
use kube::core::{ParseExpressionError, Selector};
use serde::Serialize;
use serde_json::Value;

use super::merge::Layer;
use super::settings::Settings;
use super::{
    Builtin, CustomRule, ExceptionLimits, Merged, Policy, PolicyRef, Rule, Selection, SettingsError, Variant, schema,
};
use crate::api::{
    Bound, ContainerDefaults, Environment, LabelSelector, Resources, ServingPolicy, ServingPolicySpec, WorkloadKind,
};
use crate::cel::Budget;
use crate::kind::NAMES;
use crate::quantity::Quantity;

/// Why a policy is invalid.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It has no name.
    #[error("the policy has no metadata.name")]
    Unnamed,
    /// The spec violates a validation rule of the schema.
    #[error("spec.{field}: {message}")]
    Schema {
        /// The field.
        field: String,
        /// The message of the validation rule.
        message: String,
    },
    /// A resource or label has an invalid name.
    #[error(
        "{field}: invalid name `{name}`: must be at most 63 letters, digits, `-`, `_` and `.`, with an optional DNS \
         prefix and `/`"
    )]
    Name {
        /// The field.
        field: &'static str,
        /// What was written.
        name: String,
    },
    /// A quantity is negative.
    #[error("spec.resources.{field}: {resource} must not be negative, found {quantity}")]
    Negative {
        /// Where.
        field: String,
        /// The resource.
        resource: String,
        /// What was written.
        quantity: String,
    },
    /// A selector is invalid.
    #[error("spec.match.{field}: invalid label selector")]
    Selector {
        /// The field.
        field: &'static str,
        /// The problem.
        source: ParseExpressionError,
    },
    /// A default request is above the default limit.
    #[error("spec.resources.{class}: the default {resource} request {request} is above the default limit {limit}")]
    RequestAboveLimit {
        /// `cpu` or `gpu`.
        class: &'static str,
        /// The resource.
        resource: String,
        /// The default request.
        request: String,
        /// The default limit.
        limit: String,
    },
    /// The bounds allow no value.
    #[error("spec.resources.bounds: the {resource} min {min} is above its max {max}")]
    EmptyBound {
        /// The resource.
        resource: String,
        /// The minimum.
        min: String,
        /// The maximum.
        max: String,
    },
    /// A default is outside the bounds of its own policy, so every workload without the field would be refused.
    #[error("spec.resources.{class}.{of}: the default {resource} {default} is outside the policy's own bounds")]
    DefaultOutOfBounds {
        /// `cpu` or `gpu`.
        class: &'static str,
        /// `requests` or `limits`.
        of: &'static str,
        /// The resource.
        resource: String,
        /// The default.
        default: String,
    },
    /// The settings for injection or companions are invalid.
    #[error("spec.{0}")]
    Settings(SettingsError),
    /// The settings of an environment are invalid.
    #[error("environment {environment}")]
    Environment {
        /// Its name.
        environment: String,
        /// Why.
        source: Box<PolicyError>,
    },
    /// A rule does not exist.
    #[error("spec.rules.{0}: unknown rule; `tidegate explain` lists the rules")]
    UnknownRule(String),
    /// The parameters of a rule are invalid.
    #[error("spec.rules.{rule}.params: {problem}")]
    Parameters {
        /// The rule.
        rule: String,
        /// The problem.
        problem: String,
    },
    /// A custom rule is invalid.
    #[error("spec.customRules[{index}] ({rule}): {problem}")]
    CustomRule {
        /// Which.
        index: usize,
        /// Its id.
        rule: String,
        /// The problem.
        problem: String,
    },
    /// A rule in `exceptions.never` does not exist.
    #[error("spec.exceptions.never: unknown rule `{0}`; `tidegate explain` lists the rules")]
    UnknownNever(String),
}

impl Policy {
    /// Compiles a policy.
    ///
    /// # Errors
    /// Returns an error with the invalid field and the reason.
    pub fn compile(policy: &ServingPolicy, builtin: &'static Builtin) -> Result<Self, PolicyError> {
        let spec = &policy.spec;
        let name = policy.metadata.name.as_deref().ok_or(PolicyError::Unnamed)?;
        schema::check(&json(spec))?;
        let budget = Budget::default();
        let mut variants = vec![Variant::compile(name, None, spec, builtin, &budget)?];
        for (environment, overlay) in &spec.environments {
            let failed =
                |source| PolicyError::Environment { environment: environment.clone(), source: Box::new(source) };
            let whole = overlaid(spec, overlay);
            variants.push(Variant::compile(name, Some(environment), &whole, builtin, &budget).map_err(failed)?);
        }
        Ok(Self {
            reference: PolicyRef { name: name.into(), generation: policy.metadata.generation.unwrap_or(1) },
            builtin,
            priority: spec.priority,
            selection: Selection::compile(spec)?,
            exceptions: exception_limits(name, spec, builtin)?,
            runtimes: spec.runtimes.iter().cloned().map(Arc::new).collect(),
            environment_label: spec
                .environment
                .as_ref()
                .map_or_else(|| "environment".into(), |source| source.namespace_label.clone()),
            variants,
        })
    }
}

impl Selection {
    /// Compiles the selectors of a policy.
    pub(super) fn compile(spec: &ServingPolicySpec) -> Result<Self, PolicyError> {
        let chosen = spec.match_.clone().unwrap_or_default();
        Ok(Self {
            selector: selector("selector", chosen.selector)?,
            namespaces: selector("namespaceSelector", chosen.namespace_selector)?,
            kinds: kinds(&chosen.kinds),
        })
    }
}

/// Returns the kinds that a policy applies to; all supported kinds if it lists none.
fn kinds(written: &[WorkloadKind]) -> BTreeSet<String> {
    if written.is_empty() {
        return NAMES.map(str::to_owned).into();
    }
    written.iter().map(|WorkloadKind(kind)| kind.kind.to_owned()).collect()
}

fn exception_limits(policy: &str, spec: &ServingPolicySpec, builtin: &Builtin) -> Result<ExceptionLimits, PolicyError> {
    let Some(written) = &spec.exceptions else { return Ok(ExceptionLimits::default()) };
    let is_known = |id: &String| builtin.rule(id).is_some() || spec.custom_rules.iter().any(|custom| custom.id == *id);
    if let Some(unknown) = written.never.iter().find(|id| !is_known(id)) {
        return Err(PolicyError::UnknownNever(unknown.clone()));
    }
    let longest = written.max_duration.map(|longest| SignedDuration::try_from(Duration::from(longest)));
    Ok(ExceptionLimits {
        never: written.never.iter().map(|id| (id.clone(), policy.to_owned())).collect(),
        // A duration longer than a signed one can hold is not a limit.
        longest: longest.and_then(Result::ok),
    })
}

/// Overlays the settings of an environment on a policy.
fn overlaid(spec: &ServingPolicySpec, overlay: &Environment) -> ServingPolicySpec {
    let mut whole = json(&ServingPolicySpec { environments: BTreeMap::new(), ..spec.clone() });
    json_patch::merge(&mut whole, &json(overlay));
    serde_json::from_value(whole).expect("both have the same fields")
}

fn json(written: &impl Serialize) -> Value {
    serde_json::to_value(written).expect("a policy is plain data")
}

impl Variant {
    fn compile(
        policy: &str,
        environment: Option<&str>,
        spec: &ServingPolicySpec,
        builtin: &Builtin,
        budget: &Budget,
    ) -> Result<Self, PolicyError> {
        let resources = spec.resources.clone().unwrap_or_default();
        check_resources(&resources)?;
        builtin.sections.iter().try_for_each(|section| section.check(spec)).map_err(PolicyError::Settings)?;
        let defaults = Resources { bounds: BTreeMap::new(), ..resources.clone() };
        let settings = json(&Environment {
            resources: spec.resources.is_some().then_some(defaults),
            probes: spec.probes.clone(),
            pod: spec.pod.clone(),
            autoscaling: spec.autoscaling.clone(),
            disruption_budget: spec.disruption_budget.clone(),
            database: spec.database.clone(),
            ..Environment::default()
        });
        check_settings(&settings, builtin)?;
        Ok(Self {
            environment: environment.map(str::to_owned),
            enforcement: spec.enforcement,
            settings,
            configured: configured(policy, spec, builtin)?,
            bounds: resources.bounds,
            rules: spec.rules.iter().filter_map(|(id, settings)| Some((id.clone(), settings.enforcement?))).collect(),
            custom: custom(spec, builtin, budget)?,
        })
    }
}

/// Checks that the settings of a policy are valid on their own.
fn check_settings(settings: &Value, builtin: &Builtin) -> Result<(), PolicyError> {
    let policy = PolicyRef { name: "".into(), generation: 0 };
    let (_, problems) =
        Settings::read(&Merged::of([Layer { policy: &policy, priority: 0, settings }]), builtin.sections);
    problems.into_iter().next().map_or(Ok(()), |problem| Err(PolicyError::Settings(problem)))
}

fn selector(field: &'static str, written: Option<LabelSelector>) -> Result<Selector, PolicyError> {
    let written = written.unwrap_or_default();
    let keys = written.match_expressions.iter().map(|requirement| &requirement.key);
    written.match_labels.keys().chain(keys).try_for_each(|key| check_name("spec.match", key))?;
    label_selector(written).map_err(|source| PolicyError::Selector { field, source })
}

/// Compiles a label selector.
pub(super) fn label_selector(written: LabelSelector) -> Result<Selector, ParseExpressionError> {
    let expressions = written.match_expressions.into_iter().map(|requirement| meta::LabelSelectorRequirement {
        key: requirement.key,
        operator: requirement.operator,
        values: (!requirement.values.is_empty()).then_some(requirement.values),
    });
    let selector = meta::LabelSelector {
        match_labels: Some(written.match_labels),
        match_expressions: Some(expressions.collect()),
    };
    selector.try_into()
}

fn check_resources(resources: &Resources) -> Result<(), PolicyError> {
    for (resource, bound) in &resources.bounds {
        check_name("spec.resources.bounds", resource)?;
        if let Bound { min: Some(min), max: Some(max) } = bound
            && min > max
        {
            return Err(PolicyError::EmptyBound {
                resource: resource.clone(),
                min: min.to_string(),
                max: max.to_string(),
            });
        }
    }
    for (class, defaults) in [("cpu", &resources.cpu), ("gpu", &resources.gpu)] {
        defaults.as_ref().map_or(Ok(()), |defaults| check_defaults(class, defaults, &resources.bounds))?;
    }
    Ok(())
}

fn check_defaults(
    class: &'static str,
    written: &ContainerDefaults,
    bounds: &BTreeMap<String, Bound>,
) -> Result<(), PolicyError> {
    for (of, quantities) in [("requests", &written.requests), ("limits", &written.limits)] {
        for (resource, default) in quantities {
            check_name("spec.resources", resource)?;
            if default.is_negative() {
                let (resource, quantity) = (resource.clone(), default.to_string());
                return Err(PolicyError::Negative { field: format!("{class}.{of}"), resource, quantity });
            }
            if !bounds.get(resource).is_none_or(|bound| bound.allows(default)) {
                let (resource, default) = (resource.clone(), default.to_string());
                return Err(PolicyError::DefaultOutOfBounds { class, of, resource, default });
            }
        }
    }
    for (resource, request) in &written.requests {
        if let Some(limit) = written.limits.get(resource).filter(|limit| request > *limit) {
            let (resource, request, limit) = (resource.clone(), request.to_string(), limit.to_string());
            return Err(PolicyError::RequestAboveLimit { class, resource, request, limit });
        }
    }
    Ok(())
}

/// Checks the name of a resource or label.
///
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set>
fn check_name(field: &'static str, name: &str) -> Result<(), PolicyError> {
    let is_part = |part: &str, length: usize| {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let ends = part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.ends_with(|c: char| c.is_ascii_alphanumeric());
        ends && part.len() <= length && part.chars().all(inner)
    };
    let is_name = match name.split_once('/') {
        Some((prefix, name)) => is_part(prefix, 253) && is_part(name, 63),
        None => is_part(name, 63),
    };
    is_name.then_some(()).ok_or_else(|| PolicyError::Name { field, name: name.to_owned() })
}

impl Bound {
    /// Returns whether a quantity is within the bound.
    #[must_use]
    pub fn allows(&self, quantity: &Quantity) -> bool {
        self.min.as_ref().is_none_or(|min| quantity >= min) && self.max.as_ref().is_none_or(|max| quantity <= max)
    }
}

/// Compiles the custom rules within a budget that all environments share.
fn custom(spec: &ServingPolicySpec, builtin: &Builtin, budget: &Budget) -> Result<Vec<Arc<dyn Rule>>, PolicyError> {
    let mut rules: Vec<Arc<dyn Rule>> = Vec::new();
    for (index, written) in spec.custom_rules.iter().enumerate() {
        let failed = |problem: String| PolicyError::CustomRule { index, rule: written.id.clone(), problem };
        if rules.iter().any(|known| known.id() == written.id) {
            return Err(failed("another custom rule has the same id".to_owned()));
        }
        let mut written = written.clone();
        let params = spec.rules.get(&written.id).and_then(|settings| settings.params.clone());
        written.params = params.or(written.params);
        let compiled = CustomRule::compile(&written, builtin, budget);
        rules.push(Arc::new(compiled.map_err(|problem| failed(problem.to_string()))?));
    }
    Ok(rules)
}

/// Returns the built-in rules that the policy sets parameters for.
fn configured(
    policy: &str,
    spec: &ServingPolicySpec,
    builtin: &Builtin,
) -> Result<BTreeMap<String, Arc<dyn Rule>>, PolicyError> {
    let mut configured = BTreeMap::new();
    for rule in builtin.rules {
        configured.extend(rule.for_policy(policy, spec).map(|configured| (rule.id().to_owned(), configured)));
    }
    for (id, settings) in &spec.rules {
        if spec.custom_rules.iter().any(|custom| custom.id == *id) {
            continue;
        }
        let rule = builtin.rule(id).ok_or_else(|| PolicyError::UnknownRule(id.clone()))?;
        if let Some(params) = &settings.params {
            let with =
                rule.with_params(params).map_err(|problem| PolicyError::Parameters { rule: id.clone(), problem })?;
            configured.insert(id.clone(), with);
        }
    }
    Ok(configured)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::BUILTIN;
    use crate::testing::{chain, policy};

    /// Returns the error for an invalid policy.
    fn error(spec: &Value) -> String {
        let error = Policy::compile(&policy("serving", spec), &BUILTIN).expect_err("this policy is invalid");
        chain(&error)
    }

    fn zalando(secret_name: &str) -> Value {
        json!({"teamId": "acid", "version": "17", "volume": {"size": "1Gi"}, "secretName": secret_name})
    }

    #[test]
    fn errors_name_the_field_and_the_problem() {
        let resources = |resources: Value| json!({"resources": resources});
        let metric = |metric: Value| json!({"autoscaling": {"metrics": [metric]}});
        let keda = |keda: Value| json!({"autoscaling": {"engine": "keda", "keda": keda}});
        let expression = |operator: &str, values: Value| json!({"matchExpressions": [{"key": "team", "operator": operator, "values": values}]});
        let specs = [
            json!({"match": {"selector": expression("Near", json!([]))}}),
            json!({"match": {"namespaceSelector": expression("In", json!([]))}}),
            resources(json!({"cpu": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1G"}}})),
            resources(json!({"bounds": {"cpu": {"min": "2", "max": "1500m"}}})),
            resources(json!({"gpu": {"limits": {"cpu": "17"}}, "bounds": {"cpu": {"max": "16"}}})),
            resources(json!({"cpu": {"requests": {"cpu": "1m"}}, "bounds": {"cpu": {"min": "10m"}}})),
            json!({"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}),
            json!({"autoscaling": {"minReplicas": 0}}),
            json!({"autoscaling": {"minReplicas": -1}}),
            json!({"autoscaling": {"behavior": {"scaleUp": {"stabilizationWindowSeconds": 4000}}}}),
            metric(json!({"type": "Resource", "resource": {"name": "cpu"}})),
            keda(json!({})),
            keda(json!({"serverAddress": "prometheus:9090"})),
            json!({"autoscaling": {"engine": "keda", "minReplicas": 0, "keda": {"serverAddress": "http://prometheus:9090"}}}),
            json!({"disruptionBudget": {"maxUnavailable": 0}}),
            resources(json!({"cpu": {"requests": {"cpu": "-1"}}})),
            resources(json!({"cpu": {"requests": {"my cpu": "1"}}})),
            resources(json!({"bounds": {"/cpu": {"max": "1"}}})),
            json!({"match": {"selector": {"matchLabels": {"a b": "c"}}}}),
            json!({"probes": {"startupBudget": "1s"}}),
            json!({"database": {"provider": "zalando"}}),
            json!({"database": {"provider": "zalando", "zalando": zalando("{cluster}")}}),
            json!({"rules": {"no-latest": {}}}),
            json!({"rules": {"privileged-container": {"params": {"a": 1}}}}),
            json!({"rules": {"floating-tag": {"params": {"tag": "stable"}}}}),
            json!({"exceptions": {"never": ["no-latest"]}}),
            json!({"environments": {"prod": {"autoscaling": {"minReplicas": 20}}}}),
        ];
        insta::assert_snapshot!(specs.iter().map(error).collect::<Vec<_>>().join("\n"), @"
        spec.match.selector.matchExpressions[0]: operator must be one of In, NotIn, Exists, DoesNotExist
        spec.match.namespaceSelector: invalid label selector: failed to parse value as expression: Expected values for In operator, got none
        spec.resources.cpu: the default memory request 2Gi is above the default limit 1G
        spec.resources.bounds: the cpu min 2 is above its max 1500m
        spec.resources.gpu.limits: the default cpu 17 is outside the policy's own bounds
        spec.resources.cpu.requests: the default cpu 1m is outside the policy's own bounds
        spec.autoscaling: minReplicas must not be above maxReplicas
        spec.autoscaling: minReplicas 0 needs a metric that exists without pods (type Object or External), or engine keda
        spec.autoscaling.minReplicas: minReplicas must be at least 0
        spec.autoscaling.behavior.scaleUp.stabilizationWindowSeconds: must be a number between 0 and 3600
        spec.autoscaling.metrics[0].resource: `target.type` is missing
        spec.autoscaling.keda: engine keda needs serverAddress, the URL of Prometheus
        spec.autoscaling.keda.serverAddress: serverAddress must begin with http:// or https://
        spec.autoscaling.keda: minReplicas 0 needs a query for requests that wait in front of the pods, at a gateway or an ingress: a server without pods has no queue of its own
        spec.disruptionBudget.maxUnavailable: maxUnavailable must be at least 1: zero keeps nodes from being drained
        spec.resources.cpu.requests: cpu must not be negative, found -1
        spec.resources: invalid name `my cpu`: must be at most 63 letters, digits, `-`, `_` and `.`, with an optional DNS prefix and `/`
        spec.resources.bounds: invalid name `/cpu`: must be at most 63 letters, digits, `-`, `_` and `.`, with an optional DNS prefix and `/`
        spec.match: invalid name `a b`: must be at most 63 letters, digits, `-`, `_` and `.`, with an optional DNS prefix and `/`
        spec.probes.startupBudget: startupBudget must be between 10s and 24h
        spec.database.zalando: missing field `teamId`; provider zalando needs teamId, version and volume
        spec.database.zalando.secretName: secretName must have both {username} and {cluster}
        spec.rules.no-latest: unknown rule; `tidegate explain` lists the rules
        spec.rules.privileged-container.params: the rule takes no parameters; found a
        spec.rules.floating-tag.params: unknown field `tag`, expected `tags`
        spec.exceptions.never: unknown rule `no-latest`; `tidegate explain` lists the rules
        environment prod: spec.autoscaling: minReplicas 20 and maxReplicas 10: must be 0 <= minReplicas <= maxReplicas
        ");
    }

    #[test]
    fn rejects_a_policy_without_a_name() {
        let mut policy = policy("", &json!({}));
        policy.metadata.name = None;
        assert_eq!(Policy::compile(&policy, &BUILTIN).unwrap_err().to_string(), "the policy has no metadata.name");
    }

    #[test]
    fn accepts_valid_edge_cases() {
        let specs = [
            json!({}),
            json!({"resources": {"cpu": {"requests": {"cpu": "500m"}, "limits": {"cpu": "0.5"}}}}),
            json!({"resources": {"cpu": {"limits": {"cpu": "16"}}, "bounds": {"cpu": {"min": "16", "max": "16000m"}}}}),
            json!({"autoscaling": {"minReplicas": 2, "maxReplicas": 2}}),
            json!({"autoscaling": {"metrics": [{"type": "ContainerResource", "containerResource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]}}),
            json!({"database": {"provider": "none"}}),
            json!({"database": {"provider": "zalando", "zalando": zalando("{username}-{cluster}")}}),
            json!({"rules": {"floating-tag": {}}}),
        ];
        for spec in specs {
            Policy::compile(&policy("serving", &spec), &BUILTIN).unwrap_or_else(|error| panic!("{spec}: {error}"));
        }
    }

    #[test]
    fn bounds_are_inclusive() {
        let bound = |min: Option<&str>, max: Option<&str>| Bound {
            min: min.map(|min| min.parse().unwrap()),
            max: max.map(|max| max.parse().unwrap()),
        };
        let allows = |bound: &Bound, quantity: &str| bound.allows(&quantity.parse().unwrap());
        let both = bound(Some("1"), Some("2"));
        assert!(allows(&both, "1000m") && allows(&both, "2") && !allows(&both, "999m") && !allows(&both, "2001m"));
        assert!(allows(&bound(None, Some("2")), "0") && allows(&bound(Some("1"), None), "1Ei"));
        assert!(allows(&Bound::default(), "7"));
    }
}
