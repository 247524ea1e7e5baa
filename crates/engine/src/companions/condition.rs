//! Conditions of companions.

use serde_json::Value;

use super::Companion;
use super::companion::condition_type;
use super::plan::CompanionState;
use crate::api::Condition;

/// Returns the condition of a companion. `of_found` returns that of an existing object, whoever manages it.
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
        CompanionState::Harmful(reason, message) => of("True", reason, message.clone()),
        CompanionState::Theirs(found) => user_managed(&type_, found, &of_found(found)),
        CompanionState::External(found) => {
            let message = format!("the Secret {} is bound; pods wait for it if it does not exist yet", name_of(found));
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

/// Returns the condition of a companion that the user manages.
fn user_managed(type_: &str, found: &Value, itself: &Condition) -> Condition {
    let name = name_of(found);
    if itself.status == "True" || itself.reason == "Pending" {
        return Condition::new(type_, "True", "Yielded", format!("{name}, managed by the user, is used"));
    }
    Condition::new(type_, "False", &itself.reason, format!("{name}, managed by the user: {}", itself.message))
}

/// Returns the condition of a companion that was edited. It may be ready nonetheless.
fn drifted(type_: &str, itself: &Condition, differs: &str) -> Condition {
    // If its operator has not reported anything yet, no message is lost.
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

    /// Returns the condition of a companion of a workload with this template.
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
    fn reports_the_conditions_of_keda() {
        let condition = |conditions: Value| {
            let object =
                json!({"kind": "ScaledObject", "metadata": {"name": "api"}, "status": {"conditions": conditions}});
            let ready = ready(&Autoscaling, &CompanionState::Ours(object));
            (ready.status, ready.reason)
        };
        let is = |type_: &str, status: &str| json!({"type": type_, "status": status, "reason": "Why"});
        let pair = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
        assert_eq!(condition(json!([])), pair("False", "Pending"));
        assert_eq!(condition(json!([is("Ready", "True"), is("Paused", "False")])), pair("True", "ScalingActive"));
        assert_eq!(condition(json!([is("Ready", "True"), is("Paused", "True")])), pair("True", "Paused"));
        assert_eq!(condition(json!([is("Ready", "True"), is("Fallback", "True")])), pair("False", "Fallback"));
        assert_eq!(condition(json!([is("Ready", "False")])), pair("False", "Why"));
    }

    #[test]
    fn reports_more_replicas_than_the_policy_allows() {
        let condition = |conditions: Value, held_by: Option<&HeldReplicas>| {
            let stored = json!({"kind": "HorizontalPodAutoscaler", "status": {"conditions": conditions}});
            let state = CompanionState::Ours(stored);
            let ready = ready_with(&Autoscaling, &state, None, held_by.cloned(), &json!({}));
            (ready.status, ready.reason, ready.message)
        };
        let many = HeldReplicas { replicas: 8, kept: 8, most: 4, policy: "serving".to_owned() };
        let active = json!([{"type": "ScalingActive", "status": "True"}]);
        let (status, reason, message) = condition(active.clone(), Some(&many));
        assert_eq!((&*status, &*reason), ("True", "MaxReplicasHeld"));
        let expected = "there are 8 replicas, more than maxReplicas 4 of policy serving: Tidegate stops none of \
                        them; the autoscaler's maxReplicas is 8 and decreases with them; its metrics are available";
        assert_eq!(message, expected);
        assert_eq!(condition(active, None).1, "ScalingActive");
        let (status, reason, message) = condition(json!([]), Some(&many));
        assert_eq!((&*status, &*reason), ("False", "Pending"), "not being ready takes precedence");
        assert!(message.starts_with("there are 8 replicas"), "{message}");
    }

    #[test]
    fn reports_the_replicas_of_either_kind_of_autoscaler() {
        let replicas_of = |found: Value| {
            let mut status = ModelServerStatus { replicas: Some(ReplicasStatus::default()), ..Default::default() };
            Autoscaling.describe(&CompanionState::Ours(found), &mut status);
            let replicas = status.replicas.unwrap();
            (replicas.min, replicas.max)
        };
        let hpa = json!({"kind": "HorizontalPodAutoscaler", "spec": {"minReplicas": 2, "maxReplicas": 3}});
        assert_eq!(replicas_of(hpa), (Some(2), Some(3)));
        let keda = json!({"kind": "ScaledObject", "spec": {"minReplicaCount": 0, "maxReplicaCount": 3}});
        assert_eq!(replicas_of(keda), (Some(0), Some(3)));
    }

    #[test]
    fn an_edited_database_is_ready_only_when_it_runs() {
        let database = |phase: &str| {
            let stored = json!({"apiVersion": "acid.zalan.do/v1", "kind": "postgresql", "metadata": {"name": "acid-api"}, "status": {"PostgresClusterStatus": phase}});
            let state = CompanionState::Drifted(stored, "spec.volume differs".into());
            let ready = database_ready(&state, None, &bound_to("acid-api"));
            (ready.status, ready.reason, ready.message)
        };
        let expected = |status: &str, reason: &str, message: &str| (status.into(), reason.into(), message.into());
        assert_eq!(database("Running"), expected("True", "Drifted", "spec.volume differs"));
        assert_eq!(database(""), expected("False", "Drifted", "spec.volume differs"));
        let failed = "its operator reports CreateFailed; it differs from the policy: spec.volume differs";
        assert_eq!(database("CreateFailed"), expected("False", "CreateFailed", failed));
    }

    /// Returns a pod template that is bound to a database.
    fn bound_to(name: &str) -> Value {
        json!({"spec": {"containers": [{"env": [{"name": "PGHOST", "value": name}]}]}})
    }

    #[test]
    fn a_database_without_bound_pods_is_not_ready() {
        let running = json!({"apiVersion": "acid.zalan.do/v1", "kind": "postgresql", "metadata": {"name": "acid-api"}, "status": {"PostgresClusterStatus": "Running"}});
        let condition = |template: &Value| {
            let ready = database_ready(&CompanionState::Ours(running.clone()), Some("api-credentials"), template);
            (ready.status, ready.reason)
        };
        assert_eq!(condition(&bound_to("acid-api")), ("True".into(), "Running".into()));
        assert_eq!(condition(&bound_to("elsewhere")), ("False".into(), "PodsNotBound".into()));
    }

    #[test]
    fn a_user_managed_companion_is_ready_only_when_it_works() {
        let of = |status: &str, reason: &str| {
            let active = json!([{"type": "ScalingActive", "status": status, "reason": reason, "message": "why"}]);
            let metadata = json!({"name": "mine"});
            let user_managed =
                json!({"kind": "HorizontalPodAutoscaler", "metadata": metadata, "status": {"conditions": active}});
            let ready = ready(&Autoscaling, &CompanionState::Theirs(user_managed));
            (ready.status, ready.reason, ready.message)
        };
        let expected = |status: &str, reason: &str, message: &str| (status.into(), reason.into(), message.into());
        assert_eq!(of("True", ""), expected("True", "Yielded", "mine, managed by the user, is used"));
        assert_eq!(
            of("False", "AmbiguousSelector"),
            expected("False", "AmbiguousSelector", "mine, managed by the user: why")
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
    fn a_workload_with_its_own_database_is_ready() {
        let condition = |found: Option<Value>| {
            let state = CompanionState::Elsewhere(found, "container api sets PGHOST".into());
            let ready = database_ready(&state, None, &bound_to("elsewhere"));
            (ready.status, ready.reason, ready.message)
        };
        let own = |message: &str| ("True".into(), "OwnDatabase".into(), message.into());
        assert_eq!(condition(None), own("container api sets PGHOST"));
        let managed = json!({"kind": "postgresql", "metadata": {"name": "acid-api"}});
        assert_eq!(condition(Some(managed)), own("container api sets PGHOST; acid-api is left unchanged"));
    }

    #[test]
    fn reports_why_pods_wait() {
        let condition = |state: CompanionState| {
            let ready = database_ready(&state, Some("api-credentials"), &bound_to("acid-api"));
            (ready.status, ready.reason, ready.message)
        };
        let database =
            json!({"apiVersion": "acid.zalan.do/v1", "kind": "postgresql", "metadata": {"name": "acid-api"}});
        let message = "its operator has not reconciled it yet; check that the operator is running. Pods \
                       wait until it creates the Secret api-credentials";
        assert_eq!(
            condition(CompanionState::Ours(database.clone())),
            ("False".into(), "Pending".into(), message.into())
        );
        let mut creating = database;
        creating["status"] = json!({"PostgresClusterStatus": "Creating"});
        let message = "its operator reports Creating";
        assert_eq!(condition(CompanionState::Ours(creating)), ("False".into(), "Creating".into(), message.into()));
        let external = CompanionState::External(json!({"kind": "Secret", "metadata": {"name": "s"}}));
        let message = "the Secret s is bound; pods wait for it if it does not exist yet";
        assert_eq!(condition(external), ("True".into(), "External".into(), message.into()));
    }
}
