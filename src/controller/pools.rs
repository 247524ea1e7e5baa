//! Watches the InferencePools while their API is served.

use std::sync::Arc;

use kube::api::DynamicObject;
use kube::core::ApiResource;

use super::informer::{Handler, Key, WatchTask};
use super::kinds::{OptionalApi, WhileServed, follow_definition};
use super::watches::Watches;
use super::{raw, resource};
use crate::server::health::Step;
use tidegate_engine::facts::{INFERENCE_POOL, InferencePool};

/// The name of their CustomResourceDefinition.
pub const DEFINITION: &str = "inferencepools.inference.networking.k8s.io";

impl Watches {
    /// Watches the InferencePools while their API is served.
    pub(super) fn pools(&self, step: Step) -> impl Future<Output = ()> + use<> {
        follow_definition(&self.client, DEFINITION, WhileServed::new(PoolApi { watches: self.clone() }, step))
    }
}

struct PoolApi {
    watches: Watches,
}

impl OptionalApi for PoolApi {
    fn watch(&self, step: Arc<Step>) -> WatchTask {
        let (group, version, kind) = INFERENCE_POOL;
        let kind = resource(group, version, kind);
        WatchTask::new(self.watches.events(&kind), Pools { watches: self.watches.clone(), kind, step })
    }

    fn forget(&self) {
        self.watches.state.note(|facts| facts.pools.clear());
        self.watches.queue.push_all();
    }
}

struct Pools {
    watches: Watches,
    kind: ApiResource,
    step: Arc<Step>,
}

impl Handler<DynamicObject> for Pools {
    fn put(&mut self, key: Key, object: DynamicObject) {
        let pool = InferencePool::read(&raw(object, &self.kind));
        let (namespace, name) = key;
        self.watches.state.note(|facts| facts.pools.entry(namespace.clone()).or_default().insert(name, pool));
        self.watches.queue.push_namespace(&namespace);
    }

    fn remove(&mut self, key: &Key) {
        self.watches.state.note(|facts| facts.pools.get_mut(&key.0).and_then(|pools| pools.remove(&key.1)));
        self.watches.queue.push_namespace(&key.0);
    }

    fn synced(&mut self) {
        self.step.done();
    }
}
