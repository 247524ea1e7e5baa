//! Reviews of deleting databases, where an installation asks for that: one that a running model server is bound to is not
//! deleted by mistake.

use serde_json::Value;

use super::{Answer, BadReview, Envelope};
use tidegate_engine::companions::database::api_of;
use tidegate_engine::facts::{Facts, User};
use tidegate_engine::workload::WorkloadRef;

/// Answers a review of deleting a database.
///
/// # Errors
/// Says why the body is no review that could be answered.
pub fn answer(body: &[u8], facts: &Facts) -> Result<Vec<u8>, BadReview> {
    let request = serde_json::from_slice::<Envelope<Value>>(body).map_err(BadReview::Malformed)?.request()?;
    let is_collected = User::named(&request.user_info.username).is_garbage_collector();
    let user = request.old_object.as_ref().filter(|_| request.operation == "DELETE" && !is_collected);
    let user = user.and_then(|database| user_of(database, facts));
    Ok(match user {
        None => Answer::allow(&request.uid),
        Some(WorkloadRef { kind, name, .. }) => {
            let told = format!(
                "tidegate refuses to delete {} {}: the model server {kind}/{name} runs with it, and its data would be gone. \
                 Delete the model server first, or take the label app.kubernetes.io/managed-by off the database",
                request.kind.kind, request.name
            );
            Answer::refuse(&request.uid, told, Vec::new())
        }
    }
    .encode())
}

/// Returns the model server that runs with a database; none in a namespace that goes away as a whole.
fn user_of(database: &Value, facts: &Facts) -> Option<WorkloadRef> {
    let metadata = &database["metadata"];
    let namespace = metadata["namespace"].as_str()?;
    let goes_away = facts.namespaces.get(namespace).is_none_or(|namespace| namespace.terminating);
    if goes_away || !metadata["deletionTimestamp"].is_null() {
        return None;
    }
    let used = (api_of(database)?.provider, metadata["name"].as_str()?);
    let mut in_namespace = facts.used_databases.iter().filter(|(workload, _)| workload.namespace == namespace);
    let found = in_namespace.find(|(_, databases)| databases.iter().any(|(of, name)| (*of, name.as_str()) == used));
    found.map(|(workload, _)| workload.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use tidegate_engine::api::DatabaseProvider;
    use tidegate_engine::testing::{facts, reference};

    fn used() -> Facts {
        let databases = vec![(DatabaseProvider::Zalando, "acid-api".to_owned())];
        Facts { used_databases: [(reference(), databases)].into(), ..facts() }
    }

    /// What is said of deleting a database; nothing where it may be.
    fn refused(change: &Value, facts: &Facts) -> Option<String> {
        let database = json!({"apiVersion": "acid.zalan.do/v1", "kind": "postgresql",
            "metadata": {"name": "acid-api", "namespace": "ml"}});
        let mut request = json!({"uid": "u-1", "operation": "DELETE", "name": "acid-api", "namespace": "ml",
            "kind": {"group": "acid.zalan.do", "kind": "postgresql"}, "oldObject": database});
        json_patch::merge(&mut request, change);
        let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
        let answer: Value = serde_json::from_slice(&answer(body.to_string().as_bytes(), facts).unwrap()).unwrap();
        let response = &answer["response"];
        assert_eq!(response["uid"], "u-1");
        (response["allowed"] == false).then(|| response["status"]["message"].as_str().unwrap().to_owned())
    }

    #[test]
    fn a_database_that_a_model_server_runs_with_is_kept() {
        let told = refused(&json!({}), &used()).unwrap();
        let begins = "tidegate refuses to delete postgresql acid-api: the model server Deployment/api runs with it";
        assert!(told.starts_with(begins), "{told}");
        assert_eq!(refused(&json!({}), &facts()), None, "nobody runs with it");
    }

    #[test]
    fn nothing_else_is_stood_in_the_way_of() {
        for change in [
            json!({"operation": "UPDATE"}),
            json!({"oldObject": {"metadata": {"name": "acid-web"}}}),
            json!({"oldObject": {"metadata": {"namespace": "unknown"}}}),
            json!({"oldObject": {"apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster"}}),
            json!({"oldObject": {"metadata": {"deletionTimestamp": "2027-01-01T00:00:00Z"}}}),
            json!({"oldObject": null}),
            json!({"userInfo": {"username": "system:serviceaccount:kube-system:generic-garbage-collector"}}),
        ] {
            assert_eq!(refused(&change, &used()), None, "{change}");
        }
        let mut going = used();
        going.namespaces.get_mut("ml").unwrap().terminating = true;
        assert_eq!(refused(&json!({}), &going), None);
    }
}
