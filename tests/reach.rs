//! Which workloads count as model servers on a real API server, and what happens to those that no longer do.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use common::{
    LABEL, SOON, Sandbox, condition, container, env, label, model_server, serving, vllm, wait_for, wait_until,
};
use serde_json::{Value, json};

/// A model server that is a StatefulSet.
fn stateful(name: &str) -> Value {
    let mut object = model_server(name);
    object["kind"] = "StatefulSet".into();
    object["spec"]["serviceName"] = name.into();
    object
}

/// A Deployment without the label of model servers.
fn unlabelled(name: &str) -> Value {
    let mut object = model_server(name);
    label(&mut object, None);
    object
}

#[test]
#[ignore = "needs the control plane"]
fn a_stateful_set_gets_the_same_as_a_deployment() {
    let sandbox = Sandbox::new("stateful");
    sandbox.apply(&stateful("api")).succeeds();
    let stored = sandbox.get("StatefulSet", "api").unwrap();
    let container = &stored["spec"]["template"]["spec"]["containers"][0];
    assert!(container["resources"]["limits"].is_object() && container["readinessProbe"].is_object(), "{container}");
    assert_eq!(env(container, "PGHOST")["value"], "acid-api-statefulset");
    let before = &stored["metadata"];
    sandbox.apply(&stateful("api")).succeeds();
    let after = &sandbox.get("StatefulSet", "api").unwrap()["metadata"];
    assert_eq!(after["generation"], before["generation"], "applying again changes nothing");

    let autoscaler =
        wait_for("its autoscaler", SOON, || sandbox.get("HorizontalPodAutoscaler", "api-tidegate-statefulset"));
    assert_eq!(
        autoscaler["spec"]["scaleTargetRef"],
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "api"})
    );
    wait_for("its database", SOON, || sandbox.get("postgresql", "acid-api-statefulset"));
    let server = wait_for("its ModelServer", SOON, || {
        sandbox.get("ModelServer", "api-statefulset").filter(|found| found["status"]["autoscaler"].is_object())
    });
    assert_eq!(server["spec"], json!({"kind": "StatefulSet", "name": "api"}));

    let mut wrong = stateful("api");
    common::container(&mut wrong)["image"] = "registry.example.com/api:latest".into();
    sandbox.apply(&wrong).fails().says("refuses StatefulSet stateful/api").says("floating-tag");
    sandbox.kubectl(&["delete", "statefulset", "api"]).succeeds();
    wait_until("its autoscaler to be deleted with it", SOON, || {
        sandbox.get("HorizontalPodAutoscaler", "api-tidegate-statefulset").is_none()
    });
    assert!(sandbox.get("postgresql", "acid-api-statefulset").is_some(), "its data is kept");
}

#[test]
#[ignore = "needs the control plane"]
fn a_policy_may_match_one_kind_only() {
    let namespace = "one-kind";
    let sandbox = Sandbox::without_policy(namespace);
    let mut policy = serving(namespace);
    policy["spec"]["match"]["kinds"] = json!(["StatefulSet"]);
    sandbox.put_policy(&policy);
    sandbox.apply(&model_server("api")).succeeds();
    assert!(sandbox.container("api")["resources"]["limits"].is_null());
    sandbox.apply(&stateful("api")).succeeds();
    let stored = sandbox.get("StatefulSet", "api").unwrap();
    assert!(stored["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"].is_object());
}

#[test]
#[ignore = "needs the control plane"]
fn all_workloads_of_a_namespace_may_be_model_servers() {
    let namespace = "whole";
    let sandbox = Sandbox::new(namespace);
    sandbox.apply(&unlabelled("before")).succeeds();
    assert!(sandbox.container("before")["resources"]["limits"].is_null(), "not yet");
    sandbox.kubectl(&["label", "namespace", namespace, "tidegate.dev/model-servers=all"]).succeeds();
    wait_until("the API server to know the label", SOON, || {
        let dry = sandbox.kubectl_with(&["apply", "--dry-run=server", "-o", "json", "-f", "-"], &unlabelled("api"));
        let stored: Value = serde_json::from_str(&dry.stdout).unwrap_or_default();
        stored["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"].is_object()
    });
    sandbox.apply(&unlabelled("api")).succeeds();
    assert!(sandbox.container("api")["resources"]["limits"].is_object());
    sandbox.autoscaler("api");
    sandbox.model_server("api", "its policy", |server| server["status"]["policy"] == namespace);
    sandbox.model_server("before", "its result", |server| server["status"]["conforms"] == "False");
    let mut wrong = unlabelled("wrong");
    container(&mut wrong)["image"] = "registry.example.com/api:latest".into();
    sandbox.apply(&wrong).fails().says("validate-namespace.tidegate.dev").says("floating-tag");
    // The webhooks are called once for one with the label, and it may lose the label: it stays a model server.
    sandbox.apply(&model_server("labelled")).succeeds();
    sandbox.apply(&unlabelled("labelled")).succeeds();

    sandbox.kubectl(&["label", "namespace", namespace, "tidegate.dev/model-servers-"]).succeeds();
    sandbox.model_server("api", "to be unmanaged", |server| condition(server, "Conforming")["reason"] == "Unmanaged");
    wait_until("the API server to forget the label", SOON, || {
        sandbox.kubectl_with(&["apply", "--dry-run=server", "-f", "-"], &wrong).code == 0
    });
    assert!(sandbox.get("HorizontalPodAutoscaler", "api-tidegate").is_some(), "companions are kept");
}

#[test]
#[ignore = "needs the control plane"]
fn a_workload_of_another_controller_is_not_managed() {
    let sandbox = Sandbox::new("owned");
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "service"}});
    sandbox.apply(&owner).succeeds();
    let uid = sandbox.kubectl(&["get", "configmap", "service", "-o", "jsonpath={.metadata.uid}"]).succeeds().stdout;
    let mut object = model_server("api");
    object["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "service", "uid": uid, "controller": true}]);
    container(&mut object)["image"] = "registry.example.com/api:latest".into();
    sandbox.apply(&object).succeeds();
    assert!(sandbox.container("api")["resources"]["limits"].is_null());
    let server = sandbox
        .model_server("api", "its owner", |server| condition(server, "Conforming")["reason"] == "OwnedByController");
    assert_eq!(
        condition(&server, "Conforming")["message"],
        "ConfigMap service owns the workload: tidegate does not manage it"
    );
}

#[test]
#[ignore = "needs the control plane"]
fn a_model_server_that_loses_its_label_is_unmanaged() {
    let namespace = "label-removed";
    let sandbox = Sandbox::without_policy(namespace);
    let mut policy = serving(namespace);
    policy["spec"]["rules"] = json!({"model-server-label-removed": {"enforcement": "warn"}});
    sandbox.put_policy(&policy);
    sandbox.apply(&model_server("api")).succeeds();
    sandbox.autoscaler("api");
    sandbox
        .kubectl(&["label", "deployment", "api", &format!("{LABEL}-")])
        .succeeds()
        .says("model-server-label-removed");
    let server =
        sandbox.model_server("api", "to be unmanaged", |server| condition(server, "Ready")["reason"] == "Unmanaged");
    assert_eq!(server["status"]["conforms"], "Unknown");
    assert!(sandbox.get("HorizontalPodAutoscaler", "api-tidegate").is_some(), "companions are kept");
}

#[test]
#[ignore = "needs the control plane"]
fn a_policy_lists_known_runtimes_without_the_label() {
    let namespace = "unlabelled";
    // It exists before any policy matches it.
    let sandbox = Sandbox::without_policy(namespace);
    let mut workload = vllm("llm");
    label(&mut workload, None);
    sandbox.apply(&workload).succeeds().says_nothing();
    sandbox.apply(&unlabelled("web")).succeeds();
    sandbox.put_policy(&serving(namespace));
    let listed = |expected: Value| {
        wait_until("the policy to list it", SOON, || {
            let policy = sandbox.plane.api.get("ServingPolicy", "", namespace).unwrap();
            policy["status"]["unlabelled"] == expected
        });
    };
    listed(json!({"count": 1, "names": ["unlabelled/llm"]}));
    assert!(sandbox.get("ModelServer", "llm").is_none());
    sandbox.kubectl(&["annotate", "deployment", "llm", "tidegate.dev/runtime=none"]).succeeds();
    listed(json!({"count": 0, "names": []}));
    workload["metadata"]["name"] = "later".into();
    sandbox.apply(&workload).succeeds();
    listed(json!({"count": 1, "names": ["unlabelled/later"]}));
    // Changes of the namespace's label are noticed too.
    sandbox.kubectl(&["label", "namespace", namespace, "tidegate.dev/model-servers=all"]).succeeds();
    listed(json!({"count": 0, "names": []}));
    sandbox.kubectl(&["label", "namespace", namespace, "tidegate.dev/model-servers-"]).succeeds();
    listed(json!({"count": 1, "names": ["unlabelled/later"]}));
}
