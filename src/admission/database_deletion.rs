//! Reviews of the deletion of databases, if enabled: one that a running model server is bound to is not deleted by
//! mistake.

use serde_json::Value;

use super::{Answer, BadReview, Envelope};
use tidegate_engine::companions::database::api_of;
use tidegate_engine::facts::{Facts, User};
use tidegate_engine::workload::WorkloadRef;

/// Answers a review of the deletion of a database.
///
/// # Errors
/// If the body is not a valid review.
pub fn answer(body: &[u8], facts: &Facts) -> Result<Vec<u8>, BadReview> {
    let request = serde_json::from_slice::<Envelope<Value>>(body).map_err(BadReview::Malformed)?.request()?;
    let is_collected = User::named(&request.user_info.username).is_garbage_collector();
    let user = request.old_object.as_ref().filter(|_| request.operation == "DELETE" && !is_collected);
    let user = user.and_then(|database| user_of(database, facts));
    Ok(match user {
        None => Answer::allow(&request.uid),
        Some(WorkloadRef { kind, name, .. }) => {
            let message = format!(
                "tidegate refuses to delete {} {}: model server {kind}/{name} uses it, and its data would be lost. Delete \
                 the model server first, or remove the label app.kubernetes.io/managed-by from the database",
                request.kind.kind, request.name
            );
            Answer::refuse(&request.uid, message, Vec::new())
        }
    }
    .encode())
}

/// Returns the model server that uses a database; none in a namespace that is being deleted.
fn user_of(database: &Value, facts: &Facts) -> Option<WorkloadRef> {
    let metadata = &database["metadata"];
    let namespace = metadata["namespace"].as_str()?;
    let is_terminating = facts.namespaces.get(namespace).is_none_or(|namespace| namespace.terminating);
    if is_terminating || !metadata["deletionTimestamp"].is_null() {
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

    /// The message of the refusal to delete a database; none if it is allowed.
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
    fn refuses_to_delete_a_database_in_use() {
        let message = refused(&json!({}), &used()).unwrap();
        let expected = "tidegate refuses to delete postgresql acid-api: model server Deployment/api uses it";
        assert!(message.starts_with(expected), "{message}");
        assert_eq!(refused(&json!({}), &facts()), None, "no model server uses it");
    }

    #[test]
    fn allows_everything_else() {
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
        let mut terminating = used();
        terminating.namespaces.get_mut("ml").unwrap().terminating = true;
        assert_eq!(refused(&json!({}), &terminating), None);
    }
}
