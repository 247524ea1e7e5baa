//! Databases whose workload has gone, or no longer uses them: they stay, and a label tells since when. When the workload
//! comes back it finds its data, and the label goes.

use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::{Value, json};
use tracing::warn;

use super::apply::{ApplyError, apply, look};
use super::{Context, databases};
use crate::report;
use tidegate_engine::api::ORPHANED_SINCE_LABEL;
use tidegate_engine::companions::database::{Databases, api_of, is_bound};
use tidegate_engine::companions::plan::Action;
use tidegate_engine::companions::{Companions, Precedence, Wanted};
use tidegate_engine::kind::Kind;
use tidegate_engine::workload::{Workload, WorkloadRef};

/// Marks the databases of a workload that is there: those that it does not use any more, and no longer those that it does.
pub(super) async fn of_workload(
    workload: &Workload<'_>,
    companions: &Companions,
    context: &Context,
) -> Result<(), ApplyError> {
    let databases = made_for(&workload.reference(), context);
    note_used(workload, companions, &databases, context);
    for database in databases {
        let is_in_use =
            is_wanted(&database, companions.of(&Databases)) || is_led_to(&database, companions, workload.template());
        mark(&database, is_in_use, context).await?;
    }
    Ok(())
}

/// Notes which databases a workload runs with: while it does, they may not be deleted where an installation guards them.
fn note_used(workload: &Workload, companions: &Companions, databases: &[Value], context: &Context) {
    let runs = workload.object()["status"]["replicas"].as_i64().unwrap_or_default() > 0;
    let used = databases.iter().filter(|database| runs && is_led_to(database, companions, workload.template()));
    let named =
        |database: &Value| Some((api_of(database)?.provider, database["metadata"]["name"].as_str()?.to_owned()));
    let (reference, used): (_, Vec<_>) = (workload.reference(), used.filter_map(named).collect());
    let known = context.state.read(|_, facts| facts.used_databases.get(&reference).cloned().unwrap_or_default());
    if known != used {
        context.state.note(|facts| {
            if used.is_empty() {
                facts.used_databases.remove(&reference);
            } else {
                facts.used_databases.insert(reference, used);
            }
        });
    }
}

/// Tells whether a template leads to a database, whose Secret may have a name that only the policy knows.
fn is_led_to(database: &Value, companions: &Companions, template: &Value) -> bool {
    let binding = companions.binding.as_ref().filter(|binding| database["metadata"]["name"] == *binding.name);
    is_bound(database, binding.map(|binding| &*binding.secret), template)
}

/// Notes whether the pods of a workload are led to a database that is not there yet: it comes before others when a place is
/// free, and others are looked at once it waits no longer.
pub(super) fn note_precedence(workload: &WorkloadRef, turn: Precedence, context: &Context) {
    let most = if let Precedence::First(most) = turn { Some(most) } else { None };
    let before = context.state.read(|_, facts| facts.awaiting.get(workload).copied());
    if before == most {
        return;
    }
    context.state.note(|facts| match most {
        Some(most) => facts.awaiting.insert(workload.clone(), most),
        None => facts.awaiting.remove(workload),
    });
    if most.is_none() {
        context.queue.push_namespace(&workload.namespace);
    }
}

/// Marks the databases of a workload that is followed no longer. One that is there all the same may still use them.
pub(super) async fn of_former(workload: &WorkloadRef, context: &Context) {
    // Several watches may tell that it has gone: the second to look sees what the first has marked.
    let _turn = context.databases.lock().await;
    let databases = made_for(workload, context);
    if context.state.read(|_, facts| facts.used_databases.contains_key(workload)) {
        context.state.note(|facts| facts.used_databases.remove(workload));
    }
    let goes_away = context
        .state
        .read(|_, facts| facts.namespaces.get(&workload.namespace).is_none_or(|namespace| namespace.terminating));
    if databases.is_empty() || goes_away || !context.writer.leads() {
        return;
    }
    let metadata = json!({"name": workload.name, "namespace": workload.namespace});
    let Some(kind) = Kind::named(&workload.kind) else { return };
    let named = json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": metadata});
    let result = async {
        let found = look(&context.writer, &named).await?;
        for database in &databases {
            let leads = |found: &DynamicObject| {
                let mut templates = kind.templates.iter().filter_map(|pointer| found.data.pointer(pointer));
                templates.any(|template| is_bound(database, None, template))
            };
            let is_in_use = found.as_ref().is_some_and(leads);
            mark(database, is_in_use, context).await?;
        }
        Ok::<(), ApplyError>(())
    };
    let (namespace, name) = (&workload.namespace, &workload.name);
    if let Err(error) = result.await {
        warn!(namespace, name, error = report::chain(&error), "a database that nobody uses was not marked");
    }
}

fn made_for(workload: &WorkloadRef, context: &Context) -> Vec<Value> {
    context.state.read(|_, facts| context.objects.databases_of(facts.databases_of(workload), &workload.namespace))
}

async fn mark(database: &Value, is_in_use: bool, context: &Context) -> Result<(), ApplyError> {
    let Some(label) = marked(database, is_in_use, Timestamp::now()) else { return Ok(()) };
    let metadata = &database["metadata"];
    let labels = json!({ORPHANED_SINCE_LABEL: label});
    let change = json!({
        "apiVersion": database["apiVersion"], "kind": database["kind"],
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "labels": labels}
    });
    apply(&context.writer, &Action::Merge(change)).await?;
    note_marked(database, &label, context);
    Ok(())
}

/// Notes the label before the watch tells of it, unless that has told of something newer.
fn note_marked(database: &Value, label: &Value, context: &Context) {
    let Some((api, key)) = databases::identity(database) else { return };
    let (group, _, kind) = api.kind;
    context.objects.note(|kinds| {
        let known = kinds.of(group, kind);
        if known.get(&key).as_ref() == Some(database) {
            let mut marked = database.clone();
            marked["metadata"]["labels"][ORPHANED_SINCE_LABEL] = label.clone();
            known.insert(key, &marked);
        }
    });
}

/// Tells whether a database is what is wanted, or may be as soon as that can be had.
fn is_wanted(database: &Value, wanted: &Wanted) -> bool {
    match wanted {
        Wanted::Object(object) => {
            object["kind"] == database["kind"] && object["metadata"]["name"] == database["metadata"]["name"]
        }
        Wanted::Impossible { .. } => true,
        Wanted::Theirs(_) | Wanted::Declined | Wanted::Elsewhere(_) | Wanted::Nothing => false,
    }
}

/// Returns what the label is to be so that it says whether a database is used: null where it is to go, none where it is right.
fn marked(database: &Value, is_in_use: bool, now: Timestamp) -> Option<Value> {
    match (is_in_use, database["metadata"]["labels"][ORPHANED_SINCE_LABEL].is_null()) {
        (true, false) => Some(Value::Null),
        (false, true) => Some(now.strftime("%Y-%m-%dT%H-%M-%SZ").to_string().into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(labels: &Value) -> Value {
        json!({"apiVersion": "acid.zalan.do/v1", "kind": "postgresql",
            "metadata": {"name": "acid-api", "namespace": "ml", "labels": labels}})
    }

    #[test]
    fn the_label_comes_once_and_goes_when_the_workload_is_back() {
        let label = |labels: Value, is_in_use: bool| marked(&database(&labels), is_in_use, Timestamp::UNIX_EPOCH);
        let orphaned = json!({ORPHANED_SINCE_LABEL: "2020-01-01T00-00-00Z"});
        assert_eq!(label(json!({}), false), Some(json!("1970-01-01T00-00-00Z")));
        assert_eq!(label(orphaned.clone(), false), None, "it is so since then");
        assert_eq!(label(orphaned, true), Some(Value::Null));
        assert_eq!(label(json!({}), true), None);
    }

    #[test]
    fn a_database_that_cannot_be_had_yet_is_wanted_all_the_same() {
        let ours = database(&json!({}));
        let cluster = json!({"kind": "Cluster", "metadata": {"name": "acid-api"}});
        assert!(is_wanted(&ours, &Wanted::Object(ours.clone())));
        assert!(is_wanted(&ours, &Wanted::Impossible { reason: "NotBound", message: String::new() }));
        assert!(!is_wanted(&ours, &Wanted::Nothing) && !is_wanted(&ours, &Wanted::Object(cluster)));
        assert!(!is_wanted(&ours, &Wanted::Theirs(json!({"kind": "Secret"}))));
        assert!(!is_wanted(&ours, &Wanted::Elsewhere(String::new())));
    }
}
