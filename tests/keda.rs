//! Engine `keda` with KEDA itself: its operator, its metrics adapter and its admission webhooks, on a real API server
//! with the real controllers. Only Prometheus is a fake.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;

use common::{Keda, Prometheus, SOON, Sandbox, condition, model_server, serving, vllm, wait_for, wait_until};
use serde_json::{Value, json};

const HPA: &str = "HorizontalPodAutoscaler";

/// How long KEDA's objects may outlive their ScaledObject: the garbage collector discovers new kinds, as KEDA's are
/// here, every half minute.
const COLLECTED: Duration = Duration::from_secs(90);

/// A policy with which KEDA polls every second, and the autoscaler scales down at once.
fn policy(namespace: &str, prometheus: &Prometheus, autoscaling: &Value) -> Value {
    let mut policy = serving(namespace);
    let keda = json!({"serverAddress": prometheus.url(), "pollingInterval": 1, "cooldownPeriod": 3});
    let cpu = json!({"name": "cpu", "target": {"type": "AverageValue", "averageValue": "1"}});
    let all = json!({
        "engine": "keda", "maxReplicas": 4, "keda": keda, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        "metrics": [{"type": "ContainerResource", "containerResource": cpu}]
    });
    policy["spec"] = json!({"match": policy["spec"]["match"], "enforcement": "warn", "autoscaling": all});
    json_patch::merge(&mut policy["spec"]["autoscaling"], autoscaling);
    policy
}

/// The settings to scale a workload to zero, by a query for waiting requests.
fn to_zero() -> Value {
    json!({"minReplicas": 0, "keda": {"query": r#"sum(queued{service="{name}"})"#}})
}

/// A ScaledObject of the user.
fn mine(workload: &str, prometheus: &Prometheus) -> Value {
    let asked = json!({"serverAddress": prometheus.url(), "query": "sum(mine)", "threshold": "5"});
    json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": format!("mine-{workload}")},
        "spec": {
            "scaleTargetRef": {"name": workload}, "minReplicaCount": 1, "maxReplicaCount": 3,
            "triggers": [{"type": "prometheus", "metadata": asked}]
        }
    })
}

fn names(sandbox: &Sandbox, kind: &str) -> Vec<String> {
    let listed = sandbox.list(kind);
    listed.iter().map(|found| found["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// Waits until the ModelServer has this reason in `AutoscalerReady`.
#[track_caller]
fn wait_for_reason(sandbox: &Sandbox, workload: &str, reason: &str) -> Value {
    sandbox.model_server(workload, reason, |server| condition(server, "AutoscalerReady")["reason"] == reason)
}

/// Waits until KEDA reports a ScaledObject as ready.
#[track_caller]
fn wait_until_ready(sandbox: &Sandbox, name: &str) -> Value {
    wait_for(&format!("ScaledObject {name} to be ready"), SOON, || {
        sandbox.get("ScaledObject", name).filter(|found| condition(found, "Ready")["status"] == "True")
    })
}

#[test]
#[ignore = "needs the control plane"]
fn scales_by_a_prometheus_query_to_zero_and_back() {
    Keda::shared();
    let (sandbox, prometheus) = (Sandbox::without_policy("scaled"), Prometheus::saying(20));
    sandbox.put_policy(&policy("scaled", &prometheus, &to_zero()));
    sandbox.apply(&vllm("llm")).succeeds();
    wait_until_ready(&sandbox, "llm-tidegate");
    sandbox.scaled_to("llm", 4);
    assert_eq!(names(&sandbox, HPA), ["keda-hpa-llm-tidegate"]);
    assert!(prometheus.asked().contains("query=sum%28queued%7Bservice%3D%22llm%22%7D%29"), "{}", prometheus.asked());
    let server = wait_for_reason(&sandbox, "llm", "ScalingActive");
    let autoscaler = json!({"kind": "ScaledObject", "name": "llm-tidegate", "managedBy": "tidegate"});
    assert_eq!(server["status"]["autoscaler"], autoscaler);

    prometheus.says(0);
    sandbox.scaled_to("llm", 0);
    sandbox.model_server("llm", "that it is ready without a pod", |server| {
        server["status"]["replicas"]["now"] == 0 && condition(server, "Ready")["status"] == "True"
    });
    prometheus.says(7);
    sandbox.scaled_to("llm", 2);
}

#[test]
#[ignore = "needs the control plane"]
fn a_new_server_without_requests_scales_to_zero_after_the_cooldown() {
    Keda::shared();
    let (sandbox, prometheus) = (Sandbox::without_policy("fresh"), Prometheus::saying(0));
    let mut autoscaling = to_zero();
    autoscaling["keda"]["cooldownPeriod"] = 15.into();
    sandbox.put_policy(&policy("fresh", &prometheus, &autoscaling));
    sandbox.apply(&vllm("llm")).succeeds();
    wait_until("KEDA to see that no request waits", SOON, || {
        sandbox
            .get("ScaledObject", "llm-tidegate")
            .is_some_and(|found| condition(&found, "Active")["reason"] == "ScalerCooldown")
    });
    sleep(Duration::from_secs(5));
    assert_eq!(sandbox.deployment("llm")["spec"]["replicas"], 1, "its model may not even be loaded");
    sandbox.scaled_to("llm", 0);
}

#[test]
#[ignore = "needs the control plane"]
fn uses_the_fallback_while_prometheus_does_not_answer() {
    Keda::shared();
    let (sandbox, prometheus) = (Sandbox::without_policy("fallback"), Prometheus::saying(5));
    let autoscaling = json!({"minReplicas": 1, "keda": {"fallback": {"failureThreshold": 2, "replicas": 3}}});
    sandbox.put_policy(&policy("fallback", &prometheus, &autoscaling));
    sandbox.apply(&vllm("llm")).succeeds();
    wait_until_ready(&sandbox, "llm-tidegate");
    wait_for_reason(&sandbox, "llm", "ScalingActive");
    assert_eq!(sandbox.deployment("llm")["spec"]["replicas"], 1);
    assert!(prometheus.asked().contains("query=sum%28vllm%3Anum_requests_waiting%7Bnamespace%3D%22fallback%22"));

    prometheus.fails();
    sandbox.scaled_to("llm", 3);
    let server = wait_for_reason(&sandbox, "llm", "Fallback");
    assert_eq!(condition(&server, "AutoscalerReady")["status"], "False");
    prometheus.says(5);
    wait_for_reason(&sandbox, "llm", "ScalingActive");
    sandbox.scaled_to("llm", 1);
}

/// All changes of the autoscalers in a namespace.
struct Watched {
    kubectl: Child,
    seen: PathBuf,
}

impl Watched {
    fn begin(sandbox: &Sandbox) -> Self {
        let seen = sandbox.plane.new_folder().join("autoscalers");
        let mut command = sandbox.plane.kubectl_command();
        command.args([
            "--namespace",
            sandbox.namespace,
            "get",
            "hpa",
            "--watch",
            "--output-watch-events",
            "-o",
            "json",
        ]);
        let kubectl = command.stdin(Stdio::null()).stdout(File::create(&seen).unwrap()).spawn().unwrap();
        Self { kubectl, seen }
    }

    /// Returns which autoscalers existed at the same time, after each change.
    fn together(&self) -> Vec<BTreeSet<String>> {
        let seen = fs::read_to_string(&self.seen).unwrap();
        let events = serde_json::Deserializer::from_str(&seen).into_iter::<Value>().map_while(Result::ok);
        let mut there = BTreeSet::new();
        events
            .map(|event| {
                let name = event["object"]["metadata"]["name"].as_str().unwrap().to_owned();
                if event["type"] == "DELETED" {
                    there.remove(&name)
                } else {
                    there.insert(name)
                };
                there.clone()
            })
            .collect()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

#[test]
#[ignore = "needs the control plane"]
fn never_has_two_autoscalers_when_the_engine_changes() {
    Keda::shared();
    let (sandbox, prometheus) = (Sandbox::without_policy("handed-over"), Prometheus::saying(10));
    let watched = Watched::begin(&sandbox);
    let engine = |engine: &str| sandbox.put_policy(&policy("handed-over", &prometheus, &json!({"engine": engine})));
    engine("hpa");
    sandbox.apply(&vllm("llm")).succeeds();
    sandbox.autoscaler("llm");
    for _ in 0..2 {
        engine("keda");
        wait_until_ready(&sandbox, "llm-tidegate");
        wait_until("KEDA's autoscaler", SOON, || names(&sandbox, HPA) == ["keda-hpa-llm-tidegate"]);
        sandbox.scaled_to("llm", 2);
        wait_for_reason(&sandbox, "llm", "ScalingActive");

        engine("hpa");
        wait_until("tidegate's autoscaler", COLLECTED, || names(&sandbox, HPA) == ["llm-tidegate"]);
        assert!(names(&sandbox, "ScaledObject").is_empty());
        wait_for_reason(&sandbox, "llm", "ScalingActive");
    }
    wait_until("all changes to be seen", SOON, || {
        watched.together().iter().filter(|there| there.is_empty()).count() >= 4
    });
    for there in watched.together() {
        assert!(there.len() < 2, "together: {there:?}");
    }
}

#[test]
#[ignore = "needs the control plane"]
fn a_users_scaled_object_takes_precedence() {
    Keda::shared();
    let (sandbox, prometheus) = (Sandbox::without_policy("theirs"), Prometheus::saying(10));
    sandbox.put_policy(&policy("theirs", &prometheus, &json!({"engine": "hpa"})));
    sandbox.apply(&model_server("api")).succeeds();
    sandbox.autoscaler("api");
    // KEDA refuses it next to any other autoscaler that is not annotated to hand over.
    let other = json!({
        "apiVersion": "autoscaling/v2", "kind": HPA, "metadata": {"name": "other"},
        "spec": {"maxReplicas": 2, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "other"}}
    });
    sandbox.apply(&other).succeeds();
    let refused = "the workload 'other' of type 'apps/v1.Deployment' is already managed by the hpa 'other'";
    wait_until("KEDA to refuse a second autoscaler", SOON, || {
        sandbox
            .kubectl_with(&["create", "--dry-run=server", "-f", "-"], &mine("other", &prometheus))
            .stderr
            .contains(refused)
    });

    sandbox.apply(&mine("api", &prometheus)).succeeds();
    wait_until("tidegate's autoscaler to be deleted", SOON, || names(&sandbox, HPA) == ["keda-hpa-mine-api", "other"]);
    let server = wait_for_reason(&sandbox, "api", "Yielded");
    let autoscaler = json!({"kind": "ScaledObject", "name": "mine-api", "managedBy": "user"});
    assert_eq!(server["status"]["autoscaler"], autoscaler);
    sandbox.scaled_to("api", 2);

    // In the same apply, it takes precedence from the start.
    let both = json!({"apiVersion": "v1", "kind": "List", "items": [model_server("both"), mine("both", &prometheus)]});
    sandbox.apply(&both).succeeds();
    wait_for_reason(&sandbox, "both", "Yielded");
    wait_until_ready(&sandbox, "mine-both");
    assert_eq!(names(&sandbox, HPA), ["keda-hpa-mine-api", "keda-hpa-mine-both", "other"]);
}

#[test]
#[ignore = "needs the control plane"]
fn a_users_scaled_object_replaces_tidegates_after_the_annotation() {
    Keda::shared();
    let (sandbox, prometheus) = (Sandbox::without_policy("instead"), Prometheus::saying(10));
    sandbox.put_policy(&policy("instead", &prometheus, &json!({})));
    sandbox.apply(&vllm("llm")).succeeds();
    wait_until_ready(&sandbox, "llm-tidegate");
    wait_until("KEDA's autoscaler", SOON, || names(&sandbox, HPA) == ["keda-hpa-llm-tidegate"]);
    let theirs = mine("llm", &prometheus);
    // By the ScaledObject or by KEDA's autoscaler for it: the webhook checks either first.
    sandbox.apply(&theirs).fails().says("the workload 'llm' of type 'apps/v1.Deployment' is already managed by the ");

    sandbox.kubectl(&["annotate", "deployment", "llm", "tidegate.dev/autoscaling=external"]).succeeds();
    wait_for_reason(&sandbox, "llm", "Declined");
    wait_until("tidegate's ScaledObject and KEDA's autoscaler to be deleted", COLLECTED, || {
        names(&sandbox, "ScaledObject").is_empty() && names(&sandbox, HPA).is_empty()
    });
    // KEDA's webhook may see that a little later.
    wait_until("the user's ScaledObject to be accepted", SOON, || sandbox.apply(&theirs).code == 0);
    wait_until_ready(&sandbox, "mine-llm");
    wait_for_reason(&sandbox, "llm", "Yielded");
    sandbox.kubectl(&["annotate", "deployment", "llm", "tidegate.dev/autoscaling-"]).succeeds();

    // KEDA's webhook would refuse tidegate's ScaledObject while KEDA's autoscaler for the user's exists.
    let held = |by: &Value| {
        let patch = json!({"metadata": {"finalizers": by}}).to_string();
        sandbox.kubectl(&["patch", "hpa", "keda-hpa-mine-llm", "--type=merge", "--patch", &patch]).succeeds();
    };
    held(&json!(["tidegate.dev/held-by-a-test"]));
    sandbox.kubectl(&["delete", "scaledobject", "mine-llm"]).succeeds();
    let is_awaited = |server: &Value| {
        let message = condition(server, "AutoscalerReady")["message"].as_str().unwrap_or_default();
        message == "waiting for the deletion of the HorizontalPodAutoscaler that KEDA created"
    };
    sandbox.model_server("llm", "that KEDA's autoscaler is deleted first", is_awaited);
    sleep(Duration::from_secs(5));
    assert!(is_awaited(&sandbox.get("ModelServer", "llm").unwrap()), "it waits for longer than the settle time");
    held(&Value::Null);
    wait_until_ready(&sandbox, "llm-tidegate");
    wait_until("KEDA's autoscaler for tidegate's ScaledObject", SOON, || {
        names(&sandbox, HPA) == ["keda-hpa-llm-tidegate"]
    });
}
