//! Builders for unit tests.

#![allow(clippy::missing_panics_doc, clippy::must_use_candidate, reason = "a failure here fails a test")]

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::{DatabaseProvider, ServingPolicy};
use crate::facts::{Apis, Autoscaler, Database, Facts, Namespace};
use crate::policy::{Exception, Policy, PolicySet};
use crate::workload::WorkloadRef;
use crate::{BUILTIN, rules};

/// Formats an error with its causes.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let _ = write!(text, ": {cause}");
        next = cause.source();
    }
    text
}

/// The label that makes a workload a model server.
pub const LABEL: &str = "app.kubernetes.io/component";

/// The rules that are on in tests of the engine; the others are off, unless the policy names them.
const ACTIVE: [&str; 7] = [
    "annotation-out-of-bounds",
    "floating-tag",
    "missing-memory-limit",
    "model-server-label-removed",
    "privileged-container",
    "replicas-under-autoscaler",
    "resources-out-of-bounds",
];

/// A policy of this name with this spec; the rules in [`ACTIVE`] are on.
pub fn policy(name: &str, spec: &Value) -> ServingPolicy {
    let mut spec = spec.clone();
    let unnamed = rules::ALL.iter().map(|rule| rule.id()).filter(|id| !ACTIVE.contains(id));
    for id in unnamed {
        let rules = spec["rules"].as_object_mut();
        if rules.is_none_or(|rules| !rules.contains_key(id)) {
            spec["rules"][id] = json!({"enforcement": "off"});
        }
    }
    let object = json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": "ServingPolicy",
        "metadata": {"name": name, "generation": 1}, "spec": spec});
    serde_json::from_value(object).expect("this is a ServingPolicy")
}

/// An exception of this name in the namespace `ml`, with this spec; created on 1970-01-01.
pub fn exception(name: &str, spec: &Value) -> Arc<Exception> {
    let metadata = json!({"name": name, "namespace": "ml", "creationTimestamp": "1970-01-01T00:00:00Z"});
    let object = json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": "ServingException", "metadata": metadata,
        "spec": spec});
    let written = serde_json::from_value(object).expect("this is a ServingException");
    Arc::new(Exception::compile(&written).expect("this exception is valid"))
}

/// A set of policies, by name and spec.
pub fn policies(specs: &[(&str, Value)]) -> PolicySet {
    let compiled = specs.iter().map(|(name, spec)| {
        let policy = Policy::compile(&policy(name, spec), &BUILTIN).expect("this policy is valid");
        policy.into()
    });
    PolicySet::new([(LABEL.to_owned(), "model-server".to_owned())].into(), compiled.collect())
}

/// The Deployment `ml/api`, a model server with these containers.
pub fn deployment(containers: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "api", "namespace": "ml", "uid": "0-1", "labels": {LABEL: "model-server"}},
        "spec": {"template": {"spec": {"containers": containers}}}
    })
}

/// The Deployment `ml/api` with one container with these fields.
pub fn with_container(fields: &Value) -> Value {
    let mut container = json!({"name": "api", "image": "registry.example.com/api:1"});
    json_patch::merge(&mut container, fields);
    deployment(&json!([container]))
}

/// A reference to the Deployment `ml/api`.
pub fn reference() -> WorkloadRef {
    WorkloadRef { namespace: "ml".into(), kind: "Deployment".into(), name: "api".into() }
}

/// A cluster that serves every API and has the empty namespace `ml`.
pub fn facts() -> Facts {
    let namespaces = [("ml".to_owned(), Namespace::default())].into();
    Facts { namespaces, apis: Apis::all(), ..Facts::default() }
}

/// The same cluster with a database of Zalando's operator.
pub fn with_database(namespace: &str, name: &str, database: Database) -> Facts {
    with_database_of(DatabaseProvider::Zalando, namespace, name, database)
}

/// The same cluster with a database.
pub fn with_database_of(provider: DatabaseProvider, namespace: &str, name: &str, database: Database) -> Facts {
    let inside = [((provider, name.to_owned()), database)].into();
    Facts { databases: [(namespace.to_owned(), Arc::new(inside))].into(), ..facts() }
}

/// A database that Tidegate created for a workload, such as `Deployment/api`.
pub fn made_for(workload: &str) -> Database {
    Database { made_for: Some(workload.to_owned()), ..Database::default() }
}

/// The same cluster with an autoscaler for `ml/api`.
pub fn scaled(min: i64, max: i64) -> Facts {
    let (kind, name) = ("HorizontalPodAutoscaler".to_owned(), "api-tidegate".to_owned());
    let held = Autoscaler { kind, name, min, max, ours: true, metrics: Vec::new(), static_fallback: None };
    Facts { autoscalers: [(reference(), vec![held])].into(), ..facts() }
}
