//! Objects from files, sorted into policies, facts and workloads, for commands that work without a cluster.

mod documents;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use documents::decode;
use documents::{Content, Document};

use crate::report;
use tidegate_engine::BUILTIN;
use tidegate_engine::api::{ServingException, ServingPolicy};
use tidegate_engine::companions::{self, autoscaler_of, database};
use tidegate_engine::decision::{Evaluation, Operation, Request, User};
use tidegate_engine::facts::{Apis, Autoscaler, Claim, Facts, INFERENCE_POOL, InferencePool, Namespace, SCALED_OBJECT};
use tidegate_engine::kind::Kind;
use tidegate_engine::policy::{Exception, Policy, PolicySet, Scope};
use tidegate_engine::workload::{Workload, mistyped};

/// The top-level fields of a `ServingPolicy`.
const FIELDS: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];

/// The label with the name of a namespace, set by the API server.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The objects of files.
#[derive(Debug, Default)]
pub struct Manifests {
    /// The policies.
    pub policies: Vec<Arc<Policy>>,
    /// The exceptions.
    pub exceptions: Vec<Arc<Exception>>,
    /// Workloads of the kinds that can be model servers, labelled as such or not, in input order.
    pub workloads: Vec<Found>,
    /// The namespaces, autoscalers, databases, claims, InferencePools, Services and disruption budgets among the
    /// objects. Every API counts as served.
    pub facts: Facts,
    /// How many objects of other kinds there were.
    pub others: usize,
}

/// A workload and its file.
#[derive(Clone, Debug)]
pub struct Found {
    /// The file, or `-`.
    pub file: String,
    /// The object, with a namespace.
    pub object: Value,
}

/// Why an object cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The text is not valid YAML.
    #[error("{file}: invalid YAML: {problem}")]
    Syntax {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A key is written twice in one object.
    #[error("{file}: key `{key}` is written twice, at line {line} again; kubectl keeps the last and says nothing")]
    RepeatedKey {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// The line of the second.
        line: u64,
    },
    /// A document is not a Kubernetes object.
    #[error("{file}: document {document}: kind and apiVersion are required")]
    NoKind {
        /// The file.
        file: String,
        /// Which document, from 1.
        document: usize,
    },
    /// An object is invalid.
    #[error("{file}: invalid {kind} `{name}`: {problem}")]
    Object {
        /// The file.
        file: String,
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Returns the policies of a YAML text, for workloads that `scope` selects.
///
/// # Errors
/// If a policy is invalid.
pub fn policies(file: &str, text: &str, scope: Scope) -> Result<PolicySet, ManifestError> {
    let mut input = Manifests::new();
    input.add_text(file, text, "")?;
    Ok(input.policy_set(scope))
}

impl Manifests {
    /// Creates an empty set, for a cluster that serves every API.
    #[must_use]
    pub fn new() -> Self {
        Self { facts: Facts { apis: Apis::all(), ..Facts::default() }, ..Self::default() }
    }

    /// Adds the objects of a YAML or JSON text; those without a namespace are put into `namespace`.
    ///
    /// # Errors
    /// The first of those that [`Self::add_all`] returns.
    pub fn add_text(&mut self, file: &str, text: &str, namespace: &str) -> Result<(), ManifestError> {
        self.add_all(file, text.as_bytes(), namespace).into_iter().next().map_or(Ok(()), Err)
    }

    /// Adds the objects of a file as far as they are valid, and returns what is wrong with the others.
    pub fn add_all(&mut self, file: &str, bytes: &[u8], namespace: &str) -> Vec<ManifestError> {
        let syntax = |problem: String| ManifestError::Syntax { file: file.to_owned(), problem };
        let text = match decode(bytes) {
            Ok(text) => text,
            Err(problem) => return vec![syntax(problem.to_owned())],
        };
        let (mut errors, mut document) = (Vec::new(), 0);
        for content in documents::split(&text).iter().map(Document::read) {
            let Content { values, repeated } = content.unwrap_or_else(|problem| {
                errors.push(syntax(problem));
                Content::default()
            });
            let again = |(key, line)| ManifestError::RepeatedKey { file: file.to_owned(), key, line };
            errors.extend(repeated.into_iter().map(again));
            for value in values {
                document += 1;
                self.add(file, document, value, namespace, &mut errors);
            }
        }
        errors
    }

    fn add(
        &mut self,
        file: &str,
        document: usize,
        mut object: Value,
        namespace: &str,
        errors: &mut Vec<ManifestError>,
    ) {
        let (Some(kind), Some(version)) = (object["kind"].as_str(), object["apiVersion"].as_str()) else {
            errors.push(ManifestError::NoKind { file: file.to_owned(), document });
            return;
        };
        let (kind, version) = (kind.to_owned(), version.to_owned());
        if let Some(items) = kind.strip_suffix("List").and_then(|of| Some((of, object["items"].as_array_mut()?))) {
            let (of, items) = (items.0, std::mem::take(items.1));
            for item in items {
                self.add(file, document, item_of(&version, of, item), namespace, errors);
            }
            return;
        }
        let group = version.split_once('/').map_or("", |(group, _)| group);
        if Kind::in_group(group, &kind).is_some() {
            let mistyped = mistyped(&object);
            let is_readable = mistyped.is_empty() || Workload::view(&object).is_ok();
            errors.extend(mistyped.iter().map(|problem| invalid(file, &object, problem.to_string())));
            if !is_readable {
                return;
            }
        }
        let added = match (group, kind.as_str()) {
            ("tidegate.dev", "ServingPolicy") => self.add_policy(file, &object),
            _ => self.add_namespaced(file, (group, &kind), object, namespace),
        };
        errors.extend(added.err());
    }

    fn add_policy(&mut self, file: &str, object: &Value) -> Result<(), ManifestError> {
        let fields = object.as_object().into_iter().flat_map(|fields| fields.keys());
        if let Some(unknown) = fields.into_iter().find(|field| !FIELDS.contains(&field.as_str())) {
            return Err(invalid(
                file,
                object,
                format!("unknown field `{unknown}`, expected one of {}", FIELDS.join(", ")),
            ));
        }
        let policy: ServingPolicy = read(file, object)?;
        let compiled =
            Policy::compile(&policy, &BUILTIN).map_err(|problem| invalid(file, object, report::chain(&problem)))?;
        self.policies.push(Arc::new(compiled));
        Ok(())
    }

    fn add_namespaced(
        &mut self,
        file: &str,
        (group, kind): (&str, &str),
        mut object: Value,
        namespace: &str,
    ) -> Result<(), ManifestError> {
        if (group, kind) == ("", "Namespace") {
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let labels = BTreeMap::deserialize(&object["metadata"]["labels"]).unwrap_or_default();
            let terminating = !object["metadata"]["deletionTimestamp"].is_null();
            self.facts.namespaces.insert(name.clone(), Namespace { terminating, ..named(&name, labels) });
            return Ok(());
        }
        let named = object["metadata"]["namespace"].as_str().is_some_and(|found| !found.is_empty());
        if !named && object["metadata"].is_object() {
            object["metadata"]["namespace"] = namespace.into();
        }
        match (group, kind) {
            ("tidegate.dev", "ServingException") => {
                let exception: ServingException = read(file, &object)?;
                let compiled = Exception::compile(&exception)
                    .map_err(|problem| invalid(file, &object, report::chain(&problem)))?;
                self.exceptions.push(Arc::new(compiled));
            }
            _ if Kind::in_group(group, kind).is_some() => self.add_workload(file, object)?,
            ("autoscaling", "HorizontalPodAutoscaler") | ("keda.sh", SCALED_OBJECT) => self.add_autoscaler(&object),
            _ => self.add_fact((group, kind), &object),
        }
        Ok(())
    }

    /// Adds an object that is a fact for decisions.
    fn add_fact(&mut self, kind: (&str, &str), object: &Value) {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        match kind {
            ("", "PersistentVolumeClaim") => {
                self.facts.claims.entry(namespace).or_default().insert(name, Claim::read(object));
            }
            ("", "Service") => {
                Arc::make_mut(self.facts.services.entry(namespace).or_default()).insert(name);
            }
            (group, kind) if (group, kind) == (INFERENCE_POOL.0, INFERENCE_POOL.2) => {
                self.facts.pools.entry(namespace).or_default().insert(name, InferencePool::read(object));
            }
            (group, kind) => match companions::watched().find(|watched| (watched.group, watched.kind) == (group, kind))
            {
                Some(watched) => (watched.note)(&mut self.facts, &namespace, &name, Some(object)),
                None => self.add_database(object, namespace, name),
            },
        }
    }

    /// Adds a database of a provider; counts an object of another kind.
    fn add_database(&mut self, object: &Value, namespace: String, name: String) {
        let Some(api) = database::api_of(object) else {
            self.others += 1;
            return;
        };
        let databases = self.facts.databases.entry(namespace).or_default();
        Arc::make_mut(databases).insert((api.provider, name), database::read(api, object));
    }

    fn add_workload(&mut self, file: &str, object: Value) -> Result<(), ManifestError> {
        let workload = Workload::view(&object).map_err(|problem| invalid(file, &object, report::chain(&problem)))?;
        let namespace = workload.namespace().to_owned();
        self.facts.note_template_user(&workload.reference(), workload.template_source().as_ref());
        let known = self.facts.namespaces.entry(namespace.clone());
        known.or_insert_with(|| named(&namespace, BTreeMap::new()));
        self.workloads.push(Found { file: file.to_owned(), object });
        Ok(())
    }

    fn add_autoscaler(&mut self, object: &Value) {
        if let Some(target) = Autoscaler::target(object).filter(|_| !Autoscaler::is_derived(object)) {
            let found = autoscaler_of(object, &target);
            self.facts.autoscalers.entry(target).or_default().push(found);
        }
    }

    /// Sets the environment of every namespace that does not set one, by the labels that the policies read.
    pub fn set_environment(&mut self, environment: &str) {
        let labels = self.policies.iter().map(|policy| policy.environment_label().to_owned());
        let labels: Vec<String> = labels.collect();
        for namespace in self.facts.namespaces.values_mut() {
            for label in &labels {
                namespace.labels.entry(label.clone()).or_insert_with(|| environment.to_owned());
            }
        }
    }

    /// Returns the policies and exceptions as one set, for workloads that `scope` selects.
    #[must_use]
    pub fn policy_set(&self, scope: Scope) -> PolicySet {
        PolicySet::new(scope, self.policies.clone()).with_exceptions(self.exceptions.iter().cloned())
    }
}

/// Evaluates the creation of a workload, or its update from an old version.
///
/// # Panics
/// Never: the objects were validated when they were read.
#[must_use]
pub fn evaluation<'a>(
    object: &'a Value,
    old: Option<&'a Value>,
    now: Timestamp,
    policies: &'a PolicySet,
    facts: &'a Facts,
) -> Evaluation<'a> {
    let view = |object: &'a Value| Workload::view(object).expect("it was validated when it was read");
    let operation = if old.is_some() { Operation::Update } else { Operation::Create };
    let request = Request { operation, workload: view(object), old: old.map(view), user: User::default(), now };
    Evaluation::new(request, policies, facts)
}

/// Returns an item of a list as an object of its own: without a kind, it has that of the list.
///
/// <https://github.com/kubernetes/apimachinery/blob/master/pkg/apis/meta/v1/unstructured/helpers.go>, `decodeToList`
fn item_of(version: &str, kind: &str, mut item: Value) -> Value {
    if let Some(fields) = item.as_object_mut().filter(|fields| fields.get("kind").is_none_or(Value::is_null)) {
        fields.insert("kind".to_owned(), kind.into());
        fields.insert("apiVersion".to_owned(), version.into());
    }
    item
}

fn named(name: &str, mut labels: BTreeMap<String, String>) -> Namespace {
    labels.entry(NAME_LABEL.to_owned()).or_insert_with(|| name.to_owned());
    Namespace { labels, terminating: false }
}

fn read<T: DeserializeOwned>(file: &str, object: &Value) -> Result<T, ManifestError> {
    serde_json::from_value(object.clone()).map_err(|problem| invalid(file, object, problem.to_string()))
}

fn invalid(file: &str, object: &Value, problem: String) -> ManifestError {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    let name = if metadata["name"].is_null() { &metadata["generateName"] } else { &metadata["name"] };
    ManifestError::Object { file: file.to_owned(), kind: text(&object["kind"]), name: text(name), problem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_engine::workload::WorkloadRef;

    const SEVERAL: &str = "
apiVersion: tidegate.dev/v1alpha1
kind: ServingPolicy
metadata: {name: serving}
spec: {environment: {namespaceLabel: stage}}
---
---
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: Namespace, metadata: {name: ml, labels: {stage: dev}}}
  - {apiVersion: apps/v1, kind: Deployment, metadata: {name: a, namespace: ml}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: b}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: b}
spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: StatefulSet, name: b}}
---
{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"a\"}}
";

    #[test]
    fn sorts_objects_by_kind() {
        let mut input = Manifests::new();
        input.add_text("all.yaml", SEVERAL, "default").unwrap();
        let workloads: Vec<&Value> =
            input.workloads.iter().map(|found| &found.object["metadata"]["namespace"]).collect();
        assert_eq!(workloads, ["ml", "default"]);
        assert_eq!((input.policies.len(), input.others), (1, 1));
        let target = WorkloadRef { namespace: "default".into(), kind: "StatefulSet".into(), name: "b".into() };
        assert_eq!(input.facts.autoscalers_of(&target)[0].max, 3);
        input.set_environment("prod");
        let stage = |namespace: &str| input.facts.namespaces[namespace].labels["stage"].clone();
        assert_eq!((stage("ml"), stage("default")), ("dev".to_owned(), "prod".to_owned()));
        assert_eq!(input.facts.namespaces["default"].labels[NAME_LABEL], "default");
    }

    #[test]
    fn counts_a_scaled_object_but_not_the_hpa_created_for_it() {
        let keda = "
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: mine}
spec: {scaleTargetRef: {name: api}, minReplicaCount: 2}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: keda-hpa-mine, ownerReferences: [{apiVersion: keda.sh/v1alpha1, kind: ScaledObject, name: mine}]}
spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: api}}
";
        let mut input = Manifests::new();
        input.add_text("keda.yaml", keda, "ml").unwrap();
        let target = WorkloadRef { namespace: "ml".into(), kind: "Deployment".into(), name: "api".into() };
        let names: Vec<String> = input.facts.autoscalers_of(&target).iter().map(Autoscaler::reference).collect();
        assert_eq!(names, ["ScaledObject/mine"]);
    }

    #[test]
    fn errors_name_the_file_and_the_field() {
        let error = |text: &str| Manifests::new().add_text("a.yaml", text, "default").unwrap_err().to_string();
        let policy =
            "{apiVersion: tidegate.dev/v1alpha1, kind: ServingPolicy, metadata: {name: p}, spec: {rules: {no: {}}}}";
        let exception = "{apiVersion: tidegate.dev/v1alpha1, kind: ServingException, metadata: {name: e}, spec: {}}";
        let texts =
            ["a: [", "a: 1", policy, exception, "{apiVersion: apps/v1, kind: Deployment, metadata: {labels: [1]}}"];
        insta::assert_snapshot!(texts.map(error).join("\n"));
    }

    #[test]
    fn errors_do_not_show_the_invalid_line() {
        let text = "kind: Deployment\nenv: s3cret: oops\n";
        let error = Manifests::new().add_text("a.yaml", text, "default").unwrap_err();
        let error = report::chain(&error);
        assert!(error.contains("a.yaml") && !error.contains("s3cret"), "{error}");
    }
}
