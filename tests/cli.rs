//! The output of the command line: help, checks, tests of policies, explanations and errors.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Runs tidegate in the folder of the package, and returns its output and exit code.
fn tidegate(arguments: &[&str]) -> String {
    with_stdin(arguments, "")
}

fn with_stdin(arguments: &[&str], stdin: &str) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("KUBECONFIG")
        .env("HOME", "/nonexistent")
        .env("COLUMNS", "100")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    format!("{}{}exit code {}\n", text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

#[test]
fn prints_help() {
    for command in ["", "serve", "check", "test", "explain", "discover", "adopt", "generate"] {
        let arguments: Vec<&str> = [command, "--help"].into_iter().filter(|argument| !argument.is_empty()).collect();
        insta::assert_snapshot!(format!("help_of_tidegate_{command}"), tidegate(&arguments));
    }
}

#[test]
fn checks_files() {
    insta::assert_snapshot!(tidegate(&["check", "examples"]));
    insta::assert_snapshot!(tidegate(&[
        "check",
        "examples/model-server.yaml",
        "--policy",
        "production",
        "--environment",
        "dev"
    ]));
    let piped =
        with_stdin(&["check", "-", "--strict"], &fs::read_to_string("examples/model-server-complete.yaml").unwrap());
    insta::assert_snapshot!(piped);
    insta::assert_snapshot!(tidegate(&["check", "examples/refused.yaml", "--format", "json"]));
}

#[test]
fn checks_what_is_valid_in_invalid_files() {
    let file = "tests/cases/reports/placeholders/input.yaml";
    insta::assert_snapshot!(tidegate(&["check", file]));
    let misplaced = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: api, labels: \
                     {app.kubernetes.io/component: model-server}}, spec: {containers: [], template: {spec: \
                     {containers: [{name: api, image: 'api:1.2', livenessprobe: {}}]}}}}";
    insta::assert_snapshot!(with_stdin(&["check", "-"], misplaced));
}

/// Workloads in files, of which some are model servers that lack a label.
const UNSELECTED: &str = r#"
{apiVersion: apps/v1, kind: Deployment, metadata: {name: by-command}, spec: {template: {spec: {containers: [
  {name: server, image: registry.example.com/ours:1.2, command: [sh, -c, "exec vllm serve /m"]}]}}}}
---
{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: by-image, namespace: ml}, spec: {template: {spec: {containers: [
  {name: server, image: "ollama/ollama:0.11.10"}]}}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: by-annotation, annotations: {tidegate.dev/runtime: sglang}},
  spec: {template: {spec: {containers: [{name: server, image: "registry.example.com/ours:1.2"}]}}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: by-its-pods}, spec: {template: {
  metadata: {labels: {llm-d.ai/inference-serving: "true"}}, spec: {containers: [{name: server, image: "ours:1.2"}]}}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: by-its-label, labels: {app.kubernetes.io/component: serving-engine}},
  spec: {template: {spec: {containers: [{name: server, image: "ours:1.2"}]}}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: selected, labels: {app.kubernetes.io/component: model-server}},
  spec: {template: {spec: {containers: [{name: server, image: "vllm/vllm-openai:v0.11.0"}]}}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {template: {spec: {containers: [
  {name: server, image: "nginx:1.29"}]}}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: looks-like-one, annotations: {tidegate.dev/runtime: none}},
  spec: {template: {spec: {containers: [{name: server, image: "vllm/vllm-openai:v0.11.0"}]}}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: owned, ownerReferences: [
  {apiVersion: serving.kserve.io/v1beta1, kind: InferenceService, name: llm, uid: u, controller: true}]},
  spec: {template: {spec: {containers: [{name: server, image: "vllm/vllm-openai:v0.11.0"}]}}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: excluded, namespace: kube-system},
  spec: {template: {spec: {containers: [{name: server, image: "vllm/vllm-openai:v0.11.0"}]}}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: whole, labels: {tidegate.dev/model-servers: all}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: in-a-whole-namespace, namespace: whole},
  spec: {template: {spec: {containers: [{name: server, image: "vllm/vllm-openai:v0.11.0"}]}}}}
"#;

#[test]
fn discovers_model_servers_without_a_label() {
    insta::assert_snapshot!(with_stdin(&["discover", "-"], UNSELECTED));
    let llm_d = "llm-d.ai/inference-serving=true;app.kubernetes.io/component=serving-engine";
    insta::assert_snapshot!(with_stdin(&["discover", "-", "--selector", "a=1,b=2", "--selector", llm_d], UNSELECTED));
    insta::assert_snapshot!(tidegate(&["discover", "examples"]));
    insta::assert_snapshot!(with_stdin(&["discover", "-"], "a: ["));
}

#[test]
fn several_selectors_are_alternatives() {
    let output =
        with_stdin(&["check", "-", "--selector", "app.kubernetes.io/component=serving-engine;a=1"], UNSELECTED);
    assert!(output.contains("default/by-its-label: admitted") && output.contains("; 4 skipped"), "{output}");
    assert!(
        output.contains("default/selected: admitted with 1 warning\n  warning: unlabelled-model-server"),
        "{output}"
    );
}

#[test]
fn the_shipped_policies_pass_their_tests() {
    let output = tidegate(&["test", "policies/tests"]);
    assert!(!output.contains("FAILED"), "{output}");
    insta::assert_snapshot!(output);
}

#[test]
fn a_failing_test_lists_differences() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("failing.yaml");
    let object = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: api, labels: \
                  {app.kubernetes.io/component: model-server}}, spec: {template: {spec: {containers: \
                  [{name: api, image: 'api:latest'}]}}}}";
    let expect = "{refused: [privileged-container], warned: [floating-tag], replicas: 2, \
                  fields: {containers/api/resources/limits/cpu: '2', containers/api/livenessProbe: null}, \
                  companions: {autoscaler: none, database: {spec: {numberOfInstances: 3}}}}";
    let text = format!(
        "policies: [serving]\ntests:\n- {{name: everything differs, resources: [{object}], expect: {expect}}}\n"
    );
    fs::write(&file, text).unwrap();
    let output = tidegate(&["test", file.to_str().unwrap()]);
    insta::assert_snapshot!(output.replace(folder.path().to_str().unwrap(), "FOLDER"));
}

#[test]
fn explains_rules_policies_and_workloads() {
    insta::assert_snapshot!(tidegate(&["explain"]));
    insta::assert_snapshot!(tidegate(&["explain", "floating-tag"]));
    insta::assert_snapshot!(tidegate(&["explain", "--policy", "production", "--environment", "prod"]));
    let files = ["explain", "deployment/ai-model-serving", "-f", "examples/model-server.yaml", "--policy", "serving"];
    insta::assert_snapshot!(tidegate(&files));
}

#[test]
fn errors_say_what_to_do() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (name, text) in [
        ("empty.yaml", "# nothing yet\n"),
        (
            "unknown-field.yaml",
            "{apiVersion: tidegate.dev/v1alpha1, kind: ServingPolicy, metadata: {name: p}, spec: {}, specs: {}}",
        ),
        (
            "invalid-policy.yaml",
            "{apiVersion: tidegate.dev/v1alpha1, kind: ServingPolicy, metadata: {name: p}, spec: {rules: {no: {}}}}",
        ),
        ("invalid.yaml", "a: ["),
    ] {
        fs::write(path(name), text).unwrap();
    }
    let serve = |policy: &str| tidegate(&["serve", "--policy", policy, "--certs", &path("certs")]);
    let runs = [
        tidegate(&["explain", "no-latest"]),
        tidegate(&["explain", "pod/api"]),
        tidegate(&["explain", "deployment/api"]),
        tidegate(&["check", "no-such-file.yaml"]),
        tidegate(&["check", &path("empty.yaml")]),
        tidegate(&["check", &path("invalid.yaml")]),
        tidegate(&["check", "examples/model-server.yaml", "--policy", "nothing"]),
        tidegate(&["test", "examples/model-server.yaml"]),
        serve(&path("empty.yaml")),
        serve(&path("unknown-field.yaml")),
        serve(&path("invalid-policy.yaml")),
        serve(&path("invalid.yaml")),
        tidegate(&["serve", "--certs", &path("empty.yaml")]),
        tidegate(&["serve", "--webhook-url", "http://localhost"]),
        tidegate(&["serve", "--selector", "model-server"]),
    ];
    insta::assert_snapshot!(runs.join("\n").replace(folder.path().to_str().unwrap(), "FOLDER"));
}
