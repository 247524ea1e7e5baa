//! Objects in memory as compressed text, which takes a fraction of the memory of parsed objects. They are rarely read.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use kube::Resource;
use kube::api::{DynamicObject, ObjectMeta};
use kube::core::{ApiResource, DynamicResourceScope};
use lz4_flex::{compress_prepend_size, decompress_size_prepended};
use serde_json::Value;

use super::informer::Key;
use super::{raw, shared_replicas};

/// An object as compressed JSON.
#[derive(Debug)]
struct Compressed(Box<[u8]>);

impl Compressed {
    fn new(object: &Value) -> Self {
        Self(compress_prepend_size(object.to_string().as_bytes()).into())
    }

    fn to_json(&self) -> Value {
        let text = decompress_size_prepended(&self.0).expect("it was compressed by `new`");
        serde_json::from_slice(&text).expect("it was written as JSON by `new`")
    }
}

/// An object of the cluster: its name, and its compressed JSON.
#[derive(Clone, Debug)]
pub(super) struct CompressedObject {
    metadata: ObjectMeta,
    /// Whether `spec.replicas` is owned by whoever scaled it.
    pub(super) is_owned_by_scaling: bool,
    json: Arc<Compressed>,
}

impl CompressedObject {
    /// Compresses an object of a kind, without its managed fields.
    pub(super) fn new(object: DynamicObject, kind: &ApiResource) -> Self {
        let (name, namespace) = (object.metadata.name.clone(), object.metadata.namespace.clone());
        let metadata = ObjectMeta { name, namespace, ..ObjectMeta::default() };
        let managers = object.metadata.managed_fields.as_deref().unwrap_or_default();
        let is_owned_by_scaling = managers.iter().any(shared_replicas::is_of_scaling);
        Self { metadata, is_owned_by_scaling, json: Arc::new(Compressed::new(&raw(object, kind))) }
    }

    /// Returns the object.
    pub(super) fn to_json(&self) -> Value {
        self.json.to_json()
    }
}

impl Resource for CompressedObject {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(kind: &ApiResource) -> Cow<'_, str> {
        kind.kind.as_str().into()
    }
    fn group(kind: &ApiResource) -> Cow<'_, str> {
        kind.group.as_str().into()
    }
    fn version(kind: &ApiResource) -> Cow<'_, str> {
        kind.version.as_str().into()
    }
    fn plural(kind: &ApiResource) -> Cow<'_, str> {
        kind.plural.as_str().into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Objects by namespace and name, or by another key.
#[derive(Debug)]
pub(super) struct CompressedStore<K = Key>(HashMap<K, Compressed>);

impl<K> Default for CompressedStore<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> CompressedStore<K> {
    /// Inserts an object, and returns the previous one.
    pub(super) fn insert(&mut self, key: K, object: &Value) -> Option<Value> {
        self.0.insert(key, Compressed::new(object)).map(|before| before.to_json())
    }

    /// Removes an object, and returns it.
    pub(super) fn remove(&mut self, key: &K) -> Option<Value> {
        self.0.remove(key).map(|before| before.to_json())
    }

    /// Returns an object.
    pub(super) fn get(&self, key: &K) -> Option<Value> {
        self.0.get(key).map(Compressed::to_json)
    }

    /// Returns all objects.
    pub(super) fn objects(&self) -> impl Iterator<Item = Value> {
        self.0.values().map(Compressed::to_json)
    }

    /// Returns the keys of all objects.
    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }

    /// Removes all objects.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn adds_the_kind_and_drops_managed_fields() {
        let listed = json!({
            "metadata": {"name": "api", "namespace": "ns", "managedFields": [{"manager": "kubectl"}]},
            "spec": {"replicas": 1.5}
        });
        let kind = super::super::resource("apps", "v1", "StatefulSet");
        let object = CompressedObject::new(serde_json::from_value(listed).unwrap(), &kind);
        let expected = json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "api", "namespace": "ns"},
            "spec": {"replicas": 1.5}
        });
        assert_eq!((object.to_json(), object.metadata.name.as_deref()), (expected, Some("api")));
    }

    #[test]
    fn store_returns_inserted_objects() {
        let (mut store, key) = (CompressedStore::default(), ("ns".to_owned(), "api".to_owned()));
        assert_eq!(store.insert(key.clone(), &json!({"a": 1})), None);
        assert_eq!(store.insert(key.clone(), &json!({"a": 2})), Some(json!({"a": 1})));
        assert_eq!((store.get(&key), store.objects().count()), (Some(json!({"a": 2})), 1));
        assert_eq!(store.remove(&key), Some(json!({"a": 2})));
        assert_eq!((store.get(&key), store.objects().count(), store.remove(&key)), (None, 0, None));
    }
}
