//! The objects that plans are based on, as last seen by the watches.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use serde_json::Value;

use super::compressed::CompressedStore;
use tidegate_engine::companions::plan::Observed;
use tidegate_engine::companions::{ObjectRef, database, names};
use tidegate_engine::facts::DatabaseOf;
use tidegate_engine::workload::WorkloadRef;

/// Returns the workload of a ModelServer: its owner, or the one named in its spec if the owner was removed.
pub(super) fn described_by(model_server: &Value) -> Option<WorkloadRef> {
    let owner = &model_server["metadata"]["ownerReferences"][0];
    let named = if owner.is_null() { &model_server["spec"] } else { owner };
    let text = |field: &Value| field.as_str().map(str::to_owned);
    let namespace = text(&model_server["metadata"]["namespace"])?;
    Some(WorkloadRef { namespace, kind: text(&named["kind"])?, name: text(&named["name"])? })
}

/// Returns the name of a workload's ModelServer, and the existing object. An existing one keeps its name; a name used
/// for another workload, by an earlier release, is not reused.
fn model_server(workload: &WorkloadRef, known: &CompressedStore) -> (String, Option<Value>) {
    let (kind, name) = (&workload.kind, &workload.name);
    let at = |name: &String| known.get(&(workload.namespace.clone(), name.clone()));
    let [now, spare] = [names::model_server(kind, name), names::spare_model_server(kind, name)];
    for name in [&now, &names::former_model_server(kind, name), &spare] {
        if let Some(found) = at(name).filter(|found| described_by(found).as_ref() == Some(workload)) {
            return (name.clone(), Some(found));
        }
    }
    (if at(&now).is_none() { now } else { spare }, None)
}

/// All companions seen by the watches.
#[derive(Debug, Default)]
pub(super) struct Objects {
    kinds: RwLock<Kinds>,
}

/// Objects by group and kind, then by namespace and name.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    companions: HashMap<(String, String), CompressedStore>,
    pub(super) model_servers: CompressedStore,
}

impl Kinds {
    /// Returns the objects of a kind, by its group and name.
    pub(super) fn of(&mut self, group: &str, kind: &str) -> &mut CompressedStore {
        self.companions.entry((group.to_owned(), kind.to_owned())).or_default()
    }

    fn find(&self, namespace: &str, named: &ObjectRef) -> Option<Value> {
        let of_kind = self.companions.get(&(named.group.to_owned(), named.kind.to_owned()))?;
        of_kind.get(&(namespace.to_owned(), named.name.clone()))
    }
}

impl Objects {
    /// Changes the known objects.
    pub(super) fn note<T>(&self, note: impl FnOnce(&mut Kinds) -> T) -> T {
        note(&mut self.kinds.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the existing objects for a workload, by their names.
    pub(super) fn around(&self, workload: &WorkloadRef, names: &[Vec<ObjectRef>]) -> Observed {
        let kinds = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
        let (model_server_name, model_server) = model_server(workload, &kinds.model_servers);
        let observed = Observed::look_up(names, |named| kinds.find(&workload.namespace, named));
        Observed { model_server, model_server_name, ..observed }
    }

    /// Returns the ModelServer of a workload.
    pub(super) fn model_server(&self, workload: &WorkloadRef) -> Option<Value> {
        let kinds = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
        model_server(workload, &kinds.model_servers).1
    }

    /// Returns whether a workload has a ModelServer.
    pub(super) fn has_model_server(&self, workload: &WorkloadRef) -> bool {
        self.model_server(workload).is_some()
    }

    /// Returns the workloads of all ModelServers.
    pub(super) fn described(&self) -> Vec<WorkloadRef> {
        let kinds = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
        kinds.model_servers.objects().filter_map(|found| described_by(&found)).collect()
    }

    /// Returns the databases that Tidegate created for a workload.
    pub(super) fn databases_of<'f>(
        &self,
        databases: impl Iterator<Item = DatabaseOf<'f>>,
        namespace: &str,
    ) -> Vec<Value> {
        let kinds = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
        let named = |found: DatabaseOf| {
            let api = database::apis().find(|api| api.provider == found.provider)?;
            Some(api.object_ref(found.name))
        };
        databases.filter_map(named).filter_map(|named| kinds.find(namespace, &named)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workload(kind: &str, name: &str) -> WorkloadRef {
        WorkloadRef { namespace: "ml".into(), kind: kind.into(), name: name.into() }
    }

    /// A ModelServer with this name, owned by a workload.
    fn owned(name: &str, of: &WorkloadRef) -> Value {
        let owner = json!([{"apiVersion": "apps/v1", "kind": of.kind, "name": of.name}]);
        json!({"metadata": {"name": name, "namespace": "ml", "ownerReferences": owner}, "spec": {"kind": of.kind, "name": of.name}})
    }

    /// The name of a workload's ModelServer, and whether it exists, given these ModelServers.
    fn named(of: &WorkloadRef, others: &[Value]) -> (String, bool) {
        let mut known = CompressedStore::default();
        for other in others {
            let name = other["metadata"]["name"].as_str().unwrap().to_owned();
            known.insert(("ml".to_owned(), name), other);
        }
        let (name, found) = model_server(of, &known);
        (name, found.is_some())
    }

    #[test]
    fn names_of_model_servers_do_not_collide_across_kinds() {
        let (stateful, deployment) = (workload("StatefulSet", "api"), workload("Deployment", "api-statefulset"));
        let (of_stateful, of_deployment) = (named(&stateful, &[]), named(&deployment, &[]));
        assert_eq!(of_stateful, ("api-statefulset".to_owned(), false));
        assert_ne!(of_stateful, of_deployment);
        let existing = owned("api-statefulset", &stateful);
        assert_eq!(named(&stateful, std::slice::from_ref(&existing)), ("api-statefulset".to_owned(), true));
        assert_eq!(named(&deployment, &[existing]), of_deployment);
    }

    #[test]
    fn an_existing_model_server_keeps_its_name_and_workload() {
        let (stateful, deployment) = (workload("StatefulSet", "api"), workload("Deployment", "api-statefulset"));
        let existing = owned("api-statefulset", &deployment);
        assert_eq!(named(&deployment, std::slice::from_ref(&existing)), ("api-statefulset".to_owned(), true));
        let (spare, is_there) = named(&stateful, std::slice::from_ref(&existing));
        assert!(spare != "api-statefulset" && !is_there, "{spare}");
        let both = [existing, owned(&spare, &stateful)];
        assert_eq!(named(&stateful, &both), (spare.clone(), true));
        assert_eq!(named(&stateful, &both[1..]), (spare, true), "it keeps its name when the other is deleted");
    }

    #[test]
    fn the_owner_takes_precedence_over_an_edited_spec() {
        let of = workload("Deployment", "api");
        let mut edited = owned("api", &of);
        edited["spec"]["name"] = "other".into();
        assert_eq!(described_by(&edited), Some(of.clone()));
        let mut orphaned = owned("api", &of);
        orphaned["metadata"]["ownerReferences"] = Value::Null;
        assert_eq!(described_by(&orphaned), Some(of));
        assert_eq!(described_by(&json!({"metadata": {"namespace": "ml"}})), None);
    }
}
