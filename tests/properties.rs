//! Properties of `decide` that must hold for every Deployment under every policy.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

#[path = "common/deployments.rs"]
mod deployments;
#[path = "common/policies.rs"]
mod policies;

use deployments::{any_json, deployment, policy};
use k8s_openapi::jiff::Timestamp;
use policies::in_force;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use tidegate::admission::{self, Webhook};
use tidegate_engine::api::{DatabaseEnv, RECEIPT_ANNOTATION};
use tidegate_engine::decision::{Decision, Operation, Request, User, decide};
use tidegate_engine::facts::{Apis, Facts, Namespace};
use tidegate_engine::workload::Workload;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

fn facts(zalando: bool) -> Facts {
    let namespaces = [("ml".to_owned(), Namespace::default())].into();
    Facts { namespaces, apis: Apis { zalando, ..Apis::all() }, ..Facts::default() }
}

/// The policy and the facts of one moment.
#[derive(Clone, Debug)]
struct Day {
    policy: Value,
    zalando: bool,
}

fn day() -> impl Strategy<Value = Day> {
    (policy(), prop::bool::weighted(0.8)).prop_map(|(policy, zalando)| Day { policy, zalando })
}

impl Day {
    fn decide(&self, operation: Operation, object: &Value, old: Option<&Value>) -> (Value, Decision) {
        let workload = Workload::view(object).expect("a generated Deployment has the types of one");
        let old = old.map(|old| Workload::view(old).expect("an admitted Deployment has the types of one"));
        let request = Request { operation, workload, old, user: User::named("jane"), now: Timestamp::UNIX_EPOCH };
        let decision = decide(&request, &in_force(&self.policy), &facts(self.zalando));
        let mut patched = object.clone();
        json_patch::patch(&mut patched, &decision.patch).expect("the patch applies");
        (patched, decision)
    }

    fn create(&self, object: &Value) -> Value {
        self.decide(Operation::Create, object, None).0
    }

    fn update(&self, old: &Value, new: &Value) -> Value {
        self.decide(Operation::Update, new, Some(old)).0
    }
}

fn template(object: &Value) -> &Value {
    &object["spec"]["template"]
}

/// Removes empty values, as the API server does.
fn said(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), said(value)))
            .filter(|(_, value)| !(value.is_null() || *value == json!({}) || *value == json!([])))
            .collect(),
        Value::Array(items) => items.iter().map(said).collect(),
        other => other.clone(),
    }
}

/// Finds what `before` has and `after` lacks at the same place and in the same order.
fn lost(before: &Value, after: &Value, place: &str) -> Option<String> {
    match (before, after) {
        (Value::Null, _) => None,
        (Value::Object(before), Value::Object(after)) => before.iter().find_map(|(name, value)| {
            let place = format!("{place}.{name}");
            match after.get(name) {
                _ if name == RECEIPT_ANNOTATION => None,
                Some(after) => lost(value, after, &place),
                None if value.is_null() => None,
                None => Some(place),
            }
        }),
        (Value::Array(before), Value::Array(after)) => {
            let mut rest = after.iter();
            let gone = before.iter().position(|item| !rest.any(|after| lost(item, after, "").is_none()));
            gone.map(|index| format!("{place}[{index}]"))
        }
        _ => (before != after).then(|| format!("{place}: {before} became {after}")),
    }
}

/// A user's change to a manifest.
#[derive(Clone, Debug)]
enum Change {
    /// To fields of a container.
    Fields(Index, Value),
    /// To a variable of a container.
    Variable(Index, &'static str, &'static str),
    /// Another container.
    Container(Value),
}

impl Change {
    fn apply(&self, object: &mut Value) {
        let containers = object["spec"]["template"]["spec"]["containers"].as_array_mut().expect("there are containers");
        let count = containers.len();
        match self {
            Self::Fields(container, fields) => json_patch::merge(&mut containers[container.index(count)], fields),
            Self::Variable(container, name, value) => {
                set_variable(&mut containers[container.index(count)], name, value);
            }
            Self::Container(container) => containers.push(container.clone()),
        }
    }
}

/// Sets a variable as apply does: its other fields stay, and it comes last, as in the manifest.
fn set_variable(container: &mut Value, name: &str, value: &str) {
    if !container["env"].is_array() {
        container["env"] = json!([]);
    }
    let env = container["env"].as_array_mut().expect("made above");
    let place = env.iter().position(|variable| variable["name"] == name);
    let mut variable = place.map_or_else(|| json!({"name": name}), |place| env.remove(place));
    variable["value"] = value.into();
    env.push(variable);
}

/// Changes by users, to fields that a policy would not inject.
fn change() -> impl Strategy<Value = Change> {
    let fields = vec![
        json!({"image": "registry.example.com/new:2"}),
        json!({"readinessProbe": {"tcpSocket": {"port": 4711}}}),
        json!({"livenessProbe": {"exec": {"command": ["alive"]}, "periodSeconds": 47}}),
        json!({"startupProbe": {"failureThreshold": 4711}}),
        json!({"resources": {"limits": {"memory": "47Mi"}}}),
        json!({"resources": {"limits": {"cpu": "47m"}}}),
        json!({"resources": {"requests": {"memory": "47Gi", "cpu": "47"}}}),
        json!({"resources": {"limits": {"nvidia.com/gpu": 47}}}),
        json!({"ports": [{"containerPort": 4711, "name": "http"}]}),
        json!({"workingDir": "/47"}),
    ];
    let container = json!({"name": "another", "image": "registry.example.com/another:1"});
    prop_oneof![
        6 => (any::<Index>(), select(fields)).prop_map(|(container, fields)| Change::Fields(container, fields)),
        3 => (any::<Index>(), select(vec!["NEW", "PGHOST", "PGUSER", "DATABASE_URL", "PGSERVICE"]))
            .prop_map(|(container, name)| Change::Variable(container, name, "47")),
        1 => Just(Change::Container(container)),
    ]
}

fn annotate(object: &mut Value, key: &str, value: &str) {
    if !object["metadata"]["annotations"].is_object() {
        object["metadata"]["annotations"] = json!({});
    }
    object["metadata"]["annotations"][key] = value.into();
}

/// How a manifest is applied.
#[derive(Clone, Copy, Debug)]
enum Apply {
    Client,
    Server,
}

fn apply() -> impl Strategy<Value = Apply> {
    select(vec![Apply::Client, Apply::Server])
}

impl Apply {
    /// Returns the manifest as the API server sends it to the webhooks.
    fn manifest(self, manifest: &Value) -> Value {
        let mut object = manifest.clone();
        if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
            annotations.remove(LAST_APPLIED);
            annotations.remove(RECEIPT_ANNOTATION);
        }
        match self {
            Self::Client => {
                let text = object.to_string();
                annotate(&mut object, LAST_APPLIED, &text);
            }
            Self::Server => {
                let fields = json!({"operation": "Apply", "manager": "jane", "fieldsV1": fields(&object, "")});
                object["metadata"]["managedFields"] = json!([fields]);
            }
        }
        fill_in_probes(&mut object);
        object
    }

    /// Returns the stored object after applying the manifest.
    fn merge(self, stored: &Value, change: &Change, manifest: &Value) -> Value {
        let mut merged = stored.clone();
        change.apply(&mut merged);
        match self {
            Self::Client => {
                let text = &manifest["metadata"]["annotations"][LAST_APPLIED];
                merged["metadata"]["annotations"][LAST_APPLIED] = text.clone();
            }
            Self::Server => merged["metadata"]["managedFields"] = manifest["metadata"]["managedFields"].clone(),
        }
        fill_in_probes(&mut merged);
        merged
    }
}

/// Sets the API server's defaults for probes with a handler.
fn fill_in_probes(object: &mut Value) {
    let containers = object["spec"]["template"]["spec"]["containers"].as_array_mut();
    for container in containers.into_iter().flatten() {
        for field in ["startupProbe", "readinessProbe", "livenessProbe"] {
            let Some(probe) = container.get_mut(field).and_then(Value::as_object_mut) else { continue };
            if ["httpGet", "tcpSocket", "exec", "grpc"].iter().all(|handler| !probe.contains_key(*handler)) {
                continue;
            }
            for (name, number) in
                [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
            {
                probe.entry(name).or_insert(number.into());
            }
            if let Some(get) = probe.get_mut("httpGet").and_then(Value::as_object_mut) {
                get.entry("path").or_insert("/".into());
                get.entry("scheme").or_insert("HTTP".into());
            }
        }
    }
}

/// Returns the managed fields for an applied value.
fn fields(value: &Value, field: &str) -> Value {
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().map(|(name, value)| (format!("f:{name}"), fields(value, name))).collect()
        }
        Value::Array(items) if ["containers", "initContainers", "env"].contains(&field) => {
            let owned = items.iter().map(|item| {
                let mut owned = fields(item, "");
                owned["."] = json!({});
                (format!("k:{}", json!({"name": item["name"]})), owned)
            });
            owned.collect()
        }
        _ => json!({}),
    }
}

/// Generates an object with one node replaced by another value.
fn broken() -> impl Strategy<Value = Value> {
    (deployment(), any::<Index>(), any_json()).prop_map(|(mut object, node, other)| {
        let count = count(&object);
        *find(&mut object, &mut node.index(count)).expect("the node is there") = other;
        object
    })
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Object(fields) => fields.values().map(count).sum(),
        Value::Array(items) => items.iter().map(count).sum(),
        _ => 0,
    }
}

fn find<'v>(value: &'v mut Value, index: &mut usize) -> Option<&'v mut Value> {
    if *index == 0 {
        return Some(value);
    }
    *index -= 1;
    match value {
        Value::Object(fields) => fields.values_mut().find_map(|value| find(value, index)),
        Value::Array(items) => items.iter_mut().find_map(|value| find(value, index)),
        _ => None,
    }
}

fn answers(day: &Day, object: &Value, old: Option<&Value>) -> [Value; 2] {
    let operation = if old.is_some() { "UPDATE" } else { "CREATE" };
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u-1", "kind": {"group": "apps", "kind": "Deployment"}, "operation": operation, "namespace": "ml",
        "object": object, "oldObject": old
    }});
    let body = review.to_string();
    let review = admission::decode(body.as_bytes()).expect("the envelope can be read");
    let (policies, facts) = (in_force(&day.policy), facts(day.zalando));
    [Webhook::Mutate, Webhook::Validate].map(|webhook| {
        let answer = review.answer(webhook, Timestamp::UNIX_EPOCH, &policies, &facts).encode();
        serde_json::from_slice::<Value>(&answer).expect("the answer is JSON")["response"].take()
    })
}

proptest! {
    #[test]
    fn deciding_is_idempotent(day in day(), object in deployment()) {
        let (once, first) = day.decide(Operation::Create, &object, None);
        let (_, again) = day.decide(Operation::Create, &once, None);
        prop_assert!(again.patch.is_empty(), "created again: {}", json!(again.patch));
        prop_assert_eq!(first.verdict.violations, again.verdict.violations);
        let (_, update) = day.decide(Operation::Update, &once, Some(&once));
        prop_assert!(update.patch.is_empty(), "updated: {}", json!(update.patch));
    }

    #[test]
    fn keeps_and_does_not_reorder_the_users_fields(day in day(), object in deployment()) {
        prop_assert_eq!(lost(&object, &day.create(&object), ""), None);
    }

    #[test]
    fn adds_only_values_in_the_receipt(day in day(), object in deployment()) {
        let once = day.create(&object);
        let taken_out = Day { policy: nothing(), ..day }.create(&once);
        prop_assert_eq!(said(template(&taken_out)), said(template(&object)));
    }

    #[test]
    fn keeps_a_template_when_the_policy_changes(before in day(), after in day(), object in deployment()) {
        let stored = before.create(&object);
        let mut annotated = stored.clone();
        annotate(&mut annotated, "note", "changed");
        annotated["spec"]["replicas"] = 7.into();
        let updated = after.update(&stored, &annotated);
        prop_assert_eq!(template(&updated), template(&stored));
    }

    #[test]
    fn a_replace_restores_the_injected_values(before in day(), after in day(), object in deployment()) {
        let stored = before.create(&object);
        let put = after.update(&stored, &object);
        prop_assert_eq!(template(&put), template(&stored));
        prop_assert_eq!(&put["metadata"]["annotations"][RECEIPT_ANNOTATION], &stored["metadata"]["annotations"][RECEIPT_ANNOTATION]);
    }

    #[test]
    fn injects_a_changed_manifest_like_a_new_one(
        before in day(), after in day(), object in deployment(), change in change()
    ) {
        let stored = before.create(&object);
        let mut changed = object.clone();
        change.apply(&mut changed);
        prop_assume!(said(template(&changed)) != said(template(&object)));
        let fresh = after.create(&changed);
        prop_assert_eq!(said(template(&after.update(&stored, &changed))), said(template(&fresh)), "put");
    }

    #[test]
    fn injects_a_merged_apply_like_a_new_manifest(
        before in day(), after in day(), object in deployment(), change in change(), apply in apply()
    ) {
        let mut changed = object.clone();
        change.apply(&mut changed);
        prop_assume!(said(template(&changed)) != said(template(&object)));
        let (manifest, changed) = (apply.manifest(&object), apply.manifest(&changed));
        let stored = before.create(&manifest);
        let merged = apply.merge(&stored, &change, &changed);
        let fresh = after.create(&changed);
        prop_assert_eq!(said(template(&after.update(&stored, &merged))), said(template(&fresh)));
        prop_assert_eq!(lost(&changed, &fresh, ""), None);
    }

    #[test]
    fn a_rollback_restores_the_exact_template(
        first in day(), second in day(), third in day(), object in deployment(), change in change()
    ) {
        let old = first.create(&object);
        let mut changed = old.clone();
        change.apply(&mut changed);
        let new = second.update(&old, &changed);
        // The Deployment controller copies template and annotations back from the old ReplicaSet.
        let mut undone = new.clone();
        undone["spec"]["template"] = template(&old).clone();
        undone["metadata"]["annotations"] = old["metadata"]["annotations"].clone();
        prop_assert_eq!(third.update(&new, &undone), undone);
    }

    #[test]
    fn binds_all_variables_or_none(before in day(), after in day(), object in deployment(), change in change()) {
        let stored = before.create(&object);
        let mut changed = stored.clone();
        change.apply(&mut changed);
        let created = before.decide(Operation::Create, &object, None);
        let updated = after.decide(Operation::Update, &changed, Some(&stored));
        prop_assert_eq!(mixed(&before, created), None);
        prop_assume!(said(template(&changed)) != said(template(&stored)));
        prop_assert_eq!(mixed(&after, updated), None);
    }

    #[test]
    fn never_refuses_injected_values(day in day(), object in deployment()) {
        let mut judging = day.clone();
        let resources = &mut judging.policy["spec"]["resources"];
        if let Some(resources) = resources.as_object_mut() {
            resources.remove("cpu");
            resources.remove("gpu");
        }
        let refused = |day: &Day| {
            let decision = day.decide(Operation::Create, &object, None).1;
            let mut found = decision.verdict.violations;
            found.retain(|violation| violation.rule == "resources-out-of-bounds");
            found
        };
        prop_assume!(refused(&judging).is_empty());
        prop_assert_eq!(refused(&day), vec![]);
    }

    #[test]
    fn never_refuses_an_update_without_changes(before in day(), after in day(), object in deployment()) {
        let stored = before.create(&object);
        let (_, decision) = after.decide(Operation::Update, &stored, Some(&stored));
        prop_assert_eq!(decision.verdict.violations, vec![]);
    }

    #[test]
    fn webhooks_survive_any_object(day in day(), object in any_json(), old in proptest::option::of(any_json())) {
        for answer in answers(&day, &object, old.as_ref()) {
            prop_assert_eq!(&answer["uid"], "u-1");
        }
    }

    #[test]
    fn webhooks_survive_malformed_deployments(day in day(), object in broken(), old in proptest::option::of(broken())) {
        let [mutation, verdict] = answers(&day, &object, old.as_ref());
        prop_assert_eq!(&mutation["allowed"], true);
        prop_assert!(verdict["allowed"].is_boolean());
    }
}

/// Returns a message if a binding is partial, or injected although nothing is bound.
fn mixed(day: &Day, (object, decision): (Value, Decision)) -> Option<String> {
    let env = serde_json::from_value::<DatabaseEnv>(day.policy["spec"]["database"]["env"].clone()).unwrap_or_default();
    let injected: Vec<String> = decision
        .receipt
        .as_ref()?
        .entries()
        .filter(|entry| entry.path.segments().get(2).is_some_and(|list| list == "env"))
        .map(|entry| entry.path.to_string())
        .collect();
    let Some(binding) = decision.companions.binding else {
        return (!injected.is_empty()).then(|| format!("nothing is bound, but {injected:?}"));
    };
    let workload = Workload::view(&object).expect("what was decided about");
    let of_one = |name: &str, source: &Value| {
        workload.all_containers().any(|container| {
            let entries = container.field("env").as_array().into_iter().flatten();
            let mut named = entries.filter(|entry| entry["name"] == name).peekable();
            named.peek().is_some()
                && named.all(|entry| entry["value"] == source["value"] && entry["valueFrom"] == source["valueFrom"])
        })
    };
    binding
        .variables(&env)
        .iter()
        .find(|variable| !of_one(&variable.name, &variable.source))
        .map(|variable| variable.name.clone())
}

/// Returns a policy without any settings to inject.
fn nothing() -> Value {
    json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": "ServingPolicy", "metadata": {"name": "nothing"}, "spec": {}})
}
