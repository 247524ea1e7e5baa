//! Engine `keda` with KEDA itself: its operator, its metrics adapter and its admission webhooks, on a real API server with the
//! real controllers. Only Prometheus is played.

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

/// How long what KEDA made for a ScaledObject may outlive that: the garbage collector looks for new kinds, as KEDA's are here,
/// every half minute.
const COLLECTED: Duration = Duration::from_secs(90);

/// KEDA looks once a second, and the autoscaler takes replicas away at once.
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

/// What has a workload scaled to zero: a gateway counts what waits.
fn to_zero() -> Value {
    json!({"minReplicas": 0, "keda": {"query": r#"sum(queued{service="{name}"})"#}})
}

/// A ScaledObject of the author's.
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

/// Waits until the ModelServer gives this reason for how its autoscaler stands.
#[track_caller]
fn told(sandbox: &Sandbox, workload: &str, reason: &str) -> Value {
    sandbox.model_server(workload, reason, |server| condition(server, "AutoscalerReady")["reason"] == reason)
}

/// Waits until KEDA keeps a ScaledObject.
#[track_caller]
fn taken(sandbox: &Sandbox, name: &str) -> Value {
    wait_for(&format!("KEDA to take {name}"), SOON, || {
        sandbox.get("ScaledObject", name).filter(|found| condition(found, "Ready")["status"] == "True")
    })
}

#[test]
#[ignore = "needs the control plane"]
fn a_server_is_scaled_by_what_prometheus_says_to_zero_and_back() {
    Keda::shared();
    let (sandbox, prometheus) = (Sandbox::without_policy("scaled"), Prometheus::saying(20));
    sandbox.put_policy(&policy("scaled", &prometheus, &to_zero()));
    sandbox.apply(&vllm("llm")).succeeds();
    taken(&sandbox, "llm-tidegate");
    sandbox.scaled_to("llm", 4);
    assert_eq!(names(&sandbox, HPA), ["keda-hpa-llm-tidegate"]);
    assert!(prometheus.asked().contains("query=sum%28queued%7Bservice%3D%22llm%22%7D%29"), "{}", prometheus.asked());
    let server = told(&sandbox, "llm", "ScalingActive");
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
fn a_new_server_for_which_nothing_waits_has_the_cooldown_before_it_goes() {
    Keda::shared();
    let (sandbox, prometheus) = (Sandbox::without_policy("fresh"), Prometheus::saying(0));
    let mut autoscaling = to_zero();
    autoscaling["keda"]["cooldownPeriod"] = 15.into();
    sandbox.put_policy(&policy("fresh", &prometheus, &autoscaling));
    sandbox.apply(&vllm("llm")).succeeds();
    wait_until("KEDA to see that nothing waits", SOON, || {
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
fn while_prometheus_does_not_answer_the_fallback_holds() {
    Keda::shared();
    let (sandbox, prometheus) = (Sandbox::without_policy("fallback"), Prometheus::saying(5));
    let autoscaling = json!({"minReplicas": 1, "keda": {"fallback": {"failureThreshold": 2, "replicas": 3}}});
    sandbox.put_policy(&policy("fallback", &prometheus, &autoscaling));
    sandbox.apply(&vllm("llm")).succeeds();
    taken(&sandbox, "llm-tidegate");
    told(&sandbox, "llm", "ScalingActive");
    assert_eq!(sandbox.deployment("llm")["spec"]["replicas"], 1);
    assert!(prometheus.asked().contains("query=sum%28vllm%3Anum_requests_waiting%7Bnamespace%3D%22fallback%22"));

    prometheus.fails();
    sandbox.scaled_to("llm", 3);
    let server = told(&sandbox, "llm", "Fallback");
    assert_eq!(condition(&server, "AutoscalerReady")["status"], "False");
    prometheus.says(5);
    told(&sandbox, "llm", "ScalingActive");
    sandbox.scaled_to("llm", 1);
}

/// What becomes of the autoscalers of a namespace, every change of it.
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

    /// Returns which autoscalers were there at the same time, for each change.
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
fn from_engine_to_engine_a_server_never_has_two_autoscalers() {
    Keda::shared();
    let (sandbox, prometheus) = (Sandbox::without_policy("handed-over"), Prometheus::saying(10));
    let watched = Watched::begin(&sandbox);
    let engine = |engine: &str| sandbox.put_policy(&policy("handed-over", &prometheus, &json!({"engine": engine})));
    engine("hpa");
    sandbox.apply(&vllm("llm")).succeeds();
    sandbox.autoscaler("llm");
    for _ in 0..2 {
        engine("keda");
        taken(&sandbox, "llm-tidegate");
        wait_until("KEDA's autoscaler", SOON, || names(&sandbox, HPA) == ["keda-hpa-llm-tidegate"]);
        sandbox.scaled_to("llm", 2);
        told(&sandbox, "llm", "ScalingActive");

        engine("hpa");
        wait_until("our autoscaler", COLLECTED, || names(&sandbox, HPA) == ["llm-tidegate"]);
        assert!(names(&sandbox, "ScaledObject").is_empty());
        told(&sandbox, "llm", "ScalingActive");
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
fn a_scaled_object_of_the_authors_wins_over_our_autoscaler() {
    Keda::shared();
    let (sandbox, prometheus) = (Sandbox::without_policy("theirs"), Prometheus::saying(10));
    sandbox.put_policy(&policy("theirs", &prometheus, &json!({"engine": "hpa"})));
    sandbox.apply(&model_server("api")).succeeds();
    sandbox.autoscaler("api");
    // KEDA refuses it beside any autoscaler that does not say that it yields.
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
    wait_until("ours to give way", SOON, || names(&sandbox, HPA) == ["keda-hpa-mine-api", "other"]);
    let server = told(&sandbox, "api", "Yielded");
    let autoscaler = json!({"kind": "ScaledObject", "name": "mine-api", "managedBy": "user"});
    assert_eq!(server["status"]["autoscaler"], autoscaler);
    sandbox.scaled_to("api", 2);

    // In the same apply it wins from the start.
    let both = json!({"apiVersion": "v1", "kind": "List", "items": [model_server("both"), mine("both", &prometheus)]});
    sandbox.apply(&both).succeeds();
    told(&sandbox, "both", "Yielded");
    taken(&sandbox, "mine-both");
    assert_eq!(names(&sandbox, HPA), ["keda-hpa-mine-api", "keda-hpa-mine-both", "other"]);
}

#[test]
#[ignore = "needs the control plane"]
fn a_scaled_object_of_the_authors_takes_the_place_of_ours_once_they_say_so() {
    Keda::shared();
    let (sandbox, prometheus) = (Sandbox::without_policy("instead"), Prometheus::saying(10));
    sandbox.put_policy(&policy("instead", &prometheus, &json!({})));
    sandbox.apply(&vllm("llm")).succeeds();
    taken(&sandbox, "llm-tidegate");
    wait_until("KEDA's autoscaler", SOON, || names(&sandbox, HPA) == ["keda-hpa-llm-tidegate"]);
    let theirs = mine("llm", &prometheus);
    // By the ScaledObject or by KEDA's autoscaler for it: the webhook looks at either first.
    sandbox.apply(&theirs).fails().says("the workload 'llm' of type 'apps/v1.Deployment' is already managed by the ");

    sandbox.kubectl(&["annotate", "deployment", "llm", "tidegate.dev/autoscaling=external"]).succeeds();
    told(&sandbox, "llm", "Declined");
    wait_until("ours to go, with KEDA's", COLLECTED, || {
        names(&sandbox, "ScaledObject").is_empty() && names(&sandbox, HPA).is_empty()
    });
    // KEDA's webhook may hear of it a little later.
    wait_until("theirs to be accepted", SOON, || sandbox.apply(&theirs).code == 0);
    taken(&sandbox, "mine-llm");
    told(&sandbox, "llm", "Yielded");
    sandbox.kubectl(&["annotate", "deployment", "llm", "tidegate.dev/autoscaling-"]).succeeds();

    // Beside what KEDA made for theirs its webhook would refuse ours, however long that stays.
    let held = |by: &Value| {
        let patch = json!({"metadata": {"finalizers": by}}).to_string();
        sandbox.kubectl(&["patch", "hpa", "keda-hpa-mine-llm", "--type=merge", "--patch", &patch]).succeeds();
    };
    held(&json!(["tidegate.dev/held-by-a-test"]));
    sandbox.kubectl(&["delete", "scaledobject", "mine-llm"]).succeeds();
    let is_awaited = |server: &Value| {
        let told = condition(server, "AutoscalerReady")["message"].as_str().unwrap_or_default();
        told == "waiting for the deletion of the HorizontalPodAutoscaler that KEDA created"
    };
    sandbox.model_server("llm", "that KEDA's autoscaler goes first", is_awaited);
    sleep(Duration::from_secs(5));
    assert!(is_awaited(&sandbox.get("ModelServer", "llm").unwrap()), "it waits for longer than things take to settle");
    held(&Value::Null);
    taken(&sandbox, "llm-tidegate");
    wait_until("KEDA's autoscaler for ours", SOON, || names(&sandbox, HPA) == ["keda-hpa-llm-tidegate"]);
}
