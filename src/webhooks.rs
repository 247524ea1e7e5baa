//! The webhook configurations: which requests the API server sends to Tidegate, and what happens if it cannot be
//! reached.
//!
//! Mutating fails open, validating fails closed, and both cover only model servers: the scope is fixed here, at install
//! time, and policies only narrow it.
//! <https://kubernetes.io/docs/concepts/cluster-administration/admission-webhooks-good-practices/>

pub mod projects;
pub mod register;

use serde_json::{Value, json};

use tidegate_engine::api::MODEL_SERVERS_LABEL;
use tidegate_engine::companions::database::{Api, apis};
use tidegate_engine::companions::{MANAGED_BY_LABEL, MANAGER};
use tidegate_engine::kind::{KINDS, Kind};
use tidegate_engine::policy::{Labels, Scope};

/// The name of both webhook configurations.
pub const NAME: &str = "tidegate";

/// Namespaces that the webhooks skip: a mistake there could keep the cluster, or Tidegate itself, from starting.
const EXCLUDED: [&str; 2] = ["kube-system", "tidegate-system"];

/// Where the API server reaches the webhooks.
#[derive(Clone, Debug)]
pub enum Endpoint<'a> {
    /// At a URL, for a Tidegate outside the cluster.
    Url {
        /// The URL, without a path.
        url: &'a str,
        /// The CA certificates in base64, for `caBundle`.
        ca_bundle: &'a str,
    },
    /// At the Service of the manifests; Tidegate adds the `caBundle` itself.
    Service,
}

impl Endpoint<'_> {
    fn client_config(&self, path: &str) -> Value {
        match self {
            Self::Url { url, ca_bundle } => json!({"url": format!("{url}{path}"), "caBundle": ca_bundle}),
            Self::Service => {
                json!({"service": {"name": "tidegate", "namespace": "tidegate-system", "path": path, "port": 443}})
            }
        }
    }
}

/// Returns the mutating and the validating configuration for workloads that `scope` selects, and for all workloads in
/// namespaces labelled as a whole.
#[must_use]
pub fn configurations(scope: &Scope, endpoint: &Endpoint) -> [Value; 2] {
    let calls = calls(scope);
    let mutating: Vec<Value> = calls.iter().map(|call| call.mutating(endpoint)).collect();
    let own = own_kinds_webhook(&endpoint.client_config("/policies"));
    let validating: Vec<Value> = calls.iter().map(|call| call.validating(endpoint)).chain([own]).collect();
    [
        configuration("MutatingWebhookConfiguration", &mutating),
        configuration("ValidatingWebhookConfiguration", &validating),
    ]
}

/// Returns the mutating and the validating webhook that a further selector adds to the configurations.
#[must_use]
pub fn additional(labels: &Labels, endpoint: &Endpoint) -> [Value; 2] {
    let call = Call { suffix: suffix(labels), selectors: labelled(labels) };
    [call.mutating(endpoint), call.validating(endpoint)]
}

/// When both webhooks are called.
struct Call {
    /// What follows `mutate` and `validate` in their names.
    suffix: String,
    selectors: Selectors,
}

impl Call {
    fn mutating(&self, endpoint: &Endpoint) -> Value {
        let name = format!("mutate{}.tidegate.dev", self.suffix);
        let mut webhook = webhook(&name, "Ignore", &self.selectors, &endpoint.client_config("/mutate"));
        // Another webhook may add a container after Tidegate was called; calling it twice changes nothing.
        webhook["reinvocationPolicy"] = "IfNeeded".into();
        webhook
    }

    fn validating(&self, endpoint: &Endpoint) -> Value {
        let name = format!("validate{}.tidegate.dev", self.suffix);
        webhook(&name, "Fail", &self.selectors, &endpoint.client_config("/validate"))
    }
}

/// Returns a call for the first selector, one for whole namespaces, and one for each further selector: the API server
/// has no selector for "one label or another". A workload that several select is sent several times, which changes
/// nothing.
fn calls(scope: &Scope) -> Vec<Call> {
    let mut selectors = scope.selectors().iter();
    let first = selectors.next().map(|labels| Call { suffix: String::new(), selectors: labelled(labels) });
    let whole = Call { suffix: "-namespace".to_owned(), selectors: in_whole_namespaces(scope) };
    let mut calls: Vec<Call> = first.into_iter().chain([whole]).collect();
    for labels in selectors {
        let mut suffix = suffix(labels);
        while calls.iter().any(|call| call.suffix == suffix) {
            suffix.push_str("-2");
        }
        calls.push(Call { suffix, selectors: labelled(labels) });
    }
    calls
}

/// Returns the part of a webhook's name that tells a selector from others, as far as a DNS label can.
fn suffix(labels: &Labels) -> String {
    const LONGEST: usize = 48;
    let words: Vec<&str> = labels.iter().flat_map(|(key, value)| [key.as_str(), value]).collect();
    let written = format!("-{}", words.join("-")).to_lowercase();
    let plain: String =
        written.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(LONGEST).collect();
    plain.trim_end_matches('-').to_owned()
}

/// The selectors of a webhook.
struct Selectors {
    namespaces: Vec<Value>,
    objects: Value,
}

/// Selects workloads with the labels, in any namespace that is not excluded. The API server also matches the old
/// object, so removing the label is checked too.
fn labelled(labels: &Labels) -> Selectors {
    Selectors { namespaces: vec![not_excluded()], objects: json!({"matchLabels": labels}) }
}

/// Selects all workloads in namespaces labelled as a whole; without those that the first selector selects already, if
/// it has a single label.
fn in_whole_namespaces(scope: &Scope) -> Selectors {
    let (label, all) = MODEL_SERVERS_LABEL;
    let whole = json!({"key": label, "operator": "In", "values": [all]});
    let single = scope.selectors().first().filter(|labels| labels.len() == 1);
    let others: Vec<Value> = single
        .into_iter()
        .flatten()
        .map(|(key, value)| json!({"key": key, "operator": "NotIn", "values": [value]}))
        .collect();
    Selectors { namespaces: vec![not_excluded(), whole], objects: json!({"matchExpressions": others}) }
}

/// Returns whether the webhooks skip a namespace.
#[must_use]
pub fn is_excluded(namespace: &str) -> bool {
    EXCLUDED.contains(&namespace)
}

fn not_excluded() -> Value {
    json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": EXCLUDED})
}

/// Returns the webhook that refuses invalid policies and exceptions when they are applied. Deletion is never refused.
fn own_kinds_webhook(client_config: &Value) -> Value {
    json!({
        "name": "policies.tidegate.dev",
        "admissionReviewVersions": ["v1"],
        "clientConfig": client_config,
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
        "timeoutSeconds": 5,
        "rules": [{
            "apiGroups": ["tidegate.dev"], "apiVersions": ["v1alpha1"], "scope": "*",
            "resources": ["servingpolicies", "servingexceptions"], "operations": ["CREATE", "UPDATE"]
        }],
        "matchConditions": [{"name": "is-not-being-deleted", "expression": IS_NOT_BEING_DELETED}]
    })
}

/// Adds the webhook for the deletion of databases managed by Tidegate. It fails open: while Tidegate is unavailable,
/// nobody is kept from deleting one.
#[must_use]
pub fn with_guard([mutating, mut validating]: [Value; 2], endpoint: &Endpoint) -> [Value; 2] {
    if let Some(webhooks) = validating["webhooks"].as_array_mut() {
        webhooks.push(databases_webhook(&endpoint.client_config("/guard")));
    }
    [mutating, validating]
}

fn databases_webhook(client_config: &Value) -> Value {
    let rule = |api: &Api| {
        let (group, version, _) = api.kind;
        let (resource, _) = api.definition.split_once('.').unwrap_or_default();
        json!({
            "apiGroups": [group], "apiVersions": [version], "resources": [resource], "scope": "Namespaced",
            "operations": ["DELETE"]
        })
    };
    json!({
        "name": "databases.tidegate.dev",
        "admissionReviewVersions": ["v1"],
        "clientConfig": client_config,
        "failurePolicy": "Ignore",
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
        "timeoutSeconds": 5,
        "rules": apis().map(rule).collect::<Vec<_>>(),
        "namespaceSelector": {"matchExpressions": [not_excluded()]},
        "objectSelector": {"matchLabels": {MANAGED_BY_LABEL: MANAGER}}
    })
}

fn configuration(kind: &str, webhooks: &[Value]) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": NAME, "labels": {MANAGED_BY_LABEL: MANAGER}},
        "webhooks": webhooks
    })
}

fn webhook(name: &str, failure_policy: &str, selectors: &Selectors, client_config: &Value) -> Value {
    json!({
        "name": name,
        "admissionReviewVersions": ["v1"],
        "clientConfig": client_config,
        "failurePolicy": failure_policy,
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
        "timeoutSeconds": 5,
        "rules": rules(KINDS),
        "namespaceSelector": {"matchExpressions": selectors.namespaces},
        "objectSelector": selectors.objects,
        "matchConditions": [
            {"name": "changes-what-tidegate-reads", "expression": CHANGES_WHAT_TIDEGATE_READS},
            {"name": "is-not-being-deleted", "expression": IS_NOT_BEING_DELETED}
        ]
    })
}

/// Returns the rules of a webhook for workloads of these kinds, one per group and version.
fn rules(kinds: &[Kind]) -> Vec<Value> {
    let mut versions: Vec<(&str, &str)> = Vec::new();
    for kind in kinds {
        let version = (kind.group, kind.version);
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    let rule = |(group, version): (&str, &str)| {
        let of_version = kinds.iter().filter(|kind| (kind.group, kind.version) == (group, version));
        json!({
            "apiGroups": [group], "apiVersions": [version], "scope": "Namespaced",
            "resources": of_version.map(|kind| kind.plural).collect::<Vec<_>>(), "operations": ["CREATE", "UPDATE"]
        })
    };
    versions.into_iter().map(rule).collect()
}

/// Changes of status, finalizers and the Deployment controller's own annotations are skipped, so rollouts of model
/// servers continue while Tidegate is unavailable.
const CHANGES_WHAT_TIDEGATE_READS: &str = "\
oldObject == null || object.spec != oldObject.spec || \
object.metadata.?labels.orValue({}) != oldObject.metadata.?labels.orValue({}) || \
object.metadata.?annotations.orValue({}).exists(k, k.startsWith('tidegate.dev/') && \
(!(k in oldObject.metadata.?annotations.orValue({})) || \
oldObject.metadata.annotations[k] != object.metadata.annotations[k])) || \
oldObject.metadata.?annotations.orValue({}).exists(k, k.startsWith('tidegate.dev/') && \
!(k in object.metadata.?annotations.orValue({})))";

const IS_NOT_BEING_DELETED: &str = "!has(object.metadata.deletionTimestamp)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_cover_an_added_kind() {
        let [deployment, stateful_set, ..] = KINDS else { panic!("two kinds are known") };
        let added = Kind { group: "example.com", version: "v2", plural: "servers", ..*deployment };
        let rules = rules(&[Kind { ..*deployment }, added, Kind { ..*stateful_set }]);
        let covered: Vec<_> =
            rules.iter().map(|rule| (&rule["apiGroups"][0], &rule["apiVersions"][0], &rule["resources"])).collect();
        let apps = (&json!("apps"), &json!("v1"), &json!(["deployments", "statefulsets"]));
        assert_eq!(covered, [apps, (&json!("example.com"), &json!("v2"), &json!(["servers"]))]);
        assert!(
            rules.iter().all(|rule| rule["operations"] == json!(["CREATE", "UPDATE"]) && rule["scope"] == "Namespaced")
        );
    }

    #[test]
    fn each_selector_has_webhooks_of_its_own() {
        let labels = |key: &str| Labels::from([(key.to_owned(), "true".to_owned())]);
        let long = "x".repeat(60);
        let keys =
            ["first", "llm-d.ai/inference-serving", "llm-d.ai/inferenceServing", "LLM-D.ai/inferenceServing", &long];
        let scope: Scope = keys.map(labels).into_iter().collect();
        let [mutating, validating] = configurations(&scope, &Endpoint::Service);
        let of = |configuration: &Value| -> Vec<(String, Value)> {
            let webhooks = configuration["webhooks"].as_array().unwrap().iter();
            webhooks
                .map(|found| (found["name"].as_str().unwrap().to_owned(), found["objectSelector"].clone()))
                .collect()
        };
        let called: Vec<(String, Value)> = of(&mutating);
        let expected = [
            ("mutate.tidegate.dev".to_owned(), json!({"matchLabels": {"first": "true"}})),
            (
                "mutate-namespace.tidegate.dev".to_owned(),
                json!({"matchExpressions": [{"key": "first", "operator": "NotIn", "values": ["true"]}]}),
            ),
            (
                "mutate-llm-d-ai-inference-serving-true.tidegate.dev".to_owned(),
                json!({"matchLabels": {"llm-d.ai/inference-serving": "true"}}),
            ),
            (
                "mutate-llm-d-ai-inferenceserving-true.tidegate.dev".to_owned(),
                json!({"matchLabels": {"llm-d.ai/inferenceServing": "true"}}),
            ),
            (
                "mutate-llm-d-ai-inferenceserving-true-2.tidegate.dev".to_owned(),
                json!({"matchLabels": {"LLM-D.ai/inferenceServing": "true"}}),
            ),
        ];
        assert_eq!(called[..5], expected);
        assert!(called[5].0.len() < 80 && called.len() == 6, "{called:?}");
        let validating = of(&validating);
        for ((mutate, selector), (validate, of_validating)) in called.iter().zip(&validating) {
            assert_eq!((mutate.replace("mutate", "validate"), selector), (validate.clone(), of_validating));
        }
        assert_eq!(validating.len(), 7, "and one for policies");
    }

    #[test]
    fn guard_databases_component_matches_the_code() {
        let component: Value =
            serde_saphyr::from_str(include_str!("../manifests/guard-databases/kustomization.yaml")).unwrap();
        let patch: Value = serde_saphyr::from_str(component["patches"][0]["patch"].as_str().unwrap()).unwrap();
        let [_, guarded] = with_guard(configurations(&Scope::default(), &Endpoint::Service), &Endpoint::Service);
        assert_eq!(patch[0]["value"], *guarded["webhooks"].as_array().unwrap().last().unwrap());
    }
}
