//! A read-only view of a workload's JSON. Patches are made on the JSON itself, so that fields unknown to this version
//! are kept.

mod annotations;
mod command_line;
mod completed;
mod container;
mod defaults;
mod environment;
mod field_ownership;
mod field_path;
mod image;
mod parse;
mod prior_binding;
mod probe;
mod reference;
mod shell;
mod text;
mod validation;

use serde_json::{Map, Value};

use crate::kind::{self, Kind};

pub use annotations::{Annotations, Requested};
pub use command_line::{CommandLine, Lookup};
pub use completed::completed;
pub(crate) use container::is_gpu;
pub use container::{Container, GPU_RESOURCES};
pub use defaults::{GRACE_PERIOD, PROGRESS_DEADLINE};
pub(crate) use defaults::{complete_probe, has_handler};
pub use environment::Environment;
pub(crate) use environment::refers_to;
pub use field_ownership::FieldOwnership;
pub use field_path::{FieldPath, key_of};
pub use image::Image;
pub use parse::Sent;
pub use prior_binding::PriorBinding;
pub use probe::Probe;
pub use reference::WorkloadRef;
pub use validation::{UnknownField, ValidationError, mistyped, unknown_fields};

/// Returns the items of a list; none if it is not a list.
pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// A view of a workload of a supported kind, with the fields that Tidegate reads.
#[derive(Clone, Copy, Debug)]
pub struct Workload<'a> {
    object: &'a Value,
    metadata: &'a Value,
    annotations: Option<&'a Map<String, Value>>,
    known_kind: &'static Kind,
    template: &'a Value,
    replicas: Option<i64>,
    progress_deadline: Option<i64>,
}

impl<'a> Workload<'a> {
    /// Returns a view of an object, after checking the types of all fields that it reads.
    ///
    /// # Errors
    /// Names the first field of a wrong type.
    pub fn view(object: &'a Value) -> Result<Self, ValidationError> {
        let known_kind = Kind::from_object(object);
        validation::check(object, known_kind)?;
        let spec = &object["spec"];
        Ok(Self {
            object,
            metadata: &object["metadata"],
            annotations: object["metadata"]["annotations"].as_object(),
            known_kind,
            template: object.pointer(known_kind.template()).unwrap_or(&Value::Null),
            replicas: spec["replicas"].as_i64(),
            progress_deadline: spec["progressDeadlineSeconds"].as_i64(),
        })
    }

    /// Returns the JSON of the original object, without changes by `with_…`.
    #[must_use]
    pub fn object(&self) -> &'a Value {
        self.object
    }

    /// Returns the workload as JSON, with changes by `with_…`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = self.object.clone();
        let seconds = self.progress_deadline.map(|seconds| ("progressDeadlineSeconds".to_owned(), seconds.into()));
        let replicas = self.replicas.map(|replicas| ("replicas".to_owned(), replicas.into()));
        let pointer = self.known_kind.template();
        let is_unchanged = object.pointer(pointer).unwrap_or(&Value::Null) == self.template
            && replicas.iter().chain(&seconds).all(|(field, value): &(String, Value)| object["spec"][field] == *value);
        if is_unchanged || !object["spec"].is_object() {
            return object;
        }
        *kind::fields(pointer).fold(&mut object, |place, field| &mut place[field]) = self.template.clone();
        if let Some(spec) = object["spec"].as_object_mut() {
            spec.extend(replicas.into_iter().chain(seconds));
        }
        object
    }

    /// Returns the view with another pod template, whose types are valid.
    pub(crate) fn with_template<'t>(&self, template: &'t Value) -> Workload<'t>
    where
        'a: 't,
    {
        debug_assert_eq!(validation::check_template(template), Ok(()));
        Workload { template, ..*self }
    }

    /// Returns the view with another number of replicas.
    pub(crate) fn with_replicas(&self, replicas: i64) -> Self {
        Self { replicas: Some(replicas), ..*self }
    }

    /// Returns the view with another progress deadline.
    pub(crate) fn with_progress_deadline(&self, seconds: i64) -> Self {
        Self { progress_deadline: Some(seconds), ..*self }
    }

    /// Returns the kind, such as `Deployment`.
    #[must_use]
    pub fn kind(&self) -> &'a str {
        self.object["kind"].as_str().unwrap_or(self.known_kind.kind)
    }

    /// Returns the properties of the kind.
    #[must_use]
    pub fn known_kind(&self) -> &'static Kind {
        self.known_kind
    }

    /// Returns the name; empty if the API server has yet to generate it from `generateName`.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.metadata("name").as_str().unwrap_or_default()
    }

    /// Returns the name to show: while there is none, the prefix that the API server will make one from, as in its own
    /// messages.
    ///
    /// <https://github.com/kubernetes/apiserver/blob/master/pkg/admission/errors.go>
    #[must_use]
    pub fn shown_name(&self) -> &'a str {
        let prefix = || self.metadata("generateName").as_str().unwrap_or_default();
        if self.name().is_empty() { prefix() } else { self.name() }
    }

    /// Returns whether the API server generates, or has generated, the name: it is unknown during injection.
    #[must_use]
    pub fn has_generated_name(&self) -> bool {
        self.name().is_empty() || self.metadata("generateName").as_str().is_some_and(|prefix| !prefix.is_empty())
    }

    /// Returns the namespace; empty if it is not set.
    #[must_use]
    pub fn namespace(&self) -> &'a str {
        self.metadata("namespace").as_str().unwrap_or_default()
    }

    /// Returns the UID; empty before the object is stored.
    #[must_use]
    pub fn uid(&self) -> &'a str {
        self.metadata("uid").as_str().unwrap_or_default()
    }

    /// Returns the reference of an autoscaler to this workload.
    #[must_use]
    pub fn reference(&self) -> WorkloadRef {
        WorkloadRef {
            namespace: self.namespace().to_owned(),
            kind: self.kind().to_owned(),
            name: self.name().to_owned(),
        }
    }

    /// Returns whether the object is being deleted.
    #[must_use]
    pub fn is_being_deleted(&self) -> bool {
        !self.metadata("deletionTimestamp").is_null()
    }

    /// Returns the controller that owns the workload, such as `InferenceService api`.
    #[must_use]
    pub fn controller(&self) -> Option<String> {
        let owners = self.metadata("ownerReferences").as_array()?;
        let owner = owners.iter().find(|owner| owner["controller"] == true)?;
        Some(format!("{} {}", owner["kind"].as_str()?, owner["name"].as_str()?))
    }

    /// Returns the labels of the workload, not of its pods.
    #[must_use]
    pub fn labels(&self) -> Option<&'a Map<String, Value>> {
        self.metadata("labels").as_object()
    }

    /// Returns the value of a label of the workload, not of its pods.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&'a str> {
        self.labels()?.get(key)?.as_str()
    }

    /// Returns an annotation of the workload, not of its pods.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&'a str> {
        self.annotations?.get(key)?.as_str()
    }

    /// Returns `spec.replicas`.
    #[must_use]
    pub fn replicas(&self) -> Option<i64> {
        self.replicas
    }

    /// Returns `spec.progressDeadlineSeconds`.
    #[must_use]
    pub fn progress_deadline(&self) -> Option<i64> {
        self.progress_deadline
    }

    /// Returns a field of the workload's `spec`; null if it is absent.
    #[must_use]
    pub fn spec(&self, field: &str) -> &'a Value {
        &self.object["spec"][field]
    }

    /// Returns the pod template; null if it is absent.
    #[must_use]
    pub fn template(&self) -> &'a Value {
        self.template
    }

    /// Returns the spec of the pod template; null if it is absent.
    #[must_use]
    pub fn pod_spec(&self) -> &'a Value {
        &self.template()["spec"]
    }

    /// Returns the containers, without init containers.
    pub fn containers(&self) -> impl Iterator<Item = Container<'a>> + use<'a> {
        self.list("containers")
    }

    /// Returns the init containers, restartable ones (sidecars) among them.
    pub fn init_containers(&self) -> impl Iterator<Item = Container<'a>> + use<'a> {
        self.list("initContainers")
    }

    /// Returns init containers and containers, in the order in which they start.
    pub fn all_containers(&self) -> impl Iterator<Item = Container<'a>> + use<'a> {
        self.init_containers().chain(self.containers())
    }

    /// Returns the containers that run as long as the pod does: restartable init containers, then containers.
    ///
    /// <https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/>
    pub fn long_running(&self) -> impl Iterator<Item = Container<'a>> + use<'a> {
        self.init_containers().filter(Container::is_restartable).chain(self.containers())
    }

    /// Returns the long-running containers without a request for a resource. A request of the pod counts for all
    /// containers, and a limit counts as a request.
    pub fn without_request(&self, resource: &str) -> impl Iterator<Item = Container<'a>> + use<'a> {
        let is_for_the_pod = !self.pod_spec()["resources"]["requests"][resource].is_null();
        let resource = resource.to_owned();
        let counting = self.long_running().filter(move |_| !is_for_the_pod);
        counting.filter(move |container| ["requests", "limits"].iter().all(|of| !container.has_resource(of, &resource)))
    }

    /// Returns whether each container has a unique name in its list, as Kubernetes requires.
    #[must_use]
    pub fn has_unique_container_names(&self) -> bool {
        let are_unique = |names: Vec<&str>| {
            names.iter().enumerate().all(|(index, name)| !name.is_empty() && !names[..index].contains(name))
        };
        are_unique(self.init_containers().map(|container| container.name()).collect())
            && are_unique(self.containers().map(|container| container.name()).collect())
    }

    fn list(&self, list: &'static str) -> impl Iterator<Item = Container<'a>> + use<'a> {
        let items = self.pod_spec()[list].as_array().map_or(&[][..], Vec::as_slice);
        let template = self.known_kind.template();
        items.iter().enumerate().map(move |(index, value)| Container::new(template, list, index, value))
    }

    /// Returns a field of the workload's `metadata`; null if it is absent.
    pub(crate) fn metadata(&self, field: &str) -> &'a Value {
        &self.metadata[field]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn detects_containers_without_unique_names() {
        let are_unique = |init: Value, containers: Value| {
            let object = json!({"spec": {"template": {"spec": {"initContainers": init, "containers": containers}}}});
            Workload::view(&object).unwrap().has_unique_container_names()
        };
        assert!(are_unique(json!([{"name": "a"}]), json!([{"name": "a"}, {"name": "b"}])));
        assert!(are_unique(json!(null), json!([])));
        assert!(!are_unique(json!(null), json!([{"name": "a"}, {"name": "a"}])));
        assert!(!are_unique(json!([{"name": ""}]), json!([{"name": "a"}])));
        assert!(!are_unique(json!(null), json!([{}])));
    }
}
