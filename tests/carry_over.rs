//! No surprise restarts: whatever happens to a policy, a model server restarts only when its author changes it. Tests
//! every way of changing one across everything that can happen in between.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::{
    ControlPlane, Output, SOON, Sandbox, Tidegate, built, condition, container, model_server, serving, wait_until,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

const RECEIPT: &str = "tidegate.dev/receipt";

/// An event between the admission of a workload and the next request about it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    PolicyChanged,
    PolicyReplaced,
    PolicyDeleted,
    PolicyDemoted,
    ExceptionExpired,
    ReceiptForged,
    ReceiptRemoved,
}

/// What a user does to a workload then.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    ClientSideApply,
    ServerSideApply,
    Replace,
    Edit,
    Annotate,
    Scale,
    Helm,
    SetImage,
    Restart,
    Undo,
    HelmImage,
}

impl Action {
    /// Actions that do not change the pods.
    const HARMLESS: [Self; 7] = [
        Self::ClientSideApply,
        Self::ServerSideApply,
        Self::Replace,
        Self::Edit,
        Self::Annotate,
        Self::Scale,
        Self::Helm,
    ];

    /// Actions that restart the pods, as their author wants.
    const CHANGING: [Self; 4] = [Self::SetImage, Self::Restart, Self::HelmImage, Self::Undo];

    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// The manifest of a workload.
fn manifest(action: Action) -> Value {
    model_server(&action.name())
}

struct Stage<'a> {
    sandbox: Sandbox<'a>,
    helm: PathBuf,
    folder: PathBuf,
}

impl<'a> Stage<'a> {
    fn set(plane: &'a ControlPlane, tidegate: Option<&'a Tidegate>, namespace: &'a str) -> Self {
        let sandbox = Sandbox::on(plane, tidegate, namespace);
        sandbox.put_policy(&serving(namespace));
        Self { sandbox, helm: built("dev/helm/build"), folder: plane.new_folder() }
    }

    fn run_helm(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.helm);
        command.env("KUBECONFIG", self.sandbox.plane.kubeconfig()).env("HOME", &self.folder).args(arguments);
        Output::of(command.args(["--namespace", self.sandbox.namespace]), "")
    }

    /// Installs or upgrades the workload of an action as a chart.
    fn release(&self, action: Action, image: &str) -> Output {
        let (name, chart) = (action.name(), self.folder.join(action.name()));
        let mut object = manifest(action);
        container(&mut object)["image"] = image.into();
        fs::create_dir_all(chart.join("templates")).unwrap();
        fs::write(chart.join("Chart.yaml"), format!("{{apiVersion: v2, name: {name}, version: 1.0.0}}")).unwrap();
        fs::write(chart.join("templates/deployment.yaml"), object.to_string()).unwrap();
        self.run_helm(&["upgrade", "--install", &name, chart.to_str().unwrap()])
    }

    /// Creates the workload of an action in its way, and waits until it runs.
    fn start(&self, action: Action) {
        let (sandbox, name) = (&self.sandbox, action.name());
        let object = manifest(action);
        match action {
            Action::Helm | Action::HelmImage => self.release(action, "registry.example.com/api:1.0.0"),
            Action::ServerSideApply => sandbox.kubectl_with(&["apply", "--server-side", "-f", "-"], &object),
            Action::Replace => sandbox.kubectl_with(&["create", "-f", "-"], &object),
            _ => sandbox.apply(&object),
        }
        .succeeds();
        sandbox.rolled_out(&name);
        if action == Action::Undo {
            self.set_image(&name, "2.0.0");
            sandbox.rolled_out(&name);
        }
    }

    fn set_image(&self, name: &str, tag: &str) -> Output {
        let image = format!("api=registry.example.com/api:{tag}");
        self.sandbox.kubectl(&["set", "image", &format!("deployment/{name}"), &image])
    }

    fn act(&self, action: Action) -> Output {
        let (sandbox, name) = (&self.sandbox, action.name());
        match action {
            Action::ClientSideApply => sandbox.apply(&manifest(action)),
            Action::ServerSideApply => sandbox.kubectl_with(&["apply", "--server-side", "-f", "-"], &manifest(action)),
            Action::Replace => sandbox.kubectl_with(&["replace", "-f", "-"], &manifest(action)),
            Action::Edit => self.edit(&name),
            Action::Annotate => sandbox.kubectl(&["annotate", "deployment", &name, "note=1", "--overwrite"]),
            Action::Scale => sandbox.kubectl(&["scale", "deployment", &name, "--replicas=2"]),
            Action::Helm => self.release(action, "registry.example.com/api:1.0.0"),
            Action::SetImage => self.set_image(&name, "3.0.0"),
            Action::Restart => sandbox.kubectl(&["rollout", "restart", "deployment", &name]),
            Action::Undo => sandbox.kubectl(&["rollout", "undo", "deployment", &name]),
            Action::HelmImage => self.release(action, "registry.example.com/api:3.0.0"),
        }
    }

    /// Adds a label in an editor.
    fn edit(&self, name: &str) -> Output {
        let script = self.folder.join("editor");
        fs::write(&script, "#!/bin/sh\nsed -i 's|^  labels:$|  labels:\\n    edited: \"true\"|' \"$1\"\n").unwrap();
        Command::new("chmod").arg("+x").arg(&script).stdin(Stdio::null()).status().unwrap();
        let mut command = self.sandbox.plane.kubectl_command();
        command.env("KUBE_EDITOR", &script).args(["--namespace", self.sandbox.namespace, "edit", "deployment", name]);
        Output::of(command, "")
    }

    fn happens(&self, event: Event, workloads: &[Action]) {
        let namespace = self.sandbox.namespace;
        match event {
            Event::PolicyChanged | Event::ExceptionExpired => {
                self.sandbox.put_policy(&other_policy(namespace, namespace));
            }
            Event::PolicyReplaced => {
                self.sandbox.put_policy(&other_policy(&format!("{namespace}-other"), namespace));
                self.delete_policy();
            }
            Event::PolicyDeleted => self.delete_policy(),
            Event::PolicyDemoted => {
                let mut policy = other_policy(namespace, namespace);
                policy["spec"]["enforcement"] = "audit".into();
                self.sandbox.put_policy(&policy);
            }
            Event::ReceiptForged | Event::ReceiptRemoved => {
                self.sandbox.put_policy(&other_policy(namespace, namespace));
                for action in workloads {
                    self.tamper(event, &action.name());
                }
            }
        }
    }

    fn delete_policy(&self) {
        let namespace = self.sandbox.namespace;
        self.sandbox.kubectl(&["delete", "servingpolicy", namespace]).succeeds();
        wait_until("the policy to be inactive", SOON, || {
            let dry = self
                .sandbox
                .kubectl_with(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &model_server("probe"));
            let stored: Value = serde_json::from_str(&dry.stdout).unwrap_or_default();
            stored["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] != "500m"
        });
    }

    /// Removes the receipt, or writes another one.
    fn tamper(&self, event: Event, name: &str) {
        let argument = if event == Event::ReceiptRemoved {
            format!("{RECEIPT}-")
        } else {
            format!("{RECEIPT}={}", json!({"template": "0123456789abcdef", "set": {"serving@1": {"containers": {}}}}))
        };
        self.sandbox.kubectl(&["annotate", "deployment", name, "--overwrite", &argument]).succeeds();
        let receipt = &self.sandbox.deployment(name)["metadata"]["annotations"][RECEIPT];
        let text = receipt.as_str().unwrap_or_default().to_owned();
        assert!(
            text.contains("resources") && !text.contains("0123456789abcdef"),
            "{name}: the receipt must not change: {text}"
        );
    }

    fn cpu(&self, name: &str) -> Value {
        self.sandbox.container(name)["resources"]["limits"]["cpu"].clone()
    }

    fn play(&self, event: Event) {
        let actions: Vec<Action> = Action::HARMLESS.into_iter().chain(Action::CHANGING).collect();
        for action in &actions {
            self.start(*action);
        }
        self.happens(event, &actions);
        let injects = !matches!(event, Event::PolicyDeleted | Event::PolicyDemoted);
        for action in Action::HARMLESS {
            // Without a policy that injects, nothing is changed, so `replace` removes the injected fields.
            if action == Action::Replace && !injects {
                continue;
            }
            let name = action.name();
            let before = self.sandbox.template(&name);
            self.act(action).succeeds();
            assert_eq!(self.sandbox.template(&name), before, "{event:?}, {action:?}");
            assert_eq!(self.sandbox.replica_sets(&name), 1, "{event:?}, {action:?}");
        }
        for action in Action::CHANGING {
            let name = action.name();
            self.act(action).succeeds();
            let fresh = action != Action::Undo && injects;
            let expected = if fresh { "2" } else { "500m" };
            assert_eq!(self.cpu(&name), expected, "{event:?}, {action:?}");
        }
        let undone = self.sandbox.container("undo")["image"].clone();
        assert_eq!(undone, "registry.example.com/api:1.0.0", "{event:?}");
        wait_until("the earlier revision to run", SOON, || self.sandbox.replica_sets("undo") == 2);
    }
}

/// The policy `serving` with other values.
fn other_policy(name: &str, namespace: &str) -> Value {
    let mut policy = serving(namespace);
    policy["metadata"]["name"] = name.into();
    policy["spec"]["resources"]["cpu"]["limits"]["cpu"] = "2".into();
    policy["spec"]["probes"] = json!({"from": "runtime", "startupBudget": "20m"});
    policy
}

fn play(event: Event, namespace: &str) {
    let (plane, tidegate) = ControlPlane::shared();
    Stage::set(plane, Some(tidegate), namespace).play(event);
}

#[test]
#[ignore = "needs the control plane"]
fn across_a_changed_policy() {
    play(Event::PolicyChanged, "sticky-changed");
}

#[test]
#[ignore = "needs the control plane"]
fn across_a_replaced_policy() {
    play(Event::PolicyReplaced, "sticky-replaced");
}

#[test]
#[ignore = "needs the control plane"]
fn across_a_deleted_policy() {
    play(Event::PolicyDeleted, "sticky-deleted");
}

#[test]
#[ignore = "needs the control plane"]
fn across_a_policy_in_audit() {
    play(Event::PolicyDemoted, "sticky-demoted");
}

#[test]
#[ignore = "needs the control plane"]
fn across_a_forged_receipt() {
    play(Event::ReceiptForged, "sticky-forged");
}

#[test]
#[ignore = "needs the control plane"]
fn across_a_removed_receipt() {
    play(Event::ReceiptRemoved, "sticky-removed");
}

#[test]
#[ignore = "needs the control plane"]
fn across_an_exception_that_expires() {
    let (plane, tidegate) = ControlPlane::shared();
    let stage = Stage::set(plane, Some(tidegate), "sticky-expired");
    let expires = Timestamp::now() + SignedDuration::from_secs(20);
    let names: Vec<String> = Action::HARMLESS.into_iter().chain(Action::CHANGING).map(Action::name).collect();
    let exception = json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "ServingException", "metadata": {"name": "pilot"},
        "spec": {"workloads": {"names": names}, "rules": ["floating-tag"], "reason": "a pilot", "expires": expires.to_string()}
    });
    stage.sandbox.apply(&exception).succeeds();
    wait_until("the exception to be active", SOON, || {
        let found = plane.api.get("ServingException", "sticky-expired", "pilot").unwrap();
        condition(&found, "Active")["status"] == "True"
    });
    let mut floating = model_server("setimage");
    container(&mut floating)["image"] = "registry.example.com/api:latest".into();
    stage.sandbox.apply(&floating).succeeds().says("exempted by");
    stage.sandbox.rolled_out("setimage");
    while Timestamp::now() < expires {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    // The running workload is unaffected: the violation existed before.
    stage.sandbox.apply(&floating).succeeds();
    stage.sandbox.kubectl(&["annotate", "deployment", "setimage", "note=1"]).succeeds();
    stage.sandbox.kubectl(&["scale", "deployment", "setimage", "--replicas=2"]).succeeds();
    assert_eq!(stage.sandbox.replica_sets("setimage"), 1);
    stage
        .sandbox
        .kubectl(&["rollout", "restart", "deployment", "setimage"])
        .succeeds()
        .says("existed before this update");
    stage.set_image("setimage", "main").fails().says("floating-tag");
    stage.set_image("setimage", "3.0.0").succeeds();
    // Everything else is as with any changed policy.
    stage.sandbox.kubectl(&["delete", "deployment", "setimage"]).succeeds();
    stage.play(Event::ExceptionExpired);
}

#[test]
#[ignore = "needs the control plane"]
fn across_a_restart_of_tidegate() {
    let plane = ControlPlane::start(&[]);
    let first = Tidegate::start(&plane);
    let stage = Stage::set(&plane, None, "sticky-restarted");
    let actions: Vec<Action> = Action::HARMLESS.into_iter().chain(Action::CHANGING).collect();
    for action in &actions {
        stage.start(*action);
    }
    first.stop();
    let _second = Tidegate::start(&plane);
    stage.sandbox.put_policy(&other_policy("sticky-restarted", "sticky-restarted"));
    for action in Action::HARMLESS {
        let name = action.name();
        let before = stage.sandbox.template(&name);
        stage.act(action).succeeds();
        assert_eq!(stage.sandbox.template(&name), before, "{action:?}");
    }
    for action in Action::CHANGING {
        stage.act(action).succeeds();
        let expected = if action == Action::Undo { "500m" } else { "2" };
        assert_eq!(stage.cpu(&action.name()), expected, "{action:?}");
    }
}
