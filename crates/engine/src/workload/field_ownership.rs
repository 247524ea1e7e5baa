//! Ownership of fields: a field that a user has declared is the user's, even if its value equals the injected one.

use std::cell::OnceCell;

use serde_json::Value;

use super::field_path::key_field;
use super::{FieldPath, Workload};
use crate::api::RECEIPT_ANNOTATION;
use crate::kind;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The fields of a workload that users have declared, by client-side or server-side apply. They are read once, on first
/// use.
///
/// Fields set by updates do not count: their values differ from the injected ones. Copied fields do not count either:
/// the output of `kubectl get -o yaml`, if applied, contains the injected values and the receipt.
pub struct FieldOwnership<'a> {
    workload: Workload<'a>,
    injected: Injected,
    last_applied: OnceCell<Option<Value>>,
    /// The copied fields, in the annotation and by each manager.
    copied: OnceCell<(Vec<FieldPath>, Vec<Vec<FieldPath>>)>,
}

/// Returns the injected fields of an object.
type Injected = fn(&Workload) -> Vec<FieldPath>;

impl<'a> FieldOwnership<'a> {
    /// Returns the field ownership of a workload, from its `last-applied-configuration` annotation and its managed
    /// fields. `injected` returns the fields that were injected, by the receipt, and still have the injected value.
    #[must_use]
    pub fn new(workload: Workload<'a>, injected: Injected) -> Self {
        Self { workload, injected, last_applied: OnceCell::new(), copied: OnceCell::new() }
    }

    /// Returns whether a user has declared the value at a path in the pod spec.
    #[must_use]
    pub fn is_set_by_author(&self, path: &FieldPath) -> bool {
        let (by_annotation, by_appliers) = self.copied();
        let template = self.workload.template_pointer();
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

    /// Returns whether a user has declared a field that has a default; the path is from the object.
    #[must_use]
    pub fn is_declared(&self, path: &[&str]) -> bool {
        let is_in = |object: &Value| !path.iter().fold(object, |value, field| &value[*field]).is_null();
        let applied = self.last_applied();
        // A manifest from a file: the API server sets managed fields and defaults later.
        if applied.is_none() && self.workload.metadata("managedFields").is_null() {
            return is_in(self.workload.object());
        }
        let is_managed =
            |fields: &Value| !path.iter().fold(fields, |value, field| &value[format!("f:{field}")]).is_null();
        applied.is_some_and(is_in) || self.appliers().any(is_managed)
    }

    /// Returns the object that was last applied by client-side apply.
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

    /// Returns the fields of each manager that used server-side apply.
    fn appliers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let managers = self.workload.metadata("managedFields").as_array().map_or(&[][..], Vec::as_slice);
        managers.iter().filter(|manager| manager["operation"] == "Apply").map(|manager| &manager["fieldsV1"])
    }
}

/// Returns whether managed fields contain the receipt.
fn owns_receipt(fields: &Value) -> bool {
    !fields["f:metadata"]["f:annotations"][format!("f:{RECEIPT_ANNOTATION}")].is_null()
}

/// Returns whether managed fields contain a path in the spec of a pod template.
///
/// The format is `fieldsV1` of
/// <https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management>.
fn owns(fields: &Value, template: &str, path: &FieldPath) -> bool {
    let pod_spec = kind::fields(template).chain(["spec"]);
    let mut place = pod_spec.fold(fields, |place, field| &place[format!("f:{field}")]);
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

/// Returns the managed fields of a list item, whose key may have further fields.
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
    fn copied_fields_are_not_declared() {
        let pod = json!({"containers": [{"name": "api", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]});
        let applied = json!({"spec": {"template": {"spec": pod}}});
        let dumped = json!({"metadata": {"annotations": {LAST_APPLIED: applied.to_string()}}});
        let ownership = FieldOwnership::new(Workload::view(&dumped).unwrap(), |_| vec![limit("cpu")]);
        assert!(!ownership.is_set_by_author(&limit("cpu")) && ownership.is_set_by_author(&limit("memory")));
        let limits = json!({"f:cpu": {}, "f:memory": {}});
        let mut fields = json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"api\"}":
            {"f:resources": {"f:limits": limits}}}}}}});
        let of = |fields: &Value, path: &FieldPath| {
            let object = json!({"metadata": {"managedFields": [{"operation": "Apply", "fieldsV1": fields}]}});
            FieldOwnership::new(Workload::view(&object).unwrap(), |_| vec![limit("cpu")]).is_set_by_author(path)
        };
        assert!(of(&fields, &limit("cpu")), "a user may declare an injected field");
        fields["f:metadata"]["f:annotations"] = json!({format!("f:{RECEIPT_ANNOTATION}"): {}});
        assert!(!of(&fields, &limit("cpu")) && of(&fields, &limit("memory")));
    }

    #[test]
    fn fields_of_client_side_apply_are_declared() {
        let applied = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "api", "resources": {"limits": {"cpu": "1"}}}]}}}});
        let object = json!({"metadata": {"annotations": {LAST_APPLIED: applied.to_string()}}});
        let ownership = FieldOwnership::new(Workload::view(&object).unwrap(), nothing);
        assert!(ownership.is_set_by_author(&limit("cpu")));
        assert!(!ownership.is_set_by_author(&limit("memory")));
    }

    #[test]
    fn fields_of_server_side_apply_are_declared_but_not_those_of_updates() {
        let fields = json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"api\"}":
            {"f:resources": {"f:limits": {"f:cpu": {}}}}}}}}});
        let object = json!({"metadata": {"managedFields": [{"operation": "Apply", "fieldsV1": fields}]}});
        assert!(FieldOwnership::new(Workload::view(&object).unwrap(), nothing).is_set_by_author(&limit("cpu")));
        let object = json!({"metadata": {"managedFields": [{"operation": "Update", "fieldsV1": fields}]}});
        assert!(!FieldOwnership::new(Workload::view(&object).unwrap(), nothing).is_set_by_author(&limit("cpu")));
    }
}
