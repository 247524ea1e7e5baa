//! The reports of namespaces, on a real API server with the definitions that others carry.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use std::process::Command;

use common::{
    ControlPlane, SOON, Sandbox, Tidegate, container, free_addresses, in_tree, model_server, serving, wait_for,
};
use serde_json::{Value, json};

/// The files of the definitions: of openreports.io, then of wgpolicyk8s.io.
fn definitions() -> [String; 2] {
    let told = Command::new(in_tree("dev/reports/definitions")).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let files: Vec<String> = String::from_utf8(told.stdout).unwrap().lines().map(str::to_owned).collect();
    files.try_into().unwrap()
}

fn report(sandbox: &Sandbox, kind: &str, holds: impl Fn(&Value) -> bool) -> Value {
    wait_for(&format!("the {kind} to tell"), SOON, || sandbox.get(kind, "tidegate").filter(&holds))
}

#[test]
#[ignore = "needs the control plane"]
fn a_namespace_has_one_report_of_the_kind_that_is_served() {
    let plane = ControlPlane::start(&[]);
    let [open_reports, policy_reports] = definitions();
    plane.kubectl(&["apply", "-f", &policy_reports], "").succeeds();
    let addresses @ [listen, _] = free_addresses();
    let url = format!("https://{listen}");
    let arguments = ["--webhook-url", &url, "--policy-reports"];
    let _tidegate = Tidegate::run(&plane, &plane.kubeconfig(), addresses, &arguments);
    let sandbox = Sandbox::on(&plane, None, "reported");
    let mut wrong = model_server("wrong");
    container(&mut wrong)["image"] = "registry.example.com/api:latest".into();
    sandbox.apply(&wrong).succeeds();
    sandbox.apply(&serving("reported")).succeeds();

    let told = |found: &Value| found["summary"]["fail"].as_i64().is_some_and(|count| count > 0);
    let found = report(&sandbox, "PolicyReport", told);
    let results = found["results"].as_array().unwrap();
    let floating = results.iter().find(|result| result["rule"] == "floating-tag").unwrap();
    let about = json!([{
        "apiVersion": "apps/v1", "kind": "Deployment", "namespace": "reported", "name": "wrong",
        "uid": sandbox.deployment("wrong")["metadata"]["uid"]
    }]);
    assert_eq!(
        (&floating["result"], &floating["severity"], &floating["policy"], &floating["resources"]),
        (&json!("fail"), &json!("high"), &json!("reported"), &about)
    );

    // The newer kind is preferred from the moment on in which it is served.
    plane.kubectl(&["apply", "-f", &open_reports], "").succeeds();
    assert_eq!(report(&sandbox, "Report", told)["source"], "tidegate");
    sandbox.kubectl(&["delete", "deployment", "wrong"]).succeeds();
    wait_for("the report to go", SOON, || sandbox.get("Report", "tidegate").is_none().then_some(()));
}
