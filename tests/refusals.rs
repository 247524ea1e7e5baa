//! Requests that a real API server does and does not refuse because of Tidegate.

mod common;

use std::time::Duration;

use common::{Apply, LABEL, SOON, Sandbox, container, label, model_server, serving, wait_until};
use serde_json::{Value, json};

/// How long the deletion of a namespace with pods takes.
const GONE: Duration = Duration::from_secs(90);

/// Returns a model server with many violations.
fn wrong(name: &str) -> Value {
    let mut object = model_server(name);
    let container = container(&mut object);
    container["image"] = "registry.example.com/api:latest".into();
    container["securityContext"] = json!({"privileged": true});
    container["resources"] = json!({"requests": {"cpu": "32", "memory": "1Ti"}});
    object["spec"]["template"]["spec"]["initContainers"] =
        json!([{"name": "fetch", "image": "fetch", "securityContext": {"privileged": true}}]);
    object
}

/// Creates a violating model server before its policy.
fn violating_before_its_policy(namespace: &str) -> Sandbox<'_> {
    let sandbox = Sandbox::without_policy(namespace);
    let mut manifest = model_server("api");
    container(&mut manifest)["image"] = "registry.example.com/api:latest".into();
    sandbox.apply(&manifest).succeeds().says_nothing();
    sandbox.rolled_out("api");
    sandbox.put_policy(&serving(namespace));
    sandbox
}

#[test]
#[ignore = "needs the control plane"]
fn a_refusal_lists_every_violation_with_its_fix() {
    let sandbox = Sandbox::new("refused");
    let refused = sandbox.apply(&wrong("api")).fails();
    insta::assert_snapshot!(refused.stderr);
    assert_eq!(sandbox.get("Deployment", "api"), None);
}

#[test]
#[ignore = "needs the control plane"]
fn a_dry_run_is_refused_with_the_same_message_and_creates_nothing() {
    let sandbox = Sandbox::new("refused-dry");
    for apply in Apply::BOTH {
        let refused = sandbox.kubectl_with(apply.arguments(), &wrong("api")).fails();
        let dry = sandbox.kubectl_with(&[apply.arguments(), &["--dry-run=server"]].concat(), &wrong("api")).fails();
        assert_eq!(dry.stderr, refused.stderr);
    }
    // By the time the admitted one has its companions, the refused one, which came earlier, would have them too.
    sandbox.apply(&model_server("later")).succeeds();
    sandbox.autoscaler("later");
    sandbox.database("later");
    for kind in ["Deployment", "HorizontalPodAutoscaler", "postgresql", "ModelServer"] {
        assert_eq!(sandbox.list(kind).len(), 1, "{kind}");
    }
}

#[test]
#[ignore = "needs the control plane"]
fn a_refused_update_changes_nothing() {
    let sandbox = Sandbox::new("refused-update");
    sandbox.apply(&model_server("api")).succeeds();
    let before = sandbox.rolled_out("api");
    sandbox.apply(&wrong("api")).fails().says("floating-tag").says("privileged-container");
    let image = "api=registry.example.com/api:latest";
    sandbox.kubectl(&["set", "image", "deployment", "api", image]).fails().says("floating-tag");
    assert_eq!(sandbox.deployment("api")["metadata"]["generation"], before["metadata"]["generation"]);
}

#[test]
#[ignore = "needs the control plane"]
fn a_policy_in_warn_admits_with_warnings() {
    let sandbox = Sandbox::without_policy("warned");
    let mut policy = serving("warned");
    policy["spec"]["enforcement"] = "warn".into();
    sandbox.put_policy(&policy);
    let applied = sandbox.apply(&wrong("api")).succeeds();
    insta::assert_snapshot!(applied.stderr);
    sandbox.model_server("api", "that it does not conform", |server| server["status"]["conforms"] == "False");
}

#[test]
#[ignore = "needs the control plane"]
fn a_policy_in_audit_neither_changes_nor_warns() {
    let sandbox = Sandbox::without_policy("audited");
    let mut policy = serving("audited");
    policy["spec"]["enforcement"] = "audit".into();
    sandbox.put_policy(&policy);
    sandbox.apply(&wrong("api")).succeeds().says_nothing();
    let stored = sandbox.container("api");
    assert_eq!((&stored["env"], &stored["livenessProbe"]), (&Value::Null, &Value::Null));
    let server = sandbox.model_server("api", "the violations", |server| server["status"]["conforms"] == "False");
    assert!(
        server["status"]
            .to_string()
            .contains("privileged-container: spec.template.spec.containers[0].securityContext.privileged: `true`"),
        "{server}"
    );
    assert!(sandbox.list("HorizontalPodAutoscaler").is_empty() && sandbox.list("postgresql").is_empty());
}

#[test]
#[ignore = "needs the control plane"]
fn an_existing_violation_only_warns() {
    let sandbox = violating_before_its_policy("before");
    let updated = sandbox.kubectl(&["set", "env", "deployment", "api", "MODEL=llama"]).succeeds();
    updated.says("floating-tag").says("(existed before this update, so it is allowed)");
    sandbox.kubectl(&["scale", "deployment", "api", "--replicas=2"]).succeeds();
    let worse =
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"api","securityContext":{"privileged":true}}]}}}}"#;
    let refused = sandbox.kubectl(&["patch", "deployment", "api", "--patch", worse]).fails();
    assert!(
        refused.stderr.contains("1. privileged-container") && !refused.stderr.contains("2. "),
        "{}",
        refused.stderr
    );
}

#[test]
#[ignore = "needs the control plane"]
fn refuses_to_remove_the_label() {
    let sandbox = Sandbox::new("label");
    sandbox.apply(&model_server("api")).succeeds();
    let taken = sandbox.kubectl(&["label", "deployment", "api", &format!("{LABEL}-")]).fails();
    insta::assert_snapshot!(taken.stderr);
    let changed = sandbox.kubectl(&["label", "--overwrite", "deployment", "api", &format!("{LABEL}=web")]).fails();
    changed.says("model-server-label-removed").says("found:    `web`");
    for apply in Apply::BOTH {
        for value in [None, Some("web")] {
            let mut manifest = model_server(apply.name());
            sandbox.kubectl_with(apply.arguments(), &manifest).succeeds();
            label(&mut manifest, value);
            let refused = sandbox.kubectl_with(apply.arguments(), &manifest).fails();
            refused.says("model-server-label-removed");
        }
    }
}

#[test]
#[ignore = "needs the control plane"]
fn a_newly_labelled_deployment_is_injected_at_its_next_change() {
    let sandbox = Sandbox::new("labelled-later");
    let mut manifest = model_server("api");
    label(&mut manifest, None);
    sandbox.apply(&manifest).succeeds();
    let before = sandbox.rolled_out("api");
    let labelled = sandbox.kubectl(&["label", "deployment", "api", &format!("{LABEL}=model-server")]).succeeds();
    labelled.says("no companions are created until its pod template changes");
    assert_eq!(sandbox.template("api"), before["spec"]["template"]);
    sandbox.kubectl(&["rollout", "restart", "deployment", "api"]).succeeds().says_nothing();
    sandbox.autoscaler("api");
    assert_eq!(sandbox.container("api")["resources"]["requests"]["cpu"], "100m");
}

#[test]
#[ignore = "needs the control plane"]
fn a_violating_model_server_can_be_deleted() {
    let sandbox = violating_before_its_policy("deleted");
    sandbox.kubectl(&["delete", "deployment", "api", "--wait=false"]).succeeds();
    wait_until("the Deployment and its pods to be gone", GONE, || {
        sandbox.get("Deployment", "api").is_none() && sandbox.list("Pod").is_empty()
    });
}

#[test]
#[ignore = "needs the control plane"]
fn a_violating_model_server_can_be_deleted_after_its_pods() {
    let sandbox = violating_before_its_policy("foreground");
    sandbox.kubectl(&["delete", "deployment", "api", "--cascade=foreground", "--wait=false"]).succeeds();
    wait_until("the Deployment to be gone", GONE, || sandbox.get("Deployment", "api").is_none());
    assert!(sandbox.list("Pod").is_empty() && sandbox.list("ReplicaSet").is_empty());
}

#[test]
#[ignore = "needs the control plane"]
fn a_violating_model_server_does_not_hold_up_a_finalizer() {
    let sandbox = violating_before_its_policy("finalized");
    let finalizers = |list: &str| format!(r#"{{"metadata":{{"finalizers":{list}}}}}"#);
    let held = finalizers(r#"["example.com/held"]"#);
    sandbox.kubectl(&["patch", "deployment", "api", "--type=merge", "--patch", &held]).succeeds();
    sandbox.kubectl(&["delete", "deployment", "api", "--wait=false"]).succeeds();
    wait_until("the Deployment to be deleting", SOON, || {
        !sandbox.deployment("api")["metadata"]["deletionTimestamp"].is_null()
    });
    sandbox.kubectl(&["scale", "deployment", "api", "--replicas=0"]).succeeds();
    let freed = finalizers("null");
    sandbox.kubectl(&["patch", "deployment", "api", "--type=merge", "--patch", &freed]).succeeds();
    wait_until("the Deployment to be gone", GONE, || sandbox.get("Deployment", "api").is_none());
}

#[test]
#[ignore = "needs the control plane"]
fn a_namespace_with_violating_model_servers_can_be_deleted() {
    let sandbox = violating_before_its_policy("going");
    sandbox.apply(&model_server("fine")).succeeds();
    sandbox.database("fine");
    sandbox.plane.kubectl(&["delete", "namespace", "going", "--wait=false"], "").succeeds();
    wait_until("the namespace to be gone", GONE, || sandbox.plane.api.get("Namespace", "", "going").is_none());
}
