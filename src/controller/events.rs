//! What the author of a workload is told of what belongs to it, as Events on the workload: once for each change.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{self as kube_events, EventType, Reporter};
use serde_json::Value;
use tracing::debug;

use super::apply::{Recorder, Writer};
use crate::report;
use tidegate_engine::companions::plan::{Action, CompanionPlan, CompanionState, Observed, Plan};
use tidegate_engine::companions::{Companion, MANAGER, condition_type};
use tidegate_engine::workload::Workload;

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

/// Writes events on workloads. What happens again within minutes is counted in the Event that is there.
pub(super) struct Events {
    recorder: Recorder,
}

impl Events {
    /// Writes events in the name of a replica.
    pub(super) fn new(writer: Writer, replica: &str) -> Self {
        let instance = replica.chars().take(MAX_REPORTER).collect();
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(instance) };
        Self { recorder: Recorder::new(writer, reporter) }
    }

    /// Writes events on a workload. What cannot be written is no failure.
    pub(super) async fn tell(&self, workload: &Workload<'_>, events: Vec<Event>) {
        let regarding = regarding(workload);
        for event in events.into_iter().map(written) {
            if let Err(error) = self.recorder.publish(&event, &regarding).await {
                debug!(error = report::chain(&error), reason = event.reason, "an event was not written");
            }
        }
    }
}

/// Returns an event as it is written.
fn written(event: Event) -> kube_events::Event {
    kube_events::Event {
        type_: if event.is_warning { EventType::Warning } else { EventType::Normal },
        note: Some(truncated(&event.note).to_owned()),
        reason: event.reason,
        action: "Reconcile".to_owned(),
        secondary: None,
    }
}

/// Returns what an event on a workload refers to: without its version, for events on two versions are not counted together.
fn regarding(workload: &Workload) -> ObjectReference {
    ObjectReference {
        api_version: Some(workload.known_kind().api_version()),
        kind: Some(workload.kind().to_owned()),
        namespace: Some(workload.namespace().to_owned()),
        name: Some(workload.name().to_owned()),
        uid: Some(workload.uid().to_owned()),
        ..ObjectReference::default()
    }
}

fn truncated(note: &str) -> &str {
    &note[..note.floor_char_boundary(MAX_NOTE)]
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::mem;
    use std::sync::{Arc, Mutex};

    use axum::http::{Request, Response};
    use kube::Client;
    use kube::client::Body;
    use serde_json::json;

    use super::*;
    use crate::controller::leader::Leadership;
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
        let again = Plan::single(&Databases, course(vec![Action::Create(database())], ours()));
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
            let plan = Plan::single(&Autoscaling, standing.into());
            let events = changed(&Value::Null, &plan);
            assert_eq!((events[0].reason.as_str(), events[0].is_warning, events.len()), (reason, is_warning, 1));
            assert_eq!(changed(&status("AutoscalerReady", "ScalingActive"), &plan), events);
            assert_eq!(changed(&status("AutoscalerReady", condition), &plan), []);
        }
        let theirs = Plan::single(&Autoscaling, CompanionState::Theirs(hpa()).into());
        let mut broken = status("AutoscalerReady", "AmbiguousSelector");
        broken["autoscaler"] = json!({"managedBy": "user"});
        assert_eq!(changed(&broken, &theirs), [], "it was left to it before");
        let drifted = Plan::single(&Databases, CompanionState::Drifted(database(), "more".into()).into());
        let events = changed(&status("DatabaseReady", "Running"), &drifted);
        assert_eq!(told(&events), ["true DatabaseDrifted: postgresql acid-api differs from its policy: more"]);
        assert_eq!(changed(&status("DatabaseReady", "Drifted"), &drifted), []);
        let own = Plan::single(&Databases, CompanionState::Elsewhere(None, "PGHOST".into()).into());
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
            assert_eq!(changed(&Value::Null, &Plan::single(&Autoscaling, standing.into())), []);
        }
    }

    /// What is sent to the API server when these events are told of a workload, one after the other: methods and bodies.
    async fn sent(leadership: Leadership, events: Vec<Event>) -> Vec<(String, Value)> {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&sent);
        let answer = move |request: Request<Body>| {
            let log = Arc::clone(&log);
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                log.lock().unwrap().push((head.method.to_string(), serde_json::from_slice(&body).unwrap()));
                Ok::<_, Infallible>(Response::new(Body::from(body)))
            }
        };
        let client = Client::new(tower::service_fn(answer), "default");
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "api", "namespace": "ml", "uid": "u-1", "resourceVersion": "7"}});
        let recorder = Events::new(Writer::new(client, leadership), &"r".repeat(200));
        recorder.tell(&Workload::view(&object).unwrap(), events).await;
        mem::take(&mut *sent.lock().unwrap())
    }

    fn event(is_warning: bool, reason: &str, note: &str) -> Event {
        Event { is_warning, reason: reason.to_owned(), note: note.to_owned() }
    }

    #[tokio::test]
    async fn what_changes_to_and_fro_is_counted_in_one_event() {
        let drifted = || event(true, "DatabaseDrifted", "it differs");
        let other = event(false, "DatabaseMade", "made it");
        let sent = sent(Leadership::Alone, vec![drifted(), other, drifted(), drifted()]).await;
        let of = |(method, event): &(String, Value)| {
            (method.clone(), event["reason"].as_str().unwrap().to_owned(), event["series"]["count"].as_i64())
        };
        let row = |method: &str, reason: &str, count| (method.to_owned(), reason.to_owned(), count);
        let expected = [
            row("POST", "DatabaseDrifted", None),
            row("POST", "DatabaseMade", None),
            row("PATCH", "DatabaseDrifted", Some(2)),
            row("PATCH", "DatabaseDrifted", Some(3)),
        ];
        assert_eq!(sent.iter().map(of).collect::<Vec<_>>(), expected);
        assert_eq!(sent[0].1["metadata"]["name"], sent[3].1["metadata"]["name"]);
    }

    #[tokio::test]
    async fn an_event_is_written_on_its_workload() {
        let long = "ä".repeat(MAX_NOTE);
        let (_, mut written) = sent(Leadership::Alone, vec![event(true, "Refused", &long)]).await.remove(0);
        assert_eq!(written["note"].as_str().map(str::len), Some(MAX_NOTE));
        assert_eq!(written["reportingInstance"].as_str().map(str::len), Some(MAX_REPORTER));
        assert!(written["metadata"]["name"].as_str().unwrap().starts_with("api."));
        for varying in ["note", "reportingInstance", "eventTime"] {
            assert!(!written[varying].take().is_null());
        }
        written["metadata"]["name"].take();
        let expected = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": null, "namespace": "ml"},
            "type": "Warning", "reason": "Refused", "action": "Reconcile", "reportingController": MANAGER,
            "regarding": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "api", "namespace": "ml", "uid": "u-1"},
            "note": null, "reportingInstance": null, "eventTime": null
        });
        assert_eq!(written, expected);
    }

    #[tokio::test]
    async fn only_the_leader_writes_events() {
        let sent = sent(Leadership::new(true), vec![event(true, "Refused", "no")]).await;
        assert!(sent.is_empty(), "{sent:?}");
    }

    #[test]
    fn a_note_is_no_longer_than_the_api_server_takes() {
        assert_eq!(truncated("short"), "short");
        assert_eq!(truncated(&"ä".repeat(MAX_NOTE)).len(), MAX_NOTE);
        assert_eq!(truncated(&("a".to_owned() + &"ä".repeat(MAX_NOTE))).len(), MAX_NOTE - 1);
    }
}
