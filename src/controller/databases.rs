//! Follows the databases of each provider for as long as its API is served.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::ResourceExt as _;
use kube::api::{Api as KubeApi, DynamicObject};
use kube::core::ApiResource;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::Value;
use tracing::info;

use super::informer::{self, Following, Handler, Key, follow};
use super::kinds::is_established;
use super::observed::Objects;
use super::watches::{Watches, made_for};
use super::{raw, resource};
use crate::server::health::Step;
use crate::shared_state::SharedState;
use tidegate_engine::api::DatabaseProvider;
use tidegate_engine::companions::database::offered_versions;
use tidegate_engine::companions::database::{self, Api, api_of};

impl Watches {
    /// Follows the databases of a provider for as long as its API is served.
    pub(super) fn databases(&self, api: &'static Api, step: Step) -> impl Future<Output = ()> + use<> {
        let kind = resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
        let definitions: KubeApi<DynamicObject> = KubeApi::all_with(self.client.clone(), &kind);
        let only = informer::config().fields(&format!("metadata.name={}", api.definition));
        let handler = Definitions { watches: self.clone(), api, following: None, step: Arc::new(step) };
        follow(watcher(definitions, only).default_backoff(), handler)
    }
}

/// Follows the definition of a provider's API, and its objects for as long as it is established.
struct Definitions {
    watches: Watches,
    api: &'static Api,
    following: Option<Following>,
    step: Arc<Step>,
}

impl Definitions {
    /// Notes the versions of PostgreSQL that the operator offers: there where they are told of, its definition lists them.
    fn note_versions(&self, versions: BTreeSet<String>) {
        let changed = self.watches.state.note(|facts| {
            let changed = facts.zalando_versions != versions;
            facts.zalando_versions = versions;
            changed
        });
        if changed {
            self.watches.queue.push_all();
        }
    }
}

impl Handler<DynamicObject> for Definitions {
    fn put(&mut self, _: Key, definition: DynamicObject) {
        if self.api.provider == DatabaseProvider::Zalando {
            self.note_versions(offered_versions(&definition.data));
        }
        if is_established(&definition.data) && self.following.is_none() {
            info!(name = definition.name_any(), "the API is served");
            let (group, version, kind) = self.api.kind;
            let kind = resource(group, version, kind);
            let events = self.watches.events(&kind);
            let databases =
                Databases { watches: self.watches.clone(), api: self.api, kind, step: Arc::clone(&self.step) };
            self.following = Some(Following::new(events, databases));
        }
    }

    fn remove(&mut self, key: &Key) {
        info!(name = key.1, "the API is no longer served");
        let provider = self.api.provider;
        if let Some(mut following) = self.following.take() {
            following.end();
        }
        self.watches.state.note(|facts| {
            *(self.api.served)(&mut facts.apis) = false;
            if provider == DatabaseProvider::Zalando {
                facts.zalando_versions.clear();
            }
            for inside in facts.databases.values_mut() {
                Arc::make_mut(inside).retain(|(of, _), _| *of != provider);
            }
        });
        let (group, _, kind) = self.api.kind;
        self.watches.objects.note(|kinds| kinds.of(group, kind).clear());
        self.watches.queue.push_all();
    }

    /// Without the API there are no databases to be seen first.
    fn synced(&mut self) {
        if self.following.is_none() {
            self.step.done();
        }
    }
}

/// Returns the API of a database, and its namespace and name; none where it is of no provider's.
pub(super) fn identity(database: &Value) -> Option<(&'static Api, Key)> {
    let text = |field: &str| database["metadata"][field].as_str().unwrap_or_default().to_owned();
    Some((api_of(database)?, (text("namespace"), text("name"))))
}

/// Notes a database of a provider for decisions and plans, and returns it as it was before.
pub(super) fn note(api: &Api, key: &Key, object: &Value, state: &SharedState, objects: &Objects) -> Option<Value> {
    let database = database::read(api, object);
    let of = (api.provider, key.1.clone());
    state.note(|facts| Arc::make_mut(facts.databases.entry(key.0.clone()).or_default()).insert(of, database));
    let (group, _, kind) = api.kind;
    objects.note(|kinds| kinds.of(group, kind).insert(key.clone(), object))
}

struct Databases {
    watches: Watches,
    api: &'static Api,
    kind: ApiResource,
    step: Arc<Step>,
}

impl Handler<DynamicObject> for Databases {
    fn put(&mut self, key: Key, object: DynamicObject) {
        let object = raw(object, &self.kind);
        let workload = made_for(&object);
        let before = note(self.api, &key, &object, &self.watches.state, &self.watches.objects);
        let workload_before = before.as_ref().and_then(made_for).filter(|before| workload.as_ref() != Some(before));
        workload.iter().chain(&workload_before).for_each(|workload| self.watches.queue.push(workload));
    }

    fn remove(&mut self, key: &Key) {
        let of = (self.api.provider, key.1.clone());
        self.watches
            .state
            .note(|facts| facts.databases.get_mut(&key.0).and_then(|inside| Arc::make_mut(inside).remove(&of)));
        let (group, _, kind) = self.api.kind;
        self.watches.objects.note(|kinds| kinds.of(group, kind).remove(key));
        // Its workload needs another; somebody may have waited for its name, or for its place among those of the namespace.
        self.watches.queue.push_namespace(&key.0);
    }

    /// The API counts as served once it is known which names are taken.
    fn synced(&mut self) {
        self.watches.state.note(|facts| *(self.api.served)(&mut facts.apis) = true);
        self.watches.queue.push_all();
        self.step.done();
    }

    /// Those that were just made are noted at once.
    fn noted(&self) -> Vec<Key> {
        let (group, _, kind) = self.api.kind;
        self.watches.objects.note(|kinds| kinds.of(group, kind).keys().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_are_read_from_the_definition_of_the_operator() {
        let text = include_str!("../../dev/controlplane/crds/postgresqls.acid.zalan.do.yaml");
        let definition: Value = serde_saphyr::from_str(text).unwrap();
        assert_eq!(offered_versions(&definition).into_iter().collect::<Vec<_>>(), ["14", "15", "16", "17", "18"]);
        assert!(offered_versions(&json!({"spec": {"versions": [{"name": "v1"}]}})).is_empty());
        assert!(offered_versions(&json!({})).is_empty());
    }
}
