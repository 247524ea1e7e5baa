//! Gives up the ownership of `spec.replicas` that scaling creates.
//!
//! Whoever scales a workload by its `scale` subresource owns the field from then on, and a server-side apply of a
//! manifest with `replicas` fails with a conflict before any webhook is called. Without that owner it succeeds, and the
//! mutating webhook keeps the live number.
//!
//! <https://kubernetes.io/docs/reference/using-api/server-side-apply/#transferring-ownership>

use json_patch::jsonptr::PointerBuf;
use json_patch::{Patch, PatchOperation, RemoveOperation, TestOperation};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::DynamicObject;
use serde_json::{Value, json};
use tracing::debug;

use super::apply::{ApplyError, Writer, get, patch};

/// The field in an entry of `metadata.managedFields`, whose values are empty objects.
const REPLICAS: [&str; 3] = ["fieldsV1", "f:spec", "f:replicas"];

/// Returns whether an entry of `metadata.managedFields` is an owner of `spec.replicas` by the `scale` subresource.
pub(super) fn is_of_scaling(entry: &ManagedFieldsEntry) -> bool {
    let fields = entry.fields_v1.as_ref().map_or(&Value::Null, |fields| &fields.0);
    entry.operation.as_deref() == Some("Update")
        && entry.subresource.as_deref() == Some("scale")
        && fields["f:spec"]["f:replicas"].is_object()
}

/// Gives up the ownership, in the stored object. If it changes meanwhile, nothing is done: the change is watched, and
/// the object reconciled again.
pub(super) async fn share(object: &Value, writer: &Writer) -> Result<(), ApplyError> {
    let Some(stored) = get(writer, object).await? else { return Ok(()) };
    let Some(release) = release(&stored) else { return Ok(()) };
    match patch(writer, object, release).await {
        Err(ApplyError::Refused { source, .. }) if is_outdated(&source) => {
            debug!(%source, "the workload has changed; its owners are looked at again");
            Ok(())
        }
        result => result,
    }
}

/// Returns whether the object has changed since it was read, or is gone.
fn is_outdated(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409 | 422))
}

/// Returns the patch that removes the first owner by scaling: its entry, or the field if the entry has others.
fn release(object: &DynamicObject) -> Option<Patch> {
    let managers = object.metadata.managed_fields.as_deref()?;
    let place = managers.iter().position(is_of_scaling)?;
    let (entry, index) = (serde_json::to_value(&managers[place]).ok()?, place.to_string());
    let path = |below: &[&str]| {
        PointerBuf::from_tokens(["metadata", "managedFields", &index].into_iter().chain(below.iter().copied()))
    };
    let has_others = entry["fieldsV1"] != json!({"f:spec": {"f:replicas": {}}});
    let removed = path(if has_others { &REPLICAS } else { &[] });
    Some(Patch(vec![
        PatchOperation::Test(TestOperation { path: path(&[]), value: entry }),
        PatchOperation::Remove(RemoveOperation { path: removed }),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(more: &Value) -> Value {
        let mut entry = json!({
            "manager": "kube-controller-manager", "operation": "Update", "subresource": "scale", "apiVersion": "apps/v1",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}
        });
        json_patch::merge(&mut entry, more);
        entry
    }

    /// Returns the managed fields once the ownership is given up; null if nothing changes.
    fn released(managers: &[Value]) -> Value {
        let object = json!({"metadata": {"name": "api", "managedFields": managers}});
        let Some(patch) = release(&serde_json::from_value(object.clone()).unwrap()) else { return Value::Null };
        let mut object = object;
        json_patch::patch(&mut object, &patch).unwrap();
        object["metadata"]["managedFields"].take()
    }

    #[test]
    fn removes_only_the_owner_by_scaling() {
        let author = entry(&json!({"manager": "helm", "operation": "Apply", "subresource": null}));
        let status = entry(&json!({"subresource": "status"}));
        let others = [author.clone(), status.clone()];
        assert_eq!(released(&others), Value::Null);
        assert_eq!(released(&[author.clone(), entry(&json!({})), status.clone()]), json!(others));
        assert_eq!(released(&[]), Value::Null);
    }

    #[test]
    fn keeps_other_fields_of_the_owner() {
        let with_label = entry(&json!({"fieldsV1": {"f:metadata": {"f:labels": {}}}}));
        let expected = entry(&json!({"fieldsV1": {"f:metadata": {"f:labels": {}}, "f:spec": {"f:replicas": null}}}));
        assert_eq!(released(&[with_label]), json!([expected]));
    }
}
