//! What the author of a workload is told of what belongs to it, as Events on the workload: once for each change.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::mem;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tracing::debug;

use super::apply::{Writer, record};
use crate::report;
use tidegate_engine::companions::plan::{Action, CompanionPlan, CompanionState, Observed, Plan};
use tidegate_engine::companions::{Companion, MANAGER, condition_type};
use tidegate_engine::workload::Workload;

/// For how long a workload is not told the same again, however often it changes to and fro. It holds for twice as long at
/// most.
const SILENCE: Duration = Duration::from_mins(5);

/// The longest note that the API server takes, in bytes.
const MAX_NOTE: usize = 1024;

/// The longest that what names a reporter may be.
const MAX_REPORTER: usize = 128;

/// Something to tell about a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    is_warning: bool,
    reason: String,
    note: String,
}

/// Returns what was done for a workload, as far as its plan was carried out.
pub(super) fn done(plan: &Plan, observed: &Observed) -> Vec<Event> {
    let is_there = |object: &Value| {
        let known = observed.objects.iter().flatten();
        known
            .into_iter()
            .any(|found| found["kind"] == object["kind"] && found["metadata"]["name"] == object["metadata"]["name"])
    };
    let told_of = observed.model_server.as_ref().map_or(&Value::Null, |told| &told["status"]["database"]["name"]);
    let was_there = |object: &Value| object["metadata"]["name"] == *told_of;
    let of = |(companion, plan): (&dyn Companion, &CompanionPlan)| -> Vec<Event> {
        if matches!(plan.state, CompanionState::Refused(_)) {
            return Vec::new();
        }
        let event =
            |what: &str, note: String| Event { is_warning: false, reason: format!("{}{what}", companion.name()), note };
        let told = plan.actions.iter().map(|action| match action {
            Action::Apply(object) if is_there(object) => {
                event("Updated", format!("brought {} in step with its policy", named(object)))
            }
            Action::Create(object) if was_there(object) => Event {
                is_warning: true,
                ..event("MadeAnew", format!("{} has gone: it was made anew, and holds nothing", named(object)))
            },
            Action::Create(object) | Action::Apply(object) => event("Made", format!("made {}", named(object))),
            Action::Merge(object) => event("Extended", format!("added to {} what it lacked", named(object))),
            Action::Delete(object) => event("Removed", format!("removed {}", named(object))),
        });
        told.collect()
    };
    plan.each().flat_map(of).collect()
}

/// Returns what stands otherwise than the last status of the ModelServer says, and that a person wants to know.
pub(super) fn changed(before: &Value, plan: &Plan) -> Vec<Event> {
    let changed = plan.each().filter_map(|(companion, CompanionPlan { state, .. })| {
        let (subject, what, field) = (companion.name(), companion.title(), companion.field());
        let type_ = &condition_type(companion);
        let (is_warning, reason, event, note) = match state {
            CompanionState::Theirs(found) => (
                false,
                "Yielded",
                format!("{subject}Yielded"),
                format!("left to {}, which is its author's", named(found)),
            ),
            CompanionState::Drifted(found, told) => (
                true,
                "Drifted",
                format!("{subject}Drifted"),
                format!("{} differs from its policy: {told}", named(found)),
            ),
            CompanionState::Impossible(reason, message) | CompanionState::Left(_, reason, message) => {
                (true, *reason, (*reason).to_owned(), format!("{what} cannot be had: {message}"))
            }
            CompanionState::Refused(message) => {
                (true, "Refused", format!("{subject}Refused"), format!("{what} cannot be had: {message}"))
            }
            CompanionState::Elsewhere(_, message) => {
                (false, "OwnDatabase", "OwnDatabase".to_owned(), format!("{what} is not made: {message}"))
            }
            CompanionState::Absent
            | CompanionState::Declined
            | CompanionState::Ours(_)
            | CompanionState::External(_)
            | CompanionState::Unmanaged(_)
            | CompanionState::Pending(_) => return None,
        };
        // What does not serve besides has that for its reason.
        let is_told_with_another = match state {
            CompanionState::Theirs(_) => before[field]["managedBy"] == "user",
            CompanionState::Drifted(_, told) => {
                text_of(before, type_, "message").is_some_and(|message| message.ends_with(told))
            }
            _ => false,
        };
        let is_known = text_of(before, type_, "reason") == Some(reason) || is_told_with_another;
        (!is_known).then_some(Event { is_warning, reason: event, note })
    });
    changed.collect()
}

/// A text of a condition in the status of a ModelServer.
fn text_of<'s>(status: &'s Value, type_: &str, field: &str) -> Option<&'s str> {
    let conditions = status["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == type_)?[field].as_str()
}

fn named(object: &Value) -> String {
    let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
    format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

/// Tells events, and remembers for a while what it has told.
pub(super) struct Events {
    reporter: String,
    hasher: RandomState,
    told: Mutex<Told>,
}

/// What was told, by a hash of the workload's UID and the reason, in two ages: the older is forgotten as a whole.
struct Told {
    since: Instant,
    new: HashSet<u64>,
    old: HashSet<u64>,
}

impl Events {
    /// Tells events in the name of a replica.
    pub(super) fn new(reporter: &str) -> Self {
        let told = Told { since: Instant::now(), new: HashSet::new(), old: HashSet::new() };
        let reporter = reporter.chars().take(MAX_REPORTER).collect();
        Self { reporter, hasher: RandomState::new(), told: Mutex::new(told) }
    }

    /// Tells what has not been told of the workload lately. What cannot be told is no failure.
    pub(super) async fn tell(&self, workload: &Workload<'_>, events: Vec<Event>, writer: &Writer) {
        for event in events.into_iter().filter(|event| self.is_new(workload.uid(), &event.reason)) {
            if let Err(error) = record(writer, &self.object(workload, &event)).await {
                debug!(error = report::chain(&error), reason = event.reason, "an event was not written");
            }
        }
    }

    fn is_new(&self, uid: &str, reason: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.since.elapsed() > SILENCE {
            told.old = mem::take(&mut told.new);
            told.since = Instant::now();
        }
        let hash = self.hasher.hash_one((uid, reason));
        !told.old.contains(&hash) && told.new.insert(hash)
    }

    fn object(&self, workload: &Workload, event: &Event) -> Value {
        let now = Timestamp::now();
        let (name, namespace) = (workload.name(), workload.namespace());
        // Names of objects have 253 characters at most.
        let name: String = name.chars().take(200).collect();
        let version = &workload.object()["metadata"]["resourceVersion"];
        json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": format!("{name}.{:x}", now.as_nanosecond()), "namespace": namespace},
            "eventTime": MicroTime(now), "type": if event.is_warning { "Warning" } else { "Normal" },
            "reason": event.reason, "note": truncated(&event.note), "action": "Reconcile",
            "reportingController": MANAGER, "reportingInstance": self.reporter,
            "regarding": {
                "apiVersion": "apps/v1", "kind": workload.kind(), "name": workload.name(), "namespace": namespace,
                "uid": workload.uid(), "resourceVersion": version
            }
        })
    }
}

fn truncated(note: &str) -> &str {
    &note[..note.floor_char_boundary(MAX_NOTE)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_engine::companions::autoscaler::Autoscaling;
    use tidegate_engine::companions::database::Databases;

    fn hpa() -> Value {
        json!({"kind": "HorizontalPodAutoscaler", "metadata": {"name": "api-tidegate"}})
    }

    fn database() -> Value {
        json!({"kind": "postgresql", "metadata": {"name": "acid-api"}})
    }

    fn course(actions: Vec<Action>, state: CompanionState) -> CompanionPlan {
        CompanionPlan { actions, state }
    }

    fn told(events: &[Event]) -> Vec<String> {
        events.iter().map(|event| format!("{} {}: {}", event.is_warning, event.reason, event.note)).collect()
    }

    #[test]
    fn what_was_done_is_told() {
        let ours = || CompanionState::Ours(hpa());
        let done_to = |autoscaler: CompanionPlan, database: CompanionPlan, is_there: bool| {
            let plan = Plan { companions: vec![autoscaler, CompanionPlan::default(), database], again: None };
            let objects = if is_there { vec![vec![hpa()]] } else { vec![] };
            told(&done(&plan, &Observed { objects, ..Observed::default() }))
        };
        let none = CompanionPlan::default;
        let made = course(vec![Action::Apply(hpa())], ours());
        assert_eq!(
            done_to(made.clone(), none(), false),
            ["false AutoscalerMade: made HorizontalPodAutoscaler api-tidegate"]
        );
        let updated = ["false AutoscalerUpdated: brought HorizontalPodAutoscaler api-tidegate in step with its policy"];
        assert_eq!(done_to(made, none(), true), updated);
        let yielded = course(vec![Action::Delete(hpa())], CompanionState::Theirs(hpa()));
        assert_eq!(
            done_to(yielded, none(), true),
            ["false AutoscalerRemoved: removed HorizontalPodAutoscaler api-tidegate"]
        );
        let created = course(vec![Action::Create(database())], ours());
        assert_eq!(done_to(none(), created, false), ["false DatabaseMade: made postgresql acid-api"]);
        let again = Plan::with(&Databases, course(vec![Action::Create(database())], ours()));
        let model_server = Some(json!({"status": {"database": {"name": "acid-api"}}}));
        assert_eq!(
            told(&done(&again, &Observed { model_server, ..Observed::default() })),
            ["true DatabaseMadeAnew: postgresql acid-api has gone: it was made anew, and holds nothing"]
        );
        let merged = course(vec![Action::Merge(database())], ours());
        assert_eq!(
            done_to(none(), merged, false),
            ["false DatabaseExtended: added to postgresql acid-api what it lacked"]
        );
        let refused = course(vec![Action::Create(database())], CompanionState::Refused("quota".into()));
        assert!(done_to(none(), refused, false).is_empty());
    }

    #[test]
    fn what_stands_otherwise_than_before_is_told_once() {
        let status = |type_: &str, reason: &str| json!({"conditions": [{"type": type_, "reason": reason}]});
        let table = [
            (CompanionState::Theirs(hpa()), "Yielded", "AutoscalerYielded", false),
            (
                CompanionState::Impossible("NoSuitableMetric", "none".into()),
                "NoSuitableMetric",
                "NoSuitableMetric",
                true,
            ),
            (
                CompanionState::Impossible("ReplicasOutOfBounds", "12".into()),
                "ReplicasOutOfBounds",
                "ReplicasOutOfBounds",
                true,
            ),
            (CompanionState::Refused("quota".into()), "Refused", "AutoscalerRefused", true),
        ];
        for (standing, condition, reason, is_warning) in table {
            let plan = Plan::with(&Autoscaling, standing.into());
            let events = changed(&Value::Null, &plan);
            assert_eq!((events[0].reason.as_str(), events[0].is_warning, events.len()), (reason, is_warning, 1));
            assert_eq!(changed(&status("AutoscalerReady", "ScalingActive"), &plan), events);
            assert_eq!(changed(&status("AutoscalerReady", condition), &plan), []);
        }
        let theirs = Plan::with(&Autoscaling, CompanionState::Theirs(hpa()).into());
        let mut broken = status("AutoscalerReady", "AmbiguousSelector");
        broken["autoscaler"] = json!({"managedBy": "user"});
        assert_eq!(changed(&broken, &theirs), [], "it was left to it before");
        let drifted = Plan::with(&Databases, CompanionState::Drifted(database(), "more".into()).into());
        let events = changed(&status("DatabaseReady", "Running"), &drifted);
        assert_eq!(told(&events), ["true DatabaseDrifted: postgresql acid-api differs from its policy: more"]);
        assert_eq!(changed(&status("DatabaseReady", "Drifted"), &drifted), []);
        let own = Plan::with(&Databases, CompanionState::Elsewhere(None, "PGHOST".into()).into());
        let events = changed(&Value::Null, &own);
        assert_eq!(told(&events), ["false OwnDatabase: a database is not made: PGHOST"]);
        assert_eq!(changed(&status("DatabaseReady", "OwnDatabase"), &own), []);
        let mut failed = status("DatabaseReady", "CreateFailed");
        failed["conditions"][0]["message"] = "it failed; it differs from the policy: more".into();
        assert_eq!(changed(&failed, &drifted), []);
        let fine = [
            CompanionState::Absent,
            CompanionState::Ours(hpa()),
            CompanionState::Unmanaged(hpa()),
            CompanionState::Pending("5 s".into()),
        ];
        for standing in fine {
            assert_eq!(changed(&Value::Null, &Plan::with(&Autoscaling, standing.into())), []);
        }
    }

    #[test]
    fn what_changes_to_and_fro_is_not_told_again_and_again() {
        let events = Events::new("one");
        assert!(events.is_new("uid", "Drifted"));
        assert!(!events.is_new("uid", "Drifted"));
        assert!(events.is_new("uid", "Refused"));
        assert!(events.is_new("another", "Drifted"));
    }

    #[test]
    fn a_note_is_no_longer_than_the_api_server_takes() {
        assert_eq!(truncated("short"), "short");
        assert_eq!(truncated(&"ä".repeat(MAX_NOTE)).len(), MAX_NOTE);
        assert_eq!(truncated(&("a".to_owned() + &"ä".repeat(MAX_NOTE))).len(), MAX_NOTE - 1);
    }
}
