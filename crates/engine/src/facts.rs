//! The state of the cluster that decisions use. It is collected from watches or files; rules only read it.

mod shared_map;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use kube::core::{Selector, SelectorExt as _};
use serde::Deserialize as _;
use serde_json::Value;

pub use shared_map::SharedMap;

use crate::api::{DatabaseProvider, MODEL_SERVERS_LABEL};
use crate::kind::Kind;
use crate::workload::{Container, Workload, WorkloadRef, items};

/// The databases of a namespace, by provider and name.
pub type Databases = BTreeMap<(DatabaseProvider, String), Database>;

/// The known state of the cluster at the time of a decision. It is cheap to clone, and to change while clones exist: a
/// long decision works on a clone and does not block updates.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Namespaces by name.
    pub namespaces: SharedMap<String, Namespace>,
    /// Autoscalers by the workload that they scale, without those that another autoscaler created.
    pub autoscalers: SharedMap<WorkloadRef, Vec<Autoscaler>>,
    /// The names of the HorizontalPodAutoscalers that KEDA created for its ScaledObjects, by the workload that they
    /// scale.
    pub derived_autoscalers: SharedMap<WorkloadRef, BTreeSet<String>>,
    /// The workloads whose pod template others use, such as Rollouts with `workloadRef`, each with these.
    pub template_users: SharedMap<WorkloadRef, BTreeSet<WorkloadRef>>,
    /// Databases by namespace, then by provider and name.
    pub databases: SharedMap<String, Arc<Databases>>,
    /// The databases, by provider and name, to which the existing pods of each workload are bound.
    pub used_databases: SharedMap<WorkloadRef, Vec<(DatabaseProvider, String)>>,
    /// The workloads whose pods are bound to a database that does not exist yet, each with the maximum number of
    /// databases of its namespace.
    pub awaiting: SharedMap<WorkloadRef, usize>,
    /// The major versions of PostgreSQL that Zalando's postgres-operator offers; none if unknown.
    pub zalando_versions: BTreeSet<String>,
    /// PersistentVolumeClaims by namespace, then by name.
    pub claims: SharedMap<String, SharedMap<String, Claim>>,
    /// The pod selectors of PodDisruptionBudgets, by namespace and name; none if these are not known.
    pub budgets: Option<SharedMap<String, SharedMap<String, PodSelector>>>,
    /// InferencePools by namespace, then by name.
    pub pools: SharedMap<String, SharedMap<String, InferencePool>>,
    /// The names of Services, by namespace.
    pub services: SharedMap<String, Arc<BTreeSet<String>>>,
    /// The APIs that are served.
    pub apis: Apis,
}

impl Facts {
    /// Returns the autoscalers of a workload.
    #[must_use]
    pub fn autoscalers_of(&self, workload: &WorkloadRef) -> &[Autoscaler] {
        self.autoscalers.get(workload).map_or(&[], Vec::as_slice)
    }

    /// Returns the workloads with an autoscaler of Tidegate whose maximum is above a number of replicas.
    pub fn scaled_above(&self, replicas: i64) -> impl Iterator<Item = &WorkloadRef> {
        let is_above = move |found: &Autoscaler| found.ours && found.max > replicas;
        self.autoscalers.iter().filter(move |(_, found)| found.iter().any(is_above)).map(|(workload, _)| workload)
    }

    /// Returns whether all workloads of the namespace are model servers.
    #[must_use]
    pub fn is_for_model_servers(&self, namespace: &str) -> bool {
        self.namespaces.get(namespace).is_some_and(Namespace::is_for_model_servers)
    }

    /// Returns a claim of this name.
    #[must_use]
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&Claim> {
        self.claims.get(namespace)?.get(name)
    }

    /// Returns whether a PodDisruptionBudget selects pods with these labels; none if budgets are not known.
    #[must_use]
    pub fn has_budget(&self, namespace: &str, labels: &Value) -> Option<bool> {
        let inside = self.budgets.as_ref()?.get(namespace);
        Some(inside.is_some_and(|inside| inside.values().any(|selector| selector.selects(labels))))
    }

    /// Returns the names of the PodDisruptionBudgets that select pods with these labels, sorted.
    pub fn budgets_for<'f>(&'f self, namespace: &str, labels: &'f Value) -> impl Iterator<Item = &'f str> + use<'f> {
        let inside = self.budgets.as_ref().and_then(|budgets| budgets.get(namespace)).into_iter().flatten();
        let names = inside.filter(|(_, selector)| selector.selects(labels)).map(|(name, _)| name.as_str());
        names.collect::<BTreeSet<_>>().into_iter()
    }

    /// Returns the InferencePools that select pods with these labels, by name.
    #[must_use]
    pub fn pools_for(&self, namespace: &str, labels: &Value) -> BTreeMap<&str, &InferencePool> {
        let inside = self.pools.get(namespace).into_iter().flatten();
        let selecting = inside.filter(|(_, pool)| pool.selector.selects(labels));
        selecting.map(|(name, pool)| (name.as_str(), pool)).collect()
    }

    /// Returns the names of the Services of a namespace.
    pub fn services_in(&self, namespace: &str) -> impl Iterator<Item = &str> {
        self.services.get(namespace).into_iter().flat_map(|inside| inside.iter()).map(String::as_str)
    }

    /// Returns a provider's object of this name.
    #[must_use]
    pub fn database(&self, provider: DatabaseProvider, namespace: &str, name: &str) -> Option<&Database> {
        self.databases.get(namespace)?.get(&(provider, name.to_owned()))
    }

    /// Returns the databases that Tidegate created for a workload.
    pub fn databases_of(&self, workload: &WorkloadRef) -> impl Iterator<Item = DatabaseOf<'_>> {
        let inside = self.databases.get(&workload.namespace).into_iter().flat_map(|inside| inside.iter());
        let found = inside.filter(|(_, found)| found.is_for(workload));
        found.map(|((provider, name), _)| DatabaseOf { provider: *provider, name })
    }

    /// Returns the number of databases that Tidegate created in a namespace.
    #[must_use]
    pub fn databases_made_in(&self, namespace: &str) -> usize {
        let inside = self.databases.get(namespace).into_iter().flat_map(|inside| inside.iter());
        inside.filter(|(_, found)| found.made_for.is_some()).count()
    }

    /// Returns the number of other workloads in the namespace that wait for a database within the maximum.
    #[must_use]
    pub fn awaiting_beside(&self, workload: &WorkloadRef) -> usize {
        let made = self.databases_made_in(&workload.namespace);
        let beside =
            self.awaiting.iter().filter(|(other, _)| other.namespace == workload.namespace && *other != workload);
        beside.filter(|(other, most)| made < **most && self.databases_of(other).next().is_none()).count()
    }

    /// Returns the workloads, existing or deleted, for which Tidegate created databases.
    pub fn with_database(&self) -> impl Iterator<Item = WorkloadRef> {
        let all =
            self.databases.iter().flat_map(|(namespace, inside)| inside.values().map(move |found| (namespace, found)));
        all.filter_map(|(namespace, found)| {
            let (kind, name) = found.workload()?;
            Some(WorkloadRef { namespace: namespace.clone(), kind: kind.to_owned(), name: name.to_owned() })
        })
    }

    /// Records that an autoscaler no longer scales a workload.
    pub fn forget_autoscaler(&mut self, workload: &WorkloadRef, kind: &str, name: &str) {
        let Some(known) = self.autoscalers.get_mut(workload) else { return };
        known.retain(|autoscaler| (&*autoscaler.kind, &*autoscaler.name) != (kind, name));
        if known.is_empty() {
            self.autoscalers.remove(workload);
        }
    }

    /// Records that an autoscaler that KEDA created no longer scales a workload.
    pub fn forget_derived_autoscaler(&mut self, workload: &WorkloadRef, name: &str) {
        let Some(known) = self.derived_autoscalers.get_mut(workload) else { return };
        known.remove(name);
        if known.is_empty() {
            self.derived_autoscalers.remove(workload);
        }
    }

    /// Returns the workload that uses the pod template of this one, and scales it instead.
    #[must_use]
    pub fn template_user(&self, workload: &WorkloadRef) -> Option<&WorkloadRef> {
        self.template_users.get(workload)?.first()
    }

    /// Records whose pod template a workload uses; none if it has its own, or is deleted. Returns the workloads for
    /// which this is a change.
    pub fn note_template_user(&mut self, user: &WorkloadRef, source: Option<&WorkloadRef>) -> Vec<WorkloadRef> {
        let is_former =
            |(known, users): &(&WorkloadRef, &BTreeSet<WorkloadRef>)| Some(*known) != source && users.contains(user);
        let former = self.template_users.iter().filter(is_former).map(|(known, _)| known.clone());
        let mut changed: Vec<WorkloadRef> = former.collect();
        for known in &changed {
            let users = self.template_users.entry(known.clone()).or_default();
            users.remove(user);
            if users.is_empty() {
                self.template_users.remove(known);
            }
        }
        if let Some(source) = source
            && self.template_users.entry(source.clone()).or_default().insert(user.clone())
        {
            changed.push(source.clone());
        }
        changed
    }

    /// Returns whether the namespace is being deleted.
    #[must_use]
    pub fn is_terminating(&self, namespace: &str) -> bool {
        self.namespaces.get(namespace).is_some_and(|found| found.terminating)
    }
}

/// The properties of a namespace that policies use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it is being deleted.
    pub terminating: bool,
}

impl Namespace {
    /// Returns whether all workloads in it are model servers.
    #[must_use]
    pub fn is_for_model_servers(&self) -> bool {
        let (label, all) = MODEL_SERVERS_LABEL;
        self.labels.get(label).is_some_and(|value| value == all)
    }
}

/// The users of the garbage collector and the namespace controller, if kube-controller-manager runs with one service
/// account per controller.
///
/// <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#controller-roles>
const GARBAGE_COLLECTORS: [&str; 2] = [
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "system:serviceaccount:kube-system:namespace-controller",
];

/// The user of a request; empty if there is no request.
#[derive(Clone, Copy, Debug, Default)]
pub struct User<'a> {
    /// The user's name.
    pub name: &'a str,
    /// The user's groups.
    pub groups: &'a [Cow<'a, str>],
}

impl<'a> User<'a> {
    /// Returns a user without groups.
    #[must_use]
    pub fn named(name: &'a str) -> Self {
        Self { name, groups: &[] }
    }

    /// Returns whether this is a Kubernetes controller that deletes dependents of deleted objects. Its requests are
    /// never denied.
    #[must_use]
    pub fn is_garbage_collector(&self) -> bool {
        GARBAGE_COLLECTORS.contains(&self.name)
    }
}

/// The kind of KEDA's autoscalers.
pub const SCALED_OBJECT: &str = "ScaledObject";

/// An object that sets the replicas of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Autoscaler {
    /// Its kind, such as `HorizontalPodAutoscaler`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The minimum number of replicas.
    pub min: i64,
    /// The maximum number of replicas.
    pub max: i64,
    /// Whether Tidegate created it for this workload.
    pub ours: bool,
    /// Its metrics.
    pub metrics: Vec<Metric>,
    /// For a ScaledObject, the number of replicas while a trigger fails, whatever the load is.
    pub static_fallback: Option<i64>,
}

impl Autoscaler {
    /// Reads a HorizontalPodAutoscaler; `ours` if Tidegate created it.
    #[must_use]
    pub fn from_hpa(hpa: &Value, ours: bool) -> Self {
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        let spec = &hpa["spec"];
        Self {
            kind: text(&hpa["kind"]),
            name: text(&hpa["metadata"]["name"]),
            min: spec["minReplicas"].as_i64().unwrap_or(1),
            max: spec["maxReplicas"].as_i64().unwrap_or(i64::MAX),
            ours,
            metrics: metrics_of(spec),
            static_fallback: None,
        }
    }

    /// Returns whether KEDA created a HorizontalPodAutoscaler for a ScaledObject, which is then the relevant
    /// autoscaler.
    #[must_use]
    pub fn is_derived(object: &Value) -> bool {
        let owners = object["metadata"]["ownerReferences"].as_array().map_or(&[][..], Vec::as_slice);
        let is_keda =
            |owner: &Value| owner["apiVersion"].as_str().is_some_and(|version| version.starts_with("keda.sh/"));
        owners.iter().any(|owner| owner["kind"] == SCALED_OBJECT && is_keda(owner))
    }

    /// Returns the workload that an autoscaler scales, whatever its API version; none if its kind cannot be a model
    /// server. KEDA's default is a Deployment.
    #[must_use]
    pub fn target(object: &Value) -> Option<WorkloadRef> {
        let target = &object["spec"]["scaleTargetRef"];
        let default = |word: &'static str| (object["kind"] == SCALED_OBJECT).then_some(word);
        let version = target["apiVersion"].as_str().or_else(|| default("apps/v1"))?;
        let kind = Kind::find(version, target["kind"].as_str().or_else(|| default("Deployment"))?)?;
        Some(WorkloadRef {
            namespace: object["metadata"]["namespace"].as_str()?.to_owned(),
            kind: kind.kind.to_owned(),
            name: target["name"].as_str()?.to_owned(),
        })
    }

    /// Reads a ScaledObject of KEDA; `ours` if Tidegate created it.
    #[must_use]
    pub fn from_scaled_object(object: &Value, ours: bool) -> Self {
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        let spec = &object["spec"];
        Self {
            kind: text(&object["kind"]),
            name: text(&object["metadata"]["name"]),
            min: spec["minReplicaCount"].as_i64().unwrap_or(0),
            max: spec["maxReplicaCount"].as_i64().unwrap_or(100),
            ours,
            metrics: items(&spec["triggers"]).map(Metric::of_trigger).collect(),
            static_fallback: static_fallback(&spec["fallback"]),
        }
    }

    /// Returns the field with its metrics, and its fields for the minimum and maximum number of replicas.
    #[must_use]
    pub fn fields(&self) -> (&'static str, &'static str, &'static str) {
        match &*self.kind {
            SCALED_OBJECT => ("spec.triggers", "minReplicaCount", "maxReplicaCount"),
            _ => ("spec.metrics", "minReplicas", "maxReplicas"),
        }
    }

    /// Returns its kind and name, such as `HorizontalPodAutoscaler/api`.
    #[must_use]
    pub fn reference(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }
}

/// Returns the replicas of a ScaledObject's fallback, if they do not depend on those that are running.
///
/// <https://keda.sh/docs/latest/reference/scaledobject-spec/#fallback>
fn static_fallback(fallback: &Value) -> Option<i64> {
    let is_static = fallback["behavior"].as_str().is_none_or(|behavior| behavior.is_empty() || behavior == "static");
    fallback["replicas"].as_i64().filter(|_| is_static)
}

/// Returns the metrics of a HorizontalPodAutoscaler. The default is CPU, as in the API server, also for
/// `autoscaling/v1`.
fn metrics_of(spec: &Value) -> Vec<Metric> {
    let named: Vec<Metric> = spec["metrics"].as_array().into_iter().flatten().map(Metric::read).collect();
    if !named.is_empty() {
        return named;
    }
    let text = |text: &str| text.to_owned();
    vec![Metric { kind: text("Resource"), name: text("cpu"), container: None, target: text("Utilization") }]
}

/// The properties of an autoscaler's metric that rules use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metric {
    /// Its type, such as `Resource`.
    pub kind: String,
    /// The name of the resource or metric.
    pub name: String,
    /// The container, for `ContainerResource`.
    pub container: Option<String>,
    /// `Utilization`, `Value` or `AverageValue`.
    pub target: String,
}

impl Metric {
    /// Reads a metric of `autoscaling/v2`.
    #[must_use]
    pub fn read(metric: &Value) -> Self {
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        let kind = text(&metric["type"]);
        let mut field = kind.clone();
        if let Some(first) = field.get_mut(..1) {
            first.make_ascii_lowercase();
        }
        let source = &metric[&field];
        let name = if source["name"].is_string() { &source["name"] } else { &source["metric"]["name"] };
        Self {
            name: text(name),
            container: source["container"].as_str().map(str::to_owned),
            target: text(&source["target"]["type"]),
            kind,
        }
    }

    /// Reads a trigger of a ScaledObject. Those on CPU and memory become metrics of the HorizontalPodAutoscaler that
    /// KEDA creates; another one has the type of the trigger.
    ///
    /// <https://keda.sh/docs/latest/scalers/cpu/>
    #[must_use]
    pub fn of_trigger(trigger: &Value) -> Self {
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        let kind = text(&trigger["type"]);
        if !matches!(&*kind, "cpu" | "memory") {
            return Self { kind, ..Self::default() };
        }
        let container = trigger["metadata"]["containerName"].as_str().filter(|name| !name.is_empty());
        let source = if container.is_some() { "ContainerResource" } else { "Resource" };
        let target = text(&trigger["metricType"]);
        Self { kind: source.to_owned(), name: kind, container: container.map(str::to_owned), target }
    }

    /// Returns whether it compares usage with a request that is missing, and that a container could have. For a metric
    /// of all containers, each needs a request, unless the pod has resources of its own: then the pod's request counts,
    /// which is the sum of those of the containers if it is not set.
    ///
    /// `calculateRequests` in
    /// <https://github.com/kubernetes/kubernetes/blob/v1.36.3/pkg/controller/podautoscaler/replica_calculator.go>
    #[must_use]
    pub fn lacks_request_of(&self, workload: &Workload, container: &Container) -> bool {
        let name = &*self.name;
        let is_measured = match &*self.kind {
            "Resource" if workload.has_pod_resources() => {
                !workload.pod_requests(name) && !workload.all_containers().any(|container| container.requests(name))
            }
            "Resource" => true,
            "ContainerResource" => self.container.as_deref() == Some(container.name()),
            _ => false,
        };
        is_measured && self.target == "Utilization" && !container.requests(name)
    }

    /// Returns whether it measures the usage of a resource, by all containers or one.
    #[must_use]
    pub fn is_of_resource(&self, resource: &str) -> bool {
        matches!(&*self.kind, "Resource" | "ContainerResource") && self.name == resource
    }
}

/// The properties of a PersistentVolumeClaim that rules use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Its access modes, such as `ReadWriteOnce`.
    pub access_modes: Vec<String>,
}

impl Claim {
    /// Reads a claim.
    #[must_use]
    pub fn read(object: &Value) -> Self {
        let modes = object["spec"]["accessModes"].as_array().into_iter().flatten();
        Self { access_modes: modes.filter_map(Value::as_str).map(str::to_owned).collect() }
    }
}

/// The group, version and kind of InferencePools.
pub const INFERENCE_POOL: (&str, &str, &str) = ("inference.networking.k8s.io", "v1", "InferencePool");

/// The properties of an InferencePool, which routes requests to model servers, that rules use.
///
/// <https://gateway-api-inference-extension.sigs.k8s.io/api-types/inferencepool/>
#[derive(Clone, Debug, Default)]
pub struct InferencePool {
    /// The selector of its pods.
    pub selector: PodSelector,
    /// The ports of the pods to which requests are sent.
    pub ports: Vec<u16>,
}

impl InferencePool {
    /// Reads an InferencePool.
    #[must_use]
    pub fn read(object: &Value) -> Self {
        let ports =
            items(&object["spec"]["targetPorts"]).filter_map(|port| u16::try_from(port["number"].as_u64()?).ok());
        Self { selector: PodSelector::read(object), ports: ports.collect() }
    }
}

/// The selector of an object's pods; without one, no pods.
#[derive(Clone, Debug, Default)]
pub struct PodSelector(Option<Selector>);

impl PodSelector {
    /// Reads `spec.selector` of an object. An invalid selector selects nothing.
    #[must_use]
    pub fn read(object: &Value) -> Self {
        let selector = meta::LabelSelector::deserialize(&object["spec"]["selector"]).ok();
        Self(selector.and_then(|selector| selector.try_into().ok()))
    }

    /// Returns whether it selects pods with these labels.
    #[must_use]
    pub fn selects(&self, labels: &Value) -> bool {
        let labels: BTreeMap<String, String> = BTreeMap::deserialize(labels).unwrap_or_default();
        self.0.as_ref().is_some_and(|selector| selector.matches(&labels))
    }
}

/// The database of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatabaseOf<'f> {
    /// Its provider.
    pub provider: DatabaseProvider,
    /// The name of its object.
    pub name: &'f str,
}

/// A database object of a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Database {
    /// The workload for which Tidegate created it; none if Tidegate did not create it.
    pub made_for: Option<String>,
    /// Whether it has a connection pooler.
    pub is_pooled: bool,
    /// The number of connections that its server accepts; none if its object does not set it.
    pub max_connections: Option<i64>,
}

impl Database {
    /// Returns whether Tidegate created it for this workload.
    #[must_use]
    pub fn is_for(&self, workload: &WorkloadRef) -> bool {
        self.workload() == Some((&workload.kind, &workload.name))
    }

    /// Returns the kind and name of the workload for which Tidegate created it.
    #[must_use]
    pub fn workload(&self) -> Option<(&str, &str)> {
        self.made_for.as_deref()?.split_once('/')
    }
}

/// The APIs that the cluster serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an API of its own")]
pub struct Apis {
    /// `acid.zalan.do/v1`, kind `postgresql`.
    pub zalando: bool,
    /// `postgresql.cnpg.io/v1`, kind `Cluster`.
    pub cloudnative_pg: bool,
    /// The `sleep` handler of a container's `preStop`, since Kubernetes 1.30. An older API server drops the field, and
    /// then rejects the empty handler.
    ///
    /// <https://kubernetes.io/docs/concepts/containers/container-lifecycle-hooks/>
    pub pre_stop_sleep: bool,
    /// A version of `custom.metrics.k8s.io`: metrics of pods and other objects.
    pub custom_metrics: bool,
    /// A version of `external.metrics.k8s.io`: metrics from outside the cluster.
    pub external_metrics: bool,
    /// `keda.sh/v1alpha1`, kind `ScaledObject`.
    pub keda: bool,
    /// Zero as `minReplicas` of a HorizontalPodAutoscaler, enabled by default since 1.37.
    ///
    /// <https://kubernetes.io/docs/reference/command-line-tools-reference/feature-gates/>
    pub hpa_scale_to_zero: bool,
}

impl Apis {
    /// Returns the built-in APIs of an API server of this version; some distributions write the minor version as `30+`.
    #[must_use]
    pub fn parse(major: &str, minor: &str) -> Self {
        let minor: u32 = minor.trim_end_matches('+').parse().unwrap_or_default();
        let is_from = |first: u32| major != "1" || minor >= first;
        Self { pre_stop_sleep: is_from(30), hpa_scale_to_zero: is_from(37), ..Self::default() }
    }

    /// Returns the APIs of a current cluster with all operators.
    #[must_use]
    pub fn all() -> Self {
        Self {
            zalando: true,
            cloudnative_pg: true,
            pre_stop_sleep: true,
            custom_metrics: true,
            external_metrics: true,
            keda: true,
            hpa_scale_to_zero: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::with_container;

    #[test]
    fn reads_metrics_of_every_type() {
        let of = |metric: Value| Metric::read(&metric);
        let cpu = of(json!({"type": "ContainerResource", "containerResource":
            {"name": "cpu", "container": "api", "target": {"type": "Utilization", "averageUtilization": 50}}}));
        assert_eq!((cpu.container.as_deref(), &*cpu.target), (Some("api"), "Utilization"));
        assert!(cpu.is_of_resource("cpu") && !cpu.is_of_resource("memory"));
        let queue =
            of(json!({"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "Value"}}}));
        assert_eq!((&*queue.name, &*queue.target), ("queue", "Value"));
        assert_eq!(of(json!({"type": ""})), Metric::default());
        assert_eq!(of(json!("cpu")), Metric::default());
    }

    #[test]
    fn a_request_of_the_pod_counts_for_metrics_of_all_containers() {
        let lacks = |pod: Value, container: Value, metric: &Value| {
            let mut object = with_container(&json!({"resources": container}));
            object["spec"]["template"]["spec"]["resources"] = pod;
            let workload = Workload::view(&object).unwrap();
            let metric = Metric::read(metric);
            workload.containers().any(|container| metric.lacks_request_of(&workload, &container))
        };
        let target = json!({"type": "Utilization", "averageUtilization": 50});
        let of_all = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        let resource = json!({"name": "cpu", "container": "api", "target": target});
        let of_one = json!({"type": "ContainerResource", "containerResource": resource});
        let cpu = json!({"requests": {"cpu": "1"}});
        assert!(!lacks(cpu.clone(), json!(null), &of_all) && lacks(cpu.clone(), json!(null), &of_one));
        assert!(!lacks(json!({"limits": {"cpu": "1"}}), json!(null), &of_all), "a limit is a request");
        assert!(!lacks(json!({"limits": {"memory": "1Gi"}}), cpu.clone(), &of_all));
        assert!(lacks(json!({"limits": {"memory": "1Gi"}}), json!(null), &of_all));
        assert!(!lacks(json!(null), cpu, &of_one) && lacks(json!(null), json!(null), &of_all));
    }

    #[test]
    fn scaled_objects_have_kedas_defaults() {
        let object = json!({"kind": "ScaledObject", "metadata": {"name": "api"}, "spec": {"minReplicaCount": 2}});
        let found = Autoscaler::from_scaled_object(&object, false);
        assert_eq!((&*found.reference(), found.min, found.max), ("ScaledObject/api", 2, 100));
        assert_eq!(Autoscaler::from_scaled_object(&json!({"spec": {}}), false).min, 0);
    }

    #[test]
    fn reads_the_triggers_and_the_fallback_of_scaled_objects() {
        let read = |spec: Value| Autoscaler::from_scaled_object(&json!({"kind": "ScaledObject", "spec": spec}), false);
        let on_cpu = json!({"type": "cpu", "metricType": "Utilization", "metadata": {"value": "60"}});
        let of_one = json!({"type": "memory", "metricType": "AverageValue",
            "metadata": {"value": "1Gi", "containerName": "api"}});
        let found = read(json!({"triggers": [{"type": "prometheus"}, on_cpu, of_one]})).metrics;
        let parts =
            |metric: &Metric| format!("{} {} {:?} {}", metric.kind, metric.name, metric.container, metric.target);
        assert_eq!(
            found.iter().map(parts).collect::<Vec<_>>(),
            [
                "prometheus  None ",
                "Resource cpu None Utilization",
                "ContainerResource memory Some(\"api\") AverageValue"
            ]
        );
        let fallback = |fallback: Value| read(json!({"fallback": fallback})).static_fallback;
        assert_eq!(fallback(json!(null)), None);
        assert_eq!(fallback(json!({"failureThreshold": 3, "replicas": 2})), Some(2));
        assert_eq!(fallback(json!({"replicas": 2, "behavior": "static"})), Some(2));
        assert_eq!(fallback(json!({"replicas": 2, "behavior": "currentReplicasIfHigher"})), None);
    }

    #[test]
    fn recognises_autoscalers_that_keda_created() {
        let owned = |kind: &str, version: &str| json!({"metadata": {"ownerReferences": [{"kind": kind, "apiVersion": version}]}});
        let is_derived = |object: Value| Autoscaler::is_derived(&object);
        assert!(is_derived(owned("ScaledObject", "keda.sh/v1alpha1")));
        assert!(!is_derived(owned("ScaledObject", "example.com/v1")) && !is_derived(owned("Deployment", "apps/v1")));
        assert!(!is_derived(json!({"metadata": {"name": "keda-hpa-api"}})), "the name is not relevant");
    }

    #[test]
    fn removes_autoscalers_by_kind_and_name() {
        let workload = WorkloadRef { namespace: "ml".into(), kind: "Deployment".into(), name: "api".into() };
        let hpa = Autoscaler::from_hpa(&json!({"kind": "HorizontalPodAutoscaler", "metadata": {"name": "api"}}), false);
        let object = json!({"kind": "ScaledObject", "metadata": {"name": "api"}});
        let both = vec![hpa, Autoscaler::from_scaled_object(&object, false)];
        let mut facts = Facts { autoscalers: [(workload.clone(), both)].into(), ..Facts::default() };
        facts.forget_autoscaler(&workload, "HorizontalPodAutoscaler", "api");
        assert_eq!(facts.autoscalers_of(&workload)[0].kind, "ScaledObject");
        facts.forget_autoscaler(&workload, "ScaledObject", "api");
        assert!(facts.autoscalers.is_empty());
    }

    #[test]
    fn apis_depend_on_the_version() {
        let of = |minor: &str| {
            let apis = Apis::parse("1", minor);
            (apis.pre_stop_sleep, apis.hpa_scale_to_zero)
        };
        assert_eq!(
            [of("29"), of("30+"), of("36"), of("37")],
            [(false, false), (true, false), (true, false), (true, true)]
        );
    }

    #[test]
    fn a_budget_without_a_selector_selects_no_pods() {
        let labels = json!({"app": "api"});
        let selects = |spec: Value| PodSelector::read(&json!({"spec": spec})).selects(&labels);
        assert!(selects(json!({"selector": {"matchLabels": {"app": "api"}}})));
        assert!(selects(json!({"selector": {}})), "an empty one selects all pods");
        assert!(!selects(json!({"selector": {"matchLabels": {"app": "other"}}})));
        assert!(!selects(json!({})) && !selects(json!({"selector": "app=api"})));
        assert!(!PodSelector::default().selects(&Value::Null));
    }
}
