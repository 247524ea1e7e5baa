//! What a companion is.

use serde_json::Value;

use super::plan::{CompanionPlan, CompanionState, Observed};
use super::{Binding, Companions, Unbound, Wanted};
use crate::api::{Condition, ModelServerStatus};
use crate::facts::Facts;
use crate::policy::{Effective, Section};
use crate::runtimes::Recognised;
use crate::workload::{Workload, WorkloadRef};

/// What companions are planned from.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The workload, as it is stored or would be.
    pub workload: &'a Workload<'a>,
    /// Its container and runtime.
    pub recognised: &'a Recognised<'a>,
    /// The policies that it is under.
    pub effective: &'a Effective,
    /// What is known of the cluster.
    pub facts: &'a Facts,
    /// How it reaches its database; none where no policy asks for one.
    pub binding: &'a Result<Option<Binding>, Unbound>,
}

/// What the status of a companion is written from.
#[derive(Clone, Copy)]
pub struct Described<'a> {
    /// The workload as it is stored.
    pub workload: &'a Workload<'a>,
    /// All that it should have.
    pub companions: &'a Companions,
}

/// Names an object around a workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectRef {
    /// The API group of its kind.
    pub group: &'static str,
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
}

/// The objects of one kind that are followed for a companion.
pub struct Watched {
    /// Their API group.
    pub group: &'static str,
    /// The version of it.
    pub version: &'static str,
    /// Their kind.
    pub kind: &'static str,
    /// Notes that they are followed: where there are none, that is known too.
    pub begin: fn(&mut Facts),
    /// Notes an object of this namespace and name, or that it has gone.
    pub note: fn(&mut Facts, &str, &str, Option<&Value>),
}

/// An object that belongs to a model server: from the settings in a policy to the condition that tells how it is. All that is
/// particular to one is in its file.
pub trait Companion: Section {
    /// Returns its name, with which the reasons of its Events and the type of its condition begin, such as `Autoscaler`.
    fn name(&self) -> &'static str;

    /// Returns what it is, for people, such as `an autoscaler`.
    fn title(&self) -> &'static str;

    /// Returns the field of a ModelServer's status that describes it.
    fn field(&self) -> &'static str;

    /// Tells what the workload should have.
    fn wanted(&self, asked: &Asked) -> Wanted;

    /// Names the objects that matter for its plan: those that have the names of ours, and those that take its place.
    fn around(&self, workload: &Workload, wanted: &Wanted, facts: &Facts) -> Vec<ObjectRef>;

    /// Tells whether the first one is made only after a while, so that one that its author brings in the same apply wins.
    fn settles(&self) -> bool {
        true
    }

    /// Plans what to do about it, of what is wanted and what is there. Before things have settled, nothing that settles is
    /// made.
    fn plan(&self, workload: &WorkloadRef, wanted: &Wanted, observed: &Observed, is_settled: bool) -> CompanionPlan;

    /// Returns its condition, of the type that [`condition_type`] gives it.
    fn condition(&self, state: &CompanionState, described: &Described) -> Condition;

    /// Writes its field of a ModelServer's status.
    fn describe(&self, state: &CompanionState, status: &mut ModelServerStatus);

    /// Returns the objects that are followed for it in the plain way; none where it has watches of its own.
    fn watched(&self) -> Option<&'static Watched> {
        None
    }
}

/// Returns the type of a companion's condition, such as `AutoscalerReady`.
#[must_use]
pub fn condition_type(companion: &dyn Companion) -> String {
    format!("{}Ready", companion.name())
}
