//! Changes to a model server and to its policy on a real API server.

mod common;

use common::{Apply, Output, SOON, Sandbox, condition, container, env, model_server, serving, vllm, wait_until};
use serde_json::{Value, json};
use tidegate_engine::decision::{Injection, Receipt};
use tidegate_engine::policy::PolicyRef;
use tidegate_engine::workload::FieldPath;

/// Applies a model server in one of the two ways, and waits until it runs.
fn start(sandbox: &Sandbox, apply: Apply, manifest: &Value) -> Value {
    sandbox.kubectl_with(apply.arguments(), manifest).succeeds();
    sandbox.rolled_out(apply.name())
}

fn apply(sandbox: &Sandbox, apply: Apply, manifest: &Value) -> Output {
    sandbox.kubectl_with(apply.arguments(), manifest)
}

/// Applies a policy that gives containers twice the CPU of `serving`.
fn double_the_cpu(sandbox: &Sandbox) {
    let mut policy = serving(sandbox.namespace);
    policy["spec"]["resources"]["cpu"]["requests"]["cpu"] = "200m".into();
    policy["spec"]["resources"]["cpu"]["limits"]["cpu"] = "1".into();
    sandbox.put_policy(&policy);
}

fn cpu(sandbox: &Sandbox, name: &str) -> (String, String) {
    let resources = &sandbox.container(name)["resources"];
    let text = |of: &str| resources[of]["cpu"].as_str().unwrap_or_default().to_owned();
    (text("requests"), text("limits"))
}

/// The CPU that `serving` gives, and that of `double_the_cpu`.
fn single() -> (String, String) {
    ("100m".to_owned(), "500m".to_owned())
}

fn double() -> (String, String) {
    ("200m".to_owned(), "1".to_owned())
}

#[test]
#[ignore = "needs the control plane"]
fn a_users_probe_replaces_the_injected_one() {
    let sandbox = Sandbox::new("probe");
    for way in Apply::BOTH {
        let name = way.name();
        let mut manifest = vllm(name);
        let before = start(&sandbox, way, &manifest);
        assert_eq!(sandbox.container(name)["readinessProbe"]["httpGet"]["path"], "/v1/models");

        container(&mut manifest)["readinessProbe"] = json!({"tcpSocket": {"port": 8000}});
        apply(&sandbox, way, &manifest).succeeds();
        let stored = sandbox.container(name);
        let probe = &stored["readinessProbe"];
        assert_eq!((&probe["httpGet"], &probe["tcpSocket"]["port"]), (&Value::Null, &json!(8000)), "{way:?}");
        assert_eq!(stored["livenessProbe"]["httpGet"]["path"], "/health");

        sandbox.rolled_out(name);
        let again = sandbox.deployment(name)["metadata"]["generation"].clone();
        apply(&sandbox, way, &manifest).succeeds();
        assert_eq!(sandbox.deployment(name)["metadata"]["generation"], again, "{way:?}: applied again");

        sandbox.kubectl(&["rollout", "undo", "deployment", name]).succeeds();
        assert_eq!(sandbox.template(name), before["spec"]["template"], "{way:?}: back");
        sandbox.rolled_out(name);
        double_the_cpu(&sandbox);
        sandbox.kubectl(&["rollout", "undo", "deployment", name]).succeeds();
        assert_eq!(sandbox.container(name), stored, "{way:?}: and forth");
        assert_eq!(sandbox.replica_sets(name), 2, "{way:?}");
        sandbox.put_policy(&serving("probe"));
    }
}

/// Sets the tag of a model server's image.
fn tagged(name: &str, tag: &str) -> Value {
    let mut manifest = model_server(name);
    container(&mut manifest)["image"] = format!("registry.example.com/api:{tag}").into();
    manifest
}

/// Today's policy refuses the floating tag of the first revision, which was admitted before.
#[test]
#[ignore = "needs the control plane"]
fn a_rollback_to_an_admitted_revision_is_allowed() {
    let namespace = "rollback";
    let sandbox = Sandbox::without_policy(namespace);
    let mut before = serving(namespace);
    before["spec"]["rules"] = json!({"floating-tag": {"enforcement": "off"}});
    sandbox.put_policy(&before);
    let stateful = |tag: &str| {
        let mut manifest = tagged("set", tag);
        manifest["kind"] = "StatefulSet".into();
        manifest["spec"]["serviceName"] = "set".into();
        manifest
    };
    for tag in ["latest", "1.0.0"] {
        sandbox.apply(&tagged("api", tag)).succeeds();
        sandbox.rolled_out("api");
        sandbox.apply(&stateful(tag)).succeeds();
        sandbox.kubectl(&["rollout", "status", "statefulset", "set", "--timeout=60s"]).succeeds();
    }
    sandbox.put_policy(&serving(namespace));
    sandbox.apply(&tagged("api", "main")).fails().says("floating-tag");
    let mut forged = sandbox.deployment("api");
    container(&mut forged)["image"] = "registry.example.com/api:main".into();
    forged["metadata"]["annotations"]["tidegate.dev/receipt"] = receipt_for(&forged).into();
    sandbox.kubectl_with(&["replace", "-f", "-"], &forged).fails().says("floating-tag");

    for (kind, name) in [("Deployment", "api"), ("StatefulSet", "set")] {
        sandbox.kubectl(&["rollout", "undo", &kind.to_lowercase(), name]).succeeds().says("so the rollback is allowed");
        let image = sandbox.get(kind, name).unwrap()["spec"]["template"]["spec"]["containers"][0]["image"].clone();
        assert_eq!(image, "registry.example.com/api:latest", "{kind}");
    }
    sandbox.rolled_out("api");
    sandbox.model_server("api", "that it violates the policy", |server| server["status"]["conforms"] == "False");
}

/// Returns a receipt without injected values that fits the template of a workload, as a user could write it.
fn receipt_for(workload: &Value) -> String {
    let injection = Injection {
        path: FieldPath::new(["terminationGracePeriodSeconds"]),
        value: workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].clone(),
        policy: PolicyRef { name: "serving".into(), generation: 1 },
    };
    let mut receipt = Receipt::from_injections(&[injection]);
    receipt.sign(&workload["spec"]["template"]);
    receipt.to_string()
}

#[test]
#[ignore = "needs the control plane"]
fn a_removed_probe_is_injected_again() {
    let sandbox = Sandbox::new("probe-gone");
    for way in Apply::BOTH {
        let name = way.name();
        let mut manifest = vllm(name);
        container(&mut manifest)["readinessProbe"] = json!({"tcpSocket": {"port": 8000}, "periodSeconds": 3});
        start(&sandbox, way, &manifest);
        container(&mut manifest).as_object_mut().unwrap().remove("readinessProbe");
        apply(&sandbox, way, &manifest).succeeds();
        let probe = &sandbox.container(name)["readinessProbe"];
        assert_eq!((&probe["tcpSocket"], &probe["httpGet"]["path"]), (&Value::Null, &json!("/v1/models")), "{way:?}");
    }
}

#[test]
#[ignore = "needs the control plane"]
fn keeps_a_users_edit_of_an_injected_field() {
    let sandbox = Sandbox::new("edited");
    start(&sandbox, Apply::ClientSide, &vllm("client-side"));
    let edit = |path: &str, value: &str| {
        let path = format!("/spec/template/spec/containers/0/{path}");
        let patch = json!([{"op": "replace", "path": path, "value": value}]).to_string();
        sandbox.kubectl(&["patch", "deployment", "client-side", "--type=json", "--patch", &patch]).succeeds();
        sandbox.container("client-side")
    };
    let probe = &edit("readinessProbe/httpGet/path", "/ready")["readinessProbe"]["httpGet"];
    assert_eq!(probe, &json!({"path": "/ready", "port": 8000, "scheme": "HTTP"}));
    let credentials = |stored: &Value| env(stored, "PGPASSWORD")["valueFrom"]["secretKeyRef"].clone();
    let stored = edit("env/4/valueFrom/secretKeyRef/name", "mine");
    assert_eq!(credentials(&stored), json!({"name": "mine", "key": "password"}));
    assert_eq!(stored["env"].as_array().unwrap().len(), 1, "a binding is complete or absent");
    assert_eq!(stored["readinessProbe"]["httpGet"]["path"], "/ready", "the first edit is still there");
    let stored = edit("resources/limits/memory", "1Gi");
    assert_eq!(stored["resources"]["limits"], json!({"cpu": "500m", "memory": "1Gi"}));
    assert_eq!(credentials(&stored), json!({"name": "mine", "key": "password"}));
}

#[test]
#[ignore = "needs the control plane"]
fn an_injected_request_is_lowered_to_a_new_limit() {
    let sandbox = Sandbox::new("limit");
    for way in Apply::BOTH {
        let name = way.name();
        let mut manifest = model_server(name);
        start(&sandbox, way, &manifest);
        container(&mut manifest)["resources"] = json!({"limits": {"memory": "100Mi"}});
        apply(&sandbox, way, &manifest).succeeds();
        let expected =
            json!({"requests": {"cpu": "100m", "memory": "100Mi"}, "limits": {"cpu": "500m", "memory": "100Mi"}});
        assert_eq!(sandbox.container(name)["resources"], expected, "{way:?}");
    }
}

#[test]
#[ignore = "needs the control plane"]
fn an_injected_limit_is_raised_to_a_new_request() {
    let sandbox = Sandbox::new("request");
    for way in Apply::BOTH {
        let name = way.name();
        let mut manifest = model_server(name);
        start(&sandbox, way, &manifest);
        container(&mut manifest)["resources"] = json!({"requests": {"memory": "1Gi"}});
        apply(&sandbox, way, &manifest).succeeds();
        let expected =
            json!({"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": "500m", "memory": "1Gi"}});
        assert_eq!(sandbox.container(name)["resources"], expected, "{way:?}");
    }
}

#[test]
#[ignore = "needs the control plane"]
fn a_renamed_container_keeps_what_was_injected() {
    let sandbox = Sandbox::new("renamed");
    for way in Apply::BOTH {
        let name = way.name();
        let mut manifest = model_server(name);
        start(&sandbox, way, &manifest);
        let mut expected = sandbox.container(name);
        expected["name"] = "server".into();
        container(&mut manifest)["name"] = "server".into();
        apply(&sandbox, way, &manifest).succeeds();
        let template = sandbox.template(name);
        assert_eq!(template["spec"]["containers"], json!([expected]), "{way:?}");
        wait_until("the autoscaler to measure the container under its new name", SOON, || {
            sandbox.autoscaler(name)["spec"]["metrics"][0]["containerResource"]["container"] == "server"
        });
    }
}

#[test]
#[ignore = "needs the control plane"]
fn a_removed_variable_is_gone() {
    let sandbox = Sandbox::new("variable");
    for way in Apply::BOTH {
        let name = way.name();
        let mut manifest = model_server(name);
        start(&sandbox, way, &manifest);
        let bare = sandbox.container(name)["env"].clone();

        container(&mut manifest)["env"] =
            json!([{"name": "MODEL", "value": "llama"}, {"name": "LOG_TO", "value": "$(PGHOST)"}]);
        apply(&sandbox, way, &manifest).succeeds();
        let names = |stored: &Value| {
            let variables = stored["env"].as_array().unwrap();
            variables.iter().map(|variable| variable["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let expected = ["PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGSSLMODE", "MODEL", "LOG_TO"];
        assert_eq!(names(&sandbox.container(name)), expected, "{way:?}");

        container(&mut manifest)["env"] = json!([{"name": "LOG_TO", "value": "$(PGHOST)"}]);
        apply(&sandbox, way, &manifest).succeeds();
        assert_eq!(names(&sandbox.container(name)), [&expected[..6], &["LOG_TO"]].concat(), "{way:?}");

        container(&mut manifest).as_object_mut().unwrap().remove("env");
        apply(&sandbox, way, &manifest).succeeds();
        assert_eq!(sandbox.container(name)["env"], bare, "{way:?}");
    }
}

#[test]
#[ignore = "needs the control plane"]
fn a_users_variable_replaces_the_binding_until_it_is_removed() {
    let sandbox = Sandbox::new("binding");
    for way in Apply::BOTH {
        let name = way.name();
        let mut manifest = model_server(name);
        start(&sandbox, way, &manifest);
        let bare = sandbox.container(name)["env"].clone();
        // The key is the one that was injected.
        let mine = json!({"secretKeyRef": {"name": "mine", "key": "password"}});
        container(&mut manifest)["env"] =
            json!([{"name": "PGHOST", "value": "elsewhere"}, {"name": "PGPASSWORD", "valueFrom": mine}]);
        let applied = apply(&sandbox, way, &manifest).succeeds();
        applied.says("no database is bound: container api sets PGHOST").says("once PGHOST, PGPASSWORD are removed");
        sandbox.rolled_out(name);
        assert_eq!(sandbox.container(name)["env"], container(&mut manifest)["env"], "{way:?}");

        container(&mut manifest).as_object_mut().unwrap().remove("env");
        apply(&sandbox, way, &manifest).succeeds().says_nothing();
        assert_eq!(sandbox.container(name)["env"], bare, "{way:?}");
    }
}

/// A policy whose autoscaler scales to 4 at once.
fn held_at_four(namespace: &str) -> Value {
    let mut policy = serving(namespace);
    policy["spec"]["autoscaling"]["minReplicas"] = 4.into();
    policy
}

#[test]
#[ignore = "needs the control plane"]
fn applying_replicas_again_keeps_the_autoscalers_number() {
    let sandbox = Sandbox::without_policy("held");
    sandbox.put_policy(&held_at_four("held"));
    let mut manifest = model_server("client-side");
    manifest["spec"]["replicas"] = 1.into();
    apply(&sandbox, Apply::ClientSide, &manifest).succeeds().says("replicas-under-autoscaler");
    sandbox.scaled_to("client-side", 4);

    // kubectl apply sends `replicas` only if the manifest has changed, so replace instead.
    let replace = sandbox.kubectl_with(&["replace", "-f", "-"], &manifest).succeeds();
    replace.says(
        "spec.replicas stays 4 instead of 1: HorizontalPodAutoscaler client-side-tidegate keeps it between 4 and 10",
    );
    assert_eq!(sandbox.deployment("client-side")["spec"]["replicas"], 4);
    apply(&sandbox, Apply::ClientSide, &manifest).succeeds().says("spec.replicas stays 4 instead of 1");
    assert_eq!(sandbox.deployment("client-side")["spec"]["replicas"], 4);
}

#[test]
#[ignore = "needs the control plane"]
fn forcing_replicas_keeps_the_autoscalers_number() {
    let sandbox = Sandbox::without_policy("forced");
    let mut policy = held_at_four("forced");
    policy["spec"]["autoscaling"]["shareReplicas"] = false.into();
    sandbox.put_policy(&policy);
    let mut manifest = model_server("server-side");
    manifest["spec"]["replicas"] = 1.into();
    apply(&sandbox, Apply::ServerSide, &manifest).succeeds().says("replicas-under-autoscaler");
    sandbox.scaled_to("server-side", 4);

    let refused = apply(&sandbox, Apply::ServerSide, &manifest).fails();
    refused.says("conflict").says(".spec.replicas");
    assert_eq!(sandbox.deployment("server-side")["spec"]["replicas"], 4);

    let force = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    for _ in 0..2 {
        sandbox.kubectl_with(&force, &manifest).succeeds().says("spec.replicas stays 4 instead of 1");
        assert_eq!(sandbox.deployment("server-side")["spec"]["replicas"], 4);
    }
}

#[test]
#[ignore = "needs the control plane"]
fn zero_replicas_pause_the_autoscaler() {
    let sandbox = Sandbox::without_policy("paused");
    sandbox.put_policy(&held_at_four("paused"));
    let mut manifest = model_server("api");
    apply(&sandbox, Apply::ClientSide, &manifest).succeeds();
    sandbox.scaled_to("api", 4);

    manifest["spec"]["replicas"] = 0.into();
    apply(&sandbox, Apply::ClientSide, &manifest).succeeds();
    wait_until("the autoscaler to be disabled", SOON, || {
        condition(&sandbox.autoscaler("api"), "ScalingActive")["reason"] == "ScalingDisabled"
    });
    assert_eq!(sandbox.deployment("api")["spec"]["replicas"], 0);

    manifest["spec"]["replicas"] = 5.into();
    apply(&sandbox, Apply::ClientSide, &manifest).succeeds();
    assert_eq!(sandbox.deployment("api")["spec"]["replicas"], 5);
}

#[test]
#[ignore = "needs the control plane"]
fn a_policy_change_restarts_nothing_by_itself() {
    let sandbox = Sandbox::new("sticky");
    for way in Apply::BOTH {
        let name = way.name();
        let before = start(&sandbox, way, &model_server(name));
        assert_eq!(cpu(&sandbox, name), single());
        sandbox.autoscaler(name);
        let annotation = |object: &Value| object["metadata"]["annotations"]["tidegate.dev/receipt"].clone();
        double_the_cpu(&sandbox);

        apply(&sandbox, way, &model_server(name)).succeeds();
        sandbox.kubectl(&["annotate", "deployment", name, "team=search"]).succeeds();
        sandbox.kubectl(&["label", "deployment", name, "team=search"]).succeeds();
        sandbox.kubectl(&["scale", "deployment", name, "--replicas=3"]).succeeds();
        sandbox.kubectl(&["patch", "deployment", name, "--patch", r#"{"spec":{"minReadySeconds":1}}"#]).succeeds();
        let after = sandbox.rolled_out(name);
        assert_eq!(after["spec"]["template"], before["spec"]["template"], "{way:?}");
        assert_eq!(annotation(&after), annotation(&before), "{way:?}");
        assert_eq!(sandbox.replica_sets(name), 1, "{way:?}");

        sandbox.put_policy(&serving("sticky"));
    }
}

#[test]
#[ignore = "needs the control plane"]
fn a_new_image_gets_the_current_policy_and_undo_the_former_one() {
    let sandbox = Sandbox::new("undo");
    for way in Apply::BOTH {
        let name = way.name();
        let first = start(&sandbox, way, &model_server(name));
        double_the_cpu(&sandbox);
        let image = "api=registry.example.com/api:2.0.0";
        sandbox.kubectl(&["set", "image", "deployment", name, image]).succeeds().says_nothing();
        let second = sandbox.rolled_out(name);
        assert_eq!(cpu(&sandbox, name), double(), "{way:?}");

        let receipt = |object: &Value| object["metadata"]["annotations"]["tidegate.dev/receipt"].clone();
        for expected in [&first, &second, &first] {
            sandbox.kubectl(&["rollout", "undo", "deployment", name]).succeeds();
            let back = sandbox.rolled_out(name);
            assert_eq!(back["spec"]["template"], expected["spec"]["template"], "{way:?}");
            assert_eq!(receipt(&back), receipt(expected), "{way:?}");
        }
        assert_eq!(sandbox.replica_sets(name), 2, "{way:?}");
        sandbox.put_policy(&serving("undo"));
    }
}

#[test]
#[ignore = "needs the control plane"]
fn a_restart_gets_the_current_policy() {
    let sandbox = Sandbox::new("restart");
    start(&sandbox, Apply::ClientSide, &model_server("client-side"));
    double_the_cpu(&sandbox);
    sandbox.kubectl(&["rollout", "restart", "deployment", "client-side"]).succeeds();
    assert_eq!(cpu(&sandbox, "client-side"), double());
    sandbox.rolled_out("client-side");
    assert_eq!(sandbox.replica_sets("client-side"), 2);
}

#[test]
#[ignore = "needs the control plane"]
fn a_policy_follows_namespace_labels() {
    let sandbox = Sandbox::without_policy("relabelled");
    sandbox.apply(&model_server("api")).succeeds();
    let mut policy = serving("relabelled");
    policy["spec"]["match"] = json!({"namespaceSelector": {"matchLabels": {"tidegate-test": "relabelled"}}});
    sandbox.put_policy(&policy);
    sandbox.kubectl(&["label", "namespace", "relabelled", "tidegate-test=relabelled"]).succeeds();
    sandbox.model_server("api", "its policy", |server| server["status"]["policy"] == "relabelled");
    sandbox.kubectl(&["label", "namespace", "relabelled", "tidegate-test-"]).succeeds();
    sandbox.model_server("api", "that no policy matches it", |server| server["status"]["policy"].is_null());
}

#[test]
#[ignore = "needs the control plane"]
fn a_policy_change_reaches_the_autoscaler_without_a_restart() {
    let sandbox = Sandbox::new("bounds");
    start(&sandbox, Apply::ClientSide, &model_server("client-side"));
    sandbox.autoscaler("client-side");
    let mut policy = serving("bounds");
    policy["spec"]["autoscaling"]["maxReplicas"] = 7.into();
    sandbox.put_policy(&policy);
    wait_until("the new bound", SOON, || sandbox.autoscaler("client-side")["spec"]["maxReplicas"] == 7);
    assert_eq!(sandbox.replica_sets("client-side"), 1);
}
