//! Watches objects that rules and companions depend on: claims, the objects of companions and the names of Services;
//! and reads the version of the API server.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, PartialObjectMeta};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::Value;
use tracing::warn;

use super::informer::{self, Handler, Key, follow};
use super::watches::{Watches, made_for};
use super::{raw, resource};
use crate::report;
use crate::server::health::Step;
use tidegate_engine::companions::Watched;
use tidegate_engine::facts::{Apis, Claim};

/// How long to wait before asking the API server for its version again.
const RETRY: Duration = Duration::from_secs(5);

impl Watches {
    /// Watches the PersistentVolumeClaims.
    pub(super) fn claims(&self, step: Step) -> impl Future<Output = ()> + use<> {
        let kind = resource("", "v1", "PersistentVolumeClaim");
        follow(self.events(&kind), Claims { related: self.related(step), kind })
    }

    /// Watches the objects of a companion that has no watch of its own.
    pub(super) fn companion(&self, watched: &'static Watched, step: Step) -> impl Future<Output = ()> + use<> {
        self.state.note(watched.begin);
        let kind = resource(watched.group, watched.version, watched.kind);
        follow(self.events(&kind), CompanionObjects { related: self.related(step), kind, watched })
    }

    /// Watches the names of the Services.
    pub(super) fn services(&self, step: Step) -> impl Future<Output = ()> + use<> {
        let events = watcher(Api::<PartialObjectMeta<Service>>::all(self.client.clone()), informer::config());
        follow(events.default_backoff(), Services(self.related(step)))
    }

    /// Reads the API server's version once.
    pub(super) async fn version(self, step: Step) {
        let version = loop {
            match self.client.apiserver_version().await {
                Ok(version) => break version,
                Err(error) => {
                    warn!(error = report::chain(&error), "cannot read the API server's version; trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        let known = Apis::parse(&version.major, &version.minor);
        self.state.note(|facts| {
            facts.apis.pre_stop_sleep = known.pre_stop_sleep;
            facts.apis.hpa_scale_to_zero = known.hpa_scale_to_zero;
        });
        step.done();
        // If this task ended, Tidegate would exit.
        std::future::pending::<()>().await;
    }

    fn related(&self, step: Step) -> Related {
        Related { watches: self.clone(), step, is_synced: false }
    }
}

/// The parts common to the handlers of related objects.
struct Related {
    watches: Watches,
    step: Step,
    is_synced: bool,
}

impl Related {
    /// Queues the workloads in the namespace of an object. At the start, everything is reconciled anyway.
    fn changed(&self, key: &Key) {
        if self.is_synced {
            self.watches.queue.push_namespace(&key.0);
        }
    }

    fn synced(&mut self) {
        self.is_synced = true;
        self.step.done();
    }
}

struct Claims {
    related: Related,
    kind: ApiResource,
}

impl Handler<DynamicObject> for Claims {
    fn put(&mut self, key: Key, object: DynamicObject) {
        let claim = Claim::read(&raw(object, &self.kind));
        let (namespace, name) = key.clone();
        self.related.watches.state.note(|facts| facts.claims.entry(namespace).or_default().insert(name, claim));
        self.related.changed(&key);
    }

    fn remove(&mut self, key: &Key) {
        let watches = &self.related.watches;
        watches.state.note(|facts| facts.claims.get_mut(&key.0).and_then(|claims| claims.remove(&key.1)));
        self.related.changed(key);
    }

    fn synced(&mut self) {
        self.related.synced();
    }
}

struct CompanionObjects {
    related: Related,
    kind: ApiResource,
    watched: &'static Watched,
}

impl CompanionObjects {
    /// Queues the workloads that an object affects: only its owner if only its status has changed.
    fn changed(&self, key: &Key, before: Option<&Value>, now: Option<&Value>) {
        let is_same = before.zip(now).is_some_and(|(before, now)| before["spec"] == now["spec"]);
        if !is_same {
            self.related.changed(key);
        } else if let Some(workload) = now.and_then(made_for) {
            self.related.watches.queue.push(&workload);
        }
    }

    fn note(&self, key: &Key, object: Option<&Value>) -> Option<Value> {
        let watches = &self.related.watches;
        let before = watches.objects.note(|kinds| {
            let known = kinds.of(self.watched.group, self.watched.kind);
            match object {
                Some(object) => known.insert(key.clone(), object),
                None => known.remove(key),
            }
        });
        watches.state.note(|facts| (self.watched.note)(facts, &key.0, &key.1, object));
        before
    }
}

impl Handler<DynamicObject> for CompanionObjects {
    fn put(&mut self, key: Key, object: DynamicObject) {
        let object = raw(object, &self.kind);
        let before = self.note(&key, Some(&object));
        self.changed(&key, before.as_ref(), Some(&object));
    }

    fn remove(&mut self, key: &Key) {
        let before = self.note(key, None);
        self.changed(key, before.as_ref(), None);
    }

    fn synced(&mut self) {
        self.related.synced();
    }
}

struct Services(Related);

impl Handler<PartialObjectMeta<Service>> for Services {
    fn put(&mut self, key: Key, _: PartialObjectMeta<Service>) {
        let is_new = self.0.watches.state.note(|facts| {
            let services = facts.services.entry(key.0.clone()).or_default();
            !services.contains(&key.1) && Arc::make_mut(services).insert(key.1.clone())
        });
        if is_new {
            self.0.changed(&key);
        }
    }

    fn remove(&mut self, key: &Key) {
        self.0
            .watches
            .state
            .note(|facts| facts.services.get_mut(&key.0).map(|services| Arc::make_mut(services).remove(&key.1)));
        self.0.changed(key);
    }

    fn synced(&mut self) {
        self.0.synced();
    }
}
