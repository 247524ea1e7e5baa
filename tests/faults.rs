//! The controller when its own replicas, the API server or etcd fail.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{ControlPlane, Installed, SOON, Sandbox, model_server, serving, wait_until};
use serde_json::{Value, json};

static PLANE: LazyLock<ControlPlane> = LazyLock::new(|| ControlPlane::start(&[]));

/// How long reconciliation may take: autoscalers get their metrics only after a while.
const PATIENCE: Duration = Duration::from_mins(3);

/// How long without writes counts as quiet.
const QUIET: Duration = Duration::from_secs(8);

/// Locks the control plane, and installs Tidegate without a running replica.
fn alone() -> (MutexGuard<'static, ()>, Installed<'static>) {
    static LOCK: Mutex<()> = Mutex::new(());
    let lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let everything = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations", "servingpolicies"];
    PLANE.kubectl(&["delete", &everything.join(","), "--all"], "").succeeds();
    let lease = ["delete", "lease", "tidegate", "--namespace", "tidegate-system", "--ignore-not-found"];
    PLANE.kubectl(&lease, "").succeeds();
    (lock, Installed::new(&PLANE))
}

/// Creates a namespace with the policy `serving`; Tidegate must be running.
fn sandbox(namespace: &str) -> Sandbox<'_> {
    let sandbox = Sandbox::on(&PLANE, None, namespace);
    sandbox.put_policy(&serving(namespace));
    sandbox
}

/// Applies model servers with these names in one apply.
fn apply_all(sandbox: &Sandbox, names: &[String]) {
    let items: Vec<Value> = names.iter().map(|name| model_server(name)).collect();
    sandbox.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items})).succeeds();
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("api-{number}")).collect()
}

/// Waits until each model server has its companions.
#[track_caller]
fn complete(sandbox: &Sandbox, count: usize) {
    for kind in ["HorizontalPodAutoscaler", "postgresql", "ModelServer"] {
        wait_until(&format!("{count} of {kind}"), SOON, || sandbox.list(kind).len() == count);
    }
    wait_until("every ModelServer to name its companions", SOON, || {
        let is_complete = |server: &Value| {
            server["status"]["autoscaler"]["name"].is_string() && server["status"]["database"]["name"].is_string()
        };
        sandbox.list("ModelServer").iter().all(is_complete)
    });
}

/// Waits until Tidegate has written nothing for a while, and returns its writes until then.
#[track_caller]
fn quiet(installed: &Installed) -> Vec<Value> {
    let start = Instant::now();
    let mut writes = Vec::new();
    loop {
        sleep(QUIET);
        let new = installed.writes();
        if new.is_empty() {
            return writes;
        }
        assert!(start.elapsed() < PATIENCE, "tidegate keeps writing:\n{}", lines(&new));
        writes.extend(new);
    }
}

/// The writes of companions: those of ModelServers also follow the autoscalers' own controller.
fn about_companions(writes: &[Value]) -> Vec<Value> {
    let is_one = |write: &&Value| {
        ["horizontalpodautoscalers", "postgresqls"].iter().any(|kind| write["objectRef"]["resource"] == *kind)
    };
    writes.iter().filter(is_one).cloned().collect()
}

/// The names of the written objects of a kind.
fn of_kind<'w>(writes: &'w [Value], resource: &str) -> Vec<&'w str> {
    let of_kind = writes.iter().filter(|write| write["objectRef"]["resource"] == *resource);
    of_kind.map(|write| write["objectRef"]["name"].as_str().unwrap_or_default()).collect()
}

/// The writes as text.
fn lines(writes: &[Value]) -> String {
    let line = |write: &Value| {
        let object = &write["objectRef"];
        let field = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        format!("{} {} {} {}", write["verb"], field("resource"), field("name"), field("subresource"))
    };
    writes.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The credential of a request: each replica has its own.
fn credential(write: &Value) -> &str {
    write["user"]["extra"]["authentication.kubernetes.io/credential-id"][0].as_str().unwrap()
}

#[test]
#[ignore = "needs the control plane"]
fn a_restart_without_changes_writes_nothing() {
    let (_lock, installed) = alone();
    let tidegate = installed.start_ready("first");
    let sandbox = sandbox("restart");
    apply_all(&sandbox, &names(5));
    let mut stateful = model_server("stateful");
    stateful["kind"] = "StatefulSet".into();
    stateful["spec"]["serviceName"] = "stateful".into();
    sandbox.apply(&stateful).succeeds();
    // A workload that runs a known runtime without the label.
    let mut unlabelled = common::vllm("unlabelled");
    common::label(&mut unlabelled, None);
    sandbox.apply(&unlabelled).succeeds();
    let exception = json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "ServingException", "metadata": {"name": "pilot"},
        "spec": {"workloads": {"names": ["api-0"]}, "rules": ["floating-tag"], "reason": "a pilot", "expires": "2100-01-01T00:00:00Z"}
    });
    sandbox.apply(&exception).succeeds();
    let whole = Sandbox::on(&PLANE, None, "restart-whole");
    whole.kubectl(&["label", "namespace", "restart-whole", "tidegate.dev/model-servers=all"]).succeeds();
    whole.put_policy(&serving("restart-whole"));
    let mut unlabelled = model_server("unlabelled");
    common::label(&mut unlabelled, None);
    wait_until("the namespace to be known as a whole", SOON, || {
        whole.apply(&unlabelled).succeeds();
        whole.container("unlabelled")["readinessProbe"].is_object() || {
            whole.kubectl(&["delete", "deployment", "unlabelled"]).succeeds();
            false
        }
    });
    complete(&sandbox, 6);
    complete(&whole, 1);
    // Until the autoscalers have their metrics, their own controller keeps changing their status.
    let is_active = |server: &Value| common::condition(server, "AutoscalerReady")["status"] == "True";
    wait_until("the autoscalers to have their metrics", PATIENCE, || {
        [&sandbox, &whole].iter().all(|sandbox| sandbox.list("ModelServer").iter().all(is_active))
    });
    quiet(&installed);

    tidegate.stop();
    let tidegate = installed.start_ready("first");
    assert_writes_nothing(&installed, "first");
    tidegate.kill();
    let _tidegate = installed.start_ready("first");
    assert_writes_nothing(&installed, "first");
}

#[test]
#[ignore = "needs the control plane"]
fn values_that_the_api_server_normalizes_are_applied_once() {
    let (_lock, installed) = alone();
    let _tidegate = installed.start_ready("first");
    let sandbox = Sandbox::on(&PLANE, None, "canonical");
    let mut policy = serving("canonical");
    let metric = |name: &str, amount: Value| {
        let target = json!({"type": "AverageValue", "averageValue": amount});
        json!({"type": "ContainerResource", "containerResource": {"name": name, "target": target}})
    };
    let autoscaling = &mut policy["spec"]["autoscaling"];
    autoscaling["metrics"] = json!([metric("cpu", json!(5)), metric("memory", json!("1024Mi"))]);
    autoscaling["behavior"] = json!({"scaleUp": {"tolerance": 0.05}, "scaleDown": {"tolerance": "0.10"}});
    policy["spec"]["disruptionBudget"] = json!({});
    sandbox.put_policy(&policy);
    installed.writes();
    apply_all(&sandbox, &names(1));
    complete(&sandbox, 1);
    let stored = sandbox.autoscaler("api-0")["spec"].take();
    let amount = |index: usize| &stored["metrics"][index]["containerResource"]["target"]["averageValue"];
    assert_eq!((amount(0), amount(1)), (&json!("5"), &json!("1Gi")));
    let tolerance = |direction: &str| &stored["behavior"][direction]["tolerance"];
    assert_eq!((tolerance("scaleUp"), tolerance("scaleDown")), (&json!("50m"), &json!("100m")));
    let writes = &quiet(&installed);
    for (kind, name) in [
        ("horizontalpodautoscalers", "api-0-tidegate"),
        ("poddisruptionbudgets", "api-0-tidegate"),
        ("postgresqls", "acid-api-0"),
    ] {
        assert!(of_kind(writes, kind).len() <= 1, "{name}:\n{}", lines(writes));
    }
    // A user writes the same value in another notation.
    let edit = r#"{"spec":{"volume":{"size":"10240Mi"}}}"#;
    sandbox.kubectl(&["patch", "postgresql", "acid-api-0", "--type=merge", "--patch", edit]).succeeds();
    sandbox.kubectl(&["annotate", "deployment", "api-0", "reconcile=again"]).succeeds();
    let writes = about_companions(&quiet(&installed));
    assert!(writes.is_empty(), "{}", lines(&writes));
    let server = sandbox.get("ModelServer", "api-0").unwrap();
    assert_ne!(common::condition(&server, "DatabaseReady")["reason"], "Drifted", "{}", server["status"]);
}

#[test]
#[ignore = "needs the control plane"]
fn workloads_named_like_companions_of_others_have_their_own() {
    let (_lock, installed) = alone();
    let _tidegate = installed.start_ready("first");
    let sandbox = sandbox("alike");
    let mut stateful = model_server("api");
    stateful["kind"] = "StatefulSet".into();
    stateful["spec"]["serviceName"] = "api".into();
    // Two HPAs for the same pods name each other in their statuses, in an order that changes: pods of its own.
    stateful["spec"]["selector"]["matchLabels"]["app"] = "stateful".into();
    stateful["spec"]["template"]["metadata"]["labels"]["app"] = "stateful".into();
    let alike = [model_server("api"), stateful, model_server("api-statefulset"), model_server("api-tidegate")];
    sandbox.apply(&json!({"apiVersion": "v1", "kind": "List", "items": alike})).succeeds();
    complete(&sandbox, alike.len());
    quiet(&installed);
    let companions = |server: &Value| {
        let (owner, status) = (&server["metadata"]["ownerReferences"][0], &server["status"]);
        assert_eq!((&owner["kind"], &owner["name"]), (&server["spec"]["kind"], &server["spec"]["name"]));
        let names = [&server["metadata"]["name"], &status["autoscaler"]["name"], &status["database"]["name"]];
        names.map(|name| name.as_str().unwrap().to_owned())
    };
    let servers: Vec<[String; 3]> = sandbox.list("ModelServer").iter().map(companions).collect();
    for index in 0..3 {
        let named: std::collections::BTreeSet<&String> = servers.iter().map(|names| &names[index]).collect();
        assert_eq!(named.len(), alike.len(), "{servers:?}");
    }
    let plain = ["api", "api-tidegate", "acid-api"].map(str::to_owned);
    assert!(servers.contains(&plain), "{servers:?}");
}

/// Asserts that a new leader writes nothing.
#[track_caller]
fn assert_writes_nothing(installed: &Installed, identity: &str) {
    installed.led_by(identity);
    sleep(QUIET);
    let writes = installed.writes();
    assert!(writes.is_empty(), "after {identity} started:\n{}", lines(&writes));
}

#[test]
#[ignore = "needs the control plane"]
fn two_replicas_that_start_at_once_create_everything_once() {
    let (_lock, installed) = alone();
    installed.writes();
    let replicas = [installed.start("one"), installed.start("two")];
    wait_until("both to be ready", SOON, || replicas.iter().all(common::Tidegate::is_ready));
    let sandbox = sandbox("at-once");
    // The API server learns of the CA that the replicas filled in a moment after they are ready.
    let arguments = ["create", "--dry-run=server", "-f", "-"];
    let tried = || sandbox.kubectl_with(&arguments, &model_server("probe")).succeeds().stderr.is_empty();
    wait_until("the API server to reach the webhooks", SOON, tried);
    // The Service balances requests: the API server trusts both.
    for name in names(8) {
        sandbox.apply(&model_server(&name)).succeeds().says_nothing();
    }
    complete(&sandbox, 8);
    let writes = &quiet(&installed);
    let by_leader: Vec<Value> = writes.iter().filter(|write| !is_registration(write)).cloned().collect();
    assert!(by_leader.iter().all(|write| credential(write) == credential(&by_leader[0])), "{}", lines(writes));
    for kind in ["horizontalpodautoscalers", "postgresqls"] {
        let mut created = of_kind(writes, kind);
        created.sort_unstable();
        let once = created.windows(2).all(|pair| pair[0] != pair[1]);
        assert!(created.len() == 8 && once, "{}", lines(writes));
    }
    let databases = sandbox.list("postgresql");
    assert!(databases.iter().all(|database| database["metadata"]["generation"] == 1));
    assert_eq!(installed.lease()["spec"]["leaseTransitions"], 0);
}

/// Every replica adds its own CA.
fn is_registration(write: &Value) -> bool {
    write["objectRef"]["apiGroup"] == "admissionregistration.k8s.io"
}

#[test]
#[ignore = "needs the control plane"]
fn another_replica_completes_the_work_of_a_killed_leader() {
    const COUNT: usize = 40;
    let (_lock, installed) = alone();
    let first = installed.start_ready("first");
    installed.led_by("first");
    let sandbox = sandbox("killed");
    let _second = installed.start_ready("second");
    apply_all(&sandbox, &names(COUNT));
    wait_until("the first autoscaler", SOON, || !sandbox.list("HorizontalPodAutoscaler").is_empty());
    first.kill();
    let created = sandbox.list("HorizontalPodAutoscaler").len();
    assert!(created < COUNT, "everything was created already");
    installed.led_by("second");
    complete(&sandbox, COUNT);
    assert_eq!(installed.lease()["spec"]["leaseTransitions"], 1);
    let databases = sandbox.list("postgresql");
    assert!(databases.iter().all(|database| database["metadata"]["generation"] == 1));
}

#[test]
#[ignore = "needs the control plane"]
fn a_leader_that_stops_lets_another_lead_at_once() {
    let (_lock, installed) = alone();
    let first = installed.start_ready("first");
    installed.led_by("first");
    let sandbox = sandbox("stopped");
    let _second = installed.start_ready("second");
    sandbox.apply(&model_server("api")).succeeds();
    complete(&sandbox, 1);
    first.stop();
    // Without a release, the Lease would expire after six seconds.
    wait_until("the second to lead", Duration::from_secs(4), || installed.leader() == "second");
    sandbox.kubectl(&["delete", "hpa", "api-tidegate"]).succeeds();
    sandbox.autoscaler("api");
    sandbox.apply(&model_server("later")).succeeds().says_nothing();
}

#[test]
#[ignore = "needs the control plane"]
fn a_suspended_leader_writes_nothing_when_it_resumes() {
    let (_lock, installed) = alone();
    let first = installed.start_ready("first");
    installed.led_by("first");
    let sandbox = sandbox("suspended");
    let _second = installed.start_ready("second");
    sandbox.apply(&model_server("api")).succeeds();
    complete(&sandbox, 1);
    quiet(&installed);
    first.signal("STOP");
    installed.led_by("second");
    sandbox.kubectl(&["delete", "hpa", "api-tidegate"]).succeeds();
    sandbox.autoscaler("api");
    let by_second = installed.writes();
    let second = credential(by_second.first().unwrap()).to_owned();
    // When it resumes, it sees the changes of the other, and must not correct them.
    first.signal("CONT");
    sandbox.kubectl(&["delete", "hpa", "api-tidegate"]).succeeds();
    sandbox.autoscaler("api");
    wait_until("the first to notice that it no longer leads", SOON, || first.log().contains("no longer leads"));
    let writes = &quiet(&installed);
    assert!(writes.iter().all(|write| credential(write) == second), "{}", lines(writes));
    assert_eq!(installed.leader(), "second");
}

#[test]
#[ignore = "needs the control plane"]
fn notices_changes_made_while_no_watch_ran() {
    let (_lock, installed) = alone();
    let tidegate = installed.start_ready("first");
    let sandbox = sandbox("unwatched");
    apply_all(&sandbox, &names(3));
    complete(&sandbox, 3);
    quiet(&installed);

    // A restarted API server does not know the versions at which watches resume: 410 Gone.
    tidegate.signal("STOP");
    PLANE.order("stop-component", "kube-apiserver");
    PLANE.order("start-component", "kube-apiserver");
    let edit = r#"{"spec":{"maxReplicas":50}}"#;
    sandbox.kubectl(&["patch", "hpa", "api-0-tidegate", "--type=merge", "--patch", edit]).succeeds();
    sandbox.kubectl(&["delete", "hpa", "api-1-tidegate"]).succeeds();
    sandbox.kubectl(&["delete", "deployment", "api-2"]).succeeds();
    compact();
    installed.writes();
    tidegate.signal("CONT");
    wait_until("the edited autoscaler to be corrected", SOON, || {
        sandbox.autoscaler("api-0")["spec"]["maxReplicas"] == 10
    });
    sandbox.autoscaler("api-1");
    let log = tidegate.log();
    assert!(log.contains("too old resource version"), "{log}");
    let writes = &quiet(&installed);
    // The database is kept, and labelled with the time since when it is unused.
    assert_eq!(of_kind(writes, "postgresqls"), ["acid-api-2"], "{}", lines(writes));
    let left = ["api-0-tidegate", "api-1-tidegate"];
    wait_until("the companions of the deleted workload to be deleted", SOON, || {
        let found = sandbox.list("HorizontalPodAutoscaler");
        found.iter().map(|found| &found["metadata"]["name"]).eq(left) && sandbox.list("ModelServer").len() == 2
    });
    assert!(tidegate.is_ready());
}

/// Compacts etcd to the last version of objects.
fn compact() {
    let pid = PLANE.read("run/etcd.pid");
    let line = std::fs::read(format!("/proc/{}/cmdline", pid.trim())).unwrap();
    let arguments = String::from_utf8(line).unwrap();
    let urls = arguments.split('\0').find_map(|argument| argument.strip_prefix("--listen-client-urls=http://"));
    let ask = |path: &str, body: &Value| post(urls.unwrap(), path, &body.to_string());
    let status: Value = serde_json::from_str(&ask("/v3/maintenance/status", &json!({}))).unwrap();
    let answer = ask("/v3/kv/compaction", &json!({"revision": status["header"]["revision"], "physical": true}));
    assert!(answer.contains("revision"), "{answer}");
}

/// Sends a request over plain HTTP, and returns the body of the answer.
fn post(address: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let head = format!("POST {path} HTTP/1.0\r\nhost: {address}\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned())
}

#[test]
#[ignore = "needs the control plane"]
fn labels_the_database_of_a_workload_deleted_without_a_leader() {
    let (_lock, installed) = alone();
    let first = installed.start_ready("first");
    let sandbox = sandbox("unled");
    apply_all(&sandbox, &names(2));
    complete(&sandbox, 2);
    quiet(&installed);
    first.stop();
    sandbox.kubectl(&["delete", "deployment", "api-0"]).succeeds();
    let _second = installed.start_ready("second");
    installed.led_by("second");
    let writes = &quiet(&installed);
    assert_eq!(of_kind(writes, "postgresqls"), ["acid-api-0"], "{}", lines(writes));
    let labels = |name: &str| sandbox.database(name)["metadata"]["labels"]["tidegate.dev/orphaned-since"].clone();
    assert!(labels("api-0").is_string() && labels("api-1").is_null());
}

#[test]
#[ignore = "needs the control plane"]
fn leadership_ends_while_etcd_is_down() {
    let (_lock, installed) = alone();
    let tidegate = installed.start_ready("first");
    let sandbox = sandbox("no-etcd");
    sandbox.apply(&model_server("api")).succeeds();
    complete(&sandbox, 1);
    quiet(&installed);
    PLANE.order("stop-component", "etcd");
    wait_until("the leadership to end", SOON, || tidegate.log().contains("no longer leads"));
    sleep(Duration::from_secs(5));
    PLANE.order("start-component", "etcd");
    wait_until("it to lead again", PATIENCE, || {
        let log = tidegate.log();
        log.matches("this replica leads").count() > log.matches("no longer leads").count()
    });
    let writes = about_companions(&quiet(&installed));
    assert!(writes.is_empty(), "{}", lines(&writes));
    sandbox.kubectl(&["delete", "hpa", "api-tidegate"]).succeeds();
    sandbox.autoscaler("api");
    sandbox.apply(&model_server("later")).succeeds().says_nothing();
    complete(&sandbox, 2);
    assert!(tidegate.is_ready());
}

#[test]
#[ignore = "needs the control plane"]
fn works_after_a_restart_of_the_api_server() {
    let (_lock, installed) = alone();
    let tidegate = installed.start_ready("first");
    let sandbox = sandbox("api-server");
    sandbox.apply(&model_server("api")).succeeds();
    complete(&sandbox, 1);
    quiet(&installed);
    PLANE.order("stop-component", "kube-apiserver");
    PLANE.order("start-component", "kube-apiserver");
    let writes = about_companions(&quiet(&installed));
    assert!(writes.is_empty(), "{}", lines(&writes));
    sandbox.apply(&model_server("later")).succeeds().says_nothing();
    sandbox.kubectl(&["delete", "hpa", "api-tidegate"]).succeeds();
    complete(&sandbox, 2);
    assert!(tidegate.is_ready());
}

#[test]
#[ignore = "needs the control plane"]
fn a_recreated_workload_owns_its_companions() {
    let (_lock, installed) = alone();
    let _tidegate = installed.start_ready("first");
    let sandbox = sandbox("anew");
    for cascade in ["background", "orphan", "foreground"] {
        sandbox.apply(&model_server("api")).succeeds();
        let uid = sandbox.deployment("api")["metadata"]["uid"].clone();
        let is_owned = |object: &Value| {
            let owners = object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
            owners.len() == 1 && owners[0]["uid"] == uid && object["metadata"]["deletionTimestamp"].is_null()
        };
        wait_until(&format!("its companions, before {cascade}"), SOON, || {
            let found = [sandbox.get("HorizontalPodAutoscaler", "api-tidegate"), sandbox.get("ModelServer", "api")];
            found.iter().all(|object| object.as_ref().is_some_and(is_owned))
        });
        assert_eq!(sandbox.list("HorizontalPodAutoscaler").len(), 1);
        assert_eq!(sandbox.database("api")["metadata"]["generation"], 1);
        sandbox.kubectl(&["delete", "deployment", "api", &format!("--cascade={cascade}")]).succeeds();
    }
}

#[test]
#[ignore = "needs the control plane"]
fn creates_nothing_in_a_terminating_namespace() {
    let (_lock, installed) = alone();
    let tidegate = installed.start_ready("first");
    let sandbox = sandbox("leaving");
    apply_all(&sandbox, &names(3));
    complete(&sandbox, 3);
    let held = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "finalizers": ["example.com/held"]}});
    sandbox.apply(&held).succeeds();
    quiet(&installed);
    PLANE.kubectl(&["delete", "namespace", "leaving", "--wait=false"], "").succeeds();
    wait_until("all but the held object to be deleted", SOON, || {
        ["Deployment", "HorizontalPodAutoscaler", "postgresql", "ModelServer"]
            .iter()
            .all(|kind| sandbox.list(kind).is_empty())
    });
    let writes = &quiet(&installed);
    let inside = |write: &&Value| write["objectRef"]["namespace"] == "leaving";
    let inside: Vec<Value> = writes.iter().filter(inside).cloned().collect();
    assert!(inside.is_empty(), "{}", lines(&inside));
    let free = r#"{"metadata":{"finalizers":null}}"#;
    sandbox.kubectl(&["patch", "configmap", "held", "--type=merge", "--patch", free]).succeeds();
    wait_until("the namespace to be deleted", SOON, || PLANE.api.get("Namespace", "", "leaving").is_none());
    assert!(!tidegate.log().contains("orbidden"), "{}", tidegate.log());
}
