//! What stands beside workloads and tells rules something: claims, the objects of companions, the names of Services, and the version
//! of the API server.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::Value;
use tracing::warn;

use super::informer::{self, Handler, Key, follow};
use super::watches::{Watches, made_for};
use super::{raw, resource};
use crate::report;
use crate::server::health::Step;
use tidegate_engine::companions::Watched;
use tidegate_engine::facts::{Apis, Claim, Facts};

/// How long to wait before the API server is asked for its version again.
const RETRY: Duration = Duration::from_secs(5);

impl Watches {
    /// Follows the PersistentVolumeClaims.
    pub(super) fn claims(&self, step: Step) -> impl Future<Output = ()> + use<> {
        let note: Note = |facts, (namespace, name), claim| {
            let inside = facts.claims.entry(namespace.clone()).or_default();
            match claim {
                Some(claim) => drop(inside.insert(name.clone(), Claim::read(claim))),
                None => drop(inside.remove(name)),
            }
        };
        self.beside(("", "v1", "PersistentVolumeClaim"), note, step)
    }

    /// Follows the objects of a companion that has no watch of its own.
    pub(super) fn companion(&self, watched: &'static Watched, step: Step) -> impl Future<Output = ()> + use<> {
        self.state.note(watched.begin);
        let kind = resource(watched.group, watched.version, watched.kind);
        let beside = Beside { watches: self.clone(), step, is_synced: false };
        follow(self.events(&kind), OfCompanion { beside, kind, watched })
    }

    /// Follows the names of the Services.
    pub(super) fn services(&self, step: Step) -> impl Future<Output = ()> + use<> {
        let events = watcher(Api::<PartialObjectMeta<Service>>::all(self.client.clone()), informer::config());
        follow(events.default_backoff(), Services(Beside { watches: self.clone(), step, is_synced: false }))
    }

    /// Learns what the API server's version can do, once.
    pub(super) async fn version(self, step: Step) {
        let version = loop {
            match self.client.apiserver_version().await {
                Ok(version) => break version,
                Err(error) => {
                    warn!(error = report::chain(&error), "the API server does not tell its version; asking again");
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
        // A watch that ends ends Tidegate.
        std::future::pending::<()>().await;
    }

    fn beside(
        &self,
        (group, version, kind): (&str, &str, &str),
        note: Note,
        step: Step,
    ) -> impl Future<Output = ()> + use<> {
        let kind = resource(group, version, kind);
        let events = self.events(&kind);
        follow(events, Objects { beside: Beside { watches: self.clone(), step, is_synced: false }, kind, note })
    }
}

/// Notes an object, or that it has gone.
type Note = fn(&mut Facts, &Key, Option<&Value>);

/// What all of them do.
struct Beside {
    watches: Watches,
    step: Step,
    is_synced: bool,
}

impl Beside {
    /// Has the workloads beside an object looked at again. At first everything is looked at anyway.
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

struct Objects {
    beside: Beside,
    kind: kube::core::ApiResource,
    note: Note,
}

impl Handler<DynamicObject> for Objects {
    fn put(&mut self, key: Key, object: DynamicObject) {
        let object = raw(object, &self.kind);
        self.beside.watches.state.note(|facts| (self.note)(facts, &key, Some(&object)));
        self.beside.changed(&key);
    }

    fn remove(&mut self, key: &Key) {
        self.beside.watches.state.note(|facts| (self.note)(facts, key, None));
        self.beside.changed(key);
    }

    fn synced(&mut self) {
        self.beside.synced();
    }
}

struct OfCompanion {
    beside: Beside,
    kind: kube::core::ApiResource,
    watched: &'static Watched,
}

impl OfCompanion {
    /// Has everybody looked at whom an object may concern; its owner alone where only its status has changed.
    fn changed(&self, key: &Key, before: Option<&Value>, now: Option<&Value>) {
        let is_same = before.zip(now).is_some_and(|(before, now)| before["spec"] == now["spec"]);
        if !is_same {
            self.beside.changed(key);
        } else if let Some(workload) = now.and_then(made_for) {
            self.beside.watches.queue.push(&workload);
        }
    }

    fn note(&self, key: &Key, object: Option<&Value>) -> Option<Value> {
        let watches = &self.beside.watches;
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

impl Handler<DynamicObject> for OfCompanion {
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
        self.beside.synced();
    }
}

struct Services(Beside);

impl Handler<PartialObjectMeta<Service>> for Services {
    fn put(&mut self, key: Key, _: PartialObjectMeta<Service>) {
        let is_new = self.0.watches.state.note(|facts| {
            let inside = facts.services.entry(key.0.clone()).or_default();
            !inside.contains(&key.1) && Arc::make_mut(inside).insert(key.1.clone())
        });
        if is_new {
            self.0.changed(&key);
        }
    }

    fn remove(&mut self, key: &Key) {
        self.0
            .watches
            .state
            .note(|facts| facts.services.get_mut(&key.0).map(|inside| Arc::make_mut(inside).remove(&key.1)));
        self.0.changed(key);
    }

    fn synced(&mut self) {
        self.0.synced();
    }
}
