//! A namespace for one test, with a policy that matches only it.

use std::thread;

use serde_json::Value;

use super::{Apply, ControlPlane, Output, SOON, Tidegate, serving, wait_for, wait_until};

/// A namespace for one test.
pub(crate) struct Sandbox<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) plane: &'a ControlPlane,
    tidegate: Option<&'a Tidegate>,
}

impl<'a> Sandbox<'a> {
    /// Creates a namespace on the shared control plane, without a policy.
    pub(crate) fn without_policy(namespace: &'a str) -> Self {
        let (plane, tidegate) = ControlPlane::shared();
        Self::on(plane, Some(tidegate), namespace)
    }

    /// Creates a namespace on the shared control plane, with the policy `serving` active.
    pub(crate) fn new(namespace: &'a str) -> Self {
        let sandbox = Self::without_policy(namespace);
        sandbox.put_policy(&serving(namespace));
        sandbox
    }

    /// Creates a namespace; if the test fails, the log of the Tidegate is shown.
    pub(crate) fn on(plane: &'a ControlPlane, tidegate: Option<&'a Tidegate>, namespace: &'a str) -> Self {
        plane.kubectl(&["create", "namespace", namespace], "").succeeds();
        Self { namespace, plane, tidegate }
    }

    /// Applies a policy and waits until it is active.
    pub(crate) fn put_policy(&self, policy: &Value) {
        self.kubectl_with(&["apply", "-f", "-"], policy).succeeds();
        let name = policy["metadata"]["name"].as_str().unwrap();
        wait_until("the policy to be active", SOON, || {
            let policy = self.plane.api.get("ServingPolicy", "", name).unwrap();
            policy["status"]["observedGeneration"] == policy["metadata"]["generation"]
                && condition(&policy, "Ready")["status"] == "True"
        });
    }

    /// Runs kubectl in the namespace.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Output {
        self.run(arguments, "")
    }

    /// Runs kubectl in the namespace, with an object as its stdin.
    pub(crate) fn kubectl_with(&self, arguments: &[&str], object: &Value) -> Output {
        self.run(arguments, &object.to_string())
    }

    /// Applies an object with client-side apply.
    pub(crate) fn apply(&self, object: &Value) -> Output {
        self.kubectl_with(Apply::ClientSide.arguments(), object)
    }

    fn run(&self, arguments: &[&str], stdin: &str) -> Output {
        self.plane.kubectl(&[&["--namespace", self.namespace], arguments].concat(), stdin)
    }

    /// Returns an object in the namespace; none if it does not exist.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Option<Value> {
        self.plane.api.get(kind, self.namespace, name)
    }

    /// Returns all objects of a kind in the namespace.
    pub(crate) fn list(&self, kind: &str) -> Vec<Value> {
        self.plane.api.list(kind, self.namespace)
    }

    /// Returns an existing Deployment.
    #[track_caller]
    pub(crate) fn deployment(&self, name: &str) -> Value {
        self.get("Deployment", name).unwrap_or_else(|| panic!("Deployment {name} not found"))
    }

    /// Returns the pod template of a Deployment.
    #[track_caller]
    pub(crate) fn template(&self, name: &str) -> Value {
        self.deployment(name)["spec"]["template"].clone()
    }

    /// Returns the only container of a Deployment.
    #[track_caller]
    pub(crate) fn container(&self, name: &str) -> Value {
        self.template(name)["spec"]["containers"][0].clone()
    }

    /// Returns how many `ReplicaSets` a Deployment has: one for each pod template that it ever had.
    pub(crate) fn replica_sets(&self, deployment: &str) -> usize {
        let sets = self.list("ReplicaSet");
        sets.iter().filter(|set| set["metadata"]["ownerReferences"][0]["name"] == deployment).count()
    }

    /// Waits until a Deployment is rolled out, and returns it.
    #[track_caller]
    pub(crate) fn rolled_out(&self, name: &str) -> Value {
        wait_for(&format!("Deployment {name} to be rolled out"), SOON, || {
            let found = self.deployment(name);
            let (status, replicas) = (&found["status"], &found["spec"]["replicas"]);
            let is_done = status["observedGeneration"] == found["metadata"]["generation"]
                && ["replicas", "updatedReplicas", "availableReplicas"].iter().all(|count| status[count] == *replicas)
                && condition(&found, "Progressing")["reason"] == "NewReplicaSetAvailable"
                && condition(&found, "Available")["status"] == "True";
            is_done.then_some(found)
        })
    }

    /// Waits until a Deployment has this number of replicas.
    #[track_caller]
    pub(crate) fn scaled_to(&self, name: &str, replicas: i64) {
        wait_until(&format!("Deployment {name} to have {replicas} replicas"), SOON, || {
            self.deployment(name)["spec"]["replicas"] == replicas
        });
    }

    /// Waits for the autoscaler of a workload, and returns it.
    #[track_caller]
    pub(crate) fn autoscaler(&self, workload: &str) -> Value {
        let name = format!("{workload}-tidegate");
        wait_for(&format!("the HorizontalPodAutoscaler {name}"), SOON, || self.get("HorizontalPodAutoscaler", &name))
    }

    /// Waits for the database of a workload, and returns it.
    #[track_caller]
    pub(crate) fn database(&self, workload: &str) -> Value {
        let name = format!("acid-{workload}");
        wait_for(&format!("the postgresql {name}"), SOON, || self.get("postgresql", &name))
    }

    /// Waits until something holds for the ModelServer of a workload, and returns it.
    #[track_caller]
    pub(crate) fn model_server(&self, workload: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let mut last = None;
        let mut look = || {
            last = self.get("ModelServer", workload);
            last.clone().filter(&holds)
        };
        wait_for(&format!("ModelServer {workload} to report {what}"), SOON, &mut look)
    }
}

/// Returns a condition of an object; null if there is none.
pub(crate) fn condition<'o>(object: &'o Value, type_: &str) -> &'o Value {
    let conditions = object["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    conditions.iter().find(|found| found["type"] == type_).unwrap_or(&Value::Null)
}

impl Drop for Sandbox<'_> {
    #[expect(clippy::print_stderr, reason = "the test harness shows it if a test fails")]
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        for server in self.list("ModelServer") {
            eprintln!("ModelServer {}: {}", server["metadata"]["name"], server["status"]);
        }
        let log = self.tidegate.map(Tidegate::log).unwrap_or_default();
        let about = |line: &&str| line.contains(self.namespace) || line.contains("ERROR");
        log.lines().filter(about).for_each(|line| eprintln!("{line}"));
    }
}
