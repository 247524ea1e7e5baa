//! The webhook configurations: what the API server asks Tidegate about, and what happens when it cannot be reached.
//!
//! Mutating fails open and validating fails closed, and neither is asked about anything but model servers: the scope is
//! fixed here, at install time, and policies only narrow it.
//! <https://kubernetes.io/docs/concepts/cluster-administration/admission-webhooks-good-practices/>

pub mod register;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use tidegate_engine::api::MODEL_SERVERS_LABEL;
use tidegate_engine::companions::database::{Api, apis};
use tidegate_engine::companions::{MANAGED_BY_LABEL, MANAGER};
use tidegate_engine::kind::{KINDS, Kind};

/// The name of both webhook configurations.
pub const NAME: &str = "tidegate";

/// Namespaces that Tidegate never judges: a mistake there could keep the cluster, or Tidegate itself, from coming up.
const NEVER: [&str; 2] = ["kube-system", "tidegate-system"];

/// Where the API server finds the webhooks.
#[derive(Clone, Debug)]
pub enum Endpoint<'a> {
    /// At a URL, for a Tidegate outside of the cluster; the certificate of its CA in base64.
    Url {
        /// The URL, without a path.
        url: &'a str,
        /// The CA, as `caBundle` has it.
        ca_bundle: &'a str,
    },
    /// At the Service of the manifests; Tidegate fills in the `caBundle` itself.
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

/// Returns the mutating and the validating configuration for workloads with all of the labels in `scope`, and for those in
/// namespaces that are all model servers'.
#[must_use]
pub fn configurations(scope: &BTreeMap<String, String>, endpoint: &Endpoint) -> [Value; 2] {
    let reach = [labelled(scope), in_whole_namespaces(scope)];
    let mutating =
        ["mutate.tidegate.dev", "mutate-namespace.tidegate.dev"].into_iter().zip(&reach).map(|(name, reach)| {
            let mut webhook = webhook(name, "Ignore", reach, &endpoint.client_config("/mutate"));
            // Another webhook may add a container after Tidegate was asked; asking again is cheap, since deciding twice changes
            // nothing.
            webhook["reinvocationPolicy"] = "IfNeeded".into();
            webhook
        });
    let validating = ["validate.tidegate.dev", "validate-namespace.tidegate.dev"].into_iter().zip(&reach);
    let validating = validating.map(|(name, reach)| webhook(name, "Fail", reach, &endpoint.client_config("/validate")));
    let own = of_own_kinds(&endpoint.client_config("/policies"));
    [
        configuration("MutatingWebhookConfiguration", &mutating.collect::<Vec<_>>()),
        configuration("ValidatingWebhookConfiguration", &validating.chain([own]).collect::<Vec<_>>()),
    ]
}

/// Which workloads a webhook is asked about.
struct Reach {
    namespaces: Vec<Value>,
    objects: Value,
}

/// Workloads with the labels, in any namespace but those that are never judged. The API server also looks at the old
/// object, so that taking the label off is judged too.
fn labelled(scope: &BTreeMap<String, String>) -> Reach {
    Reach { namespaces: vec![never()], objects: json!({"matchLabels": scope}) }
}

/// All workloads of the namespaces that are labelled so; those with the label are asked about already, where one label
/// tells them.
fn in_whole_namespaces(scope: &BTreeMap<String, String>) -> Reach {
    let (label, all) = MODEL_SERVERS_LABEL;
    let whole = json!({"key": label, "operator": "In", "values": [all]});
    let others = match scope.iter().next() {
        Some((key, value)) if scope.len() == 1 => json!([{"key": key, "operator": "NotIn", "values": [value]}]),
        _ => json!([]),
    };
    Reach { namespaces: vec![never(), whole], objects: json!({"matchExpressions": others}) }
}

fn never() -> Value {
    json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": NEVER})
}

/// Policies and exceptions that make no sense are refused when they are applied. Deleting them never is.
fn of_own_kinds(client_config: &Value) -> Value {
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

/// Adds to the configurations that deleting a database of Tidegate's is judged. That fails open: a Tidegate that is away
/// keeps nobody from deleting what they want.
#[must_use]
pub fn with_guard([mutating, mut validating]: [Value; 2], endpoint: &Endpoint) -> [Value; 2] {
    if let Some(webhooks) = validating["webhooks"].as_array_mut() {
        webhooks.push(of_databases(&endpoint.client_config("/guard")));
    }
    [mutating, validating]
}

fn of_databases(client_config: &Value) -> Value {
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
        "namespaceSelector": {"matchExpressions": [never()]},
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

fn webhook(name: &str, failure_policy: &str, reach: &Reach, client_config: &Value) -> Value {
    json!({
        "name": name,
        "admissionReviewVersions": ["v1"],
        "clientConfig": client_config,
        "failurePolicy": failure_policy,
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
        "timeoutSeconds": 5,
        "rules": rules(KINDS),
        "namespaceSelector": {"matchExpressions": reach.namespaces},
        "objectSelector": reach.objects,
        "matchConditions": [
            {"name": "changes-what-tidegate-reads", "expression": CHANGES_WHAT_TIDEGATE_READS},
            {"name": "is-not-being-deleted", "expression": IS_NOT_BEING_DELETED}
        ]
    })
}

/// Returns what a webhook is asked about, by the versions that workloads of these kinds are sent in.
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

/// Status, finalizers and the Deployment controller's own annotations are nothing to judge: rollouts of model servers go
/// on while Tidegate is away.
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
    fn a_kind_that_is_added_is_asked_about() {
        let [deployment, stateful_set] = KINDS else { panic!("another kind is added by now") };
        let added = Kind { group: "example.com", version: "v2", plural: "servers", ..*deployment };
        let rules = rules(&[Kind { ..*deployment }, added, Kind { ..*stateful_set }]);
        let asked: Vec<_> =
            rules.iter().map(|rule| (&rule["apiGroups"][0], &rule["apiVersions"][0], &rule["resources"])).collect();
        let apps = (&json!("apps"), &json!("v1"), &json!(["deployments", "statefulsets"]));
        assert_eq!(asked, [apps, (&json!("example.com"), &json!("v2"), &json!(["servers"]))]);
        assert!(
            rules.iter().all(|rule| rule["operations"] == json!(["CREATE", "UPDATE"]) && rule["scope"] == "Namespaced")
        );
    }

    #[test]
    fn the_component_of_the_manifests_is_the_guard() {
        let component: Value =
            serde_saphyr::from_str(include_str!("../manifests/guard-databases/kustomization.yaml")).unwrap();
        let patch: Value = serde_saphyr::from_str(component["patches"][0]["patch"].as_str().unwrap()).unwrap();
        let [_, guarded] = with_guard(configurations(&BTreeMap::new(), &Endpoint::Service), &Endpoint::Service);
        assert_eq!(patch[0]["value"], *guarded["webhooks"].as_array().unwrap().last().unwrap());
    }
}
