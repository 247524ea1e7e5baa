//! The autoscaler of a model server, for either engine.

mod condition;
mod hpa;
mod keda;
mod plan;
mod settings;
mod validation;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value, json};

pub use settings::{AutoscalingSettings, KedaSettings, QueueSettings};

use super::companion::{Asked, Described, ManagedKind, ObjectRef};
use super::condition::name_of;
use super::plan::{CompanionPlan, CompanionState, Observed};
use super::{Companion, MANAGED_BY_LABEL, MANAGER, Problem, WORKLOAD_ANNOTATION, Wanted, multi_node, names, owner};
use crate::api::{AutoscalerStatus, AutoscalingEngine, Condition, ModelServerStatus, ServingPolicySpec};
use crate::facts::{self, Apis, Autoscaler, Facts, SCALED_OBJECT};
use crate::policy::{Class, Effective, Merged, Parsed, Section, SettingsError};
use crate::runtimes::Recognised;
use crate::workload::{Annotations, Lookup, Workload, WorkloadRef};

/// The longest period of a scaling policy that the API server accepts, in seconds.
const LONGEST_PERIOD: u64 = 1800;

/// The shortest stabilization window, in seconds, before a model server with a queue is scaled down: a new replica has
/// to load its model again.
const LEAST_WINDOW: u64 = 600;

/// The autoscaler companion.
pub struct Autoscaling;

impl Section for Autoscaling {
    fn check(&self, written: &ServingPolicySpec) -> Result<(), SettingsError> {
        let checked = written.autoscaling.as_ref().map_or(Ok(()), validation::check);
        checked.map_err(|problem| SettingsError(format!("autoscaling.{problem}")))
    }

    fn read(&self, merged: &Merged) -> Result<Option<Parsed>, SettingsError> {
        let settings = settings::read(merged).map_err(|problem| SettingsError(problem.to_string()))?;
        Ok(settings.map(Parsed::new))
    }
}

impl Companion for Autoscaling {
    fn name(&self) -> &'static str {
        "Autoscaler"
    }

    fn title(&self) -> &'static str {
        "an autoscaler"
    }

    fn field(&self) -> &'static str {
        "autoscaler"
    }

    fn wanted(&self, asked: &Asked) -> Wanted {
        match Scaling::of(asked.workload, asked.recognised, asked.effective, asked.facts) {
            Some(scaling) => scaling.wanted(),
            None if is_asked(asked.effective, asked.workload) => harmful(asked),
            None if Annotations::new(asked.workload).is_scaled_elsewhere() => Wanted::Declined,
            None => Wanted::Nothing,
        }
    }

    fn managed_kinds(&self) -> &'static [ManagedKind] {
        &[hpa::MANAGED, keda::MANAGED]
    }

    fn around(&self, workload: &Workload, _: &Wanted, facts: &Facts) -> Vec<ObjectRef> {
        let reference = workload.reference();
        let (kind, name) = (&*reference.kind, &*reference.name);
        let hpas = [names::autoscaler(kind, name), names::former_autoscaler(kind, name)];
        let scaled_objects = [names::scaled_object(kind, name), names::former_scaled_object(kind, name)];
        let managed = hpas.map(hpa::object_ref).into_iter().chain(scaled_objects.map(keda::object_ref));
        let others = facts.autoscalers_of(&reference).iter().map(|found| {
            let of_kind = if found.kind == SCALED_OBJECT { keda::object_ref } else { hpa::object_ref };
            of_kind(found.name.clone())
        });
        managed.chain(others).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn plan(&self, workload: &WorkloadRef, wanted: &Wanted, observed: &Observed, is_settled: bool) -> CompanionPlan {
        plan::plan(workload, wanted, observed, is_settled)
    }

    fn condition(&self, state: &CompanionState, described: &Described) -> Condition {
        condition::ready(state, described)
    }

    fn describe(&self, state: &CompanionState, status: &mut ModelServerStatus) {
        status.autoscaler = described(state);
        if let (Some(replicas), Some((min, max))) = (&mut status.replicas, replica_range(state)) {
            (replicas.min, replicas.max) = (Some(min), Some(max));
        }
    }
}

/// Returns the minimum and maximum replicas of the existing autoscaler.
fn replica_range(state: &CompanionState) -> Option<(i64, i64)> {
    use CompanionState::{Left, Ours, Theirs, Unmanaged};
    let (Ours(found) | Theirs(found) | Unmanaged(found) | Left(found, ..)) = state else { return None };
    let read = if found["kind"] == SCALED_OBJECT {
        facts::Autoscaler::from_scaled_object
    } else {
        facts::Autoscaler::from_hpa
    };
    let held = read(found, false);
    Some((held.min, held.max))
}

/// Returns the status of the existing autoscaler.
fn described(state: &CompanionState) -> Option<AutoscalerStatus> {
    let (found, managed_by) = match state {
        CompanionState::Ours(found) | CompanionState::Unmanaged(found) | CompanionState::Left(found, ..) => {
            (found, MANAGER)
        }
        CompanionState::Theirs(found) => (found, "user"),
        _ => return None,
    };
    let kind = found["kind"].as_str().unwrap_or("HorizontalPodAutoscaler").to_owned();
    Some(AutoscalerStatus { kind, name: name_of(found), managed_by: managed_by.to_owned() })
}

/// Returns the autoscaling settings of the policies.
#[must_use]
pub fn settings(effective: &Effective) -> Option<&AutoscalingSettings> {
    effective.section()
}

/// Returns whether the policies ask for an autoscaler of a workload, and its author does not decline it.
fn is_asked(effective: &Effective, workload: &Workload) -> bool {
    settings(effective).is_some_and(|settings| settings.is_wanted(workload))
}

/// Returns the settings by which Tidegate creates an autoscaler for a workload; `None` if it creates none.
#[must_use]
pub fn settings_for<'e>(
    effective: &'e Effective,
    workload: &Workload,
    recognised: &Recognised,
    facts: &Facts,
) -> Option<&'e AutoscalingSettings> {
    settings(effective).filter(|settings| settings.is_wanted(workload) && !is_harmful(workload, recognised, facts))
}

/// Returns whether an autoscaler would harm the workload.
pub(super) fn is_harmful(workload: &Workload, recognised: &Recognised, facts: &Facts) -> bool {
    recognised.multi_node.is_some() || facts.template_user(&workload.reference()).is_some()
}

/// Returns why an autoscaler that policies ask for would harm the workload.
fn harmful(asked: &Asked) -> Wanted {
    if let Some(sign) = asked.recognised.multi_node {
        return multi_node(sign, "an autoscaler would add or remove single parts");
    }
    let Some(user) = asked.facts.template_user(&asked.workload.reference()) else { return Wanted::Nothing };
    let user = format!("{} {}", user.kind, user.name);
    let message = format!("{user} uses its pod template and runs the pods instead: an autoscaler has to target {user}");
    Wanted::Harmful { reason: "TemplateUsed", message }
}

/// Returns the minimum and maximum replicas of a workload: those of its existing or planned autoscaler, or else
/// `spec.replicas`.
#[must_use]
pub fn replicas(effective: &Effective, workload: &Workload, recognised: &Recognised, facts: &Facts) -> (i64, i64) {
    if let Some(found) = facts.autoscalers_of(&workload.reference()).first() {
        return (found.min, found.max);
    }
    if let Some(settings) = settings_for(effective, workload, recognised, facts) {
        let (least, most) = settings.replicas(workload);
        return (least.into(), most.into());
    }
    let written = workload.replicas().unwrap_or(1);
    (written, written)
}

/// Returns the name of the policy that limits the replicas, or `None` if no policy has an autoscaler.
#[must_use]
pub fn bounding_policy(effective: &Effective) -> Option<&str> {
    let merged = effective.merged();
    let source = merged.source(&["autoscaling", "maxReplicas"]).or_else(|| merged.source(&["autoscaling"]));
    source.map(|policy| &*policy.name)
}

/// Returns whether updates keep `spec.replicas` as set by an autoscaler.
#[must_use]
pub fn preserves_replicas(effective: &Effective) -> bool {
    settings(effective).is_none_or(|settings| settings.preserve_replicas)
}

/// Returns whether autoscalers do not own the `spec.replicas` that they set. Only where updates keep the number: a
/// server-side apply that no longer conflicts would reset it.
#[must_use]
pub fn shares_replicas(effective: &Effective) -> bool {
    settings(effective).is_none_or(|settings| settings.preserve_replicas && settings.share_replicas)
}

/// The input for planning an autoscaler.
pub(super) struct Scaling<'a> {
    pub(super) workload: &'a Workload<'a>,
    pub(super) recognised: &'a Recognised<'a>,
    pub(super) settings: &'a AutoscalingSettings,
    pub(super) apis: Apis,
    /// The autoscaler that Tidegate already created for the workload.
    pub(super) existing: Option<&'a Autoscaler>,
    /// How long the model server may take to start.
    pub(super) startup: Duration,
}

/// More replicas than a policy allows, none of which is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldReplicas {
    /// The current number.
    pub replicas: i64,
    /// The `maxReplicas` of the autoscaler.
    pub kept: i32,
    /// The maximum that the policy allows.
    pub most: i32,
    /// The name of the policy.
    pub policy: String,
}

impl<'a> Scaling<'a> {
    /// Returns the input, or `None` if no policy asks for an autoscaler or the workload's author declines it.
    pub(super) fn of(
        workload: &'a Workload<'a>,
        recognised: &'a Recognised<'a>,
        effective: &'a Effective,
        facts: &'a Facts,
    ) -> Option<Self> {
        let settings = settings_for(effective, workload, recognised, facts)?;
        let existing = facts.autoscalers_of(&workload.reference()).iter().find(|found| found.ours);
        let startup = startup(recognised, effective);
        Some(Self { workload, recognised, settings, apis: facts.apis, existing, startup })
    }

    /// Returns the minimum and maximum replicas of the autoscaler.
    pub(super) fn bounds(&self) -> (i32, i32) {
        let (least, most) = self.settings.replicas(self.workload);
        (least, self.kept().unwrap_or(most))
    }

    /// Returns the maximum if more replicas are running than the policy allows, since a policy stops none. It never
    /// grows, so nobody gets more replicas by requesting more.
    fn kept(&self) -> Option<i32> {
        let (_, most) = self.settings.replicas(self.workload);
        let kept = self.settings.above(self.workload)?.min(self.existing?.max);
        i32::try_from(kept).ok().filter(|kept| *kept > most)
    }

    /// Returns the replicas that are kept although the policy allows fewer.
    pub(crate) fn held(&self, effective: &Effective) -> Option<HeldReplicas> {
        let (_, most) = self.settings.replicas(self.workload);
        let policy = bounding_policy(effective)?.to_owned();
        Some(HeldReplicas { replicas: self.workload.replicas()?, kept: self.kept()?, most, policy })
    }

    /// Plans the autoscaler.
    pub(super) fn wanted(&self) -> Wanted {
        match self.planned() {
            Ok(object) => Wanted::Object(object),
            Err((reason, message)) => Wanted::Impossible { reason, message },
        }
    }

    /// Returns why the autoscaler cannot be created.
    pub(super) fn problem(&self) -> Option<String> {
        let possible = self.fits().and_then(|()| match self.settings.engine {
            AutoscalingEngine::Keda => keda::object(self).map(drop),
            AutoscalingEngine::Hpa | AutoscalingEngine::None => hpa::check(self),
        });
        possible.err().map(|(_, message)| message)
    }

    fn planned(&self) -> Result<Value, Problem> {
        self.fits()?;
        match self.settings.engine {
            AutoscalingEngine::Keda => keda::object(self),
            AutoscalingEngine::Hpa | AutoscalingEngine::None => hpa::object(self),
        }
    }

    /// Checks that a new autoscaler would not stop running replicas.
    fn fits(&self) -> Result<(), Problem> {
        let (_, most) = self.settings.replicas(self.workload);
        let too_many = |replicas: &i64| self.existing.is_none() && *replicas > i64::from(most);
        if let Some(replicas) = self.workload.replicas().filter(too_many) {
            let message = format!(
                "{replicas} replicas are running, but the autoscaler's maxReplicas is {most}: it would stop {} at once",
                replicas - i64::from(most)
            );
            return Err(("ReplicasOutOfBounds", message));
        }
        Ok(())
    }

    /// Returns whether the model server uses a GPU. Its CPU and memory usage then says little about its load.
    pub(super) fn has_gpu(&self) -> bool {
        self.recognised.container.as_ref().is_some_and(|container| Class::of(container) == Class::Gpu)
    }

    /// Returns the runtime's name for the metric of waiting requests.
    pub(super) fn queue(&self) -> Result<&'a str, String> {
        let unknown = || {
            let name = self.recognised.name().unwrap_or("an unknown runtime");
            format!("it runs {name}, which has no known metric for waiting requests")
        };
        let metrics = self.recognised.runtime.and_then(|runtime| runtime.metrics.as_ref()).ok_or_else(unknown)?;
        let queue = metrics.queue.as_deref().ok_or_else(unknown)?;
        let words = self.recognised.words;
        if let Some(flag) = &metrics.disabled_by {
            let without = format!("it reports no waiting requests with the flag {flag}");
            match words.has(flag) {
                Lookup::Found(()) => return Err(without),
                Lookup::Absent => {}
                Lookup::Unknown(what) => return Err(format!("{without}, and it is unknown {what}")),
            }
        }
        let Some(flag) = &metrics.needs else { return Ok(queue) };
        let enables = |name: &String, values: &[String]| {
            words.env(name).found().is_some_and(|found| values.iter().any(|value| value == found))
        };
        if metrics.needs_env.iter().any(|(name, values)| enables(name, values)) {
            return Ok(queue);
        }
        match words.has(flag).or_else(|| self.recognised.all_words().has(flag)) {
            Lookup::Found(()) => Ok(queue),
            Lookup::Absent => Err(format!("it reports waiting requests only with the flag {flag}")),
            Lookup::Unknown(what) => {
                Err(format!("it reports waiting requests only with the flag {flag}, and it is unknown {what}"))
            }
        }
    }

    /// Returns the behavior that the policy sets, or else one for servers that load a model: add one pod per start-up
    /// time, and remove pods only after a long window.
    pub(super) fn behavior(&self) -> Map<String, Value> {
        if !self.settings.behavior.is_empty() {
            return self.settings.behavior.clone();
        }
        let period = self.startup.as_secs().clamp(1, LONGEST_PERIOD);
        let one = json!([{"type": "Pods", "value": 1, "periodSeconds": period}]);
        let window = self.startup.as_secs().clamp(LEAST_WINDOW, LONGEST_PERIOD);
        let down = json!({"stabilizationWindowSeconds": window, "policies": one});
        [("scaleUp".to_owned(), json!({"policies": one})), ("scaleDown".to_owned(), down)].into_iter().collect()
    }

    /// Returns the metadata of an autoscaler of this name.
    pub(super) fn metadata(&self, name: &str) -> Value {
        let workload = self.workload;
        json!({
            "name": name,
            "namespace": workload.namespace(),
            "labels": {MANAGED_BY_LABEL: MANAGER},
            "annotations": {WORKLOAD_ANNOTATION: format!("{}/{}", workload.kind(), workload.name())},
            "ownerReferences": [owner(workload)]
        })
    }

    /// Returns the scale target of an autoscaler.
    pub(super) fn target(&self) -> Value {
        let version = self.workload.known_kind().api_version();
        json!({"apiVersion": version, "kind": self.workload.kind(), "name": self.workload.name()})
    }
}

/// Returns how long a model server may take to start, according to its startup probe, the policy or its runtime.
fn startup(recognised: &Recognised, effective: &Effective) -> Duration {
    let probe =
        || recognised.container.as_ref()?.probe("startupProbe").map(|probe| Duration::from_secs(probe.window()));
    let said = || effective.probes().and_then(|(settings, _)| settings.startup_budget);
    let runtime = || Some(recognised.runtime?.startup_budget.into());
    probe().or_else(said).or_else(runtime).unwrap_or(STARTUP)
}

/// The default for how long a model server of an unknown runtime may take to start.
const STARTUP: Duration = Duration::from_mins(5);
