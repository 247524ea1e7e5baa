//! What stands beside workloads and tells rules something: claims, disruption budgets, the names of Services, and the version
//! of the API server.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::Value;
use tracing::warn;

use super::sinks::{Watches, made_for};
use super::watch::{self, Key, Sink, follow};
use super::{raw, resource};
use crate::report;
use crate::server::health::Step;
use tidegate_engine::facts::{Apis, Claim, Facts, PodSelector, SharedMap};

/// How long to wait before the API server is asked for its version again.
const RETRY: Duration = Duration::from_secs(5);

impl Watches {
    /// Follows the PersistentVolumeClaims.
    pub(super) fn claims(&self, step: Step) -> impl Future<Output = ()> + use<> {
        let note: Note = |facts, (namespace, name), claim| {
            let inside = facts.claims.entry(namespace.clone()).or_default();
            match claim {
                Some(claim) => drop(inside.insert(name.clone(), Claim::of(claim))),
                None => drop(inside.remove(name)),
            }
        };
        self.beside(("", "v1", "PersistentVolumeClaim"), note, step)
    }

    /// Follows the PodDisruptionBudgets.
    pub(super) fn budgets(&self, step: Step) -> impl Future<Output = ()> + use<> {
        // Where there are none, that is known too.
        self.state.note(|facts| facts.budgets = Some(SharedMap::default()));
        let kind = resource("policy", "v1", "PodDisruptionBudget");
        let beside = Beside { watches: self.clone(), step, is_synced: false };
        follow(self.events(&kind), Budgets { beside, kind })
    }

    /// Follows the names of the Services.
    pub(super) fn services(&self, step: Step) -> impl Future<Output = ()> + use<> {
        let events = watcher(Api::<PartialObjectMeta<Service>>::all(self.client.clone()), watch::config());
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
        let known = Apis::of_version(&version.major, &version.minor);
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

impl Sink<DynamicObject> for Objects {
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

struct Budgets {
    beside: Beside,
    kind: kube::core::ApiResource,
}

impl Budgets {
    /// Has everybody looked at whom a budget is for, or was; its owner alone where only its status has changed.
    fn changed(&self, key: &Key, before: Option<&Value>, now: Option<&Value>) {
        let is_same = before.zip(now).is_some_and(|(before, now)| before["spec"] == now["spec"]);
        if !is_same {
            self.beside.changed(key);
        } else if let Some(workload) = now.and_then(made_for) {
            self.beside.watches.queue.push(&workload);
        }
    }
}

impl Sink<DynamicObject> for Budgets {
    fn put(&mut self, key: Key, object: DynamicObject) {
        let object = raw(object, &self.kind);
        let watches = &self.beside.watches;
        let before = watches.objects.note(|kinds| kinds.budgets.insert(key.clone(), &object));
        watches.state.note(|facts| {
            let inside = facts.budgets.get_or_insert_default().entry(key.0.clone()).or_default();
            inside.insert(key.1.clone(), PodSelector::of(&object));
        });
        self.changed(&key, before.as_ref(), Some(&object));
    }

    fn remove(&mut self, key: &Key) {
        let watches = &self.beside.watches;
        let before = watches.objects.note(|kinds| kinds.budgets.remove(key));
        watches
            .state
            .note(|facts| facts.budgets.get_or_insert_default().get_mut(&key.0).map(|inside| inside.remove(&key.1)));
        self.changed(key, before.as_ref(), None);
    }

    fn synced(&mut self) {
        self.beside.synced();
    }
}

struct Services(Beside);

impl Sink<PartialObjectMeta<Service>> for Services {
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
