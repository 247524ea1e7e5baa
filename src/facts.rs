//! What a decision may know of the cluster. Shells gather it from watches or files; rules only read it.

use std::collections::{BTreeMap, HashMap};

/// All that is known of the cluster at the time of a decision.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Namespaces by name.
    pub namespaces: HashMap<String, Namespace>,
    /// Autoscalers by the workload that they scale.
    pub autoscalers: HashMap<WorkloadRef, Vec<Autoscaler>>,
    /// Databases by namespace and name.
    pub databases: HashMap<(String, String), Database>,
    /// Which providers' APIs are served.
    pub apis: Apis,
}

impl Facts {
    /// Returns the autoscalers of a workload.
    #[must_use]
    pub fn autoscalers_of(&self, workload: &WorkloadRef) -> &[Autoscaler] {
        self.autoscalers.get(workload).map_or(&[], Vec::as_slice)
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

/// Which providers' APIs the cluster serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Apis {
    /// `acid.zalan.do/v1`, kind `postgresql`.
    pub zalando: bool,
}
