//! Applies model servers to a real API server.

mod common;

use std::time::Duration;

use common::{
    Apply, SOON, Sandbox, assert_object_snapshot, condition, container, env, in_tree, label, model_server, serving,
    wait_for, wait_until,
};
use serde_json::{Value, json};

/// How long an autoscaler takes to see the use of a pod and to act on it.
const SCALED: Duration = Duration::from_mins(2);

#[test]
#[ignore = "needs the control plane"]
fn a_plain_model_server_gets_all_fields_of_its_policy() {
    let sandbox = Sandbox::new("plain");
    sandbox.kubectl(&["apply", "-f", &in_tree("examples/model-server.yaml")]).succeeds().says_nothing();
    assert_object_snapshot!(sandbox.rolled_out("ai-model-serving"));

    assert_object_snapshot!(sandbox.autoscaler("ai-model-serving"));
    assert_object_snapshot!(sandbox.database("ai-model-serving"));
    assert_eq!(sandbox.list("HorizontalPodAutoscaler").len(), 1);
    assert_eq!(sandbox.list("postgresql").len(), 1);
}

#[test]
#[ignore = "needs the control plane"]
fn a_complete_model_server_keeps_its_own_fields() {
    let sandbox = Sandbox::new("complete");
    let applied = sandbox.kubectl(&["apply", "-f", &in_tree("examples/model-server-complete.yaml")]).succeeds();
    insta::assert_snapshot!(applied.stderr);
    assert_object_snapshot!(sandbox.rolled_out("ai-model-serving"));
}

#[test]
#[ignore = "needs the control plane"]
fn a_model_server_reports_its_status() {
    let sandbox = Sandbox::new("reported");
    sandbox.apply(&model_server("api")).succeeds();
    sandbox.database("api");
    // No operator runs here, so its status is simulated.
    let running = json!({"status": {"PostgresClusterStatus": "Running"}}).to_string();
    let patch = ["patch", "postgresql", "acid-api", "--subresource=status", "--type=merge", "--patch", &running];
    sandbox.kubectl(&patch).succeeds();
    let server = wait_for("the ModelServer to be ready", SCALED, || {
        sandbox.get("ModelServer", "api").filter(|server| condition(server, "Ready")["status"] == "True")
    });
    insta::assert_yaml_snapshot!(server["status"], {".conditions[].lastTransitionTime" => "[since]"});
    let table = sandbox.kubectl(&["get", "modelservers"]).succeeds().stdout;
    // The age is the last column, and differs in each run.
    let ageless: Vec<&str> =
        table.lines().filter_map(|line| line.trim_end().rsplit_once("   ")).map(|(rest, _)| rest.trim_end()).collect();
    assert!(table.lines().next().is_some_and(|header| header.trim_end().ends_with("AGE")), "{table}");
    insta::assert_snapshot!(ageless.join("\n"));
}

#[test]
#[ignore = "needs the control plane"]
fn the_autoscaler_scales_up_under_load() {
    let sandbox = Sandbox::new("load");
    let mut busy = model_server("api");
    busy["spec"]["template"]["metadata"]["annotations"] = json!({"kwok.x-k8s.io/usage-cpu": "200m"});
    sandbox.apply(&busy).succeeds();
    let active = |hpa: &Value| condition(hpa, "ScalingActive")["status"] == "True";
    wait_until("ScalingActive", SCALED, || active(&sandbox.autoscaler("api")));
    wait_until("4 replicas to be available", SCALED, || {
        sandbox.deployment("api")["status"]["availableReplicas"].as_i64() >= Some(4)
    });
    assert!(active(&sandbox.autoscaler("api")));
    sandbox.model_server("api", "the state of the autoscaler", |server| {
        condition(server, "AutoscalerReady")["reason"] == "ScalingActive"
            && server["status"]["replicas"]["now"].as_i64() >= Some(4)
    });
}

/// Returns the managed fields by whether they are of the `scale` subresource, without those of the status.
fn owners(sandbox: &Sandbox) -> (Vec<Value>, Vec<Value>) {
    let entries = sandbox.deployment("api")["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries
        .into_iter()
        .filter(|entry| entry["subresource"] != "status")
        .partition(|entry| entry["subresource"] == "scale")
}

/// Without Tidegate, the second apply fails with a conflict on `.spec.replicas`.
#[test]
#[ignore = "needs the control plane"]
fn server_side_apply_succeeds_after_the_autoscaler_has_scaled() {
    let sandbox = Sandbox::new("shared-replicas");
    let mut busy = model_server("api");
    busy["spec"]["replicas"] = 1.into();
    busy["spec"]["template"]["metadata"]["annotations"] = json!({"kwok.x-k8s.io/usage-cpu": "200m"});
    let apply = |object: &Value| sandbox.kubectl_with(Apply::ServerSide.arguments(), object);
    apply(&busy).succeeds();
    let (_, at_first) = owners(&sandbox);
    wait_until("4 replicas to be available", SCALED, || {
        sandbox.deployment("api")["status"]["availableReplicas"].as_i64() >= Some(4)
    });
    wait_until("the autoscaler not to own the replicas", SOON, || owners(&sandbox).0.is_empty());
    let (_, others) = owners(&sandbox);
    let managers = |entries: &[Value]| entries.iter().map(|entry| entry["manager"].clone()).collect::<Vec<_>>();
    assert!(managers(&at_first).iter().all(|manager| managers(&others).contains(manager)), "{at_first:?} {others:?}");

    let scaled = sandbox.deployment("api");
    let live = scaled["spec"]["replicas"].as_i64().unwrap();
    apply(&busy).succeeds().says("spec.replicas stays");
    assert_eq!(sandbox.deployment("api")["spec"]["replicas"], live);
    assert_eq!(sandbox.deployment("api")["metadata"]["generation"], scaled["metadata"]["generation"]);

    // Then the author owns the field, until someone scales again.
    sandbox.kubectl(&["scale", "deployment", "api", &format!("--replicas={}", live + 1)]).succeeds();
    wait_until("kubectl not to own the replicas", SOON, || owners(&sandbox).0.is_empty());
    apply(&busy).succeeds();
    sandbox.rolled_out("api");
    let version = || sandbox.deployment("api")["metadata"]["resourceVersion"].clone();
    let settled = version();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(version(), settled, "nothing is written again and again");
}

#[test]
#[ignore = "needs the control plane"]
fn scaling_owns_the_replicas_if_a_policy_does_not_share_them() {
    let namespace = "owned-replicas";
    let sandbox = Sandbox::without_policy(namespace);
    let mut policy = serving(namespace);
    policy["spec"]["autoscaling"]["shareReplicas"] = false.into();
    sandbox.put_policy(&policy);
    let mut manifest = model_server("api");
    manifest["spec"]["replicas"] = 1.into();
    let apply = |object: &Value| sandbox.kubectl_with(Apply::ServerSide.arguments(), object);
    apply(&manifest).succeeds();
    sandbox.autoscaler("api");
    sandbox.kubectl(&["scale", "deployment", "api", "--replicas=2"]).succeeds();
    let conforms = |server: &Value| server["status"]["replicas"]["now"] == 2;
    sandbox.model_server("api", "that it has been reconciled", conforms);
    assert_eq!(owners(&sandbox).0.len(), 1);
    apply(&manifest).fails().says("conflict");
}

#[test]
#[ignore = "needs the control plane"]
fn applying_again_changes_nothing() {
    let sandbox = Sandbox::new("again");
    for apply in Apply::BOTH {
        let name = apply.name();
        let manifest = model_server(name);
        sandbox.kubectl_with(apply.arguments(), &manifest).succeeds();
        sandbox.autoscaler(name);
        let before = sandbox.rolled_out(name);

        let applied = sandbox.kubectl_with(apply.arguments(), &manifest).succeeds().says_nothing();
        let after = sandbox.deployment(name);
        assert_eq!(before["metadata"]["generation"], after["metadata"]["generation"], "{}", applied.stdout);
        assert_eq!(before["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"], "{}", applied.stdout);

        let diff: &[&str] = match apply {
            Apply::ClientSide => &["diff", "-f", "-"],
            Apply::ServerSide => &["diff", "--server-side", "-f", "-"],
        };
        let differences = sandbox.kubectl_with(diff, &manifest).succeeds();
        assert_eq!(differences.stdout, "");
    }
}

/// kubectl then removes its annotation and moves the managed fields, with or without Tidegate.
#[test]
#[ignore = "needs the control plane"]
fn switching_to_server_side_apply_restarts_nothing() {
    let sandbox = Sandbox::new("switching");
    let manifest = model_server("api");
    sandbox.apply(&manifest).succeeds();
    let before = sandbox.rolled_out("api");
    for _ in 0..2 {
        sandbox.kubectl_with(Apply::ServerSide.arguments(), &manifest).succeeds();
        assert_eq!(sandbox.template("api"), before["spec"]["template"]);
    }
    sandbox.apply(&manifest).succeeds();
    assert_eq!(sandbox.rolled_out("api")["spec"]["template"], before["spec"]["template"]);
    assert_eq!(sandbox.replica_sets("api"), 1);
}

#[test]
#[ignore = "needs the control plane"]
fn a_dry_run_shows_the_result_and_creates_nothing() {
    let sandbox = Sandbox::new("dry-run");
    for apply in Apply::BOTH {
        let arguments = [apply.arguments(), &["--dry-run=server", "--output=json"]].concat();
        let shown = sandbox.kubectl_with(&arguments, &model_server("dry")).succeeds();
        let mut shown: Value = serde_json::from_str(&shown.stdout).unwrap();
        assert_eq!(env(container(&mut shown), "PGHOST")["value"], "acid-dry");
    }
    // Companions of the dry run would exist once the later workload has its own.
    sandbox.apply(&model_server("wet")).succeeds();
    sandbox.autoscaler("wet");
    sandbox.database("wet");
    for kind in ["Deployment", "HorizontalPodAutoscaler", "postgresql", "ModelServer"] {
        assert_eq!(sandbox.list(kind).len(), 1, "{kind}");
    }
}

#[test]
#[ignore = "needs the control plane"]
fn a_namespace_and_its_model_server_come_in_one_apply() {
    let sandbox = Sandbox::without_policy("one-apply");
    let mut policy = serving("one-apply");
    policy["spec"]["match"]["namespaceSelector"] = json!({"matchLabels": {"stage": "one-apply"}});
    sandbox.put_policy(&policy);
    for number in 0..5 {
        let namespace = format!("one-apply-{number}");
        let labels = json!({"stage": "one-apply"});
        let created =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}});
        let mut server = model_server("api");
        server["metadata"]["namespace"] = namespace.as_str().into();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [created, server]});
        sandbox.plane.kubectl(&["apply", "-f", "-"], &list.to_string()).succeeds().says_nothing();
        let mut stored = sandbox.plane.api.get("Deployment", &namespace, "api").unwrap();
        assert_eq!(env(container(&mut stored), "PGHOST")["value"], "acid-api");
    }
}

#[test]
#[ignore = "needs the control plane"]
fn a_name_that_the_api_server_makes_up_gets_no_database() {
    let sandbox = Sandbox::new("generated-name");
    let mut server = model_server("api");
    server["metadata"]["name"] = Value::Null;
    server["metadata"]["generateName"] = "api-".into();
    let created = sandbox.kubectl_with(&["create", "-f", "-"], &server).succeeds();
    created.says("no database is bound: its name is derived from the workload's");
    let stored = sandbox.list("Deployment").remove(0);
    let name = stored["metadata"]["name"].as_str().unwrap();
    assert_eq!(sandbox.container(name)["env"], Value::Null);
    assert!(!sandbox.container(name)["readinessProbe"].is_null());
    sandbox.autoscaler(name);
}

#[test]
#[ignore = "needs the control plane"]
fn a_deployment_without_the_label_is_left_alone() {
    let sandbox = Sandbox::new("unlabelled");
    let mut other = model_server("web");
    label(&mut other, None);
    container(&mut other)["image"] = "web:latest".into();
    sandbox.apply(&other).succeeds().says_nothing();
    assert_eq!(sandbox.container("web")["resources"], json!({}));
    sandbox.apply(&model_server("api")).succeeds();
    sandbox.autoscaler("api");
    wait_until("the model server's pods", SOON, || sandbox.list("Pod").len() == 2);
    assert_eq!(sandbox.list("ModelServer").len(), 1);
}
