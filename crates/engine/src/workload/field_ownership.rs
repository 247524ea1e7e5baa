//! Who wrote a field: what people declared stays theirs, even where it happens to equal what Tidegate would inject.

use std::cell::OnceCell;

use serde_json::Value;

use super::field_path::key_field;
use super::{FieldPath, Workload};
use crate::api::RECEIPT_ANNOTATION;
use crate::kind;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What people declared of one workload, by client-side and by server-side apply. It is read once, when it is first
/// asked for.
///
/// Updates do not count: a value that was changed by one differs from the injected value. Nor does it count as declared
/// what somebody only copied: who applies an object as `kubectl get -o yaml` shows it has the injected values and the
/// receipt in it.
pub struct FieldOwnership<'a> {
    workload: Workload<'a>,
    injected: Injected,
    last_applied: OnceCell<Option<Value>>,
    /// What was only copied, by the annotation and by each applier.
    copied: OnceCell<(Vec<FieldPath>, Vec<Vec<FieldPath>>)>,
}

/// Returns what the receipt of an object names and the object has.
type Injected = fn(&Workload) -> Vec<FieldPath>;

impl<'a> FieldOwnership<'a> {
    /// Will read the `last-applied-configuration` annotation and the managed fields of a workload. `injected` returns
    /// what the receipt of an object names and the object has.
    #[must_use]
    pub fn new(workload: Workload<'a>, injected: Injected) -> Self {
        Self { workload, injected, last_applied: OnceCell::new(), copied: OnceCell::new() }
    }

    /// Returns whether somebody declared the value at a path of the pod spec.
    #[must_use]
    pub fn is_set_by_author(&self, path: &FieldPath) -> bool {
        let (by_annotation, by_appliers) = self.copied();
        let template = self.workload.known_kind().template();
        let in_template = |applied: &Value| {
            let template = applied.pointer(template).unwrap_or(&Value::Null);
            path.get(&template["spec"]).is_some()
        };
        self.last_applied().is_some_and(in_template) && !by_annotation.contains(path)
            || self
                .appliers()
                .zip(by_appliers)
                .any(|(fields, copied)| owns(fields, template, path) && !copied.contains(path))
    }

    /// Returns whether somebody declared a field that the API server fills in where nobody does; its path is from the
    /// object.
    #[must_use]
    pub fn is_declared(&self, path: &[&str]) -> bool {
        let is_in = |object: &Value| !path.iter().fold(object, |value, field| &value[*field]).is_null();
        let applied = self.last_applied();
        // A manifest as its author wrote it: the API server notes who manages what, and fills in what is not said,
        // later.
        if applied.is_none() && self.workload.metadata("managedFields").is_null() {
            return is_in(self.workload.object());
        }
        let is_managed =
            |fields: &Value| !path.iter().fold(fields, |value, field| &value[format!("f:{field}")]).is_null();
        applied.is_some_and(is_in) || self.appliers().any(is_managed)
    }

    /// Returns what was applied last, client-side.
    fn last_applied(&self) -> Option<&Value> {
        let parsed = || serde_json::from_str(self.workload.annotation(LAST_APPLIED)?).ok();
        self.last_applied.get_or_init(parsed).as_ref()
    }

    fn copied(&self) -> &(Vec<FieldPath>, Vec<Vec<FieldPath>>) {
        self.copied.get_or_init(|| {
            let applied = self.last_applied().and_then(|applied| Workload::view(applied).ok());
            let own = OnceCell::new();
            let by_applier = |fields: &Value| {
                let own = || own.get_or_init(|| (self.injected)(&self.workload)).clone();
                if owns_receipt(fields) { own() } else { Vec::new() }
            };
            (applied.as_ref().map(self.injected).unwrap_or_default(), self.appliers().map(by_applier).collect())
        })
    }

    /// Returns the fields of those who applied the workload by server-side apply.
    fn appliers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let managers = self.workload.metadata("managedFields").as_array().map_or(&[][..], Vec::as_slice);
        managers.iter().filter(|manager| manager["operation"] == "Apply").map(|manager| &manager["fieldsV1"])
    }
}

/// Tells whether a set of managed fields has the receipt.
fn owns_receipt(fields: &Value) -> bool {
    !fields["f:metadata"]["f:annotations"][format!("f:{RECEIPT_ANNOTATION}")].is_null()
}

/// Tells whether a set of managed fields has a path below the spec of a pod template.
///
/// The format is `fieldsV1` of
/// <https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management>.
fn owns(fields: &Value, template: &str, path: &FieldPath) -> bool {
    let way = kind::fields(template).chain(["spec"]);
    let mut place = way.fold(fields, |place, field| &place[format!("f:{field}")]);
    let mut list = "";
    for segment in path.segments() {
        let Some(below) = place.get(format!("f:{segment}")).or_else(|| item(place, list, segment)) else {
            return false;
        };
        if ATOMIC.contains(&segment.as_str()) {
            return true;
        }
        (place, list) = (below, segment);
    }
    true
}

/// Lists that have one owner as a whole (`x-kubernetes-list-type: atomic`).
const ATOMIC: [&str; 1] = ["tolerations"];

/// Returns what is managed of an item of a list, which may have further fields in its key.
fn item<'a>(fields: &'a Value, list: &str, key: &str) -> Option<&'a Value> {
    let begin = format!("k:{{\"{}\":{}", key_field(list), Value::from(key));
    let ends = |name: &str| name.strip_prefix(&begin).is_some_and(|rest| rest.starts_with(['}', ',']));
    fields.as_object()?.iter().find(|(name, _)| ends(name)).map(|(_, below)| below)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn limit(resource: &str) -> FieldPath {
        FieldPath::new(["containers", "api", "resources", "limits", resource])
    }

    fn nothing(_: &Workload) -> Vec<FieldPath> {
        Vec::new()
    }

    #[test]
    fn what_was_copied_with_its_receipt_is_not_declared() {
        let pod = json!({"containers": [{"name": "api", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]});
        let applied = json!({"spec": {"template": {"spec": pod}}});
        let dumped = json!({"metadata": {"annotations": {LAST_APPLIED: applied.to_string()}}});
        let authors = FieldOwnership::new(Workload::view(&dumped).unwrap(), |_| vec![limit("cpu")]);
        assert!(!authors.is_set_by_author(&limit("cpu")) && authors.is_set_by_author(&limit("memory")));
        let limits = json!({"f:cpu": {}, "f:memory": {}});
        let mut fields = json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"api\"}":
            {"f:resources": {"f:limits": limits}}}}}}});
        let of = |fields: &Value, path: &FieldPath| {
            let object = json!({"metadata": {"managedFields": [{"operation": "Apply", "fieldsV1": fields}]}});
            FieldOwnership::new(Workload::view(&object).unwrap(), |_| vec![limit("cpu")]).is_set_by_author(path)
        };
        assert!(of(&fields, &limit("cpu")), "an author may declare what is injected too");
        fields["f:metadata"]["f:annotations"] = json!({format!("f:{RECEIPT_ANNOTATION}"): {}});
        assert!(!of(&fields, &limit("cpu")) && of(&fields, &limit("memory")));
    }

    #[test]
    fn a_declared_field_is_its_authors() {
        let applied = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "api", "resources": {"limits": {"cpu": "1"}}}]}}}});
        let object = json!({"metadata": {"annotations": {LAST_APPLIED: applied.to_string()}}});
        let authors = FieldOwnership::new(Workload::view(&object).unwrap(), nothing);
        assert!(authors.is_set_by_author(&limit("cpu")));
        assert!(!authors.is_set_by_author(&limit("memory")));
    }

    #[test]
    fn an_applied_field_is_its_authors_and_an_updated_one_is_not_told() {
        let fields = json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"api\"}":
            {"f:resources": {"f:limits": {"f:cpu": {}}}}}}}}});
        let object = json!({"metadata": {"managedFields": [{"operation": "Apply", "fieldsV1": fields}]}});
        assert!(FieldOwnership::new(Workload::view(&object).unwrap(), nothing).is_set_by_author(&limit("cpu")));
        let object = json!({"metadata": {"managedFields": [{"operation": "Update", "fieldsV1": fields}]}});
        assert!(!FieldOwnership::new(Workload::view(&object).unwrap(), nothing).is_set_by_author(&limit("cpu")));
    }
}
