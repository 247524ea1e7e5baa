//! What is written about a model server and about a policy, for people to read.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::bound::is_bound;
use super::plan::{Plan, Standing};
use tidegate_engine::api::{
    AutoscalerStatus, Condition, DatabaseStatus, DisruptionBudgetStatus, ModelServerStatus, ReplicasStatus,
};
use tidegate_engine::companions::database::{self, Health};
use tidegate_engine::companions::{Held, MANAGER};
use tidegate_engine::decision::{Decision, Violation};
use tidegate_engine::facts::{Autoscaler, SCALED_OBJECT};
use tidegate_engine::workload::Workload;

/// Returns the ModelServer of a workload, which has this name, without its status.
pub(super) fn model_server(workload: &Workload, name: &str) -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "ModelServer",
        "metadata": {
            "name": name,
            "namespace": workload.namespace(),
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": workload.kind(), "name": workload.name(), "uid": workload.uid(),
                "controller": true, "blockOwnerDeletion": true
            }]
        },
        "spec": {"kind": workload.kind(), "name": workload.name()}
    })
}

/// Returns the status of a model server whose workload is one no longer.
pub(super) fn of_former(found: &Value, now: Timestamp) -> Value {
    let message = "the workload no longer has the label of model servers: what tidegate made for it is left as it is";
    let condition = |type_: &str| condition(type_, "Unknown", "Unmanaged", message);
    let types = ["Ready", "Managed", "Conforming", "AutoscalerReady", "DisruptionBudgetReady", "DatabaseReady"];
    let conditions = types.map(condition);
    let status = json!(ModelServerStatus {
        conforms: Some("Unknown".into()),
        conditions: conditions.into(),
        ..Default::default()
    });
    json!({
        "apiVersion": found["apiVersion"], "kind": found["kind"],
        "metadata": {"name": found["metadata"]["name"], "namespace": found["metadata"]["namespace"]},
        "status": timed(status, &found["status"], now)
    })
}

/// Returns the status of a model server.
pub(super) fn of_model_server(workload: &Workload, decision: &Decision, plan: &Plan) -> ModelServerStatus {
    let conforming = conforming(decision);
    let secret = decision.companions.binding.as_ref().map(|binding| binding.secret.as_str());
    let companions = [
        held(autoscaler_ready(&plan.autoscaler.standing), &plan.autoscaler.standing, decision.companions.held.as_ref()),
        budget_ready(&plan.budget.standing),
        database_ready(&plan.database.standing, secret, workload.template()),
    ];
    let ready = ready(workload, &companions);
    ModelServerStatus {
        observed_generation: workload.object()["metadata"]["generation"].as_i64().unwrap_or_default(),
        runtime: Some(decision.runtime.clone().unwrap_or_else(|| "unknown".to_owned())),
        policy: (!decision.policies.is_empty()).then(|| decision.policies.join(",")),
        conforms: Some(conforming.status.clone()),
        replicas: Some(replicas(workload, &plan.autoscaler.standing)),
        autoscaler: autoscaler(&plan.autoscaler.standing),
        disruption_budget: budget(&plan.budget.standing),
        database: database_status(&plan.database.standing),
        conditions: [ready, managed(workload, decision), conforming].into_iter().chain(companions).collect(),
    }
}

fn condition(type_: &str, status: &str, reason: &str, message: impl Into<String>) -> Condition {
    Condition {
        type_: type_.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: None,
    }
}

/// Notes in each condition of a status since when it is as it is: since now where it was not so before.
pub(super) fn timed(mut status: Value, before: &Value, now: Timestamp) -> Value {
    let now = Value::from(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let before = before["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    for condition in status.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        let same = before.iter().find(|found| ["type", "status"].iter().all(|field| found[field] == condition[field]));
        let since = same.map(|same| &same["lastTransitionTime"]).filter(|since| since.is_string());
        condition["lastTransitionTime"] = since.unwrap_or(&now).clone();
    }
    status
}

/// Tells whether Tidegate keeps the workload: whether it injects into it and makes companions for it.
fn managed(workload: &Workload, decision: &Decision) -> Condition {
    let of = |status: &str, reason: &str, message: &str| condition("Managed", status, reason, message);
    if decision.controller.is_some() {
        return of("False", "OwnedByController", "another controller owns it");
    }
    if decision.is_unmanaged {
        let message = format!(
            "it was here before tidegate: nothing is injected and nothing made beside it until its pod template changes, or \
             `tidegate adopt {}/{} --namespace {}`",
            workload.kind().to_lowercase(),
            workload.name(),
            workload.namespace()
        );
        return of("False", "Unmanaged", &message);
    }
    match &decision.receipt {
        Some(receipt) if receipt.entries().is_empty() => of("True", "Managed", "nothing had to be injected into it"),
        Some(_) => of("True", "Managed", "the annotation tidegate.dev/receipt tells what was injected into it"),
        None => of("False", "NoPolicy", "no policy in `warn` or `enforce` is for it"),
    }
}

fn conforming(decision: &Decision) -> Condition {
    if decision.policies.is_empty() {
        return condition("Conforming", "Unknown", "NoPolicy", "no policy selects this workload");
    }
    if let Some(controller) = &decision.controller {
        let message = format!("{controller} owns this workload: tidegate leaves it alone");
        return condition("Conforming", "Unknown", "OwnedByController", message);
    }
    let verdict = &decision.verdict;
    let findings = verdict.violations.iter().chain(&verdict.audited);
    let told: Vec<String> = findings.map(Violation::told).chain(verdict.warnings.iter().cloned()).collect();
    // What a policy only wants recorded is no reason not to conform, unless that is all that any policy does.
    let is_only_recorded = verdict.allows() && verdict.warnings.is_empty() && !decision.is_in_audit;
    match told.is_empty() {
        true => condition("Conforming", "True", "Conforms", "every rule holds"),
        false if is_only_recorded => condition("Conforming", "True", "Recorded", told.join("; ")),
        false => condition("Conforming", "False", "Violations", told.join("; ")),
    }
}

fn autoscaler_ready(standing: &Standing) -> Condition {
    let of_found = |found: &Value| if found["kind"] == SCALED_OBJECT { scaled(found) } else { scaling_active(found) };
    companion_ready("AutoscalerReady", "an autoscaler", standing, of_found)
}

/// Adds to the condition of an autoscaler that it keeps more replicas than the policy allows.
fn held(ready: Condition, standing: &Standing, held: Option<&Held>) -> Condition {
    let (Standing::Ours(_), Some(Held { replicas, kept, most, policy })) = (standing, held) else { return ready };
    let message = format!(
        "there are {replicas} replicas, more than the maxReplicas {most} of policy {policy}: none is stopped for that, \
         the autoscaler's maxReplicas is {kept} and goes down as they do; {}",
        ready.message
    );
    let reason = if ready.status == "True" { "MaxReplicasHeld".to_owned() } else { ready.reason.clone() };
    Condition { reason, message, ..ready }
}

fn budget_ready(standing: &Standing) -> Condition {
    if *standing == Standing::Absent {
        let message =
            "no policy in `warn` or `enforce` asks for a disruption budget, or there is only one replica to guard";
        return condition("DisruptionBudgetReady", "True", "NotWanted", message);
    }
    companion_ready("DisruptionBudgetReady", "a disruption budget", standing, |found| {
        if lets_none_go(&found["spec"]) {
            let message = format!("{} lets no pod go: nodes cannot be drained", name_of(found));
            return condition("DisruptionBudgetReady", "False", "NoPodMayGo", message);
        }
        let pods = match found["spec"]["maxUnavailable"].as_i64() {
            Some(most @ 2..) => format!("{most} pods"),
            _ => "one pod".to_owned(),
        };
        let message = format!("{} lets {pods} go at a time", name_of(found));
        condition("DisruptionBudgetReady", "True", "Made", message)
    })
}

/// Tells whether a budget never lets a pod go, however many are ready.
/// <https://kubernetes.io/docs/tasks/run-application/configure-pdb/#think-about-how-your-application-reacts-to-disruptions>
fn lets_none_go(budget: &Value) -> bool {
    let most = &budget["maxUnavailable"];
    *most == 0 || *most == "0" || *most == "0%" || budget["minAvailable"] == "100%"
}

/// Returns the condition of a database; `secret` is where its credentials are, `template` what is to lead pods to it.
fn database_ready(standing: &Standing, secret: Option<&str>, template: &Value) -> Condition {
    companion_ready("DatabaseReady", "a database", standing, |database| {
        if !is_bound(database, secret, template) {
            let message = format!(
                "{} is there, but no pod is led to it until the pod template changes (`kubectl rollout restart` is a \
                 change), or by variables of its author's own",
                name_of(database)
            );
            return condition("DatabaseReady", "False", "PodsNotBound", message);
        }
        let Health { is_ready, reason, mut message, phase } = database::health(database);
        if let Some(secret) = secret.filter(|_| phase.is_none()) {
            message = format!("{message} Until it makes the Secret {secret}, pods wait for that");
        }
        condition("DatabaseReady", if is_ready { "True" } else { "False" }, &reason, message)
    })
}

/// Returns the condition of a companion; of one that is there, ours or its author's, `of_found` knows more.
fn companion_ready(type_: &str, what: &str, standing: &Standing, of_found: impl Fn(&Value) -> Condition) -> Condition {
    let of = |status: &str, reason: &str, message: String| condition(type_, status, reason, message);
    match standing {
        Standing::Absent => of("True", "NotWanted", format!("no policy in `warn` or `enforce` asks for {what}")),
        Standing::Ours(found) => of_found(found),
        Standing::Declined => {
            of("True", "Declined", format!("its author says that something else takes the place of {what}"))
        }
        Standing::Theirs(found) => match of_found(found) {
            told if told.status == "True" || told.reason == "Pending" => {
                of("True", "Yielded", format!("{}, which is its author's, serves", name_of(found)))
            }
            told => of("False", &told.reason, format!("{}, which is its author's: {}", name_of(found), told.message)),
        },
        Standing::External(found) => {
            let message =
                format!("the Secret {} is bound; where it is not there yet, pods wait for it", name_of(found));
            of("True", "External", message)
        }
        Standing::Unmanaged(found) => {
            of("True", "Unmanaged", format!("no policy asks for {} any more: it is left as it is", name_of(found)))
        }
        Standing::Left(found, reason, message) => {
            of("False", reason, format!("{message}; {} is left as it is", name_of(found)))
        }
        Standing::Elsewhere(None, message) => of("True", "OwnDatabase", message.clone()),
        Standing::Elsewhere(Some(found), message) => {
            of("True", "OwnDatabase", format!("{message}; {} is left as it is", name_of(found)))
        }
        // Whether it serves does not depend on who changed it.
        Standing::Drifted(found, told) => match of_found(found) {
            // Where its operator has said nothing yet, there is nothing to hide.
            ready if ready.status == "True" || ready.reason == "Pending" => of(&ready.status, "Drifted", told.clone()),
            missing => of("False", &missing.reason, format!("{}; it differs from the policy: {told}", missing.message)),
        },
        Standing::Pending(message) => of("False", "Pending", message.clone()),
        Standing::Impossible(reason, message) => of("False", reason, message.clone()),
        Standing::Refused(message) => of("False", "Refused", message.clone()),
    }
}

/// What the HorizontalPodAutoscaler's own controller says of it.
fn scaling_active(hpa: &Value) -> Condition {
    let conditions = hpa["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let active = conditions.iter().find(|condition| condition["type"] == "ScalingActive");
    let text = |field: &str| active.and_then(|active| active[field].as_str()).unwrap_or_default().to_owned();
    match active {
        Some(active) if active["status"] == "True" => {
            condition("AutoscalerReady", "True", "ScalingActive", "it has its metrics")
        }
        Some(_) => condition("AutoscalerReady", "False", &text("reason"), text("message")),
        None => condition("AutoscalerReady", "False", "Pending", "its controller has not looked at it yet"),
    }
}

/// What KEDA says of a ScaledObject.
fn scaled(object: &Value) -> Condition {
    let conditions = object["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let found = |type_: &str| conditions.iter().find(|condition| condition["type"] == type_);
    let is = |type_: &str| found(type_).is_some_and(|condition| condition["status"] == "True");
    let of = |status: &str, reason: &str, message: &str| condition("AutoscalerReady", status, reason, message);
    match found("Ready") {
        _ if is("Paused") => of("True", "Paused", "somebody has paused KEDA by an annotation on the ScaledObject"),
        Some(_) if is("Fallback") => of("False", "Fallback", "KEDA gets no answer from Prometheus: its fallback holds"),
        Some(ready) if ready["status"] == "True" => of("True", "ScalingActive", "KEDA keeps it"),
        Some(ready) => {
            let text = |field: &str| ready[field].as_str().unwrap_or_default();
            of("False", if text("reason").is_empty() { "NotReady" } else { text("reason") }, text("message"))
        }
        None => of("False", "Pending", "KEDA has not looked at it yet: does it run?"),
    }
}

fn ready(workload: &Workload, companions: &[Condition]) -> Condition {
    let status = &workload.object()["status"];
    if let Some(missing) = companions.iter().find(|condition| condition.status != "True") {
        return condition("Ready", "False", &missing.reason, format!("{}: {}", missing.type_, missing.message));
    }
    if workload.replicas() != Some(0) && status["readyReplicas"].as_i64().unwrap_or_default() == 0 {
        return condition("Ready", "False", "NoReadyReplica", "no pod is ready");
    }
    condition("Ready", "True", "Ready", "pods are ready, and so is what belongs to them")
}

fn replicas(workload: &Workload, autoscaler: &Standing) -> ReplicasStatus {
    let now = workload.object()["status"]["replicas"].as_i64().unwrap_or_default();
    let (Standing::Ours(found) | Standing::Theirs(found) | Standing::Unmanaged(found) | Standing::Left(found, ..)) =
        autoscaler
    else {
        return ReplicasStatus { min: None, max: None, now };
    };
    let read = if found["kind"] == SCALED_OBJECT { Autoscaler::of_scaled_object } else { Autoscaler::of_hpa };
    let held = read(found, false);
    ReplicasStatus { min: Some(held.min), max: Some(held.max), now }
}

fn autoscaler(standing: &Standing) -> Option<AutoscalerStatus> {
    let (found, managed_by) = match standing {
        Standing::Ours(found) | Standing::Unmanaged(found) | Standing::Left(found, ..) => (found, MANAGER),
        Standing::Theirs(found) => (found, "user"),
        _ => return None,
    };
    let kind = found["kind"].as_str().unwrap_or("HorizontalPodAutoscaler").to_owned();
    Some(AutoscalerStatus { kind, name: name_of(found), managed_by: managed_by.to_owned() })
}

fn budget(standing: &Standing) -> Option<DisruptionBudgetStatus> {
    let (found, managed_by) = match standing {
        Standing::Ours(found) | Standing::Unmanaged(found) => (found, MANAGER),
        Standing::Theirs(found) => (found, "user"),
        _ => return None,
    };
    Some(DisruptionBudgetStatus { name: name_of(found), managed_by: managed_by.to_owned() })
}

fn database_status(standing: &Standing) -> Option<DatabaseStatus> {
    let (found, phase) = match standing {
        Standing::Ours(found)
        | Standing::Unmanaged(found)
        | Standing::Drifted(found, _)
        | Standing::Elsewhere(Some(found), _) => (found, database::health(found).phase),
        Standing::External(found) => (found, None),
        _ => return None,
    };
    let kind = found["kind"].as_str().unwrap_or_default().to_owned();
    Some(DatabaseStatus { kind, name: name_of(found), phase })
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_engine::decision::{Operation, Request, User, decide};
    use tidegate_engine::testing::{facts, policies, with_container};

    /// The conditions of a model server as it is stored, under a policy.
    fn conditions(spec: Value, plan: &Plan) -> Vec<Condition> {
        let object = with_container(&json!({"image": "api:latest"}));
        let workload = Workload::view(&object).unwrap();
        let request = Request {
            operation: Operation::Observe,
            workload,
            old: None,
            user: User::default(),
            now: Timestamp::UNIX_EPOCH,
        };
        let decision = decide(&request, &policies(&[("serving", spec)]), &facts());
        of_model_server(&workload, &decision, plan).conditions
    }

    fn found<'c>(conditions: &'c [Condition], type_: &str) -> &'c Condition {
        conditions.iter().find(|condition| condition.type_ == type_).unwrap()
    }

    #[test]
    fn what_is_found_is_told_of_the_workload_as_it_is() {
        for enforcement in ["enforce", "warn", "audit"] {
            let conditions = conditions(json!({"enforcement": enforcement}), &Plan::default());
            let conforming = found(&conditions, "Conforming");
            assert_eq!(conforming.status, "False", "{enforcement}");
            let told = "floating-tag: spec.template.spec.containers[0].image: `api:latest`; \
                        expected a tag that is never moved, or a digest";
            assert!(conforming.message.contains(told), "{}", conforming.message);
            assert!(!conforming.message.contains("update"), "{}", conforming.message);
        }
    }

    #[test]
    fn a_condition_tells_since_when_it_is_so() {
        let is = |type_: &str, status: &str| json!({"type": type_, "status": status});
        let since = |type_: &str, status: &str, time: &str| json!({"type": type_, "status": status, "lastTransitionTime": time});
        let (early, now) = ("1969-07-20T20:17:40Z", "1970-01-01T00:00:00Z");
        let before =
            json!({"conditions": [since("Same", "True", early), since("Other", "True", early), is("Untimed", "True")]});
        let status =
            json!({"conditions": [is("Same", "True"), is("Other", "False"), is("New", "True"), is("Untimed", "True")]});
        let wanted = [
            since("Same", "True", early),
            since("Other", "False", now),
            since("New", "True", now),
            since("Untimed", "True", now),
        ];
        assert_eq!(timed(status.clone(), &before, Timestamp::UNIX_EPOCH), json!({"conditions": wanted}));
        assert_eq!(timed(json!({}), &before, Timestamp::UNIX_EPOCH), json!({}));
        assert_eq!(timed(status, &Value::Null, Timestamp::UNIX_EPOCH)["conditions"][0], since("Same", "True", now));
    }

    #[test]
    fn what_keda_says_is_told() {
        let told = |conditions: Value| {
            let object =
                json!({"kind": "ScaledObject", "metadata": {"name": "api"}, "status": {"conditions": conditions}});
            let ready = autoscaler_ready(&Standing::Ours(object));
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
        let told = |conditions: Value, held_by: Option<&Held>| {
            let stored = json!({"kind": "HorizontalPodAutoscaler", "status": {"conditions": conditions}});
            let standing = Standing::Ours(stored);
            let ready = held(autoscaler_ready(&standing), &standing, held_by);
            (ready.status, ready.reason, ready.message)
        };
        let many = Held { replicas: 8, kept: 8, most: 4, policy: "serving".to_owned() };
        let active = json!([{"type": "ScalingActive", "status": "True"}]);
        let (status, reason, message) = told(active.clone(), Some(&many));
        assert_eq!((&*status, &*reason), ("True", "MaxReplicasHeld"));
        let expected = "there are 8 replicas, more than the maxReplicas 4 of policy serving: none is stopped for that, the \
                        autoscaler's maxReplicas is 8 and goes down as they do; it has its metrics";
        assert_eq!(message, expected);
        assert_eq!(told(active, None).1, "ScalingActive");
        let (status, reason, message) = told(json!([]), Some(&many));
        assert_eq!((&*status, &*reason), ("False", "Pending"), "that it does not serve comes first");
        assert!(message.starts_with("there are 8 replicas"), "{message}");
    }

    #[test]
    fn the_replicas_of_either_kind_of_autoscaler_are_told() {
        let object = with_container(&json!({}));
        let workload = Workload::view(&object).unwrap();
        let told = |found: Value| {
            let told = replicas(&workload, &Standing::Ours(found));
            (told.min, told.max)
        };
        let hpa = json!({"kind": "HorizontalPodAutoscaler", "spec": {"minReplicas": 2, "maxReplicas": 3}});
        assert_eq!(told(hpa), (Some(2), Some(3)));
        let keda = json!({"kind": "ScaledObject", "spec": {"minReplicaCount": 0, "maxReplicaCount": 3}});
        assert_eq!(told(keda), (Some(0), Some(3)));
    }

    #[test]
    fn a_workload_that_was_here_before_is_told_how_to_be_kept() {
        let conditions = conditions(json!({"enforcement": "warn"}), &Plan::default());
        let managed = found(&conditions, "Managed");
        assert_eq!((&*managed.status, &*managed.reason), ("False", "Unmanaged"));
        assert!(managed.message.ends_with("`tidegate adopt deployment/api --namespace ml`"), "{}", managed.message);
    }

    #[test]
    fn a_database_that_a_person_changed_is_ready_only_when_it_runs() {
        let database = |phase: &str| {
            let stored = json!({"apiVersion": "acid.zalan.do/v1", "kind": "postgresql", "metadata": {"name": "acid-api"}, "status": {"PostgresClusterStatus": phase}});
            let plan =
                Plan { database: Standing::Drifted(stored, "spec.volume differs".into()).into(), ..Plan::default() };
            let ready = database_ready(&plan.database.standing, None, &led_to("acid-api"));
            (ready.status, ready.reason, ready.message)
        };
        let told = |status: &str, reason: &str, message: &str| (status.into(), reason.into(), message.into());
        assert_eq!(database("Running"), told("True", "Drifted", "spec.volume differs"));
        assert_eq!(database(""), told("False", "Drifted", "spec.volume differs"));
        let failed = "its operator says CreateFailed; it differs from the policy: spec.volume differs";
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
            let ready = database_ready(&Standing::Ours(running.clone()), Some("api-credentials"), template);
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
            let ready = autoscaler_ready(&Standing::Theirs(theirs));
            (ready.status, ready.reason, ready.message)
        };
        let told = |status: &str, reason: &str, message: &str| (status.into(), reason.into(), message.into());
        assert_eq!(of("True", ""), told("True", "Yielded", "mine, which is its author's, serves"));
        assert_eq!(
            of("False", "AmbiguousSelector"),
            told("False", "AmbiguousSelector", "mine, which is its author's: why")
        );
        let budget = |spec: Value| {
            let ready = budget_ready(&Standing::Theirs(json!({"metadata": {"name": "mine"}, "spec": spec})));
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
            let standing = Standing::Elsewhere(found, "container api sets PGHOST".into());
            let ready = database_ready(&standing, None, &led_to("elsewhere"));
            (ready.status, ready.reason, ready.message)
        };
        let own = |message: &str| ("True".into(), "OwnDatabase".into(), message.into());
        assert_eq!(told(None), own("container api sets PGHOST"));
        let ours = json!({"kind": "postgresql", "metadata": {"name": "acid-api"}});
        assert_eq!(told(Some(ours)), own("container api sets PGHOST; acid-api is left as it is"));
    }

    #[test]
    fn why_pods_wait_is_told() {
        let told = |standing: Standing| {
            let ready = database_ready(&standing, Some("api-credentials"), &led_to("acid-api"));
            (ready.status, ready.reason, ready.message)
        };
        let database =
            json!({"apiVersion": "acid.zalan.do/v1", "kind": "postgresql", "metadata": {"name": "acid-api"}});
        let message = "its operator has not looked at it yet: does it run? Until it makes the Secret api-credentials, pods \
                       wait for that";
        assert_eq!(told(Standing::Ours(database.clone())), ("False".into(), "Pending".into(), message.into()));
        let mut creating = database;
        creating["status"] = json!({"PostgresClusterStatus": "Creating"});
        let message = "its operator says Creating";
        assert_eq!(told(Standing::Ours(creating)), ("False".into(), "Creating".into(), message.into()));
        let external = Standing::External(json!({"kind": "Secret", "metadata": {"name": "s"}}));
        let message = "the Secret s is bound; where it is not there yet, pods wait for it";
        assert_eq!(told(external), ("True".into(), "External".into(), message.into()));
    }
}
