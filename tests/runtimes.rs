//! Recognises and probes model servers as users write them, and nothing else.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use common::{SCOPE, Sandbox, container, in_force, vllm};

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_engine::decision::{Operation, Request, User, decide};
use tidegate_engine::facts::{Apis, Facts, Namespace};
use tidegate_engine::runtimes::{Endpoint, Handler, Recognised, Runtimes};
use tidegate_engine::workload::Workload;

/// A model server as in the documentation page.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    page: String,
    container: Value,
    /// Containers before it.
    #[serde(default)]
    others: Vec<Value>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    is: Expected,
}

/// The expected result.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    runtime: Option<String>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    liveness: Option<String>,
    #[serde(default)]
    scheme: Option<String>,
    #[serde(default)]
    budget: Option<u64>,
    #[serde(default)]
    queue: Option<String>,
    /// The seconds that it sleeps before SIGTERM, and that it is given to stop.
    #[serde(default)]
    stop: Option<[u64; 2]>,
    /// Part of the message, if nothing can be injected.
    #[serde(default)]
    message: Option<String>,
}

impl Expected {
    fn of(recognised: &Recognised) -> Self {
        let runtime = recognised.name().map(str::to_owned);
        let asked = |handler| match handler {
            Handler::Http { path, scheme } => (Some(path), Some(scheme.to_owned())),
            Handler::Tcp => (Some("tcp".to_owned()), None),
        };
        let metrics = recognised.runtime.and_then(|runtime| runtime.metrics.as_ref());
        let queue = metrics.and_then(|metrics| metrics.queue.clone()).or(Some("none".to_owned()));
        let seconds = |duration| Duration::from(duration).as_secs();
        let stop = recognised.drain().map(|drain| [seconds(drain.pre_stop), seconds(drain.grace_period)]);
        match recognised.endpoint() {
            Ok(Endpoint { port, readiness, liveness, startup_budget, .. }) => {
                let ((path, scheme), (liveness, _)) = (asked(readiness), asked(liveness));
                let (port, budget) = (Some(port), Some(startup_budget.as_secs()));
                Self { runtime, port, path, liveness, scheme, budget, queue, stop, message: None }
            }
            Err(error) => Self { runtime, message: Some(error), ..Self::default() },
        }
    }

    fn is_met_by(&self, found: &Self) -> bool {
        if let (Some(expected), Some(error)) = (&self.message, &found.message) {
            return self.runtime == found.runtime && error.contains(expected.as_str());
        }
        let all = Self {
            liveness: self.liveness.clone().or_else(|| found.liveness.clone()),
            queue: self.queue.clone().or_else(|| found.queue.clone()),
            stop: self.stop.or(found.stop),
            ..self.clone()
        };
        all == *found
    }
}

fn table<T: serde::de::DeserializeOwned>(name: &str) -> Vec<T> {
    let path = format!("{}/tests/cases/runtimes/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn with<T>(containers: &[&Value], annotations: &BTreeMap<String, String>, ask: impl FnOnce(&Recognised) -> T) -> T {
    let metadata = json!({"annotations": annotations});
    let object = json!({"metadata": metadata, "spec": {"template": {"spec": {"containers": containers}}}});
    let workload = Workload::view(&object).unwrap();
    ask(&Runtimes::shipped().recognise(&workload).view(&workload))
}

#[test]
fn recognises_known_model_servers() {
    let table = table::<Known>("known");
    assert!(table.len() >= 80);
    let wrong = table.into_iter().filter_map(|Known { page, container, others, annotations, is }| {
        let containers: Vec<&Value> = others.iter().chain([&container]).collect();
        let (found, name) = with(&containers, &annotations, |recognised| {
            (Expected::of(recognised), recognised.container.map(|found| found.name().to_owned()))
        });
        let is_right = is.is_met_by(&found) && name.as_deref() == container["name"].as_str();
        (!is_right).then(|| format!("{page}: {found:?} in {name:?}, not {is:?}"))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn recognises_nothing_else() {
    let table = table::<Value>("unknown");
    assert!(table.len() >= 30);
    let recognised = table.iter().filter_map(|container| {
        with(&[container], &BTreeMap::new(), |recognised| Some(format!("{}: {container}", recognised.name()?)))
    });
    let recognised: Vec<String> = recognised.collect();
    assert!(recognised.is_empty(), "{}", recognised.join("\n"));
}

/// A container of a server in several pods, or of one that only looks so.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MultiNode {
    page: String,
    container: Value,
    is: Option<String>,
}

#[test]
fn tells_parts_of_a_server_from_copies() {
    let wrong = table::<MultiNode>("multi-node").into_iter().filter_map(|MultiNode { page, container, is }| {
        let found = with(&[&container], &BTreeMap::new(), |recognised| recognised.multi_node.map(str::to_owned));
        (found != is).then(|| format!("{page}: {found:?}, not {is:?}"))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Rules about a server's arguments, each with arguments of vLLM that violate it.
const VIOLATIONS: [(&str, &str); 5] = [
    ("loopback-server", "--host 127.0.0.1"),
    ("gpu-count-mismatch", "--tensor-parallel-size 2"),
    ("gpu-missing", "--port 8000"),
    ("unpinned-model-revision", "--port 8000"),
    ("remote-code-without-revision", "--trust-remote-code"),
];

/// Returns the rules that a server violates that a shell runs with these arguments.
fn violated(words: &str, limits: &Value) -> Vec<String> {
    let env = json!([{"name": "ARGS", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]);
    violated_by(&json!({"name": "m", "image": "vllm/vllm-openai:v0.11.0", "env": env,
        "command": ["sh", "-c", format!("vllm serve org/model {words}")],
        "resources": {"limits": limits}}))
}

/// Returns the rules that a server violates.
fn violated_by(container: &Value) -> Vec<String> {
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "m", "namespace": "ml", "labels": {SCOPE.0: SCOPE.1}},
        "spec": {"template": {"spec": {"containers": [container]}}}});
    let workload = Workload::view(&object).unwrap();
    let request =
        Request { user: User::named("jane"), ..Request::new(Operation::Create, workload, Timestamp::UNIX_EPOCH) };
    let policy =
        json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": "ServingPolicy", "metadata": {"name": "p"}, "spec": {}});
    let facts =
        Facts { namespaces: [("ml".to_owned(), Namespace::default())].into(), apis: Apis::all(), ..Facts::default() };
    let verdict = decide(&request, &in_force(&policy), &facts).verdict;
    let all = verdict.violations.iter().chain(&verdict.warned).chain(&verdict.recorded);
    all.map(|violation| violation.rule.clone()).collect()
}

#[test]
fn unknown_arguments_violate_no_rules() {
    for (rule, words) in VIOLATIONS {
        let limits = if rule == "gpu-missing" { json!({}) } else { json!({"nvidia.com/gpu": 1}) };
        let is_violated = |words: &str| violated(words, &limits).iter().any(|found| found == rule);
        assert!(is_violated(words), "{rule}");
        assert!(!is_violated(&format!("{words} $ARGS")), "{rule}");
    }
}

#[test]
fn a_server_on_localhost_by_default_is_reported_unless_a_file_may_set_the_address() {
    let is_reported = |command: &[&str], env: Value| {
        let rules = violated_by(&json!({"name": "m", "image": "app:1", "command": command, "env": env}));
        // It has no port that a Service or the kubelet reaches.
        assert!(!rules.iter().any(|rule| rule == "probe-port-unknown"), "{rules:?}");
        rules.iter().any(|rule| rule == "loopback-server")
    };
    let host = |host: &str| json!([{"name": "RAY_SERVE_DEFAULT_HTTP_HOST", "value": host}]);
    assert!(is_reported(&["serve", "run", "app:app"], json!([])));
    assert!(is_reported(&["serve", "run", "app:app"], host("127.0.0.1")));
    assert!(!is_reported(&["serve", "run", "app:app"], host("0.0.0.0")));
    assert!(!is_reported(&["serve", "run", "config.yaml"], json!([])));
    assert!(is_reported(&["llama-server", "-m", "m.gguf"], json!([])));
}

#[test]
fn a_path_of_the_server_that_answers_early_is_reported() {
    let is_reported = |path: &str| {
        let ready = json!({"httpGet": {"path": path, "port": 8000}});
        let container = json!({"name": "m", "image": "app:1", "command": ["serve", "run", "app:app"],
            "env": [{"name": "RAY_SERVE_DEFAULT_HTTP_HOST", "value": "0.0.0.0"}], "readinessProbe": ready});
        violated_by(&container).iter().any(|rule| rule == "readiness-before-load")
    };
    assert_eq!(["/-/healthz", "/-/routes", "/v1/app/ready"].map(is_reported), [true, true, false]);
}

#[test]
#[ignore = "needs the control plane"]
fn probes_a_script_only_if_its_port_is_known() {
    let sandbox = Sandbox::new("scripts");
    let served = |name: &str, variable: Value| {
        let mut manifest = vllm(name);
        let written = container(&mut manifest);
        written["command"] = json!(["sh", "-ce", "vllm serve org/model $ARGS"]);
        written["env"] = json!([variable]);
        written.as_object_mut().unwrap().remove("args");
        let applied = sandbox.apply(&manifest).succeeds();
        (applied, sandbox.container(name))
    };
    let (_, stored) = served("written", json!({"name": "ARGS", "value": "--port 9000"}));
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        assert_eq!(stored[probe]["httpGet"]["port"], 9000, "{stored}");
    }
    let elsewhere = json!({"configMapKeyRef": {"name": "flags", "key": "args"}});
    let (applied, stored) = served("elsewhere", json!({"name": "ARGS", "valueFrom": elsewhere}));
    assert_eq!(stored["readinessProbe"], Value::Null, "{stored}");
    applied.says("no probes are injected").says("what `$ARGS` expands to");
}
