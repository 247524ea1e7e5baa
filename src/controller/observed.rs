//! The objects that a plan is made from, as the watches told them last.

use std::collections::BTreeSet;
use std::sync::{PoisonError, RwLock};

use serde_json::Value;

use super::kept::Shelf;
use super::watch::Key;
use tidegate_engine::api::DatabaseProvider;
use tidegate_engine::companions::names;
use tidegate_engine::facts::DatabaseOf;
use tidegate_engine::workload::WorkloadRef;

/// What exists around one workload.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The autoscalers that scale it, and those that have the names of ours.
    pub autoscalers: Vec<Value>,
    /// Whether KEDA's own HorizontalPodAutoscaler scales it, on behalf of a ScaledObject or one that has just gone.
    pub is_scaled_by_keda: bool,
    /// The PodDisruptionBudgets that are for its pods, and the one that has the name of ours.
    pub budgets: Vec<Value>,
    /// The object that has the name of its database.
    pub database: Option<Value>,
    /// What was last written about it.
    pub model_server: Option<Value>,
}

/// Returns the workloads that a ModelServer of this name may tell of.
pub(super) fn described_by((namespace, name): &Key) -> impl Iterator<Item = WorkloadRef> {
    names::described_by(name).map(|(kind, name)| WorkloadRef {
        namespace: namespace.clone(),
        kind: kind.to_owned(),
        name: name.to_owned(),
    })
}

/// The names of what exists around one workload.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) autoscalers: BTreeSet<String>,
    pub(super) scaled_objects: BTreeSet<String>,
    pub(super) is_scaled_by_keda: bool,
    pub(super) budgets: BTreeSet<String>,
    pub(super) database: Option<(DatabaseProvider, String)>,
}

/// All companions that the watches have told.
#[derive(Debug, Default)]
pub(super) struct Objects {
    kinds: RwLock<Kinds>,
}

/// Objects by kind, then by namespace and name.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    pub(super) autoscalers: Shelf,
    pub(super) scaled_objects: Shelf,
    pub(super) budgets: Shelf,
    pub(super) databases: Shelf<(DatabaseProvider, Key)>,
    pub(super) model_servers: Shelf,
}

impl Objects {
    /// Changes what is known.
    pub(super) fn note<T>(&self, note: impl FnOnce(&mut Kinds) -> T) -> T {
        note(&mut self.kinds.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns what exists around a workload, by the names to look at.
    pub(super) fn around(&self, workload: &WorkloadRef, names: &Names) -> Observed {
        let kinds = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
        let key = |name: &str| (workload.namespace.clone(), name.to_owned());
        let found = |known: &Shelf, names: &BTreeSet<String>| -> Vec<Value> {
            names.iter().filter_map(|name| known.get(&key(name))).collect()
        };
        let mut autoscalers = found(&kinds.autoscalers, &names.autoscalers);
        autoscalers.extend(found(&kinds.scaled_objects, &names.scaled_objects));
        Observed {
            autoscalers,
            is_scaled_by_keda: names.is_scaled_by_keda,
            budgets: found(&kinds.budgets, &names.budgets),
            database: names.database.as_ref().and_then(|(provider, name)| kinds.databases.get(&(*provider, key(name)))),
            model_server: kinds.model_servers.get(&key(&names::model_server(&workload.kind, &workload.name))),
        }
    }

    /// Tells whether a workload has a ModelServer.
    pub(super) fn has_model_server(&self, workload: &WorkloadRef) -> bool {
        let kinds = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
        let name = names::model_server(&workload.kind, &workload.name);
        kinds.model_servers.contains(&(workload.namespace.clone(), name))
    }

    /// Returns the workloads that ModelServers tell of: where the name fits two kinds, both.
    pub(super) fn described(&self) -> Vec<WorkloadRef> {
        let kinds = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
        kinds.model_servers.keys().flat_map(described_by).collect()
    }

    /// Returns the databases that Tidegate made for a workload.
    pub(super) fn databases_of<'f>(
        &self,
        databases: impl Iterator<Item = DatabaseOf<'f>>,
        namespace: &str,
    ) -> Vec<Value> {
        let kinds = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
        let key = |found: DatabaseOf| (found.provider, (namespace.to_owned(), found.name.to_owned()));
        databases.filter_map(|found| kinds.databases.get(&key(found))).collect()
    }
}
