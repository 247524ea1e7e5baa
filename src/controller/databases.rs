//! Watches the databases of each provider while its API is served.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::api::DynamicObject;
use kube::core::ApiResource;
use serde_json::Value;

use super::informer::{Handler, Key, WatchTask};
use super::kinds::{OptionalApi, WhileServed, follow_definition};
use super::observed::Objects;
use super::watches::{Watches, made_for};
use super::{raw, resource};
use crate::server::health::Step;
use crate::shared_state::SharedState;
use tidegate_engine::api::DatabaseProvider;
use tidegate_engine::companions::database::{self, Api, api_of, offered_versions};

impl Watches {
    /// Watches the databases of a provider while its API is served.
    pub(super) fn databases(&self, api: &'static Api, step: Step) -> impl Future<Output = ()> + use<> {
        let provider = Provider { watches: self.clone(), api };
        follow_definition(&self.client, api.definition, WhileServed::new(provider, step))
    }
}

/// The API of a provider.
struct Provider {
    watches: Watches,
    api: &'static Api,
}

impl Provider {
    /// Updates the versions of PostgreSQL that the operator offers.
    fn update_versions(&self, versions: BTreeSet<String>) {
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

impl OptionalApi for Provider {
    fn defined(&self, definition: &Value) {
        if self.api.provider == DatabaseProvider::Zalando {
            self.update_versions(offered_versions(definition));
        }
    }

    fn watch(&self, step: Arc<Step>) -> WatchTask {
        let (group, version, kind) = self.api.kind;
        let kind = resource(group, version, kind);
        let events = self.watches.events(&kind);
        WatchTask::new(events, Databases { watches: self.watches.clone(), api: self.api, kind, step })
    }

    fn forget(&self) {
        let provider = self.api.provider;
        self.watches.state.note(|facts| {
            *(self.api.served)(&mut facts.apis) = false;
            if provider == DatabaseProvider::Zalando {
                facts.zalando_versions.clear();
            }
            for databases in facts.databases.values_mut() {
                Arc::make_mut(databases).retain(|(of, _), _| *of != provider);
            }
        });
        let (group, _, kind) = self.api.kind;
        self.watches.objects.note(|kinds| kinds.of(group, kind).clear());
        self.watches.queue.push_all();
    }
}

/// Returns the API, namespace and name of a database; none if it is not from a known provider.
pub(super) fn identity(database: &Value) -> Option<(&'static Api, Key)> {
    let text = |field: &str| database["metadata"][field].as_str().unwrap_or_default().to_owned();
    Some((api_of(database)?, (text("namespace"), text("name"))))
}

/// Stores a database for decisions and plans, and returns its previous version.
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
            .note(|facts| facts.databases.get_mut(&key.0).and_then(|databases| Arc::make_mut(databases).remove(&of)));
        let (group, _, kind) = self.api.kind;
        self.watches.objects.note(|kinds| kinds.of(group, kind).remove(key));
        // Its workload needs another; others may have waited for its name, or for `maxPerNamespace`.
        self.watches.queue.push_namespace(&key.0);
    }

    /// The API counts as served once the existing databases are known.
    fn synced(&mut self) {
        self.watches.state.note(|facts| *(self.api.served)(&mut facts.apis) = true);
        self.watches.queue.push_all();
        self.step.done();
    }

    /// Databases are also stored as soon as they are created.
    fn known_keys(&self) -> Vec<Key> {
        let (group, _, kind) = self.api.kind;
        self.watches.objects.note(|kinds| kinds.of(group, kind).keys().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_versions_from_the_operators_definition() {
        let text = include_str!("../../dev/controlplane/crds/postgresqls.acid.zalan.do.yaml");
        let definition: Value = serde_saphyr::from_str(text).unwrap();
        assert_eq!(offered_versions(&definition).into_iter().collect::<Vec<_>>(), ["14", "15", "16", "17", "18"]);
        assert!(offered_versions(&json!({"spec": {"versions": [{"name": "v1"}]}})).is_empty());
        assert!(offered_versions(&json!({})).is_empty());
    }
}
