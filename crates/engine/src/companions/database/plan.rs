//! What to do about the database of a workload. Once it is made, users and databases are added to it, and nothing else.

use serde_json::{Map, Value, json};

use super::Databases;
use crate::companions::Wanted;
use crate::companions::plan::{Action, CompanionPlan, CompanionState, Observed, is_ours};
use crate::quantity::fields::Fields;
use crate::workload::WorkloadRef;

/// Plans what to do about the database of a workload.
pub(super) fn plan(workload: &WorkloadRef, wanted: &Wanted, observed: &Observed) -> CompanionPlan {
    match (wanted, observed.of(&Databases).first()) {
        (Wanted::Theirs(object), _) => CompanionState::External(object.clone()).into(),
        (Wanted::Object(object), None) => {
            CompanionPlan { actions: vec![Action::Create(object.clone())], state: CompanionState::Ours(object.clone()) }
        }
        (Wanted::Object(_), Some(found)) if !is_ours(found, workload) => {
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
            let ours = found.filter(|found| is_ours(found, workload)).cloned();
            CompanionState::Elsewhere(ours, message.clone()).into()
        }
        (Wanted::Declined | Wanted::Nothing, Some(found)) if is_ours(found, workload) => {
            CompanionState::Unmanaged(found.clone()).into()
        }
        (Wanted::Declined | Wanted::Nothing, _) => CompanionPlan::default(),
    }
}

/// What is only ever added to a database.
const ADDED: [&str; 3] = ["users", "databases", "preparedDatabases"];

/// Returns the users and databases that a provider's object lacks, as an object to merge into it.
fn additions(wanted: &Value, found: &Value) -> Option<Value> {
    let lacking = |field: &str| {
        let wanted = wanted["spec"][field].as_object()?;
        let missing = wanted.iter().filter(|(name, _)| found["spec"][field][*name].is_null());
        let missing: Map<String, Value> = missing.map(|(name, value)| (name.clone(), value.clone())).collect();
        (!missing.is_empty()).then(|| (field.to_owned(), Value::Object(missing)))
    };
    let spec: Map<String, Value> = ADDED.into_iter().filter_map(lacking).collect();
    let (name, namespace) = (&wanted["metadata"]["name"], &wanted["metadata"]["namespace"]);
    (!spec.is_empty()).then(|| {
        json!({
            "apiVersion": wanted["apiVersion"], "kind": wanted["kind"],
            "metadata": {"name": name, "namespace": namespace}, "spec": spec
        })
    })
}

/// Names the fields in which a database is not as the policy has it.
fn drift(wanted: &Value, found: &Value) -> Option<String> {
    let fields = wanted["spec"].as_object()?.iter().filter(|(field, _)| !ADDED.contains(&field.as_str()));
    let of_spec = Fields::for_object(wanted).below("spec");
    let drifted: Vec<String> = fields
        .filter(|(field, value)| !of_spec.below(field).contain(&found["spec"][*field], value))
        .map(|(field, value)| format!("spec.{field} is {}, the policy has {value}", found["spec"][field]))
        .collect();
    (!drifted.is_empty()).then(|| drifted.join("; "))
}
