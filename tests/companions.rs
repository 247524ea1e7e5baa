//! The autoscalers and databases of model servers on a real API server.

mod common;

use common::{SOON, Sandbox, model_server, serving, wait_for, wait_until};
use serde_json::{Value, json};

/// Returns a user's autoscaler for a Deployment.
fn users_autoscaler(name: &str, deployment: &str) -> Value {
    json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment},
            "minReplicas": 1,
            "maxReplicas": 3,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]
        }
    })
}

/// Returns the names of the autoscalers in a namespace.
fn autoscalers(sandbox: &Sandbox) -> Vec<String> {
    let found = sandbox.list("HorizontalPodAutoscaler");
    found.iter().map(|found| found["metadata"]["name"].as_str().expect("objects have names").to_owned()).collect()
}

fn is_the_users(server: &Value) -> bool {
    server["status"]["autoscaler"]["managedBy"] == "user" && server["status"]["autoscaler"]["name"] == "mine"
}

#[test]
#[ignore = "needs the control plane"]
fn an_existing_autoscaler_of_the_user_stays_the_only_one() {
    let sandbox = Sandbox::new("theirs-first");
    sandbox.apply(&users_autoscaler("mine", "api")).succeeds();
    sandbox.apply(&model_server("api")).succeeds();
    sandbox.model_server("api", "that the autoscaler is its user's", is_the_users);
    // By the time another workload, which came later, has its autoscaler, this one would have it too.
    sandbox.apply(&model_server("later")).succeeds();
    sandbox.autoscaler("later");
    assert_eq!(autoscalers(&sandbox), ["later-tidegate", "mine"]);
}

#[test]
#[ignore = "needs the control plane"]
fn an_autoscaler_in_the_same_apply_stays_the_only_one() {
    let sandbox = Sandbox::new("theirs-too");
    let both =
        json!({"apiVersion": "v1", "kind": "List", "items": [model_server("api"), users_autoscaler("mine", "api")]});
    sandbox.apply(&both).succeeds();
    sandbox.model_server("api", "that the autoscaler is its user's", is_the_users);
    sandbox.apply(&model_server("later")).succeeds();
    sandbox.autoscaler("later");
    assert_eq!(autoscalers(&sandbox), ["later-tidegate", "mine"]);
    let log = sandbox.plane.audit_log();
    assert!(log.contains("namespaces/theirs-too/horizontalpodautoscalers/later-tidegate"));
    assert!(!log.contains("namespaces/theirs-too/horizontalpodautoscalers/api-tidegate"), "Tidegate's was created");
}

#[test]
#[ignore = "needs the control plane"]
fn a_later_autoscaler_of_the_user_replaces_tidegates_until_it_is_deleted() {
    let sandbox = Sandbox::new("theirs-later");
    sandbox.apply(&model_server("api")).succeeds();
    sandbox.autoscaler("api");
    sandbox.apply(&users_autoscaler("mine", "api")).succeeds();
    wait_until("Tidegate's to be deleted", SOON, || autoscalers(&sandbox) == ["mine"]);
    sandbox.model_server("api", "that the autoscaler is its user's", is_the_users);

    sandbox.kubectl(&["delete", "hpa", "mine"]).succeeds();
    wait_until("Tidegate's to be recreated", SOON, || autoscalers(&sandbox) == ["api-tidegate"]);
}

#[test]
#[ignore = "needs the control plane"]
fn creates_an_autoscaler_when_the_users_targets_another_workload() {
    let sandbox = Sandbox::new("theirs-turns");
    sandbox.apply(&users_autoscaler("mine", "api")).succeeds();
    sandbox.apply(&model_server("api")).succeeds();
    sandbox.model_server("api", "that the autoscaler is its user's", is_the_users);
    sandbox.apply(&users_autoscaler("mine", "other")).succeeds();
    wait_until("Tidegate's to be created", SOON, || autoscalers(&sandbox) == ["api-tidegate", "mine"]);
}

#[test]
#[ignore = "needs the control plane"]
fn reverts_edits_to_an_autoscaler_and_keeps_other_fields() {
    let sandbox = Sandbox::new("edited");
    sandbox.apply(&model_server("api")).succeeds();
    let made = sandbox.autoscaler("api");
    let edit = r#"{"metadata":{"annotations":{"note":"mine"}},"spec":{"maxReplicas":50,"minReplicas":2}}"#;
    sandbox.kubectl(&["patch", "hpa", "api-tidegate", "--type=merge", "--patch", edit]).succeeds();
    let right = wait_for("the autoscaler to be reverted", SOON, || {
        sandbox.get("HorizontalPodAutoscaler", "api-tidegate").filter(|found| found["spec"] == made["spec"])
    });
    assert_eq!(right["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(right["metadata"]["annotations"]["note"], "mine");
}

#[test]
#[ignore = "needs the control plane"]
fn recreates_a_deleted_autoscaler() {
    let sandbox = Sandbox::new("hpa-deleted");
    sandbox.apply(&model_server("api")).succeeds();
    let first = sandbox.autoscaler("api")["metadata"]["uid"].clone();
    sandbox.kubectl(&["delete", "hpa", "api-tidegate"]).succeeds();
    wait_until("another autoscaler", SOON, || sandbox.autoscaler("api")["metadata"]["uid"] != first);
}

#[test]
#[ignore = "needs the control plane"]
fn restores_a_deleted_or_edited_model_server_object() {
    let sandbox = Sandbox::new("written-again");
    sandbox.apply(&model_server("api")).succeeds();
    let has_policy = |server: &Value| server["status"]["policy"] == "written-again";
    let first = sandbox.model_server("api", "its policy", has_policy)["metadata"]["uid"].clone();
    sandbox.kubectl(&["delete", "modelserver", "api"]).succeeds();
    sandbox.model_server("api", "its policy again", |server| server["metadata"]["uid"] != first && has_policy(server));
    let edit = ["patch", "modelserver", "api", "--type=merge", "--patch", r#"{"spec":{"name":"other"}}"#];
    sandbox.kubectl(&edit).succeeds();
    sandbox.model_server("api", "what it is for", |server| server["spec"]["name"] == "api");
}

#[test]
#[ignore = "needs the control plane"]
fn the_autoscaler_is_deleted_with_its_deployment_and_the_database_is_kept() {
    let sandbox = Sandbox::new("data-stays");
    sandbox.apply(&model_server("api")).succeeds();
    sandbox.autoscaler("api");
    let database = sandbox.database("api");
    assert_eq!(database["metadata"]["ownerReferences"], Value::Null);
    sandbox.model_server("api", "its database", |server| server["status"]["database"]["name"] == "acid-api");
    sandbox.kubectl(&["delete", "deployment", "api"]).succeeds();
    wait_until("the others to be deleted", SOON, || {
        autoscalers(&sandbox).is_empty() && sandbox.list("ModelServer").is_empty() && sandbox.list("Pod").is_empty()
    });
    assert_eq!(sandbox.database("api")["metadata"]["uid"], database["metadata"]["uid"]);

    // When recreated, the model server finds its data again.
    sandbox.apply(&model_server("api")).succeeds().says_nothing();
    sandbox.model_server("api", "its database", |server| server["status"]["database"]["name"] == "acid-api");
    assert_eq!(sandbox.database("api")["metadata"]["uid"], database["metadata"]["uid"]);
}

#[test]
#[ignore = "needs the control plane"]
fn reports_edits_to_a_database_and_leaves_them() {
    let sandbox = Sandbox::new("drifted");
    sandbox.apply(&model_server("api")).succeeds();
    sandbox.database("api");
    let edit = r#"{"spec":{"numberOfInstances":3,"users":{"api":null,"reporting":["createdb"]}}}"#;
    sandbox.kubectl(&["patch", "postgresql", "acid-api", "--type=merge", "--patch", edit]).succeeds();
    let server = sandbox.model_server("api", "that the database drifted", |server| {
        common::condition(server, "DatabaseReady")["reason"] == "Drifted"
    });
    let message = &common::condition(&server, "DatabaseReady")["message"];
    assert_eq!(message, "spec.numberOfInstances is 3, the policy has 2");
    wait_until("its own user to be added again", SOON, || !sandbox.database("api")["spec"]["users"]["api"].is_null());
    let database = sandbox.database("api");
    assert_eq!(database["spec"]["numberOfInstances"], 3);
    assert_eq!(database["spec"]["users"]["reporting"], json!(["createdb"]));
}

#[test]
#[ignore = "needs the control plane"]
fn does_not_adopt_an_existing_database() {
    let sandbox = Sandbox::new("taken");
    let theirs = json!({
        "apiVersion": "acid.zalan.do/v1", "kind": "postgresql", "metadata": {"name": "acid-api"},
        "spec": {"teamId": "acid", "numberOfInstances": 1, "postgresql": {"version": "16"}, "volume": {"size": "1Gi"}}
    });
    sandbox.apply(&theirs).succeeds();
    let before = sandbox.database("api");
    wait_until("tidegate to see the database", SOON, || {
        let tried = sandbox.kubectl_with(&["apply", "--dry-run=server", "-f", "-"], &model_server("api")).succeeds();
        tried.stderr.contains("no database is bound: postgresql acid-api already exists")
    });
    sandbox.apply(&model_server("api")).succeeds().says("no database is bound");
    assert_eq!(sandbox.container("api")["env"], Value::Null);
    sandbox.model_server("api", "that the name is taken", |server| {
        common::condition(server, "DatabaseReady")["reason"] == "NameTaken"
    });
    assert_eq!(sandbox.database("api"), before);
}

#[test]
#[ignore = "needs the control plane"]
fn keeps_companions_when_the_policy_is_deleted() {
    let sandbox = Sandbox::new("policy-gone");
    sandbox.apply(&model_server("api")).succeeds();
    sandbox.autoscaler("api");
    sandbox.database("api");
    sandbox.plane.kubectl(&["delete", "servingpolicy", "policy-gone"], "").succeeds();
    sandbox.model_server("api", "that its companions are unmanaged", |server| {
        ["AutoscalerReady", "DatabaseReady"]
            .iter()
            .all(|type_| common::condition(server, type_)["reason"] == "Unmanaged")
    });
    assert_eq!(autoscalers(&sandbox), ["api-tidegate"]);
    sandbox.put_policy(&serving("policy-gone"));
    sandbox.model_server("api", "that it is under a policy again", |server| {
        server["status"]["policy"] == "policy-gone"
            && common::condition(server, "AutoscalerReady")["reason"] != "Unmanaged"
    });
}

#[test]
#[ignore = "needs the control plane"]
fn does_not_scale_down_replicas_above_the_policys_maximum() {
    let sandbox = Sandbox::new("too-many");
    let mut manifest = model_server("api");
    manifest["spec"]["replicas"] = 12.into();
    sandbox.apply(&manifest).succeeds();
    let server = sandbox.model_server("api", "why there is no autoscaler", |server| {
        common::condition(server, "AutoscalerReady")["reason"] == "ReplicasOutOfBounds"
    });
    let message = common::condition(&server, "AutoscalerReady")["message"].as_str().unwrap();
    assert_eq!(message, "12 replicas are running, but the autoscaler's maxReplicas is 10: it would stop 2 at once");
    assert!(autoscalers(&sandbox).is_empty());
    sandbox.kubectl(&["scale", "deployment", "api", "--replicas=8"]).succeeds();
    sandbox.autoscaler("api");
}

#[test]
#[ignore = "needs the control plane"]
fn does_not_scale_a_gpu_server_on_cpu() {
    let sandbox = Sandbox::new("gpu");
    let mut manifest = common::vllm("llm");
    common::container(&mut manifest)["resources"] = json!({"limits": {"nvidia.com/gpu": "1"}});
    sandbox.apply(&manifest).succeeds();
    let stored = &sandbox.container("llm")["resources"];
    let wanted = json!({
        "limits": {"nvidia.com/gpu": "1"},
        "requests": {"cpu": "4", "memory": "16Gi"}
    });
    assert_eq!(stored["limits"], wanted["limits"]);
    assert_eq!((&stored["requests"]["cpu"], &stored["requests"]["memory"]), (&json!("4"), &json!("16Gi")));
    sandbox.model_server("llm", "that no metric suits it", |server| {
        common::condition(server, "AutoscalerReady")["reason"] == "NoSuitableMetric"
    });
    assert!(autoscalers(&sandbox).is_empty());
}
