//! The objects that belong to a model server: its autoscaler, its disruption budget and its database. Each is planned here, purely; the
//! controller makes and keeps them once the workload is stored.

pub mod autoscaler;
mod companion;
mod condition;
pub mod database;
pub mod disruption_budget;
pub mod names;
pub mod plan;

use serde_json::{Value, json};

pub use autoscaler::HeldReplicas;
pub use companion::{Asked, Companion, Described, ObjectRef, Watched, condition_type};
pub use database::{Binding, Precedence, Provider, Source, Unbound, Variable, binding, note};

use crate::facts::{Autoscaler, Facts, SCALED_OBJECT};
use crate::policy::{Effective, Section};
use crate::quantity::fields::Fields;
use crate::runtimes::Recognised;
use crate::workload::{PriorBinding, Workload, WorkloadRef};

/// Label on everything that Tidegate makes.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// The value of that label, and Tidegate's field manager.
pub const MANAGER: &str = "tidegate";

/// Annotation on a companion: the kind and name of the workload that it was made for, such as `Deployment/api`.
pub const WORKLOAD_ANNOTATION: &str = "tidegate.dev/workload";

/// Annotation on an autoscaler: the digest of what Tidegate applied.
pub(crate) const APPLIED_ANNOTATION: &str = "tidegate.dev/applied";

/// Every companion, in the order in which people read of them. To add one: write its file, add it here, and give it its settings
/// and its status in [`crate::api`].
pub const ALL: [&dyn Companion; 3] =
    [&autoscaler::Autoscaling, &disruption_budget::DisruptionBudget, &database::Databases];

/// Returns the objects that are followed for companions in the plain way.
pub fn watched() -> impl Iterator<Item = &'static Watched> {
    ALL.into_iter().filter_map(Companion::watched)
}

/// The parts of a policy that are about companions.
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
    /// What there should be of each, in the order of [`ALL`]; nothing of any where it is empty.
    wanted: Vec<Wanted>,
    /// Its replicas, where they are more than its policy allows.
    pub held: Option<HeldReplicas>,
    /// How it reaches its database.
    pub binding: Option<Binding>,
    /// Whether it comes before others that wait for a database.
    pub turn: Precedence,
}

impl Companions {
    /// Returns what there should be of a companion.
    #[must_use]
    pub fn of(&self, companion: &dyn Companion) -> &Wanted {
        self.wanted.get(plan::place(companion)).unwrap_or(&Wanted::Nothing)
    }

    /// Returns each companion with what there should be of it.
    pub fn each(&self) -> impl Iterator<Item = (&'static dyn Companion, &Wanted)> {
        ALL.into_iter().map(|companion| (companion, self.of(companion)))
    }

    /// Names the objects around a workload that matter for its companions.
    #[must_use]
    pub fn around(&self, workload: &Workload, facts: &Facts) -> Vec<Vec<ObjectRef>> {
        self.each().map(|(companion, wanted)| companion.around(workload, wanted, facts)).collect()
    }

    /// Wants one companion and no others.
    #[cfg(any(test, feature = "test-util"))]
    #[must_use]
    pub fn with(companion: &dyn Companion, wanted: Wanted) -> Self {
        let mut all = vec![Wanted::Nothing; ALL.len()];
        all[plan::place(companion)] = wanted;
        Self { wanted: all, ..Self::default() }
    }
}

/// Whether a companion should be there.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Wanted {
    /// No policy asks for one.
    #[default]
    Nothing,
    /// This one.
    Object(Value),
    /// This one, which somebody else makes.
    Theirs(Value),
    /// None: the workload's author says that something else takes its place.
    Declined,
    /// None: the workload's author has another, or may have; a sentence says what tells so.
    Elsewhere(String),
    /// A policy asks for one, but it cannot be had.
    Impossible {
        /// One word for why, as a condition has it.
        reason: &'static str,
        /// A sentence for people.
        message: String,
    },
}

/// Why a companion cannot be had: one word, as a condition has it, and a sentence for people.
pub type Problem = (&'static str, String);

/// Plans the companions of a workload; `prior` is how it is led to its database.
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
        turn: Precedence::of(workload, effective, facts, &wanted[plan::place(&database::Databases)]),
        binding: binding.ok().flatten(),
        wanted,
    }
}

/// Returns why the autoscaler that a policy asks for cannot be had, in a sentence.
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

/// Returns the reference by which a companion is its workload's, and goes with it.
fn owner(workload: &Workload) -> Value {
    json!({
        "apiVersion": workload.known_kind().api_version(), "kind": workload.kind(), "name": workload.name(), "uid": workload.uid(),
        "controller": true, "blockOwnerDeletion": true
    })
}

/// Returns the workload that Tidegate made an object for; none where it is somebody else's.
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
    // A copy under another name is not ours.
    let is_ours = names::is_autoscaler_of(object, &target.kind, &target.name) && made_for(object).is_some_and(is_for);
    let read = if object["kind"] == SCALED_OBJECT { Autoscaler::from_scaled_object } else { Autoscaler::from_hpa };
    read(object, is_ours)
}

/// Tells whether everything that is wanted is there, as far as it means the same; what else is there does not matter.
#[must_use]
pub fn contains(found: &Value, wanted: &Value) -> bool {
    Fields::for_object(wanted).contain(found, wanted)
}
