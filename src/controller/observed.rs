//! The objects that a plan is made from, as the watches told them last.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use serde_json::Value;

use super::watch::Key;
use crate::companions::names;
use crate::facts::WorkloadRef;

/// What exists around one workload.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The autoscalers that scale it, and the one that has the name of ours.
    pub autoscalers: Vec<Value>,
    /// The object that has the name of its database.
    pub database: Option<Value>,
    /// What was last written about it.
    pub model_server: Option<Value>,
}

/// All companions that the watches have told.
#[derive(Debug, Default)]
pub(super) struct Objects {
    kinds: RwLock<Kinds>,
}

/// Objects by kind, then by namespace and name.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    pub(super) autoscalers: HashMap<Key, Value>,
    pub(super) databases: HashMap<Key, Value>,
    pub(super) model_servers: HashMap<Key, Value>,
}

impl Objects {
    /// Changes what is known.
    pub(super) fn note<T>(&self, note: impl FnOnce(&mut Kinds) -> T) -> T {
        note(&mut self.kinds.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns what exists around a workload; `autoscalers` and `database` are names to look at.
    pub(super) fn around(&self, workload: &WorkloadRef, autoscalers: &[&str], database: Option<&str>) -> Observed {
        let kinds = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
        let key = |name: &str| (workload.namespace.clone(), name.to_owned());
        Observed {
            autoscalers: autoscalers.iter().filter_map(|name| kinds.autoscalers.get(&key(name)).cloned()).collect(),
            database: database.and_then(|name| kinds.databases.get(&key(name)).cloned()),
            model_server: kinds.model_servers.get(&key(&names::model_server(&workload.kind, &workload.name))).cloned(),
        }
    }
}
