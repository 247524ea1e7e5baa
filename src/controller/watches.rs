//! The watches: they update the facts for decisions and the objects for plans, and queue workloads.

use std::sync::Arc;

use futures::Stream;
use k8s_openapi::api::core::v1::Namespace as CoreNamespace;
use kube::Client;
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, PartialObjectMeta};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::Value;

use super::informer::{self, Handler, Key, follow};
use super::observed::{Objects, described_by};
use super::unlabelled::UnlabelledWorkloads;
use super::workloads::WholeNamespaces;
use super::{Parts, Queue, raw, resource};
use crate::server::health::Step;
use crate::shared_state::SharedState;
use tidegate_engine::companions;
pub(super) use tidegate_engine::companions::made_for;
use tidegate_engine::facts::Namespace;
use tidegate_engine::kind::KINDS;

/// State shared by the watches.
#[derive(Clone)]
pub(super) struct Watches {
    pub(super) client: Client,
    pub(super) state: Arc<SharedState>,
    pub(super) objects: Arc<Objects>,
    pub(super) queue: Queue,
    pub(super) unlabelled: Arc<UnlabelledWorkloads>,
}

impl Watches {
    /// Starts all watches except those of workloads, policies and exceptions.
    pub(super) fn start(&self, parts: &mut Parts) {
        parts.watch("namespaces", |step| self.namespaces(step));
        parts.watch("autoscalers", |step| self.autoscalers(step));
        parts.watch("scaled objects", |step| self.scaled_objects(step));
        parts.watch("metrics APIs", |step| self.metrics_apis(step));
        parts.watch("model servers", |step| self.model_servers(step));
        for api in companions::database::apis() {
            parts.watch(api.definition, |step| self.databases(api, step));
        }
        for watched in companions::watched() {
            parts.watch(watched.kind, |step| self.companion(watched, step));
        }
        for kind in KINDS.iter().filter(|kind| kind.template_reference.is_some()) {
            if let Some(definition) = kind.definition() {
                parts.watch("template users", |step| self.template_users(kind, &definition, step));
            }
        }
        parts.watch("claims", |step| self.claims(step));
        parts.watch("inference pools", |step| self.pools(step));
        parts.watch("services", |step| self.services(step));
        parts.watch("version", |step| self.clone().version(step));
    }

    /// Watches the namespaces.
    pub(super) fn namespaces(&self, step: Step) -> impl Future<Output = ()> + use<> {
        let events = watcher(Api::<PartialObjectMeta<CoreNamespace>>::all(self.client.clone()), informer::config());
        let whole = WholeNamespaces::new(self.client.clone(), self.queue.clone(), step);
        follow(events.default_backoff(), Namespaces { watches: self.clone(), whole })
    }

    /// Watches the ModelServers, so that one that is edited or deleted is written again.
    pub(super) fn model_servers(&self, step: Step) -> impl Future<Output = ()> + use<> {
        let kind = resource("tidegate.dev", "v1alpha1", "ModelServer");
        follow(self.events(&kind), ModelServers { watches: self.clone(), kind, step })
    }

    pub(super) fn events(
        &self,
        kind: &ApiResource,
    ) -> impl Stream<Item = watcher::Result<watcher::Event<DynamicObject>>> + use<> {
        watcher(Api::all_with(self.client.clone(), kind), informer::config()).default_backoff()
    }
}

struct Namespaces {
    watches: Watches,
    whole: WholeNamespaces,
}

impl Handler<PartialObjectMeta<CoreNamespace>> for Namespaces {
    fn put(&mut self, key: Key, object: PartialObjectMeta<CoreNamespace>) {
        let terminating = object.metadata.deletion_timestamp.is_some();
        let namespace = Namespace { labels: object.metadata.labels.unwrap_or_default(), terminating };
        let before = self.watches.state.note(|facts| facts.namespaces.insert(key.1.clone(), namespace.clone()));
        self.whole.update(&key.1, namespace.is_for_model_servers());
        // Its labels select policies.
        if before.is_none_or(|before| before != namespace) {
            self.watches.queue.push_namespace(&key.1);
            self.watches.unlabelled.recheck_namespace(&key.1);
        }
    }

    fn remove(&mut self, key: &Key) {
        self.watches.state.note(|facts| facts.namespaces.remove(&key.1));
        self.whole.update(&key.1, false);
    }

    fn synced(&mut self) {
        self.whole.synced();
    }
}

struct ModelServers {
    watches: Watches,
    kind: ApiResource,
    step: Step,
}

impl ModelServers {
    fn push(&self, model_server: Option<&Value>) {
        if let Some(workload) = model_server.and_then(described_by) {
            self.watches.queue.push(&workload);
        }
    }
}

impl Handler<DynamicObject> for ModelServers {
    fn put(&mut self, key: Key, object: DynamicObject) {
        let object = raw(object, &self.kind);
        let before = self.watches.objects.note(|kinds| kinds.model_servers.insert(key, &object));
        self.push(Some(&object));
        self.push(before.as_ref().filter(|before| described_by(before) != described_by(&object)));
    }

    fn remove(&mut self, key: &Key) {
        let before = self.watches.objects.note(|kinds| kinds.model_servers.remove(key));
        self.push(before.as_ref());
    }

    fn synced(&mut self) {
        self.step.done();
    }
}
