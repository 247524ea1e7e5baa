//! Watches policies and exceptions. Each is compiled alone: if one is invalid, its last valid version stays active, and
//! the others are not affected.

use std::sync::Arc;

use kube::Client;
use kube::api::{Api, DynamicObject};
use kube::core::ApiResource;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::informer::{self, Handler, Key};
use super::policy_store::PolicyStore;
use super::{Parts, raw, resource};
use crate::report;
use crate::server::health::Step;
use tidegate_engine::BUILTIN;
use tidegate_engine::api::{ServingException, ServingPolicy};
use tidegate_engine::policy::{Exception, Policy};

/// The names of the two watches.
const POLICIES: &str = "policies";
const EXCEPTIONS: &str = "exceptions";

/// Returns the watches: policies from files are not watched.
pub(super) fn watched(from_cluster: bool) -> impl Iterator<Item = &'static str> {
    from_cluster.then_some(POLICIES).into_iter().chain([EXCEPTIONS])
}

/// Starts to watch exceptions, and policies if they are read from the cluster.
pub(super) fn start(store: &Arc<PolicyStore>, from_cluster: bool, parts: &mut Parts) {
    let client = parts.client.clone();
    if from_cluster {
        parts.watch(POLICIES, |step| follow(client.clone(), Arc::clone(store), step));
    }
    parts.watch(EXCEPTIONS, |step| follow_exceptions(client, Arc::clone(store), step));
}

/// Watches the policies.
async fn follow(client: Client, policy_store: Arc<PolicyStore>, step: Step) {
    let kind = resource("tidegate.dev", "v1alpha1", "ServingPolicy");
    let events = watcher(Api::all_with(client, &kind), informer::config()).default_backoff();
    informer::follow(events, Policies { policy_store, kind, step }).await;
}

/// Watches the exceptions.
async fn follow_exceptions(client: Client, policy_store: Arc<PolicyStore>, step: Step) {
    let kind = resource("tidegate.dev", "v1alpha1", "ServingException");
    let events = watcher(Api::all_with(client, &kind), informer::config()).default_backoff();
    informer::follow(events, Exceptions { policy_store, kind, step }).await;
}

struct Policies {
    policy_store: Arc<PolicyStore>,
    kind: ApiResource,
    step: Step,
}

impl Handler<DynamicObject> for Policies {
    fn put(&mut self, key: Key, object: DynamicObject) {
        let compile = |object: &Value| {
            let policy: ServingPolicy = read(object)?;
            Policy::compile(&policy, &BUILTIN).map_err(|error| report::chain(&error))
        };
        self.policy_store.put_policy(&key.1, raw(object, &self.kind), compile);
    }

    fn remove(&mut self, key: &Key) {
        self.policy_store.remove_policy(&key.1);
    }

    fn synced(&mut self) {
        self.policy_store.synced(POLICIES);
        self.step.done();
    }
}

struct Exceptions {
    policy_store: Arc<PolicyStore>,
    kind: ApiResource,
    step: Step,
}

impl Handler<DynamicObject> for Exceptions {
    fn put(&mut self, key: Key, object: DynamicObject) {
        let compile = |object: &Value| {
            let exception: ServingException = read(object)?;
            Exception::compile(&exception).map_err(|error| report::chain(&error))
        };
        self.policy_store.put_exception(key, raw(object, &self.kind), compile);
    }

    fn remove(&mut self, key: &Key) {
        self.policy_store.remove_exception(key);
    }

    fn synced(&mut self) {
        self.policy_store.synced(EXCEPTIONS);
        self.step.done();
    }
}

fn read<T: DeserializeOwned>(object: &Value) -> Result<T, String> {
    serde_json::from_value(object.clone()).map_err(|error| report::chain(&error))
}
