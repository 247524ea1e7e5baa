//! What the controller makes of failures: of its own replicas, of the API server, of etcd.

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

/// How long it may take until all is done: autoscalers have their metrics after a while only.
const PATIENCE: Duration = Duration::from_mins(3);

/// How long nobody writes before it is believed that nobody will.
const QUIET: Duration = Duration::from_secs(8);

/// Has the control plane alone, with Tidegate installed and no replica of it running.
fn alone() -> (MutexGuard<'static, ()>, Installed<'static>) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let everything = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations", "servingpolicies"];
    PLANE.kubectl(&["delete", &everything.join(","), "--all"], "").succeeds();
    let lease = ["delete", "lease", "tidegate", "--namespace", "tidegate-system", "--ignore-not-found"];
    PLANE.kubectl(&lease, "").succeeds();
    (turn, Installed::new(&PLANE))
}

/// Makes a namespace with the policy `serving`; Tidegate must be there.
fn sandbox(namespace: &str) -> Sandbox<'_> {
    let sandbox = Sandbox::on(&PLANE, None, namespace);
    sandbox.put_policy(&serving(namespace));
    sandbox
}

/// Applies model servers of these names, in one go.
fn apply_all(sandbox: &Sandbox, names: &[String]) {
    let items: Vec<Value> = names.iter().map(|name| model_server(name)).collect();
    sandbox.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items})).succeeds();
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("api-{number}")).collect()
}

/// Waits until each model server has all that belongs to it.
#[track_caller]
fn complete(sandbox: &Sandbox, count: usize) {
    for kind in ["HorizontalPodAutoscaler", "postgresql", "ModelServer"] {
        wait_until(&format!("{count} of {kind}"), SOON, || sandbox.list(kind).len() == count);
    }
    wait_until("every ModelServer to tell of its companions", SOON, || {
        let told = |server: &Value| {
            server["status"]["autoscaler"]["name"].is_string() && server["status"]["database"]["name"].is_string()
        };
        sandbox.list("ModelServer").iter().all(told)
    });
}

/// Waits until Tidegate has written nothing for a while, and returns what it has written by then.
#[track_caller]
fn quiet(installed: &Installed) -> Vec<Value> {
    let begun = Instant::now();
    let mut writes = Vec::new();
    loop {
        sleep(QUIET);
        let new = installed.writes();
        if new.is_empty() {
            return writes;
        }
        assert!(begun.elapsed() < PATIENCE, "tidegate does not come to rest:\n{}", told(&new));
        writes.extend(new);
    }
}

/// What was written about companions: ModelServers also tell of what the autoscalers' own controller finds.
fn about_companions(writes: &[Value]) -> Vec<Value> {
    let is_one = |write: &&Value| {
        ["horizontalpodautoscalers", "postgresqls"].iter().any(|kind| write["objectRef"]["resource"] == *kind)
    };
    writes.iter().filter(is_one).cloned().collect()
}

/// The requests that made or changed objects of a kind, by name.
fn of_kind<'w>(writes: &'w [Value], resource: &str) -> Vec<&'w str> {
    let of_kind = writes.iter().filter(|write| write["objectRef"]["resource"] == *resource);
    of_kind.map(|write| write["objectRef"]["name"].as_str().unwrap_or_default()).collect()
}

/// What a write was, for a person to read.
fn told(writes: &[Value]) -> String {
    let line = |write: &Value| {
        let object = &write["objectRef"];
        let field = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        format!("{} {} {} {}", write["verb"], field("resource"), field("name"), field("subresource"))
    };
    writes.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Which credential a request was made with: each replica has its own.
fn credential(write: &Value) -> &str {
    write["user"]["extra"]["authentication.kubernetes.io/credential-id"][0].as_str().unwrap()
}

#[test]
#[ignore = "needs the control plane"]
fn a_restart_with_nothing_changed_writes_nothing() {
    let (_turn, installed) = alone();
    let tidegate = installed.start_ready("first");
    let sandbox = sandbox("restart");
    apply_all(&sandbox, &names(5));
    let mut stateful = model_server("stateful");
    stateful["kind"] = "StatefulSet".into();
    stateful["spec"]["serviceName"] = "stateful".into();
    sandbox.apply(&stateful).succeeds();
    // One that breaks a rule, one that no label names, one that is no model server though it looks like one.
    let mut stranger = common::vllm("stranger");
    common::label(&mut stranger, None);
    sandbox.apply(&stranger).succeeds();
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
    // Until they have their metrics, their own controller goes on changing what it says of them.
    let is_active = |server: &Value| common::condition(server, "AutoscalerReady")["status"] == "True";
    wait_until("the autoscalers to have their metrics", PATIENCE, || {
        [&sandbox, &whole].iter().all(|sandbox| sandbox.list("ModelServer").iter().all(is_active))
    });
    quiet(&installed);

    tidegate.stop();
    let tidegate = installed.start_ready("first");
    nothing_is_written(&installed, "first");
    tidegate.kill();
    let _tidegate = installed.start_ready("first");
    nothing_is_written(&installed, "first");
}

#[test]
#[ignore = "needs the control plane"]
fn what_the_api_server_writes_in_its_own_way_is_applied_once() {
    let (_turn, installed) = alone();
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
        assert!(of_kind(writes, kind).len() <= 1, "{name}:\n{}", told(writes));
    }
    // A person writes the same in other words.
    let edit = r#"{"spec":{"volume":{"size":"10240Mi"}}}"#;
    sandbox.kubectl(&["patch", "postgresql", "acid-api-0", "--type=merge", "--patch", edit]).succeeds();
    sandbox.kubectl(&["annotate", "deployment", "api-0", "looked-at=again"]).succeeds();
    let writes = about_companions(&quiet(&installed));
    assert!(writes.is_empty(), "{}", told(&writes));
    let server = sandbox.get("ModelServer", "api-0").unwrap();
    assert_ne!(common::condition(&server, "DatabaseReady")["reason"], "Drifted", "{}", server["status"]);
}

#[test]
#[ignore = "needs the control plane"]
fn workloads_that_are_named_like_each_others_companions_have_their_own_and_come_to_rest() {
    let (_turn, installed) = alone();
    let _tidegate = installed.start_ready("first");
    let sandbox = sandbox("alike");
    let mut stateful = model_server("api");
    stateful["kind"] = "StatefulSet".into();
    stateful["spec"]["serviceName"] = "api".into();
    let alike = [model_server("api"), stateful, model_server("api-statefulset"), model_server("api-tidegate")];
    sandbox.apply(&json!({"apiVersion": "v1", "kind": "List", "items": alike})).succeeds();
    complete(&sandbox, alike.len());
    quiet(&installed);
    let told_of = |server: &Value| {
        let (owner, status) = (&server["metadata"]["ownerReferences"][0], &server["status"]);
        assert_eq!((&owner["kind"], &owner["name"]), (&server["spec"]["kind"], &server["spec"]["name"]));
        let names = [&server["metadata"]["name"], &status["autoscaler"]["name"], &status["database"]["name"]];
        names.map(|name| name.as_str().unwrap().to_owned())
    };
    let servers: Vec<[String; 3]> = sandbox.list("ModelServer").iter().map(told_of).collect();
    for index in 0..3 {
        let named: std::collections::BTreeSet<&String> = servers.iter().map(|names| &names[index]).collect();
        assert_eq!(named.len(), alike.len(), "{servers:?}");
    }
    let plain = ["api", "api-tidegate", "acid-api"].map(str::to_owned);
    assert!(servers.contains(&plain), "{servers:?}");
}

/// Holds a replica that leads to have nothing to write.
#[track_caller]
fn nothing_is_written(installed: &Installed, identity: &str) {
    installed.led_by(identity);
    sleep(QUIET);
    let writes = installed.writes();
    assert!(writes.is_empty(), "after {identity} came:\n{}", told(&writes));
}

#[test]
#[ignore = "needs the control plane"]
fn two_replicas_that_start_at_once_make_everything_once() {
    let (_turn, installed) = alone();
    installed.writes();
    let replicas = [installed.start("one"), installed.start("two")];
    wait_until("both to be ready", SOON, || replicas.iter().all(common::Tidegate::is_ready));
    let sandbox = sandbox("at-once");
    // The API server learns of the CA that the replicas filled in a moment after they are ready.
    let arguments = ["create", "--dry-run=server", "-f", "-"];
    let tried = || sandbox.kubectl_with(&arguments, &model_server("probe")).succeeds().stderr.is_empty();
    wait_until("the API server to reach the webhooks", SOON, tried);
    // The Service leads requests to one after the other: the API server trusts both.
    for name in names(8) {
        sandbox.apply(&model_server(&name)).succeeds().says_nothing();
    }
    complete(&sandbox, 8);
    let writes = &quiet(&installed);
    let by_leader: Vec<Value> = writes.iter().filter(|write| !is_registration(write)).cloned().collect();
    assert!(by_leader.iter().all(|write| credential(write) == credential(&by_leader[0])), "{}", told(writes));
    for kind in ["horizontalpodautoscalers", "postgresqls"] {
        let mut made = of_kind(writes, kind);
        made.sort_unstable();
        let once = made.windows(2).all(|pair| pair[0] != pair[1]);
        assert!(made.len() == 8 && once, "{}", told(writes));
    }
    let databases = sandbox.list("postgresql");
    assert!(databases.iter().all(|database| database["metadata"]["generation"] == 1));
    assert_eq!(installed.lease()["spec"]["leaseTransitions"], 0);
}

/// Filling in the CA is every replica's own business.
fn is_registration(write: &Value) -> bool {
    write["objectRef"]["apiGroup"] == "admissionregistration.k8s.io"
}

#[test]
#[ignore = "needs the control plane"]
fn a_leader_that_is_killed_mid_way_is_followed_by_another() {
    const COUNT: usize = 40;
    let (_turn, installed) = alone();
    let first = installed.start_ready("first");
    installed.led_by("first");
    let sandbox = sandbox("killed");
    let _second = installed.start_ready("second");
    apply_all(&sandbox, &names(COUNT));
    wait_until("the first autoscaler", SOON, || !sandbox.list("HorizontalPodAutoscaler").is_empty());
    first.kill();
    let made = sandbox.list("HorizontalPodAutoscaler").len();
    assert!(made < COUNT, "it was done already");
    installed.led_by("second");
    complete(&sandbox, COUNT);
    assert_eq!(installed.lease()["spec"]["leaseTransitions"], 1);
    let databases = sandbox.list("postgresql");
    assert!(databases.iter().all(|database| database["metadata"]["generation"] == 1));
}

#[test]
#[ignore = "needs the control plane"]
fn a_leader_that_stops_lets_another_lead_at_once() {
    let (_turn, installed) = alone();
    let first = installed.start_ready("first");
    installed.led_by("first");
    let sandbox = sandbox("stopped");
    let _second = installed.start_ready("second");
    sandbox.apply(&model_server("api")).succeeds();
    complete(&sandbox, 1);
    first.stop();
    // The Lease would be another's for six seconds.
    wait_until("the second to lead", Duration::from_secs(4), || installed.leader() == "second");
    sandbox.kubectl(&["delete", "hpa", "api-tidegate"]).succeeds();
    sandbox.autoscaler("api");
    sandbox.apply(&model_server("later")).succeeds().says_nothing();
}

#[test]
#[ignore = "needs the control plane"]
fn a_leader_that_was_suspended_writes_nothing_when_it_wakes() {
    let (_turn, installed) = alone();
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
    // When it wakes, it is told of all that the other did, and could take it for its own to mend.
    first.signal("CONT");
    sandbox.kubectl(&["delete", "hpa", "api-tidegate"]).succeeds();
    sandbox.autoscaler("api");
    wait_until("the first to see that it leads no longer", SOON, || first.log().contains("leads no longer"));
    let writes = &quiet(&installed);
    assert!(writes.iter().all(|write| credential(write) == second), "{}", told(writes));
    assert_eq!(installed.leader(), "second");
}

#[test]
#[ignore = "needs the control plane"]
fn what_changed_while_nobody_could_watch_is_noticed() {
    let (_turn, installed) = alone();
    let tidegate = installed.start_ready("first");
    let sandbox = sandbox("unwatched");
    apply_all(&sandbox, &names(3));
    complete(&sandbox, 3);
    quiet(&installed);

    // An API server that was started anew knows nothing of the versions that watches go on from: 410 Gone.
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
    wait_until("the edited autoscaler to be put right", SOON, || {
        sandbox.autoscaler("api-0")["spec"]["maxReplicas"] == 10
    });
    sandbox.autoscaler("api-1");
    let log = tidegate.log();
    assert!(log.contains("too old resource version"), "{log}");
    let writes = &quiet(&installed);
    // The database stays, labelled with the time since when no workload uses it.
    assert_eq!(of_kind(writes, "postgresqls"), ["acid-api-2"], "{}", told(writes));
    let left = ["api-0-tidegate", "api-1-tidegate"];
    wait_until("nothing to be left of what has gone", SOON, || {
        let found = sandbox.list("HorizontalPodAutoscaler");
        found.iter().map(|found| &found["metadata"]["name"]).eq(left) && sandbox.list("ModelServer").len() == 2
    });
    assert!(tidegate.is_ready());
}

/// Has etcd forget all versions of objects but the last.
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

/// Asks in plain HTTP, and returns all that is answered.
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
fn what_went_while_nobody_led_has_left_a_database_that_is_labelled() {
    let (_turn, installed) = alone();
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
    assert_eq!(of_kind(writes, "postgresqls"), ["acid-api-0"], "{}", told(writes));
    let labels = |name: &str| sandbox.database(name)["metadata"]["labels"]["tidegate.dev/orphaned-since"].clone();
    assert!(labels("api-0").is_string() && labels("api-1").is_null());
}

#[test]
#[ignore = "needs the control plane"]
fn an_api_server_without_etcd_ends_the_leadership_until_it_is_back() {
    let (_turn, installed) = alone();
    let tidegate = installed.start_ready("first");
    let sandbox = sandbox("no-etcd");
    sandbox.apply(&model_server("api")).succeeds();
    complete(&sandbox, 1);
    quiet(&installed);
    PLANE.order("stop-component", "etcd");
    wait_until("the leadership to end", SOON, || tidegate.log().contains("leads no longer"));
    sleep(Duration::from_secs(5));
    PLANE.order("start-component", "etcd");
    wait_until("it to lead again", PATIENCE, || {
        let log = tidegate.log();
        log.matches("this replica leads: ").count() > log.matches("leads no longer").count()
    });
    let writes = about_companions(&quiet(&installed));
    assert!(writes.is_empty(), "{}", told(&writes));
    sandbox.kubectl(&["delete", "hpa", "api-tidegate"]).succeeds();
    sandbox.autoscaler("api");
    sandbox.apply(&model_server("later")).succeeds().says_nothing();
    complete(&sandbox, 2);
    assert!(tidegate.is_ready());
}

#[test]
#[ignore = "needs the control plane"]
fn an_api_server_that_is_started_anew_finds_tidegate_at_work() {
    let (_turn, installed) = alone();
    let tidegate = installed.start_ready("first");
    let sandbox = sandbox("api-server");
    sandbox.apply(&model_server("api")).succeeds();
    complete(&sandbox, 1);
    quiet(&installed);
    PLANE.order("stop-component", "kube-apiserver");
    PLANE.order("start-component", "kube-apiserver");
    let writes = about_companions(&quiet(&installed));
    assert!(writes.is_empty(), "{}", told(&writes));
    sandbox.apply(&model_server("later")).succeeds().says_nothing();
    sandbox.kubectl(&["delete", "hpa", "api-tidegate"]).succeeds();
    complete(&sandbox, 2);
    assert!(tidegate.is_ready());
}

#[test]
#[ignore = "needs the control plane"]
fn a_workload_that_is_made_anew_owns_what_belongs_to_it() {
    let (_turn, installed) = alone();
    let _tidegate = installed.start_ready("first");
    let sandbox = sandbox("anew");
    for cascade in ["background", "orphan", "foreground"] {
        sandbox.apply(&model_server("api")).succeeds();
        let uid = sandbox.deployment("api")["metadata"]["uid"].clone();
        let is_owned = |object: &Value| {
            let owners = object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
            owners.len() == 1 && owners[0]["uid"] == uid && object["metadata"]["deletionTimestamp"].is_null()
        };
        wait_until(&format!("what belongs to it, before {cascade}"), SOON, || {
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
fn nothing_is_made_in_a_namespace_on_its_way_out() {
    let (_turn, installed) = alone();
    let tidegate = installed.start_ready("first");
    let sandbox = sandbox("leaving");
    apply_all(&sandbox, &names(3));
    complete(&sandbox, 3);
    let held = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "finalizers": ["example.com/held"]}});
    sandbox.apply(&held).succeeds();
    quiet(&installed);
    PLANE.kubectl(&["delete", "namespace", "leaving", "--wait=false"], "").succeeds();
    wait_until("all but what is held to be gone", SOON, || {
        ["Deployment", "HorizontalPodAutoscaler", "postgresql", "ModelServer"]
            .iter()
            .all(|kind| sandbox.list(kind).is_empty())
    });
    let writes = &quiet(&installed);
    let inside = |write: &&Value| write["objectRef"]["namespace"] == "leaving";
    let inside: Vec<Value> = writes.iter().filter(inside).cloned().collect();
    assert!(inside.is_empty(), "{}", told(&inside));
    let free = r#"{"metadata":{"finalizers":null}}"#;
    sandbox.kubectl(&["patch", "configmap", "held", "--type=merge", "--patch", free]).succeeds();
    wait_until("the namespace to be gone", SOON, || PLANE.api.get("Namespace", "", "leaving").is_none());
    assert!(!tidegate.log().contains("orbidden"), "{}", tidegate.log());
}
