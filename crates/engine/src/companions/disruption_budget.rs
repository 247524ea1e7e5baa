//! The PodDisruptionBudget of a model server. It limits a drain to one pod at a time, since each pod takes minutes to
//! load its model elsewhere.
//!
//! <https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/pod-disruption-budget-v1/>

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::companion::{Asked, Described, ManagedKind, ObjectRef, Watched};
use super::condition::{self, name_of};
use super::plan::{CompanionPlan, CompanionState, Observed, deletions, is_managed, kept};
use super::{Companion, MANAGED_BY_LABEL, MANAGER, WORKLOAD_ANNOTATION, Wanted, autoscaler, multi_node, names, owner};
use crate::api::{self, Condition, DisruptionBudgetStatus, ModelServerStatus};
use crate::facts::{Facts, PodSelector, SharedMap};
use crate::policy::{Effective, Merged, Parsed, Section, SettingsError, field};
use crate::workload::{Workload, WorkloadRef};

/// The settings of PodDisruptionBudgets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetSettings {
    /// How many pods a drain may evict at a time.
    pub max_unavailable: i32,
}

/// The disruption budget companion.
pub struct DisruptionBudget;

impl Section for DisruptionBudget {
    fn read(&self, merged: &Merged) -> Result<Option<Parsed>, SettingsError> {
        let written: Option<api::DisruptionBudget> = field(merged.values(), "disruptionBudget");
        let enabled = written.filter(|written| written.enabled.unwrap_or(true));
        Ok(enabled.map(|written| Parsed::new(BudgetSettings { max_unavailable: written.max_unavailable.unwrap_or(1) })))
    }
}

impl Companion for DisruptionBudget {
    fn name(&self) -> &'static str {
        "DisruptionBudget"
    }

    fn title(&self) -> &'static str {
        "a disruption budget"
    }

    fn field(&self) -> &'static str {
        "disruptionBudget"
    }

    fn wanted(&self, asked: &Asked) -> Wanted {
        wanted(asked)
    }

    fn around(&self, workload: &Workload, _: &Wanted, facts: &Facts) -> Vec<ObjectRef> {
        let (kind, name) = (workload.kind(), workload.name());
        let managed = [names::disruption_budget(kind, name), names::former_disruption_budget(kind, name)];
        let labels = &workload.template()["metadata"]["labels"];
        let for_its_pods = facts.budgets_for(workload.namespace(), labels).map(str::to_owned);
        let all: BTreeSet<String> = managed.into_iter().chain(for_its_pods).collect();
        all.into_iter().map(|name| ObjectRef { group: WATCHED.group, kind: WATCHED.kind, name }).collect()
    }

    fn plan(&self, workload: &WorkloadRef, wanted: &Wanted, observed: &Observed, is_settled: bool) -> CompanionPlan {
        plan(workload, wanted, observed, is_settled)
    }

    fn condition(&self, state: &CompanionState, _: &Described) -> Condition {
        ready(state)
    }

    fn describe(&self, state: &CompanionState, status: &mut ModelServerStatus) {
        status.disruption_budget = described(state);
    }

    fn managed_kinds(&self) -> &'static [ManagedKind] {
        &[ManagedKind { group: "policy", plural: "poddisruptionbudgets", is_built_in: true }]
    }

    fn watched(&self) -> Option<&'static Watched> {
        Some(&WATCHED)
    }
}

/// The budgets in the cluster. Rules check whether one selects the pods of a workload.
static WATCHED: Watched = Watched {
    group: "policy",
    version: "v1",
    kind: "PodDisruptionBudget",
    begin: |facts| facts.budgets = Some(SharedMap::default()),
    note: |facts, namespace, name, budget| {
        let inside = facts.budgets.get_or_insert_default().entry(namespace.to_owned()).or_default();
        match budget {
            Some(budget) => drop(inside.insert(name.to_owned(), PodSelector::read(budget))),
            None => drop(inside.remove(name)),
        }
    },
};

/// Returns the status of the existing budget.
fn described(state: &CompanionState) -> Option<DisruptionBudgetStatus> {
    let (found, managed_by) = match state {
        CompanionState::Ours(found) | CompanionState::Unmanaged(found) => (found, MANAGER),
        CompanionState::Theirs(found) => (found, "user"),
        _ => return None,
    };
    Some(DisruptionBudgetStatus { name: name_of(found), managed_by: managed_by.to_owned() })
}

/// Returns the condition of a budget.
fn ready(state: &CompanionState) -> Condition {
    if *state == CompanionState::Absent {
        let message = "no policy in `warn` or `enforce` asks for a disruption budget, or there is only one replica";
        return Condition::new("DisruptionBudgetReady", "True", "NotWanted", message);
    }
    condition::ready(&DisruptionBudget, state, |found| {
        if allows_none(&found["spec"]) {
            let message = format!("{} allows no evictions: nodes cannot be drained", name_of(found));
            return Condition::new("DisruptionBudgetReady", "False", "NoPodMayGo", message);
        }
        let pods = match found["spec"]["maxUnavailable"].as_i64() {
            Some(most @ 2..) => format!("{most} pods"),
            _ => "one pod".to_owned(),
        };
        let message = format!("{} allows the eviction of {pods} at a time", name_of(found));
        Condition::new("DisruptionBudgetReady", "True", "Made", message)
    })
}

/// Returns whether a budget never allows an eviction, however many pods are ready.
/// <https://kubernetes.io/docs/tasks/run-application/configure-pdb/#think-about-how-your-application-reacts-to-disruptions>
fn allows_none(budget: &Value) -> bool {
    let most = &budget["maxUnavailable"];
    *most == 0 || *most == "0" || *most == "0%" || budget["minAvailable"] == "100%"
}

/// Plans what to do about the budget of a workload.
fn plan(workload: &WorkloadRef, wanted: &Wanted, observed: &Observed, is_settled: bool) -> CompanionPlan {
    let (kind, name) = (&workload.kind, &workload.name);
    let names = [names::disruption_budget(kind, name), names::former_disruption_budget(kind, name)];
    let has_our_name = |found: &Value| names.iter().any(|name| found["metadata"]["name"] == **name);
    let (managed, others): (Vec<&Value>, Vec<&Value>) =
        observed.of(&DisruptionBudget).iter().partition(|found| is_managed(found, workload) && has_our_name(found));
    match (wanted, managed.first(), others.first()) {
        // The API server does not evict a pod with two budgets.
        (_, _, Some(user_managed)) => {
            CompanionPlan { actions: deletions(managed), state: CompanionState::Theirs((*user_managed).clone()) }
        }
        (Wanted::Harmful { reason, message }, ..) => {
            CompanionPlan { actions: deletions(managed), state: CompanionState::Harmful(reason, message.clone()) }
        }
        (Wanted::Object(_), None, _) if !is_settled => {
            CompanionState::Pending("it will be created unless the user creates one first".to_owned()).into()
        }
        (Wanted::Object(object), found, _) => kept(object, found.copied()),
        (_, Some(found), _) => CompanionState::Unmanaged((*found).clone()).into(),
        (_, None, _) => CompanionPlan::default(),
    }
}

/// Returns the disruption budget settings of the policies.
#[must_use]
pub fn settings(effective: &Effective) -> Option<&BudgetSettings> {
    effective.section()
}

/// Plans the budget of a workload that may have two or more replicas. For a single replica, a budget has no use.
fn wanted(asked: &Asked) -> Wanted {
    let Asked { workload, recognised, effective, facts, .. } = asked;
    let Some(settings) = settings(effective) else { return Wanted::Nothing };
    let (_, most) = autoscaler::replicas(effective, workload, recognised, facts);
    if most < 2 {
        return Wanted::Nothing;
    }
    let kind = workload.known_kind();
    if let Some(sign) = recognised.multi_node.or(kind.group_size.map(|_| kind.kind)) {
        return multi_node(sign, "a disruption budget would count them as copies");
    }
    let selector = workload.spec("selector");
    if !selector.is_object() {
        return Wanted::Nothing;
    }
    Wanted::Object(json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {
            "name": names::disruption_budget(workload.kind(), workload.name()),
            "namespace": workload.namespace(),
            "labels": {MANAGED_BY_LABEL: MANAGER},
            "annotations": {WORKLOAD_ANNOTATION: format!("{}/{}", workload.kind(), workload.name())},
            "ownerReferences": [owner(workload)]
        },
        "spec": {
            "maxUnavailable": settings.max_unavailable,
            // A pod that is not ready serves no requests and must not block draining a node.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": selector
        }
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::testing::{facts, policies, with_container};

    fn planned(spec: &Value, replicas: Value) -> Wanted {
        let mut object = with_container(&json!({}));
        object["spec"]["selector"] = json!({"matchLabels": {"app": "api"}});
        object["spec"]["replicas"] = replicas;
        let policies = policies(&[("serving", spec.clone())]);
        let workload = Workload::view(&object).unwrap();
        let effective = policies.resolve(&workload, &facts()).unwrap();
        let recognition = effective.runtimes().recognise(&workload);
        let (recognised, binding) = (&recognition.view(&workload), &Ok(None));
        let (workload, effective, facts) = (&workload, &*effective, &facts());
        wanted(&Asked { workload, recognised, effective, facts, binding })
    }

    fn is_wanted(spec: &Value, replicas: Value) -> bool {
        matches!(planned(spec, replicas), Wanted::Object(_))
    }

    #[test]
    fn allows_one_eviction_at_a_time() {
        let Wanted::Object(object) = planned(&json!({"disruptionBudget": {}}), json!(2)) else { panic!("a budget") };
        insta::assert_json_snapshot!(object);
    }

    #[test]
    fn skips_workloads_with_a_single_replica() {
        let plain = json!({"disruptionBudget": {}});
        assert!(!is_wanted(&plain, json!(1)) && !is_wanted(&plain, Value::Null) && !is_wanted(&plain, json!(0)));
        let scaled = json!({"disruptionBudget": {}, "autoscaling": {"maxReplicas": 4}});
        assert!(is_wanted(&scaled, json!(1)), "it may have four");
    }

    #[test]
    fn is_enabled_and_disabled_by_a_policy() {
        assert!(!is_wanted(&json!({}), json!(2)));
        assert!(!is_wanted(&json!({"disruptionBudget": {"enabled": false}}), json!(2)));
        let two = json!({"disruptionBudget": {"maxUnavailable": 2}});
        let Wanted::Object(object) = planned(&two, json!(4)) else { panic!("a budget") };
        assert_eq!(object["spec"]["maxUnavailable"], 2);
    }
}
