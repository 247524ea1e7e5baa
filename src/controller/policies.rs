//! Follows the policies. Each is compiled alone: where one makes no sense, its last good version stays in force.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use kube::Client;
use kube::api::{Api, DynamicObject};
use kube::core::ApiResource;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::apply::apply_status;
use super::plan::contains;
use super::watch::{self, Key, Sink};
use super::{Queue, raw, resource};
use crate::api::ServingPolicy;
use crate::policy::{Policy, PolicySet};
use crate::report;
use crate::server::health::Step;
use crate::state::State;

/// Follows the ServingPolicies and keeps them in force.
pub(super) async fn follow(client: Client, state: Arc<State>, queue: Queue, step: Step) {
    let kind = resource("tidegate.dev", "v1alpha1", "ServingPolicy");
    let (statuses, to_write) = unbounded();
    let events = watcher(Api::all_with(client.clone(), &kind), watcher::Config::default()).default_backoff();
    let policies = Policies { state, queue, step, kind, statuses, known: HashMap::new(), synced: false };
    tokio::join!(watch::follow(events, policies), write(client, to_write));
}

struct Policies {
    state: Arc<State>,
    queue: Queue,
    step: Step,
    kind: ApiResource,
    statuses: UnboundedSender<Value>,
    known: HashMap<String, Known>,
    synced: bool,
}

/// A policy as it was seen last.
struct Known {
    uid: Value,
    generation: Value,
    /// The last version that makes sense.
    in_force: Option<Arc<Policy>>,
}

impl Sink<DynamicObject> for Policies {
    fn put(&mut self, key: Key, object: DynamicObject) {
        let object = raw(object, &self.kind);
        let (uid, generation) = (object["metadata"]["uid"].clone(), object["metadata"]["generation"].clone());
        let known = self.known.remove(&key.1).filter(|known| known.uid == uid);
        if let Some(known) = known.as_ref().filter(|known| known.generation == generation) {
            let unchanged = Known { uid, generation, in_force: known.in_force.clone() };
            self.known.insert(key.1, unchanged);
            return;
        }
        let before = known.and_then(|known| known.in_force);
        let (in_force, problem) = match compile(&object) {
            Ok(policy) => (Some(Arc::new(policy)), None),
            Err(problem) => (before, Some(problem)),
        };
        self.tell(&object, problem.as_deref(), in_force.as_deref());
        self.known.insert(key.1, Known { uid, generation, in_force });
        self.put_in_force();
    }

    fn remove(&mut self, key: &Key) {
        self.known.remove(&key.1);
        self.put_in_force();
    }

    fn synced(&mut self) {
        self.synced = true;
        self.put_in_force();
        self.step.done();
    }
}

impl Policies {
    fn put_in_force(&self) {
        if !self.synced {
            return;
        }
        let policies = self.known.values().filter_map(|known| known.in_force.clone()).collect();
        let scope = self.state.read(|current, _| current.scope().clone());
        self.state.replace_policies(PolicySet::new(scope, policies));
        self.queue.push_all();
    }

    /// Writes the status of a policy where it is not written yet.
    fn tell(&self, object: &Value, problem: Option<&str>, in_force: Option<&Policy>) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let (status, reason, message) = match (problem, in_force) {
            (None, _) => ("True", "InForce", "this generation is in force".to_owned()),
            (Some(problem), None) => ("False", "Invalid", format!("{problem}; nothing of this policy is in force")),
            (Some(problem), Some(policy)) => {
                let message = format!("{problem}; generation {} stays in force", policy.reference().generation);
                ("False", "Invalid", message)
            }
        };
        match problem {
            None => info!(policy = name, "a policy is in force"),
            Some(problem) => warn!(policy = name, error = problem, "a policy cannot be put in force"),
        }
        let status = json!({
            "observedGeneration": object["metadata"]["generation"],
            "conditions": [{"type": "Ready", "status": status, "reason": reason, "message": message}]
        });
        if !contains(&object["status"], &status) {
            let written = json!({
                "apiVersion": self.kind.api_version, "kind": self.kind.kind, "metadata": {"name": name}, "status": status
            });
            // The receiver is gone only at shutdown.
            let _ = self.statuses.unbounded_send(written);
        }
    }
}

fn compile(object: &Value) -> Result<Policy, String> {
    let policy: ServingPolicy = serde_json::from_value(object.clone()).map_err(|error| report::chain(&error))?;
    Policy::compile(&policy).map_err(|error| report::chain(&error))
}

async fn write(client: Client, mut statuses: UnboundedReceiver<Value>) {
    while let Some(status) = statuses.next().await {
        if let Err(error) = apply_status(&client, &status).await {
            warn!(error = report::chain(&error), "the status of a policy was not written");
        }
    }
}
