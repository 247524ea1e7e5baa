//! The trait of companions.

use serde_json::Value;

use super::plan::{CompanionPlan, CompanionState, Observed};
use super::{Binding, Companions, Unbound, Wanted};
use crate::api::{Condition, ModelServerStatus};
use crate::facts::Facts;
use crate::policy::{Effective, Section};
use crate::runtimes::Recognised;
use crate::workload::{Workload, WorkloadRef};

/// The input for planning companions.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The workload as it is, or would be, stored.
    pub workload: &'a Workload<'a>,
    /// Its container and runtime.
    pub recognised: &'a Recognised<'a>,
    /// Its merged policies.
    pub effective: &'a Effective,
    /// What is known of the cluster.
    pub facts: &'a Facts,
    /// How it reaches its database; none where no policy asks for one.
    pub binding: &'a Result<Option<Binding>, Unbound>,
}

/// The input for the status of a companion.
#[derive(Clone, Copy)]
pub struct Described<'a> {
    /// The workload as it is stored.
    pub workload: &'a Workload<'a>,
    /// Its desired companions.
    pub companions: &'a Companions,
}

/// A reference to an object in the namespace of a workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectRef {
    /// The API group of its kind.
    pub group: &'static str,
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
}

/// A kind of objects that Tidegate creates, changes and deletes as a companion.
pub struct ManagedKind {
    /// Its API group.
    pub group: &'static str,
    /// Its plural, in lower case.
    pub plural: &'static str,
    /// Whether every cluster serves it; another one has a CustomResourceDefinition.
    pub is_built_in: bool,
}

/// A kind of objects that is watched for a companion.
pub struct Watched {
    /// Their API group.
    pub group: &'static str,
    /// The version of it.
    pub version: &'static str,
    /// Their kind.
    pub kind: &'static str,
    /// Records that the objects are watched, so that having none is a known fact.
    pub begin: fn(&mut Facts),
    /// Records an object with this namespace and name, or its deletion.
    pub note: fn(&mut Facts, &str, &str, Option<&Value>),
}

/// An object that belongs to a model server, from its policy settings to its status condition. Everything specific to
/// it is in its module.
pub trait Companion: Section {
    /// Returns its name, such as `Autoscaler`, the prefix of its Event reasons and condition type.
    fn name(&self) -> &'static str;

    /// Returns its description in messages, such as `an autoscaler`.
    fn title(&self) -> &'static str;

    /// Returns the field of a ModelServer's status that describes it.
    fn field(&self) -> &'static str;

    /// Returns the desired state for a workload.
    fn wanted(&self, asked: &Asked) -> Wanted;

    /// Returns the objects that are relevant to its plan: those with the names that Tidegate uses, and those that
    /// replace it.
    fn around(&self, workload: &Workload, wanted: &Wanted, facts: &Facts) -> Vec<ObjectRef>;

    /// Returns whether creation is delayed, so that one that the user creates in the same apply takes precedence.
    fn settles(&self) -> bool {
        true
    }

    /// Plans its actions from the desired and the observed state. If its creation is delayed, it is not created before
    /// `is_settled`.
    fn plan(&self, workload: &WorkloadRef, wanted: &Wanted, observed: &Observed, is_settled: bool) -> CompanionPlan;

    /// Returns its condition, of the type that [`condition_type`] gives it.
    fn condition(&self, state: &CompanionState, described: &Described) -> Condition;

    /// Sets its field in a ModelServer's status.
    fn describe(&self, state: &CompanionState, status: &mut ModelServerStatus);

    /// Returns the kinds of its objects that Tidegate may delete. The permissions follow from them.
    fn managed_kinds(&self) -> &'static [ManagedKind];

    /// Returns the kind of objects that is watched for it; `None` if it has its own watches.
    fn watched(&self) -> Option<&'static Watched> {
        None
    }
}

/// Returns the type of a companion's condition, such as `AutoscalerReady`.
#[must_use]
pub fn condition_type(companion: &dyn Companion) -> String {
    format!("{}Ready", companion.name())
}
