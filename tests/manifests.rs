//! `kubectl apply -k manifests/base` on a real cluster.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use common::{
    ControlPlane, SOON, Sandbox, Tidegate, condition, env, free_addresses, in_tree, kubeconfig_of_account,
    model_server, point_service_to, wait_until,
};
use serde_json::{Value, json};

const CONFIGURATIONS: [&str; 2] = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

#[test]
#[ignore = "needs the control plane"]
fn the_manifests_install_tidegate_with_sufficient_permissions() {
    let plane = ControlPlane::start(&[]);
    let base = in_tree("manifests/base");
    plane.kubectl(&["apply", "-k", &base], "").succeeds().says_nothing();
    plane.kubectl(&["apply", "-k", &base], "").succeeds().says_nothing();
    wait_until("the pod to be admitted and run", SOON, || {
        let deployment = plane.api.get("Deployment", "tidegate-system", "tidegate").unwrap();
        condition(&deployment, "Available")["status"] == "True"
    });

    // The pod is simulated, so no webhook answers yet.
    let sandbox = Sandbox::on(&plane, None, "installed");
    sandbox.apply(&model_server("api")).fails().says("failed calling webhook \"validate.tidegate.dev\"");
    plane.kubectl(&["--namespace", "tidegate-system", "apply", "-f", "-"], &model_server("own").to_string()).succeeds();

    let addresses @ [listen, _] = free_addresses();
    point_service_to(&plane, listen);
    let tidegate = Tidegate::run(&plane, &kubeconfig_of_account(&plane), addresses, &[]);
    wait_until("tidegate to be ready", SOON, || tidegate.is_ready());
    let mut policy = common::serving("installed");
    policy["spec"]["disruptionBudget"] = json!({});
    sandbox.put_policy(&policy);
    sandbox.apply(&model_server("api")).succeeds().says_nothing();
    assert_eq!(env(&sandbox.container("api"), "PGHOST")["value"], "acid-api");
    sandbox.autoscaler("api");
    wait_until("its budget", SOON, || sandbox.get("PodDisruptionBudget", "api-tidegate").is_some());
    sandbox.database("api");
    sandbox.model_server("api", "the database", |server| server["status"]["database"]["name"] == "acid-api");
    let exception = json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "ServingException", "metadata": {"name": "pilot"},
        "spec": {"workloads": {"names": ["api"]}, "rules": ["floating-tag"], "reason": "a pilot", "expires": "2100-01-01T00:00:00Z"}
    });
    sandbox.apply(&exception).succeeds().says_nothing();
    wait_until("the exception to be active", SOON, || {
        let exception = plane.api.get("ServingException", "installed", "pilot").unwrap();
        condition(&exception, "Active")["status"] == "True"
    });
    let mut stateful = model_server("stateful");
    stateful["kind"] = "StatefulSet".into();
    stateful["spec"]["serviceName"] = "stateful".into();
    sandbox.apply(&stateful).succeeds().says_nothing();
    wait_until("the autoscaler of a StatefulSet", SOON, || {
        sandbox.get("HorizontalPodAutoscaler", "stateful-tidegate-statefulset").is_some()
    });

    for bounds in [r#"{"spec":{"maxReplicas":50}}"#, r#"{"spec":{"maxReplicas":60}}"#] {
        sandbox.kubectl(&["patch", "hpa", "api-tidegate", "--type=merge", "--patch", bounds]).succeeds();
        wait_until("the autoscaler to be corrected", SOON, || sandbox.autoscaler("api")["spec"]["maxReplicas"] == 10);
    }
    let users = r#"{"spec":{"users":{"api":null}}}"#;
    sandbox.kubectl(&["patch", "postgresql", "acid-api", "--type=merge", "--patch", users]).succeeds();
    wait_until("the user to be added again", SOON, || !sandbox.database("api")["spec"]["users"]["api"].is_null());
    sandbox.kubectl(&["autoscale", "deployment", "api", "--name=mine", "--max=3", "--cpu=80%"]).succeeds();
    wait_until("the autoscaler of tidegate to be deleted", SOON, || {
        sandbox.get("HorizontalPodAutoscaler", "api-tidegate").is_none()
    });
    let reasons = [
        "AutoscalerCreated",
        "DatabaseCreated",
        "AutoscalerUpdated",
        "DatabaseUpdated",
        "AutoscalerDeleted",
        "AutoscalerYielded",
    ];
    for reason in reasons {
        wait_until(&format!("the event {reason}"), SOON, || {
            let events = sandbox.list("Event");
            let of_api = |event: &&Value| event["reason"] == reason && event["regarding"]["name"] == "api";
            events.iter().filter(of_api).count() == 1
        });
    }
    wait_until("the repeated event to be counted", SOON, || {
        let events = sandbox.list("Event");
        let updated = events.iter().find(|event| event["reason"] == "AutoscalerUpdated");
        updated.is_some_and(|event| event["series"]["count"].as_i64() >= Some(2))
    });
    assert!(!tidegate.log().contains("orbidden"), "{}", tidegate.log());

    tidegate.stop();
    for kind in CONFIGURATIONS {
        let configuration = plane.api.get(kind, "", "tidegate").unwrap();
        assert!(configuration["webhooks"][0]["clientConfig"]["caBundle"].is_string(), "{kind}");
    }
    sandbox.apply(&model_server("new")).fails().says("failed calling webhook");
    plane.kubectl(&["delete", "-k", &base, "--wait=false"], "").succeeds();
    wait_until("the configurations to be deleted", SOON, || {
        CONFIGURATIONS.iter().all(|kind| plane.api.get(kind, "", "tidegate").is_none())
    });
    sandbox.apply(&model_server("new")).succeeds().says_nothing();
}
