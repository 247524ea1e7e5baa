//! Policies and exceptions on a real API server: messages when they are applied, and their effects and status.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use std::thread::sleep;
use std::time::Duration;

use common::{SOON, Sandbox, condition, container, model_server, serving, wait_for, wait_until};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// Returns a policy for one namespace.
fn policy(name: &str, namespace: &str, spec: &Value) -> Value {
    let mut policy = serving(namespace);
    policy["metadata"]["name"] = name.into();
    let only_here = policy["spec"]["match"].take();
    policy["spec"] = spec.clone();
    policy["spec"]["match"] = only_here;
    policy
}

fn exception(namespace: &str, name: &str, expires: Timestamp) -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "ServingException",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "workloads": {"names": ["api"]}, "rules": ["floating-tag"], "reason": "a pilot until the first release",
            "expires": expires.to_string()
        }
    })
}

/// Returns a model server whose image has a tag that moves.
fn floating(name: &str) -> Value {
    let mut object = model_server(name);
    container(&mut object)["image"] = "registry.example.com/api:latest".into();
    object
}

fn status(sandbox: &Sandbox, kind: &str, name: &str) -> Value {
    let namespace = if kind == "ServingPolicy" { "" } else { sandbox.namespace };
    sandbox.plane.api.get(kind, namespace, name).unwrap()["status"].take()
}

#[test]
#[ignore = "needs the control plane"]
fn the_api_server_refuses_a_policy_that_violates_the_schema() {
    let sandbox = Sandbox::without_policy("schema");
    let mut policy = serving("schema");
    policy["spec"]["autoscaling"]["minReplicas"] = 11.into();
    policy["spec"]["database"]["zalando"]["teamId"] = "Search Team".into();
    let refused = sandbox.kubectl_with(&["apply", "-f", "-"], &policy).fails();
    refused.says("minReplicas must not be above maxReplicas").says("teamId must be at most 15 lower-case letters");
}

#[test]
#[ignore = "needs the control plane"]
fn refuses_an_invalid_policy() {
    let sandbox = Sandbox::without_policy("senseless-policy");
    let mut policy = serving("senseless-policy");
    policy["spec"]["resources"]["cpu"]["requests"]["cpu"] = "2".into();
    let refused = sandbox.kubectl_with(&["apply", "-f", "-"], &policy).fails();
    insta::assert_snapshot!(refused.stderr);
    policy["spec"]["resources"]["cpu"]["requests"]["cpu"] = "100m".into();
    policy["spec"]["customRules"] =
        json!([{"id": "team", "expression": "objects.metadata.name == 'a'", "message": "m"}]);
    let refused = sandbox.kubectl_with(&["apply", "-f", "-"], &policy).fails();
    insta::assert_snapshot!(refused.stderr);
}

#[test]
#[ignore = "needs the control plane"]
fn reports_conflicts_between_policies_in_status_and_warnings() {
    let namespace = "disagreeing";
    let sandbox = Sandbox::without_policy(namespace);
    let resources = json!({"cpu": {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}}});
    let spec = |max: i32| json!({"autoscaling": {"maxReplicas": max}, "resources": resources});
    let max = |name: &str, max: i32| policy(name, namespace, &spec(max));
    sandbox.put_policy(&max("disagreeing-a", 3));
    let warned = sandbox.kubectl_with(&["apply", "-f", "-"], &max("disagreeing-b", 4)).succeeds();
    insta::assert_snapshot!(warned.stderr);
    for name in ["disagreeing-a", "disagreeing-b"] {
        wait_until("both to report it", SOON, || {
            let status = json!({"status": status(&sandbox, "ServingPolicy", name)});
            let conflicting = condition(&status, "Conflicting");
            conflicting["status"] == "True" && conflicting["message"].as_str().unwrap().contains("maxReplicas")
        });
    }
    sandbox.apply(&model_server("api")).succeeds().says("disagree on autoscaling.maxReplicas");
    let mut first = max("disagreeing-a", 3);
    first["spec"]["priority"] = 1.into();
    sandbox.put_policy(&first);
    for name in ["disagreeing-a", "disagreeing-b"] {
        wait_until("neither to report it", SOON, || {
            condition(&json!({"status": status(&sandbox, "ServingPolicy", name)}), "Conflicting")["status"] == "False"
        });
    }
}

#[test]
#[ignore = "needs the control plane"]
fn the_status_of_a_policy_counts_its_workloads() {
    let namespace = "counted";
    let sandbox = Sandbox::without_policy(namespace);
    for name in ["api", "other"] {
        sandbox.apply(&floating(name)).succeeds();
    }
    sandbox.apply(&model_server("right")).succeeds();
    sandbox.put_policy(&serving(namespace));
    let counts = json!({"matched": 3, "refused": 3, "warned": 3});
    // None of them has a memory limit or probes: they existed before the policy.
    wait_until("all to be counted", SOON, || status(&sandbox, "ServingPolicy", namespace)["workloads"] == counts);
    sandbox.kubectl(&["delete", "deployment", "right"]).succeeds();
    let counts = json!({"matched": 2, "refused": 2, "warned": 2});
    wait_until("the deleted one not to be counted", SOON, || {
        status(&sandbox, "ServingPolicy", namespace)["workloads"] == counts
    });
}

#[test]
#[ignore = "needs the control plane"]
fn an_exception_applies_until_it_expires() {
    let namespace = "excused";
    let sandbox = Sandbox::new(namespace);
    sandbox.apply(&floating("api")).fails().says("floating-tag");
    let expires = Timestamp::now() + SignedDuration::from_secs(15);
    sandbox.apply(&exception(namespace, "pilot", expires)).succeeds();
    wait_until("the exception to apply", SOON, || {
        condition(&json!({"status": status(&sandbox, "ServingException", "pilot")}), "Active")["status"] == "True"
    });
    sandbox
        .apply(&floating("api"))
        .succeeds()
        .says("exempted by ServingException pilot")
        .says("a pilot until the first release");
    sandbox.apply(&floating("other")).fails().says("floating-tag");
    wait_until("the use to be counted", SOON, || status(&sandbox, "ServingException", "pilot")["used"] == 1);
    let log = sandbox.plane.audit_log();
    assert!(
        log.contains("validate.tidegate.dev/exceptions") && log.contains("by pilot"),
        "the use is in the audit log"
    );

    while Timestamp::now() < expires {
        sleep(Duration::from_millis(200));
    }
    // Immediately, and not when its status changes.
    let mut changed = floating("api");
    container(&mut changed)["image"] = "registry.example.com/api:main".into();
    sandbox.apply(&changed).fails().says("floating-tag");
    let reason = wait_for("the exception to expire", SOON, || {
        let status = json!({"status": status(&sandbox, "ServingException", "pilot")});
        let active = condition(&status, "Active");
        (active["status"] == "False").then(|| active["reason"].clone())
    });
    assert_eq!(reason, "Expired");
    // The running workload goes on, and the violation is reported.
    sandbox.kubectl(&["annotate", "deployment", "api", "note=1"]).succeeds();
    sandbox.model_server("api", "not to conform", |server| server["status"]["conforms"] == "False");
}

#[test]
#[ignore = "needs the control plane"]
fn the_namespace_label_sets_the_environment() {
    let namespace = "environments";
    let sandbox = Sandbox::without_policy(namespace);
    let spec = json!({
        "resources": {"cpu": {"requests": {"cpu": "100m"}, "limits": {"cpu": "1", "memory": "1Gi"}}},
        "environments": {"dev": {"enforcement": "warn"}, "prod": {"resources": {"cpu": {"limits": {"cpu": "2"}}}}}
    });
    sandbox.put_policy(&policy("environments", namespace, &spec));
    let labelled = |environment: &str| {
        let label = format!("environment={environment}");
        sandbox.kubectl(&["label", "namespace", namespace, "--overwrite", &label]).succeeds();
    };
    sandbox.apply(&floating("api")).fails().says("floating-tag");
    labelled("dev");
    wait_until("the label to be seen", SOON, || {
        sandbox.kubectl_with(&["apply", "--dry-run=server", "-f", "-"], &floating("api")).code == 0
    });
    sandbox.apply(&floating("api")).succeeds().says("Warning: floating-tag");
    labelled("prod");
    wait_until("the label to be seen", SOON, || {
        let dry = sandbox.kubectl_with(&["apply", "--dry-run=server", "-o", "json", "-f", "-"], &model_server("later"));
        let stored: Value = serde_json::from_str(&dry.stdout).unwrap_or_default();
        stored["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] == "2"
    });
    assert_eq!(sandbox.container("api")["resources"]["limits"]["cpu"], "1", "no pod restarts");
}

#[test]
#[ignore = "needs the control plane"]
fn enforces_custom_rules() {
    let namespace = "custom-rules";
    let sandbox = Sandbox::without_policy(namespace);
    let rule = json!({
        "id": "missing-team-label", "field": "metadata.labels.team", "expression": "has(object.metadata.labels.team)",
        "messageExpression": "'%s names no team'.format([object.metadata.name])", "message": "it names no team"
    });
    let resources = json!({"cpu": {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}}});
    sandbox.put_policy(&policy(namespace, namespace, &json!({"customRules": [rule], "resources": resources})));
    let refused = sandbox.apply(&model_server("api")).fails();
    insta::assert_snapshot!(refused.stderr);
    let mut with_team = model_server("api");
    with_team["metadata"]["labels"]["team"] = "search".into();
    sandbox.apply(&with_team).succeeds();
}
