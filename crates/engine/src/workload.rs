//! A read-only view of a workload's JSON. Patches are made on the JSON itself, so that fields unknown to this version
//! are kept.

mod accelerator;
mod annotations;
mod command_line;
mod completed;
mod container;
mod defaults;
mod environment;
mod field_ownership;
mod field_path;
mod image;
mod left_alone;
mod parse;
mod prior_binding;
mod probe;
mod reference;
mod shell;
mod text;
mod validation;

use serde_json::{Map, Value};

use crate::kind::{self, Kind};
use crate::quantity::Quantity;

pub(crate) use accelerator::is_gpu;
pub use accelerator::{ACCELERATORS, Accelerator};
pub use annotations::{Annotations, Requested};
pub use command_line::{CommandLine, Lookup};
pub use completed::completed;
pub use container::Container;
pub use defaults::{GRACE_PERIOD, PROGRESS_DEADLINE};
pub(crate) use defaults::{complete_probe, has_handler};
pub use environment::Environment;
pub(crate) use environment::refers_to;
pub use field_ownership::FieldOwnership;
pub use field_path::{FieldPath, key_of};
pub use image::Image;
pub use left_alone::LeftAlone;
pub use parse::Sent;
pub use prior_binding::PriorBinding;
pub use probe::Probe;
pub use reference::WorkloadRef;
pub use validation::{UnknownField, ValidationError, mistyped, unknown_fields};

/// The label with the name of a queue of Kueue.
pub const QUEUE_LABEL: &str = "kueue.x-k8s.io/queue-name";

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
    /// A JSON pointer to the pod template.
    pointer: &'static str,
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
        let (spec, pointer) = (&object["spec"], known_kind.template(object));
        Ok(Self {
            object,
            metadata: &object["metadata"],
            annotations: object["metadata"]["annotations"].as_object(),
            known_kind,
            pointer,
            template: object.pointer(pointer).unwrap_or(&Value::Null),
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
        let pointer = self.pointer;
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

    /// Returns why Tidegate leaves the workload alone, if it does.
    #[must_use]
    pub fn left_alone(&self) -> Option<LeftAlone> {
        LeftAlone::of(self)
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

    /// Returns the queue of Kueue in which its pods wait to be admitted: that of the workload, which Kueue copies to
    /// the pods, or else that of the pod template.
    ///
    /// <https://kueue.sigs.k8s.io/docs/tasks/run/deployment/>
    #[must_use]
    pub fn queue(&self) -> Option<&'a str> {
        let of = |metadata: &'a Value| metadata["labels"][QUEUE_LABEL].as_str().filter(|queue| !queue.is_empty());
        of(self.metadata).or_else(|| of(&self.template["metadata"]))
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

    /// Returns the JSON pointer to the pod template.
    #[must_use]
    pub fn template_pointer(&self) -> &'static str {
        self.pointer
    }

    /// Returns views of the workload with each of its other pod templates, such as the one of the workers.
    pub fn other_templates(&self) -> impl Iterator<Item = Self> + use<'a> {
        let this = *self;
        let others = this.known_kind.templates.iter().filter(move |pointer| **pointer != this.pointer);
        others.filter_map(move |pointer| {
            let template = this.object.pointer(pointer).filter(|template| template.is_object())?;
            Some(Self { pointer, template, ..this })
        })
    }

    /// Returns the pod templates of one replica, each with its number of pods: in a group, one leads the others.
    #[must_use]
    pub fn group(&self) -> Vec<(Self, i64)> {
        let size = self.known_kind.group_size.and_then(|pointer| self.object.pointer(pointer)?.as_i64());
        let size = size.unwrap_or(1).max(1);
        let mut all: Vec<Self> = self.other_templates().chain([*self]).collect();
        all.sort_by_key(|view| self.known_kind.templates.iter().position(|pointer| *pointer == view.pointer));
        match all.as_slice() {
            [leader, worker, ..] => vec![(*leader, 1), (*worker, size - 1)],
            _ => vec![(*self, size)],
        }
    }

    /// Returns the workload whose pod template is used instead of its own.
    #[must_use]
    pub fn template_source(&self) -> Option<WorkloadRef> {
        let reference = self.object.pointer(self.known_kind.template_reference?)?;
        let kind = Kind::find(reference["apiVersion"].as_str()?, reference["kind"].as_str()?)?;
        Some(WorkloadRef {
            namespace: self.namespace().to_owned(),
            kind: kind.kind.to_owned(),
            name: reference["name"].as_str()?.to_owned(),
        })
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

    /// Returns a request (`of` = `requests`) or limit (`limits`) of the whole pod if it is set and valid.
    ///
    /// <https://kubernetes.io/docs/tasks/configure-pod-container/assign-pod-level-resources/>
    #[must_use]
    pub fn pod_resource(&self, of: &str, name: &str) -> Option<Quantity> {
        Quantity::from_json(self.pod_spec()["resources"][of].get(name)?).ok()
    }

    /// Returns whether the pod has a request for a resource of its own; a limit counts as a request.
    #[must_use]
    pub fn pod_requests(&self, name: &str) -> bool {
        ["requests", "limits"].iter().any(|of| !self.pod_spec()["resources"][of][name].is_null())
    }

    /// Returns whether the pod has any request or limit of its own.
    #[must_use]
    pub fn has_pod_resources(&self) -> bool {
        let resources = &self.pod_spec()["resources"];
        ["requests", "limits"].iter().any(|of| resources[of].as_object().is_some_and(|named| !named.is_empty()))
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
        let template = self.pointer;
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
