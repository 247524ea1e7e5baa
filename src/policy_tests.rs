//! Tests of policies: what is expected of them, and what they do instead.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::manifests::{Found, ManifestError, Manifests, evaluation};
use tidegate_engine::companions::{self, Wanted};
use tidegate_engine::decision::{Evaluation, Violation};
use tidegate_engine::kind;
use tidegate_engine::quantity::fields::Fields;
use tidegate_engine::workload::{FieldPath, Workload};

/// A file of tests.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// The policies: names of shipped ones, or files, from the folder of this one.
    pub policies: Vec<String>,
    /// The tests.
    pub tests: Vec<PolicyTest>,
}

/// One test: objects, and what is expected of the one workload among them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyTest {
    /// What is tested, in a sentence.
    pub name: String,
    /// The objects, each written out or as a file, from the folder of this one. One is a Deployment or StatefulSet; Namespaces,
    /// HorizontalPodAutoscalers, ServingExceptions and further ServingPolicies are what is known beside.
    pub resources: Vec<Value>,
    /// The workload before an update, written out or as a file. Default: none, it is made new.
    #[serde(default)]
    pub old: Option<Value>,
    /// What else is known.
    #[serde(default)]
    pub facts: Known,
    /// What is expected.
    pub expect: Expected,
}

/// What is known beside the objects.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Known {
    /// Whether Zalando's postgres-operator is there. Default: true.
    #[serde(default)]
    pub zalando: Option<bool>,
    /// Whether a metrics adapter serves custom and external metrics. Default: true.
    #[serde(default)]
    pub metrics_adapter: Option<bool>,
    /// Whether KEDA is there. Default: true.
    #[serde(default)]
    pub keda: Option<bool>,
    /// Whether CloudNativePG is there. Default: true.
    #[serde(default)]
    pub cloud_native_pg: Option<bool>,
    /// When it happens, such as `2027-01-01T00:00:00Z`. Default: 1970.
    #[serde(default)]
    pub now: Option<Timestamp>,
}

/// What is expected of a workload. What is not said is not looked at, but for `refused`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expected {
    /// The rules that it is refused by, all of them. Default: none, it is admitted.
    #[serde(default)]
    pub refused: BTreeSet<String>,
    /// The rules that are warned of, all of them.
    #[serde(default)]
    pub warned: Option<BTreeSet<String>>,
    /// The rules whose violation is recorded only, all of them.
    #[serde(default)]
    pub recorded: Option<BTreeSet<String>>,
    /// The rules that exceptions excuse from, all of them.
    #[serde(default)]
    pub excused: Option<BTreeSet<String>>,
    /// Fields of the pod as it would be stored, by their path from the pod's spec, items of lists by their names, such as
    /// `containers/server/resources/limits/memory`; null for a field that is not there.
    #[serde(default)]
    pub fields: BTreeMap<String, Value>,
    /// `spec.replicas` as it would be stored.
    #[serde(default)]
    pub replicas: Option<i64>,
    /// What is made beside the workload, by `autoscaler`, `budget` and `database`: part of the object, or `none`.
    #[serde(default)]
    pub companions: BTreeMap<CompanionName, Value>,
}

/// The name of a companion, as policies have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CompanionName(&'static str);

impl<'de> Deserialize<'de> for CompanionName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let all = companions::ALL.map(companions::Companion::field);
        all.into_iter()
            .find(|known| *known == name)
            .map(Self)
            .ok_or_else(|| D::Error::custom(format!("unknown companion `{name}`, expected one of {}", all.join(", "))))
    }
}

/// What came of a test.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What is not as expected, a line each; none where the test passes.
    pub differences: Vec<String>,
    /// The rules that applied.
    pub applied: BTreeSet<String>,
    /// The rules that were violated, whatever became of that.
    pub violated: BTreeSet<String>,
}

/// Why a test cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// An object cannot be used.
    #[error(transparent)]
    Input(#[from] ManifestError),
    /// It is not about one workload.
    #[error("resources: a test is about one {kinds}; there are {0}", kinds = kind::any_name())]
    Workloads(usize),
}

impl PolicyTest {
    /// Runs the test. `input` has the policies; `written` turns an entry of `resources` or `old` into a text of YAML.
    ///
    /// # Errors
    /// Says why the test cannot be run.
    pub fn run<E: From<TrialError>>(
        &self,
        mut input: Manifests,
        scope: BTreeMap<String, String>,
        written: impl Fn(&Value) -> Result<String, E>,
    ) -> Result<Outcome, E> {
        let own = |error: ManifestError| E::from(TrialError::from(error));
        for resource in &self.resources {
            input.add_text(&self.name, &written(resource)?, "default").map_err(own)?;
        }
        let mut of_old = Manifests::new();
        if let Some(old) = &self.old {
            of_old.add_text(&self.name, &written(old)?, "default").map_err(own)?;
        }
        let ([Found { object, .. }], [] | [_]) = (&input.workloads[..], &of_old.workloads[..]) else {
            return Err(TrialError::Workloads(input.workloads.len()).into());
        };
        let old = of_old.workloads.first().map(|found| &found.object);
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
    fn compared(&self, evaluation: &Evaluation) -> Outcome {
        let verdict = evaluation.verdict();
        let ids = |of: &[Violation]| of.iter().map(|violation| violation.rule.clone()).collect::<BTreeSet<_>>();
        let refused = ids(&verdict.violations);
        let (warned, recorded) = (ids(&verdict.warned), ids(&verdict.recorded));
        let excused = verdict.excused.iter().map(|excepted| excepted.violation.rule.clone()).collect();
        let mut differences = Vec::new();
        for (what, expected, found) in [
            ("refused", Some(&self.refused), &refused),
            ("warned", self.warned.as_ref(), &warned),
            ("recorded", self.recorded.as_ref(), &recorded),
            ("excused", self.excused.as_ref(), &excused),
        ] {
            if let Some(expected) = expected.filter(|expected| *expected != found) {
                differences.push(different(what, &list(expected), &list(found)));
            }
        }
        let stored = evaluation.to_json();
        differences.extend(self.fields(&stored));
        let replicas = stored["spec"]["replicas"].as_i64();
        if self.replicas.is_some() && self.replicas != replicas {
            let told = |replicas: Option<i64>| replicas.map_or_else(|| "nothing".to_owned(), |count| count.to_string());
            differences.push(different("replicas", &told(self.replicas), &told(replicas)));
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
            (!fields.are_same(found, expected)).then(|| different(path, &told(expected), &told(found)))
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
                    let found = format!("{} {}", told(&object["kind"]), told(&object["metadata"]["name"]));
                    vec![different(what, "none", &found)]
                }
                Wanted::Object(object) | Wanted::Theirs(object) => {
                    lacking(what, object, expected, &Fields::for_object(object))
                }
                _ if expected == "none" => Vec::new(),
                Wanted::Nothing | Wanted::Declined => vec![different(what, &told(expected), "none")],
                Wanted::Impossible { message, .. } | Wanted::Elsewhere(message) => {
                    vec![different(what, &told(expected), &format!("none: {message}"))]
                }
            }
        });
        differing.collect()
    }
}

/// Returns the parts of what is expected that an object has not, by their places.
fn lacking(place: &str, found: &Value, expected: &Value, known: &Fields) -> Vec<String> {
    match expected {
        Value::Object(fields) if found.is_object() => {
            let lacking = |(name, value): (&String, &Value)| {
                lacking(&format!("{place}.{name}"), &found[name], value, &known.below(name))
            };
            fields.iter().flat_map(lacking).collect()
        }
        _ if known.contain(found, expected) => Vec::new(),
        _ => vec![different(place, &told(expected), &told(found))],
    }
}

fn different(what: &str, expected: &str, found: &str) -> String {
    format!("{what}: expected {expected}, found {found}")
}

fn list(ids: &BTreeSet<String>) -> String {
    if ids.is_empty() { "nothing".to_owned() } else { ids.iter().cloned().collect::<Vec<_>>().join(", ") }
}

fn told(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_amount_may_be_written_in_other_words() {
        let limits = json!({"cpu": "500m", "memory": "1Gi"});
        let container = json!({"name": "server", "resources": {"limits": limits}});
        let stored = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
        let different = |path: &str, expected: Value| {
            let fields = [(format!("containers/server/{path}"), expected)].into();
            Expected { fields, ..Expected::default() }.fields(&stored)
        };
        assert_eq!(different("resources/limits/cpu", json!(0.5)), [""; 0]);
        assert_eq!(different("resources", json!({"limits": {"cpu": 0.5, "memory": "1024Mi"}})), [""; 0]);
        let told = "containers/server/resources/limits/cpu: expected 1, found 500m";
        assert_eq!(different("resources/limits/cpu", json!(1)), [told]);
        let target = |amount: Value| {
            let metrics = json!([{"pods": {"target": {"averageValue": amount}}}]);
            json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": {"metrics": metrics}})
        };
        let planned = target(json!("5"));
        let lacking = |expected: &Value| lacking("autoscaler", &planned, expected, &Fields::for_object(&planned)).len();
        assert_eq!((lacking(&target(json!(5))), lacking(&target(json!(6)))), (0, 1));
    }
}
