//! Autoscalers on custom metrics, budgets, and workloads that ran before Tidegate, on a real API server with the real
//! controllers.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{
    ControlPlane, Output, SOON, Sandbox, built, condition, container, free_addresses, keda_source, model_server,
    serving, wait_for, wait_until,
};
use serde_json::{Value, json};

const BUDGET: &str = "PodDisruptionBudget";

/// Returns the policy of a namespace with only these settings.
fn policy(namespace: &str, spec: &Value) -> Value {
    let mut policy = serving(namespace);
    let selected = policy["spec"]["match"].clone();
    policy["spec"] = spec.clone();
    policy["spec"]["match"] = selected;
    policy["spec"]["enforcement"] = "warn".into();
    policy
}

fn budgets(sandbox: &Sandbox) -> Vec<String> {
    names(&sandbox.list(BUDGET))
}

fn autoscalers(sandbox: &Sandbox) -> Vec<String> {
    names(&sandbox.list("HorizontalPodAutoscaler"))
}

fn names(objects: &[Value]) -> Vec<String> {
    objects.iter().map(|found| found["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

fn two(name: &str) -> Value {
    let mut object = model_server(name);
    object["spec"]["replicas"] = 2.into();
    object
}

#[test]
#[ignore = "needs the control plane"]
fn creates_a_budget_for_several_replicas() {
    let sandbox = Sandbox::without_policy("budgets");
    sandbox.put_policy(&policy("budgets", &json!({"disruptionBudget": {}})));
    sandbox.apply(&two("api")).succeeds();
    sandbox.apply(&model_server("one")).succeeds();
    let server = sandbox
        .model_server("api", "its budget", |server| condition(server, "DisruptionBudgetReady")["reason"] == "Made");
    assert_eq!(server["status"]["disruptionBudget"], json!({"name": "api-tidegate", "managedBy": "tidegate"}));
    sandbox.model_server("one", "that it needs none", |server| {
        condition(server, "DisruptionBudgetReady")["reason"] == "NotWanted"
    });
    assert_eq!(budgets(&sandbox), ["api-tidegate"]);
    let budget = wait_for("the budget's controller to count", SOON, || {
        sandbox.get(BUDGET, "api-tidegate").filter(|budget| budget["status"]["disruptionsAllowed"] == 1)
    });
    assert_eq!(budget["status"]["expectedPods"], 2);

    sandbox
        .kubectl(&["patch", "pdb", "api-tidegate", "--type=merge", "--patch", r#"{"spec":{"maxUnavailable":2}}"#])
        .succeeds();
    wait_until("the budget to be reverted", SOON, || {
        sandbox.get(BUDGET, "api-tidegate").is_some_and(|budget| budget["spec"]["maxUnavailable"] == 1)
    });
    sandbox.kubectl(&["delete", "deployment", "api"]).succeeds();
    wait_until("the budget to be deleted with its workload", SOON, || budgets(&sandbox).is_empty());
}

#[test]
#[ignore = "needs the control plane"]
fn a_budget_of_the_user_replaces_tidegates_until_it_is_deleted() {
    let sandbox = Sandbox::without_policy("their-budgets");
    sandbox.put_policy(&policy("their-budgets", &json!({"disruptionBudget": {}})));
    let theirs = json!({
        "apiVersion": "policy/v1", "kind": BUDGET, "metadata": {"name": "mine"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "api"}}}
    });
    sandbox.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [two("api"), theirs]})).succeeds();
    let is_theirs =
        |server: &Value| server["status"]["disruptionBudget"] == json!({"name": "mine", "managedBy": "user"});
    sandbox.model_server("api", "that the budget is the user's", is_theirs);
    sandbox.apply(&two("later")).succeeds();
    wait_until("the other's budget", SOON, || budgets(&sandbox) == ["later-tidegate", "mine"]);

    sandbox.kubectl(&["delete", "pdb", "mine"]).succeeds();
    wait_until("Tidegate's to be created", SOON, || budgets(&sandbox) == ["api-tidegate", "later-tidegate"]);
    sandbox.apply(&theirs).succeeds();
    wait_until("Tidegate's to be deleted", SOON, || budgets(&sandbox) == ["later-tidegate", "mine"]);
}

#[test]
#[ignore = "needs the control plane"]
fn a_lowered_maximum_stops_no_pod() {
    let namespace = "held";
    let sandbox = Sandbox::without_policy(namespace);
    // Whatever the metrics are, the autoscaler removes no replica except for its own maxReplicas.
    let of = |most: i64| {
        let target = json!({"type": "AverageValue", "averageValue": "1"});
        let metrics = json!([{"type": "ContainerResource", "containerResource": {"name": "cpu", "target": target}}]);
        let behavior = json!({"scaleDown": {"selectPolicy": "Disabled"}});
        policy(namespace, &json!({"autoscaling": {"maxReplicas": most, "metrics": metrics, "behavior": behavior}}))
    };
    let most = |count: i64| {
        wait_until(&format!("the autoscaler to have at most {count}"), SOON, || {
            sandbox.autoscaler("api")["spec"]["maxReplicas"] == count
        });
    };
    let scale = |count: i64| {
        sandbox.kubectl(&["scale", "deployment", "api", &format!("--replicas={count}")]).succeeds();
    };
    let held =
        |server: &Value| condition(server, "AutoscalerReady")["message"].to_string().contains("Tidegate stops none");
    let in_bounds = |is: &str| {
        wait_until(&format!("the policy's status to say {is}"), SOON, || {
            let policy = sandbox.plane.api.get("ServingPolicy", "", namespace).unwrap();
            condition(&policy, "ReplicasInBounds")["status"] == is
        });
    };
    sandbox.put_policy(&of(6));
    sandbox.apply(&model_server("api")).succeeds();
    most(6);
    scale(5);
    sandbox.rolled_out("api");
    in_bounds("True");

    let told =
        "1 model server has more replicas than maxReplicas allows: Deployment held/api (5); no replica is stopped";
    sandbox.kubectl_with(&["apply", "-f", "-"], &of(2)).succeeds().says(told);
    most(5);
    sandbox.model_server("api", "that its replicas are kept", held);
    in_bounds("False");
    // The autoscaler controller runs every few seconds.
    std::thread::sleep(std::time::Duration::from_secs(10));
    assert_eq!((&sandbox.deployment("api")["spec"]["replicas"], pods(&sandbox).len()), (&json!(5), 5));

    // Replicas that the user removes do not come back.
    scale(3);
    most(3);
    scale(6);
    sandbox.scaled_to("api", 3);
    scale(2);
    most(2);
    sandbox.model_server("api", "that it is within the policy's bounds", |server| !held(server));
    in_bounds("True");
    scale(4);
    sandbox.scaled_to("api", 2);
    most(2);
}

/// Runs tidegate as a user in a shell.
fn tidegate(sandbox: &Sandbox, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments).args(["--namespace", sandbox.namespace]).env("KUBECONFIG", sandbox.plane.kubeconfig());
    Output::of(command, "")
}

#[test]
#[ignore = "needs the control plane"]
fn lists_and_adopts_existing_workloads_without_restarting_pods() {
    let sandbox = Sandbox::without_policy("adopted");
    // Without an active policy, nothing is injected, as before Tidegate was installed.
    sandbox.apply(&two("api")).succeeds();
    sandbox.apply(&two("other")).succeeds();
    let before = sandbox.rolled_out("api");
    let metrics = json!([{"type": "ContainerResource", "containerResource":
        {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "1"}}}]);
    let spec = json!({"autoscaling": {"metrics": metrics}, "disruptionBudget": {}, "probes": {}});
    sandbox.put_policy(&policy("adopted", &spec));
    for name in ["api", "other"] {
        sandbox
            .model_server(name, "that it is unmanaged", |server| condition(server, "Managed")["reason"] == "Unmanaged");
    }
    let shown = tidegate(&sandbox, &["adopt", "--all"]).succeeds();
    for told in [
        "Deployment adopted/api: would be adopted\n  pod template: unchanged, no pod restarts\n",
        "  autoscaler: HorizontalPodAutoscaler api-tidegate\n  disruption budget: PodDisruptionBudget api-tidegate\n",
        "2 workloads would be adopted; pass --yes to adopt\n",
    ] {
        assert!(shown.stdout.contains(told), "{}", shown.stdout);
    }
    assert_eq!((autoscalers(&sandbox), budgets(&sandbox)), (vec![], vec![]), "it only shows");

    let adopted = tidegate(&sandbox, &["adopt", "deployment/api", "--yes"]).succeeds();
    assert!(adopted.stdout.ends_with("adopted 1 workload\n"), "{}", adopted.stdout);
    sandbox.autoscaler("api");
    wait_until("its budget", SOON, || budgets(&sandbox) == ["api-tidegate"]);
    sandbox.model_server("api", "that it is managed", |server| condition(server, "Managed")["status"] == "True");
    let after = sandbox.deployment("api");
    assert_eq!(after["spec"]["template"], before["spec"]["template"]);
    assert_eq!(sandbox.replica_sets("api"), 1);
    assert!(after["metadata"]["annotations"]["tidegate.dev/receipt"].as_str().unwrap().contains(r#""set":{}"#));
    assert_eq!(autoscalers(&sandbox), ["api-tidegate"], "the other is left alone");
    let again = tidegate(&sandbox, &["adopt", "deployment/api", "--yes"]).succeeds();
    assert!(again.stdout.contains("skipped: already managed by tidegate\nnothing to adopt\n"), "{}", again.stdout);

    // With its next change it is injected like any other.
    sandbox.kubectl(&["set", "image", "deployment", "api", "api=registry.example.com/api:2.0.0"]).succeeds();
    assert!(sandbox.container("api")["readinessProbe"].is_object());
    tidegate(&sandbox, &["adopt", "deployment/none"]).fails().says("Deployment none not found in namespace adopted");
}

#[test]
#[ignore = "needs the control plane"]
fn adopt_shows_the_next_changes_and_creates_no_unusable_autoscaler() {
    let sandbox = Sandbox::without_policy("adopted-bare");
    sandbox.apply(&model_server("api")).succeeds();
    let metrics = json!([{"type": "ContainerResource", "containerResource":
        {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 50}}}]);
    let database = json!({"provider": "cloudnative-pg", "cloudNativePg": {"storage": {"size": "1Gi"}}});
    let requests = json!({"cpu": {"requests": {"memory": "200Mi"}}});
    let spec = json!({"autoscaling": {"metrics": metrics}, "database": database, "resources": requests});
    sandbox.put_policy(&policy("adopted-bare", &spec));
    sandbox.model_server("api", "that it is unmanaged", |server| condition(server, "Managed")["reason"] == "Unmanaged");
    let shown = tidegate(&sandbox, &["adopt", "deployment/api"]).succeeds();
    for told in [
        "  autoscaler: none: container api has no memory request",
        "  database: Cluster db-api\n",
        "  with the next change of the pod template:\n",
        "    injected: containers/api/resources/requests/memory: 200Mi\n",
        "    injected: containers/api/env/PGHOST/value: db-api-rw\n",
        "    autoscaler: HorizontalPodAutoscaler api-tidegate\n",
    ] {
        assert!(shown.stdout.contains(told), "{told} in:\n{}", shown.stdout);
    }

    tidegate(&sandbox, &["adopt", "deployment/api", "--yes"]).succeeds();
    sandbox.model_server("api", "that its autoscaler could not work", |server| {
        condition(server, "AutoscalerReady")["reason"] == "NoSuitableMetric"
    });
    assert_eq!(autoscalers(&sandbox), [""; 0]);
    sandbox.kubectl(&["set", "image", "deployment", "api", "api=registry.example.com/api:2.0.0"]).succeeds();
    sandbox.autoscaler("api");
    let explained = tidegate(&sandbox, &["explain", "deployment/api"]).succeeds();
    assert_eq!(outcome(&explained, "memory-scaling"), "conforms", "the autoscaler is Tidegate's");
}

/// Returns the output of `explain` for a rule.
#[track_caller]
fn outcome(explained: &Output, rule: &str) -> String {
    let mut rows = explained.stdout.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let row = rows.find(|(found, _)| *found == rule);
    row.unwrap_or_else(|| panic!("{rule} in:\n{}", explained.stdout)).1.trim().to_owned()
}

#[test]
#[ignore = "needs the control plane"]
fn explain_considers_other_objects() {
    let plane = ControlPlane::start(&[]);
    plane.kubectl(&["apply", "--server-side", "-f", &keda_definition()], "").succeeds();
    plane.kubectl(&["wait", "--for=condition=Established", "-f", &keda_definition()], "").succeeds();
    let sandbox = Sandbox::on(&plane, None, "explained");
    sandbox.apply(&policy("explained", &json!({}))).succeeds();
    let mut object = two("api");
    object["spec"]["template"]["spec"]["volumes"] =
        json!([{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}]);
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "models"},
        "spec": {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "1Gi"}}}});
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "api"});
    let hpa = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "mine"},
        "spec": {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 4}});
    let scaled_object = json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "theirs"},
        "spec": {"scaleTargetRef": target, "triggers": [{"type": "cron", "metadata": {}}]}});
    for object in [object, claim, hpa, scaled_object] {
        sandbox.apply(&object).succeeds();
    }
    let explained = tidegate(&sandbox, &["explain", "deployment/api"]).succeeds();
    for rule in ["duplicate-autoscaler", "missing-disruption-budget", "single-writer-volume"] {
        assert!(outcome(&explained, rule).starts_with("warning"), "{rule}: {}", outcome(&explained, rule));
    }
    let budget = json!({"apiVersion": "policy/v1", "kind": BUDGET, "metadata": {"name": "mine"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "api"}}}});
    sandbox.apply(&budget).succeeds();
    let explained = tidegate(&sandbox, &["explain", "deployment/api"]).succeeds();
    assert_eq!(outcome(&explained, "missing-disruption-budget"), "conforms");

    // A user who may read only the workload, the policies and its autoscalers gets a warning about the rest.
    let resources = "--resource=namespaces,deployments.apps,servingpolicies.tidegate.dev,servingexceptions.tidegate.dev,\
                     horizontalpodautoscalers.autoscaling";
    let role = ["create", "clusterrole", "readers", "--verb=get,list", resources];
    plane.kubectl(&role, "").succeeds();
    plane.kubectl(&["create", "clusterrolebinding", "readers", "--clusterrole=readers", "--user=jane"], "").succeeds();
    let text = fs::read_to_string(plane.kubeconfig()).unwrap();
    let mut kubeconfig: Value = serde_saphyr::from_str(&text).unwrap();
    kubeconfig["users"][0]["user"]["as"] = "jane".into();
    let path = plane.new_folder().join("kubeconfig");
    fs::write(&path, kubeconfig.to_string()).unwrap();
    let explained = tidegate(&sandbox, &["explain", "deployment/api", "--kubeconfig", path.to_str().unwrap()]);
    let explained = explained.succeeds().says("not allowed to list these objects").says("PersistentVolumeClaim");
    assert_eq!(outcome(&explained, "single-writer-volume"), "conforms");
    assert_eq!(outcome(&explained, "missing-disruption-budget"), "conforms", "it was not checked");
}

/// Locks the custom metrics API, which is shared by the whole control plane.
fn custom_metrics_alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A metrics adapter that serves the metrics written to it, and stops with the test.
struct Adapter {
    process: Child,
    write: SocketAddr,
}

impl Adapter {
    /// Starts the adapter and registers it with the API server.
    fn start(plane: &ControlPlane) -> Self {
        let [serve, write] = free_addresses();
        let (kubeconfig, folder) = (plane.kubeconfig(), plane.new_folder());
        let flag = |name: &str| format!("--{name}={}", kubeconfig.display());
        let process = Command::new(built("dev/metrics-adapter/build"))
            .args(["lister-kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"].map(flag))
            .arg(format!("--secure-port={}", serve.port()))
            .args(["--bind-address=127.0.0.1", &format!("--cert-dir={}", folder.display())])
            .arg(format!("--write-address={write}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.join("log")).unwrap())
            .spawn()
            .unwrap();
        let adapter = Self { process, write };
        wait_until("the adapter to be ready", SOON, || {
            TcpStream::connect(serve).is_ok() && TcpStream::connect(write).is_ok()
        });
        let applied = adapter_objects(serve.port());
        plane.kubectl(&["apply", "-f", "-"], &applied.to_string()).succeeds();
        let name = "apiservice/v1beta2.custom.metrics.k8s.io";
        plane.kubectl(&["wait", "--for=condition=Available", "--timeout=60s", name], "").succeeds();
        adapter
    }

    /// Sets the value of a metric for an object, such as `pods/api-1`.
    fn write(&self, namespace: &str, object: &str, metric: &str, value: &str) {
        let (path, body) = (format!("/write-metrics/namespaces/{namespace}/{object}/{metric}"), format!("{value:?}"));
        let mut stream = TcpStream::connect(self.write).unwrap();
        let head = "host: adapter\r\ncontent-type: application/json\r\nconnection: close";
        write!(stream, "POST {path} HTTP/1.1\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// Removes the adapter and its API.
    fn stop(self, plane: &ControlPlane) {
        drop(self);
        plane.kubectl(&["delete", "apiservice", "v1beta2.custom.metrics.k8s.io"], "").succeeds();
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the objects that register the adapter and allow the autoscaler controller to use it.
fn adapter_objects(port: u16) -> Value {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "metrics-adapter", "namespace": "kube-system"},
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}
    });
    let registered = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1beta2.custom.metrics.k8s.io"},
        "spec": {
            "group": "custom.metrics.k8s.io", "version": "v1beta2", "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": true,
            "service": {"name": "metrics-adapter", "namespace": "kube-system", "port": port}
        }
    });
    let rbac = "rbac.authorization.k8s.io";
    let metadata = json!({"name": "reads-custom-metrics"});
    let role = json!({
        "apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": metadata,
        "rules": [{"apiGroups": ["custom.metrics.k8s.io"], "resources": ["*"], "verbs": ["*"]}]
    });
    let controller = json!({"kind": "ServiceAccount", "name": "horizontal-pod-autoscaler", "namespace": "kube-system"});
    let binding = json!({
        "apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding", "metadata": metadata,
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "reads-custom-metrics"}, "subjects": [controller]
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [service, role, binding, registered]})
}

/// Returns a vLLM server on a GPU.
fn llm(name: &str) -> Value {
    let mut object = common::vllm(name);
    container(&mut object)["resources"] = json!({"limits": {"nvidia.com/gpu": "1"}});
    object
}

fn pods(sandbox: &Sandbox) -> Vec<String> {
    names(&sandbox.list("Pod"))
}

#[test]
#[ignore = "needs the control plane"]
fn scales_on_a_queue_once_an_adapter_serves_it() {
    let _turn = custom_metrics_alone();
    let sandbox = Sandbox::without_policy("queues");
    let spec = json!({"autoscaling": {"maxReplicas": 4, "queue": {}}, "probes": {"startupBudget": "20m"}});
    sandbox.put_policy(&policy("queues", &spec));
    sandbox.apply(&llm("llm")).succeeds().says(
        "no autoscaler is created: the cluster does not serve custom.metrics.k8s.io, which the metric \
         `vllm_num_requests_waiting` needs",
    );
    sandbox.model_server("llm", "that no metric suits", |server| {
        condition(server, "AutoscalerReady")["reason"] == "NoSuitableMetric"
    });
    assert!(autoscalers(&sandbox).is_empty());
    sandbox.rolled_out("llm");

    let adapter = Adapter::start(sandbox.plane);
    let made = sandbox.autoscaler("llm");
    assert_eq!(
        made["spec"]["behavior"]["scaleUp"]["policies"],
        json!([{"type": "Pods", "value": 1, "periodSeconds": 1200}])
    );
    for pod in pods(&sandbox) {
        adapter.write("queues", &format!("pods/{pod}"), "vllm_num_requests_waiting", "20");
    }
    sandbox.scaled_to("llm", 2);
    let limited = wait_for("the autoscaler to limit its rate", SOON, || {
        let found = sandbox.autoscaler("llm");
        for pod in pods(&sandbox) {
            adapter.write("queues", &format!("pods/{pod}"), "vllm_num_requests_waiting", "20");
        }
        Some(condition(&found, "ScalingLimited").clone()).filter(|limited| limited["status"] == "True")
    });
    assert_eq!(limited["reason"], "ScaleUpLimit", "{limited}");
    assert_eq!(sandbox.deployment("llm")["spec"]["replicas"], 2);
    sandbox.model_server("llm", "that its metrics are available", |server| {
        condition(server, "AutoscalerReady")["reason"] == "ScalingActive"
    });

    // Removing the adapter does not remove autoscalers.
    adapter.stop(sandbox.plane);
    sandbox.apply(&llm("later")).succeeds().says("the cluster does not serve custom.metrics.k8s.io");
    assert_eq!(autoscalers(&sandbox), ["llm-tidegate"]);
}

#[test]
#[ignore = "needs the control plane"]
fn scales_to_zero_and_back_if_the_api_server_allows_it() {
    let _turn = custom_metrics_alone();
    let sandbox = Sandbox::without_policy("zero");
    let adapter = Adapter::start(sandbox.plane);
    let gateway = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "gateway"},
        "spec": {"ports": [{"port": 80}]}});
    sandbox.apply(&gateway).succeeds();
    adapter.write("zero", "services/gateway", "waiting", "0");
    let waiting = json!({
        "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "gateway"}, "metric": {"name": "waiting"},
        "target": {"type": "AverageValue", "averageValue": "10"}
    });
    let autoscaling = json!({"minReplicas": 0, "maxReplicas": 3, "metrics": [{"type": "Object", "object": waiting}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}});
    sandbox.put_policy(&policy("zero", &json!({"autoscaling": autoscaling})));
    let answer = sandbox.apply(&model_server("api")).succeeds();
    if minor_version(sandbox.plane) < 37 {
        answer.says("the API server accepts minReplicas 0 from Kubernetes 1.37 on");
        sandbox.model_server("api", "that it cannot scale to zero", |server| {
            condition(server, "AutoscalerReady")["reason"] == "ScaleToZeroNotServed"
        });
        assert!(autoscalers(&sandbox).is_empty());
    } else {
        sandbox.scaled_to("api", 0);
        adapter.write("zero", "services/gateway", "waiting", "25");
        sandbox.scaled_to("api", 3);
        adapter.write("zero", "services/gateway", "waiting", "0");
        sandbox.scaled_to("api", 0);
    }
    adapter.stop(sandbox.plane);
}

fn minor_version(plane: &ControlPlane) -> u32 {
    let version: Value =
        serde_json::from_str(&plane.kubectl(&["get", "--raw", "/version"], "").succeeds().stdout).unwrap();
    version["minor"].as_str().unwrap().trim_end_matches('+').parse().unwrap()
}

/// Locks the KEDA API, which is shared by the whole control plane.
fn keda_alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns KEDA's CustomResourceDefinition of ScaledObjects.
fn keda_definition() -> String {
    keda_source().join("config/crd/bases/keda.sh_scaledobjects.yaml").display().to_string()
}

fn scaled_objects(sandbox: &Sandbox) -> Vec<String> {
    names(&sandbox.list("ScaledObject"))
}

fn keda_policy(namespace: &str, engine: &str) -> Value {
    let metrics = json!([{"type": "ContainerResource", "containerResource":
        {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "1"}}}]);
    let keda = json!({"serverAddress": "http://prometheus.monitoring:9090", "query": "sum(requests)",
        "fallback": {"failureThreshold": 3, "replicas": 2}});
    let autoscaling = json!({"engine": engine, "maxReplicas": 4, "metrics": metrics, "keda": keda});
    policy(namespace, &json!({"autoscaling": autoscaling}))
}

#[test]
#[ignore = "needs the control plane"]
fn switches_engines_and_prefers_a_scaled_object_of_the_user() {
    let _turn = keda_alone();
    let sandbox = Sandbox::without_policy("engines");
    sandbox.put_policy(&keda_policy("engines", "keda"));
    sandbox.apply(&model_server("api")).succeeds().says("the cluster does not serve keda.sh/v1alpha1 ScaledObject");
    sandbox.model_server("api", "that there is no KEDA", |server| {
        condition(server, "AutoscalerReady")["reason"] == "EngineNotServed"
    });
    sandbox.plane.kubectl(&["apply", "--server-side", "-f", &keda_definition()], "").succeeds();
    let made = wait_for("the ScaledObject", SOON, || sandbox.get("ScaledObject", "api-tidegate"));
    assert_eq!(made["spec"]["triggers"][0]["metadata"]["query"], "sum(requests)");
    assert_eq!(made["metadata"]["ownerReferences"][0]["name"], "api");

    sandbox.put_policy(&keda_policy("engines", "hpa"));
    sandbox.autoscaler("api");
    assert!(scaled_objects(&sandbox).is_empty(), "it was deleted before");
    sandbox.put_policy(&keda_policy("engines", "keda"));
    wait_until("the ScaledObject", SOON, || scaled_objects(&sandbox) == ["api-tidegate"]);
    assert!(autoscalers(&sandbox).is_empty(), "it was deleted before");

    // KEDA's annotations that a user sets are kept.
    sandbox.kubectl(&["annotate", "scaledobject", "api-tidegate", "autoscaling.keda.sh/paused=true"]).succeeds();
    let edit = r#"{"spec":{"maxReplicaCount":50}}"#;
    sandbox.kubectl(&["patch", "scaledobject", "api-tidegate", "--type=merge", "--patch", edit]).succeeds();
    let right = wait_for("the ScaledObject to be reverted", SOON, || {
        sandbox.get("ScaledObject", "api-tidegate").filter(|found| found["spec"]["maxReplicaCount"] == 4)
    });
    assert_eq!(right["metadata"]["annotations"]["autoscaling.keda.sh/paused"], "true");

    let theirs = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "mine"},
        "spec": {"scaleTargetRef": {"name": "api"}, "triggers": [{"type": "cron", "metadata": {"start": "0 6 * * *"}}]}
    });
    sandbox.apply(&theirs).succeeds();
    wait_until("Tidegate's to be deleted", SOON, || scaled_objects(&sandbox) == ["mine"]);
    let server = sandbox.model_server("api", "that the autoscaler is the user's", |server| {
        server["status"]["autoscaler"]["name"] == "mine"
    });
    assert_eq!(server["status"]["autoscaler"]["kind"], "ScaledObject");
    sandbox.put_policy(&keda_policy("engines", "hpa"));
    sandbox.apply(&model_server("later")).succeeds();
    sandbox.autoscaler("later");
    assert_eq!(autoscalers(&sandbox), ["later-tidegate"], "the user's takes precedence over either engine");

    // KEDA's autoscaler for a ScaledObject does not count as a second one.
    let owner = json!([{"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "mine",
        "uid": sandbox.get("ScaledObject", "mine").unwrap()["metadata"]["uid"], "controller": true}]);
    let derived = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "keda-hpa-mine", "ownerReferences": owner},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "api"}, "maxReplicas": 3}
    });
    sandbox.apply(&derived).succeeds();
    sandbox.apply(&model_server("last")).succeeds();
    sandbox.autoscaler("last");
    let server = sandbox.get("ModelServer", "api").unwrap();
    assert_eq!(server["status"]["autoscaler"]["name"], "mine");
    assert!(!condition(&server, "Conforming")["message"].as_str().unwrap().contains("duplicate-autoscaler"));
}
