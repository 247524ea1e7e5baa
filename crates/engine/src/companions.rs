//! The objects that belong to a model server: its autoscaler, disruption budget and database. They are planned here,
//! without side effects; the controller creates and maintains them once the workload is stored.

pub mod autoscaler;
mod companion;
mod condition;
pub mod database;
pub mod disruption_budget;
pub mod names;
pub mod plan;

use serde_json::{Value, json};

pub use autoscaler::HeldReplicas;
pub use companion::{Asked, Companion, Described, ManagedKind, ObjectRef, Watched, condition_type};
pub use database::{Binding, Precedence, Provider, Source, Unbound, Variable, binding, note};

use crate::facts::{Autoscaler, Facts, SCALED_OBJECT};
use crate::policy::{Effective, Section};
use crate::quantity::fields::Fields;
use crate::runtimes::Recognised;
use crate::workload::{PriorBinding, Workload, WorkloadRef};

/// Label on every object that Tidegate creates.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// The value of that label, and Tidegate's field manager.
pub const MANAGER: &str = "tidegate";

/// Annotation on a companion: the kind and name of its workload, such as `Deployment/api`.
pub const WORKLOAD_ANNOTATION: &str = "tidegate.dev/workload";

/// Annotation on an autoscaler: the digest of what Tidegate applied.
pub(crate) const APPLIED_ANNOTATION: &str = "tidegate.dev/applied";

/// Every companion, in the order of reports. To add one: write its module, add it here, and add its settings and status
/// to [`crate::api`].
pub const ALL: [&dyn Companion; 3] =
    [&autoscaler::Autoscaling, &disruption_budget::DisruptionBudget, &database::Databases];

/// Returns the kinds of companions' objects that Tidegate may delete.
pub fn managed_kinds() -> impl Iterator<Item = &'static ManagedKind> {
    ALL.into_iter().flat_map(Companion::managed_kinds)
}

/// Returns the kinds of objects that are watched for companions.
pub fn watched() -> impl Iterator<Item = &'static Watched> {
    ALL.into_iter().filter_map(Companion::watched)
}

/// The sections of a policy for companions.
pub const SECTIONS: [&dyn Section; ALL.len()] = {
    let mut sections: [&dyn Section; ALL.len()] = [ALL[0]; ALL.len()];
    let mut place = 1;
    while place < ALL.len() {
        sections[place] = ALL[place];
        place += 1;
    }
    sections
};

/// The objects that a model server should have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Companions {
    /// The desired state of each, in the order of [`ALL`]; if empty, none is wanted.
    wanted: Vec<Wanted>,
    /// Its replicas, if there are more than its policy allows.
    pub held: Option<HeldReplicas>,
    /// How it reaches its database.
    pub binding: Option<Binding>,
    /// Its precedence among workloads that wait for a database.
    pub precedence: Precedence,
}

impl Companions {
    /// Returns the desired state of a companion.
    #[must_use]
    pub fn of(&self, companion: &dyn Companion) -> &Wanted {
        self.wanted.get(plan::place(companion)).unwrap_or(&Wanted::Nothing)
    }

    /// Returns each companion with its desired state.
    pub fn each(&self) -> impl Iterator<Item = (&'static dyn Companion, &Wanted)> {
        ALL.into_iter().map(|companion| (companion, self.of(companion)))
    }

    /// Returns the objects that are relevant to the companions of a workload.
    #[must_use]
    pub fn around(&self, workload: &Workload, facts: &Facts) -> Vec<Vec<ObjectRef>> {
        self.each().map(|(companion, wanted)| companion.around(workload, wanted, facts)).collect()
    }

    /// Creates a desired state with one companion and no others.
    #[cfg(any(test, feature = "test-util"))]
    #[must_use]
    pub fn with(companion: &dyn Companion, wanted: Wanted) -> Self {
        let mut all = vec![Wanted::Nothing; ALL.len()];
        all[plan::place(companion)] = wanted;
        Self { wanted: all, ..Self::default() }
    }
}

/// The desired state of a companion.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Wanted {
    /// No policy asks for one.
    #[default]
    Nothing,
    /// This object.
    Object(Value),
    /// This object, which the user creates.
    Theirs(Value),
    /// None: the workload's author declines it by annotation.
    Declined,
    /// None: it would harm the workload.
    Harmful {
        /// The reason, as in a condition.
        reason: &'static str,
        /// The message.
        message: String,
    },
    /// None: the workload has, or may have, one of its own. The message says why.
    Elsewhere(String),
    /// A policy asks for one, but it cannot be created.
    Impossible {
        /// The reason, as in a condition.
        reason: &'static str,
        /// The message.
        message: String,
    },
}

/// Why a companion cannot be created: the reason, as in a condition, and the message.
pub type Problem = (&'static str, String);

/// Plans the companions of a workload; `prior` is the existing binding to its database.
#[must_use]
pub fn wanted(
    workload: &Workload,
    recognised: &Recognised,
    effective: &Effective,
    facts: &Facts,
    prior: &PriorBinding,
) -> Companions {
    if workload.name().is_empty() {
        return Companions::default();
    }
    let binding = database::binding(workload, recognised, effective, facts, prior);
    let asked = Asked { workload, recognised, effective, facts, binding: &binding };
    let wanted: Vec<Wanted> = ALL.into_iter().map(|companion| companion.wanted(&asked)).collect();
    let scaling = autoscaler::Scaling::of(workload, recognised, effective, facts);
    Companions {
        held: scaling.and_then(|scaling| scaling.held(effective)),
        precedence: Precedence::of(workload, effective, facts, &wanted[plan::place(&database::Databases)]),
        binding: binding.ok().flatten(),
        wanted,
    }
}

/// Returns why the autoscaler that a policy asks for cannot be created.
#[must_use]
pub fn autoscaler_problem(
    workload: &Workload,
    recognised: &Recognised,
    effective: &Effective,
    facts: &Facts,
) -> Option<String> {
    let scaling =
        autoscaler::Scaling::of(workload, recognised, effective, facts).filter(|_| !workload.name().is_empty())?;
    scaling.problem()
}

/// Returns whether a companion may harm a workload: its pods are parts of one server, or another workload runs them.
#[must_use]
pub fn may_harm(workload: &Workload, recognised: &Recognised, facts: &Facts) -> bool {
    workload.known_kind().group_size.is_some() || autoscaler::is_harmful(workload, recognised, facts)
}

/// Returns that a companion would harm a server whose pods are parts of it.
fn multi_node(sign: &str, harm: &str) -> Wanted {
    let message = format!("its pods are parts of one server (`{sign}`): {harm}");
    Wanted::Harmful { reason: "MultiNode", message }
}

/// Returns the owner reference by which a companion is deleted with its workload.
fn owner(workload: &Workload) -> Value {
    json!({
        "apiVersion": workload.known_kind().api_version(), "kind": workload.kind(), "name": workload.name(), "uid": workload.uid(),
        "controller": true, "blockOwnerDeletion": true
    })
}

/// Returns the workload that Tidegate created an object for, or `None` if Tidegate does not manage it.
#[must_use]
pub fn made_for(object: &Value) -> Option<WorkloadRef> {
    let metadata = &object["metadata"];
    (metadata["labels"][MANAGED_BY_LABEL] == MANAGER).then_some(())?;
    let (kind, name) = metadata["annotations"][WORKLOAD_ANNOTATION].as_str()?.split_once('/')?;
    let namespace = metadata["namespace"].as_str().unwrap_or_default().to_owned();
    Some(WorkloadRef { namespace, kind: kind.to_owned(), name: name.to_owned() })
}

/// Reads an autoscaler of a workload, a HorizontalPodAutoscaler or a ScaledObject.
#[must_use]
pub fn autoscaler_of(object: &Value, target: &WorkloadRef) -> Autoscaler {
    let is_for = |made_for: WorkloadRef| (&made_for.kind, &made_for.name) == (&target.kind, &target.name);
    // A copy with another name is not managed by Tidegate.
    let is_managed =
        names::is_autoscaler_of(object, &target.kind, &target.name) && made_for(object).is_some_and(is_for);
    let read = if object["kind"] == SCALED_OBJECT { Autoscaler::from_scaled_object } else { Autoscaler::from_hpa };
    read(object, is_managed)
}

/// Returns whether an object has all wanted fields, with equivalent values. Additional fields are ignored.
#[must_use]
pub fn contains(found: &Value, wanted: &Value) -> bool {
    Fields::for_object(wanted).contain(found, wanted)
}
