//! The PodDisruptionBudget of a model server: a drain takes one pod at a time, since each takes minutes to load its model
//! elsewhere.
//!
//! <https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/pod-disruption-budget-v1/>

use serde_json::json;

use super::{MANAGED_BY_LABEL, MANAGER, WORKLOAD_ANNOTATION, Wanted, autoscaler, names, owner};
use crate::api;
use crate::facts::Facts;
use crate::policy::{Effective, Merged, Parsed, Section, SettingsError, field};
use crate::workload::Workload;

/// The PodDisruptionBudget of each model server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetSettings {
    /// How many pods a drain may take at a time.
    pub max_unavailable: i32,
}

/// The disruption budget, as a policy has it.
pub struct DisruptionBudget;

impl Section for DisruptionBudget {
    fn read(&self, merged: &Merged) -> Result<Option<Parsed>, SettingsError> {
        let written: Option<api::DisruptionBudget> = field(merged.values(), "disruptionBudget");
        let enabled = written.filter(|written| written.enabled.unwrap_or(true));
        Ok(enabled.map(|written| Parsed::new(BudgetSettings { max_unavailable: written.max_unavailable.unwrap_or(1) })))
    }
}

/// Returns what the policies say of disruption budgets.
#[must_use]
pub fn settings(effective: &Effective) -> Option<&BudgetSettings> {
    effective.section()
}

/// Plans the budget of a workload that may have two replicas or more. One of a single replica would say nothing.
pub(super) fn wanted(workload: &Workload, effective: &Effective, facts: &Facts) -> Wanted {
    let Some(settings) = settings(effective) else { return Wanted::Nothing };
    let (_, most) = autoscaler::replicas(effective, workload, facts);
    let selector = workload.spec("selector");
    if most < 2 || !selector.is_object() {
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
            // A pod that is not ready serves nobody: it is not to keep a node from being drained.
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
        wanted(&workload, &effective, &facts())
    }

    fn is_wanted(spec: &Value, replicas: Value) -> bool {
        matches!(planned(spec, replicas), Wanted::Object(_))
    }

    #[test]
    fn one_pod_goes_at_a_time() {
        let Wanted::Object(object) = planned(&json!({"disruptionBudget": {}}), json!(2)) else { panic!("a budget") };
        insta::assert_json_snapshot!(object);
    }

    #[test]
    fn what_has_and_will_have_one_replica_gets_none() {
        let plain = json!({"disruptionBudget": {}});
        assert!(!is_wanted(&plain, json!(1)) && !is_wanted(&plain, Value::Null) && !is_wanted(&plain, json!(0)));
        let scaled = json!({"disruptionBudget": {}, "autoscaling": {"maxReplicas": 4}});
        assert!(is_wanted(&scaled, json!(1)), "it may have four");
    }

    #[test]
    fn a_policy_switches_it_on_and_off() {
        assert!(!is_wanted(&json!({}), json!(2)));
        assert!(!is_wanted(&json!({"disruptionBudget": {"enabled": false}}), json!(2)));
        let two = json!({"disruptionBudget": {"maxUnavailable": 2}});
        let Wanted::Object(object) = planned(&two, json!(4)) else { panic!("a budget") };
        assert_eq!(object["spec"]["maxUnavailable"], 2);
    }
}
