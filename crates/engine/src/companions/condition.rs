//! Conditions of companions.

use serde_json::Value;

use super::Companion;
use super::companion::condition_type;
use super::plan::CompanionState;
use crate::api::Condition;

/// Returns the condition of a companion; of one that is there, ours or its author's, `of_found` knows more.
pub(super) fn ready(
    companion: &dyn Companion,
    state: &CompanionState,
    of_found: impl Fn(&Value) -> Condition,
) -> Condition {
    let type_ = condition_type(companion);
    let of = |status: &str, reason: &str, message: String| Condition::new(&type_, status, reason, message);
    let what = companion.title();
    match state {
        CompanionState::Absent => of("True", "NotWanted", format!("no policy in `warn` or `enforce` asks for {what}")),
        CompanionState::Ours(found) => of_found(found),
        CompanionState::Declined => {
            of("True", "Declined", format!("the workload's annotation says that it does not need {what}"))
        }
        CompanionState::Theirs(found) => theirs(&type_, found, &of_found(found)),
        CompanionState::External(found) => {
            let message =
                format!("the Secret {} is bound; pods wait for it if it does not exist yet", name_of(found));
            of("True", "External", message)
        }
        CompanionState::Unmanaged(found) => {
            of("True", "Unmanaged", format!("no policy asks for {} any more; it is left unchanged", name_of(found)))
        }
        CompanionState::Left(found, reason, message) => {
            of("False", reason, format!("{message}; {} is left unchanged", name_of(found)))
        }
        CompanionState::Elsewhere(None, message) => of("True", "OwnDatabase", message.clone()),
        CompanionState::Elsewhere(Some(found), message) => {
            of("True", "OwnDatabase", format!("{message}; {} is left unchanged", name_of(found)))
        }
        CompanionState::Drifted(found, differs) => drifted(&type_, &of_found(found), differs),
        CompanionState::Pending(message) => of("False", "Pending", message.clone()),
        CompanionState::Impossible(reason, message) => of("False", reason, message.clone()),
        CompanionState::Refused(message) => of("False", "Refused", message.clone()),
    }
}

/// The condition of somebody else's companion, which serves instead of ours.
fn theirs(type_: &str, found: &Value, itself: &Condition) -> Condition {
    let name = name_of(found);
    if itself.status == "True" || itself.reason == "Pending" {
        return Condition::new(type_, "True", "Yielded", format!("{name}, managed by the user, is used"));
    }
    Condition::new(type_, "False", &itself.reason, format!("{name}, managed by the user: {}", itself.message))
}

/// The condition of one that a person has changed. Whether it serves does not depend on that.
fn drifted(type_: &str, itself: &Condition, differs: &str) -> Condition {
    // Where its operator has said nothing yet, there is nothing to hide.
    if itself.status == "True" || itself.reason == "Pending" {
        return Condition::new(type_, &itself.status, "Drifted", differs);
    }
    let message = format!("{}; it differs from the policy: {differs}", itself.message);
    Condition::new(type_, "False", &itself.reason, message)
}

/// Returns the name of an object.
pub(super) fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::{ModelServerStatus, ReplicasStatus};
    use crate::companions::autoscaler::Autoscaling;
    use crate::companions::database::Databases;
    use crate::companions::disruption_budget::DisruptionBudget;
    use crate::companions::{Binding, Companions, Described, HeldReplicas};
    use crate::testing::with_container;
    use crate::workload::Workload;

    /// The condition of a companion beside a workload with this template.
    fn ready_with(
        companion: &dyn Companion,
        state: &CompanionState,
        secret: Option<&str>,
        held: Option<HeldReplicas>,
        template: &Value,
    ) -> Condition {
        let mut object = with_container(&json!({}));
        object["spec"]["template"] = template.clone();
        let workload = Workload::view(&object).unwrap();
        let bound = |secret: &str| Binding { name: "acid-api".into(), secret: secret.into(), parts: [].into() };
        let companions = Companions { binding: secret.map(bound), held, ..Companions::default() };
        companion.condition(state, &Described { workload: &workload, companions: &companions })
    }

    fn ready(companion: &dyn Companion, state: &CompanionState) -> Condition {
        ready_with(companion, state, None, None, &json!({}))
    }

    fn database_ready(state: &CompanionState, secret: Option<&str>, template: &Value) -> Condition {
        ready_with(&Databases, state, secret, None, template)
    }

    #[test]
    fn what_keda_says_is_told() {
        let told = |conditions: Value| {
            let object =
                json!({"kind": "ScaledObject", "metadata": {"name": "api"}, "status": {"conditions": conditions}});
            let ready = ready(&Autoscaling, &CompanionState::Ours(object));
            (ready.status, ready.reason)
        };
        let is = |type_: &str, status: &str| json!({"type": type_, "status": status, "reason": "Why"});
        let pair = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
        assert_eq!(told(json!([])), pair("False", "Pending"));
        assert_eq!(told(json!([is("Ready", "True"), is("Paused", "False")])), pair("True", "ScalingActive"));
        assert_eq!(told(json!([is("Ready", "True"), is("Paused", "True")])), pair("True", "Paused"));
        assert_eq!(told(json!([is("Ready", "True"), is("Fallback", "True")])), pair("False", "Fallback"));
        assert_eq!(told(json!([is("Ready", "False")])), pair("False", "Why"));
    }

    #[test]
    fn replicas_that_are_more_than_the_policy_allows_are_told() {
        let told = |conditions: Value, held_by: Option<&HeldReplicas>| {
            let stored = json!({"kind": "HorizontalPodAutoscaler", "status": {"conditions": conditions}});
            let state = CompanionState::Ours(stored);
            let ready = ready_with(&Autoscaling, &state, None, held_by.cloned(), &json!({}));
            (ready.status, ready.reason, ready.message)
        };
        let many = HeldReplicas { replicas: 8, kept: 8, most: 4, policy: "serving".to_owned() };
        let active = json!([{"type": "ScalingActive", "status": "True"}]);
        let (status, reason, message) = told(active.clone(), Some(&many));
        assert_eq!((&*status, &*reason), ("True", "MaxReplicasHeld"));
        let expected = "there are 8 replicas, more than maxReplicas 4 of policy serving: Tidegate stops none of them; the autoscaler's \
                        maxReplicas is 8 and decreases with them; its metrics are available";
        assert_eq!(message, expected);
        assert_eq!(told(active, None).1, "ScalingActive");
        let (status, reason, message) = told(json!([]), Some(&many));
        assert_eq!((&*status, &*reason), ("False", "Pending"), "that it does not serve comes first");
        assert!(message.starts_with("there are 8 replicas"), "{message}");
    }

    #[test]
    fn the_replicas_of_either_kind_of_autoscaler_are_told() {
        let told = |found: Value| {
            let mut status = ModelServerStatus { replicas: Some(ReplicasStatus::default()), ..Default::default() };
            Autoscaling.describe(&CompanionState::Ours(found), &mut status);
            let replicas = status.replicas.unwrap();
            (replicas.min, replicas.max)
        };
        let hpa = json!({"kind": "HorizontalPodAutoscaler", "spec": {"minReplicas": 2, "maxReplicas": 3}});
        assert_eq!(told(hpa), (Some(2), Some(3)));
        let keda = json!({"kind": "ScaledObject", "spec": {"minReplicaCount": 0, "maxReplicaCount": 3}});
        assert_eq!(told(keda), (Some(0), Some(3)));
    }

    #[test]
    fn a_database_that_a_person_changed_is_ready_only_when_it_runs() {
        let database = |phase: &str| {
            let stored = json!({"apiVersion": "acid.zalan.do/v1", "kind": "postgresql", "metadata": {"name": "acid-api"}, "status": {"PostgresClusterStatus": phase}});
            let state = CompanionState::Drifted(stored, "spec.volume differs".into());
            let ready = database_ready(&state, None, &led_to("acid-api"));
            (ready.status, ready.reason, ready.message)
        };
        let told = |status: &str, reason: &str, message: &str| (status.into(), reason.into(), message.into());
        assert_eq!(database("Running"), told("True", "Drifted", "spec.volume differs"));
        assert_eq!(database(""), told("False", "Drifted", "spec.volume differs"));
        let failed = "its operator reports CreateFailed; it differs from the policy: spec.volume differs";
        assert_eq!(database("CreateFailed"), told("False", "CreateFailed", failed));
    }

    /// A pod template that leads to a database.
    fn led_to(name: &str) -> Value {
        json!({"spec": {"containers": [{"env": [{"name": "PGHOST", "value": name}]}]}})
    }

    #[test]
    fn a_database_that_no_pod_is_led_to_is_not_ready() {
        let running = json!({"apiVersion": "acid.zalan.do/v1", "kind": "postgresql", "metadata": {"name": "acid-api"}, "status": {"PostgresClusterStatus": "Running"}});
        let told = |template: &Value| {
            let ready = database_ready(&CompanionState::Ours(running.clone()), Some("api-credentials"), template);
            (ready.status, ready.reason)
        };
        assert_eq!(told(&led_to("acid-api")), ("True".into(), "Running".into()));
        assert_eq!(told(&led_to("elsewhere")), ("False".into(), "PodsNotBound".into()));
    }

    #[test]
    fn what_is_its_authors_is_ready_only_when_it_serves() {
        let of = |status: &str, reason: &str| {
            let active = json!([{"type": "ScalingActive", "status": status, "reason": reason, "message": "why"}]);
            let theirs = json!({"kind": "HorizontalPodAutoscaler", "metadata": {"name": "mine"}, "status": {"conditions": active}});
            let ready = ready(&Autoscaling, &CompanionState::Theirs(theirs));
            (ready.status, ready.reason, ready.message)
        };
        let told = |status: &str, reason: &str, message: &str| (status.into(), reason.into(), message.into());
        assert_eq!(of("True", ""), told("True", "Yielded", "mine, managed by the user, is used"));
        assert_eq!(
            of("False", "AmbiguousSelector"),
            told("False", "AmbiguousSelector", "mine, managed by the user: why")
        );
        let budget = |spec: Value| {
            let ready =
                ready(&DisruptionBudget, &CompanionState::Theirs(json!({"metadata": {"name": "mine"}, "spec": spec})));
            (ready.status, ready.reason)
        };
        for none in [json!({"maxUnavailable": 0}), json!({"maxUnavailable": "0%"}), json!({"minAvailable": "100%"})] {
            assert_eq!(budget(none), ("False".into(), "NoPodMayGo".into()));
        }
        assert_eq!(budget(json!({"minAvailable": 1})), ("True".into(), "Yielded".into()));
    }

    #[test]
    fn a_database_of_the_authors_is_no_reason_not_to_be_ready() {
        let told = |found: Option<Value>| {
            let state = CompanionState::Elsewhere(found, "container api sets PGHOST".into());
            let ready = database_ready(&state, None, &led_to("elsewhere"));
            (ready.status, ready.reason, ready.message)
        };
        let own = |message: &str| ("True".into(), "OwnDatabase".into(), message.into());
        assert_eq!(told(None), own("container api sets PGHOST"));
        let ours = json!({"kind": "postgresql", "metadata": {"name": "acid-api"}});
        assert_eq!(told(Some(ours)), own("container api sets PGHOST; acid-api is left unchanged"));
    }

    #[test]
    fn why_pods_wait_is_told() {
        let told = |state: CompanionState| {
            let ready = database_ready(&state, Some("api-credentials"), &led_to("acid-api"));
            (ready.status, ready.reason, ready.message)
        };
        let database =
            json!({"apiVersion": "acid.zalan.do/v1", "kind": "postgresql", "metadata": {"name": "acid-api"}});
        let message = "its operator has not reconciled it yet; check that the operator is running. Pods wait until it creates the \
                       Secret api-credentials";
        assert_eq!(told(CompanionState::Ours(database.clone())), ("False".into(), "Pending".into(), message.into()));
        let mut creating = database;
        creating["status"] = json!({"PostgresClusterStatus": "Creating"});
        let message = "its operator reports Creating";
        assert_eq!(told(CompanionState::Ours(creating)), ("False".into(), "Creating".into(), message.into()));
        let external = CompanionState::External(json!({"kind": "Secret", "metadata": {"name": "s"}}));
        let message = "the Secret s is bound; pods wait for it if it does not exist yet";
        assert_eq!(told(external), ("True".into(), "External".into(), message.into()));
    }
}
