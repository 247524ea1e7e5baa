//! Which workloads Tidegate takes for model servers on a real API server, and what becomes of those that are none any more.

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

/// A Deployment that says nothing of models.
fn unlabelled(name: &str) -> Value {
    let mut object = model_server(name);
    label(&mut object, None);
    object
}

#[test]
#[ignore = "needs the control plane"]
fn a_stateful_set_gets_all_that_a_deployment_gets() {
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
    let told = wait_for("its ModelServer", SOON, || {
        sandbox.get("ModelServer", "api-statefulset").filter(|found| found["status"]["autoscaler"].is_object())
    });
    assert_eq!(told["spec"], json!({"kind": "StatefulSet", "name": "api"}));

    let mut wrong = stateful("api");
    common::container(&mut wrong)["image"] = "registry.example.com/api:latest".into();
    sandbox.apply(&wrong).fails().says("refuses StatefulSet stateful/api").says("floating-tag");
    sandbox.kubectl(&["delete", "statefulset", "api"]).succeeds();
    wait_until("its autoscaler to go with it", SOON, || {
        sandbox.get("HorizontalPodAutoscaler", "api-tidegate-statefulset").is_none()
    });
    assert!(sandbox.get("postgresql", "acid-api-statefulset").is_some(), "its data stays");
}

#[test]
#[ignore = "needs the control plane"]
fn a_policy_may_be_for_one_kind_only() {
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
fn a_namespace_may_be_for_model_servers_as_a_whole() {
    let namespace = "whole";
    let sandbox = Sandbox::new(namespace);
    sandbox.apply(&unlabelled("before")).succeeds();
    assert!(sandbox.container("before")["resources"]["limits"].is_null(), "not yet");
    sandbox.kubectl(&["label", "namespace", namespace, "tidegate.dev/model-servers=all"]).succeeds();
    wait_until("the API server to know of the label", SOON, || {
        let dry = sandbox.kubectl_with(&["apply", "--dry-run=server", "-o", "json", "-f", "-"], &unlabelled("api"));
        let stored: Value = serde_json::from_str(&dry.stdout).unwrap_or_default();
        stored["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"].is_object()
    });
    sandbox.apply(&unlabelled("api")).succeeds();
    assert!(sandbox.container("api")["resources"]["limits"].is_object());
    sandbox.autoscaler("api");
    sandbox.model_server("api", "its policy", |server| server["status"]["policy"] == namespace);
    sandbox.model_server("before", "to be told of", |server| server["status"]["conforms"] == "False");
    let mut wrong = unlabelled("wrong");
    container(&mut wrong)["image"] = "registry.example.com/api:latest".into();
    sandbox.apply(&wrong).fails().says("validate-namespace.tidegate.dev").says("floating-tag");
    // One that has the label is asked about once, and may lose it: it stays a model server.
    sandbox.apply(&model_server("labelled")).succeeds();
    sandbox.apply(&unlabelled("labelled")).succeeds();

    sandbox.kubectl(&["label", "namespace", namespace, "tidegate.dev/model-servers-"]).succeeds();
    sandbox.model_server("api", "to be left", |server| condition(server, "Conforming")["reason"] == "Unmanaged");
    wait_until("the API server to forget the label", SOON, || {
        sandbox.kubectl_with(&["apply", "--dry-run=server", "-f", "-"], &wrong).code == 0
    });
    assert!(sandbox.get("HorizontalPodAutoscaler", "api-tidegate").is_some(), "what was made stays");
}

#[test]
#[ignore = "needs the control plane"]
fn what_another_controller_owns_is_left_to_it_and_told_of() {
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
    let told = sandbox
        .model_server("api", "to say so", |server| condition(server, "Conforming")["reason"] == "OwnedByController");
    assert_eq!(
        condition(&told, "Conforming")["message"],
        "ConfigMap service owns this workload: tidegate leaves it alone"
    );
}

#[test]
#[ignore = "needs the control plane"]
fn a_model_server_that_is_none_any_more_is_told_of() {
    let namespace = "unlabelled";
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
    let told = sandbox.model_server("api", "to be left", |server| condition(server, "Ready")["reason"] == "Unmanaged");
    assert_eq!(told["status"]["conforms"], "Unknown");
    assert!(sandbox.get("HorizontalPodAutoscaler", "api-tidegate").is_some(), "what was made stays");
}

#[test]
#[ignore = "needs the control plane"]
fn a_policy_tells_of_what_runs_a_known_runtime_without_the_label() {
    let namespace = "unlabelled";
    // It is there before any policy is for it.
    let sandbox = Sandbox::without_policy(namespace);
    let mut stranger = vllm("llm");
    label(&mut stranger, None);
    sandbox.apply(&stranger).succeeds().says_nothing();
    sandbox.apply(&unlabelled("web")).succeeds();
    sandbox.put_policy(&serving(namespace));
    let told = |expected: Value| {
        wait_until("the policy to tell of it", SOON, || {
            let policy = sandbox.plane.api.get("ServingPolicy", "", namespace).unwrap();
            policy["status"]["unlabelled"] == expected
        });
    };
    told(json!({"count": 1, "names": ["unlabelled/llm"]}));
    assert!(sandbox.get("ModelServer", "llm").is_none());
    sandbox.kubectl(&["annotate", "deployment", "llm", "tidegate.dev/runtime=none"]).succeeds();
    told(json!({"count": 0, "names": []}));
    stranger["metadata"]["name"] = "later".into();
    sandbox.apply(&stranger).succeeds();
    told(json!({"count": 1, "names": ["unlabelled/later"]}));
    // What makes a stranger a model server, or one again, is noticed too.
    sandbox.kubectl(&["label", "namespace", namespace, "tidegate.dev/model-servers=all"]).succeeds();
    told(json!({"count": 0, "names": []}));
    sandbox.kubectl(&["label", "namespace", namespace, "tidegate.dev/model-servers-"]).succeeds();
    told(json!({"count": 1, "names": ["unlabelled/later"]}));
}
