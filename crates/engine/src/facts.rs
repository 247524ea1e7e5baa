//! What a decision may know of the cluster. Shells gather it from watches or files; rules only read it.

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
use crate::workload::WorkloadRef;

/// The databases of a namespace, by provider and name.
pub type Databases = BTreeMap<(DatabaseProvider, String), Database>;

/// All that is known of the cluster at the time of a decision. It is cheap to clone, and so is to change it while somebody
/// holds a clone: whoever decides for long works on the facts as they were when it began, and holds up nobody who notes new
/// ones.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Namespaces by name.
    pub namespaces: SharedMap<String, Namespace>,
    /// Autoscalers by the workload that they scale; those among them that others made to do their work do not count.
    pub autoscalers: SharedMap<WorkloadRef, Vec<Autoscaler>>,
    /// The names of the HorizontalPodAutoscalers that KEDA made for its ScaledObjects, by the workload that they scale.
    pub derived_autoscalers: SharedMap<WorkloadRef, BTreeSet<String>>,
    /// Databases by namespace, then by provider and name.
    pub databases: SharedMap<String, Arc<Databases>>,
    /// By workload: the databases that its pods, of which there are some, are led to, by provider and name.
    pub used_databases: SharedMap<WorkloadRef, Vec<(DatabaseProvider, String)>>,
    /// The workloads whose pods are led to a database that is not there yet, each with the most that its namespace may have.
    pub awaiting: SharedMap<WorkloadRef, usize>,
    /// The major versions of PostgreSQL that Zalando's postgres-operator offers; none where that is not known.
    pub zalando_versions: BTreeSet<String>,
    /// PersistentVolumeClaims by namespace, then by name.
    pub claims: SharedMap<String, SharedMap<String, Claim>>,
    /// Which pods PodDisruptionBudgets are for, by namespace; none where nobody looked for any.
    pub budgets: Option<SharedMap<String, SharedMap<String, PodSelector>>>,
    /// The names of Services, by namespace.
    pub services: SharedMap<String, Arc<BTreeSet<String>>>,
    /// Which APIs are served.
    pub apis: Apis,
}

impl Facts {
    /// Returns the autoscalers of a workload.
    #[must_use]
    pub fn autoscalers_of(&self, workload: &WorkloadRef) -> &[Autoscaler] {
        self.autoscalers.get(workload).map_or(&[], Vec::as_slice)
    }

    /// Returns the workloads with an autoscaler of Tidegate's that may make more replicas than these.
    pub fn scaled_above(&self, replicas: i64) -> impl Iterator<Item = &WorkloadRef> {
        let is_above = move |found: &Autoscaler| found.ours && found.max > replicas;
        self.autoscalers.iter().filter(move |(_, found)| found.iter().any(is_above)).map(|(workload, _)| workload)
    }

    /// Tells whether all workloads of the namespace are model servers.
    #[must_use]
    pub fn is_for_model_servers(&self, namespace: &str) -> bool {
        self.namespaces.get(namespace).is_some_and(Namespace::is_for_model_servers)
    }

    /// Returns a claim of this name.
    #[must_use]
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&Claim> {
        self.claims.get(namespace)?.get(name)
    }

    /// Tells whether a PodDisruptionBudget is for pods with these labels; none where nobody looked for any.
    #[must_use]
    pub fn has_budget(&self, namespace: &str, labels: &Value) -> Option<bool> {
        let inside = self.budgets.as_ref()?.get(namespace);
        Some(inside.is_some_and(|inside| inside.values().any(|selector| selector.selects(labels))))
    }

    /// Returns the names of the PodDisruptionBudgets that are for pods with these labels, in their order.
    pub fn budgets_for<'f>(&'f self, namespace: &str, labels: &'f Value) -> impl Iterator<Item = &'f str> + use<'f> {
        let inside = self.budgets.as_ref().and_then(|budgets| budgets.get(namespace)).into_iter().flatten();
        let names = inside.filter(|(_, selector)| selector.selects(labels)).map(|(name, _)| name.as_str());
        names.collect::<BTreeSet<_>>().into_iter()
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

    /// Returns the databases that Tidegate made for a workload.
    pub fn databases_of(&self, workload: &WorkloadRef) -> impl Iterator<Item = DatabaseOf<'_>> {
        let inside = self.databases.get(&workload.namespace).into_iter().flat_map(|inside| inside.iter());
        let found = inside.filter(|(_, found)| found.is_for(workload));
        found.map(|((provider, name), _)| DatabaseOf { provider: *provider, name })
    }

    /// Returns how many databases Tidegate has made in a namespace.
    #[must_use]
    pub fn databases_made_in(&self, namespace: &str) -> usize {
        let inside = self.databases.get(namespace).into_iter().flat_map(|inside| inside.iter());
        inside.filter(|(_, found)| found.made_for.is_some()).count()
    }

    /// Returns how many others of a workload's namespace are led to databases for which there would be a place.
    #[must_use]
    pub fn awaiting_beside(&self, workload: &WorkloadRef) -> usize {
        let made = self.databases_made_in(&workload.namespace);
        let beside =
            self.awaiting.iter().filter(|(other, _)| other.namespace == workload.namespace && *other != workload);
        beside.filter(|(other, most)| made < **most && self.databases_of(other).next().is_none()).count()
    }

    /// Returns the workloads, there or not, that Tidegate made databases for.
    pub fn with_database(&self) -> impl Iterator<Item = WorkloadRef> {
        let all =
            self.databases.iter().flat_map(|(namespace, inside)| inside.values().map(move |found| (namespace, found)));
        all.filter_map(|(namespace, found)| {
            let (kind, name) = found.workload()?;
            Some(WorkloadRef { namespace: namespace.clone(), kind: kind.to_owned(), name: name.to_owned() })
        })
    }

    /// Notes that an autoscaler no longer scales a workload.
    pub fn forget_autoscaler(&mut self, workload: &WorkloadRef, kind: &str, name: &str) {
        let Some(known) = self.autoscalers.get_mut(workload) else { return };
        known.retain(|autoscaler| (&*autoscaler.kind, &*autoscaler.name) != (kind, name));
        if known.is_empty() {
            self.autoscalers.remove(workload);
        }
    }

    /// Notes that an autoscaler that KEDA made no longer scales a workload.
    pub fn forget_derived_autoscaler(&mut self, workload: &WorkloadRef, name: &str) {
        let Some(known) = self.derived_autoscalers.get_mut(workload) else { return };
        known.remove(name);
        if known.is_empty() {
            self.derived_autoscalers.remove(workload);
        }
    }

    /// Tells whether everything in the namespace is on its way out.
    #[must_use]
    pub fn is_terminating(&self, namespace: &str) -> bool {
        self.namespaces.get(namespace).is_some_and(|found| found.terminating)
    }
}

/// A namespace, as far as policies care.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it is being deleted.
    pub terminating: bool,
}

impl Namespace {
    /// Tells whether all workloads in it are model servers.
    #[must_use]
    pub fn is_for_model_servers(&self) -> bool {
        let (label, all) = MODEL_SERVERS_LABEL;
        self.labels.get(label).is_some_and(|value| value == all)
    }
}

/// The users that the garbage collector and the namespace controller are, as kube-controller-manager runs them with a service
/// account for each controller.
///
/// <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#controller-roles>
const GARBAGE_COLLECTORS: [&str; 2] = [
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "system:serviceaccount:kube-system:namespace-controller",
];

/// Who asks, as the API server knows them; nobody where a workload is only looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct User<'a> {
    /// Their name.
    pub name: &'a str,
    /// Their groups.
    pub groups: &'a [Cow<'a, str>],
}

impl<'a> User<'a> {
    /// Returns a user who is in no group.
    #[must_use]
    pub fn named(name: &'a str) -> Self {
        Self { name, groups: &[] }
    }

    /// Returns whether this is a controller of Kubernetes' own that deletes what other deletions leave behind. It is never
    /// refused anything.
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
    /// The least number of replicas that it keeps.
    pub min: i64,
    /// The most replicas that it makes.
    pub max: i64,
    /// Whether Tidegate made it for this workload.
    pub ours: bool,
    /// What it scales on.
    pub metrics: Vec<Metric>,
}

impl Autoscaler {
    /// Reads a HorizontalPodAutoscaler; `ours` where Tidegate made it.
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
        }
    }

    /// Tells whether KEDA made a HorizontalPodAutoscaler for one of its ScaledObjects, which is the autoscaler that counts.
    #[must_use]
    pub fn is_derived(object: &Value) -> bool {
        let owners = object["metadata"]["ownerReferences"].as_array().map_or(&[][..], Vec::as_slice);
        let is_keda =
            |owner: &Value| owner["apiVersion"].as_str().is_some_and(|version| version.starts_with("keda.sh/"));
        owners.iter().any(|owner| owner["kind"] == SCALED_OBJECT && is_keda(owner))
    }

    /// Returns the workload that an autoscaler scales, whatever version of its API it names; none of a kind that cannot be a model
    /// server. KEDA means a Deployment where nothing is said.
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

    /// Reads a ScaledObject of KEDA; `ours` where Tidegate made it. What it measures is KEDA's business.
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
            metrics: Vec::new(),
        }
    }

    /// Returns it as people write it, such as `HorizontalPodAutoscaler/api`.
    #[must_use]
    pub fn reference(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }
}

/// Returns the metrics of a HorizontalPodAutoscaler; CPU where it names none, as the API server has it, or is of
/// `autoscaling/v1`.
fn metrics_of(spec: &Value) -> Vec<Metric> {
    let named: Vec<Metric> = spec["metrics"].as_array().into_iter().flatten().map(Metric::read).collect();
    if !named.is_empty() {
        return named;
    }
    let text = |text: &str| text.to_owned();
    vec![Metric { kind: text("Resource"), name: text("cpu"), container: None, target: text("Utilization") }]
}

/// One metric of an autoscaler, as far as rules care.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metric {
    /// Its type, such as `Resource`.
    pub kind: String,
    /// The resource or metric that is measured.
    pub name: String,
    /// The container that it is of, for `ContainerResource`.
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

    /// Tells whether the use of a container is compared with what it requests.
    #[must_use]
    pub fn needs_request_of(&self, container: &str) -> bool {
        let counts = match &*self.kind {
            "Resource" => true,
            "ContainerResource" => self.container.as_deref() == Some(container),
            _ => false,
        };
        counts && self.target == "Utilization"
    }

    /// Tells whether it is the use of a resource by all containers or one of them.
    #[must_use]
    pub fn is_of_resource(&self, resource: &str) -> bool {
        matches!(&*self.kind, "Resource" | "ContainerResource") && self.name == resource
    }
}

/// A PersistentVolumeClaim, as far as rules care.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// How it may be mounted, such as `ReadWriteOnce`.
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

/// Which pods something is for; without a selector, none.
#[derive(Clone, Debug, Default)]
pub struct PodSelector(Option<Selector>);

impl PodSelector {
    /// Reads `spec.selector` of an object. What makes no sense selects nothing.
    #[must_use]
    pub fn read(object: &Value) -> Self {
        let selector = meta::LabelSelector::deserialize(&object["spec"]["selector"]).ok();
        Self(selector.and_then(|selector| selector.try_into().ok()))
    }

    /// Tells whether it is for pods with these labels.
    #[must_use]
    pub fn selects(&self, labels: &Value) -> bool {
        let labels: BTreeMap<String, String> = BTreeMap::deserialize(labels).unwrap_or_default();
        self.0.as_ref().is_some_and(|selector| selector.matches(&labels))
    }
}

/// Names the database of a workload.
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
    /// The workload that Tidegate made it for; none where it is somebody else's.
    pub made_for: Option<String>,
    /// Whether a pooler of connections stands before it.
    pub is_pooled: bool,
}

impl Database {
    /// Tells whether Tidegate made it for this workload.
    #[must_use]
    pub fn is_for(&self, workload: &WorkloadRef) -> bool {
        self.workload() == Some((&workload.kind, &workload.name))
    }

    /// Returns the kind and name of the workload that Tidegate made it for.
    #[must_use]
    pub fn workload(&self) -> Option<(&str, &str)> {
        self.made_for.as_deref()?.split_once('/')
    }
}

/// Which APIs the cluster serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an API of its own")]
pub struct Apis {
    /// `acid.zalan.do/v1`, kind `postgresql`.
    pub zalando: bool,
    /// `postgresql.cnpg.io/v1`, kind `Cluster`.
    pub cloudnative_pg: bool,
    /// The `sleep` handler of a container's `preStop`, which Kubernetes has since 1.30. An older one drops the field, and
    /// refuses the handler without it.
    ///
    /// <https://kubernetes.io/docs/concepts/containers/container-lifecycle-hooks/>
    pub pre_stop_sleep: bool,
    /// A version of `custom.metrics.k8s.io`: metrics of pods and other objects.
    pub custom_metrics: bool,
    /// A version of `external.metrics.k8s.io`: metrics of nothing in the cluster.
    pub external_metrics: bool,
    /// `keda.sh/v1alpha1`, kind `ScaledObject`.
    pub keda: bool,
    /// Zero as `minReplicas` of a HorizontalPodAutoscaler, which is on by default since 1.37.
    ///
    /// <https://kubernetes.io/docs/reference/command-line-tools-reference/feature-gates/>
    pub hpa_scale_to_zero: bool,
}

impl Apis {
    /// Returns what an API server of this version serves by itself; some distributions write the minor version as `30+`.
    #[must_use]
    pub fn parse(major: &str, minor: &str) -> Self {
        let minor: u32 = minor.trim_end_matches('+').parse().unwrap_or_default();
        let is_from = |first: u32| major != "1" || minor >= first;
        Self { pre_stop_sleep: is_from(30), hpa_scale_to_zero: is_from(37), ..Self::default() }
    }

    /// Returns what a cluster of today with every operator serves.
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

    #[test]
    fn metrics_are_read_whatever_their_type() {
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
    fn a_scaled_object_holds_between_kedas_defaults() {
        let object = json!({"kind": "ScaledObject", "metadata": {"name": "api"}, "spec": {"minReplicaCount": 2}});
        let found = Autoscaler::from_scaled_object(&object, false);
        assert_eq!((&*found.reference(), found.min, found.max), ("ScaledObject/api", 2, 100));
        assert_eq!(Autoscaler::from_scaled_object(&json!({"spec": {}}), false).min, 0);
    }

    #[test]
    fn what_keda_made_for_a_scaled_object_is_told_from_what_people_made() {
        let owned = |kind: &str, version: &str| json!({"metadata": {"ownerReferences": [{"kind": kind, "apiVersion": version}]}});
        let is_derived = |object: Value| Autoscaler::is_derived(&object);
        assert!(is_derived(owned("ScaledObject", "keda.sh/v1alpha1")));
        assert!(!is_derived(owned("ScaledObject", "example.com/v1")) && !is_derived(owned("Deployment", "apps/v1")));
        assert!(!is_derived(json!({"metadata": {"name": "keda-hpa-api"}})), "a name says nothing");
    }

    #[test]
    fn an_autoscaler_is_forgotten_by_kind_and_name() {
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
    fn what_a_version_serves_is_known() {
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
    fn a_budget_without_a_selector_is_for_no_pods() {
        let labels = json!({"app": "api"});
        let selects = |spec: Value| PodSelector::read(&json!({"spec": spec})).selects(&labels);
        assert!(selects(json!({"selector": {"matchLabels": {"app": "api"}}})));
        assert!(selects(json!({"selector": {}})), "an empty one is for all");
        assert!(!selects(json!({"selector": {"matchLabels": {"app": "other"}}})));
        assert!(!selects(json!({})) && !selects(json!({"selector": "app=api"})));
        assert!(!PodSelector::default().selects(&Value::Null));
    }
}
