//! Rollbacks to an earlier revision of a workload that was admitted: they are allowed although today's policies would
//! refuse the template, since whoever rolls back has no time to mend it.
//!
//! The proof is an object that the workload's controller keeps, a ReplicaSet or ControllerRevision: it has the template,
//! and the receipt with which the template was admitted. A receipt alone proves nothing, because users can write it.

use serde_json::Value;

use super::carry_over::without_injected;
use super::receipt::Receipt;
use crate::digest;
use crate::workload::Workload;

/// Labels and fields of revisions' templates that the workload's template does not have.
const ADDED: [(&str, &str); 2] = [("/metadata/labels", "pod-template-hash"), ("", "$patch")];

/// Returns whether the template of an update has a receipt that fits: only then it may be that of an admitted revision.
#[must_use]
pub fn may_be_rollback(workload: &Workload) -> bool {
    Receipt::read(workload).is_some_and(|receipt| receipt.fits(workload.template()))
}

/// Returns the name of the admitted revision whose template a workload has; none if there is no such revision. Injected
/// values are not compared: they are those of today's policies if the receipt was not restored with the template.
/// Objects of other workloads are ignored.
#[must_use]
pub fn revision_of(workload: &Workload, revisions: &[Value]) -> Option<String> {
    let template = authors_part(workload.template().clone(), &Receipt::read(workload)?);
    let is_same = |revision: &&Value| {
        is_owned(revision, workload) && admitted(revision, workload).is_some_and(|earlier| earlier == template)
    };
    let found = revisions.iter().find(is_same)?;
    Some(found["metadata"]["name"].as_str().unwrap_or_default().to_owned())
}

/// Returns whether the controller keeps a revision for this workload.
fn is_owned(revision: &Value, workload: &Workload) -> bool {
    let (owners, uid) = (revision["metadata"]["ownerReferences"].as_array(), workload.uid());
    let is_owner = |owner: &Value| owner["controller"] == true && owner["uid"] == uid;
    !uid.is_empty() && owners.is_some_and(|owners| owners.iter().any(is_owner))
}

/// Returns the digest of the author's part of a revision's template; none if it was not admitted.
fn admitted(revision: &Value, workload: &Workload) -> Option<String> {
    let mut template = revision.pointer(workload.known_kind().revisions?.template)?.clone();
    for (above, added) in ADDED {
        template.pointer_mut(above).and_then(Value::as_object_mut).map(|fields| fields.remove(added));
    }
    let receipt = Receipt::of(revision).filter(|receipt| receipt.fits(&template))?;
    Some(authors_part(template, &receipt))
}

/// Returns the digest of a template without the values that were injected into it.
fn authors_part(template: Value, receipt: &Receipt) -> String {
    digest::of_template(&without_injected(template, receipt.entries(), &|_| false))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::RECEIPT_ANNOTATION;
    use crate::decision::Injection;
    use crate::policy::PolicyRef;
    use crate::testing::with_container;
    use crate::workload::FieldPath;

    const UID: &str = "7f6c0b1e";

    fn receipt(template: &Value) -> String {
        let mut receipt = Receipt::from_injections(&[]);
        receipt.sign(template);
        receipt.to_string()
    }

    /// Returns a Deployment with an image, and a receipt for its template.
    fn workload(image: &str) -> Value {
        let mut object = with_container(&json!({"image": image}));
        object["metadata"]["uid"] = UID.into();
        object["metadata"]["annotations"] = json!({RECEIPT_ANNOTATION: receipt(&object["spec"]["template"])});
        object
    }

    /// Returns the ReplicaSet of a Deployment, as its controller creates it.
    fn replica_set(workload: &Value, name: &str) -> Value {
        let mut template = workload["spec"]["template"].clone();
        template["metadata"]["labels"]["pod-template-hash"] = "5d9f".into();
        let owner = json!({"kind": "Deployment", "name": "api", "uid": UID, "controller": true});
        json!({
            "kind": "ReplicaSet",
            "metadata": {
                "name": name, "annotations": workload["metadata"]["annotations"], "ownerReferences": [owner]
            },
            "spec": {"template": template}
        })
    }

    fn found(workload: &Value, revisions: &[Value]) -> Option<String> {
        revision_of(&Workload::view(workload).unwrap(), revisions)
    }

    #[test]
    fn finds_the_revision_with_the_template() {
        let (one, two) = (workload("api:latest"), workload("api:2"));
        let revisions = [replica_set(&two, "api-2"), replica_set(&one, "api-1")];
        assert_eq!(found(&one, &revisions), Some("api-1".to_owned()));
        assert_eq!(found(&workload("api:3"), &revisions), None);
        assert!(may_be_rollback(&Workload::view(&one).unwrap()));
    }

    #[test]
    fn injected_values_may_differ() {
        let with_cpu = |cpu: &str| {
            let mut object = with_container(&json!({"image": "api:latest", "resources": {"limits": {"cpu": cpu}}}));
            let injection = Injection {
                path: FieldPath::new(["containers", "api", "resources", "limits", "cpu"]),
                value: cpu.into(),
                policy: PolicyRef { name: "serving".into(), generation: 1 },
            };
            let mut receipt = Receipt::from_injections(&[injection]);
            receipt.sign(&object["spec"]["template"]);
            object["metadata"]["uid"] = UID.into();
            object["metadata"]["annotations"] = json!({RECEIPT_ANNOTATION: receipt.to_string()});
            object
        };
        assert_eq!(found(&with_cpu("2"), &[replica_set(&with_cpu("1"), "api-1")]), Some("api-1".to_owned()));
        let mut declared = with_cpu("2");
        declared["metadata"]["annotations"] = json!({RECEIPT_ANNOTATION: receipt(&declared["spec"]["template"])});
        assert_eq!(
            found(&declared, &[replica_set(&with_cpu("1"), "api-1")]),
            None,
            "the author declares another limit"
        );
    }

    #[test]
    fn a_revision_needs_the_receipt_and_the_owner() {
        let one = workload("api:latest");
        let without = |pointer: &str, field: &str| {
            let mut revision = replica_set(&one, "api-1");
            revision.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(field);
            found(&one, &[revision])
        };
        assert_eq!(without("/metadata/annotations", RECEIPT_ANNOTATION), None);
        assert_eq!(without("/metadata/ownerReferences/0", "controller"), None);
        assert_eq!(without("/metadata/ownerReferences/0", "uid"), None);
        assert_eq!(without("/metadata/ownerReferences/0", "name"), Some("api-1".to_owned()));
        let mut unowned = one.clone();
        unowned["metadata"]["uid"] = Value::Null;
        assert_eq!(found(&unowned, &[replica_set(&unowned, "api-1")]), None);
    }

    #[test]
    fn a_receipt_for_another_template_is_no_proof() {
        let one = workload("api:latest");
        let mut revision = replica_set(&one, "api-1");
        revision["metadata"]["annotations"] = workload("api:2")["metadata"]["annotations"].clone();
        assert_eq!(found(&one, &[revision]), None);
        let mut forged = one.clone();
        forged["metadata"]["annotations"] = json!({});
        assert!(!may_be_rollback(&Workload::view(&forged).unwrap()));
    }

    #[test]
    fn reads_the_revisions_of_a_stateful_set() {
        // `kubectl rollout undo` restores its template only.
        let mut one = workload("api:latest");
        one["kind"] = "StatefulSet".into();
        let mut revision = replica_set(&one, "api-1");
        let mut spec = revision["spec"].take();
        spec["template"]["$patch"] = "replace".into();
        revision["data"] = json!({"spec": spec});
        assert_eq!(found(&one, &[revision]), Some("api-1".to_owned()));
    }
}
