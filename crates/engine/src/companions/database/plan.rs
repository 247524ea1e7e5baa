//! Plans the actions for the database of a workload. After its creation, only users, databases and annotations are added to it.

use serde_json::{Map, Value, json};

use super::Databases;
use crate::companions::Wanted;
use crate::companions::plan::{Action, CompanionPlan, CompanionState, Observed, is_managed};
use crate::quantity::fields::Fields;
use crate::workload::WorkloadRef;

/// Plans the actions for the database of a workload.
pub(super) fn plan(workload: &WorkloadRef, wanted: &Wanted, observed: &Observed) -> CompanionPlan {
    match (wanted, observed.of(&Databases).first()) {
        (Wanted::Theirs(object), _) => CompanionState::External(object.clone()).into(),
        (Wanted::Object(object), None) => {
            CompanionPlan { actions: vec![Action::Create(object.clone())], state: CompanionState::Ours(object.clone()) }
        }
        (Wanted::Object(_), Some(found)) if !is_managed(found, workload) => {
            let message = "a database with that name exists and is not managed by Tidegate".to_owned();
            CompanionState::Impossible("NameTaken", message).into()
        }
        (Wanted::Object(object), Some(found)) => {
            let state = match drift(object, found) {
                Some(drifted) => CompanionState::Drifted(found.clone(), drifted),
                None => CompanionState::Ours(found.clone()),
            };
            CompanionPlan { actions: additions(object, found).map(Action::Merge).into_iter().collect(), state }
        }
        (Wanted::Impossible { reason, message }, _) => CompanionState::Impossible(reason, message.clone()).into(),
        (Wanted::Elsewhere(message), found) => {
            let managed = found.filter(|found| is_managed(found, workload)).cloned();
            CompanionState::Elsewhere(managed, message.clone()).into()
        }
        (Wanted::Declined | Wanted::Nothing, Some(found)) if is_managed(found, workload) => {
            CompanionState::Unmanaged(found.clone()).into()
        }
        (Wanted::Declined | Wanted::Harmful { .. } | Wanted::Nothing, _) => CompanionPlan::default(),
    }
}

/// The fields that are only added to.
const ADDED: [&str; 3] = ["users", "databases", "preparedDatabases"];

/// Returns the users, databases and annotations that a provider's object lacks, as a merge patch. Existing ones are not
/// changed.
fn additions(wanted: &Value, found: &Value) -> Option<Value> {
    let lacking = |wanted: &Value, found: &Value, field: &str| {
        let wanted = wanted[field].as_object()?;
        let missing = wanted.iter().filter(|(name, _)| found[field][*name].is_null());
        let missing: Map<String, Value> = missing.map(|(name, value)| (name.clone(), value.clone())).collect();
        (!missing.is_empty()).then(|| (field.to_owned(), Value::Object(missing)))
    };
    let spec = ADDED.into_iter().filter_map(|field| lacking(&wanted["spec"], &found["spec"], field));
    let spec: Map<String, Value> = spec.collect();
    let annotations = lacking(&wanted["metadata"], &found["metadata"], "annotations");
    if spec.is_empty() && annotations.is_none() {
        return None;
    }
    let identity = ["name", "namespace"].map(|field| (field.to_owned(), wanted["metadata"][field].clone()));
    let metadata: Map<String, Value> = identity.into_iter().chain(annotations).collect();
    let mut patch = json!({"apiVersion": wanted["apiVersion"], "kind": wanted["kind"], "metadata": metadata});
    if !spec.is_empty() {
        patch["spec"] = spec.into();
    }
    Some(patch)
}

/// Returns a message about the fields in which a database differs from the policy.
fn drift(wanted: &Value, found: &Value) -> Option<String> {
    let fields = wanted["spec"].as_object()?.iter().filter(|(field, _)| !ADDED.contains(&field.as_str()));
    let of_spec = Fields::for_object(wanted).below("spec");
    let drifted: Vec<String> = fields
        .filter(|(field, value)| !of_spec.below(field).contain(&found["spec"][*field], value))
        .map(|(field, value)| format!("spec.{field} is {}, the policy has {value}", found["spec"][field]))
        .collect();
    (!drifted.is_empty()).then(|| drifted.join("; "))
}
