//! Tests of policies: compares expected with actual results.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::manifests::{Found, ManifestError, Manifests, evaluation};
use crate::report::plain;
use tidegate_engine::companions::{self, Wanted};
use tidegate_engine::decision::{Evaluation, Violation};
use tidegate_engine::kind;
use tidegate_engine::policy::Scope;
use tidegate_engine::quantity::fields::Fields;
use tidegate_engine::workload::{FieldPath, Workload};

/// A test file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// The policies: names of shipped ones, or files relative to the folder of this one.
    pub policies: Vec<String>,
    /// The tests.
    pub tests: Vec<PolicyTest>,
}

/// One test: objects, and the expected result for the one workload among them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyTest {
    /// A sentence that says what is tested.
    pub name: String,
    /// The objects, each inline or as a file relative to the folder of this one. One is a Deployment or StatefulSet;
    /// others are Namespaces, HorizontalPodAutoscalers, ServingExceptions and further ServingPolicies.
    pub resources: Vec<Value>,
    /// The workload before an update, inline or as a file. Default: none, the workload is created.
    #[serde(default)]
    pub old: Option<Value>,
    /// Further facts about the cluster.
    #[serde(default)]
    pub facts: Known,
    /// The expected result.
    pub expect: Expected,
}

/// Facts about the cluster, apart from the objects.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Known {
    /// Whether Zalando's postgres-operator is installed. Default: true.
    #[serde(default)]
    pub zalando: Option<bool>,
    /// Whether a metrics adapter serves custom and external metrics. Default: true.
    #[serde(default)]
    pub metrics_adapter: Option<bool>,
    /// Whether KEDA is installed. Default: true.
    #[serde(default)]
    pub keda: Option<bool>,
    /// Whether CloudNativePG is installed. Default: true.
    #[serde(default)]
    pub cloud_native_pg: Option<bool>,
    /// The time of the request, such as `2027-01-01T00:00:00Z`. Default: 1970.
    #[serde(default)]
    pub now: Option<Timestamp>,
}

/// The expected result for a workload. Fields that are not set are not compared, except for `refused`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expected {
    /// All rules that refuse the workload. Default: none, it is admitted.
    #[serde(default)]
    pub refused: BTreeSet<String>,
    /// All rules that give a warning.
    #[serde(default)]
    pub warned: Option<BTreeSet<String>>,
    /// All rules whose violation is only recorded.
    #[serde(default)]
    pub recorded: Option<BTreeSet<String>>,
    /// All rules that exceptions exempt the workload from.
    #[serde(default)]
    pub excused: Option<BTreeSet<String>>,
    /// Fields of the pod spec as it would be stored, by their path, with list items by name, such as
    /// `containers/server/resources/limits/memory`; null for an absent field.
    #[serde(default)]
    pub fields: BTreeMap<String, Value>,
    /// `spec.replicas` as it would be stored.
    #[serde(default)]
    pub replicas: Option<i64>,
    /// The companions to be created, `autoscaler`, `disruptionBudget` and `database`: part of the object, or `none`.
    #[serde(default)]
    pub companions: BTreeMap<CompanionName, Value>,
}

/// The name of a companion, as in policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CompanionName(&'static str);

impl<'de> Deserialize<'de> for CompanionName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let all = companions::ALL.map(companions::Companion::field);
        all.into_iter()
            .find(|known| *known == name)
            .map(Self)
            .ok_or_else(|| D::Error::custom(format!("unknown companion `{name}`: must be one of {}", all.join(", "))))
    }
}

/// The outcome of a test.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The differences, one per line; none if the test passes.
    pub differences: Vec<String>,
    /// The rules that applied.
    pub applied: BTreeSet<String>,
    /// The rules that were violated, whatever their enforcement.
    pub violated: BTreeSet<String>,
}

/// Why a test cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// An object cannot be used.
    #[error(transparent)]
    Input(#[from] ManifestError),
    /// It does not have exactly one workload.
    #[error("resources: must contain exactly one {kinds}; found {0}", kinds = kind::any_name())]
    Workloads(usize),
}

impl PolicyTest {
    /// Runs the test. `input` has the policies; `text_of` returns the YAML of an entry of `resources` or of `old`.
    ///
    /// # Errors
    /// If the test cannot be run.
    pub fn run<E: From<TrialError>>(
        &self,
        mut input: Manifests,
        scope: Scope,
        text_of: impl Fn(&Value) -> Result<String, E>,
    ) -> Result<Outcome, E> {
        let convert = |error: ManifestError| E::from(TrialError::from(error));
        for resource in &self.resources {
            input.add_text(&self.name, &text_of(resource)?, "default").map_err(convert)?;
        }
        let mut old_input = Manifests::new();
        if let Some(old) = &self.old {
            old_input.add_text(&self.name, &text_of(old)?, "default").map_err(convert)?;
        }
        let ([Found { object, .. }], [] | [_]) = (&input.workloads[..], &old_input.workloads[..]) else {
            return Err(TrialError::Workloads(input.workloads.len()).into());
        };
        let old = old_input.workloads.first().map(|found| &found.object);
        let policies = input.policy_set(scope);
        let mut facts = input.facts.clone();
        facts.apis.zalando = self.facts.zalando.unwrap_or(true);
        facts.apis.keda = self.facts.keda.unwrap_or(true);
        facts.apis.custom_metrics = self.facts.metrics_adapter.unwrap_or(true);
        facts.apis.external_metrics = facts.apis.custom_metrics;
        facts.apis.cloudnative_pg = self.facts.cloud_native_pg.unwrap_or(true);
        let now = self.facts.now.unwrap_or(Timestamp::UNIX_EPOCH);
        Ok(self.expect.compared(&evaluation(object, old, now, &policies, &facts)))
    }
}

impl Expected {
    /// Compares the result for a workload with the expected one.
    #[must_use]
    pub fn compared(&self, evaluation: &Evaluation) -> Outcome {
        let verdict = evaluation.verdict();
        let ids = |of: &[Violation]| of.iter().map(|violation| violation.rule.clone()).collect::<BTreeSet<_>>();
        let refused = ids(&verdict.violations);
        let (warned, recorded) = (ids(&verdict.warned), ids(&verdict.recorded));
        let excused = verdict.exempted.iter().map(|exempted| exempted.violation.rule.clone()).collect();
        let mut differences = Vec::new();
        for (what, expected, found) in [
            ("refused", Some(&self.refused), &refused),
            ("warned", self.warned.as_ref(), &warned),
            ("recorded", self.recorded.as_ref(), &recorded),
            ("excused", self.excused.as_ref(), &excused),
        ] {
            if let Some(expected) = expected.filter(|expected| *expected != found) {
                differences.push(difference(what, &list(expected), &list(found)));
            }
        }
        let stored = evaluation.to_json();
        differences.extend(self.fields(&stored));
        let replicas = stored["spec"]["replicas"].as_i64();
        if self.replicas.is_some() && self.replicas != replicas {
            differences.push(difference("replicas", &text(&json!(self.replicas)), &text(&json!(replicas))));
        }
        differences.extend(self.companions(evaluation));
        let applied = evaluation
            .effective()
            .map(|effective| effective.rules().iter().map(|active| active.rule.id().to_owned()).collect());
        let violated = [refused, warned, recorded, excused].into_iter().flatten().collect();
        Outcome { differences, applied: applied.unwrap_or_default(), violated }
    }

    fn fields(&self, stored: &Value) -> Vec<String> {
        let pod = Workload::view(stored).map_or(&Value::Null, |workload| workload.pod_spec());
        let differing = self.fields.iter().filter_map(|(path, expected)| {
            let found = FieldPath::new(path.split('/')).get(pod).unwrap_or(&Value::Null);
            let fields = path.split('/').fold(Fields::for_pod(), |fields, field| fields.below(field));
            (!fields.are_same(found, expected)).then(|| difference(path, &text(expected), &text(found)))
        });
        differing.collect()
    }

    fn companions(&self, evaluation: &Evaluation) -> Vec<String> {
        let planned = evaluation.companions();
        let differing = self.companions.iter().flat_map(|(companion, expected)| {
            let found = planned.each().find(|(known, _)| known.field() == companion.0);
            let (what, wanted) = found.map_or(("", &Wanted::Nothing), |(known, wanted)| (known.field(), wanted));
            match wanted {
                Wanted::Object(object) | Wanted::Theirs(object) if expected == "none" => {
                    let found = format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]));
                    vec![difference(what, "none", &found)]
                }
                Wanted::Object(object) | Wanted::Theirs(object) => {
                    differences_in(what, object, expected, &Fields::for_object(object))
                }
                _ if expected == "none" => Vec::new(),
                Wanted::Nothing | Wanted::Declined => vec![difference(what, &text(expected), "none")],
                Wanted::Impossible { message, .. } | Wanted::Harmful { message, .. } | Wanted::Elsewhere(message) => {
                    vec![difference(what, &text(expected), &format!("none: {message}"))]
                }
            }
        });
        differing.collect()
    }
}

/// Returns the expected fields that an object lacks, by their paths.
fn differences_in(place: &str, found: &Value, expected: &Value, known: &Fields) -> Vec<String> {
    match expected {
        Value::Object(fields) if found.is_object() => {
            let below = |(name, value): (&String, &Value)| {
                differences_in(&format!("{place}.{name}"), &found[name], value, &known.below(name))
            };
            fields.iter().flat_map(below).collect()
        }
        _ if known.contain(found, expected) => Vec::new(),
        _ => vec![difference(place, &text(expected), &text(found))],
    }
}

fn difference(what: &str, expected: &str, found: &str) -> String {
    format!("{what}: expected {expected}, found {found}")
}

fn list(ids: &BTreeSet<String>) -> String {
    if ids.is_empty() { "nothing".to_owned() } else { ids.iter().cloned().collect::<Vec<_>>().join(", ") }
}

fn text(value: &Value) -> String {
    if value.is_null() { "nothing".to_owned() } else { plain(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_quantities_by_value() {
        let limits = json!({"cpu": "500m", "memory": "1Gi"});
        let container = json!({"name": "server", "resources": {"limits": limits}});
        let stored = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
        let differences = |path: &str, expected: Value| {
            let fields = [(format!("containers/server/{path}"), expected)].into();
            Expected { fields, ..Expected::default() }.fields(&stored)
        };
        assert_eq!(differences("resources/limits/cpu", json!(0.5)), [""; 0]);
        assert_eq!(differences("resources", json!({"limits": {"cpu": 0.5, "memory": "1024Mi"}})), [""; 0]);
        let message = "containers/server/resources/limits/cpu: expected 1, found 500m";
        assert_eq!(differences("resources/limits/cpu", json!(1)), [message]);
        let target = |amount: Value| {
            let metrics = json!([{"pods": {"target": {"averageValue": amount}}}]);
            json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": {"metrics": metrics}})
        };
        let planned = target(json!("5"));
        let count =
            |expected: &Value| differences_in("autoscaler", &planned, expected, &Fields::for_object(&planned)).len();
        assert_eq!((count(&target(json!(5))), count(&target(json!(6)))), (0, 1));
    }
}
