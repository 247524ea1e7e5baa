//! A cluster while Tidegate is down, when it starts, and when it stops.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::{fs, io, thread};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::{
    Apply, ControlPlane, SOON, Sandbox, Tidegate, condition, env, free_addresses, in_tree, label, model_server,
    serving, wait_for, wait_until,
};
use serde_json::{Value, json};

static PLANE: LazyLock<ControlPlane> = LazyLock::new(|| ControlPlane::start(&["--no-crds"]));

/// Locks the control plane and resets it: Tidegate starts and stops for all of it.
fn alone() -> (MutexGuard<'static, ()>, &'static ControlPlane) {
    static LOCK: Mutex<()> = Mutex::new(());
    let lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let everything = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations", "servingpolicies"];
    PLANE.kubectl(&["delete", &everything.join(","), "--all"], "").succeeds();
    PLANE.kubectl(&["delete", "--ignore-not-found", "-f", &in_tree(DATABASES)], "").succeeds();
    (lock, &PLANE)
}

/// The definition of the databases' API.
const DATABASES: &str = "dev/controlplane/crds/postgresqls.acid.zalan.do.yaml";

/// Creates a namespace with the policy `serving`, without waiting for Tidegate.
fn sandbox<'a>(plane: &'a ControlPlane, namespace: &'a str) -> Sandbox<'a> {
    let sandbox = Sandbox::on(plane, None, namespace);
    sandbox.apply(&serving(namespace)).succeeds();
    sandbox
}

fn configurations(plane: &ControlPlane) -> usize {
    let kinds = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];
    kinds.iter().filter(|kind| plane.api.get(kind, "", "tidegate").is_some()).count()
}

/// Writes a kubeconfig that impersonates a user.
fn kubeconfig_as(plane: &ControlPlane, user: &str) -> PathBuf {
    let text = fs::read_to_string(plane.kubeconfig()).unwrap();
    let mut config: Value = serde_saphyr::from_str(&text).unwrap();
    config["users"][0]["user"]["as"] = user.into();
    let path = plane.new_folder().join("kubeconfig");
    fs::write(&path, config.to_string()).unwrap();
    path
}

/// Grants a user permissions in the whole cluster.
fn allow(plane: &ControlPlane, user: &str, rule: &Value) {
    let (name, group) = (rule["resources"][0].as_str().unwrap().replace('*', "all"), "rbac.authorization.k8s.io");
    let metadata = json!({"name": format!("{user}-{name}")});
    let version = format!("{group}/v1");
    let role = json!({"apiVersion": version, "kind": "ClusterRole", "metadata": metadata, "rules": [rule]});
    let binding = json!({
        "apiVersion": version,
        "kind": "ClusterRoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": metadata["name"]},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    });
    for object in [role, binding] {
        plane.kubectl(&["apply", "-f", "-"], &object.to_string()).succeeds();
    }
}

fn unlabelled(name: &str) -> Value {
    let mut object = model_server(name);
    label(&mut object, None);
    object
}

#[test]
#[ignore = "needs the control plane"]
fn while_tidegate_is_down_only_changes_to_model_servers_fail() {
    let (_lock, plane) = alone();
    let sandbox = sandbox(plane, "dead");
    let tidegate = Tidegate::start(plane);
    sandbox.apply(&model_server("api")).succeeds();
    sandbox.autoscaler("api");
    sandbox.rolled_out("api");
    // Stored while Tidegate runs, rolled out while it is down.
    plane.order("stop-component", "kube-controller-manager");
    sandbox.apply(&model_server("rolling")).succeeds();
    sandbox.kubectl(&["set", "image", "deployment", "api", "api=registry.example.com/api:2.0.0"]).succeeds();
    tidegate.kill();
    assert_eq!(configurations(plane), 2);
    plane.order("start-component", "kube-controller-manager");
    sandbox.rolled_out("rolling");
    sandbox.rolled_out("api");
    assert_eq!(sandbox.replica_sets("api"), 2);

    sandbox.apply(&unlabelled("web")).succeeds();
    sandbox.rolled_out("web");
    sandbox.kubectl(&["rollout", "restart", "deployment", "web"]).succeeds();

    sandbox.kubectl(&["scale", "deployment", "api", "--replicas=3"]).succeeds();
    sandbox.rolled_out("api");
    let bounds = r#"{"spec":{"minReplicas":5}}"#;
    sandbox.kubectl(&["patch", "hpa", "api-tidegate", "--type=merge", "--patch", bounds]).succeeds();
    sandbox.scaled_to("api", 5);
    sandbox.rolled_out("api");
    sandbox.kubectl(&["annotate", "deployment", "api", "team=search"]).succeeds();

    let pods = |sandbox: &Sandbox| -> Vec<Value> {
        sandbox.list("Pod").into_iter().filter(|pod| pod["metadata"]["labels"]["app"] == "rolling").collect()
    };
    let lost = pods(&sandbox)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    sandbox.kubectl(&["delete", "pod", &lost, "--wait=false"]).succeeds();
    wait_until("the lost pod to be replaced", SOON, || {
        pods(&sandbox).iter().any(|pod| pod["metadata"]["name"] != *lost && condition(pod, "Ready")["status"] == "True")
    });

    let in_system = ["--namespace", "kube-system", "apply", "-f", "-"];
    plane.kubectl(&in_system, &model_server("system").to_string()).succeeds();
    plane.kubectl(&["--namespace", "kube-system", "delete", "deployment", "system"], "").succeeds();

    for refused in [
        sandbox.apply(&model_server("new")),
        sandbox.kubectl(&["set", "image", "deployment", "api", "api=registry.example.com/api:3.0.0"]),
        sandbox.kubectl(&["label", "deployment", "api", &format!("{}-", common::LABEL)]),
    ] {
        refused.fails().says("failed calling webhook \"validate.tidegate.dev\"");
    }
    sandbox.kubectl(&["delete", "deployment", "rolling"]).succeeds();

    let _tidegate = Tidegate::start(plane);
    sandbox.apply(&model_server("new")).succeeds().says("no database is bound");
    sandbox.autoscaler("new");
    wait_until("the autoscaler's bounds to be corrected", SOON, || {
        sandbox.autoscaler("api")["spec"]["minReplicas"] == 1
    });
}

#[test]
#[ignore = "needs the control plane"]
fn a_clean_stop_deletes_only_the_webhook_configurations() {
    let (_lock, plane) = alone();
    let sandbox = sandbox(plane, "stopped");
    let tidegate = Tidegate::start(plane);
    sandbox.apply(&model_server("api")).succeeds();
    let autoscaler = sandbox.autoscaler("api");
    let stored = sandbox.rolled_out("api");
    assert_eq!(configurations(plane), 2);
    tidegate.stop();
    assert_eq!(configurations(plane), 0);
    sandbox.apply(&model_server("bare")).succeeds().says_nothing();
    assert_eq!(sandbox.container("bare")["readinessProbe"], Value::Null);
    assert_eq!(sandbox.autoscaler("api")["metadata"]["uid"], autoscaler["metadata"]["uid"]);

    // After a restart, everything is unchanged.
    let _tidegate = Tidegate::start(plane);
    sandbox.apply(&model_server("api")).succeeds();
    sandbox.apply(&model_server("later")).succeeds();
    sandbox.autoscaler("later");
    assert_eq!(sandbox.deployment("api")["metadata"]["generation"], stored["metadata"]["generation"]);
    assert_eq!(sandbox.autoscaler("api")["metadata"]["uid"], autoscaler["metadata"]["uid"]);
}

#[test]
#[ignore = "needs the control plane"]
fn model_servers_older_than_tidegate_are_not_changed_until_they_change() {
    let (_lock, plane) = alone();
    let sandbox = sandbox(plane, "existing");
    for apply in Apply::BOTH {
        sandbox.kubectl_with(apply.arguments(), &model_server(apply.name())).succeeds();
    }
    let before = Apply::BOTH.map(|apply| sandbox.rolled_out(apply.name()));
    let _tidegate = Tidegate::start(plane);
    for (apply, before) in Apply::BOTH.iter().zip(&before) {
        let name = apply.name();
        sandbox.model_server(name, "its policy", |server| server["status"]["policy"] == "existing");
        sandbox.kubectl_with(apply.arguments(), &model_server(name)).succeeds();
        sandbox.kubectl(&["annotate", "deployment", name, "team=search"]).succeeds();
        let relabelled = sandbox.kubectl(&["label", "deployment", name, "team=search"]).succeeds();
        relabelled.says("was not admitted by tidegate: nothing is injected and no companions are created");
        sandbox.kubectl(&["scale", "deployment", name, "--replicas=2"]).succeeds();
        assert_eq!(sandbox.rolled_out(name)["spec"]["template"], before["spec"]["template"]);
        assert_eq!(sandbox.replica_sets(name), 1);
    }
    // Their autoscalers would exist once a later workload has its own.
    sandbox.apply(&model_server("later")).succeeds();
    sandbox.autoscaler("later");
    assert_eq!(sandbox.list("HorizontalPodAutoscaler").len(), 1);

    for apply in Apply::BOTH {
        sandbox.kubectl(&["rollout", "restart", "deployment", apply.name()]).succeeds();
        assert_eq!(sandbox.container(apply.name())["resources"]["requests"]["cpu"], "100m");
        sandbox.autoscaler(apply.name());
    }
}

#[test]
#[ignore = "needs the control plane"]
fn model_servers_are_reconciled_once_the_caches_have_synced() {
    let (_lock, plane) = alone();
    let sandbox = sandbox(plane, "early");
    sandbox.apply(&model_server("api")).succeeds();
    // It may read the Deployment long before the namespace, which decides which policies match.
    let groups = [
        "apps",
        "autoscaling",
        "policy",
        "tidegate.dev",
        "apiextensions.k8s.io",
        "apiregistration.k8s.io",
        "admissionregistration.k8s.io",
        "coordination.k8s.io",
    ];
    allow(plane, "late", &json!({"apiGroups": groups, "resources": ["*"], "verbs": ["*"]}));
    let beside = ["persistentvolumeclaims", "services", "poddisruptionbudgets"];
    allow(plane, "late", &json!({"apiGroups": ["", "policy"], "resources": beside, "verbs": ["*"]}));
    let addresses @ [listen, _] = free_addresses();
    let url = format!("https://{listen}");
    let tidegate = Tidegate::run(plane, &kubeconfig_as(plane, "late"), addresses, &["--webhook-url", &url]);
    wait_until("the namespaces to be refused twice", SOON, || {
        tidegate.log().matches("namespaces is forbidden").count() > 1
    });
    assert!(!tidegate.is_ready());
    let core = ["namespaces", "persistentvolumeclaims", "services"];
    allow(plane, "late", &json!({"apiGroups": [""], "resources": core, "verbs": ["*"]}));
    sandbox.model_server("api", "its policy", |server| server["status"]["policy"] == "early");
}

#[test]
#[ignore = "needs the control plane"]
fn databases_are_bound_while_their_api_is_served() {
    let (_lock, plane) = alone();
    let sandbox = sandbox(plane, "unserved");
    let _tidegate = Tidegate::start(plane);
    sandbox.apply(&model_server("early")).succeeds().says("no database is bound: the cluster does not serve");
    let early = sandbox.rolled_out("early");
    assert_eq!(sandbox.container("early")["env"], Value::Null);
    sandbox.model_server("early", "that no database can be created", |server| {
        condition(server, "DatabaseReady")["reason"] == "ProviderNotServed"
    });

    plane.kubectl(&["apply", "-f", &in_tree(DATABASES)], "").succeeds();
    sandbox.database("early");
    sandbox.apply(&model_server("late")).succeeds().says_nothing();
    assert_eq!(env(&sandbox.container("late"), "PGHOST")["value"], "acid-late");
    assert_eq!(sandbox.template("early"), early["spec"]["template"]);
    sandbox.kubectl(&["rollout", "restart", "deployment", "early"]).succeeds().says_nothing();
    assert_eq!(env(&sandbox.container("early"), "PGHOST")["value"], "acid-early");

    plane.kubectl(&["delete", "-f", &in_tree(DATABASES)], "").succeeds();
    let dry = ["apply", "--dry-run=server", "-f", "-"];
    wait_until("tidegate to notice that the API is gone", SOON, || {
        let tried = sandbox.kubectl_with(&dry, &model_server("last")).succeeds();
        tried.stderr.contains("the cluster does not serve")
    });
    let late = sandbox.rolled_out("late");
    sandbox.kubectl(&["label", "deployment", "late", "team=search"]).succeeds();
    assert_eq!(sandbox.template("late"), late["spec"]["template"]);
}

#[test]
#[ignore = "needs the control plane"]
fn an_invalid_policy_at_the_start_does_not_affect_others() {
    let (_lock, plane) = alone();
    let sandbox = sandbox(plane, "invalid");
    let mut invalid = serving("invalid");
    invalid["metadata"]["name"] = "another".into();
    invalid["spec"]["resources"]["cpu"]["requests"]["cpu"] = "2".into();
    sandbox.apply(&invalid).succeeds();
    let _tidegate = Tidegate::start(plane);
    let ready = wait_for("the policy's status to name the problem", SOON, || {
        let policy = plane.api.get("ServingPolicy", "", "another").unwrap();
        let ready = condition(&policy, "Ready").clone();
        (!ready.is_null()).then_some(ready)
    });
    insta::assert_yaml_snapshot!(ready, {".lastTransitionTime" => "[since]"});
    sandbox.apply(&model_server("api")).succeeds().says("invalid policy \"another\" is not applied");
    assert_eq!(sandbox.container("api")["resources"]["requests"]["cpu"], "100m");
}

#[test]
#[ignore = "needs the control plane"]
fn the_last_valid_version_of_an_invalid_policy_stays_active() {
    let (_lock, plane) = alone();
    let sandbox = sandbox(plane, "last-good");
    let _tidegate = Tidegate::start(plane);
    sandbox.put_policy(&serving("last-good"));
    // The webhook refuses it; but a policy accepted by an earlier release may be invalid for a later one.
    let unguarded = json!([{"op": "remove", "path": "/webhooks/2"}]).to_string();
    sandbox
        .kubectl(&["patch", "validatingwebhookconfiguration", "tidegate", "--type=json", "-p", &unguarded])
        .succeeds();
    let mut policy = serving("last-good");
    policy["spec"]["resources"]["cpu"]["requests"]["cpu"] = "2".into();
    wait_until("the policy to be accepted", SOON, || {
        sandbox.apply(&policy);
        plane.api.get("ServingPolicy", "", "last-good").unwrap()["metadata"]["generation"] == 2
    });
    let ready = wait_for("the policy's status to name the problem", SOON, || {
        let policy = plane.api.get("ServingPolicy", "", "last-good").unwrap();
        (policy["status"]["observedGeneration"] == 2).then(|| condition(&policy, "Ready").clone())
    });
    insta::assert_yaml_snapshot!(ready, {".lastTransitionTime" => "[since]"});
    sandbox.apply(&model_server("api")).succeeds();
    assert_eq!(sandbox.container("api")["resources"]["requests"]["cpu"], "100m");
    policy["spec"]["resources"]["cpu"]["requests"]["cpu"] = "200m".into();
    sandbox.put_policy(&policy);
    sandbox.apply(&model_server("later")).succeeds();
    assert_eq!(sandbox.container("later")["resources"]["requests"]["cpu"], "200m");
}

#[test]
#[ignore = "needs the control plane"]
fn a_second_tidegate_does_not_change_the_configurations_of_the_first() {
    let (_lock, plane) = alone();
    let sandbox = sandbox(plane, "second");
    let first = Tidegate::start(plane);
    for out_of_cluster in [true, false] {
        let addresses @ [listen, _] = free_addresses();
        let url = format!("https://{listen}");
        let arguments: &[&str] = if out_of_cluster { &["--webhook-url", &url] } else { &[] };
        let second = Tidegate::run(plane, &plane.kubeconfig(), addresses, arguments);
        wait_until("the second to give up", SOON, || second.log().contains("points to another Tidegate"));
    }
    sandbox.apply(&model_server("api")).succeeds();
    assert!(sandbox.container("api")["resources"]["limits"].is_object(), "the first injects as before");
    first.stop();
    assert_eq!(configurations(plane), 0);
}

/// A load balancer that forwards each connection to the first server that listens; returns its own address.
fn balanced(servers: [SocketAddr; 2]) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let copy = |mut from: TcpStream, mut to: TcpStream| {
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
    };
    thread::spawn(move || {
        for client in listener.incoming().map(Result::unwrap) {
            let Some(server) = servers.iter().find_map(|server| TcpStream::connect(server).ok()) else { continue };
            copy(client.try_clone().unwrap(), server.try_clone().unwrap());
            copy(server, client);
        }
    });
    address
}

/// Two replicas behind one URL, each with its own CA; the second is used only if the first does not listen.
struct Behind {
    url: String,
    addresses: [[SocketAddr; 2]; 2],
    folders: [PathBuf; 2],
}

impl Behind {
    fn new(plane: &ControlPlane) -> Self {
        let addresses = [free_addresses(), free_addresses()];
        let url = format!("https://{}", balanced(addresses.map(|[listen, _]| listen)));
        Self { url, addresses, folders: [plane.new_folder(), plane.new_folder()] }
    }

    /// Starts one of them, and waits until it is ready.
    fn start(&self, plane: &ControlPlane, which: usize) -> Tidegate {
        let arguments = ["--webhook-url", &self.url, "--lease-seconds", "3"];
        let (folder, addresses) = (&self.folders[which], self.addresses[which]);
        let replica = Tidegate::run_in(folder, &plane.kubeconfig(), addresses, &arguments);
        wait_until("a replica to be ready", SOON, || replica.is_ready());
        replica
    }
}

/// Asserts that fields are injected once the API server reaches a running replica, and that nothing is admitted before.
fn injects(sandbox: &Sandbox, name: &str) {
    wait_until("the API server to reach a running replica", SOON, || {
        let applied = sandbox.apply(&model_server(name));
        let stored = sandbox.get("Deployment", name);
        assert_eq!(applied.code == 0, stored.is_some(), "{}", applied.stderr);
        stored.is_some_and(|_| {
            assert!(sandbox.container(name)["resources"]["limits"].is_object(), "{name} is admitted without injection");
            true
        })
    });
}

/// How many CAs each webhook trusts.
fn trusted(plane: &ControlPlane) -> Vec<usize> {
    let kinds = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];
    let found = kinds.map(|kind| plane.api.get(kind, "", "tidegate").unwrap()["webhooks"].clone());
    let webhooks = found.iter().flat_map(|webhooks| webhooks.as_array().unwrap());
    let bundles = webhooks.map(|webhook| BASE64_STANDARD.decode(webhook["clientConfig"]["caBundle"].as_str().unwrap()));
    bundles.map(|bundle| String::from_utf8(bundle.unwrap()).unwrap().matches("BEGIN").count()).collect()
}

#[test]
#[ignore = "needs the control plane"]
fn replicas_behind_one_url_serve_until_the_last_one_stops() {
    let (_lock, plane) = alone();
    let sandbox = sandbox(plane, "behind");
    let behind = Behind::new(plane);
    let first = behind.start(plane, 0);
    injects(&sandbox, "first");
    let second = behind.start(plane, 1);
    assert_eq!(trusted(plane), [2; 5]);
    sandbox.apply(&model_server("both")).succeeds();

    // The leader stops: the other takes its place.
    first.stop();
    assert_eq!((configurations(plane), trusted(plane)), (2, vec![1; 5]));
    injects(&sandbox, "second");
    // It restarts, and stops before the other does.
    behind.start(plane, 0).stop();
    assert_eq!((configurations(plane), trusted(plane)), (2, vec![1; 5]));
    injects(&sandbox, "again");
    second.stop();
    assert_eq!(configurations(plane), 0);
}

#[test]
#[ignore = "needs the control plane"]
fn a_killed_replica_does_not_keep_the_configurations() {
    let (_lock, plane) = alone();
    let sandbox = sandbox(plane, "left-behind");
    let behind = Behind::new(plane);
    let first = behind.start(plane, 0);
    let second = behind.start(plane, 1);
    // The leader is killed, and its Lease looks as if it still led.
    first.kill();
    injects(&sandbox, "after");
    second.stop();
    assert_eq!(configurations(plane), 0);

    // Killed and restarted with the same flags, it is still the only one.
    behind.start(plane, 0).kill();
    let again = behind.start(plane, 0);
    assert_eq!(trusted(plane), [1; 5]);
    injects(&sandbox, "restarted");
    again.stop();
    assert_eq!(configurations(plane), 0);
}
