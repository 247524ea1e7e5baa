//! Databases whose workload was deleted or no longer uses them: they are kept, with a label that says since when. The
//! label is removed when the workload is back, which finds its data again.

use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::{Value, json};
use tracing::warn;

use super::apply::{ApplyError, apply, get, identity, is_same_object};
use super::{Context, databases};
use crate::report;
use tidegate_engine::api::ORPHANED_SINCE_LABEL;
use tidegate_engine::companions::database::{Databases, api_of, is_bound};
use tidegate_engine::companions::plan::Action;
use tidegate_engine::companions::{Companions, Precedence, Wanted};
use tidegate_engine::kind::Kind;
use tidegate_engine::workload::{Workload, WorkloadRef};

/// Marks the databases that an existing workload no longer uses, and unmarks those that it uses.
pub(super) async fn of_workload(
    workload: &Workload<'_>,
    companions: &Companions,
    context: &Context,
) -> Result<(), ApplyError> {
    let databases = made_for(&workload.reference(), context);
    update_used(workload, companions, &databases, context);
    for database in databases {
        let is_in_use =
            is_wanted(&database, companions.of(&Databases)) || is_bound_to(&database, companions, workload.template());
        mark(&database, is_in_use, context).await?;
    }
    Ok(())
}

/// Updates which databases a running workload uses: with `--guard-databases`, their deletion is refused.
fn update_used(workload: &Workload, companions: &Companions, databases: &[Value], context: &Context) {
    let runs = workload.object()["status"]["replicas"].as_i64().unwrap_or_default() > 0;
    let used = databases.iter().filter(|database| runs && is_bound_to(database, companions, workload.template()));
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

/// Returns whether a pod template is bound to a database, whose Secret may have a name that only the policy knows.
fn is_bound_to(database: &Value, companions: &Companions, template: &Value) -> bool {
    let binding = companions.binding.as_ref().filter(|binding| database["metadata"]["name"] == *binding.name);
    is_bound(database, binding.map(|binding| &*binding.secret), template)
}

/// Updates whether the pods of a workload are bound to a database that does not exist yet: it is created before others
/// under `maxPerNamespace`. The others are queued once the workload no longer waits.
pub(super) fn update_precedence(workload: &WorkloadRef, precedence: Precedence, context: &Context) {
    let most = if let Precedence::First(most) = precedence { Some(most) } else { None };
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

/// Marks the databases of a workload that is no longer watched. If it still exists, it may still use them.
pub(super) async fn of_former(workload: &WorkloadRef, context: &Context) {
    // Several watches may report the deletion: the lock lets the second call see the marks of the first.
    let _lock = context.databases.lock().await;
    let databases = made_for(workload, context);
    if context.state.read(|_, facts| facts.used_databases.contains_key(workload)) {
        context.state.note(|facts| facts.used_databases.remove(workload));
    }
    let is_terminating = context
        .state
        .read(|_, facts| facts.namespaces.get(&workload.namespace).is_none_or(|namespace| namespace.terminating));
    if databases.is_empty() || is_terminating || !context.writer.leads() {
        return;
    }
    let metadata = json!({"name": workload.name, "namespace": workload.namespace});
    let Some(kind) = Kind::named(&workload.kind) else { return };
    let named = json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": metadata});
    let result = async {
        let found = get(&context.writer, &named).await?;
        for database in &databases {
            let is_bound = |found: &DynamicObject| {
                let mut templates = kind.templates.iter().filter_map(|pointer| found.data.pointer(pointer));
                templates.any(|template| is_bound(database, None, template))
            };
            let is_in_use = found.as_ref().is_some_and(is_bound);
            mark(database, is_in_use, context).await?;
        }
        Ok::<(), ApplyError>(())
    };
    let (namespace, name) = (&workload.namespace, &workload.name);
    if let Err(error) = result.await {
        warn!(namespace, name, error = report::chain(&error), "cannot mark an unused database");
    }
}

fn made_for(workload: &WorkloadRef, context: &Context) -> Vec<Value> {
    context.state.read(|_, facts| context.objects.databases_of(facts.databases_of(workload), &workload.namespace))
}

async fn mark(database: &Value, is_in_use: bool, context: &Context) -> Result<(), ApplyError> {
    let Some(label) = marked(database, is_in_use, Timestamp::now()) else { return Ok(()) };
    let mut patch = identity(database);
    patch["metadata"]["labels"] = json!({ORPHANED_SINCE_LABEL: label});
    apply(&context.writer, &Action::Merge(patch)).await?;
    store_label(database, &label, context);
    Ok(())
}

/// Stores the label before the watch sees it, unless the watch has seen a newer version.
fn store_label(database: &Value, label: &Value, context: &Context) {
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

/// Returns whether a database is the requested one, or may be once the request can be fulfilled.
fn is_wanted(database: &Value, wanted: &Wanted) -> bool {
    match wanted {
        Wanted::Object(object) => is_same_object(object, database),
        Wanted::Impossible { .. } => true,
        Wanted::Theirs(_) | Wanted::Declined | Wanted::Harmful { .. } | Wanted::Elsewhere(_) | Wanted::Nothing => false,
    }
}

/// Returns the change of the label for a database that is in use or not: null to remove it, none if it is right.
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
    fn sets_the_label_once_and_removes_it_when_the_workload_is_back() {
        let label = |labels: Value, is_in_use: bool| marked(&database(&labels), is_in_use, Timestamp::UNIX_EPOCH);
        let orphaned = json!({ORPHANED_SINCE_LABEL: "2020-01-01T00-00-00Z"});
        assert_eq!(label(json!({}), false), Some(json!("1970-01-01T00-00-00Z")));
        assert_eq!(label(orphaned.clone(), false), None, "it is set already");
        assert_eq!(label(orphaned, true), Some(Value::Null));
        assert_eq!(label(json!({}), true), None);
    }

    #[test]
    fn a_database_that_cannot_be_created_yet_is_wanted() {
        let own = database(&json!({}));
        let cluster = json!({"kind": "Cluster", "metadata": {"name": "acid-api"}});
        assert!(is_wanted(&own, &Wanted::Object(own.clone())));
        assert!(is_wanted(&own, &Wanted::Impossible { reason: "NotBound", message: String::new() }));
        assert!(!is_wanted(&own, &Wanted::Nothing) && !is_wanted(&own, &Wanted::Object(cluster)));
        assert!(!is_wanted(&own, &Wanted::Theirs(json!({"kind": "Secret"}))));
        assert!(!is_wanted(&own, &Wanted::Elsewhere(String::new())));
    }
}
