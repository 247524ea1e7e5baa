//! Which workloads count as model servers on a real API server, and what happens to those that no longer do.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use common::{
    ControlPlane, LABEL, SOON, Sandbox, Tidegate, condition, container, env, in_tree, label, model_server, serving,
    vllm, wait_for, wait_until,
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

/// A model server that is a Rollout of Argo.
fn rollout(name: &str) -> Value {
    let mut object = model_server(name);
    object["apiVersion"] = "argoproj.io/v1alpha1".into();
    object["kind"] = "Rollout".into();
    object["spec"]["strategy"] = json!({"canary": {}});
    object
}

#[test]
#[ignore = "needs the control plane"]
fn a_rollout_gets_the_same_as_a_deployment() {
    let sandbox = Sandbox::new("rollout");
    sandbox.apply(&rollout("api")).succeeds();
    let stored = sandbox.get("Rollout", "api").unwrap();
    let container = &stored["spec"]["template"]["spec"]["containers"][0];
    assert!(container["resources"]["limits"].is_object() && container["readinessProbe"].is_object(), "{container}");
    assert_eq!(env(container, "PGHOST")["value"], "acid-api-rollout");
    sandbox.apply(&rollout("api")).succeeds();
    let after = &sandbox.get("Rollout", "api").unwrap()["metadata"];
    assert_eq!(after["generation"], stored["metadata"]["generation"], "applying again changes nothing");
    let autoscaler =
        wait_for("its autoscaler", SOON, || sandbox.get("HorizontalPodAutoscaler", "api-tidegate-rollout"));
    let target = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "api"});
    assert_eq!(autoscaler["spec"]["scaleTargetRef"], target);
    wait_for("its database", SOON, || sandbox.get("postgresql", "acid-api-rollout"));
    wait_for("its ModelServer", SOON, || sandbox.get("ModelServer", "api-rollout"));
    let mut wrong = rollout("api");
    common::container(&mut wrong)["image"] = "registry.example.com/api:latest".into();
    sandbox.apply(&wrong).fails().says("refuses Rollout rollout/api").says("floating-tag");
}

#[test]
#[ignore = "needs the control plane"]
fn a_rollout_without_a_template_of_its_own_is_left_alone() {
    let sandbox = Sandbox::new("workload-ref");
    sandbox.apply(&model_server("api")).succeeds();
    sandbox.autoscaler("api");
    let mut user = rollout("api");
    let spec = user["spec"].as_object_mut().unwrap();
    spec.remove("template");
    spec.insert("workloadRef".to_owned(), json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "api"}));
    sandbox.apply(&user).succeeds().says_nothing();
    let left = sandbox.model_server("api-rollout", "where its template is", |server| {
        condition(server, "Managed")["reason"] == "TemplateElsewhere"
    });
    assert_eq!(left["status"]["conforms"], "Unknown");
    let reason = |server: &Value| condition(server, "AutoscalerReady")["reason"].clone();
    let server = sandbox.model_server("api", "who scales it", |server| reason(server) == "TemplateUsed");
    let message = &condition(&server, "AutoscalerReady")["message"];
    assert!(message.as_str().unwrap().starts_with("Rollout api uses its pod template"), "{message}");
    wait_until("its autoscaler to be deleted", SOON, || sandbox.list("HorizontalPodAutoscaler").is_empty());
    sandbox.kubectl(&["delete", "rollout", "api"]).succeeds();
    sandbox.autoscaler("api");
}

/// A LeaderWorkerSet of two pods per replica, whose leader is a model server.
fn leader_worker_set(name: &str) -> Value {
    let mut leader = model_server(name)["spec"]["template"].take();
    leader["spec"]["containers"][0]["name"] = "leader".into();
    let limits = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}});
    let worker = json!({"name": "worker", "image": "registry.example.com/worker:1.0.0", "resources": limits});
    json!({
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"name": name, "labels": {"app": name, "app.kubernetes.io/component": "model-server"}},
        "spec": {
            "replicas": 2,
            "leaderWorkerTemplate": {
                "size": 2, "leaderTemplate": leader, "workerTemplate": {"spec": {"containers": [worker]}}
            }
        }
    })
}

#[test]
#[ignore = "needs the control plane"]
fn the_leader_of_a_leader_worker_set_gets_the_same_as_a_deployment() {
    let namespace = "leader-worker-set";
    let sandbox = Sandbox::without_policy(namespace);
    let mut policy = serving(namespace);
    policy["spec"]["disruptionBudget"] = json!({});
    sandbox.put_policy(&policy);
    let told = "no disruption budget is created: its pods are parts of one server";
    sandbox.apply(&leader_worker_set("llm")).succeeds().says(told);
    let stored = sandbox.get("LeaderWorkerSet", "llm").unwrap();
    let container = |pod: &str| stored["spec"]["leaderWorkerTemplate"][pod]["spec"]["containers"][0].clone();
    let leader = container("leaderTemplate");
    assert!(leader["resources"]["limits"].is_object() && leader["readinessProbe"].is_object(), "{leader}");
    assert_eq!(env(&leader, "PGHOST")["value"], "acid-llm-leaderworkerset");
    assert_eq!(container("workerTemplate")["readinessProbe"], Value::Null);
    sandbox.apply(&leader_worker_set("llm")).succeeds();
    let after = &sandbox.get("LeaderWorkerSet", "llm").unwrap()["metadata"];
    assert_eq!(after["generation"], stored["metadata"]["generation"], "applying again changes nothing");
    let autoscaler =
        wait_for("its autoscaler", SOON, || sandbox.get("HorizontalPodAutoscaler", "llm-tidegate-leaderworkerset"));
    let target = json!({"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "name": "llm"});
    assert_eq!(autoscaler["spec"]["scaleTargetRef"], target);
    sandbox.model_server("llm-leaderworkerset", "why it has no budget", |server| {
        condition(server, "DisruptionBudgetReady")["reason"] == "MultiNode"
    });
    assert!(sandbox.list("PodDisruptionBudget").is_empty());

    let mut wrong = leader_worker_set("llm");
    wrong["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]["containers"][0]["image"] =
        "registry.example.com/worker:latest".into();
    let place = "floating-tag (container worker): spec.leaderWorkerTemplate.workerTemplate.spec.containers[0].image";
    sandbox.apply(&wrong).fails().says("refuses LeaderWorkerSet leader-worker-set/llm").says(place);
}

/// Installs Argo Rollouts and removes it, while Tidegate runs.
#[test]
#[ignore = "needs the control plane"]
fn kinds_are_followed_while_they_are_served() {
    let plane = ControlPlane::start(&["--no-crds"]);
    let _tidegate = Tidegate::start(&plane);
    let sandbox = Sandbox::on(&plane, None, "kinds");
    sandbox.put_policy(&serving("kinds"));
    sandbox.apply(&model_server("plain")).succeeds();
    sandbox.autoscaler("plain");
    let definition = in_tree("dev/controlplane/crds/rollouts.argoproj.io.yaml");
    plane.kubectl(&["apply", "-f", &definition], "").succeeds();
    plane.kubectl(&["wait", "--for=condition=Established", "-f", &definition], "").succeeds();
    sandbox.apply(&rollout("api")).succeeds();
    wait_for("its autoscaler", SOON, || sandbox.get("HorizontalPodAutoscaler", "api-tidegate-rollout"));
    plane.kubectl(&["delete", "-f", &definition], "").succeeds();
    sandbox.apply(&model_server("later")).succeeds();
    sandbox.autoscaler("later");
}

#[test]
#[ignore = "needs the control plane"]
fn a_server_in_several_pods_is_kept_together() {
    let namespace = "multi-node";
    let sandbox = Sandbox::without_policy(namespace);
    let mut policy = serving(namespace);
    policy["spec"]["disruptionBudget"] = json!({});
    sandbox.put_policy(&policy);
    let server = |nodes: &str| {
        let mut object = stateful("llm");
        object["spec"]["replicas"] = 2.into();
        container(&mut object)["command"] = json!(["torchrun", "--nnodes", nodes, "serve.py"]);
        object
    };
    sandbox.apply(&server("1")).succeeds();
    let name = "llm-tidegate-statefulset";
    wait_for("its autoscaler", SOON, || sandbox.get("HorizontalPodAutoscaler", name));
    wait_for("its budget", SOON, || sandbox.get("PodDisruptionBudget", name));
    sandbox.apply(&server("2")).succeeds();
    let server = sandbox.model_server("llm-statefulset", "why it has none", |server| {
        ["AutoscalerReady", "DisruptionBudgetReady"]
            .iter()
            .all(|type_| condition(server, type_)["reason"] == "MultiNode")
    });
    let expected = "its pods are parts of one server (`--nnodes 2`): an autoscaler would add or remove single parts";
    assert_eq!(condition(&server, "AutoscalerReady")["message"], expected);
    wait_until("both to be deleted", SOON, || {
        ["HorizontalPodAutoscaler", "PodDisruptionBudget"].iter().all(|kind| sandbox.get(kind, name).is_none())
    });
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
