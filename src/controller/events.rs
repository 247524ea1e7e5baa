//! Events on workloads about their companions, one for each change.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{self as kube_events, EventType, Reporter};
use serde_json::Value;
use tracing::debug;

use super::apply::{Recorder, Writer, is_same_object};
use crate::report;
use tidegate_engine::companions::plan::{Action, CompanionPlan, CompanionState, Observed, Plan};
use tidegate_engine::companions::{Companion, MANAGER, condition_type};
use tidegate_engine::workload::Workload;

/// The longest note that the API server accepts, in bytes.
const MAX_NOTE: usize = 1024;

/// The longest name of a reporter.
const MAX_REPORTER: usize = 128;

/// An event on a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    is_warning: bool,
    reason: String,
    note: String,
}

/// Returns the events for the actions of a plan that were carried out.
pub(super) fn of_actions(plan: &Plan, observed: &Observed) -> Vec<Event> {
    let exists = |object: &Value| observed.objects.iter().flatten().any(|found| is_same_object(found, object));
    let former = observed.model_server.as_ref().map_or(&Value::Null, |server| &server["status"]["database"]["name"]);
    let existed = |object: &Value| object["metadata"]["name"] == *former;
    let of = |(companion, plan): (&dyn Companion, &CompanionPlan)| -> Vec<Event> {
        if matches!(plan.state, CompanionState::Refused(_)) {
            return Vec::new();
        }
        let event =
            |what: &str, note: String| Event { is_warning: false, reason: format!("{}{what}", companion.name()), note };
        let events = plan.actions.iter().map(|action| match action {
            Action::Apply(object) if exists(object) => {
                event("Updated", format!("updated {} to match its policy", named(object)))
            }
            Action::Create(object) if existed(object) => Event {
                is_warning: true,
                ..event("Recreated", format!("recreated {}, which was deleted: it is empty", named(object)))
            },
            Action::Create(object) | Action::Apply(object) => event("Created", format!("created {}", named(object))),
            Action::Merge(object) => event("Updated", format!("added missing fields to {}", named(object))),
            Action::Delete(object) => event("Deleted", format!("deleted {}", named(object))),
        });
        events.collect()
    };
    plan.each().flat_map(of).collect()
}

/// Returns the events for states that differ from the last status of the ModelServer and matter to users.
pub(super) fn of_changes(before: &Value, plan: &Plan) -> Vec<Event> {
    let of_changes = plan.each().filter_map(|(companion, CompanionPlan { state, .. })| {
        let (subject, what, field) = (companion.name(), companion.title(), companion.field());
        let type_ = &condition_type(companion);
        let (is_warning, reason, event, note) = match state {
            CompanionState::Theirs(found) => (
                false,
                "Yielded",
                format!("{subject}Yielded"),
                format!("{} is used instead: it is not managed by tidegate", named(found)),
            ),
            CompanionState::Drifted(found, difference) => (
                true,
                "Drifted",
                format!("{subject}Drifted"),
                format!("{} differs from its policy: {difference}", named(found)),
            ),
            CompanionState::Impossible(reason, message) | CompanionState::Left(_, reason, message) => {
                (true, *reason, (*reason).to_owned(), format!("cannot provide {what}: {message}"))
            }
            CompanionState::Refused(message) => {
                (true, "Refused", format!("{subject}Refused"), format!("cannot provide {what}: {message}"))
            }
            CompanionState::Harmful(reason, message) => {
                (false, *reason, (*reason).to_owned(), format!("{what} is not created: {message}"))
            }
            CompanionState::Elsewhere(_, message) => {
                (false, "OwnDatabase", "OwnDatabase".to_owned(), format!("{what} is not created: {message}"))
            }
            CompanionState::Absent
            | CompanionState::Declined
            | CompanionState::Ours(_)
            | CompanionState::External(_)
            | CompanionState::Unmanaged(_)
            | CompanionState::Pending(_) => return None,
        };
        // If the companion is not ready either, the condition has that as its reason.
        let is_reported_otherwise = match state {
            CompanionState::Theirs(_) => before[field]["managedBy"] == "user",
            CompanionState::Drifted(_, difference) => {
                text_of(before, type_, "message").is_some_and(|message| message.ends_with(difference))
            }
            _ => false,
        };
        let is_known = text_of(before, type_, "reason") == Some(reason) || is_reported_otherwise;
        (!is_known).then_some(Event { is_warning, reason: event, note })
    });
    of_changes.collect()
}

/// Returns a field of a condition in the status of a ModelServer.
fn text_of<'s>(status: &'s Value, type_: &str, field: &str) -> Option<&'s str> {
    let conditions = status["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == type_)?[field].as_str()
}

fn named(object: &Value) -> String {
    let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
    format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

/// Writes events on workloads. A repetition within minutes increments the count of the existing Event.
pub(super) struct Events {
    recorder: Recorder,
}

impl Events {
    /// Creates a writer of events for a replica.
    pub(super) fn new(writer: Writer, replica: &str) -> Self {
        let instance = replica.chars().take(MAX_REPORTER).collect();
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(instance) };
        Self { recorder: Recorder::new(writer, reporter) }
    }

    /// Writes events on a workload. Failures are only logged.
    pub(super) async fn publish(&self, workload: &Workload<'_>, events: Vec<Event>) {
        let regarding = regarding(workload);
        for event in events.into_iter().map(to_kube_event) {
            if let Err(error) = self.recorder.publish(&event, &regarding).await {
                debug!(error = report::chain(&error), reason = event.reason, "cannot write an event");
            }
        }
    }
}

fn to_kube_event(event: Event) -> kube_events::Event {
    kube_events::Event {
        type_: if event.is_warning { EventType::Warning } else { EventType::Normal },
        note: Some(truncated(&event.note).to_owned()),
        reason: event.reason,
        action: "Reconcile".to_owned(),
        secondary: None,
    }
}

/// Returns the reference to a workload, without its resourceVersion: events on different versions would not be counted
/// together.
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

    fn companion(actions: Vec<Action>, state: CompanionState) -> CompanionPlan {
        CompanionPlan { actions, state }
    }

    fn lines(events: &[Event]) -> Vec<String> {
        events.iter().map(|event| format!("{} {}: {}", event.is_warning, event.reason, event.note)).collect()
    }

    #[test]
    fn reports_actions() {
        let ours = || CompanionState::Ours(hpa());
        let events = |autoscaler: CompanionPlan, database: CompanionPlan, exists: bool| {
            let plan = Plan { companions: vec![autoscaler, CompanionPlan::default(), database], again: None };
            let objects = if exists { vec![vec![hpa()]] } else { vec![] };
            lines(&of_actions(&plan, &Observed { objects, ..Observed::default() }))
        };
        let none = CompanionPlan::default;
        let applied = companion(vec![Action::Apply(hpa())], ours());
        assert_eq!(
            events(applied.clone(), none(), false),
            ["false AutoscalerCreated: created HorizontalPodAutoscaler api-tidegate"]
        );
        let updated = ["false AutoscalerUpdated: updated HorizontalPodAutoscaler api-tidegate to match its policy"];
        assert_eq!(events(applied, none(), true), updated);
        let yielded = companion(vec![Action::Delete(hpa())], CompanionState::Theirs(hpa()));
        assert_eq!(
            events(yielded, none(), true),
            ["false AutoscalerDeleted: deleted HorizontalPodAutoscaler api-tidegate"]
        );
        let created = companion(vec![Action::Create(database())], ours());
        assert_eq!(events(none(), created, false), ["false DatabaseCreated: created postgresql acid-api"]);
        let again = Plan::single(&Databases, companion(vec![Action::Create(database())], ours()));
        let model_server = Some(json!({"status": {"database": {"name": "acid-api"}}}));
        assert_eq!(
            lines(&of_actions(&again, &Observed { model_server, ..Observed::default() })),
            ["true DatabaseRecreated: recreated postgresql acid-api, which was deleted: it is empty"]
        );
        let merged = companion(vec![Action::Merge(database())], ours());
        assert_eq!(
            events(none(), merged, false),
            ["false DatabaseUpdated: added missing fields to postgresql acid-api"]
        );
        let refused = companion(vec![Action::Create(database())], CompanionState::Refused("quota".into()));
        assert!(events(none(), refused, false).is_empty());
    }

    #[test]
    fn reports_a_changed_state_once() {
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
        for (state, condition, reason, is_warning) in table {
            let plan = Plan::single(&Autoscaling, state.into());
            let events = of_changes(&Value::Null, &plan);
            assert_eq!((events[0].reason.as_str(), events[0].is_warning, events.len()), (reason, is_warning, 1));
            assert_eq!(of_changes(&status("AutoscalerReady", "ScalingActive"), &plan), events);
            assert_eq!(of_changes(&status("AutoscalerReady", condition), &plan), []);
        }
        let theirs = Plan::single(&Autoscaling, CompanionState::Theirs(hpa()).into());
        let mut broken = status("AutoscalerReady", "AmbiguousSelector");
        broken["autoscaler"] = json!({"managedBy": "user"});
        assert_eq!(of_changes(&broken, &theirs), [], "it was used before");
        let drifted = Plan::single(&Databases, CompanionState::Drifted(database(), "more".into()).into());
        let events = of_changes(&status("DatabaseReady", "Running"), &drifted);
        assert_eq!(lines(&events), ["true DatabaseDrifted: postgresql acid-api differs from its policy: more"]);
        assert_eq!(of_changes(&status("DatabaseReady", "Drifted"), &drifted), []);
        let own = Plan::single(&Databases, CompanionState::Elsewhere(None, "PGHOST".into()).into());
        let events = of_changes(&Value::Null, &own);
        assert_eq!(lines(&events), ["false OwnDatabase: a database is not created: PGHOST"]);
        assert_eq!(of_changes(&status("DatabaseReady", "OwnDatabase"), &own), []);
        let mut failed = status("DatabaseReady", "CreateFailed");
        failed["conditions"][0]["message"] = "it failed; it differs from the policy: more".into();
        assert_eq!(of_changes(&failed, &drifted), []);
        let fine = [
            CompanionState::Absent,
            CompanionState::Ours(hpa()),
            CompanionState::Unmanaged(hpa()),
            CompanionState::Pending("5 s".into()),
        ];
        for state in fine {
            assert_eq!(of_changes(&Value::Null, &Plan::single(&Autoscaling, state.into())), []);
        }
    }

    /// The requests to the API server when these events are published one after the other: methods and bodies.
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
        recorder.publish(&Workload::view(&object).unwrap(), events).await;
        mem::take(&mut *sent.lock().unwrap())
    }

    fn event(is_warning: bool, reason: &str, note: &str) -> Event {
        Event { is_warning, reason: reason.to_owned(), note: note.to_owned() }
    }

    #[tokio::test]
    async fn counts_repetitions_in_one_event() {
        let drifted = || event(true, "DatabaseDrifted", "it differs");
        let other = event(false, "DatabaseCreated", "created it");
        let sent = sent(Leadership::Alone, vec![drifted(), other, drifted(), drifted()]).await;
        let of = |(method, event): &(String, Value)| {
            (method.clone(), event["reason"].as_str().unwrap().to_owned(), event["series"]["count"].as_i64())
        };
        let row = |method: &str, reason: &str, count| (method.to_owned(), reason.to_owned(), count);
        let expected = [
            row("POST", "DatabaseDrifted", None),
            row("POST", "DatabaseCreated", None),
            row("PATCH", "DatabaseDrifted", Some(2)),
            row("PATCH", "DatabaseDrifted", Some(3)),
        ];
        assert_eq!(sent.iter().map(of).collect::<Vec<_>>(), expected);
        assert_eq!(sent[0].1["metadata"]["name"], sent[3].1["metadata"]["name"]);
    }

    #[tokio::test]
    async fn writes_an_event_on_its_workload() {
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
    fn truncates_long_notes() {
        assert_eq!(truncated("short"), "short");
        assert_eq!(truncated(&"ä".repeat(MAX_NOTE)).len(), MAX_NOTE);
        assert_eq!(truncated(&("a".to_owned() + &"ä".repeat(MAX_NOTE))).len(), MAX_NOTE - 1);
    }
}
