//! Compares decisions about three thousand workloads under a thousand policies with a naive implementation, which
//! checks every policy for every workload, field by field.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

#[path = "common/policies.rs"]
mod policies;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use policies::{SCOPE, all_in_force};
use serde_json::{Map, Value, json};
use tidegate_engine::companions::Wanted;
use tidegate_engine::companions::autoscaler::Autoscaling;
use tidegate_engine::decision::{Decision, Operation, Request, decide};
use tidegate_engine::facts::{Apis, Facts, Namespace};
use tidegate_engine::workload::Workload;

/// The rules that the naive implementation knows; others are not compared.
const RULES: [&str; 3] = ["floating-tag", "privileged-container", "missing-memory-limit"];

const POLICIES: usize = 1000;
const WORKLOADS: usize = 3000;

/// Pseudorandom numbers, the same in each run (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % (sides as u64)).unwrap()
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())].clone()
    }

    /// One time in `sides`.
    fn seldom(&mut self, sides: usize) -> bool {
        self.roll(sides) == 0
    }
}

const TEAMS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
const STAGES: [&str; 4] = ["dev", "stage", "prod", "canary"];
const NAMESPACES: usize = 40;

fn selector(dice: &mut Dice, label: &str, values: &[&str]) -> Value {
    let some = json!([dice.one(values), dice.one(values)]);
    match dice.roll(6) {
        0 => json!({"matchLabels": {label: dice.one(values)}}),
        1 => json!({"matchExpressions": [{"key": label, "operator": "In", "values": some}]}),
        2 => {
            json!({"matchExpressions": [{"key": label, "operator": "NotIn", "values": some}, {"key": label, "operator": "Exists"}]})
        }
        3 => json!({"matchExpressions": [{"key": label, "operator": "DoesNotExist"}]}),
        _ => json!({"matchLabels": {label: dice.one(values), "tier": dice.one(&["1", "2", "3"])}}),
    }
}

/// Random settings of a policy or an environment.
fn settings(dice: &mut Dice) -> Map<String, Value> {
    let mut settings = json!({});
    if dice.seldom(3) {
        settings["enforcement"] = dice.one(&["audit", "warn", "enforce", "off"]).into();
    }
    if dice.seldom(3) {
        settings["autoscaling"]["minReplicas"] = dice.one(&[1, 2]).into();
    }
    if dice.seldom(3) {
        settings["autoscaling"]["maxReplicas"] = dice.one(&[5, 6, 7]).into();
    }
    if dice.seldom(3) {
        settings["autoscaling"]["behavior"] = json!({"scaleDown": {"stabilizationWindowSeconds": dice.roll(3) * 60}});
    }
    if dice.seldom(2) {
        settings["resources"]["cpu"]["limits"]["memory"] = dice.one(&["1Gi", "2Gi", "1024Mi"]).into();
    }
    if dice.seldom(2) {
        settings["resources"]["cpu"]["requests"]["cpu"] = dice.one(&["100m", "200m"]).into();
    }
    for rule in RULES {
        if dice.seldom(4) {
            settings["rules"][rule]["enforcement"] = dice.one(&["off", "audit", "warn", "enforce"]).into();
        }
    }
    settings.as_object().unwrap().clone()
}

fn policy(dice: &mut Dice, index: usize) -> Value {
    let mut spec = settings(dice);
    spec.insert("priority".into(), dice.roll(4).into());
    let mut chosen = json!({"selector": selector(dice, "team", &TEAMS)});
    if dice.seldom(2) {
        chosen["namespaceSelector"] = selector(dice, "stage", &STAGES);
    }
    if dice.seldom(3) {
        chosen["kinds"] = json!([dice.one(&["Deployment", "StatefulSet"])]);
    }
    spec.insert("match".into(), chosen);
    if dice.seldom(2) {
        spec.insert("environment".into(), json!({"namespaceLabel": dice.one(&["environment", "stage"])}));
    }
    let mut environments = Map::new();
    for stage in STAGES {
        if dice.seldom(3) {
            environments.insert(stage.to_owned(), settings(dice).into());
        }
    }
    spec.insert("environments".into(), environments.into());
    json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "ServingPolicy",
        "metadata": {"name": format!("policy-{index}"), "generation": 1}, "spec": spec
    })
}

fn workload(dice: &mut Dice, index: usize) -> Value {
    let mut labels = json!({SCOPE.0: SCOPE.1, "tier": dice.one(&["1", "2", "3"])});
    if !dice.seldom(5) {
        labels["team"] = dice.one(&TEAMS).into();
    }
    let mut container = json!({"name": "api", "image": dice.one(&["api:1", "api:latest"])});
    if dice.seldom(3) {
        container["securityContext"] = json!({"privileged": true});
    }
    if dice.seldom(3) {
        container["resources"] = json!({"limits": {"memory": "512Mi"}});
    }
    json!({
        "apiVersion": "apps/v1", "kind": dice.one(&["Deployment", "StatefulSet"]),
        "metadata": {
            "name": format!("workload-{index}"), "labels": labels, "namespace": format!("ns-{}", dice.roll(NAMESPACES))
        },
        "spec": {"template": {"spec": {"containers": [container]}}}
    })
}

fn namespaces(dice: &mut Dice) -> BTreeMap<String, BTreeMap<String, String>> {
    let labels = |dice: &mut Dice| {
        let mut labels = BTreeMap::from([("tier".to_owned(), dice.one(&["1", "2", "3"]).to_owned())]);
        for label in ["stage", "environment"] {
            if !dice.seldom(3) {
                labels.insert(label.to_owned(), dice.one(&STAGES).to_owned());
            }
        }
        labels
    };
    (0..NAMESPACES).map(|index| (format!("ns-{index}"), labels(dice))).collect()
}

/// The naive implementation.
mod naive {
    use super::*;

    const STRICTNESS: [&str; 4] = ["off", "audit", "warn", "enforce"];

    fn strictness(settings: &Value) -> usize {
        STRICTNESS.iter().position(|known| settings == *known).unwrap()
    }

    fn matches(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
        let pairs = selector["matchLabels"].as_object().into_iter().flatten();
        let requirements = selector["matchExpressions"].as_array().into_iter().flatten();
        pairs.into_iter().all(|(key, value)| labels.get(key).is_some_and(|found| value == found))
            && requirements.into_iter().all(|requirement| {
                let found = labels.get(requirement["key"].as_str().unwrap());
                let among = || {
                    found.is_some_and(|found| {
                        requirement["values"].as_array().unwrap().iter().any(|value| value == found)
                    })
                };
                match requirement["operator"].as_str().unwrap() {
                    "In" => among(),
                    "NotIn" => !among(),
                    "Exists" => found.is_some(),
                    _ => found.is_none(),
                }
            })
    }

    /// Merges fields over others; lists are replaced.
    fn merge_over(below: &mut Value, above: &Value) {
        match (below, above) {
            (Value::Object(below), Value::Object(above)) => {
                for (field, value) in above {
                    merge_over(below.entry(field.clone()).or_insert(Value::Null), value);
                }
            }
            (below, above) => *below = above.clone(),
        }
    }

    /// The settings of a policy for a workload, including its environment; none if it does not match.
    fn settings_for(policy: &Value, object: &Value, namespace: &BTreeMap<String, String>) -> Option<Value> {
        let spec = &policy["spec"];
        let labels: BTreeMap<String, String> = serde_json::from_value(object["metadata"]["labels"].clone()).unwrap();
        let kinds = spec["match"]["kinds"].as_array().cloned().unwrap_or_default();
        let is_match = matches(&spec["match"]["selector"], &labels)
            && matches(&spec["match"]["namespaceSelector"], namespace)
            && (kinds.is_empty() || kinds.contains(&object["kind"]));
        if !is_match {
            return None;
        }
        let label = spec["environment"]["namespaceLabel"].as_str().unwrap_or("environment");
        let mut settings = spec.clone();
        if let Some(environment) = namespace.get(label).and_then(|name| spec["environments"].get(name)) {
            merge_over(&mut settings, environment);
        }
        if settings["enforcement"].is_null() {
            settings["enforcement"] = "enforce".into();
        }
        // Two notations of one quantity are not a conflict.
        if let Some(memory) = settings.pointer_mut("/resources/cpu/limits/memory").filter(|memory| **memory == "1024Mi")
        {
            *memory = "1Gi".into();
        }
        settings["name"] = policy["metadata"]["name"].clone();
        (settings["enforcement"] != "off").then_some(settings)
    }

    /// The outcome for a workload.
    #[derive(Debug, PartialEq)]
    pub(super) struct Outcome {
        pub(super) policies: Vec<String>,
        pub(super) refused: BTreeSet<String>,
        pub(super) warned: BTreeSet<String>,
        pub(super) recorded: BTreeSet<String>,
        pub(super) memory_limit: Value,
        pub(super) cpu_request: Value,
        pub(super) replicas: Option<[i64; 2]>,
        pub(super) window: Value,
        pub(super) conflicts: bool,
    }

    pub(super) fn outcome(policies: &[Value], object: &Value, namespace: &BTreeMap<String, String>) -> Outcome {
        let mut settings: Vec<Value> =
            policies.iter().filter_map(|policy| settings_for(policy, object, namespace)).collect();
        settings.sort_by_key(|settings| {
            (-settings["priority"].as_i64().unwrap(), settings["name"].as_str().unwrap().to_owned())
        });
        let injecting: Vec<&Value> =
            settings.iter().filter(|settings| strictness(&settings["enforcement"]) >= 2).collect();
        let mut conflicts = false;
        let mut setting = |path: &str| {
            let having: Vec<(&Value, &Value)> = injecting
                .iter()
                .filter_map(|settings| Some((settings.pointer(path)?, &settings["priority"])))
                .collect();
            let Some((used, priority)) = having.first() else { return Value::Null };
            conflicts |= having.iter().any(|(other, of_other)| of_other == priority && other != used);
            (*used).clone()
        };
        let container = &object["spec"]["template"]["spec"]["containers"][0];
        let own = container["resources"]["limits"]["memory"].clone();
        let default = setting("/resources/cpu/limits/memory");
        let memory_limit = if own.is_null() { default } else { own };
        let (min, max) = (setting("/autoscaling/minReplicas"), setting("/autoscaling/maxReplicas"));
        let window = setting("/autoscaling/behavior");
        let cpu_request = setting("/resources/cpu/requests/cpu");
        let scaled = injecting.iter().any(|settings| settings["autoscaling"].is_object());
        let enforcement = |rule: &str| {
            let of = |settings: &Value| {
                let own = &settings["rules"][rule]["enforcement"];
                let own = if own.is_null() { 3 } else { strictness(own) };
                own.min(strictness(&settings["enforcement"]))
            };
            settings.iter().map(of).max().unwrap_or_default()
        };
        let violations = [
            ("floating-tag", container["image"] == "api:latest"),
            ("privileged-container", container["securityContext"]["privileged"] == true),
            ("missing-memory-limit", memory_limit.is_null()),
        ];
        let with = |strict: usize| {
            let found = violations.iter().filter(|(rule, is_violated)| *is_violated && enforcement(rule) == strict);
            found.map(|(rule, _)| (*rule).to_owned()).collect()
        };
        Outcome {
            policies: settings.iter().map(|settings| settings["name"].as_str().unwrap().to_owned()).collect(),
            refused: with(3),
            warned: with(2),
            recorded: with(1),
            memory_limit,
            cpu_request,
            replicas: scaled.then(|| [min.as_i64().unwrap_or(1), max.as_i64().unwrap_or(10)]),
            window,
            conflicts,
        }
    }
}

/// The outcome of the engine, in the same form.
fn actual(decision: &Decision, object: &Value) -> naive::Outcome {
    let mut stored = object.clone();
    json_patch::patch(&mut stored, &decision.patch).unwrap();
    let resources = &stored["spec"]["template"]["spec"]["containers"][0]["resources"];
    let verdict = &decision.verdict;
    let ids = |of: &[tidegate_engine::decision::Violation]| {
        let ids = of.iter().map(|violation| &violation.rule).filter(|id| RULES.contains(&id.as_str()));
        ids.cloned().collect()
    };
    let autoscaler = match decision.companions.of(&Autoscaling) {
        Wanted::Object(object) => Some(object["spec"].clone()),
        _ => None,
    };
    let replicas =
        autoscaler.as_ref().map(|spec| ["minReplicas", "maxReplicas"].map(|field| spec[field].as_i64().unwrap()));
    naive::Outcome {
        policies: decision.policies.clone(),
        refused: ids(&verdict.violations),
        warned: ids(&verdict.warned),
        recorded: ids(&verdict.recorded),
        memory_limit: resources["limits"]["memory"].clone(),
        cpu_request: resources["requests"]["cpu"].clone(),
        replicas,
        window: autoscaler.map(|spec| spec["behavior"].clone()).unwrap_or_default(),
        conflicts: decision.notes.iter().any(|note| note.contains("disagree on")),
    }
}

#[test]
fn many_policies_decide_like_the_naive_implementation() {
    let dice = &mut Dice(7);
    let mut written: Vec<Value> = (0..POLICIES).map(|index| policy(dice, index)).collect();
    let namespaces = namespaces(dice);
    let facts = Facts {
        namespaces: namespaces
            .iter()
            .map(|(name, labels)| (name.clone(), Namespace { labels: labels.clone(), terminating: false }))
            .collect(),
        apis: Apis::all(),
        ..Facts::default()
    };
    // Give every autoscaler a metric, which it needs.
    for policy in &mut written {
        let target = json!({"type": "Utilization", "averageUtilization": 50});
        let metric = json!([{"type": "ContainerResource", "containerResource": {"name": "cpu", "target": target}}]);
        if policy["spec"]["autoscaling"].is_object() {
            policy["spec"]["autoscaling"]["metrics"] = metric.clone();
        }
        for environment in policy["spec"]["environments"].as_object_mut().unwrap().values_mut() {
            if environment["autoscaling"].is_object() {
                environment["autoscaling"]["metrics"] = metric.clone();
            }
        }
    }
    let policies = all_in_force(&written);
    let (mut under, mut refused, mut conflicting) = (0, 0, 0);
    for index in 0..WORKLOADS {
        let object = workload(dice, index);
        let view = Workload::view(&object).unwrap();
        let request = Request::new(Operation::Create, view, Timestamp::UNIX_EPOCH);
        let found = actual(&decide(&request, &policies, &facts), &object);
        let expected = naive::outcome(&written, &object, &namespaces[view.namespace()]);
        assert_eq!(found, expected, "{object}");
        under += usize::from(!found.policies.is_empty());
        refused += usize::from(!found.refused.is_empty());
        conflicting += usize::from(found.conflicts);
    }
    assert!(
        under > WORKLOADS / 2 && refused > WORKLOADS / 10 && conflicting > WORKLOADS / 10,
        "{under} {refused} {conflicting}"
    );
}
