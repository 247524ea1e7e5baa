//! Several selectors of model servers on a real API server, the components that install them, and `tidegate discover`.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use std::fs;
use std::process::Command;
use std::sync::LazyLock;

use common::{
    ControlPlane, LABEL, Output, SOON, Sandbox, Tidegate, container, free_addresses, in_tree, label, model_server,
    serving, vllm, wait_until,
};
use serde_json::{Value, json};

/// The labels that mark a model server, each on its own.
const LABELS: [(&str, &str); 4] = [
    (LABEL, "model-server"),
    ("llm-d.ai/inference-serving", "true"),
    ("llm-d.ai/inferenceServing", "true"),
    (LABEL, "serving-engine"),
];

fn flags() -> Vec<String> {
    LABELS.iter().flat_map(|(key, value)| ["--selector".to_owned(), format!("{key}={value}")]).collect()
}

/// A control plane with a Tidegate for all labels.
static SHARED: LazyLock<(ControlPlane, Tidegate)> = LazyLock::new(|| {
    let plane = ControlPlane::start(&[]);
    plane.kubectl(&["apply", "-f", &in_tree("manifests/base/crds.yaml")], "").succeeds();
    let addresses @ [listen, _] = free_addresses();
    let mut arguments = vec!["--webhook-url".to_owned(), format!("https://{listen}")];
    arguments.extend(flags());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let tidegate = Tidegate::run(&plane, &plane.kubeconfig(), addresses, &arguments);
    wait_until("tidegate to be ready", SOON, || tidegate.is_ready());
    (plane, tidegate)
});

fn sandbox(namespace: &str) -> Sandbox<'_> {
    let (plane, tidegate) = &*SHARED;
    Sandbox::on(plane, Some(tidegate), namespace)
}

fn discover(sandbox: &Sandbox, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("discover").args(arguments).env("KUBECONFIG", sandbox.plane.kubeconfig());
    Output::of(command, "")
}

/// A Deployment with one label.
fn with_label(name: &str, (key, value): (&str, &str)) -> Value {
    let mut object = model_server(name);
    label(&mut object, None);
    object["metadata"]["labels"][key] = value.into();
    object
}

#[test]
#[ignore = "needs the control plane"]
fn each_of_several_labels_makes_a_model_server() {
    let sandbox = sandbox("several");
    sandbox.put_policy(&serving("several"));
    for (index, found) in LABELS.into_iter().enumerate() {
        let name = format!("api-{index}");
        sandbox.apply(&with_label(&name, found)).succeeds().says_nothing();
        assert!(sandbox.container(&name)["resources"]["limits"].is_object(), "{found:?}");
        sandbox.autoscaler(&name);
        let mut wrong = with_label(&name, found);
        container(&mut wrong)["image"] = "registry.example.com/api:latest".into();
        sandbox.apply(&wrong).fails().says("floating-tag");
        let removed = sandbox.kubectl(&["label", "deployment", &name, &format!("{}-", found.0)]);
        removed.fails().says("model-server-label-removed").says(&format!("{}: {}", found.0, found.1));
    }
    // From one selector to another it stays a model server, and it may have the labels of several.
    let label = |word: &str| sandbox.kubectl(&["label", "deployment", "api-0", "--overwrite", word]);
    label(&format!("{LABEL}=serving-engine")).succeeds();
    label("llm-d.ai/inferenceServing=true").succeeds();
    label(&format!("{LABEL}-")).succeeds();
    sandbox.kubectl(&["annotate", "deployment", "api-0", "tidegate.dev/max-replicas=3"]).succeeds();
    wait_until("the autoscaler to follow", SOON, || sandbox.autoscaler("api-0")["spec"]["maxReplicas"] == 3);
    let policy = sandbox.plane.api.get("ServingPolicy", "", "several").unwrap();
    assert_eq!(policy["status"]["unlabelled"]["count"], 0, "{}", policy["status"]);
}

#[test]
#[ignore = "needs the control plane"]
fn the_components_install_what_the_flags_select() {
    let (plane, _) = &*SHARED;
    let folder = plane.new_folder();
    // An overlay refers to its bases by relative paths.
    let up = "../".repeat(folder.components().count() - 1);
    let path = |folder: &str| format!("{up}{}", in_tree(folder).trim_start_matches('/'));
    let overlay = json!({
        "resources": [path("manifests/base")],
        "components": [path("manifests/selectors/llm-d"), path("manifests/selectors/production-stack")],
    });
    fs::write(folder.join("kustomization.yaml"), overlay.to_string()).unwrap();
    let built = plane.kubectl(&["kustomize", folder.to_str().unwrap()], "").succeeds();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&built.stdout).unwrap();
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        let by_name = |object: &Value| -> Vec<(String, Value)> {
            let webhooks = object["webhooks"].as_array().unwrap().iter();
            let called = webhooks.map(|found| {
                let selector = found["objectSelector"].clone();
                (found["name"].as_str().unwrap().to_owned(), json!([selector, found["rules"], found["failurePolicy"]]))
            });
            let mut called: Vec<(String, Value)> = called.filter(|(name, _)| name != "policies.tidegate.dev").collect();
            called.sort_by(|(one, _), (other, _)| one.cmp(other));
            called
        };
        let installed = objects.iter().find(|object| object["kind"] == kind).unwrap();
        let registered = plane.api.get(kind, "", "tidegate").unwrap();
        assert_eq!(by_name(installed), by_name(&registered));
    }
    let of_tidegate = |object: &&Value| object["kind"] == "Deployment";
    let deployment = objects.iter().find(of_tidegate).unwrap();
    let arguments: Vec<&str> = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    for (key, value) in LABELS {
        assert!(arguments.contains(&&*format!("--selector={key}={value}")), "{arguments:?}");
    }
}

#[test]
#[ignore = "needs the control plane"]
fn discover_lists_what_is_not_selected_until_it_is_labelled() {
    let sandbox = sandbox("found");
    let mut server = vllm("llm");
    label(&mut server, None);
    sandbox.apply(&server).succeeds();
    let mut of_pods = with_label("decode", ("team", "search"));
    of_pods["spec"]["template"]["metadata"]["labels"]["llm-d.ai/inferenceServing"] = "true".into();
    sandbox.apply(&of_pods).succeeds();
    sandbox.apply(&with_label("web", ("team", "search"))).succeeds();
    sandbox.apply(&with_label("engine", (LABEL, "serving-engine"))).succeeds();

    let inside = ["--namespace", "found"];
    let all: Vec<String> = flags();
    let all: Vec<&str> = inside.into_iter().chain(all.iter().map(String::as_str)).collect();
    let found = discover(&sandbox, &all).fails();
    let commands: Vec<&str> = found.stdout.lines().filter_map(|line| line.strip_prefix("  kubectl ")).collect();
    assert_eq!(
        commands,
        [
            "label deployment decode --namespace found llm-d.ai/inferenceServing=true",
            &format!("label deployment llm --namespace found {LABEL}=model-server"),
        ],
        "{}",
        found.stdout
    );
    assert!(found.stdout.contains("Deployment found/decode: a server of llm-d, by the label"), "{}", found.stdout);
    assert!(found.stdout.contains("Deployment found/llm: vllm, by the"), "{}", found.stdout);
    for command in commands {
        let words: Vec<&str> = command.split(' ').collect();
        sandbox.plane.kubectl(&words, "").succeeds();
    }
    assert_eq!(discover(&sandbox, &all).succeeds().stdout, "every model server is selected\n");

    // With the default alone, the labels of others are found, and the namespace's own label makes all of them servers.
    let found = discover(&sandbox, &inside).fails();
    let engine = format!(
        "Deployment found/engine: a server of production-stack, by its label {LABEL}=serving-engine\n  \
         kubectl label deployment engine --namespace found --overwrite {LABEL}=model-server\n  \
         or install manifests/selectors/production-stack"
    );
    assert!(
        found.stdout.contains(&engine) && found.stdout.contains("2 model servers not selected"),
        "{}",
        found.stdout
    );
    sandbox.kubectl(&["label", "namespace", "found", "tidegate.dev/model-servers=all"]).succeeds();
    discover(&sandbox, &inside).succeeds();
}
