//! One case of each subject through kubectl on a real API server: a violation is refused, a valid workload is stored.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use std::fs;

use common::{SOON, Sandbox, in_tree, wait_for, wait_until};
use serde_json::{Value, json};
use tidegate_engine::rules;

/// A rule of each subject whose violations the API server itself accepts.
const RULES: [&str; 13] = [
    "annotations/annotation-out-of-bounds",
    "autoscaling/memory-scaling",
    "database/literal-database-credentials",
    "images/untrusted-registry",
    "membership/model-server-label-removed",
    "models/remote-code-without-revision",
    "probes/liveness-before-load",
    "resources/gpu-count-mismatch",
    "rollout/missing-disruption-budget",
    "routing/pool-port-not-served",
    "runtime/service-link-collision",
    "security/secret-in-env",
    "storage/single-writer-volume",
];

/// Returns the objects in a file of a case, with the workload last.
fn objects(case: &str, file: &str) -> Vec<Value> {
    let text = fs::read_to_string(in_tree(&format!("tests/cases/{case}/{file}"))).unwrap();
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    objects.sort_by_key(|object| object["kind"] == "Deployment");
    objects
}

/// Returns the policy of a case, with only its rule enabled.
fn policy(case: &str, rule: &str) -> Value {
    let own = fs::read_to_string(in_tree(&format!("tests/cases/{case}/policy.yaml")));
    let mut policy = own.map_or_else(
        |_| json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": "ServingPolicy", "spec": {}}),
        |text| serde_saphyr::from_str(&text).unwrap(),
    );
    policy["metadata"] = json!({"name": "cases"});
    policy["spec"]["match"] = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ml"}}});
    for id in rules::ALL.iter().map(|found| found.id()) {
        let enforcement = if id == rule { "enforce" } else { "off" };
        policy["spec"]["rules"][id]["enforcement"] = enforcement.into();
    }
    policy
}

fn put(sandbox: &Sandbox, objects: &[Value]) {
    for object in objects {
        sandbox.apply(object).succeeds();
    }
}

#[test]
#[ignore = "needs the control plane"]
fn refuses_a_bad_case_of_each_subject_and_admits_a_good_one() {
    let sandbox = Sandbox::without_policy("ml");
    for case in RULES {
        let rule = case.split('/').next_back().unwrap();
        sandbox.put_policy(&policy(case, rule));
        let old = in_tree(&format!("tests/cases/{case}/old.yaml"));
        if fs::exists(&old).unwrap() {
            put(&sandbox, &objects(case, "old.yaml"));
        }
        let (mut bad, mut good) = (objects(case, "bad.yaml"), objects(case, "good.yaml"));
        let (bad_workload, good_workload) = (bad.pop().unwrap(), good.pop().unwrap());
        put(&sandbox, &bad);
        let says = format!("1. {rule}");
        // The other objects have to be observed first.
        let refused = wait_for(&format!("{rule} to be refused"), SOON, || {
            let tried = sandbox.kubectl_with(&["apply", "--dry-run=server", "-f", "-"], &bad_workload);
            (tried.code != 0).then_some(tried)
        });
        refused.says(&says);
        sandbox.apply(&bad_workload).fails().says(&says);
        for object in &bad {
            sandbox.kubectl_with(&["delete", "-f", "-"], object).succeeds();
        }
        put(&sandbox, &good);
        wait_until(&format!("what is right for {rule} to be admitted"), SOON, || {
            sandbox.kubectl_with(&["apply", "--dry-run=server", "-f", "-"], &good_workload).code == 0
        });
        sandbox.apply(&good_workload).succeeds();
        for object in good.iter().chain([&good_workload]) {
            sandbox.kubectl_with(&["delete", "-f", "-"], object).succeeds();
        }
    }
}
