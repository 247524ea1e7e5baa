//! What a decision may know of the cluster. Shells gather it from watches or files; rules only read it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use crate::api::MODEL_SERVERS_LABEL;

/// All that is known of the cluster at the time of a decision.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Namespaces by name.
    pub namespaces: HashMap<String, Namespace>,
    /// Autoscalers by the workload that they scale.
    pub autoscalers: HashMap<WorkloadRef, Vec<Autoscaler>>,
    /// Databases by namespace, then by name.
    pub databases: HashMap<String, BTreeMap<String, Database>>,
    /// Which providers' APIs are served.
    pub apis: Apis,
}

impl Facts {
    /// Returns the autoscalers of a workload.
    #[must_use]
    pub fn autoscalers_of(&self, workload: &WorkloadRef) -> &[Autoscaler] {
        self.autoscalers.get(workload).map_or(&[], Vec::as_slice)
    }

    /// Tells whether all workloads of the namespace are model servers.
    #[must_use]
    pub fn is_for_model_servers(&self, namespace: &str) -> bool {
        self.namespaces.get(namespace).is_some_and(Namespace::is_for_model_servers)
    }

    /// Returns a provider's object of this name.
    #[must_use]
    pub fn database(&self, namespace: &str, name: &str) -> Option<&Database> {
        self.databases.get(namespace)?.get(name)
    }

    /// Returns the names of the databases that Tidegate made for a workload.
    pub fn databases_of(&self, workload: &WorkloadRef) -> impl Iterator<Item = &str> {
        let inside = self.databases.get(&workload.namespace).into_iter().flatten();
        inside.filter(|(_, found)| found.is_for(workload)).map(|(name, _)| name.as_str())
    }

    /// Notes that an autoscaler no longer scales a workload.
    pub fn forget_autoscaler(&mut self, workload: &WorkloadRef, name: &str) {
        let Some(known) = self.autoscalers.get_mut(workload) else { return };
        known.retain(|autoscaler| autoscaler.name != name);
        if known.is_empty() {
            self.autoscalers.remove(workload);
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
}

/// Names a workload: what an autoscaler points at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadRef {
    /// Its namespace.
    pub namespace: String,
    /// Its kind, such as `Deployment`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

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
}

/// A database object of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// The workload that Tidegate made it for; none where it is somebody else's.
    pub made_for: Option<String>,
}

impl Database {
    /// Tells whether Tidegate made it for this workload.
    #[must_use]
    pub fn is_for(&self, workload: &WorkloadRef) -> bool {
        let made_for = self.made_for.as_deref().and_then(|made_for| made_for.split_once('/'));
        made_for == Some((&workload.kind, &workload.name))
    }
}

/// Which providers' APIs the cluster serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Apis {
    /// `acid.zalan.do/v1`, kind `postgresql`.
    pub zalando: bool,
}
